package rpc

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// joint is work that several callers wait for together. It is done once, on a
// goroutine of its own, under a context that ends when the first of theirs does: the
// caller with the least patience decides.
type joint struct {
	ctx   context.Context
	force context.CancelCauseFunc
	start sync.Once
	ended chan struct{}
	err   error // of the work, once ended is closed
}

func (j *joint) init() {
	j.ctx, j.force = context.WithCancelCause(context.Background())
	j.ended = make(chan struct{})
}

// do returns the error of the work when it has ended. context.Cause of the context that
// the work runs under says why the ctx that ended first has.
func (j *joint) do(ctx context.Context, work func(context.Context) error) error {
	stop := context.AfterFunc(ctx, func() { j.force(endOf(ctx)) })
	defer stop()
	j.start.Do(func() {
		go func() { // ends with the work, for which every caller waits
			defer close(j.ended)
			j.err = work(j.ctx)
		}()
	})
	<-j.ended
	return j.err
}

// endOf is the error of a context that has ended, with its cause if it has another one.
func endOf(ctx context.Context) error {
	cause := context.Cause(ctx)
	if cause == context.Canceled || cause == context.DeadlineExceeded || errors.Is(cause, ctx.Err()) { //nolint:errorlint // nothing around them
		return cause
	}
	return fmt.Errorf("%w: %w", ctx.Err(), cause)
}
