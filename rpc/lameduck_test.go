package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/micro"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestLameDuck: a service that moves when its NATS node is about to leave, as
// docs/operations.md shows, loses no call.
func TestLameDuck(t *testing.T) {
	t.Parallel()
	var nodes []*rpctest.Server
	for i := range 2 {
		nodes = append(nodes, rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
			o.ServerName = fmt.Sprintf("n%d", i)
			o.Cluster = server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: server.RANDOM_PORT}
			// Lame duck mode ends when the last client has gone.
			o.LameDuckGracePeriod, o.LameDuckDuration = 5*time.Second, 10*time.Second
			if i > 0 {
				o.Routes = []*url.URL{{Scheme: "nats", Host: nodes[0].NATS().ClusterAddr().String()}}
			}
		})))
	}
	ctx, stop := context.WithCancel(context.Background())
	impl, served := &funcs{}, make(chan error)
	go func() {
		served <- serveAndMove(ctx, nodes[0].URL()+","+nodes[1].URL(), func(s *rpc.Server) error { return registerTest(s, impl) })
	}()
	at := -1 // nats.go chooses the node by chance
	until(t, "the service is connected", func() bool {
		at = slices.IndexFunc(nodes, func(n *rpctest.Server) bool { return n.NATS().NumClients() > 0 })
		return at >= 0
	})
	nc := nodes[1-at].Connect()
	awaitService(t, nc)
	before := discover[micro.Ping](t, nc, "$SRV.PING.TestService", 1)[0].ID
	c := dial(t, nc)
	done := make(chan struct{})
	var callers sync.WaitGroup
	for range 8 {
		callers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := callOnceNoRetry(t, c); err != nil {
					t.Errorf("lost: %v", err)
					return
				}
			}
		})
	}
	nodes[at].NATS().LameDuckShutdown()
	until(t, "the instance has moved", func() bool { return unlisted(nc, "TestService."+before) })
	must(t, callOnceNoRetry(t, c))
	close(done)
	callers.Wait()
	stop()
	must(t, <-served)
}

// TestSecondSignal: the first signal waits for handlers, the second one ends the wait.
func TestSecondSignal(t *testing.T) {
	srv := rpctest.NewServer(t)
	impl, running := stuckHandlers(t)
	s := newTestServer(t, srv.Connect(), impl)
	c := dial(t, srv.Connect())
	result := make(chan error, 1)
	go func() { result <- callOnce(t, c) }()
	<-running
	signals, stopped := make(chan os.Signal), make(chan error)
	go func() { stopped <- stopOrForce()(s, signals) }()
	probe := srv.Connect()
	until(t, "it has begun", func() bool { return unlisted(probe, "TestService") })
	signals <- os.Interrupt
	if err := <-stopped; !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown returned %v", err)
	}
	wantCode(t, <-result, rpc.CodeUnavailable, rpc.ExecutionDidRun)
}
