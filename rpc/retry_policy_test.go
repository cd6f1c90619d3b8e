package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// readText calls the Read method, which may run twice.
func readText(ctx context.Context, c *rpc.Client, in string, opts ...rpc.CallOption) (string, error) {
	res, err := testRead.Call(ctx, c, wrapperspb.String(in), opts...)
	return res.GetValue(), err
}

// failing is a handler that fails with err for the first n times.
func failing(n int32, err error, runs *atomic.Int32) func(context.Context, string) (string, error) {
	return func(_ context.Context, in string) (string, error) {
		if runs.Add(1) <= n {
			return "", err
		}
		return in, nil
	}
}

// TestRetryCodes: the errors of handlers are sent again whose codes the caller has named, if their
// methods may run twice.
func TestRetryCodes(t *testing.T) {
	aborted := rpc.NewError(rpc.CodeAborted, "somebody else was first")
	codes := rpc.WithRetryCodes(rpc.CodeAborted, rpc.CodeUnavailable)
	for _, test := range []struct {
		name   string
		err    error
		client []rpc.ClientOption
		call   []rpc.CallOption
		once   bool // it is Do, which may not run twice
		runs   int32
		code   rpc.Code
	}{
		{"by default", aborted, nil, nil, false, 1, rpc.CodeAborted},
		{"of the call", aborted, nil, []rpc.CallOption{codes}, false, 3, rpc.CodeOK},
		{"of the client", aborted, []rpc.ClientOption{codes}, nil, false, 3, rpc.CodeOK},
		{"of the method", aborted, []rpc.ClientOption{rpc.WithMethodOptions("/test.v1.TestService/Read", codes)}, nil, false, 3, rpc.CodeOK},
		{"of another method", aborted, []rpc.ClientOption{rpc.WithMethodOptions("/test.v1.TestService/Do", codes)}, nil, false, 1, rpc.CodeAborted},
		{"unavailable", rpc.NewError(rpc.CodeUnavailable, "x"), []rpc.ClientOption{codes}, nil, false, 3, rpc.CodeOK},
		{"another code", rpc.NewError(rpc.CodeNotFound, "x"), []rpc.ClientOption{codes}, nil, false, 1, rpc.CodeNotFound},
		{"no code any more", aborted, []rpc.ClientOption{codes}, []rpc.CallOption{rpc.WithRetryCodes()}, false, 1, rpc.CodeAborted},
		{"without retry", aborted, []rpc.ClientOption{codes}, []rpc.CallOption{rpc.WithoutRetry()}, false, 1, rpc.CodeAborted},
		{"two attempts", aborted, []rpc.ClientOption{codes}, []rpc.CallOption{rpc.WithMaxAttempts(2)}, false, 2, rpc.CodeAborted},
		{"with a key", aborted, []rpc.ClientOption{codes}, []rpc.CallOption{rpc.WithIdempotencyKey("k")}, false, 1, rpc.CodeAborted},
		{"plain", aborted, []rpc.ClientOption{codes}, []rpc.CallOption{rpc.WithPlainRequests()}, false, 3, rpc.CodeOK},
		{"never again", rpc.NewError(rpc.CodeAborted, "x", retryInfo(t, -1)), []rpc.ClientOption{codes}, nil, false, 1, rpc.CodeAborted},
		{"not twice, of the client", aborted, []rpc.ClientOption{codes}, nil, true, 1, rpc.CodeAborted},
		{"not twice, of the call", aborted, nil, []rpc.CallOption{codes}, true, 0, rpc.CodeInvalidArgument},
		{"not twice, of the method", aborted, []rpc.ClientOption{rpc.WithMethodOptions("/test.v1.TestService/Do", codes)}, nil, true, 0, rpc.CodeInvalidArgument},
	} {
		t.Run(test.name, func(t *testing.T) {
			srv := rpctest.NewServer(t)
			var runs atomic.Int32
			handler := failing(2, test.err, &runs)
			serve(t, srv.Connect(), &funcs{do: handler, read: handler})
			c := dial(t, srv.Connect(), test.client...)
			var err error
			if test.once {
				_, err = do(testContext(t), c, "x", test.call...)
			} else {
				_, err = readText(testContext(t), c, "x", test.call...)
			}
			if got := rpc.CodeOf(err); got != test.code {
				t.Errorf("the call ended with %v (%v), want %v", got, err, test.code)
			}
			if runs.Load() != test.runs {
				t.Errorf("it ran %d times, want %d", runs.Load(), test.runs)
			}
		})
	}
}

// TestVirtualRetryPauses: the pauses are those of WithBackoff, or longer where a server says so.
func TestVirtualRetryPauses(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		var runs atomic.Int32
		fail := rpc.NewError(rpc.CodeAborted, "x")
		serve(t, srv.Connect(), &funcs{read: func(ctx context.Context, in string) (string, error) {
			return failing(5, fail, &runs)(ctx, in)
		}})
		var times attemptTimes
		c := dial(t, srv.Connect(), rpc.WithInterceptors(times.intercept), rpc.WithRetryCodes(rpc.CodeAborted), rpc.WithBackoff(time.Second, 4*time.Second))
		_, err := readText(t.Context(), c, "x", rpc.WithTimeout(time.Minute))
		must(t, err)
		for i, gap := range times.gaps() {
			most := min(time.Second<<i, 4*time.Second)
			within(t, "pause", gap, most/2, most)
		}
		fail = rpc.NewError(rpc.CodeAborted, "x", retryInfo(t, 7*time.Second))
		runs.Store(0)
		times.seen = nil
		_, err = readText(t.Context(), c, "x", rpc.WithTimeout(time.Minute))
		must(t, err)
		for _, gap := range times.gaps() {
			within(t, "pause", gap, 7*time.Second, 7*time.Second)
		}
	})
}

// TestRetryBudget: a service that fails gets no more than the budget, and more again when it
// answers.
func TestRetryBudget(t *testing.T) {
	const burst, calls = 5, 40
	srv := rpctest.NewServer(t)
	var runs atomic.Int32
	var fails atomic.Bool
	fails.Store(true)
	serve(t, srv.Connect(), &funcs{read: func(_ context.Context, in string) (string, error) {
		if runs.Add(1); fails.Load() {
			return "", rpc.NewError(rpc.CodeAborted, "x")
		}
		return in, nil
	}})
	c := dial(t, srv.Connect(), rpc.WithRetryCodes(rpc.CodeAborted), rpc.WithRetryBudget(burst, 0.5), rpc.WithBackoff(time.Millisecond, time.Millisecond))
	ctx := testContext(t)
	storm := func() {
		t.Helper()
		for range calls {
			_, err := readText(ctx, c, "x")
			wantText(t, wantCode(t, err, rpc.CodeAborted, rpc.ExecutionDidRun), "x; it is not sent again, as the client's budget for the service is spent (rpc.WithRetryBudget)")
		}
	}
	// Each call that fails for good is an answer too, which adds a half.
	storm()
	if most := int32(calls + burst + calls/2); runs.Load() > most || runs.Load() < calls+burst {
		t.Errorf("%d calls ran %d times, want at most %d", calls, runs.Load(), most)
	}
	fails.Store(false)
	for range 2 * burst {
		_, err := readText(ctx, c, "x")
		must(t, err)
	}
	fails.Store(true)
	runs.Store(0)
	storm()
	if most := int32(calls + burst + calls/2); runs.Load() > most || runs.Load() < calls+burst {
		t.Errorf("later, %d calls ran %d times, want at most %d", calls, runs.Load(), most)
	}
}

// TestFreeAttempts: what no instance has worked on takes nothing from the budget, nor from the
// number of attempts.
func TestFreeAttempts(t *testing.T) {
	srv := rpctest.NewServer(t)
	c := dial(t, srv.Connect(), rpc.WithRetryBudget(0, 0), rpc.WithMaxAttempts(1))
	called := make(chan error, 1)
	var attempts atomic.Int32
	go func() {
		_, err := do(testContext(t), c, "x", rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
			call.OnAttempt(func(*rpc.Attempt) error { attempts.Add(1); return nil })
			return next(ctx, call)
		}))
		called <- err
	}()
	until(t, "three attempts", func() bool { return attempts.Load() >= 3 })
	serve(t, srv.Connect(), &funcs{})
	must(t, <-called)
}

// TestVirtualStandInIsFree: a call whose instance is silent goes to one that answers, also without
// a token; if it is silent again that takes one.
func TestVirtualStandInIsFree(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		dead := placeAt(t, srv)
		hang := make(chan struct{})
		running := make(chan struct{}, 1)
		silent := newTestServer(t, dead.nc, &funcs{read: func(ctx context.Context, in string) (string, error) {
			running <- struct{}{}
			<-hang
			return in, nil
		}})
		c := dial(t, srv.Connect(), rpc.WithRetryBudget(0, 0))
		called := make(chan error, 1)
		go func() {
			_, err := readText(t.Context(), c, "x", rpc.WithTimeout(time.Minute))
			called <- err
		}()
		<-running
		serve(t, srv.Connect(), &funcs{})
		dead.BlackHole()
		must(t, <-called)
		close(hang)
		dead.Cut()
		shutdown(t, silent)
	})
}

// occupied is an instance with one handler, which is taken until the test ends.
func occupied(t *testing.T, srv *rpctest.Server, runs *atomic.Int32, opts ...nats.Option) (instance string) {
	t.Helper()
	release, running := make(chan struct{}), make(chan struct{})
	s := newTestServer(t, srv.Connect(opts...), &funcs{do: func(_ context.Context, in string) (string, error) {
		if runs.Add(1); in == "occupy" {
			close(running)
			<-release
		}
		return in, nil
	}}, rpc.WithMaxConcurrency(1), rpc.WithMaxQueue(0))
	c := dial(t, srv.Connect(opts...))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = do(context.Background(), c, "occupy", rpc.WithInstance(s.Instance("test.v1.TestService")))
	}()
	<-running
	t.Cleanup(func() {
		close(release)
		<-ended
		shutdown(t, s)
	})
	return s.Instance("test.v1.TestService")
}

// TestBusyInstanceIsLeft: a call that an instance is too busy for goes to another one, once.
func TestBusyInstanceIsLeft(t *testing.T) {
	srv := rpctest.NewServer(t)
	var taken, free atomic.Int32
	first := occupied(t, srv, &taken)
	c := dial(t, srv.Connect())
	ctx := testContext(t)

	alone := func(opts ...rpc.CallOption) *rpc.Error {
		t.Helper()
		_, err := do(ctx, c, "x", opts...)
		return wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionNotRun)
	}
	if e := alone(); e.Instance() != first {
		t.Errorf("the only instance is %s, the error is from %q", first, e.Instance())
	}
	serve(t, srv.Connect(), &funcs{do: func(_ context.Context, in string) (string, error) {
		free.Add(1)
		return in, nil
	}})
	inARow := 0 // the answers to a query that did not find it count for a second
	until(t, "the new instance is known", func() bool {
		if _, err := do(ctx, c, "x"); err != nil {
			inARow = 0
		}
		inARow++
		return inARow > 50
	})
	free.Store(0)
	const calls = 50
	for range calls {
		_, err := do(ctx, c, "x")
		must(t, err)
	}
	if free.Load() != calls || taken.Load() != 1 {
		t.Errorf("the free instance has run %d of %d calls, the other %d, want 1", free.Load(), calls, taken.Load())
	}
	alone(rpc.WithInstance(first))
	poor := dial(t, srv.Connect(), rpc.WithRetryBudget(0, 0))
	once := dial(t, srv.Connect(), rpc.WithoutRetry())
	for _, c := range []*rpc.Client{poor, once} {
		until(t, "a call that is not sent again", func() bool {
			_, err := do(ctx, c, "x")
			return rpc.CodeOf(err) == rpc.CodeResourceExhausted
		})
	}
}

// TestBusyInstanceIsLeftOnce: where all instances are busy, two of them say so.
func TestBusyInstanceIsLeftOnce(t *testing.T) {
	srv := rpctest.NewServer(t)
	var runs atomic.Int32
	for range 3 {
		occupied(t, srv, &runs)
	}
	var attempts atomic.Int32
	c := dial(t, srv.Connect(), rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.OnAttempt(func(*rpc.Attempt) error { attempts.Add(1); return nil })
		return next(ctx, call)
	}))
	const calls = 20
	for range calls {
		_, err := do(testContext(t), c, "x")
		wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionNotRun)
	}
	if attempts.Load() != 2*calls || runs.Load() != 3 {
		t.Errorf("%d calls were sent %d times and ran %d times, want %d and 3", calls, attempts.Load(), runs.Load(), 2*calls)
	}
}

// TestMethodOptions: those of a method are between those of the client and those of a call.
func TestMethodOptions(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{do: func(ctx context.Context, _ string) (string, error) {
		deadline, _ := ctx.Deadline()
		return fmt.Sprint(time.Until(deadline).Round(time.Hour)), nil
	}})
	c := dial(t, srv.Connect(), rpc.WithMethodOptions("/test.v1.TestService/Do", rpc.WithTimeout(2*time.Hour)), rpc.WithTimeout(time.Hour),
		rpc.WithMethodOptions("/test.v1.TestService/Do", rpc.WithHeader("a", "b")))
	for want, opts := range map[string][]rpc.CallOption{
		"2h0m0s": nil,
		"3h0m0s": {rpc.WithTimeout(3 * time.Hour)},
	} {
		if got, err := do(context.Background(), c, "x", opts...); err != nil || got != want {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
	}
	if _, err := readText(context.Background(), c, "x"); err != nil {
		t.Error(err)
	}
}

// TestBadRetryOptions: an invalid option fails the call and names itself.
func TestBadRetryOptions(t *testing.T) {
	nc := rpctest.Connect(t)
	for want, opt := range map[string]rpc.ClientOption{
		"WithMaxAttempts(0): must be at least 1":                  rpc.WithMaxAttempts(0),
		"WithBackoff(0s, 1s): the first pause must be greater":    rpc.WithBackoff(0, time.Second),
		"WithBackoff(2s, 1s)":                                     rpc.WithBackoff(2*time.Second, time.Second),
		"WithRetryCodes(ok): calls with this code":                rpc.WithRetryCodes(rpc.CodeOK),
		"WithRetryCodes(canceled)":                                rpc.WithRetryCodes(rpc.CodeCanceled),
		"WithRetryCodes(code_99)":                                 rpc.WithRetryCodes(rpc.Code(99)),
		"WithRetryBudget(-1): must be at least 0":                 rpc.WithRetryBudget(-1, 0.1),
		"WithRetryBudget(1, 2): the share must be between 0 and":  rpc.WithRetryBudget(1, 2),
		"WithRetryBudget(1, NaN)":                                 rpc.WithRetryBudget(1, math.NaN()),
		"WithHedging(0s): the delay must be greater than 0":       rpc.WithHedging(0),
		"WithHedgingQuantile(1): must be between 0 and 1":         rpc.WithHedgingQuantile(1),
		"WithHedgingQuantile(NaN)":                                rpc.WithHedgingQuantile(math.NaN()),
		`WithMethodOptions("Do"): the method "Do" is not a full`:  rpc.WithMethodOptions("Do"),
		`WithMethodOptions("/a/b/c")`:                             rpc.WithMethodOptions("/a/b/c"),
		`WithMethodOptions("/a.B/C"): an option is nil`:           rpc.WithMethodOptions("/a.B/C", nil),
		"WithMethodOptions(/a.B/C): WithTimeout(0s): must be gre": rpc.WithMethodOptions("/a.B/C", rpc.WithTimeout(0)),
	} {
		_, err := do(testContext(t), dial(t, nc, opt), "x")
		wantText(t, wantCode(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun), want)
	}
}

// TestStreamsAreRetried: the opening of a stream follows the same rule.
func TestStreamsAreRetried(t *testing.T) {
	srv := rpctest.NewServer(t)
	opened := make(chan struct{})
	s := newTestServer(t, srv.Connect(), &funcs{chat: func(ctx context.Context, _ *rpc.BidiStream[*text, *text]) error {
		opened <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}}, rpc.WithMaxStreams(1))
	defer shutdown(t, s)
	c := dial(t, srv.Connect())
	first, err := testChat.Call(testContext(t), c)
	must(t, err)
	defer first.Close()
	<-opened
	_, err = testChat.Call(testContext(t), c)
	wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionNotRun)
	serve(t, srv.Connect(), &funcs{})
	until(t, "the other instance takes it", func() bool {
		stream, err := testChat.Call(testContext(t), c)
		if err != nil {
			return false
		}
		defer stream.Close()
		err = stream.Send(wrapperspb.String("x"))
		return err == nil || !errors.Is(err, context.Canceled)
	})
}

// TestVirtualRestartIsFree: a restart of the only instance, with calls in flight, takes nothing
// from the budget: that nobody is there is free, also for a call that may have run.
func TestVirtualRestartIsFree(t *testing.T) {
	for name, opt := range map[string]rpc.ClientOption{
		"by default":     rpc.WithHeader("a", "b"),
		"few tokens":     rpc.WithRetryBudget(100, 0),
		"three attempts": rpc.WithMaxAttempts(3),
	} {
		t.Run(name, func(t *testing.T) {
			rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) { testRestartIsFree(t, srv, opt) })
		})
	}
}

func testRestartIsFree(t *testing.T, srv *rpctest.Server, opt rpc.ClientOption) {
	const calls = 100
	dead := placeAt(t, srv)
	hang, running := make(chan struct{}), make(chan struct{}, calls)
	killed := newTestServer(t, dead.nc, &funcs{read: func(_ context.Context, in string) (string, error) {
		running <- struct{}{}
		<-hang
		return in, nil
	}})
	c := dial(t, srv.Connect(), opt)
	called := make(chan error, calls)
	for range calls {
		go func() {
			_, err := readText(t.Context(), c, "x", rpc.WithTimeout(30*time.Second))
			called <- err
		}()
	}
	for range calls {
		<-running
	}
	dead.leave()
	time.Sleep(9 * time.Second) // it is noticed after three
	serve(t, srv.Connect(), &funcs{})
	for range calls {
		if err := <-called; err != nil {
			t.Error(err)
		}
	}
	close(hang)
	_ = killed.Shutdown(context.Background()) // it has no connection
}

// TestVirtualDeadService: a service of which no instance answers any more is hit by no more further
// attempts than the budget holds.
func TestVirtualDeadService(t *testing.T) {
	const calls, burst = 50, 10
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		var dead []place
		var killed []*rpc.Server
		hang := make(chan struct{})
		for range 2 {
			at := placeAt(t, srv)
			dead = append(dead, at)
			killed = append(killed, newTestServer(t, at.nc, &funcs{read: func(_ context.Context, in string) (string, error) {
				<-hang
				return in, nil
			}}))
		}
		var times attemptTimes
		c := dial(t, srv.Connect(), rpc.WithRetryBudget(burst, 0.1), rpc.WithInterceptors(times.intercept))
		for _, at := range dead {
			at.BlackHole()
		}
		ended := make(chan error, calls)
		for range calls {
			go func() {
				_, err := readText(t.Context(), c, "x", rpc.WithTimeout(time.Minute))
				ended <- err
			}()
		}
		for range calls {
			wantCode(t, <-ended, rpc.CodeUnavailable, rpc.ExecutionMayHaveRun)
		}
		if n := len(times.gaps()) + 1; n > calls+burst || n < calls {
			t.Errorf("%d calls made %d attempts, want at most %d more", calls, n, burst)
		}
		close(hang)
		for i, at := range dead {
			at.Cut()
			_ = killed[i].Shutdown(context.Background()) // it has no connection
		}
	})
}

// TestErrorOfTheLastAttempt: the error that ends a call comes with its trailer and instance,
// whatever keeps the client from another attempt.
func TestErrorOfTheLastAttempt(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{read: func(ctx context.Context, in string) (string, error) {
		rpc.CallFromContext(ctx).ResponseTrailer().Set("why", "x")
		return "", rpc.NewError(rpc.CodeAborted, "x")
	}})
	for name, opt := range map[string]rpc.ClientOption{
		"no retry": rpc.WithoutRetry(), "one attempt": rpc.WithMaxAttempts(1), "no token": rpc.WithRetryBudget(0, 0),
	} {
		c := dial(t, srv.Connect(), rpc.WithRetryCodes(rpc.CodeAborted), opt)
		var trailer rpc.Header
		var instance string
		_, err := readText(testContext(t), c, "x", rpc.ResponseTrailer(&trailer), rpc.ResponseInstance(&instance))
		if trailer.Get("why") != "x" || instance == "" {
			t.Errorf("%s: trailer %v, instance %q: %v", name, trailer, instance, err)
		}
	}
}

// withoutDirect is an option of a server with a user app, who may not publish to single instances.
func withoutDirect(o *server.Options) {
	deny := &server.SubjectPermission{Allow: []string{">"}, Deny: []string{"test.v1.TestService._i.*.call.>"}}
	o.Users = []*server.User{
		{Username: "service", Password: "x"},
		{Username: "app", Password: "x", Permissions: &server.Permissions{Publish: deny}},
	}
}

// as connects as a user of withoutDirect.
func as(user string) []nats.Option {
	return []nats.Option{nats.UserInfo(user, "x"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})}
}

// TestBusyWithoutPermission: a client that may not choose an instance is told that the one that
// NATS has chosen is busy.
func TestBusyWithoutPermission(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(withoutDirect))
	var runs atomic.Int32
	for range 2 {
		occupied(t, srv, &runs, as("service")...)
	}
	c := dial(t, srv.Connect(as("app")...))
	for range 5 {
		_, err := do(testContext(t), c, "x")
		wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionNotRun)
	}
}

// TestKeyedStream: a stream takes no idempotency key, since nothing runs it once.
func TestKeyedStream(t *testing.T) {
	c := dial(t, rpctest.Connect(t))
	_, err := watch(testContext(t), c, "x", rpc.WithIdempotencyKey("k"))
	wantText(t, wantCode(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun), "/test.v1.TestService/Watch streams; rpc.WithIdempotencyKey is for unary")
}
