package health

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

const (
	// Interval is the time between two results of the check, and between two looks for other
	// instances while this one is unhealthy.
	Interval = time.Second
	// checkTime is the deadline of a check.
	checkTime = time.Second
)

// checker runs a check in a goroutine of its own, one at a time: it may ignore its context.
type checker struct {
	check   func(context.Context) error
	results chan error // of a check that has returned
	running bool
	stop    context.CancelFunc
}

var errSlow = errors.New("the health check has not returned")

// next starts the check. If it still runs, it returns errSlow.
func (c *checker) next(ctx context.Context) error {
	switch {
	case c.check == nil:
		return nil
	case c.running:
		return errSlow
	}
	c.running = true
	ctx, c.stop = context.WithTimeout(ctx, checkTime)
	go c.run(ctx)
	return nil
}

// take notes that the check has returned.
func (c *checker) take() {
	c.running = false
	c.stop()
}

// end waits until the check has returned. Its context has ended.
func (c *checker) end() {
	if c.running {
		<-c.results
		c.take()
	}
}

// run runs the check once. One that panics, or ends its goroutine, has failed.
func (c *checker) run(ctx context.Context) {
	err := errors.New("the health check has ended its goroutine")
	defer func() {
		if r := recover(); r != nil {
			err = &PanicError{Value: r, Stack: debug.Stack()}
		}
		c.results <- err
	}()
	err = c.check(ctx)
}

// PanicError says that a check has panicked.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("the health check panicked: %v", e.Value) }
