package rpclog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/reflect/protoreflect"

	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpclog"
	"github.com/natscall/natscall/rpc/rpctest"
)

// stock serves a method of each shape.
type stock struct {
	inventoryv1nats.UnimplementedInventoryServiceServer
	orderv1nats.UnimplementedOrderFeedServiceServer
	get func(context.Context, string) error
}

func (s stock) GetStock(ctx context.Context, req *inventoryv1.GetStockRequest) (*inventoryv1.GetStockResponse, error) {
	if s.get != nil {
		if err := s.get(ctx, req.GetProductId()); err != nil {
			return nil, err
		}
	}
	return &inventoryv1.GetStockResponse{Stock: &inventoryv1.Stock{ProductId: req.GetProductId()}}, nil
}

func (stock) WatchStock(_ context.Context, _ *inventoryv1.WatchStockRequest, to *rpc.Sender[*inventoryv1.WatchStockResponse]) error {
	return to.Send(&inventoryv1.WatchStockResponse{})
}

func (stock) OrderPlaced(context.Context, *orderv1.OrderPlacedRequest) error { return nil }

func serve(t testing.TB, nc *nats.Conn, impl stock, opts ...rpc.ServerOption) *rpc.Server {
	t.Helper()
	s := rpc.NewServer(nc, opts...)
	must(t, inventoryv1nats.RegisterInventoryServiceServer(s, impl))
	must(t, orderv1nats.RegisterOrderFeedServiceServer(s, impl))
	must(t, s.Start(t.Context()))
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

func dial(t testing.TB, nc *nats.Conn, opts ...rpc.ClientOption) *rpc.Client {
	c := rpc.NewClient(nc, opts...)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func get(ctx context.Context, c *rpc.Client, product string) error {
	_, err := inventoryv1nats.NewInventoryServiceClient(c).GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: product})
	return err
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// records are what was logged, as JSON. A test can wait for them.
type records struct {
	mu      sync.Mutex
	lines   [][]byte
	written chan struct{}
}

func newRecords() *records { return &records{written: make(chan struct{}, 1000)} }

func (r *records) Write(line []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines = append(r.lines, bytes.Clone(line))
	r.written <- struct{}{}
	return len(line), nil
}

// next returns the next record, without the fields that are never the same.
func (r *records) next(t *testing.T) map[string]any {
	t.Helper()
	select {
	case <-r.written:
	case <-t.Context().Done():
		t.Fatal("nothing was logged")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	line := map[string]any{}
	must(t, json.Unmarshal(r.lines[0], &line))
	r.lines = r.lines[1:]
	if took, _ := line["duration"].(float64); took <= 0 {
		t.Errorf("the duration is %v", line["duration"])
	}
	delete(line, "time")
	delete(line, "duration")
	delete(line, "queue")
	return line
}

// left is how many records nobody has asked for.
func (r *records) left() int { return len(r.written) }

func interceptor(t testing.TB, to io.Writer, level slog.Level, opts ...rpclog.Option) rpc.AnyOption {
	t.Helper()
	log := slog.New(slog.NewJSONHandler(to, &slog.HandlerOptions{Level: level}))
	i, err := rpclog.NewInterceptor(log, opts...)
	must(t, err)
	return rpc.WithInterceptors(i)
}

// TestRecords: one record for each call on each side, at the level of its code.
func TestRecords(t *testing.T) {
	nc := rpctest.Connect(t)
	made, served := newRecords(), newRecords()
	var code rpc.Code
	s := serve(t, nc, stock{get: func(context.Context, string) error {
		if code != rpc.CodeOK {
			return rpc.Errorf(code, "no apples")
		}
		return nil
	}}, interceptor(t, served, slog.LevelDebug))
	c := dial(t, nc, interceptor(t, made, slog.LevelDebug), rpc.WithoutRetry())
	instance := s.Instance(inventoryv1nats.InventoryServiceName)
	for _, test := range []struct {
		code           rpc.Code
		client, server string
	}{
		{rpc.CodeOK, "DEBUG", "INFO"},
		{rpc.CodeNotFound, "INFO", "INFO"},
		{rpc.CodeResourceExhausted, "WARN", "WARN"},
		{rpc.CodePermissionDenied, "WARN", "WARN"},
		{rpc.CodeInternal, "ERROR", "ERROR"},
	} {
		code = test.code
		if err := get(t.Context(), c, "apple"); rpc.CodeOf(err) != code {
			t.Fatal(err)
		}
		want := map[string]any{"msg": "call made", "level": test.client, "method": inventoryv1nats.InventoryServiceGetStockMethod, "code": code.String()}
		if code != rpc.CodeOK {
			want["error"], want["execution"], want["instance"] = "no apples", "did run", instance
		}
		if diff := cmp.Diff(want, made.next(t)); diff != "" {
			t.Errorf("client, %v (-want +got):\n%s", code, diff)
		}
		want["msg"], want["level"], want["instance"] = "call served", test.server, instance
		got := served.next(t)
		if id, _ := got["call"].(string); len(id) != 32 {
			t.Errorf("the call's id is %v", got["call"])
		}
		delete(got, "call")
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("server, %v (-want +got):\n%s", code, diff)
		}
	}
	if n := made.left() + served.left(); n > 0 {
		t.Errorf("%d records too many", n)
	}
}

// TestShapes: a stream has one record too, when it is over, and so has a one-way message.
func TestShapes(t *testing.T) {
	nc := rpctest.Connect(t)
	made, served := newRecords(), newRecords()
	serve(t, nc, stock{}, interceptor(t, served, slog.LevelDebug))
	c := dial(t, nc, interceptor(t, made, slog.LevelDebug))
	r, err := inventoryv1nats.NewInventoryServiceClient(c).WatchStock(t.Context(), &inventoryv1.WatchStockRequest{})
	must(t, err)
	if made.left() > 0 {
		t.Error("there is a record before the stream is over")
	}
	for _, err := range r.All() {
		must(t, err)
	}
	must(t, orderv1nats.NewOrderFeedServiceClient(c).OrderPlaced(t.Context(), &orderv1.OrderPlacedRequest{OrderId: "x"}))
	for _, method := range []string{inventoryv1nats.InventoryServiceWatchStockMethod, orderv1nats.OrderFeedServiceOrderPlacedMethod} {
		for name, records := range map[string]*records{"client": made, "server": served} {
			if got := records.next(t); got["method"] != method || got["code"] != "ok" {
				t.Errorf("%s: %v, want %s", name, got, method)
			}
		}
	}
}

// TestLevels: what is below the handler's level is not written, also where something else is.
func TestLevels(t *testing.T) {
	nc := rpctest.Connect(t)
	made, served := newRecords(), newRecords()
	serve(t, nc, stock{get: func(_ context.Context, product string) error {
		if product == "" {
			return rpc.Errorf(rpc.CodeInvalidArgument, "which?")
		}
		return nil
	}}, interceptor(t, served, slog.LevelError))
	never := func(rpc.Code, bool) slog.Level { return slog.LevelDebug }
	quiet := newRecords()
	c := dial(t, nc, interceptor(t, quiet, slog.LevelInfo, rpclog.WithLevel(never)), interceptor(t, made, slog.LevelInfo))
	must(t, get(t.Context(), c, "apple"))
	if err := get(t.Context(), c, ""); err == nil {
		t.Fatal("the call did not fail")
	}
	if got := made.next(t); got["code"] != "invalid_argument" {
		t.Errorf("logged: %v", got)
	}
	if n := made.left() + served.left() + quiet.left(); n > 0 {
		t.Errorf("%d records too many", n)
	}
}

// TestSlow: a call that takes too long is a warning, a stream never.
func TestSlow(t *testing.T) {
	nc := rpctest.Connect(t)
	made, served := newRecords(), newRecords()
	serve(t, nc, stock{}, interceptor(t, served, slog.LevelWarn, rpclog.WithSlow(time.Hour)))
	c := dial(t, nc, interceptor(t, made, slog.LevelWarn, rpclog.WithSlow(1)))
	r, err := inventoryv1nats.NewInventoryServiceClient(c).WatchStock(t.Context(), &inventoryv1.WatchStockRequest{})
	must(t, err)
	for _, err := range r.All() {
		must(t, err)
	}
	must(t, get(t.Context(), c, "apple"))
	got := made.next(t)
	want := map[string]any{"msg": "call made", "level": "WARN", "method": inventoryv1nats.InventoryServiceGetStockMethod, "code": "ok", "slow": true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if n := made.left() + served.left(); n > 0 {
		t.Errorf("%d records too many", n)
	}
}

// TestAttrs: attributes from the context and the call; the context is the interceptor's.
func TestAttrs(t *testing.T) {
	type key struct{}
	nc := rpctest.Connect(t)
	served := newRecords()
	begin := func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		return next(context.WithValue(ctx, key{}, "4711"), call)
	}
	attrs := rpclog.WithAttrs(func(ctx context.Context, call *rpc.Call) []slog.Attr {
		return []slog.Attr{slog.Any("trace", ctx.Value(key{})), slog.String("tenant", call.Header().Get("tenant"))}
	})
	serve(t, nc, stock{}, rpc.WithInterceptors(begin), interceptor(t, served, slog.LevelInfo, attrs))
	must(t, get(t.Context(), dial(t, nc, rpc.WithHeader("tenant", "acme")), "apple"))
	if got := served.next(t); got["trace"] != "4711" || got["tenant"] != "acme" {
		t.Errorf("logged: %v", got)
	}
}

// TestMessages: requests and responses without what is redacted, cut where they are long.
func TestMessages(t *testing.T) {
	nc := rpctest.Connect(t)
	made, served := newRecords(), newRecords()
	redact := rpclog.WithRedact(func(field protoreflect.FieldDescriptor) bool {
		return field.FullName() == "inventory.v1.GetStockRequest.product_id"
	})
	serve(t, nc, stock{}, interceptor(t, served, slog.LevelInfo, rpclog.WithMessages(1000), redact))
	c := dial(t, nc, interceptor(t, made, slog.LevelDebug, rpclog.WithMessages(25)))
	must(t, get(t.Context(), c, "apple"))
	for name, test := range map[string]struct {
		records       *records
		request, want any
	}{
		"server": {served, map[string]any{"productId": "[redacted]"}, map[string]any{"stock": map[string]any{"productId": "apple"}}},
		"client": {made, map[string]any{"productId": "apple"}, `{"stock":{"productId":"ap... (31 bytes)`},
	} {
		got := test.records.next(t)
		if diff := cmp.Diff([]any{test.request, test.want}, []any{got["request"], got["response"]}); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestRefused: the record of a call does not wait for a large request that nobody has looked at.
func TestRefused(t *testing.T) {
	nc := rpctest.Connect(t)
	served := newRecords()
	refuse := func(context.Context, *rpc.Call, rpc.Next) error { return rpc.Errorf(rpc.CodeUnauthenticated, "who?") }
	serve(t, nc, stock{}, interceptor(t, served, slog.LevelInfo, rpclog.WithMessages(1000)), rpc.WithInterceptors(refuse))
	c := dial(t, nc)
	for _, product := range []string{"apple", strings.Repeat("a", 2<<20)} {
		if err := get(t.Context(), c, product); rpc.CodeOf(err) != rpc.CodeUnauthenticated {
			t.Fatal(err)
		}
		if got := served.next(t); got["code"] != "unauthenticated" || got["request"] != nil {
			t.Errorf("logged: %v", got)
		}
	}
}

// TestDefault: without a logger the records go to the default one, as it is at the time.
func TestDefault(t *testing.T) {
	nc := rpctest.Connect(t)
	i, err := rpclog.NewInterceptor(nil)
	must(t, err)
	served := newRecords()
	before := slog.Default()
	defer slog.SetDefault(before)
	serve(t, nc, stock{}, rpc.WithInterceptors(i))
	slog.SetDefault(slog.New(slog.NewJSONHandler(served, nil)))
	must(t, get(t.Context(), dial(t, nc), "apple"))
	served.next(t)
}

// TestPanic: a handler's panic ends in the record of its call.
func TestPanic(t *testing.T) {
	nc := rpctest.Connect(t)
	served := newRecords()
	quiet := rpc.WithLogger(slog.New(slog.DiscardHandler))
	serve(t, nc, stock{get: func(context.Context, string) error { panic("boom") }}, quiet, interceptor(t, served, slog.LevelInfo))
	if err := get(t.Context(), dial(t, nc), "apple"); err == nil {
		t.Fatal("the call did not fail")
	}
	if got := served.next(t); got["code"] != "internal" || got["level"] != "ERROR" {
		t.Errorf("logged: %v", got)
	}
}

func TestOptions(t *testing.T) {
	for want, opt := range map[string]rpclog.Option{
		"WithLevel(nil)":       rpclog.WithLevel(nil),
		"WithAttrs(nil)":       rpclog.WithAttrs(nil),
		"WithRedact(nil)":      rpclog.WithRedact(nil),
		"WithSlow(0s)":         rpclog.WithSlow(0),
		"WithMessages(-1)":     rpclog.WithMessages(-1),
		"rpclog: an option is": nil,
	} {
		if _, err := rpclog.NewInterceptor(nil, opt); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
