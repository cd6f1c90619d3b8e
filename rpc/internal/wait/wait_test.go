package wait

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// TestJoint: the work runs once, for all who wait, and its context ends with the first of theirs.
func TestJoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := NewJoint()
		runs := 0
		work := func(ctx context.Context) error {
			runs++
			<-ctx.Done()
			return context.Cause(ctx)
		}
		reason := errors.New("enough")
		short, cancel := context.WithTimeoutCause(context.Background(), time.Second, reason)
		defer cancel()
		start := time.Now()
		patient := make(chan error)
		go func() { patient <- j.Do(context.Background(), work) }()
		synctest.Wait()
		select {
		case <-j.Ended():
			t.Error("it has ended before any context")
		default:
		}
		for _, err := range []error{j.Do(short, work), <-patient, j.Do(context.Background(), work), j.Err()} {
			if !errors.Is(err, reason) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("the error is %v", err)
			}
		}
		if took := time.Since(start); took != time.Second || runs != 1 {
			t.Errorf("the work ran %d times, and took %v", runs, took)
		}
		<-j.Ended()
	})
}

// TestJointDeadline: the work knows how long the first caller is going to wait.
func TestJointDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, timeout := range []time.Duration{time.Second, 0} {
			ctx := context.Background()
			if timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, timeout)
				defer cancel()
			}
			err := NewJoint().Do(ctx, func(ctx context.Context) error {
				if by, ok := ctx.Deadline(); ok != (timeout > 0) || ok && time.Until(by) != timeout {
					t.Errorf("the deadline is %v, %v", by, ok)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		}
	})
}

// TestEndOf: a context's error, with a cause that is not one of package context's.
func TestEndOf(t *testing.T) {
	reason := errors.New("enough")
	wrapped := errors.Join(context.Canceled, reason)
	for name, test := range map[string]struct {
		cause error
		want  []error
		text  string
	}{
		"no cause":      {nil, []error{context.Canceled}, "context canceled"},
		"another cause": {reason, []error{context.Canceled, reason}, "context canceled: enough"},
		"both in one":   {wrapped, []error{context.Canceled, reason}, "context canceled\nenough"},
	} {
		ctx, cancel := context.WithCancelCause(context.Background())
		cancel(test.cause)
		err := EndOf(ctx)
		for _, want := range test.want {
			if !errors.Is(err, want) {
				t.Errorf("%s: %v is not %v", name, err, want)
			}
		}
		if err.Error() != test.text {
			t.Errorf("%s: %q", name, err)
		}
	}
}

// TestSignal: a token waits for the next waiter, and there is never more than one.
func TestSignal(t *testing.T) {
	ch := make(chan struct{}, 1)
	Signal(ch)
	Signal(ch)
	<-ch
	if len(ch) > 0 {
		t.Error("there is a second token")
	}
}

// TestJointLetsGo: a context that ends after the work has nothing to do with it.
func TestJointLetsGo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := NewJoint()
		ctx, cancel := context.WithCancel(context.Background())
		if err := j.Do(ctx, func(context.Context) error { return nil }); err != nil {
			t.Error(err)
		}
		cancel()
		if synctest.Wait(); j.ctx.Err() != nil {
			t.Error("the caller's context is watched after the work has ended")
		}
	})
}

// TestPause: it ends after its time, or with the context.
func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if err := Pause(t.Context(), time.Hour); err != nil || time.Since(began) != time.Hour {
			t.Errorf("it has ended after %v: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		began = time.Now()
		if err := Pause(ctx, time.Hour); err != context.Canceled || time.Since(began) != time.Minute {
			t.Errorf("canceled, it has ended after %v: %v", time.Since(began), err)
		}
	})
}

// TestAll: it waits for values and for ends, and what has happened already counts.
func TestAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		value, end := make(chan int, 1), make(chan int)
		time.AfterFunc(time.Minute, func() { value <- 1 })
		time.AfterFunc(time.Hour, func() { close(end) })
		began, why := time.Now(), errors.New("why")
		if err := All(t.Context(), []<-chan int{end, value}); err != nil || time.Since(began) != time.Hour {
			t.Errorf("it has ended after %v: %v", time.Since(began), err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { cancel(why) })
		if err := All(ctx, []<-chan int{end, value}); err != why {
			t.Errorf("canceled, it returns %v", err)
		}
		for range 20 {
			if err := All(ctx, []<-chan int{end}); err != nil {
				t.Errorf("of what has ended it returns %v", err)
			}
		}
	})
}
