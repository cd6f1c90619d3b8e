package rpc_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
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
	srv := rpctest.NewServer(t)
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
func TestManyCallsOverAReconnect(t *testing.T) {
	srv := rpctest.NewServer(t)
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
