package rpctest

import (
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// closeTimeout is how long the goroutines of closed connections may take to end.
var closeTimeout = startTimeout

// Bubble runs f in a bubble of [testing/synctest], with a NATS server that is
// in it too. Time in a bubble is virtual: it stands still while anything can
// run, and jumps to the next timer when all goroutines of the bubble wait. So
// an hour of heartbeats, retries and deadlines passes in a moment, and
// everything happens when it is due, however busy the machine is:
//
//	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
//		service, caller := rpctest.NewProxy(t, srv), rpctest.NewProxy(t, srv)
//		// ... an rpc.Server on service.Connect(), a client on caller.Connect()
//		began := time.Now()
//		time.AfterFunc(time.Second, service.Close) // the instance is killed
//		_, err := client.PlaceOrder(ctx, req)
//		if took := time.Since(began); took > 4*time.Second {
//			t.Errorf("%v after %v", err, took)
//		}
//	})
//
// Each [Proxy] is the network between the server and the connections that are
// made through it, so services and clients can be killed, paused or cut off
// one by one.
//
// In the bubble time.Sleep costs nothing, and synctest.Wait waits until
// nothing moves any more without time. A goroutine that waits for a channel,
// a timer, a sync.WaitGroup or a sync.Cond of the bubble lets time pass; one
// that waits for a mutex, for real I/O, or for anything from outside does not.
// So there are no real sockets in a bubble, no JetStream, and no contexts or
// channels that were made outside. Only time is deterministic: what happens at
// the same instant happens in any order.
//
// All that f starts has to end with it. Connections and the server do; close
// clients and servers of package rpc with t.Cleanup or before f returns. As in
// every bubble t.Run, t.Parallel and t.Deadline may not be called.
//
// nats.go keeps timers for all connections of a process, and those of a bubble
// may not be used outside. So no other connection may be open, and the test
// may not run beside others (t.Parallel): Bubble fails the test that tries.
func Bubble(t *testing.T, f func(t *testing.T, srv *Server), opts ...Option) {
	t.Helper()
	refuseParallel(t)
	awaitNoConnections(t)
	emptyPools()
	defer emptyPools()
	synctest.Test(t, func(t *testing.T) {
		t.Helper()
		f(t, NewServer(t, append(opts, inBubble(t))...))
	})
}

func inBubble(t testing.TB) Option {
	return func(c *config) {
		inMemory(c)
		if c.options.JetStream {
			t.Fatal("rpctest: JetStream does not work in a Bubble")
		}
	}
}

// refuseParallel uses that a test which runs beside others may not set the environment.
func refuseParallel(t *testing.T) {
	t.Helper()
	defer func() {
		if recover() != nil {
			t.Fatal("rpctest: a Bubble may not run beside other tests (t.Parallel)")
		}
	}()
	t.Setenv("NATSCALL_BUBBLE", "1")
}

// emptyPools drops what is in any sync.Pool: timers, and channels, belong to the bubble in which
// they were made, or to none. What one collection keeps as a victim is dropped by the next.
func emptyPools() {
	runtime.GC()
	runtime.GC()
}

// awaitNoConnections waits until the connections of earlier tests have ended, which they do soon
// after Close.
func awaitNoConnections(t testing.TB) {
	t.Helper()
	const ofConnection = "github.com/nats-io/nats%2ego.(*" // as stacks have it
	ticker := time.NewTicker(time.Millisecond)
	defer ticker.Stop()
	for deadline := time.Now().Add(closeTimeout); ; <-ticker.C {
		stacks := allStacks()
		at := strings.Index(stacks, ofConnection)
		if at < 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("rpctest: a Bubble may not share its process with other connections of nats.go, and one is open:\n%s", stackAt(stacks, at))
		}
	}
}

func allStacks() string {
	for size := 1 << 20; ; size *= 2 {
		buf := make([]byte, size)
		if n := runtime.Stack(buf, true); n < size {
			return string(buf[:n])
		}
	}
}

// stackAt returns the stack of the goroutine that position at of all stacks is in.
func stackAt(stacks string, at int) string {
	if i := strings.LastIndex(stacks[:at], "\n\n"); i >= 0 {
		stacks, at = stacks[i+2:], at-i-2
	}
	if i := strings.Index(stacks[at:], "\n\n"); i >= 0 {
		stacks = stacks[:at+i]
	}
	return stacks
}
