package rpc

import (
	"context"
	"sync"
	"time"
)

// epoch is what the clock of calls starts at.
var epoch = time.Now()

// clock is the time since then: half the price of time.Now, which reads two clocks.
func clock() time.Duration { return time.Since(epoch) }

// callKey is the key of the Call in a handler's context.
type callKey struct{}

// CallFromContext returns the call that ctx, the context of a handler or of a
// server's interceptor, belongs to. It returns nil for any other context.
func CallFromContext(ctx context.Context) *Call {
	call, _ := ctx.Value(callKey{}).(*Call)
	return call
}

// callContext is the context of a handler. It is one allocation together
// with its call, and costs a channel and a timer only where Done is used.
//
// It ends once, with the first of: cancel (the caller has gone, the server
// stops, the handler returned) and the deadline.
type callContext struct {
	call     *Call
	deadline time.Time

	mu    sync.Mutex
	err   error
	done  chan struct{}
	timer *time.Timer
	after []*func() // of AfterFunc, in order
}

// Deadline implements context.Context. Every call has one, but for streams.
func (c *callContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Value implements context.Context.
func (c *callContext) Value(key any) any {
	if key == (callKey{}) {
		return c.call
	}
	return nil
}

// Done implements context.Context.
func (c *callContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done == nil {
		c.done = make(chan struct{})
		if c.err != nil {
			close(c.done)
		} else if !c.deadline.IsZero() {
			c.timer = time.AfterFunc(time.Until(c.deadline), c.expire)
		}
	}
	return c.done
}

// Err implements context.Context. It looks at the clock, so that a handler
// which never uses Done sees its deadline too.
func (c *callContext) Err() error {
	err := c.ended()
	if err == nil && !c.deadline.IsZero() && time.Until(c.deadline) <= 0 {
		c.expire()
		return c.Err()
	}
	return err
}

// ended is Err without a look at the clock.
func (c *callContext) ended() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// AfterFunc is what package context looks for, to attach a child without a
// goroutine for each.
func (c *callContext) AfterFunc(f func()) (stop func() bool) {
	c.Done() // starts the timer
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		go f() // the contract of context.AfterFunc: f ends it
		return func() bool { return false }
	}
	entry := &f
	c.after = append(c.after, entry)
	return func() bool { return c.detach(entry) }
}

func (c *callContext) detach(entry *func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, e := range c.after {
		if e == entry {
			c.after = append(c.after[:i], c.after[i+1:]...)
			return true
		}
	}
	return false
}

// expired tells whether the deadline has come, at a time of clock.
func (c *callContext) expired(at time.Duration) bool {
	return !c.deadline.IsZero() && c.deadline.Sub(epoch) <= at
}

func (c *callContext) expire() { c.end(context.DeadlineExceeded) }

// end ends the context; the second time it does nothing.
func (c *callContext) end(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	if c.done != nil {
		close(c.done)
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	after := c.after
	c.after = nil
	c.mu.Unlock()
	for _, f := range after {
		(*f)()
	}
}
