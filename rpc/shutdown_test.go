package rpc_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// stuckHandlers end when the test does, whatever their context says.
func stuckHandlers(t *testing.T) (impl *funcs, running chan struct{}) {
	running = make(chan struct{}, 8)
	finish := make(chan struct{})
	t.Cleanup(func() { close(finish) })
	wait := func() error {
		running <- struct{}{}
		<-finish
		return nil
	}
	return &funcs{
		do:    func(context.Context, string) (string, error) { return "", wait() },
		watch: func(context.Context, string, *rpc.Sender[*text]) error { return wait() },
	}, running
}

// TestLeastPatienceDecides: of several that wait for stuck handlers, whether they shut the
// server down or unregister a service, the one whose context ends first ends the wait for all.
func TestLeastPatienceDecides(t *testing.T) {
	patient, name := context.Background(), testDesc.Name
	for what, test := range map[string]struct {
		first, second func(*rpc.Server, context.Context) error
	}{
		"two shutdowns":             {(*rpc.Server).Shutdown, (*rpc.Server).Shutdown},
		"unregister, then shutdown": {unregister(name), (*rpc.Server).Shutdown},
		"shutdown, then unregister": {(*rpc.Server).Shutdown, unregister(name)},
		"two unregisters":           {unregister(name), unregister(name)},
	} {
		t.Run(what, func(t *testing.T) {
			srv := rpctest.NewServer(t)
			impl, running := stuckHandlers(t)
			s := newTestServer(t, srv.Connect(), impl)
			c := dial(t, srv.Connect())
			results := make(chan error, 2)
			go func() { results <- callOnce(t, c) }()
			r, err := watch(testContext(t), c, "x")
			must(t, err)
			go func() { _, err := r.Recv(); results <- err }()
			<-running
			<-running
			first := make(chan error, 1)
			go func() { first <- test.first(s, patient) }()
			probe := srv.Connect()
			until(t, "it has begun", func() bool { return unlisted(probe, "TestService") })
			soon, cancel := context.WithTimeout(patient, 20*time.Millisecond)
			defer cancel()
			for _, err := range []error{test.second(s, soon), <-first} {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("it returned %v", err)
				}
				wantText(t, err, "still running: 1 of /test.v1.TestService/Do, 1 of /test.v1.TestService/Watch")
			}
			for range 2 {
				wantCode(t, <-results, rpc.CodeUnavailable, rpc.ExecutionDidRun)
			}
			must(t, s.Shutdown(testContext(t))) // it has ended, or has nothing left
		})
	}
}

func unregister(name string) func(*rpc.Server, context.Context) error {
	return func(s *rpc.Server, ctx context.Context) error { return s.Unregister(ctx, name) }
}

// unlisted reports whether nothing answers a discovery ping. A ping that arrives while its
// service unsubscribes gets no answer at all, so the wait for one is short.
func unlisted(nc *nats.Conn, name string) bool {
	_, err := nc.Request("$SRV.PING."+name, nil, 100*time.Millisecond)
	return errors.Is(err, nats.ErrNoResponders)
}

// TestShutdownEndsStart: a start that waits for NATS does not hold up a shutdown.
func TestShutdownEndsStart(t *testing.T) {
	nc, _ := connectLater(t)
	defer nc.Close()
	s := rpc.NewServer(nc)
	must(t, registerTest(s, &funcs{}))
	started := make(chan error)
	go func() { started <- s.Start(context.Background()) }()
	must(t, s.Shutdown(testContext(t)))
	if err := <-started; !errors.Is(err, rpc.ErrServerStopped) {
		t.Errorf("Start returned %v", err)
	}
}

// connectLater returns a connection to a NATS server that listens when it is told to.
func connectLater(t *testing.T) (nc *nats.Conn, listen func()) {
	t.Helper()
	place, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	port := place.Addr().(*net.TCPAddr).Port
	must(t, place.Close())
	nc, err = nats.Connect("nats://"+place.Addr().String(), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	must(t, err)
	t.Cleanup(nc.Close)
	return nc, func() {
		rpctest.NewServer(t, rpctest.WithoutLeakCheck(), rpctest.WithServerOptions(func(o *server.Options) { o.Port = port }))
	}
}

// TestNATSComesLater: a server waits for NATS for as long as its context allows, and serves then.
func TestNATSComesLater(t *testing.T) {
	nc, listen := connectLater(t)
	s := rpc.NewServer(nc)
	must(t, registerTest(s, &funcs{}))
	short, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	err := s.Start(short)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Start returned %v", err)
	}
	wantText(t, err, "the NATS connection is reconnecting")
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Run(ctx) }()
	listen()
	c := dial(t, nc)
	until(t, "the service answers", func() bool { return callOnceNoRetry(t, c) == nil })
	stop()
	must(t, <-ended)
}

// TestFirstCallWithoutNATS: the first call of a client waits for a connection that is not up yet,
// and fails like any other if it does not come, or is closed.
func TestFirstCallWithoutNATS(t *testing.T) {
	nc, listen := connectLater(t)
	s := rpc.NewServer(nc)
	must(t, registerTest(s, &funcs{}))
	wantCode(t, callOnce(t, dial(t, nc, rpc.WithReconnectWait(20*time.Millisecond))), rpc.CodeUnavailable, rpc.ExecutionNotRun)
	result := make(chan error, 1)
	c := dial(t, nc, rpc.WithReconnectWait(time.Minute))
	go func() { result <- callOnce(t, c) }()
	listen()
	must(t, s.Start(testContext(t)))
	must(t, <-result)
	shutdown(t, s)

	nc, _ = connectLater(t)
	c = dial(t, nc, rpc.WithReconnectWait(time.Minute))
	go func() { result <- callOnce(t, c) }()
	nc.Close()
	wantCode(t, <-result, rpc.CodeUnavailable, rpc.ExecutionNotRun)
}

// TestClosedForAReason: what ended the connection stands in the errors of servers and clients.
func TestClosedForAReason(t *testing.T) {
	options := server.Options{}
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
		o.Users = []*server.User{{Username: "service", Password: "x"}}
		options = *o
	}))
	nc := srv.Connect(nats.UserInfo("service", "x"), quiet, nats.MaxReconnects(3), nats.ReconnectWait(time.Millisecond))
	s := rpc.NewServer(nc)
	must(t, registerTest(s, &funcs{}))
	ended := make(chan error)
	go func() { ended <- s.Run(context.Background()) }()
	c := dial(t, nc)
	until(t, "the service answers", func() bool { return callOnceNoRetry(t, c) == nil })
	options.Users = []*server.User{{Username: "somebody", Password: "else"}}
	must(t, srv.NATS().ReloadOptions(&options))
	err := <-ended
	if !errors.Is(err, nats.ErrConnectionClosed) || !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("Run returned %v", err)
	}
	e := wantCode(t, callOnce(t, c), rpc.CodeUnavailable, rpc.ExecutionNotRun)
	if !errors.Is(e, nats.ErrAuthorization) || !strings.Contains(strings.ToLower(e.Message()), "authorization violation") {
		t.Errorf("a call returns %v", e)
	}
}

// TestAllRefusedSubscriptions: an error names every subscription that NATS does not allow.
func TestAllRefusedSubscriptions(t *testing.T) {
	denied := []string{testRoot + ".Do", testRoot + ".Read", testRoot + ".Watch", "notes.new"}
	srv := newServerWithUsers(t, &server.User{Username: "service", Password: "x", Permissions: &server.Permissions{
		Subscribe: &server.SubjectPermission{Deny: denied},
	}})
	var seen []string
	nc := srv.Connect(nats.UserInfo("service", "x"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { seen = append(seen, err.Error()) }))
	s := rpc.NewServer(nc)
	must(t, registerTest(s, &funcs{}))
	for range 3 { // each start names its own
		err := s.Start(testContext(t))
		if !errors.Is(err, nats.ErrPermissionViolation) {
			t.Errorf("Start returned %v", err)
		}
		for _, subject := range denied {
			wantText(t, err, `"`+subject+`"`)
			if n := strings.Count(err.Error(), `"`+subject+`"`); n != 1 {
				t.Errorf("%s is named %d times", subject, n)
			}
		}
	}
	if nc.NumSubscriptions() != 0 {
		t.Errorf("%d subscriptions are left", nc.NumSubscriptions())
	}
}

// TestErrorsSayEnough: what one reads of an error at night.
func TestErrorsSayEnough(t *testing.T) {
	nc := rpctest.Connect(t, nats.NoEcho())
	s := serve(t, nc, &funcs{})
	c := dial(t, nc, rpc.WithoutRetry(), rpc.WithSubjectPrefix("blue.eu"))
	_, err := do(testContext(t), c, "x")
	wantText(t, err, "nats.NoEcho")
	wantText(t, err, `no service answers on "blue.eu.test.v1.TestService.Do"`)
	_, err = watch(testContext(t), c, "x")
	wantText(t, err, "nats.NoEcho")
	wantText(t, err, `no service answers on "blue.eu.test.v1.TestService.Watch"`)
	wantText(t, registerTest(s, &funcs{}), "rpc: register test.v1.TestService: the server has it already")
	shutdown(t, s)
	for _, err := range []error{s.Start(testContext(t)), registerTest(s, &funcs{})} {
		if !errors.Is(err, rpc.ErrServerStopped) || strings.Count(err.Error(), "rpc:") != 1 {
			t.Errorf("error is %v", err)
		}
	}

	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{}, rpc.WithMaxMessageSize(100))
	c = dial(t, srv.Connect(), rpc.WithMaxMessageSize(200))
	for n, want := range map[int]string{
		150: "the request has 153 bytes, the limit is 100 (rpc.WithMaxMessageSize or WithMaxReceiveSize)",
		300: "the request has 303 bytes, the limit is 200 (rpc.WithMaxMessageSize or WithMaxSendSize)",
	} {
		_, err = do(testContext(t), c, strings.Repeat("x", n))
		wantText(t, err, want)
	}
	c = dial(t, srv.Connect(), rpc.WithPlainRequests())
	_, err = do(testContext(t), c, strings.Repeat("x", 2<<20))
	wantText(t, err, "more than the NATS server's max_payload")
	unary := rpc.NewUnaryMethod[text, text](&testDesc, rpc.MethodDesc{Name: "Watch"})
	_, err = unary.Call(testContext(t), dial(t, srv.Connect()), wrapperspb.String("x"))
	wantText(t, err, "/test.v1.TestService/Watch is a server_stream method here")
}

// TestRunAskedToEndBeforeReady: Run returns nil also where ctx has a cause, and Start both.
func TestRunAskedToEndBeforeReady(t *testing.T) {
	nc, _ := connectLater(t)
	s := rpc.NewServer(nc)
	must(t, registerTest(s, &funcs{}))
	signal := errors.New("terminated")
	ctx, stop := context.WithTimeoutCause(context.Background(), 20*time.Millisecond, signal)
	defer stop()
	if err := s.Start(ctx); !errors.Is(err, signal) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Start returned %v", err)
	}
	must(t, s.Run(ctx))
}

// TestConnectionBreaksDuringStart: a start whose connection breaks waits for another one, and
// its error is that of the wait.
func TestConnectionBreaksDuringStart(t *testing.T) {
	for range 20 { // in some of which Start has noticed before ctx ends
		nc := connectBriefly(t)
		s := rpc.NewServer(nc)
		must(t, registerTest(s, &funcs{}))
		ctx, stop := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- s.Run(ctx) }()
		until(t, "the connection breaks", nc.IsReconnecting)
		stop()
		must(t, <-ended)
	}
}

// connectBriefly returns a connection to a NATS server that goes away, for good, when it is to
// confirm the first subscriptions.
func connectBriefly(t *testing.T) *nats.Conn {
	t.Helper()
	place, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	go func() { // ends with the connection
		defer place.Close() //nolint:errcheck // nobody listens any more either way
		conn, err := place.Accept()
		if err != nil {
			return
		}
		defer conn.Close() //nolint:errcheck // likewise
		fmt.Fprint(conn, `INFO {"server_id":"x","version":"2.11.0","proto":1,"headers":true,"max_payload":1048576}`+"\r\n")
		subscribed := false
		for lines := bufio.NewScanner(conn); lines.Scan(); {
			subscribed = subscribed || strings.HasPrefix(lines.Text(), "SUB")
			switch {
			case lines.Text() == "PING" && subscribed:
				return
			case lines.Text() == "PING":
				fmt.Fprint(conn, "PONG\r\n")
			}
		}
	}()
	nc, err := nats.Connect("nats://"+place.Addr().String(), nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond))
	must(t, err)
	t.Cleanup(nc.Close)
	return nc
}

// TestRefusedToOthers: a subscription of somebody else's on the connection that NATS refuses
// while a server starts is not the server's fault.
func TestRefusedToOthers(t *testing.T) {
	srv := newServerWithUsers(t, &server.User{Username: "service", Password: "x", Permissions: &server.Permissions{
		Subscribe: &server.SubjectPermission{Deny: []string{"forbidden.>"}},
	}})
	nc := srv.Connect(nats.UserInfo("service", "x"), quiet)
	for range 20 {
		s := rpc.NewServer(nc, rpc.WithLogger(slog.New(slog.DiscardHandler)))
		must(t, registerTest(s, &funcs{}))
		started := make(chan error)
		go func() { started <- s.Start(testContext(t)) }()
		for i := range 20 {
			sub, err := nc.SubscribeSync(fmt.Sprintf("forbidden.%d", i))
			must(t, err)
			must(t, sub.Unsubscribe())
		}
		must(t, <-started)
		shutdown(t, s)
	}
}

// TestVirtualRefusedBesideOthers: a subscription that NATS refuses fails the start, and at once,
// also where the connection is refused something else behind it.
func TestVirtualRefusedBesideOthers(t *testing.T) {
	user := &server.User{Username: "service", Password: "x", Permissions: &server.Permissions{
		Subscribe: &server.SubjectPermission{Deny: []string{testRoot + ".Do"}},
		Publish:   &server.SubjectPermission{Deny: []string{"forbidden"}},
	}}
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		nc := srv.Connect(nats.UserInfo("service", "x"), quiet)
		for range soak(500, 50) {
			s := rpc.NewServer(nc, rpc.WithLogger(slog.New(slog.DiscardHandler)))
			must(t, registerTest(s, &funcs{}))
			ctx, stop := context.WithCancel(testContext(t))
			var publisher sync.WaitGroup
			publisher.Go(func() {
				for i := 0; i < 1000 && ctx.Err() == nil; i++ { // then time can pass
					_ = nc.Publish("forbidden", nil) // NATS answers with a violation
					_ = nc.Flush()
				}
			})
			began := time.Now()
			err := s.Start(testContext(t))
			if took := time.Since(began); took > 0 || !errors.Is(err, nats.ErrPermissionViolation) {
				t.Fatalf("Start returned %v after %v", err, took)
			}
			wantText(t, err, `may not subscribe to "test.v1.TestService.Do": `)
			stop()
			publisher.Wait()
		}
	}, rpctest.WithServerOptions(func(o *server.Options) { o.Users = []*server.User{user} }))
}

// TestRunAfterForcedShutdown: Run tells of handlers that a Shutdown elsewhere has stopped.
func TestRunAfterForcedShutdown(t *testing.T) {
	srv := rpctest.NewServer(t)
	started := make(chan struct{})
	s := rpc.NewServer(srv.Connect(), rpc.WithLogger(slog.New(slog.DiscardHandler)))
	must(t, registerTest(s, &funcs{do: func(ctx context.Context, _ string) (string, error) {
		close(started)
		<-ctx.Done()
		return "", ctx.Err()
	}}))
	ran := make(chan error, 1)
	go func() { ran <- s.Run(testContext(t)) }()
	c := dial(t, srv.Connect())
	called := make(chan error, 1)
	go func() { called <- callOnce(t, c) }()
	<-started
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	want := s.Shutdown(gone)
	if err := <-ran; want == nil || err == nil || err.Error() != want.Error() {
		t.Errorf("Run returns %v, and Shutdown %v", err, want)
	}
	wantCode(t, <-called, rpc.CodeUnavailable, rpc.ExecutionDidRun)
}

// TestStopped: interceptors learn that a shutdown does not wait any longer, also of a call whose
// context has ended before.
func TestStopped(t *testing.T) {
	srv := rpctest.NewServer(t)
	running, left, ended := make(chan struct{}), make(chan struct{}), make(chan struct{})
	s := newTestServer(t, srv.Connect(), &funcs{}, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, _ rpc.Next) error {
		close(running)
		<-ctx.Done()
		select {
		case <-call.Stopped():
			t.Error("a shutdown does not wait, and there is none")
		default:
		}
		close(left)
		<-call.Stopped()
		close(ended)
		return ctx.Err()
	}))
	ctx, leave := context.WithCancel(testContext(t))
	called := make(chan struct{})
	go func() {
		defer close(called)
		_, _ = do(ctx, dial(t, srv.Connect()), "x")
	}()
	<-running
	leave()
	<-called
	<-left
	now, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(now); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown returned %v", err)
	}
	<-ended
}
