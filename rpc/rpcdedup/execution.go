package rpcdedup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wait"
)

const (
	running = natscallv1.ExecutionState_EXECUTION_STATE_RUNNING
	ended   = natscallv1.ExecutionState_EXECUTION_STATE_ENDED
	lost    = natscallv1.ExecutionState_EXECUTION_STATE_LOST
)

// execution is a call with a key. The states are those of the key's record.
//
//	            claim                    the handler returns
//	no record --------> running (owner) ---------------------> ended: each call gets the result
//	  ^                  |     ^ |
//	  |  lease has ended |     | | claim, if the method may run twice
//	  |                  |     +-+
//	  |                  +---------> lost: each call gets an error
//	  +--- the handler was not called, or the result is not to be kept
//
// An owner that was only slow makes a lost record an ended one.
type execution struct {
	*deduplicator
	call    *rpc.Call
	key     string                // of the store
	own     *natscallv1.Execution // the record, if this call runs the handler
	claimed []byte                // own, encoded
	unsure  bool                  // own may be in the store, though the store has not said so
	waited  bool                  // another call with the key runs, or has run
}

// run claims the key and runs the handler, or waits for the result of the call that has claimed it.
func (e *execution) run(ctx context.Context, next rpc.Next) error {
	var silent time.Time // since when the store does not answer
	for delay := firstWait; ; delay = min(2*delay, longestWait) {
		record, revision, err := e.claim(ctx, delay == firstWait)
		switch {
		case err == nil:
			silent = time.Time{}
		case silent.IsZero():
			silent = time.Now()
		case time.Since(silent) > e.config.lease:
			return e.unavailable(ctx, err)
		}
		switch {
		case err != nil, record == nil: // the store does not answer, or the record has just changed
		case record.GetOwner() == e.own.GetOwner() && record.GetState() == running:
			if ctx.Err() != nil { // the caller has gone meanwhile
				e.giveBack(ctx)
				return ctx.Err()
			}
			if kept, err := e.handle(ctx, next, revision); kept {
				return err
			}
			delay = firstWait // another call has claimed it meanwhile
		case !e.sameRequest(record):
			return rpc.NewError(rpc.CodeInvalidArgument, "the idempotency key was used for another request")
		case record.GetState() == ended:
			return e.replay(record)
		case record.GetState() == lost:
			return errLost()
		default:
			e.waited = true
		}
		if end := wait.Pause(ctx, delay); end != nil {
			return e.leave(ctx, end, err)
		}
	}
}

// leave ends a call whose caller has gone while it waits. err is the last error of the store.
func (e *execution) leave(ctx context.Context, end, err error) error {
	if e.unsure {
		e.giveBack(ctx)
	}
	if err != nil && !e.waited {
		return end
	}
	return rpc.WithExecution(fmt.Errorf("another call with the idempotency key runs: %w", end), rpc.ExecutionMayHaveRun)
}

// sameRequest reports whether a record is that of the call's request.
func (e *execution) sameRequest(record *natscallv1.Execution) bool {
	return bytes.Equal(record.GetFingerprint(), e.own.GetFingerprint()) || bytes.Equal(record.GetReceived(), e.own.GetReceived())
}

// errLost is the error of a call of which nobody knows how far it came.
func errLost() error {
	return rpc.WithExecution(rpc.NewError(rpc.CodeFailedPrecondition,
		"the instance that ran the call with this idempotency key has died, and nobody knows how far it came: find out, and use another key"), rpc.ExecutionMayHaveRun)
}

// claim claims the key, if it is free. It returns the record that the key has now, or nil if that
// has just changed. first says that the key is probably free.
func (e *execution) claim(ctx context.Context, first bool) (record *natscallv1.Execution, revision uint64, err error) {
	defer func() {
		if err != nil { // a caller that cannot look has not seen that nothing changed
			e.seen.forget(e.key)
		}
	}()
	if first {
		if record, revision, err := e.create(ctx); !errors.Is(err, ErrExists) {
			return record, revision, err
		}
	}
	record, revision, err = e.get(ctx)
	switch {
	case errors.Is(err, ErrNotFound) && first: // it has just been removed
		return nil, 0, nil
	case errors.Is(err, ErrNotFound):
		if record, revision, err = e.create(ctx); errors.Is(err, ErrExists) {
			return nil, 0, nil
		}
		return record, revision, err
	case err != nil:
		return nil, 0, err
	case record.GetOwner() == e.own.GetOwner() && record.GetState() == running, !e.sameRequest(record):
		return record, revision, nil // a try before has created it, or it is none of this call's
	case record.GetState() == running && e.seen.unchanged(e.key, revision) < e.config.lease:
		return record, revision, nil
	}
	e.seen.forget(e.key)
	if record.GetState() == ended {
		return record, revision, nil
	}
	return e.takeOver(ctx, record, revision)
}

// create claims a key that has no record.
func (e *execution) create(ctx context.Context) (*natscallv1.Execution, uint64, error) {
	revision, err := e.store.Create(ctx, e.key, e.claimed)
	if err != nil {
		e.unsure = e.unsure || !errors.Is(err, ErrExists)
		return nil, 0, err
	}
	return e.own, revision, nil
}

// takeOver claims a key whose owner is lost, or notes that it is. It returns what claim returns.
func (e *execution) takeOver(ctx context.Context, record *natscallv1.Execution, revision uint64) (*natscallv1.Execution, uint64, error) {
	after, data := e.own, e.claimed
	if !e.mayRunTwice() {
		if record.GetState() == lost {
			return record, revision, nil
		}
		record.State = lost
		after, data = record, encode(record)
	}
	revision, err := e.store.Update(ctx, e.key, data, revision)
	switch {
	case errors.Is(err, ErrConflict):
		return nil, 0, nil
	case err != nil:
		e.unsure = true
		return nil, 0, err
	}
	return after, revision, nil
}

// giveBack removes the record of a call that does not run after all. If the store does not answer
// for a lease, the key is lost.
func (e *execution) giveBack(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.config.lease)
	defer cancel()
	missing := 0
	for delay := firstWait; ; delay = min(2*delay, longestWait) {
		record, revision, err := e.get(ctx)
		switch {
		case errors.Is(err, ErrNotFound):
			// A record that the store has not confirmed may be on its way.
			if missing++; !e.unsure || missing == tries {
				return
			}
		case err == nil && record.GetOwner() != e.own.GetOwner():
			return
		}
		if err == nil && e.store.Delete(ctx, e.key, revision) == nil {
			return
		}
		if wait.Pause(ctx, delay) != nil {
			e.warn("the key of a call that did not run is lost", err)
			return
		}
	}
}

// handle runs the handler and keeps its result. kept is false if another call has claimed the key
// meanwhile.
func (e *execution) handle(ctx context.Context, next rpc.Next, revision uint64) (kept bool, err error) {
	handling, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	if deadline, ok := ctx.Deadline(); ok {
		var stop context.CancelFunc
		handling, stop = context.WithDeadline(handling, deadline)
		defer stop()
	}
	lease := e.holdLease(handling, revision, cancel)
	returned := false
	defer func() {
		if !returned { // it has panicked, or ended its goroutine
			e.end(ctx, rpc.NewError(rpc.CodeInternal, "the handler panicked"), lease.release())
		}
	}()
	err = next(handling, e.call)
	returned = true
	revision = lease.release()
	if err != nil && context.Cause(handling) == errStopped && e.call.HandlerCalled() {
		return true, err // nobody knows how far it came
	}
	return e.end(ctx, err, revision), err
}

// end keeps the result of the handler, or removes the record. kept is false if another call has
// claimed the key.
func (e *execution) end(ctx context.Context, result error, revision uint64) (kept bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.config.lease)
	defer cancel()
	forget := e.forgets(result)
	var data []byte
	if !forget {
		data = e.result(result)
	}
	for delay := firstWait; ; delay = min(2*delay, longestWait) {
		var err error
		if forget {
			err = e.store.Delete(ctx, e.key, revision)
		} else {
			_, err = e.store.Update(ctx, e.key, data, revision)
		}
		switch {
		case err == nil:
			return true
		case errors.Is(err, ErrTooLarge):
			data = e.tooLarge(len(data))
		case errors.Is(err, ErrConflict):
			record, now, getErr := e.get(ctx)
			switch {
			case getErr == nil && now <= revision: // an older one
			case errors.Is(getErr, ErrNotFound) && !forget: // it was removed
				if _, createErr := e.store.Create(ctx, e.key, data); createErr == nil {
					return true
				}
			case getErr == nil && record.GetOwner() != e.own.GetOwner():
				return false
			case getErr == nil && record.GetState() == ended, forget && errors.Is(getErr, ErrNotFound):
				return true // a try before has done it
			case getErr == nil:
				revision = now
			}
		}
		if wait.Pause(ctx, delay) != nil {
			e.warn("the result of a call was not kept: its key is lost when the lease has ended", err)
			return true
		}
	}
}

// forgets reports whether a result is not to be kept: that of a call that has not run, or may run
// again.
func (e *execution) forgets(result error) bool {
	if result == nil {
		return false
	}
	code := rpc.CodeOf(result)
	inTime := code != rpc.CodeDeadlineExceeded && code != rpc.CodeCanceled
	return !e.call.HandlerCalled() || !inTime && e.mayRunTwice() || slices.Contains(e.config.again, code)
}

// unavailable returns the error of a call that could not claim its key.
func (e *execution) unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return e.leave(ctx, ctx.Err(), err)
	}
	e.warn("the store of idempotency keys does not answer", err)
	if e.unsure {
		e.giveBack(ctx)
	}
	x := rpc.ExecutionNotRun
	if e.waited {
		x = rpc.ExecutionMayHaveRun
	}
	failed := rpc.NewError(rpc.CodeUnavailable, "the store of idempotency keys does not answer")
	return rpc.WithExecution(rpc.RetryAfter(failed, longestWait), x)
}
