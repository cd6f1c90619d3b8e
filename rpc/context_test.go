package rpc

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

func newCallContext(d time.Duration) *callContext {
	server := &Server{clock: newClock()}
	served := &serverCall{received: received{endpoint: &endpoint{service: &service{server: server}}}}
	c := &served.ctx
	c.served = served
	c.deadline = server.clock.now() + d
	return c
}

func (c *callContext) cancel() { c.endWith(contextCanceled) }

type testKey struct{}

func TestCallContextEnds(t *testing.T) {
	for _, test := range []struct {
		name string
		ctx  *callContext
		end  func(*callContext)
		want error
	}{
		{"cancel", newCallContext(time.Hour), (*callContext).cancel, context.Canceled},
		{"stopped", newCallContext(time.Hour), func(c *callContext) { c.endWith(contextStopped) }, context.Canceled},
		{"over", newCallContext(time.Hour), func(c *callContext) { c.finish(true) }, context.Canceled},
		{"deadline", newCallContext(time.Millisecond), func(c *callContext) {}, context.DeadlineExceeded},
		{"past", newCallContext(-time.Hour), func(c *callContext) {}, context.DeadlineExceeded},
	} {
		t.Run(test.name, func(t *testing.T) {
			child, cancel := context.WithCancel(test.ctx)
			defer cancel()
			valued := context.WithValue(child, testKey{}, "v")
			called := make(chan struct{})
			context.AfterFunc(valued, func() { close(called) })
			test.end(test.ctx)
			for _, ctx := range []context.Context{test.ctx, child, valued} {
				<-ctx.Done()
				if !errors.Is(ctx.Err(), test.want) || context.Cause(ctx) != causeOf(test.ctx) {
					t.Errorf("Err is %v, Cause is %v, want %v", ctx.Err(), context.Cause(ctx), test.want)
				}
			}
			<-called
			test.ctx.cancel() // does nothing
			test.ctx.expire()
			if CallFromContext(valued) != &test.ctx.served.call || !errors.Is(test.ctx.Err(), test.want) {
				t.Error("the context changed after its end")
			}
		})
	}
}

// causeOf is what context.Cause has to return for c and its children.
func causeOf(c *callContext) error {
	switch c.end.Load() {
	case contextOver:
		return context.Canceled
	case contextExpired:
		return context.DeadlineExceeded
	}
	return context.Cause(contextEnds[c.end.Load()].cause)
}

// TestCallContextWithoutDone: who never asks for Done sees the end all the same.
func TestCallContextWithoutDone(t *testing.T) {
	c := newCallContext(time.Hour)
	if c.Err() != nil {
		t.Fatal(c.Err())
	}
	c.deadline = c.clock().now()
	if !errors.Is(c.Err(), context.DeadlineExceeded) {
		t.Errorf("Err is %v", c.Err())
	}
	<-c.Done()
}

func TestCallContextAfterFuncStops(t *testing.T) {
	c := newCallContext(time.Hour)
	var called atomic.Int32
	stop := c.AfterFunc(func() { called.Add(1) })
	c.AfterFunc(func() { called.Add(10) })
	if !stop() || stop() {
		t.Error("stop must succeed once")
	}
	c.cancel()
	if called.Load() != 10 {
		t.Errorf("called %d", called.Load())
	}
	late := make(chan struct{})
	if c.AfterFunc(func() { close(late) })() {
		t.Error("stop succeeded after the end")
	}
	<-late
}

// TestCallContextChildren: a child that ends leaves nothing behind in its parent.
func TestCallContextChildren(t *testing.T) {
	c := newCallContext(time.Hour)
	for range 100 {
		_, cancel := context.WithTimeout(c, time.Minute)
		cancel()
	}
	if len(c.waits.after) != 0 {
		t.Errorf("%d children are left", len(c.waits.after))
	}
	c.cancel()
}
