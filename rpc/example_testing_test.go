package rpc_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// The code of docs/testing.md.

// TestWatchStock tests a streaming handler.
func TestWatchStock(t *testing.T) {
	req := &inventoryv1.WatchStockRequest{ProductIds: []string{"book"}}
	updates := rpctest.ServerStream(t.Context(), t, req, stock{}.WatchStock)
	first, err := updates.Recv()
	if err != nil || first.GetStock().GetProductId() != "book" {
		t.Errorf("got %v, %v", first, err)
	}
	updates.Close() // the caller goes; the test waits until the handler has returned
}

// shelf is a service of orders.
type shelf struct {
	orderv1nats.UnimplementedOrderServiceServer
	takes time.Duration // for a request
}

func (s shelf) GetOrder(ctx context.Context, req *orderv1.GetOrderRequest) (*orderv1.GetOrderResponse, error) {
	select {
	case <-time.After(s.takes):
		return &orderv1.GetOrderResponse{Order: &orderv1.Order{OrderId: req.GetOrderId()}}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// startOrders serves impl until the test ends.
func startOrders(t *testing.T, nc *nats.Conn, impl orderv1nats.OrderServiceServer) {
	t.Helper()
	srv := rpc.NewServer(nc)
	if err := orderv1nats.RegisterOrderServiceServer(srv, impl); err != nil {
		t.Fatal(err)
	}
	if err := srv.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Shutdown(context.Background()) }) // in vain, if it was killed
}

// callOrders returns a client that is closed when the test ends.
func callOrders(t *testing.T, nc *nats.Conn) orderv1nats.OrderServiceClient {
	client := rpc.NewClient(nc)
	t.Cleanup(func() { _ = client.Close() })
	return orderv1nats.NewOrderServiceClient(client)
}

func TestGetOrder(t *testing.T) {
	nc := rpctest.Connect(t)
	startOrders(t, nc, shelf{})
	orders := callOrders(t, nc)
	res, err := orders.GetOrder(t.Context(), &orderv1.GetOrderRequest{OrderId: "42"})
	if err != nil || res.GetOrder().GetOrderId() != "42" {
		t.Errorf("got %v, %v", res, err)
	}
}

func TestLateOrder(t *testing.T) {
	srv := rpctest.NewServer(t)
	startOrders(t, srv.Connect(), shelf{})
	proxy := rpctest.NewProxy(t, srv)
	orders := callOrders(t, proxy.Connect()) // the client alone has a bad network
	proxy.Fault(func(m rpctest.Message) rpctest.Action {
		if m.To == rpctest.ToClient && strings.Contains(string(m.Data), "42") {
			return rpctest.Lose
		}
		return rpctest.Pass
	})
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	_, err := orders.GetOrder(ctx, &orderv1.GetOrderRequest{OrderId: "42"})
	if rpc.CodeOf(err) != rpc.CodeDeadlineExceeded {
		t.Errorf("got %v", err)
	}
}

// TestKilledInstance: of two instances one is killed while it works on a call. The caller does not
// notice, as the method is idempotent.
func TestKilledInstance(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		const takes = time.Minute
		first := rpctest.NewProxy(t, srv)
		startOrders(t, first.Connect(), shelf{takes: takes})
		orders := callOrders(t, srv.Connect())

		time.AfterFunc(time.Second, func() {
			startOrders(t, srv.Connect(), shelf{takes: takes})
			first.Close() // kills the instance that has the call
		})
		began := time.Now()
		_, err := orders.GetOrder(t.Context(), &orderv1.GetOrderRequest{OrderId: "42"}, rpc.WithTimeout(time.Hour))
		if took := time.Since(began); err != nil || took < takes+time.Second || took > takes+5*time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}
