// Package wait has waits that several callers share, waits for several events, and tokens that wake
// a waiter.
package wait

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Joint is work that several callers wait for together. It is done once, on a
// goroutine of its own, under a context that ends when the first of theirs does: the
// caller with the least patience decides.
type Joint struct {
	ctx   context.Context
	force context.CancelCauseFunc
	start sync.Once
	ended chan struct{}
	err   error // of the work, once ended is closed
}

// NewJoint returns a Joint whose work has not begun.
func NewJoint() *Joint {
	j := &Joint{ended: make(chan struct{})}
	j.ctx, j.force = context.WithCancelCause(context.Background())
	return j
}

// Ended is closed when the work has ended.
func (j *Joint) Ended() <-chan struct{} { return j.ended }

// Err is the error of the work, which has ended.
func (j *Joint) Err() error { return j.err }

// Do returns the error of the work when it has ended. context.Cause of the context that
// the work runs under says why the ctx that ended first has; its deadline is that of the ctx which
// came first.
func (j *Joint) Do(ctx context.Context, work func(context.Context) error) error {
	stop := context.AfterFunc(ctx, func() { j.force(EndOf(ctx)) })
	defer stop()
	j.start.Do(func() {
		go func() { // ends with the work, for which every caller waits
			defer close(j.ended)
			j.err = work(expected{j.ctx, ctx})
		}()
	})
	<-j.ended
	return j.err
}

// expected is a context with the deadline of another one, which ends it.
type expected struct {
	context.Context
	by context.Context
}

func (e expected) Deadline() (time.Time, bool) { return e.by.Deadline() }

// EndOf is the error of a context that has ended, with its cause if it has another one.
func EndOf(ctx context.Context) error {
	cause := context.Cause(ctx)
	if cause == context.Canceled || cause == context.DeadlineExceeded || errors.Is(cause, ctx.Err()) {
		return cause
	}
	return fmt.Errorf("%w: %w", ctx.Err(), cause)
}

// Signal leaves a token in ch, which has room for one, unless there is one already. It wakes the
// current waiter, or the next one.
func Signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// All waits until each channel has given a value or is closed, or for the end of ctx, whose cause
// it returns. What has happened already counts, also if ctx has ended.
func All[T any](ctx context.Context, channels []<-chan T) error {
	for _, ch := range channels {
		select {
		case <-ch:
			continue
		default:
		}
		select {
		case <-ch:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// Pause waits for d, or for the end of ctx, whose error it returns.
func Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
