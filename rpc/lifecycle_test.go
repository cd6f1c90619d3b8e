package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestAbandonedInInterceptor: a caller who is told that the handler did not run can rely on it.
func TestAbandonedInInterceptor(t *testing.T) {
	srv := rpctest.NewServer(t)
	inside, proceed := make(chan struct{}), make(chan struct{})
	var ran atomic.Int32
	impl := &funcs{do: func(_ context.Context, in string) (string, error) { ran.Add(1); return in, nil }}
	s := newTestServer(t, srv.Connect(), impl, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		inside <- struct{}{}
		<-proceed
		return next(ctx, call)
	}))
	c := dial(t, srv.Connect())
	result := make(chan error, 1)
	go func() { result <- callOnce(t, c) }()
	<-inside
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Shutdown returned %v", err)
	}
	serve(t, srv.Connect(), impl) // where the call goes the second time
	must(t, <-result)
	close(proceed)
	if n := ran.Load(); n != 1 {
		t.Errorf("the handler ran %d times", n)
	}
}

// TestCloseMeetsCalls: no call is left behind, whenever Close comes.
func TestCloseMeetsCalls(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{})
	for range 1500 {
		c := rpc.NewClient(nc, rpc.WithTimeout(20*time.Second))
		must(t, callOnce(t, c))
		result := make(chan error)
		go func() { _, err := do(context.Background(), c, "x"); result <- err }()
		must(t, c.Close())
		if err := <-result; err != nil && rpc.CodeOf(err) != rpc.CodeCanceled {
			t.Fatal(err)
		}
	}
}

// TestClientInterceptorExecution: what an interceptor wraps keeps what is known.
func TestClientInterceptorExecution(t *testing.T) {
	nc := rpctest.Connect(t)
	sentinel := errors.New("sentinel")
	for _, test := range []struct {
		name string
		f    rpc.Interceptor
		code rpc.Code
		x    rpc.Execution
	}{
		{"wraps", func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
			return errors.Join(sentinel, next(ctx, call))
		}, rpc.CodeUnavailable, rpc.ExecutionNotRun},
		{"denies", func(context.Context, *rpc.Call, rpc.Next) error { return sentinel }, rpc.CodeUnknown, rpc.ExecutionNotRun},
		{"forgets", func(ctx context.Context, call *rpc.Call, next rpc.Next) error { _ = next(ctx, call); return sentinel }, rpc.CodeUnknown, rpc.ExecutionMayHaveRun},
		{"zero error", func(context.Context, *rpc.Call, rpc.Next) error {
			return fmt.Errorf("%w: %w", sentinel, &rpc.Error{})
		}, rpc.CodeUnknown, rpc.ExecutionNotRun},
	} {
		_, err := do(context.Background(), dial(t, nc, rpc.WithInterceptors(test.f)), "x", rpc.WithoutRetry())
		wantCode(t, err, test.code, test.x)
		if !errors.Is(err, sentinel) {
			t.Errorf("%s: the chain is lost", test.name)
		}
	}
	var none *rpc.Error
	if rpc.CodeOf(none) != rpc.CodeUnknown || none.Error() == "" || new(rpc.Error).Code() != rpc.CodeUnknown {
		t.Error("nil and zero errors have no code")
	}
}

// TestNoQueueGroupIsNotRetried: what one instance has not run, another may have.
func TestNoQueueGroupIsNotRetried(t *testing.T) {
	nc := rpctest.Connect(t)
	s := rpc.NewServer(nc, rpc.WithInterceptors(func(context.Context, *rpc.Call, rpc.Next) error {
		return rpc.Errorf(rpc.CodeUnavailable, "not yet")
	}))
	must(t, registerTest(s, &funcs{}, rpc.WithoutQueueGroup()))
	must(t, s.Start(testContext(t)))
	defer shutdown(t, s)
	wantCode(t, callOnce(t, dial(t, nc)), rpc.CodeUnavailable, rpc.ExecutionMayHaveRun)
	wantCode(t, callOnce(t, dial(t, nc, rpc.WithPlainRequests())), rpc.CodeUnavailable, rpc.ExecutionMayHaveRun)
}

func TestDrainingConnection(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{})
	nc := srv.Connect()
	c := dial(t, nc)
	must(t, callOnce(t, c))
	must(t, nc.Drain())
	err := callOnce(t, c)
	if e := wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionNotRun); !strings.Contains(e.Message(), "draining") && !strings.Contains(e.Message(), "closed") {
		t.Errorf("got %v", err)
	}
}

// TestForbiddenInbox: a client that cannot get replies says so.
func TestForbiddenInbox(t *testing.T) {
	srv := newServerWithUsers(t, &server.User{Username: "caller", Password: "x", Permissions: &server.Permissions{
		Subscribe: &server.SubjectPermission{Deny: []string{"_INBOX.>"}},
	}}, &server.User{Username: "service", Password: "x"})
	serve(t, srv.Connect(nats.UserInfo("service", "x")), &funcs{})
	c := dial(t, srv.Connect(nats.UserInfo("caller", "x"), quiet))
	_, err := testRead.Call(testContext(t), c, wrapperspb.String("x"))
	if rpc.CodeOf(err) != rpc.CodePermissionDenied { // it may have run, or NATS was faster
		t.Fatal(err)
	}
	_, err = testRead.Call(testContext(t), c, wrapperspb.String("x"))
	wantCode(t, err, rpc.CodePermissionDenied, rpc.ExecutionNotRun)
}

// TestShutdownIsBounded: by its context, whatever the connection does.
func TestShutdownIsBounded(t *testing.T) {
	srv := rpctest.NewServer(t)
	lost := make(chan struct{})
	nc := srv.Connect(nats.ReconnectWait(time.Hour), nats.DisconnectErrHandler(func(*nats.Conn, error) { close(lost) }))
	running := newTestServer(t, nc, &funcs{})
	starting := rpc.NewServer(nc)
	must(t, registerTest(starting, &funcs{}))
	srv.Shutdown()
	<-lost
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := running.Shutdown(ctx); !errors.Is(err, nats.ErrDisconnected) {
		t.Errorf("Shutdown without a connection returned %v", err)
	}
	if err := starting.Run(ctx); err != nil && !strings.Contains(err.Error(), "reconnecting") {
		t.Errorf("Run returned %v", err)
	}
	must(t, starting.Shutdown(context.Background()))
}

// TestShutdownWaitsForUnregister: whoever has the service, its handlers are waited for.
func TestShutdownWaitsForUnregister(t *testing.T) {
	nc := rpctest.Connect(t)
	running, finish := make(chan struct{}), make(chan struct{})
	var finished atomic.Bool
	s := newTestServer(t, nc, &funcs{do: func(_ context.Context, in string) (string, error) {
		close(running)
		<-finish
		finished.Store(true)
		return in, nil
	}})
	c := dial(t, nc)
	result := make(chan error, 1)
	go func() { result <- callOnce(t, c) }()
	<-running
	var wg sync.WaitGroup
	for _, end := range []func() error{
		func() error { return s.Unregister(testContext(t), testDesc.Name) },
		func() error { return s.Shutdown(testContext(t)) },
	} {
		wg.Go(func() {
			err := end()
			if !finished.Load() {
				t.Errorf("a handler was not waited for (%v)", err)
			}
		})
	}
	close(finish)
	wg.Wait()
	must(t, <-result)
}

// TestCloseAfterShutdown: a connection that is closed right after the shutdown is nothing to log.
func TestCloseAfterShutdown(t *testing.T) {
	srv := rpctest.NewServer(t)
	for range 200 {
		var logged records
		nc := srv.Connect()
		s := newTestServer(t, nc, &funcs{}, rpc.WithLogger(logged.logger()))
		shutdown(t, s)
		nc.Close()
		if text := logged.String(); text != "" {
			t.Fatalf("the server logged %s", text)
		}
	}
}

// TestCloseCancels: closing a client ends the handlers of its calls.
func TestCloseCancels(t *testing.T) {
	srv := rpctest.NewServer(t)
	running, canceled := make(chan struct{}), make(chan struct{})
	serve(t, srv.Connect(), &funcs{do: func(ctx context.Context, in string) (string, error) {
		close(running)
		<-ctx.Done()
		close(canceled)
		return in, nil
	}})
	c := rpc.NewClient(srv.Connect())
	ended := make(chan error, 1)
	go func() { _, err := do(testContext(t), c, "x"); ended <- err }()
	<-running
	must(t, c.Close())
	wantCode(t, <-ended, rpc.CodeCanceled, rpc.ExecutionMayHaveRun)
	select {
	case <-canceled:
	case <-time.After(20 * time.Second):
		t.Error("the handler runs on")
	}
}
