package rpc

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// epoch is what the clock of calls starts at.
var epoch = time.Now()

// clock is the time since then: half the price of time.Now, which reads two clocks.
func clock() time.Duration { return time.Since(epoch) }

// callKey is the key of the Call in a handler's context.
type callKey struct{}

// CallFromContext returns the call that ctx, the context of a handler or of a
// server's interceptor, belongs to. It returns nil for any other context. Who asks for the
// first time after the call has ended gets one that knows its method only, and nothing of a shutdown.
func CallFromContext(ctx context.Context) *Call {
	call, _ := ctx.Value(callKey{}).(*Call)
	return call
}

// callContext is the context of a handler. It costs a channel and a timer
// only where Done is used, and outlives its call, whose memory is used again.
//
// It ends once, with the first of: cancel (the caller has gone, the server
// stops, the handler returned) and the deadline.
type callContext struct {
	method   *method
	deadline time.Duration // of clock; 0 is none

	mu    sync.Mutex
	call  *Call         // nil when its memory is another's
	waits *contextWaits // nil while nobody waits
	end   atomic.Uint32 // contextGoesOn, contextCanceled or contextExpired; changed under mu
	asked bool          // somebody has asked for the call, and may keep it
}

const (
	contextGoesOn uint32 = iota
	contextCanceled
	contextExpired
)

var contextErrors = [...]error{nil, context.Canceled, context.DeadlineExceeded}

// contextWaits is what waits for the end of a context.
type contextWaits struct {
	done  chan struct{}
	timer *time.Timer
	after []*func() // of AfterFunc, in order
}

// Deadline implements context.Context. Every call has one, but for streams.
func (c *callContext) Deadline() (time.Time, bool) {
	if c.deadline == 0 {
		return time.Time{}, false
	}
	return epoch.Add(c.deadline), true
}

// Value implements context.Context.
func (c *callContext) Value(key any) any {
	if key != (callKey{}) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.call == nil {
		return &Call{method: c.method, onServer: true}
	}
	c.asked = true
	return c.call
}

// finish ends the context as its call has ended. With part it also takes the call away, so that
// the memory can be used again; it returns false where that cannot be, as somebody may have kept the call.
func (c *callContext) finish(part bool) (parted bool) {
	c.mu.Lock()
	if parted = part && !c.asked; parted {
		c.call = nil
	}
	after := c.endLocked(contextCanceled)
	c.mu.Unlock()
	runAll(after)
	return parted
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
			c.waits.timer = time.AfterFunc(c.deadline-clock(), c.expire)
		}
	}
	return c.waits
}

// Err implements context.Context. It looks at the clock, so that a handler
// which never uses Done sees its deadline too.
func (c *callContext) Err() error {
	if c.ended() == nil && c.expired(clock()) {
		c.expire()
	}
	c.mu.Lock()
	defer c.mu.Unlock() // under which Done is closed
	return c.ended()
}

// ended is Err without a look at the clock; Done may be about to be closed.
func (c *callContext) ended() error { return contextErrors[c.end.Load()] }

// AfterFunc is what package context looks for, to attach a child without a
// goroutine for each.
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

// expired tells whether the deadline has come, at a time of clock.
func (c *callContext) expired(at time.Duration) bool { return c.deadline != 0 && c.deadline <= at }

func (c *callContext) expire() { c.endWith(contextExpired) }

func (c *callContext) cancel() { c.endWith(contextCanceled) }

// endWith ends the context; the second time it does nothing.
func (c *callContext) endWith(end uint32) {
	c.mu.Lock()
	after := c.endLocked(end)
	c.mu.Unlock()
	runAll(after)
}

// endLocked returns what is to run when the lock is free.
func (c *callContext) endLocked(end uint32) (after []*func()) {
	if c.end.Load() != contextGoesOn {
		return nil
	}
	c.end.Store(end)
	if waits := c.waits; waits != nil {
		close(waits.done)
		if waits.timer != nil {
			waits.timer.Stop()
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
