package rpc_test

import (
	"context"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

var hello = wrapperspb.String("hello")

// TestAfterTheEnd: what is called on a stream that has ended is harmless, again and again.
func TestAfterTheEnd(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{chat: func(_ context.Context, with *rpc.BidiStream[*text, *text]) error {
		for _, err := range with.All() {
			if err != nil {
				return err
			}
		}
		with.CloseSend() // does nothing on a server
		with.Close()
		if _, err := with.Recv(); err != io.EOF {
			t.Errorf("the handler's Recv after the end: %v", err)
		}
		return with.Send(hello)
	}})
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	s, err := testChat.Call(ctx, dial(t, srv.Connect()))
	must(t, err)
	must(t, s.Send(hello))
	s.CloseSend()
	s.CloseSend()
	if err := s.Send(hello); err != io.EOF {
		wantCode(t, err, rpc.CodeFailedPrecondition, rpc.ExecutionMayHaveRun)
	}
	_, err = s.Recv()
	must(t, err)
	for range 2 {
		if _, err := s.Recv(); err != io.EOF {
			t.Errorf("Recv after the end: %v", err)
		}
		if err := s.Send(hello); err != io.EOF {
			t.Errorf("Send after the end: %v", err)
		}
		s.CloseSend()
		s.Close()
		cancel()
	}
	if n := s.Trailer(); len(n) != 0 {
		t.Errorf("trailer: %v", n)
	}
}

// TestSendAfterCloseSend while the server still works on it.
func TestSendAfterCloseSend(t *testing.T) {
	srv := rpctest.NewServer(t)
	goOn := make(chan struct{})
	serve(t, srv.Connect(), &funcs{chat: func(context.Context, *rpc.BidiStream[*text, *text]) error {
		<-goOn
		return nil
	}})
	s, err := testChat.Call(testContext(t), dial(t, srv.Connect()))
	must(t, err)
	s.CloseSend()
	wantCode(t, s.Send(hello), rpc.CodeFailedPrecondition, rpc.ExecutionMayHaveRun)
	close(goOn)
	if _, err := s.Recv(); err != io.EOF {
		t.Errorf("the end is %v", err)
	}
}

// TestServerEndsEarly: the client's Send says so with io.EOF, and Recv how.
func TestServerEndsEarly(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{
		chat: func(context.Context, *rpc.BidiStream[*text, *text]) error {
			return rpc.NewError(rpc.CodeAborted, "enough")
		},
		gather: func(context.Context, *rpc.Receiver[*text]) (string, error) { return "enough", nil },
	})
	c := dial(t, srv.Connect())
	chat, err := testChat.Call(testContext(t), c)
	must(t, err)
	for err == nil {
		// It goes on until the end comes, or the credit runs out.
		err = chat.Send(wrapperspb.String(frameFiller))
	}
	if err != io.EOF {
		t.Errorf("Send: %v", err)
	}
	_, err = chat.Recv()
	wantCode(t, err, rpc.CodeAborted, rpc.ExecutionDidRun)
	gather, err := testGather.Call(testContext(t), c)
	must(t, err)
	for err == nil {
		err = gather.Send(wrapperspb.String(frameFiller))
	}
	if m, err := gather.CloseAndRecv(); err != nil || m.GetValue() != "enough" {
		t.Errorf("%v, %v", m, err)
	}
}

// nilGather returns nothing.
type nilGather struct{ *funcs }

func (nilGather) Gather(context.Context, *rpc.Receiver[*text]) (*text, error) { return nil, nil }

// TestBrokenStreamHandlers: what a handler has sent arrives, and then INTERNAL.
func TestBrokenStreamHandlers(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), nilGather{&funcs{watch: func(_ context.Context, how string, to *rpc.Sender[*text]) error {
		must(t, to.Send(hello))
		if how == "panic" {
			panic("broken")
		}
		runtime.Goexit()
		return nil
	}}}, rpc.WithMaxStreams(1))
	c := dial(t, srv.Connect())
	for _, how := range []string{"panic", "Goexit", "panic", "Goexit"} {
		r, err := openSlot(t, c, how)
		must(t, err)
		n, err := recvAll(r.Recv)
		if e := wantCode(t, err, rpc.CodeInternal, rpc.ExecutionDidRun); n != 1 || strings.Contains(e.Message(), "broken") {
			t.Errorf("%s: %d messages, %v", how, n, e)
		}
	}
	for ctx := testContext(t); ; must(t, ctx.Err()) {
		s, err := testGather.Call(ctx, c)
		if rpc.CodeOf(err) == rpc.CodeResourceExhausted {
			continue
		}
		must(t, err)
		_, err = s.CloseAndRecv()
		wantCode(t, err, rpc.CodeInternal, rpc.ExecutionDidRun)
		return
	}
}

// openSlot waits until the one stream before has left the server.
func openSlot(t *testing.T, c *rpc.Client, req string) (r *rpc.Receiver[*text], err error) {
	for ctx := testContext(t); ; must(t, ctx.Err()) {
		if r, err = watch(testContext(t), c, req); rpc.CodeOf(err) != rpc.CodeResourceExhausted {
			return r, err
		}
	}
}

// TestStreamDeadline: both sides see that the deadline passed, whoever waits for what.
func TestStreamDeadline(t *testing.T) { rpctest.Bubble(t, testStreamDeadline) }

func testStreamDeadline(t *testing.T, srv *rpctest.Server) {
	ended := make(chan error, 1)
	serve(t, srv.Connect(), &funcs{
		watch: func(ctx context.Context, how string, to *rpc.Sender[*text]) error {
			err := to.Send(hello)
			for err == nil && how == "blocked" {
				err = to.Send(wrapperspb.String(frameFiller))
			}
			<-ctx.Done()
			ended <- errors.Join(ctx.Err(), err)
			return ctx.Err()
		},
		gather: func(_ context.Context, from *rpc.Receiver[*text]) (string, error) {
			_, err := from.Recv()
			ended <- err
			return "", err
		},
	})
	c := dial(t, srv.Connect())
	for _, how := range []string{"idle", "blocked"} {
		r, err := watch(testContext(t), c, how, rpc.WithTimeout(300*time.Millisecond))
		must(t, err)
		if how == "idle" {
			_, err = r.Recv()
			must(t, err)
			_, err = r.Recv()
			wantDeadline(t, err)
		}
		if err := wantEnd(t, ended); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: the handler gets %v", how, err)
		}
	}
	s, err := testGather.Call(testContext(t), c, rpc.WithTimeout(300*time.Millisecond))
	must(t, err)
	if err := wantEnd(t, ended); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the handler's Recv gets %v", err)
	}
	_, err = s.CloseAndRecv()
	wantDeadline(t, err)
}

// wantDeadline checks an error that either side may have found first.
func wantDeadline(t *testing.T, err error) {
	t.Helper()
	if rpc.CodeOf(err) != rpc.CodeDeadlineExceeded {
		t.Errorf("the client gets %v", err)
	}
}

func TestMaxStreams(t *testing.T) {
	srv := rpctest.NewServer(t)
	ended := make(chan error, 2)
	serve(t, srv.Connect(), &funcs{watch: waitForEnd(ended)}, rpc.WithMaxStreams(2))
	c := dial(t, srv.Connect())
	first, second := openWaiting(t, c), openWaiting(t, c)
	_, err := watch(testContext(t), c, "x")
	wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionNotRun)
	must(t, callOnce(t, c))
	first.Close()
	wantEnd(t, ended)
	third, err := openSlot(t, c, "x")
	must(t, err)
	_, err = third.Recv() // the handler runs
	must(t, err)
	second.Close()
	third.Close()
	wantEnd(t, ended)
	wantEnd(t, ended)
}

// TestGracefulShutdownOfStreams: streams go on until their handlers, told by Draining, have
// ended them.
func TestGracefulShutdownOfStreams(t *testing.T) {
	srv := rpctest.NewServer(t)
	s := newTestServer(t, srv.Connect(), &funcs{watch: func(ctx context.Context, _ string, to *rpc.Sender[*text]) error {
		must(t, to.Send(hello))
		<-rpc.CallFromContext(ctx).Draining()
		must(t, to.Send(hello))
		return rpc.NewError(rpc.CodeUnavailable, "restarting")
	}})
	c := dial(t, srv.Connect())
	r := openWaiting(t, c)
	shutdown(t, s)
	n, err := recvAll(r.Recv)
	if e := wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionDidRun); n != 1 || e.Message() != "restarting" {
		t.Errorf("%d messages, %v", n, err)
	}
	_, err = watch(testContext(t), c, "x", rpc.WithoutRetry())
	wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionNotRun)
}

// TestForcedShutdownOfStreams: when the time is over handlers are cancelled and callers told,
// whatever either does.
func TestForcedShutdownOfStreams(t *testing.T) {
	srv := rpctest.NewServer(t)
	ended, stubborn := make(chan error, 3), make(chan struct{})
	s := newTestServer(t, srv.Connect(), &funcs{watch: waitForEnd(ended), gather: func(_ context.Context, from *rpc.Receiver[*text]) (string, error) {
		_, err := from.Recv()
		<-stubborn
		ended <- err
		return "", err
	}, chat: func(_ context.Context, with *rpc.BidiStream[*text, *text]) error {
		for {
			if err := with.Send(wrapperspb.String(frameFiller)); err != nil {
				ended <- err
				return err
			}
		}
	}})
	c := dial(t, srv.Connect())
	r := openWaiting(t, c)
	gather, err := testGather.Call(testContext(t), c)
	must(t, err)
	chat, err := testChat.Call(testContext(t), c) // never read before the end
	must(t, err)
	now, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(now); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	_, err = r.Recv()
	wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionDidRun)
	_, err = gather.CloseAndRecv()
	wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionDidRun)
	for err = nil; err == nil; {
		_, err = chat.Recv()
	}
	wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionDidRun)
	close(stubborn)
	for range 3 {
		wantEnd(t, ended)
	}
}

// TestClientClosed: its streams end, and no new one begins.
func TestClientClosed(t *testing.T) {
	srv := rpctest.NewServer(t)
	ended := make(chan error, 1)
	serve(t, srv.Connect(), &funcs{watch: waitForEnd(ended)})
	c := dial(t, srv.Connect())
	r := openWaiting(t, c)
	must(t, c.Close())
	_, err := r.Recv()
	wantCode(t, err, rpc.CodeCanceled, rpc.ExecutionMayHaveRun)
	wantEnd(t, ended)
	_, err = watch(testContext(t), c, "x")
	wantCode(t, err, rpc.CodeCanceled, rpc.ExecutionNotRun)
}

// TestLargeStreamMetadata: what would not fit into a frame is an error that says so, on both sides.
func TestLargeStreamMetadata(t *testing.T) {
	srv := rpctest.NewServer(t)
	large := strings.Repeat("x", 600<<10)
	serve(t, srv.Connect(), &funcs{watch: func(ctx context.Context, where string, to *rpc.Sender[*text]) error {
		call := rpc.CallFromContext(ctx)
		if where == "header" {
			call.ResponseHeader().Set("h", large)
			return to.Send(hello)
		}
		must(t, to.Send(hello))
		call.ResponseTrailer().Set("t", large)
		return nil
	}})
	c := dial(t, srv.Connect())
	for _, where := range []string{"header", "trailer"} {
		r, err := watch(testContext(t), c, where)
		must(t, err)
		_, err = recvAll(r.Recv)
		wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionDidRun)
	}
	_, err := watch(testContext(t), c, "x", rpc.WithHeader("h", large+large))
	wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionNotRun)
}
