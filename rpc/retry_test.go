package rpc_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// retryInfo is a google.rpc.RetryInfo, as a user makes it with the type that Google generates.
func retryInfo(t testing.TB, delay time.Duration) proto.Message {
	b := encode(t, durationpb.New(delay))
	return &anypb.Any{TypeUrl: "type.googleapis.com/google.rpc.RetryInfo", Value: append([]byte{1<<3 | 2, byte(len(b))}, b...)}
}

// TestUnavailableIsFinal: what a server's interceptor or handler calls UNAVAILABLE is
// sent again only where it says so.
func TestUnavailableIsFinal(t *testing.T) {
	srv := rpctest.NewServer(t)
	unavailable := func(details ...proto.Message) error {
		return rpc.NewError(rpc.CodeUnavailable, "not now", details...)
	}
	for _, test := range []struct {
		name      string
		err       error
		inHandler bool
		opts      []rpc.CallOption
		sent      int32
		code      rpc.Code
		x         rpc.Execution
	}{
		{"interceptor", unavailable(), false, nil, 1, rpc.CodeUnavailable, rpc.ExecutionNotRun},
		{"interceptor, plain", unavailable(), false, []rpc.CallOption{rpc.WithPlainRequests()}, 1, rpc.CodeUnavailable, rpc.ExecutionNotRun},
		{"RetryInfo", unavailable(retryInfo(t, 20*time.Millisecond)), false, nil, 3, rpc.CodeOK, 0},
		{"RetryInfo without a delay", unavailable(&anypb.Any{TypeUrl: "x/google.rpc.RetryInfo"}), false, nil, 3, rpc.CodeOK, 0},
		{"RetryInfo, plain", unavailable(retryInfo(t, 0)), false, []rpc.CallOption{rpc.WithPlainRequests()}, 3, rpc.CodeOK, 0},
		{"RetryInfo, JSON", unavailable(retryInfo(t, 0)), false, []rpc.CallOption{rpc.WithCodec(rpc.CodecJSON)}, 3, rpc.CodeOK, 0},
		{"RetryInfo, once", unavailable(retryInfo(t, 0)), false, []rpc.CallOption{rpc.WithoutRetry()}, 1, rpc.CodeUnavailable, rpc.ExecutionNotRun},
		{"RetryInfo beyond the deadline", unavailable(retryInfo(t, 24*time.Hour)), false, nil, 1, rpc.CodeUnavailable, rpc.ExecutionNotRun},
		{"another detail", unavailable(wrapperspb.String("x")), false, nil, 1, rpc.CodeUnavailable, rpc.ExecutionNotRun},
		{"RetryInfo, another code", rpc.NewError(rpc.CodeAborted, "x", retryInfo(t, 0)), false, nil, 1, rpc.CodeAborted, rpc.ExecutionNotRun},
		{"handler", unavailable(), true, nil, 1, rpc.CodeUnavailable, rpc.ExecutionDidRun},
		{"handler, RetryInfo", unavailable(retryInfo(t, 0)), true, nil, 1, rpc.CodeUnavailable, rpc.ExecutionDidRun},
	} {
		t.Run(test.name, func(t *testing.T) {
			var sent atomic.Int32
			fail := func() error {
				if n := sent.Add(1); n < 3 {
					return test.err
				}
				return nil
			}
			s := newTestServer(t, srv.Connect(), &funcs{do: func(_ context.Context, in string) (string, error) {
				if !test.inHandler {
					return in, nil
				}
				return in, fail()
			}}, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
				if !test.inHandler {
					if err := fail(); err != nil {
						return err
					}
				}
				return next(ctx, call)
			}))
			defer shutdown(t, s)
			_, err := do(testContext(t), dial(t, srv.Connect()), "x", test.opts...)
			if test.code == rpc.CodeOK {
				must(t, err)
			} else {
				wantCode(t, err, test.code, test.x)
			}
			if sent.Load() != test.sent {
				t.Errorf("it was sent %d times, want %d", sent.Load(), test.sent)
			}
		})
	}
}

// TestRefusalsAreRetried: what the runtime of a server refuses, as the instance is
// about to stop, goes to another one: each form of call, and as often as it takes.
func TestRefusalsAreRetried(t *testing.T) {
	srv := rpctest.NewServer(t)
	inside, proceed := make(chan struct{}, 8), make(chan struct{})
	stopped := newTestServer(t, srv.Connect(), &funcs{}, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		inside <- struct{}{}
		<-proceed
		return next(ctx, call)
	}))
	c := dial(t, srv.Connect())
	calls := map[string]func() error{
		"unary": func() error { return callOnce(t, c) },
		"plain": func() error { _, err := do(testContext(t), c, "x", rpc.WithPlainRequests()); return err },
		"json":  func() error { _, err := do(testContext(t), c, "x", rpc.WithCodec(rpc.CodecJSON)); return err },
		"large": func() error {
			_, err := testBlob.Call(testContext(t), c, wrapperspb.Bytes(make([]byte, 2<<20)))
			return err
		},
	}
	results := make(chan error)
	for name, call := range calls {
		go func() {
			err := call()
			if err != nil {
				err = errors.Join(errors.New(name), err)
			}
			results <- err
		}()
	}
	for range calls {
		<-inside
	}
	serve(t, srv.Connect(), &funcs{})
	now, cancel := context.WithCancel(context.Background())
	cancel()
	if err := stopped.Shutdown(now); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown returned %v", err)
	}
	close(proceed)
	for range calls {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

// TestOpenIsLookedFor: an open that reaches nobody, where a listener hides that nobody is
// there, ends as soon as a unary call does, and is sent again where that is safe.
func TestOpenIsLookedFor(t *testing.T) { rpctest.Bubble(t, testOpenIsLookedFor) }

func testOpenIsLookedFor(t *testing.T, srv *rpctest.Server) {
	listener := srv.Connect()
	_, err := listener.Subscribe(testRoot+".*", func(*nats.Msg) {})
	must(t, err)
	must(t, listener.Flush())
	c := dial(t, srv.Connect()) // whose heartbeat is ten seconds
	s, err := testGather.Call(testContext(t), c)
	if err == nil {
		s.Close()
	}
	e := wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionMayHaveRun)
	wantText(t, e, "no replica works on the call")

	idempotent := rpc.NewServerStreamMethod[text, text](&testDesc, rpc.MethodDesc{Name: "Watch", Idempotency: rpc.IdempotencyNoSideEffects})
	opened := make(chan error, 1)
	go func() {
		r, err := idempotent.Call(testContext(t), c, wrapperspb.String("x"))
		if err == nil {
			_, err = r.Recv()
			r.Close()
		}
		opened <- err
	}()
	serve(t, srv.Connect(), &funcs{})
	must(t, <-opened)
}
