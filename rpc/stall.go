package rpc

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// stallTime is from when on a clock that has not ticked says that the process stood still: it
	// was stopped, or its machine was. A tick takes liveness.ServerTick.
	stallTime = time.Second
	// fenceTimeout bounds how long requests are held: for the NATS server, and for the callbacks.
	fenceTimeout = 2 * time.Second
	// fenceInterval is the time between two looks at the callbacks.
	fenceInterval = time.Millisecond
)

// stallGuard keeps the requests that came while the process stood still from running for callers
// that have gone. A request says how long its caller waits, not since when; but the cancels of
// those that no longer wait have come too, and wait behind the requests. So when the process runs
// again, requests are held, and calls that are about to begin wait, until all that came meanwhile
// has been read.
//
//	         tick, or a request, after stallTime            read
//	running ------------------------------------> holding --------> running
type stallGuard struct {
	server  *Server
	ticked  atomic.Int64 // when the clock last ticked: a time of the server's clock
	holding atomic.Bool  // changed under the server's lock, which also protects the following
	closed  bool         // nothing is held any more
	held    []heldRequest
	over    chan struct{} // closed when nothing is held any more; made when holding begins
	lifting sync.WaitGroup
}

type heldRequest struct {
	endpoint *endpoint
	to       addressee
	msg      *nats.Msg
}

// stalled reports whether a request that comes now is to be held.
func (g *stallGuard) stalled(now time.Duration) bool {
	return g.holding.Load() || now-time.Duration(g.ticked.Load()) > stallTime
}

// tick notes that the clock has ticked.
func (g *stallGuard) tick() {
	g.server.mu.Lock()
	defer g.server.mu.Unlock()
	g.beginLocked()
	g.ticked.Store(int64(g.server.clock.now()))
}

// hold keeps a request. It returns false if all that came has been read meanwhile.
func (g *stallGuard) hold(r heldRequest) bool {
	g.server.mu.Lock()
	defer g.server.mu.Unlock()
	if !g.beginLocked() {
		return false
	}
	g.held = append(g.held, r)
	return true
}

// wait returns when nothing is held any more.
func (g *stallGuard) wait() {
	g.server.mu.Lock()
	holds, over := g.beginLocked(), g.over
	g.server.mu.Unlock()
	if holds {
		<-over // lift is bounded
	}
}

// beginLocked begins to hold requests if the process stood still. It reports whether they are held.
func (g *stallGuard) beginLocked() bool {
	if g.closed || !g.stalled(g.server.clock.now()) {
		return false
	}
	if !g.holding.Load() {
		g.holding.Store(true)
		g.over = make(chan struct{})
		g.lifting.Go(g.lift)
	}
	return true
}

// lift takes the requests that were held, once all that came before has been read: NATS answers a
// flush behind it, and the callbacks for cancels have run.
func (g *stallGuard) lift() {
	s := g.server
	ctx, cancel := context.WithTimeout(s.serving.ctx, fenceTimeout)
	defer cancel()
	if s.nc.FlushWithContext(ctx) == nil {
		g.awaitCancels(ctx)
	}
	s.mu.Lock()
	held := g.held
	g.held = nil
	close(g.over)
	g.ticked.Store(int64(s.clock.now()))
	g.holding.Store(false)
	s.mu.Unlock()
	for _, r := range held {
		r.endpoint.receiveFor(r.to, r.msg)
	}
}

// awaitCancels waits until the callbacks have taken the cancels that have come.
func (g *stallGuard) awaitCancels(ctx context.Context) {
	ticker := time.NewTicker(fenceInterval)
	defer ticker.Stop()
	services, _ := g.server.registered()
	var pending []func() bool
	for _, svc := range services {
		pending = append(pending, svc.pendingControl()...)
	}
	for slices.ContainsFunc(pending, func(is func() bool) bool { return is() }) {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// close returns when nothing is held any more.
func (g *stallGuard) close() {
	g.server.mu.Lock()
	g.closed = true
	g.server.mu.Unlock()
	g.lifting.Wait() // which the end of serving has hurried
}
