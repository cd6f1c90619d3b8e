package interceptors

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/sony/gobreaker/v2"

	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// counted counts the calls of GetStock, which end with err.
type counted struct {
	inventoryv1nats.UnimplementedInventoryServiceServer
	calls int32
	err   error
}

func (c *counted) GetStock(_ context.Context, req *inventoryv1.GetStockRequest) (*inventoryv1.GetStockResponse, error) {
	c.calls++
	if c.err != nil {
		return nil, c.err
	}
	return &inventoryv1.GetStockResponse{Stock: &inventoryv1.Stock{ProductId: req.GetProductId(), Available: c.calls}}, nil
}

func serveCounted(t *testing.T, srv *rpctest.Server) (c *counted, dial func(rpc.Interceptor) inventoryv1nats.InventoryServiceClient) {
	c = new(counted)
	s := rpc.NewServer(srv.Connect())
	if err := inventoryv1nats.RegisterInventoryServiceServer(s, c); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Shutdown(context.Background()) })
	return c, func(i rpc.Interceptor) inventoryv1nats.InventoryServiceClient {
		client := rpc.NewClient(srv.Connect(), rpc.WithInterceptors(i))
		t.Cleanup(func() { _ = client.Close() })
		return inventoryv1nats.NewInventoryServiceClient(client)
	}
}

// TestCache: a call is answered from the cache while the response is young enough, nobody else's
// response changes with that of a caller, and the number of responses is bounded.
func TestCache(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		_, dial := serveCounted(t, srv)
		client := dial(Cache(time.Minute, 2))
		get := func(product string, want int32, opts ...rpc.CallOption) {
			t.Helper()
			res, err := client.GetStock(t.Context(), &inventoryv1.GetStockRequest{ProductId: product}, opts...)
			if err != nil {
				t.Fatal(err)
			}
			if got := res.GetStock(); got.GetAvailable() != want || got.GetProductId() != product {
				t.Errorf("%s: %v, want the answer to call %d", product, got, want)
			}
			res.GetStock().Available = 1000
		}
		get("apple", 1)
		get("apple", 1)
		get("plum", 2)
		get("apple", 3, rpc.WithHeader("tenant", "x"))
		get("apple", 1)
		get("pear", 4) // puts one out
		get("pear", 4)
		<-time.After(time.Minute)
		get("pear", 5)
	})
}

// TestBreak: failures open the circuit of a method, answers with another code do not, and it closes
// again with the first success.
func TestBreak(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		service, dial := serveCounted(t, srv)
		client := dial(Break(gobreaker.Settings{
			Timeout:     time.Second,
			ReadyToTrip: func(c gobreaker.Counts) bool { return c.ConsecutiveFailures >= 3 },
		}))
		call := func(code rpc.Code) (err error) {
			t.Helper()
			if _, err = client.GetStock(t.Context(), &inventoryv1.GetStockRequest{}); rpc.CodeOf(err) != code {
				t.Errorf("%v, want %v", err, code)
			}
			return err
		}
		service.err = rpc.Errorf(rpc.CodeNotFound, "no such product")
		for range 5 {
			call(rpc.CodeNotFound)
		}
		service.err = rpc.Errorf(rpc.CodeInternal, "in trouble")
		for range 3 {
			call(rpc.CodeInternal)
		}
		before := service.calls
		err := call(rpc.CodeUnavailable)
		var refused *rpc.Error
		if !errors.As(err, &refused) || refused.Execution() != rpc.ExecutionNotRun || !errors.Is(err, gobreaker.ErrOpenState) || service.calls != before {
			t.Errorf("while the circuit is open: %v (%v), the service has got %d calls", err, refused.Execution(), service.calls-before)
		}
		service.err = nil
		<-time.After(2 * time.Second)
		call(rpc.CodeOK)
		call(rpc.CodeOK)
	})
}
