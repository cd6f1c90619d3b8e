package observe_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/natscall/natscall/examples/internal/app"
	"github.com/natscall/natscall/examples/internal/backoff"
	"github.com/natscall/natscall/examples/internal/natslog"
	"github.com/natscall/natscall/examples/internal/prom"
	"github.com/natscall/natscall/examples/internal/telemetry"
	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// instances is how many serve, each with telemetry of its own.
const instances = 2

// until is how a test waits for what is about to be.
var until = backoff.Policy{First: time.Millisecond, Limit: 100 * time.Millisecond}

// patience is generous, as machines are slow.
const patience = time.Minute

// world has instances of services that do what a request asks for, and a client of them. All of
// them show what they do as the commands of the examples do.
type world struct {
	t       *testing.T
	nc      *nats.Conn
	servers []*rpc.Server
	shown   []*telemetry.Telemetry // of the servers, and last of the client
	client  *rpc.Client
	stock   inventoryv1nats.InventoryServiceClient
	orders  orderv1nats.OrderServiceClient
	feed    orderv1nats.OrderFeedServiceClient
	logs    jetstream.Stream
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newWorld(t *testing.T) *world {
	srv := rpctest.NewServer(t, rpctest.WithJetStream())
	w := &world{t: t, nc: srv.Connect()}
	js, err := jetstream.New(w.nc)
	must(t, err)
	w.logs, err = natslog.Ensure(t.Context(), js, "", 1)
	must(t, err)
	h := &handlers{}
	for i := range instances {
		settings := w.settings(srv, "server", i+1)
		settings.Interceptors = []rpc.Interceptor{h.refuse}
		nc := srv.Connect()
		s := settings.NewServer(nc)
		must(t, errors.Join(
			inventoryv1nats.RegisterInventoryServiceServer(s, h, rpc.WithMethodLimits(inventoryv1nats.InventoryServiceAddStockMethod, 1, 1)),
			orderv1nats.RegisterOrderServiceServer(s, h), orderv1nats.RegisterOrderFeedServiceServer(s, h)))
		must(t, s.Start(t.Context()))
		w.servers = append(w.servers, s)
		t.Cleanup(func() {
			if err := s.Shutdown(context.Background()); err != nil {
				t.Error(err)
			}
		})
	}
	settings := w.settings(srv, "client", 1)
	w.client = settings.NewClient(w.nc)
	t.Cleanup(func() { _ = w.client.Close() })
	w.stock = inventoryv1nats.NewInventoryServiceClient(w.client)
	w.orders = orderv1nats.NewOrderServiceClient(w.client)
	w.feed = orderv1nats.NewOrderFeedServiceClient(w.client)
	return w
}

// settings are those of a process that shows everything.
func (w *world) settings(srv *rpctest.Server, service string, instance int) app.Settings {
	w.t.Helper()
	s := app.Settings{Server: srv.URL(), Log: slog.New(slog.DiscardHandler)}
	end, err := s.Observe(w.t.Context(), telemetry.Config{
		Service: service, Instance: string(rune('0' + instance)), Metrics: "127.0.0.1:0",
	}, true)
	must(w.t, err)
	w.t.Cleanup(end) // after the servers and the client have ended
	w.shown = append(w.shown, s.Telemetry)
	return s
}

// scrape returns the metrics of each process, the client's last.
func (w *world) scrape() (all []prom.Families) {
	w.t.Helper()
	for _, s := range w.shown {
		f, err := prom.Scrape(w.t.Context(), s.URL())
		must(w.t, err)
		all = append(all, f)
	}
	return all
}

// What a product's id, or another text of a request, asks the handlers for.
const (
	good   = "good"
	none   = "none"   // NOT_FOUND
	broken = "broken" // INTERNAL
	wrong  = "wrong"  // INVALID_ARGUMENT
	stuck  = "stuck"  // waits for the end of its context
	slow   = "slow"   // the first call waits for the end of its context, others do not
	busy   = "busy"   // is refused once, and may then be tried again
)

// handlers implement all services. What is not asked for in the tests is unimplemented.
type handlers struct {
	inventoryv1nats.UnimplementedInventoryServiceServer
	orderv1nats.UnimplementedOrderServiceServer
	orderv1nats.UnimplementedOrderFeedServiceServer

	refused, slowed atomic.Int64
}

// refuse is an interceptor.
func (h *handlers) refuse(ctx context.Context, call *rpc.Call, next rpc.Next) error {
	if req, err := call.Request(); err == nil && call.Method() == inventoryv1nats.InventoryServiceReserveMethod {
		if r, ok := req.(*inventoryv1.ReserveRequest); ok && r.GetProductId() == busy && h.refused.Add(1)%2 == 1 {
			return rpc.RetryAfter(rpc.NewError(rpc.CodeUnavailable, "busy"), time.Millisecond)
		}
	}
	return next(ctx, call)
}

// do does what the text asks for.
func (h *handlers) do(ctx context.Context, what string) error {
	switch what {
	case none:
		return rpc.NewError(rpc.CodeNotFound, "there is none")
	case broken:
		return rpc.NewError(rpc.CodeInternal, "it is broken")
	case wrong:
		return rpc.NewError(rpc.CodeInvalidArgument, "it is wrong")
	case slow:
		if h.slowed.Add(1) > 1 {
			return nil
		}
		fallthrough
	case stuck:
		<-ctx.Done()
		return ctx.Err()
	}
	return nil
}

func (h *handlers) GetStock(ctx context.Context, req *inventoryv1.GetStockRequest) (*inventoryv1.GetStockResponse, error) {
	return &inventoryv1.GetStockResponse{}, h.do(ctx, req.GetProductId())
}

func (h *handlers) AddStock(ctx context.Context, req *inventoryv1.AddStockRequest) (*inventoryv1.AddStockResponse, error) {
	return &inventoryv1.AddStockResponse{}, h.do(ctx, req.GetProductId())
}

func (h *handlers) Reserve(ctx context.Context, req *inventoryv1.ReserveRequest) (*inventoryv1.ReserveResponse, error) {
	return &inventoryv1.ReserveResponse{}, h.do(ctx, req.GetProductId())
}

// WatchStock sends a message for each product.
func (h *handlers) WatchStock(ctx context.Context, req *inventoryv1.WatchStockRequest, to *rpc.Sender[*inventoryv1.WatchStockResponse]) error {
	for _, id := range req.GetProductIds() {
		if err := h.do(ctx, id); err != nil {
			return err
		}
		if err := to.Send(&inventoryv1.WatchStockResponse{}); err != nil {
			return err
		}
	}
	return nil
}

func (h *handlers) ImportStock(ctx context.Context, from *rpc.Receiver[*inventoryv1.ImportStockRequest]) (*inventoryv1.ImportStockResponse, error) {
	for line, err := range from.All() {
		if err := errors.Join(err, h.do(ctx, line.GetProductId())); err != nil {
			return nil, err
		}
	}
	return &inventoryv1.ImportStockResponse{}, nil
}

func (h *handlers) PickOrder(ctx context.Context, with *rpc.BidiStream[*orderv1.PickOrderResponse, *orderv1.PickOrderRequest]) error {
	for req, err := range with.All() {
		if err := errors.Join(err, h.do(ctx, req.GetOrderId())); err != nil {
			return err
		}
		if err := with.Send(&orderv1.PickOrderResponse{}); err != nil {
			return err
		}
	}
	return nil
}

func (h *handlers) OrderPlaced(ctx context.Context, req *orderv1.OrderPlacedRequest) error {
	return h.do(ctx, req.GetProductId())
}

// The calls of each shape, each with a text for what the handler is to do.

func (w *world) get(ctx context.Context, what string, opts ...rpc.CallOption) error {
	_, err := w.stock.GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: what}, opts...)
	return err
}

func (w *world) reserve(ctx context.Context, what string) error {
	_, err := w.stock.Reserve(ctx, &inventoryv1.ReserveRequest{ProductId: what})
	return err
}

func (w *world) watch(ctx context.Context, what ...string) error {
	stream, err := w.stock.WatchStock(ctx, &inventoryv1.WatchStockRequest{ProductIds: what})
	if err != nil {
		return err
	}
	defer stream.Close()
	for _, err := range stream.All() {
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *world) deliver(ctx context.Context, what ...string) error {
	stream, err := w.stock.ImportStock(ctx)
	if err != nil {
		return err
	}
	for _, id := range what {
		if err := stream.Send(&inventoryv1.ImportStockRequest{ProductId: id}); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
	}
	_, err = stream.CloseAndRecv()
	return err
}

func (w *world) pick(ctx context.Context, what ...string) error {
	stream, err := w.orders.PickOrder(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	for _, id := range what {
		req := &orderv1.PickOrderRequest{Action: &orderv1.PickOrderRequest_OrderId{OrderId: id}}
		if err := stream.Send(req); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if _, err := stream.Recv(); err != nil {
			return err
		}
	}
	stream.CloseSend()
	if _, err = stream.Recv(); errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (w *world) announce(ctx context.Context, what string) error {
	return w.feed.OrderPlaced(ctx, &orderv1.OrderPlacedRequest{ProductId: what})
}

// overload lets one instance have more calls of AddStock than it takes: one runs, one waits and one
// is shed. The first two end when the third has ended.
func (w *world) overload(ctx context.Context) {
	w.t.Helper()
	running, stop := context.WithCancel(ctx)
	defer stop()
	only := rpc.WithInstance(w.servers[0].Instance(inventoryv1nats.InventoryServiceName))
	add := func(ctx context.Context, what string, want rpc.Code, ended chan<- bool) {
		_, err := w.stock.AddStock(ctx, &inventoryv1.AddStockRequest{ProductId: what}, only)
		if rpc.CodeOf(err) != want {
			w.t.Errorf("AddStock of %s: %v, want %v", what, err, want)
		}
		ended <- true
	}
	ended := make(chan bool, 3)
	go add(running, stuck, rpc.CodeCanceled, ended)
	w.await(func() bool { return w.load().InFlight == 1 }, "the first call runs")
	go add(ctx, good, rpc.CodeOK, ended)
	w.await(func() bool { return w.load().Queued == 1 }, "the second call waits")
	add(ctx, good, rpc.CodeResourceExhausted, ended)
	waited := time.NewTimer(5 * time.Millisecond) // long enough to be measured
	defer waited.Stop()
	<-waited.C
	stop()
	for range 3 {
		<-ended
	}
}

// await waits until something is so.
func (w *world) await(so func() bool, what string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	for range until.Attempts(ctx) {
		if so() {
			return
		}
	}
	w.t.Fatalf("after %v not: %s", patience, what)
}

// hedge makes a call whose first attempt is slow, so that another one wins.
func (w *world) hedge(ctx context.Context) {
	w.t.Helper()
	must(w.t, w.get(ctx, slow, rpc.WithHedging(time.Millisecond)))
}

// unanswered makes a call that no instance takes.
func (w *world) unanswered(ctx context.Context) {
	w.t.Helper()
	nobody := rpc.WithInstance("nobody")
	if err := w.get(ctx, good, nobody, rpc.WithTimeout(50*time.Millisecond)); err == nil {
		w.t.Error("nobody has answered")
	}
}
