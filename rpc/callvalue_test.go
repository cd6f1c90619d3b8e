package rpc_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestCallValues: what interceptors leave is found by its type, and by no other.
func TestCallValues(t *testing.T) {
	nc := rpctest.Connect(t)
	type name string
	one, two := new(int), new(int)
	leave := func(values ...any) rpc.Interceptor {
		return func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
			for _, v := range values {
				call.SetValue(v)
			}
			return next(ctx, call)
		}
	}
	for _, test := range []struct {
		left  []any
		wantP *int
		wantN name
	}{
		{},
		{left: []any{nil}},
		{left: []any{one}, wantP: one},
		{left: []any{one, two}, wantP: two},
		{left: []any{one, name("a"), nil}, wantP: one, wantN: "a"},
		{left: []any{one, name("a"), two, name("b"), 3}, wantP: two, wantN: "b"},
	} {
		found := func(ctx context.Context, _ string) (string, error) {
			call := rpc.CallFromContext(ctx)
			p, okP := rpc.CallValue[*int](call)
			n, okN := rpc.CallValue[name](call)
			if _, ok := rpc.CallValue[string](call); ok || p != test.wantP || okP != (p != nil) || n != test.wantN || okN != (n != "") {
				t.Errorf("after %v: %v %v, %q %v, a string %v", test.left, p, okP, n, okN, ok)
			}
			return "", nil
		}
		s := newTestServer(t, nc, &funcs{do: found}, rpc.WithInterceptors(leave(test.left...)))
		_, err := do(testContext(t), dial(t, nc), "x")
		must(t, err)
		shutdown(t, s)
	}
	if _, ok := rpc.CallValue[*int](nil); ok {
		t.Error("no call has a value")
	}
}

// TestCallSubject: a server knows by which subject and queue group a request has come, in whatever
// form.
func TestCallSubject(t *testing.T) {
	srv := rpctest.NewServer(t)
	var subject, group atomic.Value
	s := serve(t, srv.Connect(), &funcs{}, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		subject.Store(call.Subject())
		group.Store(call.QueueGroup())
		return next(ctx, call)
	}))
	c := dial(t, srv.Connect(), rpc.WithBatching(16<<10), rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		if got := call.Subject() + call.QueueGroup(); got != "" {
			t.Errorf("on a client the subject and the queue group are %q", got)
		}
		return next(ctx, call)
	}))
	for _, test := range []struct {
		opts        []rpc.CallOption
		want, group string
	}{
		{nil, "test.v1.TestService.Do", "q"},
		{[]rpc.CallOption{rpc.WithPlainRequests()}, "test.v1.TestService.Do", "q"},
		{[]rpc.CallOption{rpc.WithInstance(s.Instance(testDesc.Name))}, "test.v1.TestService._i." + s.Instance(testDesc.Name) + ".call.Do", ""},
	} {
		_, err := do(testContext(t), c, "x", test.opts...)
		must(t, err)
		if got := subject.Load(); got != test.want {
			t.Errorf("the subject is %q, want %q", got, test.want)
		}
		if got := group.Load(); got != test.group {
			t.Errorf("the queue group is %q, want %q", got, test.group)
		}
	}
}

// TestHeaderOfBatch: what the NATS server says of the sender of a batch is said of each of its
// calls, and so is the size of the header.
func TestHeaderOfBatch(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) { accounts(t, o) }))
	var without atomic.Int64
	serve(t, srv.Connect(nats.UserInfo("svc", "x")), &funcs{}, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		if !strings.Contains(call.Header().Get("Nats-Request-Info"), `"APP"`) {
			without.Add(1)
		}
		size := len("NATS/1.0\r\n\r\n")
		for key, values := range call.Header() {
			for _, value := range values {
				size += len(key) + len(": ") + len(value) + len("\r\n")
			}
		}
		if got := call.Peer().HeaderSize; got != size {
			t.Errorf("the header has %d bytes, want %d", got, size)
		}
		return next(ctx, call)
	}))
	c := dial(t, srv.Connect(nats.UserInfo("app", "x")), rpc.WithSubjectPrefix("ext"), rpc.WithBatching(16<<10))
	together(t, c, 0, numbers(t, c, 100)...)
	_, err := do(testContext(t), c, "x", rpc.WithHeader("key", "value"), rpc.WithPlainRequests())
	must(t, err)
	if n := without.Load(); n > 0 {
		t.Errorf("%d calls without the header", n)
	}
}

// TestLargeRequestIsEncodedOnce: what OnAttempt sees of a request that is sent as a stream is what
// the server gets, although another encoding has the entries of a map in another order.
func TestLargeRequestIsEncodedOnce(t *testing.T) {
	srv := rpctest.NewServer(t)
	fields := map[string]*structpb.Value{}
	for i := range 2000 {
		fields[fmt.Sprint("key ", i)] = structpb.NewStringValue(strings.Repeat("x", 1000))
	}
	sum := func(data []byte, err error) [32]byte {
		must(t, err)
		return sha256.Sum256(data)
	}
	var sent, came [32]byte
	serve(t, srv.Connect(), &funcs{}, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		came = sum(call.RequestData())
		return next(ctx, call)
	}))
	for _, compression := range []rpc.Compression{rpc.CompressionNone, rpc.CompressionGzip} {
		c := dial(t, srv.Connect(), rpc.WithCompression(compression), rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
			call.OnAttempt(func(a *rpc.Attempt) error { sent = sum(a.Data(), nil); return nil })
			return next(ctx, call)
		}))
		_, err := testObject.Call(testContext(t), c, &structpb.Struct{Fields: fields})
		must(t, err)
		if sent != came {
			t.Errorf("%v: the server has got another encoding", compression)
		}
	}
}
