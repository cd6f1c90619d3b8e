package rpc_test

import (
	"context"
	"fmt"
	"log"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// The code of docs/retries.md. TestRetriesGuide runs it.

func newInventory(nc *nats.Conn) (inventoryv1nats.InventoryServiceClient, *rpc.Client) {
	client := rpc.NewClient(nc,
		rpc.WithBackoff(10*time.Millisecond, time.Second),
		rpc.WithMethodOptions(inventoryv1nats.InventoryServiceGetStockMethod,
			rpc.WithTimeout(2*time.Second),
			rpc.WithMaxAttempts(3),
			rpc.WithRetryCodes(rpc.CodeAborted, rpc.CodeUnavailable), // what its handler returns
			rpc.WithHedgingQuantile(0.95)),
	)
	return inventoryv1nats.NewInventoryServiceClient(client), client
}

func getStock(ctx context.Context, inventory inventoryv1nats.InventoryServiceClient) (*inventoryv1.Stock, error) {
	stock, err := inventory.GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: "67890"},
		rpc.WithHedging(50*time.Millisecond))
	return stock.GetStock(), err
}

// flaky is an inventory of which every first attempt fails.
type flaky struct {
	inventoryv1nats.UnimplementedInventoryServiceServer
	calls atomic.Int32
}

func (f *flaky) GetStock(_ context.Context, req *inventoryv1.GetStockRequest) (*inventoryv1.GetStockResponse, error) {
	if req.GetProductId() == "building" {
		return nil, rpc.RetryAfter(rpc.NewError(rpc.CodeUnavailable, "the index is being built"), 2*time.Second)
	}
	if f.calls.Add(1)%2 == 1 {
		return nil, rpc.NewError(rpc.CodeAborted, "somebody else was first")
	}
	return &inventoryv1.GetStockResponse{Stock: &inventoryv1.Stock{ProductId: req.GetProductId(), Available: 7}}, nil
}

func TestRetriesGuide(t *testing.T) {
	nats := rpctest.NewServer(t)
	srv, impl := rpc.NewServer(nats.Connect()), new(flaky)
	must(t, inventoryv1nats.RegisterInventoryServiceServer(srv, impl))
	must(t, srv.Start(testContext(t)))
	defer shutdown(t, srv)
	inventory, client := newInventory(nats.Connect())
	defer client.Close()
	stock, err := getStock(testContext(t), inventory)
	if err != nil || stock.GetAvailable() != 7 || impl.calls.Load() != 2 {
		t.Errorf("the stock is %v after %d calls: %v", stock, impl.calls.Load(), err)
	}
}

func ExampleWithRetryCodes() {
	nc, stop := connect()
	defer stop()
	srv := rpc.NewServer(nc)
	if err := inventoryv1nats.RegisterInventoryServiceServer(srv, new(flaky)); err != nil {
		log.Fatal(err)
	}
	if err := srv.Start(context.Background()); err != nil {
		log.Fatal(err)
	}
	defer func() { _ = srv.Shutdown(context.Background()) }()
	client := rpc.NewClient(nc)
	defer client.Close()
	inventory := inventoryv1nats.NewInventoryServiceClient(client)

	request := &inventoryv1.GetStockRequest{ProductId: "67890"}
	_, err := inventory.GetStock(context.Background(), request, rpc.WithoutRetry())
	fmt.Println(err)
	_, _ = inventory.GetStock(context.Background(), request) // flaky fails every other time
	res, err := inventory.GetStock(context.Background(), request, rpc.WithRetryCodes(rpc.CodeAborted))
	fmt.Println(res.GetStock().GetAvailable(), err)
	// Output:
	// aborted: somebody else was first
	// 7 <nil>
}

// TestVirtualRetryAfter: the delay that a handler asks for is that of the retry.
func TestVirtualRetryAfter(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, nats *rpctest.Server) {
		srv := rpc.NewServer(nats.Connect())
		must(t, inventoryv1nats.RegisterInventoryServiceServer(srv, new(flaky)))
		must(t, srv.Start(testContext(t)))
		defer shutdown(t, srv)
		var times attemptTimes
		client := dial(t, nats.Connect(), rpc.WithInterceptors(times.intercept), rpc.WithRetryCodes(rpc.CodeUnavailable), rpc.WithMaxAttempts(3))
		inventory := inventoryv1nats.NewInventoryServiceClient(client)
		_, err := inventory.GetStock(t.Context(), &inventoryv1.GetStockRequest{ProductId: "building"})
		wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionDidRun)
		for _, gap := range times.gaps() {
			within(t, "pause", gap, 2*time.Second, 2*time.Second)
		}
		if n := len(times.gaps()); n != 2 {
			t.Errorf("%d pauses, want 2", n)
		}
	})
}
