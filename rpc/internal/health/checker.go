package health

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

const (
	// Interval is the time between two samples of the check, and between two looks for other
	// instances while this one is unhealthy.
	Interval = time.Second
	// checkTime is the deadline of a check.
	checkTime = time.Second
)

// checker runs a check in a goroutine of its own, one at a time: it may ignore its context.
type checker struct {
	check   func(context.Context) error
	results chan error // of a check that has returned
	running bool       // it was begun
	stop    context.CancelFunc
	// returned is closed while no check runs.
	returned chan struct{}
}

func newChecker(check func(context.Context) error) *checker {
	c := &checker{check: check, results: make(chan error, 1), returned: make(chan struct{})}
	close(c.returned)
	return c
}

var errSlow = errors.New("the health check has not returned")

// sample returns the result of the check, if it was begun before, and begins it again unless it
// still runs. So each sample has one result, however long the check takes.
func (c *checker) sample(ctx context.Context) (has bool, result error) {
	if c.check == nil {
		return false, nil
	}
	if has = c.running; has {
		select {
		case result = <-c.results:
			c.stop()
		default:
			return true, errSlow
		}
	}
	c.running, c.returned = true, make(chan struct{})
	ctx, c.stop = context.WithTimeout(ctx, checkTime)
	go c.run(ctx, c.returned)
	return has, result
}

// run runs the check once. One that panics, or ends its goroutine, has failed.
func (c *checker) run(ctx context.Context, returned chan<- struct{}) {
	defer close(returned)
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
