package rpc_test

import (
	"context"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// stuckDialer makes connections whose writes wait while it is stuck, as those to a peer that reads
// nothing do.
type stuckDialer struct {
	mu      sync.Mutex
	free    chan struct{} // closed when writes go on; nil while it is not stuck
	writing chan struct{} // for the first write that waits
}

type stuckConn struct {
	net.Conn
	dialer *stuckDialer
}

func (d *stuckDialer) Dial(network, address string) (net.Conn, error) {
	conn, err := net.Dial(network, address)
	return stuckConn{conn, d}, err
}

func (c stuckConn) Write(b []byte) (int, error) {
	c.dialer.mu.Lock()
	free := c.dialer.free
	c.dialer.mu.Unlock()
	if free != nil {
		select {
		case c.dialer.writing <- struct{}{}:
		default:
		}
		<-free
	}
	return c.Conn.Write(b)
}

// stick returns when nats.go is in a write, and holds its lock.
func (d *stuckDialer) stick(t *testing.T, nc *nats.Conn) (free func()) {
	stuck := make(chan struct{})
	d.mu.Lock()
	d.free = stuck
	d.mu.Unlock()
	must(t, nc.Publish("something", nil))
	<-d.writing
	return sync.OnceFunc(func() {
		d.mu.Lock()
		d.free = nil
		d.mu.Unlock()
		close(stuck)
	})
}

// TestDeadlineWhileWriting: calls and streams of all kinds end by their deadlines, and with their
// contexts, while nats.go holds its lock in a write that does not end. What nobody waits for any
// more is not published later.
func TestDeadlineWhileWriting(t *testing.T) {
	srv := rpctest.NewServer(t)
	var ran atomic.Int64
	waiting := make(chan struct{})
	count := func() { ran.Add(1) }
	serve(t, srv.Connect(), &funcs{
		do: func(ctx context.Context, in string) (string, error) {
			count()
			if in == "wait" {
				waiting <- struct{}{}
				<-ctx.Done()
			}
			return in, nil
		},
		note:  func(context.Context, *structpb.Struct) error { count(); return nil },
		watch: func(_ context.Context, _ string, s *rpc.Sender[*text]) error { count(); return nil },
		chat: func(ctx context.Context, s *rpc.BidiStream[*text, *text]) error {
			count()
			waiting <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		},
	})
	dialer := &stuckDialer{writing: make(chan struct{}, 1)}
	nc := srv.Connect(nats.SetCustomDialer(dialer), nats.FlusherTimeout(time.Hour))
	c, fresh := dial(t, nc), dial(t, nc)
	must(t, callOnce(t, c))
	var wantEnded []func() error
	start := func(f func() error) {
		ended := make(chan error, 1)
		go func() { ended <- f() }()
		wantEnded = append(wantEnded, func() error { return endOf(t, ended) })
	}
	ctx, cancel := context.WithCancel(testContext(t))
	start(func() error { _, err := do(ctx, c, "wait"); return err })
	<-waiting
	chat, err := testChat.Call(ctx, c)
	must(t, err)
	start(func() error { _, err := chat.Recv(); return err })
	<-waiting
	before := ran.Load()
	free := dialer.stick(t, nc)
	defer free()
	short, stop := context.WithTimeout(testContext(t), 200*time.Millisecond)
	defer stop()
	for range 8 {
		start(func() error { _, err := do(short, c, "x"); return err })
		start(func() error { _, err := do(testContext(t), c, "x", rpc.WithTimeout(100*time.Millisecond)); return err })
	}
	for _, f := range []func(c *rpc.Client) error{
		func(c *rpc.Client) error { _, err := do(short, c, strings.Repeat("x", 2<<20)); return err },
		func(c *rpc.Client) error { return testNote.Call(short, c, &structpb.Struct{}) },
		func(c *rpc.Client) error {
			return testNote.Call(testContext(t), c, &structpb.Struct{}, rpc.WithTimeout(100*time.Millisecond))
		},
		func(c *rpc.Client) error { _, err := testWatch.Call(short, c, wrapperspb.String("x")); return err },
		func(c *rpc.Client) error { _, err := testChat.Call(short, c); return err },
		func(c *rpc.Client) error {
			g := testDo.Gather(short, c, wrapperspb.String("x"))
			for range g.All() {
				t.Error("an instance has answered")
			}
			return g.Result().Err
		},
	} {
		start(func() error { return f(c) })
		start(func() error { return f(fresh) })
	}
	cancel()
	for i, ended := range wantEnded {
		want := rpc.CodeDeadlineExceeded
		if i < 2 {
			want = rpc.CodeCanceled
		}
		if err := ended(); rpc.CodeOf(err) != want {
			t.Errorf("call %d: %v", i, err)
		}
	}
	free()
	must(t, callOnce(t, c))
	must(t, callOnce(t, fresh))
	if n := ran.Load() - before - 2; n != 0 {
		t.Errorf("%d handlers have run for nobody", n)
	}
}

// TestStopWhileSending: where a forced shutdown meets a message of a plain stream that is being
// published, nothing follows the end.
func TestStopWhileSending(t *testing.T) {
	for range 10 {
		srv := rpctest.NewServer(t)
		dialer := &stuckDialer{writing: make(chan struct{}, 1)}
		nc := srv.Connect(nats.SetCustomDialer(dialer), nats.FlusherTimeout(time.Hour))
		goOn := make(chan struct{})
		s := serve(t, nc, &funcs{watch: func(_ context.Context, in string, s *rpc.Sender[*text]) error {
			must(t, s.Send(wrapperspb.String("1")))
			<-goOn
			return s.Send(wrapperspb.String("2"))
		}})
		reader := srv.Connect()
		answers, err := reader.SubscribeSync(nats.NewInbox())
		must(t, err)
		must(t, reader.PublishRequest("test.v1.TestService.Watch", answers.Subject, []byte("\x0a\x01x")))
		_, err = answers.NextMsg(time.Minute)
		must(t, err)
		free := dialer.stick(t, nc)
		close(goOn)
		stopped := make(chan error, 1)
		go func() {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			stopped <- s.Shutdown(ctx)
		}()
		free()
		<-stopped
		must(t, nc.Flush())
		must(t, reader.Flush())
		for ended := false; ; {
			m, err := answers.NextMsg(time.Millisecond)
			if err != nil {
				break
			}
			if ended {
				t.Fatalf("behind the end comes %v: %q", m.Header, m.Data)
			}
			ended = m.Header.Get("Nats-Service-Error-Code") != ""
		}
	}
}

// TestCloseWhileWriting: while nats.go holds its lock, closing a client ends its calls and those
// that come later, and neither Close nor another connection waits for that lock.
func TestCloseWhileWriting(t *testing.T) {
	srv := rpctest.NewServer(t)
	waiting := make(chan struct{})
	serve(t, srv.Connect(), &funcs{do: func(ctx context.Context, in string) (string, error) {
		if in == "wait" {
			waiting <- struct{}{}
			<-ctx.Done()
		}
		return in, nil
	}})
	dialer := &stuckDialer{writing: make(chan struct{}, 1)}
	nc := srv.Connect(nats.SetCustomDialer(dialer), nats.FlusherTimeout(time.Hour))
	c, fresh, other := rpc.NewClient(nc), rpc.NewClient(nc), dial(t, srv.Connect())
	must(t, callOnce(t, c))
	ctx := testContext(t)
	var ended []chan error
	start := func(f func() error) {
		end := make(chan error, 1)
		go func() { end <- f() }()
		ended = append(ended, end)
	}
	start(func() error { _, err := do(ctx, c, "wait"); return err })
	<-waiting
	free := dialer.stick(t, nc)
	defer free()
	calls := []func(c *rpc.Client) error{
		func(c *rpc.Client) error { _, err := do(ctx, c, "x"); return err },
		func(c *rpc.Client) error { return testNote.Call(ctx, c, &structpb.Struct{}) },
		func(c *rpc.Client) error { _, err := testChat.Call(ctx, c); return err },
		func(c *rpc.Client) error {
			g := testDo.Gather(ctx, c, wrapperspb.String("x"))
			for range g.All() {
				t.Error("an instance has answered")
			}
			return g.Result().Err
		},
	}
	for _, f := range calls {
		start(func() error { return f(c) })
		start(func() error { return f(fresh) })
	}
	must(t, c.Close())
	must(t, fresh.Close())
	for _, f := range calls {
		start(func() error { return f(c) })
		start(func() error { return f(fresh) })
	}
	for i, end := range ended {
		if err := endOf(t, end); rpc.CodeOf(err) != rpc.CodeCanceled {
			t.Errorf("call %d: %v", i, err)
		}
	}
	must(t, callOnce(t, other))
}

// TestSilenceWhileWriting: while nothing can be published no instance is asked, and none is taken
// for dead.
func TestSilenceWhileWriting(t *testing.T) {
	t.Parallel()
	srv := rpctest.NewServer(t)
	waiting, finish := make(chan struct{}), make(chan struct{})
	serve(t, srv.Connect(), &funcs{
		do: func(_ context.Context, in string) (string, error) {
			waiting <- struct{}{}
			<-finish
			return in, nil
		},
		read: func(_ context.Context, in string) (string, error) { return in, nil },
	})
	dialer := &stuckDialer{writing: make(chan struct{}, 1)}
	nc := srv.Connect(nats.SetCustomDialer(dialer), nats.FlusherTimeout(time.Hour))
	c := dial(t, nc)
	ended := make(chan error, 2)
	go func() { _, err := do(testContext(t), c, "x"); ended <- err }()
	<-waiting
	free := dialer.stick(t, nc)
	defer free()
	go func() { _, err := testRead.Call(testContext(t), c, wrapperspb.String("x")); ended <- err }()
	select {
	case err := <-ended:
		t.Error("while nats.go writes:", err)
		return
	case <-time.After(4 * time.Second): // silence would end calls after three
	}
	free()
	close(finish)
	for range 2 {
		must(t, endOf(t, ended))
	}
}
