package rpc

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// clock counts the time since it was made. It costs half of time.Now, which reads two clocks. Each
// client and server has its own, since a test under testing/synctest has a time of its own.
type clock struct{ epoch time.Time }

func newClock() clock { return clock{time.Now()} }

func (c *clock) now() time.Duration { return time.Since(c.epoch) }

// callKey is the key of the Call in a handler's context.
type callKey struct{}

// CallFromContext returns the call to which ctx belongs, where ctx is the context of a handler or
// of a server's interceptor, or derived from one. It returns nil for any other context. If first
// called after the call has ended, it returns a Call that knows only its method.
func CallFromContext(ctx context.Context) *Call {
	call, _ := ctx.Value(callKey{}).(*Call)
	return call
}

// callContext is the context of a handler. It has a channel and a timer only if Done is used. A
// handler may keep it for longer than its call.
//
// It ends once, in one of the ways below; context.Cause says in which.
type callContext struct {
	served   *serverCall   // which the context is part of
	deadline time.Duration // of the server's clock; 0 is none

	mu    sync.Mutex
	asked bool          // somebody has asked for the call, and may keep it
	left  bool          // the call has ended, and nobody had asked for it
	end   atomic.Uint32 // one of the ways below; changed under mu
	waits *contextWaits // nil until Done or AfterFunc is used
}

// How the context of a handler ends.
const (
	contextGoesOn   uint32 = iota
	contextOver            // the handler has returned
	contextExpired         // the deadline has passed
	contextCanceled        // the caller has gone
	contextLost            // the stream has broken
	contextStopped         // the server no longer waits
)

// contextEnds has, for each end, what Err returns and the context that knows the cause.
var contextEnds = [...]struct {
	err   error
	cause context.Context
}{
	contextGoesOn:   {nil, context.Background()},
	contextOver:     {context.Canceled, context.Background()},
	contextExpired:  {context.DeadlineExceeded, context.Background()},
	contextCanceled: {context.Canceled, endedBy(failf(CodeCanceled, ExecutionMayHaveRun, "the caller has gone"))},
	contextLost:     {context.Canceled, endedBy(failf(CodeUnavailable, ExecutionMayHaveRun, "the stream has broken: the caller or a connection has gone"))},
	contextStopped:  {context.Canceled, endedBy(failf(CodeUnavailable, ExecutionMayHaveRun, "the server is being stopped"))},
}

// endedBy returns a context that has ended with a cause. A callContext passes context.Cause on to
// it: context.Cause asks for a value by a key that only package context has.
func endedBy(cause error) context.Context {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	return ctx
}

// clock is the server's.
func (c *callContext) clock() *clock { return &c.served.endpoint.service.server.clock }

// contextWaits are those that wait for the end of a context.
type contextWaits struct {
	done  chan struct{}
	timer *time.Timer
	after []*func()                   // of AfterFunc, in order
	owner atomic.Pointer[callContext] // nil after the end: Go keeps a stopped timer a while
}

// expire is called by the timer.
func (w *contextWaits) expire() {
	if c := w.owner.Load(); c != nil {
		c.expire()
	}
}

// Deadline implements context.Context. A call may have none.
func (c *callContext) Deadline() (time.Time, bool) {
	if c.deadline == 0 {
		return time.Time{}, false
	}
	return c.clock().epoch.Add(c.deadline), true
}

// Value implements context.Context.
func (c *callContext) Value(key any) any {
	if key != (callKey{}) {
		return contextEnds[c.end.Load()].cause.Value(key)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.left {
		return &Call{method: c.served.endpoint.method}
	}
	c.asked = true
	return &c.served.call
}

// finish ends the context because its call has ended. It reports whether somebody may have kept the
// call: its caller, by keep, or code that has asked the context for it. If not, nobody will get it.
func (c *callContext) finish(keep bool) (kept bool) {
	c.mu.Lock()
	kept = keep || c.asked
	c.left = !kept
	after := c.endLocked(contextOver)
	c.mu.Unlock()
	runAll(after)
	return kept
}

// Done implements context.Context.
func (c *callContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waitsLocked().done
}

func (c *callContext) waitsLocked() *contextWaits {
	if c.waits == nil {
		c.waits = &contextWaits{done: make(chan struct{})}
		if c.end.Load() != contextGoesOn {
			close(c.waits.done)
		} else if c.deadline != 0 {
			c.waits.owner.Store(c)
			c.waits.timer = time.AfterFunc(c.deadline-c.clock().now(), c.waits.expire)
		}
	}
	return c.waits
}

// Err implements context.Context. It looks at the clock, so that a handler that never uses Done
// sees its deadline too.
func (c *callContext) Err() error {
	if c.ended() == nil && c.expired(c.clock().now()) {
		c.expire()
	}
	c.mu.Lock()
	defer c.mu.Unlock() // under which Done is closed
	return c.ended()
}

// ended is Err without a look at the clock, and perhaps just before Done is closed.
func (c *callContext) ended() error { return contextEnds[c.end.Load()].err }

// AfterFunc is the method that package context looks for, so that a child context needs no
// goroutine.
func (c *callContext) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.end.Load() != contextGoesOn {
		go f() // the contract of context.AfterFunc: f ends it
		return func() bool { return false }
	}
	waits, entry := c.waitsLocked(), &f
	waits.after = append(waits.after, entry)
	return func() bool { return c.detach(entry) }
}

func (c *callContext) detach(entry *func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, e := range c.waits.after {
		if e == entry {
			c.waits.after = slices.Delete(c.waits.after, i, i+1)
			return true
		}
	}
	return false
}

// expired reports whether the deadline has come at a time of the server's clock.
func (c *callContext) expired(at time.Duration) bool { return c.deadline != 0 && c.deadline <= at }

func (c *callContext) expire() { c.endWith(contextExpired) }

// endWith ends the context in one of the ways above. If it has ended already, nothing changes.
func (c *callContext) endWith(end uint32) {
	c.mu.Lock()
	after := c.endLocked(end)
	c.mu.Unlock()
	runAll(after)
}

// endLocked returns the functions to run once the lock is released.
func (c *callContext) endLocked(end uint32) (after []*func()) {
	if c.end.Load() != contextGoesOn {
		return nil
	}
	c.end.Store(end)
	if waits := c.waits; waits != nil {
		close(waits.done)
		if waits.timer != nil {
			waits.timer.Stop()
			waits.owner.Store(nil)
		}
		after, waits.after = waits.after, nil
	}
	return after
}

func runAll(after []*func()) {
	for _, f := range after {
		(*f)()
	}
}
