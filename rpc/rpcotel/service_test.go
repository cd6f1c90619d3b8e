package rpcotel_test

import (
	"context"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcotel"
	"github.com/natscall/natscall/rpc/rpctest"
)

// The service of the tests, as generated code would describe it.
var testDesc = rpc.ServiceDesc{
	Name: "test.v1.Test", MicroName: "Test", Version: "1.0.0", File: wrapperspb.File_google_protobuf_wrappers_proto,
}

type text = wrapperspb.StringValue

var (
	testDo      = rpc.NewUnaryMethod[text, text](&testDesc, rpc.MethodDesc{Name: "Do", Idempotency: rpc.IdempotencyIdempotent})
	testNote    = rpc.NewOneWayMethod[text](&testDesc, rpc.MethodDesc{Name: "Note", Subject: "notes.new"})
	testWatch   = rpc.NewServerStreamMethod[text, text](&testDesc, rpc.MethodDesc{Name: "Watch"})
	testCollect = rpc.NewClientStreamMethod[text, text](&testDesc, rpc.MethodDesc{Name: "Collect"})
	testChat    = rpc.NewBidiMethod[text, text](&testDesc, rpc.MethodDesc{Name: "Chat"})
)

// handlers implement the service. Those that are nil echo.
type handlers struct {
	do    func(context.Context, string) (string, error)
	note  func(context.Context, string) error
	watch func(context.Context, string) error // before the second message
}

func (h *handlers) Do(ctx context.Context, req *text) (*text, error) {
	if h.do == nil {
		return req, nil
	}
	out, err := h.do(ctx, req.GetValue())
	return wrapperspb.String(out), err
}

func (h *handlers) Note(ctx context.Context, req *text) error {
	if h.note == nil {
		return nil
	}
	return h.note(ctx, req.GetValue())
}

func (h *handlers) Watch(ctx context.Context, req *text, to *rpc.Sender[*text]) error {
	if err := to.Send(req); err != nil {
		return err
	}
	if h.watch != nil {
		if err := h.watch(ctx, req.GetValue()); err != nil {
			return err
		}
	}
	return to.Send(req)
}

func (h *handlers) Collect(_ context.Context, from *rpc.Receiver[*text]) (*text, error) {
	all := ""
	for m, err := range from.All() {
		if err != nil {
			return nil, err
		}
		all += m.GetValue()
	}
	return wrapperspb.String(all), nil
}

func (h *handlers) Chat(_ context.Context, with *rpc.BidiStream[*text, *text]) error {
	for m, err := range with.All() {
		if err != nil {
			return err
		}
		if err := with.Send(m); err != nil {
			return err
		}
	}
	return nil
}

// serve serves the service until the test ends.
func serve(t testing.TB, nc *nats.Conn, h *handlers, opts ...rpc.ServerOption) *rpc.Server {
	t.Helper()
	s := rpc.NewServer(nc, opts...)
	must(t, rpc.Register(s, &testDesc, h, nil,
		rpc.HandleUnary(testDo, (*handlers).Do),
		rpc.HandleOneWay(testNote, (*handlers).Note),
		rpc.HandleServerStream(testWatch, (*handlers).Watch),
		rpc.HandleClientStream(testCollect, (*handlers).Collect),
		rpc.HandleBidi(testChat, (*handlers).Chat),
	))
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

// calls makes a call of each shape.
var calls = map[string]func(context.Context, *rpc.Client) error{
	"Do": func(ctx context.Context, c *rpc.Client) error {
		_, err := testDo.Call(ctx, c, wrapperspb.String("x"))
		return err
	},
	"Note": func(ctx context.Context, c *rpc.Client) error {
		return testNote.Call(ctx, c, wrapperspb.String("x"))
	},
	"Watch": func(ctx context.Context, c *rpc.Client) error {
		r, err := testWatch.Call(ctx, c, wrapperspb.String("x"))
		if err != nil {
			return err
		}
		for _, err := range r.All() {
			if err != nil {
				return err
			}
		}
		return nil
	},
	"Collect": func(ctx context.Context, c *rpc.Client) error {
		s, err := testCollect.Call(ctx, c)
		if err != nil {
			return err
		}
		for range 3 {
			if err := s.Send(wrapperspb.String("x")); err != nil && err != io.EOF {
				return err
			}
		}
		_, err = s.CloseAndRecv()
		return err
	},
	"Chat": func(ctx context.Context, c *rpc.Client) error {
		s, err := testChat.Call(ctx, c)
		if err != nil {
			return err
		}
		for range 2 {
			if err := s.Send(wrapperspb.String("x")); err != nil && err != io.EOF {
				return err
			}
		}
		s.CloseSend()
		for _, err := range s.All() {
			if err != nil {
				return err
			}
		}
		return nil
	},
}

// w3c is what programs set as their global propagator.
var w3c = propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})

// world is a NATS server, and what is recorded of clients and servers.
type world struct {
	*rpctest.Server
	t      testing.TB
	spans  *spans
	tracer trace.Tracer // of the program
	reader *sdkmetric.ManualReader
	opts   []rpcotel.Option
}

func newWorld(t testing.TB, opts ...sdktrace.TracerProviderOption) *world {
	w := &world{Server: rpctest.NewServer(t), t: t, spans: &spans{changed: make(chan struct{})}, reader: sdkmetric.NewManualReader()}
	tracers := sdktrace.NewTracerProvider(append(opts, sdktrace.WithSpanProcessor(w.spans))...)
	w.tracer = tracers.Tracer("program")
	w.opts = []rpcotel.Option{
		rpcotel.WithTracerProvider(tracers), rpcotel.WithPropagator(w3c),
		rpcotel.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(w.reader))),
	}
	return w
}

// interceptor returns an interceptor that records into the world.
func (w *world) interceptor(opts ...rpcotel.Option) rpc.AnyOption {
	w.t.Helper()
	i, err := rpcotel.NewInterceptor(append(slices.Clone(w.opts), opts...)...)
	must(w.t, err)
	return rpc.WithInterceptors(i)
}

// metrics returns what has been measured, by name.
func (w *world) metrics() map[string]metricdata.Metrics {
	w.t.Helper()
	var all metricdata.ResourceMetrics
	must(w.t, w.reader.Collect(context.Background(), &all))
	out := map[string]metricdata.Metrics{}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			out[m.Name] = m
		}
	}
	return out
}

// spans is a SpanProcessor for which a test can wait.
type spans struct {
	mu      sync.Mutex
	ended   []sdktrace.ReadOnlySpan
	changed chan struct{}
}

func (*spans) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (*spans) Shutdown(context.Context) error                  { return nil }
func (*spans) ForceFlush(context.Context) error                { return nil }

func (s *spans) OnEnd(span sdktrace.ReadOnlySpan) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended = append(s.ended, span)
	close(s.changed)
	s.changed = make(chan struct{})
}

// wait returns the spans when n have ended, and forgets them.
func (s *spans) wait(t testing.TB, n int) (ended []sdktrace.ReadOnlySpan) {
	t.Helper()
	timeout := time.After(30 * time.Second)
	for {
		s.mu.Lock()
		all, changed := s.ended, s.changed
		if len(all) >= n {
			s.ended = nil
		}
		s.mu.Unlock()
		switch {
		case len(all) > n:
			t.Fatalf("%d spans have ended, want %d: %v", len(all), n, names(all))
		case len(all) == n:
			return all
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("only %d spans have ended, want %d: %v", len(all), n, names(all))
		}
	}
}

func names(all []sdktrace.ReadOnlySpan) (out []string) {
	for _, span := range all {
		out = append(out, span.SpanKind().String()+" "+span.Name())
	}
	return out
}

// of returns the span of a kind, of which there has to be one.
func of(t testing.TB, all []sdktrace.ReadOnlySpan, kind trace.SpanKind) sdktrace.ReadOnlySpan {
	t.Helper()
	found := slices.DeleteFunc(slices.Clone(all), func(s sdktrace.ReadOnlySpan) bool { return s.SpanKind() != kind })
	if len(found) != 1 {
		t.Fatalf("%d spans of kind %v in %v", len(found), kind, names(all))
	}
	return found[0]
}

// values returns attributes as a map of texts.
func values(attributes []attribute.KeyValue) map[string]string {
	out := map[string]string{}
	for _, kv := range attributes {
		out[string(kv.Key)] = kv.Value.String()
	}
	return out
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// quiet is the logger of what is meant to go wrong.
var quiet = slog.New(slog.DiscardHandler)
