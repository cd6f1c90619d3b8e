package rpc_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestNothingOvertakesACancel: once the caller's context has ended, neither a
// message nor the end of the requests reaches the handler, and no response the caller.
func TestNothingOvertakesACancel(t *testing.T) {
	nc := rpctest.Connect(t)
	type seen struct {
		messages int
		err      error
	}
	handled := make(chan seen, 1)
	count := func(recv func() (*text, error)) (n int, err error) {
		for ; err == nil; n++ {
			_, err = recv()
		}
		return n - 1, err
	}
	s := serve(t, nc, &funcs{
		gather: func(_ context.Context, from *rpc.Receiver[*text]) (string, error) {
			n, err := count(from.Recv)
			handled <- seen{n, err}
			return "committed", nil
		},
		chat: func(_ context.Context, with *rpc.BidiStream[*text, *text]) error {
			n, err := count(with.Recv)
			handled <- seen{n, err}
			return nil
		},
	})
	c := dial(t, nc)
	one := wrapperspb.String("1")
	for name, finish := range map[string]func(ctx context.Context, cancel func()) error{
		"CloseAndRecv": func(ctx context.Context, cancel func()) error {
			s, err := testGather.Call(ctx, c)
			must(t, err)
			must(t, s.Send(one))
			cancel()
			_, err = s.CloseAndRecv()
			return err
		},
		"Send, CloseAndRecv": func(ctx context.Context, cancel func()) error {
			s, err := testGather.Call(ctx, c)
			must(t, err)
			must(t, s.Send(one))
			cancel()
			if s.Send(one) == nil {
				t.Error("Send succeeds after the context has ended")
			}
			_, err = s.CloseAndRecv()
			return err
		},
		"CloseSend, Recv": func(ctx context.Context, cancel func()) error {
			s, err := testChat.Call(ctx, c)
			must(t, err)
			must(t, s.Send(one))
			cancel()
			s.CloseSend()
			_, err = s.Recv()
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			runs := 0
			for range soak(2000, 300) {
				ctx, cancel := context.WithCancel(testContext(t))
				err := finish(ctx, cancel)
				wantCode(t, err, rpc.CodeCanceled, rpc.ExecutionMayHaveRun)
				// A cancel that comes while the stream is being accepted comes before the handler.
				until(t, "the call has ended", func() bool { return s.Open() == 0 })
				select {
				case got := <-handled:
					runs++
					if got.err == io.EOF || got.messages > 1 {
						t.Fatalf("the handler saw %d messages and %v", got.messages, got.err)
					}
				default:
				}
			}
			if runs == 0 {
				t.Error("the handler never ran")
			}
		})
	}
}

// TestNestedCancel: nor where the context is a handler's, as in a call that a handler makes.
func TestNestedCancel(t *testing.T) {
	nc := rpctest.Connect(t)
	handled := make(chan error, 1)
	c := dial(t, nc)
	ended := make(chan struct{})
	s := serve(t, nc, &funcs{
		read: func(ctx context.Context, in string) (string, error) {
			s, err := testGather.Call(ctx, c)
			if err != nil {
				return "", err
			}
			ended <- struct{}{}
			for ctx.Err() == nil { // a handler that looks only now and then
				runtime.Gosched()
			}
			_, err = s.CloseAndRecv()
			ended <- struct{}{}
			return "", err
		},
		gather: func(_ context.Context, from *rpc.Receiver[*text]) (string, error) {
			_, err := from.Recv()
			handled <- err
			return "committed", nil
		},
	})
	runs := 0
	for range soak(1000, 200) {
		ctx, cancel := context.WithCancel(testContext(t))
		go func() { <-ended; cancel() }()
		_, err := testRead.Call(ctx, c, wrapperspb.String("x"))
		wantCode(t, err, rpc.CodeCanceled, rpc.ExecutionMayHaveRun)
		<-ended
		// A cancel that comes while the stream is being accepted comes before the handler.
		until(t, "the calls have ended", func() bool { return s.Open() == 0 })
		select {
		case got := <-handled:
			runs++
			if got == io.EOF {
				t.Fatal("the handler saw a clean end of the requests")
			}
		default:
		}
	}
	if runs == 0 {
		t.Error("the handler never ran")
	}
}

// TestInterceptorBoundsStream: the context that a server's interceptor gives to next
// bounds the handler's Send and Recv, with its cause, and not the answer.
func TestInterceptorBoundsStream(t *testing.T) {
	nc := rpctest.Connect(t)
	tired := errors.New("tired")
	got := make(chan error, 1)
	report := func(err error) error {
		got <- err
		return rpc.Errorf(rpc.CodeAborted, "ended by %v", rpc.CodeOf(err))
	}
	serve(t, nc, &funcs{
		watch: func(ctx context.Context, _ string, to *rpc.Sender[*text]) error {
			<-ctx.Done()
			return report(to.Send(&text{}))
		},
		gather: func(_ context.Context, from *rpc.Receiver[*text]) (string, error) {
			_, err := recvAll(from.Recv)
			return "", report(err)
		},
		chat: func(_ context.Context, with *rpc.BidiStream[*text, *text]) error {
			for {
				if err := with.Send(wrapperspb.String(frameFiller)); err != nil {
					return report(err)
				}
			}
		},
	}, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		ctx, cancel := context.WithTimeoutCause(ctx, 20*time.Millisecond, tired)
		defer cancel()
		return next(ctx, call)
	}))
	c := dial(t, nc)
	for name, open := range map[string]func() error{
		"server stream": func() error {
			r, err := watch(testContext(t), c, "x")
			must(t, err)
			_, err = r.Recv()
			return err
		},
		"plain server stream": func() error {
			_, end := askMany(t, nc, nil, nil)
			plainStatus(t, end, rpc.CodeAborted)
			return rpc.Errorf(rpc.CodeAborted, "")
		},
		"client stream": func() error {
			s, err := testGather.Call(testContext(t), c)
			must(t, err)
			for err == nil {
				err = s.Send(&text{})
			}
			if err != io.EOF {
				t.Errorf("Send returns %v", err)
			}
			_, err = s.CloseAndRecv()
			return err
		},
		"bidi": func() error {
			s, err := testChat.Call(testContext(t), c)
			must(t, err)
			_, err = recvAll(s.Recv)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			err := open()
			if rpc.CodeOf(err) != rpc.CodeAborted {
				t.Errorf("the caller gets %v", err)
			}
			if err := <-got; rpc.CodeOf(err) != rpc.CodeDeadlineExceeded || !errors.Is(err, tired) {
				t.Errorf("the handler gets %v", err)
			}
		})
	}
}

// TestCauses: on both sides the cause of the end is found behind the context and the error.
func TestCauses(t *testing.T) {
	nc := rpctest.Connect(t)
	running, causes := make(chan struct{}), make(chan error, 1)
	wait := func(ctx context.Context) error {
		running <- struct{}{}
		child, cancel := context.WithCancel(ctx)
		defer cancel()
		<-child.Done()
		if context.Cause(child) != context.Cause(ctx) {
			t.Errorf("the causes are %v and %v", context.Cause(child), context.Cause(ctx))
		}
		causes <- context.Cause(ctx)
		return ctx.Err()
	}
	s := newTestServer(t, nc, &funcs{
		do:    func(ctx context.Context, _ string) (string, error) { return "", wait(ctx) },
		watch: func(ctx context.Context, _ string, _ *rpc.Sender[*text]) error { return wait(ctx) },
	})
	c := dial(t, nc)
	enough := errors.New("enough")
	for name, call := range map[string]func(context.Context) error{
		"unary": func(ctx context.Context) error { _, err := do(ctx, c, "x"); return err },
		"stream": func(ctx context.Context) error {
			r, err := watch(ctx, c, "x")
			if err != nil { // the handler is there before its accept
				return err
			}
			_, err = r.Recv()
			return err
		},
	} {
		ctx, cancel := context.WithCancelCause(testContext(t))
		go func() { <-running; cancel(enough) }()
		err := call(ctx)
		if e := wantCode(t, err, rpc.CodeCanceled, rpc.ExecutionMayHaveRun); !errors.Is(e, enough) || !errors.Is(e, context.Canceled) {
			t.Errorf("%s: the caller gets %v", name, err)
		}
		wantText(t, err, "enough")
		wantText(t, <-causes, "the caller has gone")
		if rpc.CodeOf(err) != rpc.CodeCanceled {
			t.Errorf("%s: %v", name, err)
		}
		ctx, stop := context.WithTimeoutCause(testContext(t), 50*time.Millisecond, enough)
		go func() { <-running }()
		err = call(ctx)
		stop()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: the caller gets %v", name, err)
		}
		if cause := <-causes; !errors.Is(cause, context.DeadlineExceeded) {
			t.Errorf("%s: the handler's cause is %v", name, cause)
		}
	}
	until(t, "the calls are gone", func() bool { return s.Open() == 0 })
	result := make(chan error, 1)
	go func() { _, err := do(testContext(t), c, "x"); result <- err }()
	<-running
	now, cancel := context.WithCancel(context.Background())
	cancel()
	wantText(t, s.Shutdown(now), "1 of /test.v1.TestService/Do")
	wantText(t, <-causes, "the server is being stopped")
	wantCode(t, <-result, rpc.CodeUnavailable, rpc.ExecutionDidRun)
}

// TestReceiverOutlivesHandler: a handler may return while a goroutine of its own still receives,
// also where an interceptor has given it a context of its own.
func TestReceiverOutlivesHandler(t *testing.T) {
	srv := rpctest.NewServer(t)
	ended := make(chan struct{}, 1)
	impl := &funcs{chat: func(_ context.Context, with *rpc.BidiStream[*text, *text]) error {
		go func() { // ends with the stream
			for range with.All() {
				continue
			}
			ended <- struct{}{}
		}()
		return nil
	}}
	bounded := rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		return next(ctx, call)
	})
	for name, opts := range map[string][]rpc.ServerOption{"handler": nil, "interceptor": {bounded}} {
		t.Run(name, func(t *testing.T) {
			serve(t, srv.Connect(), impl, opts...)
			c := dial(t, srv.Connect())
			for range soak(2000, 100) {
				s, err := testChat.Call(testContext(t), c)
				must(t, err)
				for err == nil { // until the end has come
					err = s.Send(&text{})
				}
				<-ended
			}
		})
	}
}
