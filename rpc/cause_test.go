package rpc_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// stuck is a service whose handlers say that they run, and then wait for finish, whatever their
// contexts say.
func stuck(running chan<- string, finish <-chan struct{}) *funcs {
	wait := func(name string) { running <- name; <-finish }
	return &funcs{
		do:     func(context.Context, string) (string, error) { wait("unary"); return "", nil },
		blob:   func(context.Context, []byte) ([]byte, error) { wait("large unary"); return nil, nil },
		watch:  func(context.Context, string, *rpc.Sender[*text]) error { wait("server stream"); return nil },
		gather: func(context.Context, *rpc.Receiver[*text]) (string, error) { wait("client stream"); return "", nil },
		chat:   func(context.Context, *rpc.BidiStream[*text, *text]) error { wait("bidirectional stream"); return nil },
	}
}

// TestCauseOnTheClient: the error of a call whose ctx has ended says why, where ctx says it, and
// errors.Is finds that; before the call, while it runs, and on streams of each shape.
func TestCauseOnTheClient(t *testing.T) {
	srv := rpctest.NewServer(t)
	running, finish := make(chan string, 100), make(chan struct{})
	serve(t, srv.Connect(), stuck(running, finish))
	defer close(finish)
	c := dial(t, srv.Connect())
	shapes := func(ctx context.Context) map[string]func() error {
		calls := everyShape(ctx, c)
		delete(calls, "one-way") // which waits for nothing
		calls["plain unary"] = func() error { _, err := do(ctx, c, "x", rpc.WithPlainRequests()); return err }
		calls["large unary"] = func() error {
			_, err := testBlob.Call(ctx, c, wrapperspb.Bytes(make([]byte, 2<<20)))
			return err
		}
		return calls
	}
	canceled, expired := errors.New("the browser has gone"), errors.New("the page took too long")
	coded := rpc.NewError(rpc.CodeAborted, "another one has won")
	check := func(t *testing.T, err error, code rpc.Code, x rpc.Execution, cause error, text string) {
		t.Helper()
		e := wantCode(t, err, code, x)
		if !errors.Is(err, cause) || !strings.Contains(e.Message(), text) || strings.Contains(e.Message(), "aborted") {
			t.Errorf("%v does not say %q", err, text)
		}
	}
	for shape := range shapes(context.Background()) {
		t.Run(shape, func(t *testing.T) {
			for _, cause := range []error{canceled, coded, nil} {
				text, want := "canceled", context.Canceled
				if cause != nil {
					want = cause
					text = strings.TrimPrefix(cause.Error(), "aborted: ")
				}
				ctx, cancel := context.WithCancelCause(context.Background())
				go func() { <-running; cancel(cause) }()
				child, stop := context.WithCancel(ctx)
				check(t, shapes(child)[shape](), rpc.CodeCanceled, rpc.ExecutionMayHaveRun, want, text)
				stop()
				check(t, shapes(ctx)[shape](), rpc.CodeCanceled, rpc.ExecutionNotRun, want, text)
			}
		})
	}
	for shape := range shapes(context.Background()) { // last: whether their handlers run is open
		t.Run(shape+" deadline", func(t *testing.T) {
			ctx, cancel := context.WithTimeoutCause(context.Background(), 50*time.Millisecond, expired)
			defer cancel()
			for range 2 { // the second one after it
				err := shapes(ctx)[shape]()
				if rpc.CodeOf(err) != rpc.CodeDeadlineExceeded || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, expired) {
					t.Errorf("got %v, want a deadline exceeded because of %v", err, expired)
				}
			}
		})
	}
	over, cancel := context.WithCancelCause(context.Background())
	cancel(canceled)
	check(t, testNote.Call(over, c, &structpb.Struct{}), rpc.CodeCanceled, rpc.ExecutionNotRun, canceled, canceled.Error())
}

// TestCauseWithoutService: so does one that waits for a service.
func TestCauseWithoutService(t *testing.T) {
	c := dial(t, rpctest.Connect(t))
	gone := errors.New("the browser has gone")
	for range 20 {
		ctx, cancel := context.WithCancelCause(context.Background())
		go cancel(gone)
		for shape, call := range everyShape(ctx, c) {
			if shape == "one-way" {
				continue
			}
			if err := call(); rpc.CodeOf(err) != rpc.CodeCanceled || !errors.Is(err, gone) {
				t.Errorf("%s: %v", shape, err)
			}
		}
	}
}

// TestCauseOnTheServer: context.Cause says why the context of a handler has ended, and so
// do contexts that the handler makes of it.
func TestCauseOnTheServer(t *testing.T) {
	type key struct{}
	running, causes := make(chan bool, 1), make(chan error, 1)
	wait := func(ctx context.Context) error {
		child, cancel := context.WithCancel(context.WithValue(ctx, key{}, "v"))
		defer cancel()
		limited, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		running <- true
		cause := error(nil)
		for i, c := range []context.Context{child, ctx, limited} {
			<-c.Done()
			if i == 0 {
				cause = context.Cause(c)
			} else if got := context.Cause(c); got != cause {
				t.Errorf("context %d ended with %v, the first one with %v", i, got, cause)
			}
		}
		causes <- cause
		return ctx.Err()
	}
	impl := &funcs{
		do:     func(ctx context.Context, _ string) (string, error) { return "", wait(ctx) },
		watch:  func(ctx context.Context, _ string, _ *rpc.Sender[*text]) error { return wait(ctx) },
		gather: func(ctx context.Context, _ *rpc.Receiver[*text]) (string, error) { return "", wait(ctx) },
		chat:   func(ctx context.Context, _ *rpc.BidiStream[*text, *text]) error { return wait(ctx) },
	}
	for _, shape := range []string{"unary", "server stream", "client stream", "bidirectional stream"} {
		for _, end := range []struct {
			name string
			do   func(cancel func(), s *rpc.Server, p *rpctest.Proxy)
			code rpc.Code
			text string
			only string // part of the shapes
		}{
			{"caller", func(cancel func(), _ *rpc.Server, _ *rpctest.Proxy) { cancel() }, rpc.CodeCanceled, "the caller has gone", ""},
			{"shutdown", func(_ func(), s *rpc.Server, _ *rpctest.Proxy) {
				now, cancel := context.WithCancel(context.Background())
				cancel()
				_ = s.Shutdown(now)
			}, rpc.CodeUnavailable, "the server is being stopped", ""},
			{"unregister", func(_ func(), s *rpc.Server, _ *rpctest.Proxy) {
				now, cancel := context.WithCancel(context.Background())
				cancel()
				_ = s.Unregister(now, testDesc.Name)
			}, rpc.CodeUnavailable, "the server is being stopped", ""},
			{"connection", func(_ func(), _ *rpc.Server, p *rpctest.Proxy) { p.Cut() }, rpc.CodeUnavailable, "the stream has broken", "stream"},
			{"deadline", func(func(), *rpc.Server, *rpctest.Proxy) {}, rpc.CodeDeadlineExceeded, "", ""},
		} {
			if !strings.Contains(shape, end.only) {
				continue
			}
			t.Run(shape+" "+end.name, func(t *testing.T) {
				srv := rpctest.NewServer(t)
				p := rpctest.NewProxy(t, srv)
				s := newTestServer(t, p.Connect(), impl)
				ctx, cancel := context.WithCancel(context.Background())
				defer cancel()
				var opts []rpc.CallOption
				if end.name == "deadline" {
					opts = append(opts, rpc.WithTimeout(50*time.Millisecond))
				}
				call := everyShape(ctx, dial(t, srv.Connect(), rpc.WithoutRetry()), opts...)[shape]
				done := make(chan bool)
				go func() { defer close(done); _ = call() }()
				<-running
				end.do(cancel, s, p)
				cause := <-causes
				if rpc.CodeOf(cause) != end.code || !strings.Contains(cause.Error(), end.text) {
					t.Errorf("the cause is %v, want %v: %s", cause, end.code, end.text)
				}
				cancel()
				<-done
				shutdown(t, s)
			})
		}
	}
}

// TestCauseAfterTheHandler: what outlives a handler learns that the call is over, and nothing else.
func TestCauseAfterTheHandler(t *testing.T) {
	nc := rpctest.Connect(t)
	contexts := make(chan context.Context, 1)
	fail := rpc.NewError(rpc.CodeAborted, "no")
	serve(t, nc, &funcs{
		do:    func(ctx context.Context, _ string) (string, error) { contexts <- ctx; return "", fail },
		watch: func(ctx context.Context, _ string, _ *rpc.Sender[*text]) error { contexts <- ctx; return fail },
	})
	calls := everyShape(testContext(t), dial(t, nc))
	for _, shape := range []string{"unary", "server stream"} {
		if err := calls[shape](); rpc.CodeOf(err) != rpc.CodeAborted {
			t.Errorf("%s: %v", shape, err)
		}
		ctx := <-contexts
		<-ctx.Done()
		if cause := context.Cause(ctx); cause != context.Canceled {
			t.Errorf("%s: the cause is %v", shape, cause)
		}
	}
}
