package rpc_test

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// logLines is a log whose lines a test looks at.
type logLines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logLines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logLines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// newLog returns a server's option and what is logged by it.
func newLog() (rpc.ServerOption, *logLines) {
	l := new(logLines)
	return rpc.WithLogger(slog.New(slog.NewTextHandler(l, nil))), l
}

// TestUserCodeEndsNothing: whatever code of the user's panics, or ends its goroutine,
// wherever the runtime runs it: the call is answered, the server goes on, and
// nothing stays behind.
func TestUserCodeEndsNothing(t *testing.T) {
	ends := map[string]func(){
		"panic":     func() { panic("user code") },
		"nil error": func() { panic(error(nil)) },
		"Goexit":    runtime.Goexit,
	}
	places := map[string]func(end func()) (*funcs, rpc.Interceptor){
		"handler": func(end func()) (*funcs, rpc.Interceptor) {
			return &funcs{
				do:     func(context.Context, string) (string, error) { end(); return "", nil },
				watch:  func(context.Context, string, *rpc.Sender[*text]) error { end(); return nil },
				gather: func(context.Context, *rpc.Receiver[*text]) (string, error) { end(); return "", nil },
			}, nil
		},
		"interceptor":        around(func(end func(), _ *rpc.Call, _ func() error) error { end(); return nil }),
		"interceptor, after": around(func(end func(), _ *rpc.Call, next func() error) error { _ = next(); end(); return nil }),
		"OnEnd": around(func(end func(), call *rpc.Call, next func() error) error {
			call.OnEnd(func(error) { end() })
			return next()
		}),
		"OnEnd after a panic": around(func(end func(), call *rpc.Call, _ func() error) error {
			call.OnEnd(func(error) { end() })
			panic("first")
		}),
		"OnSend": around(func(end func(), call *rpc.Call, next func() error) error {
			call.OnSend(func(*rpc.Message) error { end(); return nil })
			return next()
		}),
		"OnSent": around(func(end func(), call *rpc.Call, next func() error) error {
			call.OnSent(func(*rpc.Message, error) { end() })
			return next()
		}),
		"OnReceive": around(func(end func(), call *rpc.Call, next func() error) error {
			call.OnReceive(func(*rpc.Message) error { end(); return nil })
			return next()
		}),
		"an error's text": around(func(end func(), _ *rpc.Call, _ func() error) error { return errorFunc(end) }),
	}
	for place, make := range places {
		for how, end := range ends {
			t.Run(place+" "+how, func(t *testing.T) {
				srv := rpctest.NewServer(t)
				logger, _ := newLog()
				var broken atomic.Bool
				broken.Store(true)
				impl, interceptor := make(func() {
					if broken.Load() {
						end()
					}
				})
				opts := []rpc.ServerOption{logger}
				if interceptor != nil {
					opts = append(opts, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
						if !broken.Load() {
							return next(ctx, call)
						}
						return interceptor(ctx, call, next)
					}))
				}
				s := serve(t, srv.Connect(), impl, opts...)
				c := dial(t, srv.Connect())
				answered := func(err error) {
					if code := rpc.CodeOf(err); code == rpc.CodeUnavailable || code == rpc.CodeDeadlineExceeded {
						t.Errorf("the call ended with %v", err)
					}
				}
				for range 3 { // more than one goroutine of the pool
					answered(callOnce(t, c))
					r, err := watch(testContext(t), c, "x")
					if err == nil {
						_, err = recvAll(r.Recv)
					}
					answered(err)
					g, err := testGather.Call(testContext(t), c)
					if err == nil {
						_ = g.Send(wrapperspb.String("x"))
						_, err = g.CloseAndRecv()
					}
					answered(err)
				}
				broken.Store(false)
				until(t, "the calls leave the table", func() bool { return s.Open() == 0 })
				if err := callOnce(t, c); err != nil && place != "handler" {
					t.Errorf("afterwards: %v", err)
				}
			})
		}
	}
}

// around makes an interceptor in front of handlers that echo.
func around(f func(end func(), call *rpc.Call, next func() error) error) func(end func()) (*funcs, rpc.Interceptor) {
	return func(end func()) (*funcs, rpc.Interceptor) {
		return &funcs{}, func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
			return f(end, call, func() error { return next(ctx, call) })
		}
	}
}

// errorFunc is an error whose text is code of the user's.
type errorFunc func()

func (f errorFunc) Error() string { f(); return "text" }

// TestClientHooksEndNothing: nor does a hook of a client, which may run on a goroutine of nats.go.
func TestClientHooksEndNothing(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{})
	var others atomic.Int32
	c := dial(t, nc, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.OnEnd(func(error) { others.Add(1) })
		call.OnEnd(func(error) { panic("user code") })
		return next(ctx, call)
	}))
	log := new(logLines)
	before := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(log, nil)))
	defer slog.SetDefault(before)
	must(t, callOnce(t, c))
	r, err := watch(testContext(t), c, "x")
	must(t, err)
	_, err = recvAll(r.Recv)
	must(t, err)
	until(t, "the hooks have run", func() bool { return others.Load() == 2 })
	if n := strings.Count(log.String(), "a function of OnEnd panicked"); n != 2 {
		t.Errorf("%d panics are logged:\n%s", n, log)
	}
}

// TestNextTwice: what an interceptor may do with next.
func TestNextTwice(t *testing.T) {
	nc := rpctest.Connect(t)
	var ran, ended atomic.Int32
	impl := &funcs{
		do: func(_ context.Context, in string) (string, error) { ran.Add(1); return in, nil },
		watch: func(ctx context.Context, _ string, to *rpc.Sender[*text]) error {
			ran.Add(1)
			defer ended.Add(1)
			if err := to.Send(wrapperspb.String("x")); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		},
		gather: func(_ context.Context, from *rpc.Receiver[*text]) (string, error) {
			ran.Add(1)
			_, err := recvAll(from.Recv)
			return "x", err
		},
	}
	twice := rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		return errors.Join(next(ctx, call), next(ctx, call))
	})
	serve(t, nc, impl)
	c := dial(t, nc, twice)
	must(t, callOnce(t, c))
	if ran.Load() != 2 {
		t.Errorf("the unary handler ran %d times", ran.Load())
	}
	r, err := watch(testContext(t), c, "x")
	must(t, err)
	until(t, "the first stream ends", func() bool { return ended.Load() == 1 })
	_, err = r.Recv()
	must(t, err)
	if c.OpenStreams() != 1 {
		t.Errorf("%d streams are open", c.OpenStreams())
	}
	r.Close()
	until(t, "the second stream ends", func() bool { return ended.Load() == 2 })

	ran.Store(0)
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), impl, twice)
	c = dial(t, srv.Connect())
	must(t, callOnce(t, c))
	s, err := testGather.Call(testContext(t), c)
	must(t, err)
	_, err = s.CloseAndRecv()
	e := wantCode(t, err, rpc.CodeInternal, rpc.ExecutionDidRun)
	wantText(t, e, "called next twice")
	if ran.Load() != 3 {
		t.Errorf("the handlers ran %d times", ran.Load())
	}
}

// TestRequestIsDecodedOnce: an interceptor that goes on after a request that does not
// decode gets the same error again, and so does the caller.
func TestRequestIsDecodedOnce(t *testing.T) {
	nc := rpctest.Connect(t)
	var errs []error
	serve(t, nc, &funcs{}, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		for range 3 {
			_, err := call.Request()
			errs = append(errs, err)
		}
		return next(ctx, call)
	}))
	bad := gzipped(t, []byte(strings.Repeat("\xff", 2000)))
	m := request(t, nc, 1, bad)
	if got := m.Header.Get("Nats-Service-Error"); !strings.Contains(got, "not a valid google.protobuf.BytesValue") {
		t.Errorf("the caller gets %q", got)
	}
	for _, err := range errs {
		if err == nil || err != errs[0] {
			t.Errorf("the interceptor gets %v, then %v", errs[0], err)
		}
	}
}

// TestNilErrorOfInterceptor: an interceptor that returns a nil *Error as an error has failed.
func TestNilErrorOfInterceptor(t *testing.T) {
	var none *rpc.Error
	returnsNil := rpc.WithInterceptors(func(context.Context, *rpc.Call, rpc.Next) error { return none })
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{})
	c := dial(t, srv.Connect(), returnsNil)
	wantCode(t, callOnce(t, c), rpc.CodeUnknown, rpc.ExecutionNotRun)
	_, err := watch(testContext(t), c, "x")
	wantCode(t, err, rpc.CodeUnknown, rpc.ExecutionNotRun)

	srv = rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{}, returnsNil)
	wantCode(t, callOnce(t, dial(t, srv.Connect())), rpc.CodeUnknown, rpc.ExecutionNotRun)
}
