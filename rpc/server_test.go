package rpc_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

func TestLifecycle(t *testing.T) {
	nc := rpctest.Connect(t)
	ctx := testContext(t)
	s := rpc.NewServer(nc)
	must(t, registerTest(s, &funcs{}))
	must(t, s.Start(ctx))
	wantText(t, s.Start(ctx), "runs already")
	wantText(t, registerTest(s, &funcs{}), "has it already")
	must(t, s.Shutdown(ctx))
	must(t, s.Shutdown(ctx))
	for name, err := range map[string]error{"Start": s.Start(ctx), "Register": registerTest(s, &funcs{}), "Run": s.Run(ctx)} {
		if !errors.Is(err, rpc.ErrServerStopped) {
			t.Errorf("%s after Shutdown: %v", name, err)
		}
	}
	if n := nc.NumSubscriptions(); n != 0 {
		t.Errorf("%d subscriptions are left", n)
	}
	must(t, rpc.NewServer(nc).Shutdown(ctx))
}

func wantText(t testing.TB, err error, text string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("error is %v, want one with %q", err, text)
	}
}

func TestInvalidServers(t *testing.T) {
	nc := rpctest.Connect(t)
	for name, test := range map[string]struct {
		server  *rpc.Server
		service rpc.ServiceOption
		text    string
	}{
		"nil connection":  {rpc.NewServer(nil), nil, "connection is nil"},
		"nil option":      {rpc.NewServer(nc, nil), nil, "option is nil"},
		"logger":          {rpc.NewServer(nc, rpc.WithLogger(nil)), nil, "WithLogger"},
		"grace":           {rpc.NewServer(nc, rpc.WithGracePeriod(-1)), nil, "WithGracePeriod(-1ns)"},
		"timeout":         {rpc.NewServer(nc, rpc.WithTimeout(0)), nil, "WithTimeout(0s)"},
		"prefix":          {rpc.NewServer(nc, rpc.WithSubjectPrefix("a b")), nil, `"a b"`},
		"concurrency":     {rpc.NewServer(nc, rpc.WithMaxConcurrency(0)), nil, "WithMaxConcurrency(0)"},
		"queue":           {rpc.NewServer(nc), rpc.WithMaxQueue(-1), "WithMaxQueue(-1)"},
		"queue group":     {rpc.NewServer(nc), rpc.WithQueueGroup("a b"), `"a b"`},
		"metadata":        {rpc.NewServer(nc), rpc.WithServiceMetadata(map[string]string{"natscall.x": "y"}), "natscall.x"},
		"several at once": {rpc.NewServer(nc, rpc.WithTimeout(0), rpc.WithMaxQueue(-2)), nil, "WithMaxQueue(-2)"},
	} {
		t.Run(name, func(t *testing.T) {
			var opts []rpc.ServiceOption
			if test.service != nil {
				opts = append(opts, test.service)
			}
			wantText(t, registerTest(test.server, &funcs{}, opts...), test.text)
			if test.service == nil {
				wantText(t, test.server.Run(testContext(t)), test.text)
			}
		})
	}
	wantText(t, registerTest(rpc.NewServer(nc), nil), "implementation is nil")
	wantText(t, registerTest(rpc.NewServer(nc), &funcs{}, nil), "option is nil")
}

func TestInvalidDescriptions(t *testing.T) {
	nc := rpctest.Connect(t)
	for name, test := range map[string]struct {
		change func(*rpc.ServiceDesc)
		text   string
	}{
		"micro name":  {func(d *rpc.ServiceDesc) { d.MicroName = "a.b" }, `micro name "a.b" has`},
		"version":     {func(d *rpc.ServiceDesc) { d.Version = "v1" }, `version "v1" is not`},
		"name":        {func(d *rpc.ServiceDesc) { d.Name = "a.*" }, `root of its subjects "a.*" has`},
		"placeholder": {func(d *rpc.ServiceDesc) { d.SubjectPrefix = "{tenant}" }, `"{tenant}", but natscall has no placeholders`},
		"metadata":    {func(d *rpc.ServiceDesc) { d.Metadata = map[string]string{"": "x"} }, "metadata has an empty key"},
		"queue group": {func(d *rpc.ServiceDesc) { d.QueueGroup = "a b" }, `queue group "a b" has`},
		"several":     {func(d *rpc.ServiceDesc) { d.MicroName, d.Version = "a.b", "v1" }, `version "v1" is not`},
	} {
		t.Run(name, func(t *testing.T) {
			d := testDesc
			test.change(&d)
			wantText(t, rpc.Register(rpc.NewServer(nc), &d, 1, nil), test.text)
		})
	}
}

func TestInvalidMethods(t *testing.T) {
	nc := rpctest.Connect(t)
	d := rpc.ServiceDesc{Name: "other.v1.Other", MicroName: "Other", Version: "1.0.0"}
	broadcast := d
	broadcast.NoQueueGroup = true
	long := strings.Repeat("x", 250)
	for name, test := range map[string]struct {
		desc   *rpc.ServiceDesc
		method rpc.MethodDesc
		opts   []rpc.ServerOption
		text   string // none where it is fine
	}{
		"fine":               {&d, rpc.MethodDesc{Name: "Take"}, nil, ""},
		"subject":            {&d, rpc.MethodDesc{Name: "Take", Subject: "a.*"}, nil, `/other.v1.Other/Take: subject "a.*" has the wildcard`},
		"placeholder":        {&d, rpc.MethodDesc{Name: "Take", Subject: "a.:id"}, nil, `/other.v1.Other/Take: subject "a.:id" has the token ":id", but natscall has no placeholders`},
		"long with a prefix": {&d, rpc.MethodDesc{Name: "Take", Subject: long}, []rpc.ServerOption{rpc.WithSubjectPrefix("before")}, "/other.v1.Other/Take: subject has 257 bytes, more than 255"},
		"name":               {&d, rpc.MethodDesc{Name: "_Take"}, nil, `/other.v1.Other/_Take: subject "other.v1.Other._Take" has the token "_Take"`},
		"metadata":           {&d, rpc.MethodDesc{Name: "Take", Metadata: map[string]string{"natscall.x": ""}}, nil, `/other.v1.Other/Take: metadata key "natscall.x" starts with`},
		"no queue group":     {&broadcast, rpc.MethodDesc{Name: "Take"}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			m := rpc.NewUnaryMethod[text, text](test.desc, test.method)
			err := rpc.Register(rpc.NewServer(nc, test.opts...), test.desc, testServer(&funcs{}), nil, rpc.HandleUnary(m, testServer.Do))
			if test.text == "" {
				must(t, err)
			} else {
				wantText(t, err, test.text)
			}
		})
	}
	t.Run("stream without a queue group", func(t *testing.T) {
		m := rpc.NewServerStreamMethod[text, text](&broadcast, rpc.MethodDesc{Name: "Watch"})
		err := rpc.Register(rpc.NewServer(nc), &broadcast, testServer(&funcs{}), nil, rpc.HandleServerStream(m, testServer.Watch))
		wantText(t, err, "/other.v1.Other/Watch: NoQueueGroup is not possible with streaming methods")
	})
}

// TestSharedSubject: two methods of one server cannot have one subject.
func TestSharedSubject(t *testing.T) {
	d := rpc.ServiceDesc{Name: "other.v1.Other", MicroName: "Other", Version: "1.0.0"}
	m := rpc.NewUnaryMethod[text, text](&d, rpc.MethodDesc{Name: "Take", Subject: "notes.new"})
	s := rpc.NewServer(rpctest.Connect(t))
	must(t, registerTest(s, &funcs{}))
	err := rpc.Register(s, &d, testServer(&funcs{}), nil, rpc.HandleUnary(m, testServer.Do))
	wantText(t, err, "/test.v1.TestService/Note and /other.v1.Other/Take share the subject")
}

func TestRun(t *testing.T) {
	nc := rpctest.Connect(t)
	ctx, cancel := context.WithCancel(testContext(t))
	s := rpc.NewServer(nc, rpc.WithGracePeriod(20*time.Second))
	running, finish := make(chan struct{}), make(chan struct{})
	must(t, registerTest(s, &funcs{do: func(ctx context.Context, in string) (string, error) {
		close(running)
		<-finish
		return in, ctx.Err()
	}}))
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	c := dial(t, nc)
	result := make(chan error)
	go func() { result <- callOnce(t, c) }()
	<-running
	cancel()
	close(finish) // Run has to wait for the handler, whose context goes on
	must(t, <-result)
	must(t, <-ended)
}

func TestRunEndsWithTheConnection(t *testing.T) {
	srv := rpctest.NewServer(t)
	nc := srv.Connect()
	s := rpc.NewServer(nc, rpc.WithLogger(slog.New(slog.DiscardHandler)))
	handler := make(chan error)
	must(t, registerTest(s, &funcs{do: func(ctx context.Context, in string) (string, error) {
		handler <- nil
		<-ctx.Done()
		handler <- ctx.Err()
		return in, nil
	}}))
	ended := make(chan error)
	go func() { ended <- s.Run(testContext(t)) }()
	c := dial(t, srv.Connect(), rpc.WithTimeout(20*time.Second))
	go func() { _, _ = do(context.Background(), c, "x") }()
	<-handler
	nc.Close()
	if err := <-handler; !errors.Is(err, context.Canceled) {
		t.Errorf("the handler's context ended with %v", err)
	}
	if err := <-ended; !errors.Is(err, nats.ErrConnectionClosed) {
		t.Errorf("Run returned %v", err)
	}
}

// TestForcedShutdown: when the time is up the callers of handlers that do not end are answered.
func TestForcedShutdown(t *testing.T) {
	nc := rpctest.Connect(t)
	running, finish := make(chan struct{}, 2), make(chan struct{})
	s := newTestServer(t, nc, &funcs{do: func(context.Context, string) (string, error) {
		running <- struct{}{}
		<-finish // whatever its context says
		return "late", nil
	}}, rpc.WithMaxConcurrency(1))
	c := dial(t, nc)
	results := make(chan error, 2)
	for range 2 { // one runs, the other waits in the queue
		go func() { results <- callOnceNoRetry(t, c) }()
	}
	<-running
	waitQueued(t, nc, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown returned %v", err)
	}
	var ran []rpc.Execution
	for range 2 {
		var e *rpc.Error
		if err := <-results; !errors.As(err, &e) || e.Code() != rpc.CodeUnavailable {
			t.Fatalf("a caller got %v", err)
		}
		ran = append(ran, e.Execution())
	}
	if ran[0] == ran[1] {
		t.Errorf("the callers were told %v, want one of ExecutionDidRun and one of ExecutionNotRun", ran)
	}
	close(finish)
}

func callOnceNoRetry(t testing.TB, c *rpc.Client) error {
	_, err := do(testContext(t), c, "x", rpc.WithoutRetry())
	return err
}

// waitQueued waits until so many calls of Do are queued, as STATS tells.
func waitQueued(t testing.TB, nc *nats.Conn, n int) {
	t.Helper()
	for ctx := testContext(t); ctx.Err() == nil; {
		m, err := nc.RequestWithContext(ctx, "$SRV.STATS.TestService", nil)
		must(t, err)
		if strings.Contains(string(m.Data), `"queued":`+string(rune('0'+n))) {
			return
		}
	}
	t.Fatal("the calls were never queued")
}

func TestOverload(t *testing.T) {
	nc := rpctest.Connect(t)
	running, finish := make(chan struct{}, 9), make(chan struct{})
	serve(t, nc, &funcs{do: func(context.Context, string) (string, error) {
		running <- struct{}{}
		<-finish
		return "", nil
	}}, rpc.WithMaxConcurrency(1), rpc.WithMaxQueue(1))
	c := dial(t, nc)
	results := make(chan error, 2)
	for range 2 {
		go func() { results <- callOnce(t, c) }()
	}
	<-running
	waitQueued(t, nc, 1)
	err := callOnce(t, c)
	if e := wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionNotRun); !strings.Contains(e.Message(), "busy") {
		t.Errorf("got %v", err)
	}
	close(finish)
	for range 2 {
		must(t, <-results)
	}
}

// TestExpiredInQueue: work whose time is up is not begun.
func TestExpiredInQueue(t *testing.T) {
	nc := rpctest.Connect(t)
	var ran atomic.Int32
	running, finish := make(chan struct{}), make(chan struct{})
	s := newTestServer(t, nc, &funcs{do: func(_ context.Context, in string) (string, error) {
		if ran.Add(1) == 1 {
			close(running)
			<-finish
		}
		return in, nil
	}}, rpc.WithMaxConcurrency(1))
	c := dial(t, nc)
	first := make(chan error)
	go func() { first <- callOnce(t, c) }()
	<-running
	_, err := do(context.Background(), c, "x", rpc.WithTimeout(300*time.Millisecond))
	wantCode(t, err, rpc.CodeDeadlineExceeded, rpc.ExecutionMayHaveRun)
	close(finish)
	must(t, <-first)
	shutdown(t, s)
	if n := ran.Load(); n != 1 {
		t.Errorf("the handler ran %d times", n)
	}
}

// TestRegisterWhileRunning: services come and go while the server runs.
func TestRegisterWhileRunning(t *testing.T) {
	nc := rpctest.Connect(t)
	ctx := testContext(t)
	s := rpc.NewServer(nc)
	must(t, s.Start(ctx))
	defer shutdown(t, s)
	c := dial(t, nc)
	for range 3 {
		must(t, registerTest(s, &funcs{}))
		must(t, callOnceNoRetry(t, c))
		must(t, s.Unregister(ctx, testDesc.Name))
		wantCode(t, callOnceNoRetry(t, c), rpc.CodeUnavailable, rpc.ExecutionNotRun)
	}
	wantText(t, s.Unregister(ctx, testDesc.Name), `no service "test.v1.TestService"`)
}

// TestHandlersOfTheConnection: two servers on one connection, stopped in either
// order, and the user's handlers still run, whenever they were set.
func TestHandlersOfTheConnection(t *testing.T) {
	for _, order := range [][]int{{0, 1}, {1, 0}} {
		srv := rpctest.NewServer(t)
		var mu sync.Mutex
		seen := map[string]int{}
		handler := func(name string) nats.ErrHandler {
			return func(*nats.Conn, *nats.Subscription, error) { mu.Lock(); defer mu.Unlock(); seen[name]++ }
		}
		closed := make(chan struct{})
		nc := srv.Connect(nats.ErrorHandler(handler("user")), nats.ClosedHandler(func(*nats.Conn) { close(closed) }))
		fire := func() { nc.ErrorHandler()(nc, nil, errors.New("something")) }
		servers := []*rpc.Server{newTestServer(t, nc, &funcs{}), newTestServer(t, nc, &funcs{})}
		fire()
		shutdown(t, servers[order[0]])
		fire()
		nc.SetErrorHandler(handler("later"))
		c := dial(t, nc)
		must(t, callOnce(t, c))
		fire()
		shutdown(t, servers[order[1]])
		must(t, c.Close())
		fire()
		mu.Lock()
		if seen["user"] != 2 || seen["later"] != 2 {
			t.Errorf("order %v: the user's handlers were called %v times", order, seen)
		}
		mu.Unlock()
		nc.Close()
		<-closed
	}
}

func TestSubjectPrefixAndQueueGroup(t *testing.T) {
	srv := rpctest.NewServer(t)
	var blue, all atomic.Int32
	count := func(n *atomic.Int32) *funcs {
		return &funcs{do: func(_ context.Context, in string) (string, error) { n.Add(1); return in, nil }}
	}
	serve(t, srv.Connect(), count(&blue), rpc.WithSubjectPrefix("blue.eu"), rpc.WithQueueGroup("workers"))
	answers := srv.Connect()
	for range 3 {
		serve(t, srv.Connect(), count(&all), rpc.WithoutQueueGroup())
	}
	must(t, callOnce(t, dial(t, srv.Connect(), rpc.WithSubjectPrefix("blue.eu"))))
	if blue.Load() != 1 || all.Load() != 0 {
		t.Fatalf("the call went to blue %d times, to the others %d times", blue.Load(), all.Load())
	}
	inbox, err := answers.SubscribeSync("answers")
	must(t, err)
	must(t, answers.PublishRequest("test.v1.TestService.Do", "answers", nil))
	for range 3 {
		_, err := inbox.NextMsg(20 * time.Second)
		must(t, err)
	}
	if blue.Load() != 1 || all.Load() != 3 {
		t.Fatalf("without a queue group: %d instances got the request", all.Load())
	}
}
