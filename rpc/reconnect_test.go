package rpc_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

// isAnswer reports whether a message is a response on its way to a client.
func isAnswer(m rpctest.Message) bool {
	return m.To == rpctest.ToClient && strings.HasPrefix(m.Subject, "_INBOX.") && len(m.Data) > 2 &&
		m.Data[0] == wire.Mark && wire.Kind(m.Data[2]) == wire.KindResponse
}

// TestAnswerLostWithTheConnection: a call whose answer was lost when the caller's
// connection broke ends soon after the reconnect, or is sent again where it may
// run twice; and well before one whose answer was lost without a sign.
func TestAnswerLostWithTheConnection(t *testing.T) {
	rpctest.Bubble(t, testAnswerLostWithTheConnection)
}

func testAnswerLostWithTheConnection(t *testing.T, srv *rpctest.Server) {
	var ran, read atomic.Int32
	serve(t, srv.Connect(), &funcs{
		do:   func(_ context.Context, in string) (string, error) { ran.Add(1); return in, nil },
		read: func(_ context.Context, in string) (string, error) { read.Add(1); return in, nil },
	})
	asked := make(chan bool, 64)
	watcher := srv.Connect()
	_, err := watcher.Subscribe(testRoot+"._all.alive", func(*nats.Msg) { asked <- true })
	must(t, err)
	must(t, watcher.Flush())
	results := make(chan string, 2)
	losing := func(name string, action rpctest.Action) {
		proxy := rpctest.NewProxy(t, srv)
		c := dial(t, proxy.Connect())
		must(t, callOnce(t, c))
		proxy.Fault(once(action, isAnswer))
		go func() {
			_, err := do(testContext(t), c, "x")
			wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionMayHaveRun)
			results <- name
		}()
	}
	losing("lost", rpctest.Lose)
	<-asked // it has waited for a second when the other one begins
	losing("cut", rpctest.Cut)
	if first := <-results; first != "cut" {
		t.Error("the call whose connection was cut learned of it last, and began last")
	}
	<-results
	if ran.Load() != 4 {
		t.Errorf("the handler ran %d times", ran.Load())
	}
	proxy := rpctest.NewProxy(t, srv)
	c := dial(t, proxy.Connect())
	must(t, callOnce(t, c))
	proxy.Fault(once(rpctest.Cut, isAnswer))
	_, err = testRead.Call(testContext(t), c, wrapperspb.String("x"))
	must(t, err)
	if read.Load() != 2 {
		t.Errorf("the idempotent handler ran %d times", read.Load())
	}
}

// TestManyCallsOverAReconnect: those that a server still works on go on, and each call ends as it
// should.
func TestManyCallsOverAReconnect(t *testing.T) { rpctest.Bubble(t, testManyCallsOverAReconnect) }

func testManyCallsOverAReconnect(t *testing.T, srv *rpctest.Server) {
	finish := make(chan struct{})
	var running atomic.Int32
	serve(t, srv.Connect(), &funcs{do: func(_ context.Context, in string) (string, error) {
		if in == "long" {
			running.Add(1)
			<-finish
		}
		return in, nil
	}})
	proxy := rpctest.NewProxy(t, srv)
	c := dial(t, proxy.Connect())
	must(t, callOnce(t, c))
	const long, short = 100, 20
	longs, shorts := make(chan error), make(chan error)
	for range long {
		go func() { _, err := do(testContext(t), c, "long"); longs <- err }()
	}
	until(t, "they run", func() bool { return running.Load() == long })
	proxy.Fault(func(m rpctest.Message) rpctest.Action {
		// Answers are lost until the connection breaks.
		if isAnswer(m) {
			return rpctest.Lose
		}
		return rpctest.Pass
	})
	for range short {
		go func() { _, err := do(testContext(t), c, "short"); shorts <- err }()
	}
	probe := srv.Connect()
	served := func() int { // the short ones too
		n := 0
		for _, e := range statsOf(t, probe, 1)[0].Endpoints {
			n += e.NumRequests
		}
		return n
	}
	until(t, "the short ones have run", func() bool { return served() == 1+short })
	proxy.Cut()
	for range short {
		wantCode(t, <-shorts, rpc.CodeUnavailable, rpc.ExecutionMayHaveRun)
	}
	proxy.Fault(nil)
	close(finish)
	for range long {
		must(t, <-longs)
	}
}

// gatedDialer connects while its gate is open. It does not wait, as nats.go holds its lock
// meanwhile.
type gatedDialer struct {
	closed atomic.Bool
	conns  chan net.Conn
}

func (d *gatedDialer) Dial(network, address string) (net.Conn, error) {
	if d.closed.Load() {
		return nil, errors.New("the gate is closed")
	}
	conn, err := net.Dial(network, address)
	if err == nil {
		d.conns <- conn
	}
	return conn, err
}

// offline returns a client whose connection is down until the function that it returns is called.
func offline(t *testing.T, srv *rpctest.Server, opts ...rpc.ClientOption) (c *rpc.Client, nc *nats.Conn, online func()) {
	t.Helper()
	d := &gatedDialer{conns: make(chan net.Conn, 8)}
	lost := make(chan bool, 1)
	nc = srv.Connect(nats.SetCustomDialer(d), nats.ReconnectWait(time.Millisecond), nats.ReconnectJitter(0, 0), nats.MaxReconnects(-1),
		nats.DisconnectErrHandler(func(*nats.Conn, error) { lost <- true }))
	c = dial(t, nc, opts...)
	must(t, callOnce(t, c))
	d.closed.Store(true)
	must(t, (<-d.conns).Close())
	<-lost
	return c, nc, func() { d.closed.Store(false) }
}

// TestReconnectWait: calls of every shape wait for a connection that is down, and are sent then,
// once.
func TestReconnectWait(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{})
	c, _, online := offline(t, srv, rpc.WithReconnectWait(time.Minute))
	type result struct {
		shape string
		err   error
	}
	calls := everyShape(testContext(t), c)
	ended := make(chan result, len(calls))
	for shape, call := range calls {
		go func() { ended <- result{shape, call()} }()
	}
	_, err := do(testContext(t), c, "x", rpc.WithReconnectWait(10*time.Millisecond))
	wantText(t, wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionNotRun), "reconnecting")
	_, err = do(testContext(t), c, "x", rpc.WithReconnectWait(0))
	wantText(t, wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionNotRun), "reconnecting")
	_, err = do(testContext(t), c, "x", rpc.WithTimeout(10*time.Millisecond))
	wantText(t, wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionNotRun), "reconnecting")
	ctx, cancel := context.WithCancel(testContext(t))
	canceled := make(chan error, 1)
	go func() { _, err := do(ctx, c, "x"); canceled <- err }()
	cancel()
	wantCode(t, <-canceled, rpc.CodeCanceled, rpc.ExecutionNotRun)
	select {
	case r := <-ended:
		t.Fatalf("%s has ended without a connection: %v", r.shape, r.err)
	default:
	}
	online()
	for range calls {
		if r := <-ended; r.err != nil {
			t.Errorf("%s: %v", r.shape, r.err)
		}
	}
}

// TestReconnectWaitEnds: nobody waits for a connection that has been closed, or a client.
func TestReconnectWaitEnds(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{})
	c, nc, _ := offline(t, srv, rpc.WithReconnectWait(time.Hour), rpc.WithTimeout(time.Hour))
	ended := make(chan error, 1)
	go func() { _, err := do(context.Background(), c, "x"); ended <- err }()
	nc.Close()
	// A call that is about to be published then knows less of itself than one that waits.
	err := <-ended
	wantText(t, err, "closed")
	var e *rpc.Error
	if !errors.As(err, &e) || e.Code() != rpc.CodeUnavailable || e.Execution() == rpc.ExecutionDidRun {
		t.Errorf("the call ends with %v", err)
	}
}

// TestReconnectWaitEndsWithClient: calls that wait for the connection end with their client.
func TestReconnectWaitEndsWithClient(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{})
	begun := make(chan struct{}, 1)
	c, _, _ := offline(t, srv, rpc.WithReconnectWait(10*time.Second), rpc.WithInterceptors(
		func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
			begun <- struct{}{}
			return next(ctx, call)
		}))
	<-begun // the call of offline
	until(t, "the client knows that it is offline", c.Down)
	ended := make(chan error)
	for range 20 {
		go func() { _, err := do(testContext(t), c, "x"); ended <- err }()
		<-begun
	}
	must(t, c.Close())
	for range 20 {
		wantCode(t, <-ended, rpc.CodeCanceled, rpc.ExecutionNotRun)
	}
}

// silentDialer connects, and once it is silent to somebody who never answers.
type silentDialer struct {
	silent  atomic.Bool
	dialed  chan struct{} // for each that does not answer
	release chan struct{} // ends them when it is closed
}

func (d *silentDialer) Dial(network, address string) (net.Conn, error) {
	if !d.silent.Load() {
		return net.Dial(network, address)
	}
	conn, peer := net.Pipe()
	go func() {
		<-d.release
		peer.Close()
	}()
	d.dialed <- struct{}{}
	return conn, nil
}

// TestDeadlineWhileConnecting: calls end by their deadlines while nats.go connects to a server that
// accepts and does not answer, for which it holds its lock.
func TestDeadlineWhileConnecting(t *testing.T) {
	srv := rpctest.NewServer(t)
	running := make(chan struct{})
	serve(t, srv.Connect(), &funcs{do: func(ctx context.Context, in string) (string, error) {
		if in == "wait" {
			running <- struct{}{}
			<-ctx.Done()
		}
		return in, nil
	}})
	proxy := rpctest.NewProxy(t, srv)
	dialer := &silentDialer{dialed: make(chan struct{}, 1), release: make(chan struct{})}
	c := dial(t, proxy.Connect(nats.SetCustomDialer(dialer), nats.Timeout(time.Hour)), rpc.WithReconnectWait(time.Hour))
	must(t, callOnce(t, c))
	canceled, cancel := context.WithCancel(testContext(t))
	waiting := make(chan error, 1)
	go func() { _, err := do(canceled, c, "wait"); waiting <- err }()
	<-running
	dialer.silent.Store(true)
	proxy.Cut()
	<-dialer.dialed
	until(t, "the client knows", c.Down)
	ended := make(chan error, 1)
	for name, call := range map[string]func(context.Context) error{
		"unary":   func(ctx context.Context) error { _, err := do(ctx, c, "x"); return err },
		"large":   func(ctx context.Context) error { _, err := do(ctx, c, strings.Repeat("x", 100_000)); return err },
		"one-way": func(ctx context.Context) error { return testNote.Call(ctx, c, &structpb.Struct{}) },
		"stream": func(ctx context.Context) error {
			_, err := testWatch.Call(ctx, c, wrapperspb.String("x"))
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
			defer cancel()
			go func() { ended <- call(ctx) }()
			wantCode(t, endOf(t, ended), rpc.CodeUnavailable, rpc.ExecutionNotRun)
		})
	}
	cancel()
	wantCode(t, endOf(t, waiting), rpc.CodeCanceled, rpc.ExecutionMayHaveRun)
	dialer.silent.Store(false)
	close(dialer.release)
	must(t, callOnce(t, c))
}

// endOf returns the end of a call that has a deadline. The limit is far beyond it.
func endOf(t *testing.T, ended <-chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(30 * time.Second):
		t.Fatal("the call has not ended")
		return nil
	}
}
