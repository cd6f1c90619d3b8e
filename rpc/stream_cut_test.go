package rpc_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// waitForEnd is a handler that sends a message and waits; it reports how Send ends.
func waitForEnd(ended chan<- error) func(context.Context, string, *rpc.Sender[*text]) error {
	return func(ctx context.Context, _ string, to *rpc.Sender[*text]) error {
		err := to.Send(wrapperspb.String("x"))
		<-ctx.Done()
		if err == nil {
			err = to.Send(wrapperspb.String("y"))
		}
		ended <- err
		return err
	}
}

// openWaiting opens a stream to waitForEnd.
func openWaiting(t *testing.T, c *rpc.Client) *rpc.Receiver[*text] {
	t.Helper()
	r, err := watch(testContext(t), c, "x")
	must(t, err)
	_, err = r.Recv()
	must(t, err)
	return r
}

// wantEnd waits for the end of a handler: three heartbeats, and time for a slow machine.
func wantEnd(t *testing.T, ended <-chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("the handler's context goes on")
		return nil
	}
}

// wantUnavailable waits for the end of a client's stream.
func wantUnavailable(t *testing.T, r *rpc.Receiver[*text]) *rpc.Error {
	t.Helper()
	started := time.Now()
	_, err := r.Recv()
	if took := time.Since(started); took > 10*time.Second {
		t.Errorf("the client learned of it after %v", took)
	}
	var e *rpc.Error
	if !errors.As(err, &e) || e.Code() != rpc.CodeUnavailable {
		t.Fatalf("the client gets %v", err)
	}
	return e
}

// TestConnectionCut: streams end on both sides when either connection is cut, and new ones are
// served.
func TestConnectionCut(t *testing.T) { rpctest.Bubble(t, testConnectionCut) }

func testConnectionCut(t *testing.T, srv *rpctest.Server) {
	ended := make(chan error, 1)
	n := badNetworkOf(t, srv, &funcs{watch: waitForEnd(ended)})
	for name, cut := range map[string]func(){"client's": n.client.Cut, "server's": n.server.Cut} {
		r := openWaiting(t, n.c)
		cut()
		wantUnavailable(t, r)
		if code := rpc.CodeOf(wantEnd(t, ended)); code != rpc.CodeUnavailable {
			t.Errorf("%s: the handler gets %v", name, code)
		}
		for ctx := testContext(t); ; must(t, ctx.Err()) { // until there is a new one
			if callOnce(t, n.c) == nil {
				break
			}
		}
	}
	openWaiting(t, n.c).Close()
	wantEnd(t, ended)
}

// TestClientKilled: the handler's context ends, and the endpoint serves others before and after
// that.
func TestClientKilled(t *testing.T) { rpctest.Bubble(t, testClientKilled) }

func testClientKilled(t *testing.T, srv *rpctest.Server) {
	ended := make(chan error, 2)
	n := badNetworkOf(t, srv, &funcs{watch: waitForEnd(ended)})
	openWaiting(t, n.c)
	n.client.Close()
	other := dial(t, n.plain, rpc.WithHeartbeat(beat))
	r := openWaiting(t, other)
	if code := rpc.CodeOf(wantEnd(t, ended)); code != rpc.CodeUnavailable {
		t.Errorf("the handler gets %v", code)
	}
	r.Close()
	wantEnd(t, ended)
	openWaiting(t, other).Close()
	wantEnd(t, ended)
}

// TestClientKilledWhileServerIsBlocked: so does that of a handler which waits for credit.
func TestClientKilledWhileServerIsBlocked(t *testing.T) {
	rpctest.Bubble(t, testClientKilledWhileServerIsBlocked)
}

func testClientKilledWhileServerIsBlocked(t *testing.T, srv *rpctest.Server) {
	ended, blocked := make(chan error, 1), make(chan struct{})
	n := badNetworkOf(t, srv, &funcs{watch: func(_ context.Context, _ string, to *rpc.Sender[*text]) error {
		var err error
		for i := 0; err == nil; i++ {
			if i == 40 { // within the window
				close(blocked)
			}
			err = to.Send(wrapperspb.String(frameFiller))
		}
		ended <- err
		return err
	}})
	_, err := watch(testContext(t), n.c, "x")
	must(t, err)
	<-blocked
	n.client.Close()
	if code := rpc.CodeOf(wantEnd(t, ended)); code != rpc.CodeUnavailable {
		t.Errorf("the handler gets %v", code)
	}
}

// TestServerKilled: NATS says at the client's next heartbeat that nobody is there.
func TestServerKilled(t *testing.T) {
	ended := make(chan error, 1)
	n := newBadNetwork(t, &funcs{watch: waitForEnd(ended)})
	r := openWaiting(t, n.c)
	s, err := testGather.Call(testContext(t), n.c)
	must(t, err)
	n.server.Close()
	e := wantUnavailable(t, r)
	if !strings.Contains(e.Message(), "gone") {
		t.Errorf("the client gets %v", e)
	}
	_, err = s.CloseAndRecv()
	wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionMayHaveRun)
	if err := s.Send(wrapperspb.String("x")); rpc.CodeOf(err) != rpc.CodeUnavailable && err != io.EOF {
		t.Errorf("Send after that: %v", err)
	}
	wantEnd(t, ended)
}

// TestSilentServer: a server that is connected but says nothing is dead.
func TestSilentServer(t *testing.T) { rpctest.Bubble(t, testSilentServer) }

func testSilentServer(t *testing.T, srv *rpctest.Server) {
	ended := make(chan error, 1)
	n := badNetworkOf(t, srv, &funcs{watch: waitForEnd(ended)})
	r := openWaiting(t, n.c)
	n.server.Fault(func(m rpctest.Message) rpctest.Action {
		if m.To == rpctest.ToServer {
			return rpctest.Lose
		}
		return rpctest.Pass
	})
	if e := wantUnavailable(t, r); !strings.Contains(e.Message(), "nothing came") {
		t.Errorf("the client gets %v", e)
	}
	wantEnd(t, ended)
}

// TestSlowNetwork: delays change nothing.
func TestSlowNetwork(t *testing.T) {
	n := newBadNetwork(t, &funcs{watch: count})
	slow := func(rpctest.Message) rpctest.Action { return rpctest.Delay(time.Millisecond) }
	n.client.Fault(slow)
	n.server.Fault(slow)
	r, err := watch(testContext(t), n.c, "20000")
	must(t, err)
	must(t, wantCount(r, 20_000))
}
