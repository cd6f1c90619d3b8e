package rpcdedup_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcdedup"
	"github.com/natscall/natscall/rpc/rpctest"
)

var desc = rpc.ServiceDesc{Name: "test.v1.Accounts", MicroName: "Accounts", Version: "1.0.0"}

type (
	document = structpb.Struct
	text     = wrapperspb.StringValue
)

var (
	pay    = rpc.NewUnaryMethod[document, text](&desc, rpc.MethodDesc{Name: "Pay"})
	set    = rpc.NewUnaryMethod[document, text](&desc, rpc.MethodDesc{Name: "Set", Idempotency: rpc.IdempotencyIdempotent})
	note   = rpc.NewOneWayMethod[document](&desc, rpc.MethodDesc{Name: "Note"})
	follow = rpc.NewServerStreamMethod[document, text](&desc, rpc.MethodDesc{Name: "Follow"})
)

// accounts counts what runs.
type accounts struct {
	// handle is the handler; without it the number of the run is returned.
	handle func(ctx context.Context, run int, key string) (string, error)

	mu   sync.Mutex
	runs map[string]int // by key
}

func (a *accounts) run(ctx context.Context) (*text, error) {
	key := rpc.CallFromContext(ctx).Header().Get(rpc.IdempotencyKeyHeader)
	a.mu.Lock()
	if a.runs == nil {
		a.runs = map[string]int{}
	}
	a.runs[key]++
	run := a.runs[key]
	a.mu.Unlock()
	if a.handle == nil {
		return wrapperspb.String(fmt.Sprint("run ", run)), nil
	}
	out, err := a.handle(ctx, run, key)
	return wrapperspb.String(out), err
}

func (a *accounts) of(key string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.runs[key]
}

// serve runs an instance until the test ends.
func serve(t testing.TB, nc *nats.Conn, a *accounts, opts ...rpc.ServiceOption) *rpc.Server {
	t.Helper()
	s := rpc.NewServer(nc, rpc.WithLogger(slog.New(slog.DiscardHandler)))
	must(t, register(s, a, opts...))
	must(t, s.Start(t.Context()))
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil && !errors.Is(err, nats.ErrConnectionClosed) {
			t.Error(err)
		}
	})
	return s
}

func register(s *rpc.Server, a *accounts, opts ...rpc.ServiceOption) error {
	unary := func(a *accounts, ctx context.Context, _ *document) (*text, error) { return a.run(ctx) }
	return rpc.Register(s, &desc, a, opts,
		rpc.HandleUnary(pay, unary), rpc.HandleUnary(set, unary),
		rpc.HandleOneWay(note, func(a *accounts, ctx context.Context, _ *document) error {
			_, err := a.run(ctx)
			return err
		}),
		rpc.HandleServerStream(follow, func(a *accounts, ctx context.Context, _ *document, to *rpc.Sender[*text]) error {
			res, _ := a.run(ctx)
			return to.Send(res)
		}))
}

func dial(t testing.TB, nc *nats.Conn, opts ...rpc.ClientOption) *rpc.Client {
	t.Helper()
	c := rpc.NewClient(nc, opts...)
	t.Cleanup(func() { must(t, c.Close()) })
	return c
}

// order is a request whose encoding differs from time to time, as it has a map.
func order(t testing.TB, amount int) *document {
	t.Helper()
	m, err := structpb.NewStruct(map[string]any{"amount": amount, "a": 1, "b": 2, "c": 3, "d": 4, "e": 5})
	must(t, err)
	return m
}

// stores are those that every test of a store is made with.
func stores(t *testing.T, f func(t *testing.T, srv *rpctest.Server, store rpcdedup.Store)) {
	t.Run("memory", func(t *testing.T) {
		f(t, rpctest.NewServer(t), rpcdedup.NewMemory(time.Hour))
	})
	t.Run("bucket", func(t *testing.T) {
		srv := rpctest.NewServer(t, rpctest.WithJetStream())
		f(t, srv, bucket(t, srv.Connect()))
	})
}

func bucket(t testing.TB, nc *nats.Conn) rpcdedup.Store {
	t.Helper()
	js, err := jetstream.New(nc)
	must(t, err)
	kv, err := js.CreateOrUpdateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "calls", TTL: time.Hour, Storage: jetstream.MemoryStorage})
	must(t, err)
	store, err := rpcdedup.NewBucket(t.Context(), kv)
	must(t, err)
	return store
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// want checks a result.
func want(t testing.TB, res *text, err error, value string) {
	t.Helper()
	if err != nil || res.GetValue() != value {
		t.Fatalf("got %q, %v, want %q", res.GetValue(), err, value)
	}
}

// wantError checks an error and returns it.
func wantError(t testing.TB, err error, code rpc.Code, x rpc.Execution) *rpc.Error {
	t.Helper()
	var e *rpc.Error
	if !errors.As(err, &e) || e.Code() != code || e.Execution() != x {
		t.Fatalf("got %v (%v), want %v (%v)", err, e.Execution(), code, x)
	}
	return e
}
