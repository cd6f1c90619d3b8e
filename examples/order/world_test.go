package order

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/examples/internal/app"
	"github.com/natscall/natscall/examples/inventory"
	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// testLease is long for what a step takes on a busy machine, and short for a
// test that waits for it.
const testLease = 2400 * time.Millisecond

// world is a NATS server with JetStream, and clients of the services on it.
type world struct {
	t      *testing.T
	srv    *rpctest.Server
	config Config
	nc     *nats.Conn
	stock  inventoryv1nats.InventoryServiceClient
	orders orderv1nats.OrderServiceClient
	feed   orderv1nats.OrderFeedServiceClient
}

func newWorld(t *testing.T) *world {
	srv := rpctest.NewServer(t, rpctest.WithJetStream())
	nc := srv.Connect()
	client := rpc.NewClient(nc)
	t.Cleanup(func() { _ = client.Close() })
	w := &world{
		t: t, srv: srv, nc: nc,
		config: Config{Settings: app.Settings{Log: slog.New(slog.DiscardHandler)}, Lease: testLease},
	}
	return w.through(client)
}

// through is the world as another client sees it.
func (w world) through(client *rpc.Client) *world {
	w.stock = inventoryv1nats.NewInventoryServiceClient(client)
	w.orders = orderv1nats.NewOrderServiceClient(client)
	w.feed = orderv1nats.NewOrderFeedServiceClient(client)
	return &w
}

// run runs a replica until the returned function, or the end of the test, stops it.
func (w *world) run(serve func(context.Context, *nats.Conn) error) (stop func()) {
	nc := w.srv.Connect()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, nc) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) { // or it still starts
			w.t.Errorf("replica: %v", err)
		}
		nc.Close()
	})
	w.t.Cleanup(stop)
	return stop
}

func (w *world) runInventory() (stop func()) {
	return w.run(func(ctx context.Context, nc *nats.Conn) error { return inventory.Run(ctx, nc, w.config.Settings) })
}

func (w *world) runOrder() (stop func()) {
	return w.run(func(ctx context.Context, nc *nats.Conn) error { return Run(ctx, nc, w.config) })
}

// service is an order service that nobody can call but the test, and that
// does not look after the orders of others.
func (w *world) service() *Service {
	w.t.Helper()
	nc := w.srv.Connect()
	client := rpc.NewClient(nc)
	w.t.Cleanup(func() { _ = client.Close() })
	s, err := New(w.t.Context(), nc, client, w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) add(product string, quantity int32) {
	w.t.Helper()
	if _, err := w.stock.AddStock(w.t.Context(), &inventoryv1.AddStockRequest{ProductId: product, Quantity: quantity}); err != nil {
		w.t.Fatal(err)
	}
}

// checkStock fails the test unless the product's stock is this.
func (w *world) checkStock(product string, available, reserved, sold int32) {
	w.t.Helper()
	res, err := w.stock.GetStock(w.t.Context(), &inventoryv1.GetStockRequest{ProductId: product})
	if err != nil {
		w.t.Error(err)
		return
	}
	if p := res.GetStock(); p.GetAvailable() != available || p.GetReserved() != reserved || p.GetSold() != sold {
		w.t.Errorf("stock %v, want %d available, %d reserved, %d sold", p, available, reserved, sold)
	}
}

// finished waits until nothing is left to do for the order.
func (w *world) finished(s *Service, key string) record {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()
	changes, err := s.orders.Watch(ctx, key)
	if err != nil {
		w.t.Fatal(err)
	}
	var last record
	for r := range changes {
		if last = r.Value; last.finished() {
			return last
		}
	}
	w.t.Fatalf("order %s is %v and not finished", key, last.Order.Msg)
	return last
}

// heard waits until the feed has an event of the order and product.
func (w *world) heard(order, product string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	for range persistence.Attempts(ctx) {
		res, err := w.feed.ListFeed(ctx, &orderv1.ListFeedRequest{Limit: 1000})
		if err != nil {
			w.t.Fatal(err)
		}
		for _, item := range res.GetItems() {
			if item.GetOrderId() == order && item.GetProductId() == product {
				return
			}
		}
	}
	w.t.Errorf("no event of order %s and product %s", order, product)
}

func request(id string, lines ...*orderv1.Line) *orderv1.PlaceOrderRequest {
	return &orderv1.PlaceOrderRequest{RequestId: id, Lines: lines}
}

func line(product string, quantity int32) *orderv1.Line {
	return &orderv1.Line{ProductId: product, Quantity: quantity}
}

// detail is the order that the error of PlaceOrder has as its detail.
func detail(t *testing.T, err error) *orderv1.Order {
	t.Helper()
	var e *rpc.Error
	if errors.As(err, &e) && len(e.Details()) == 1 {
		if order, ok := e.Details()[0].(*orderv1.Order); ok {
			return order
		}
	}
	t.Fatalf("%v has no order as its detail", err)
	return nil
}
