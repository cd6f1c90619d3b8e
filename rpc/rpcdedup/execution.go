package rpcdedup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/rpc"
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
//	                     |     ^
//	   lease has ended   |     | claim, if the method may run twice
//	                     +-----+
//	                     +---------> lost: each call gets an error
//
// An owner that was only slow makes a lost record an ended one.
type execution struct {
	*deduplicator
	call *rpc.Call
	key  string                // of the store
	own  *natscallv1.Execution // the record, if this call runs the handler
}

// run claims the key and runs the handler, or waits for the result of the call that has claimed it.
func (e *execution) run(ctx context.Context, next rpc.Next) error {
	var seen observation
	var silent time.Time // since when the store does not answer
	for wait := firstWait; ; wait = min(2*wait, longestWait) {
		record, revision, err := e.claim(ctx, &seen)
		switch {
		case err == nil:
			silent = time.Time{}
		case silent.IsZero():
			silent = time.Now()
		case time.Since(silent) > e.config.lease:
			return e.unavailable(ctx, err)
		}
		switch {
		case err != nil: // the key may have been claimed all the same, which the next try sees
		case record == nil: // it has just changed
		case record.GetOwner() == e.own.Owner:
			if kept, err := e.handle(ctx, next, revision); kept {
				return err
			}
			seen, wait = observation{}, firstWait // another call has claimed it meanwhile
		case !bytes.Equal(record.GetFingerprint(), e.own.Fingerprint):
			return rpc.NewError(rpc.CodeInvalidArgument, "the idempotency key was used for another request")
		case record.GetState() == ended:
			return e.replay(record)
		case record.GetState() == lost:
			return errLost()
		}
		if end := pause(ctx, wait); end != nil && err != nil {
			return e.unavailable(ctx, err)
		} else if end != nil {
			return rpc.WithExecution(fmt.Errorf("another call with the idempotency key runs: %w", end), rpc.ExecutionMayHaveRun)
		}
	}
}

// errLost is the error of a call of which nobody knows how far it came.
func errLost() error {
	return rpc.WithExecution(rpc.NewError(rpc.CodeFailedPrecondition,
		"the instance that ran the call with this idempotency key has died, and nobody knows how far it came: find out, and use another key"), rpc.ExecutionMayHaveRun)
}

// claim claims the key, if it is free. It returns the record that the key has now, or nil if that
// has just changed.
func (e *execution) claim(ctx context.Context, seen *observation) (*natscallv1.Execution, uint64, error) {
	revision, err := e.store.Create(ctx, e.key, encode(e.own))
	if err == nil {
		return e.own, revision, nil
	}
	if !errors.Is(err, ErrExists) {
		return nil, 0, err
	}
	record, revision, err := e.get(ctx)
	switch {
	case errors.Is(err, ErrNotFound): // it has just been removed
		return nil, 0, nil
	case err != nil:
		return nil, 0, err
	case record.GetOwner() == e.own.Owner: // a try before has created it
		return record, revision, nil
	case record.GetState() == running && seen.unchanged(revision) < e.config.lease, record.GetState() == ended:
		return record, revision, nil
	case !bytes.Equal(record.GetFingerprint(), e.own.Fingerprint):
		return record, revision, nil
	}
	return e.takeOver(ctx, record, revision)
}

// takeOver claims a key whose owner is lost, or notes that it is. It returns what claim returns.
func (e *execution) takeOver(ctx context.Context, record *natscallv1.Execution, revision uint64) (*natscallv1.Execution, uint64, error) {
	after := e.own
	if e.method.Desc().Idempotency == rpc.IdempotencyUnknown {
		if record.GetState() == lost {
			return record, revision, nil
		}
		after = proto.CloneOf(record)
		after.State = lost
	}
	revision, err := e.store.Update(ctx, e.key, encode(after), revision)
	if errors.Is(err, ErrConflict) {
		return nil, 0, nil
	}
	return after, revision, err
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
	return e.end(ctx, err, lease.release()), err
}

// end keeps the result of the handler.
func (e *execution) end(ctx context.Context, result error, revision uint64) (kept bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.config.lease)
	defer cancel()
	data, forget := e.result(result)
	for wait := firstWait; ; wait = min(2*wait, longestWait) {
		var err error
		if forget {
			err = e.store.Delete(ctx, e.key, revision)
		} else {
			_, err = e.store.Update(ctx, e.key, data, revision)
		}
		switch {
		case err == nil:
			return true
		case errors.Is(err, ErrConflict):
			record, now, getErr := e.get(ctx)
			switch {
			case getErr == nil && record.GetOwner() != e.own.Owner:
				return false
			case getErr == nil && record.GetState() == ended, errors.Is(getErr, ErrNotFound):
				return true // a try before has done it
			case getErr == nil:
				revision = now
			}
		case errors.Is(err, nats.ErrMaxPayload):
			data = e.tooLarge(len(data))
		}
		if pause(ctx, wait) != nil {
			e.warn("the result of a call was not kept: its key is lost when the lease has ended", err)
			return true
		}
	}
}

// result returns the record with the result of the handler. forget says that it is not to be kept.
func (e *execution) result(err error) (data []byte, forget bool) {
	record := proto.CloneOf(e.own)
	record.State = ended
	record.Header, record.Trailer = fromHeader(e.call.ResponseHeader()), fromHeader(e.call.ResponseTrailer())
	if err == nil && e.call.Kind() == rpc.KindUnary {
		err = e.setResponse(record)
	}
	if err != nil {
		if slices.Contains(e.config.again, rpc.CodeOf(err)) {
			return nil, true
		}
		record.Error = statusOf(err)
	}
	return encode(record), false
}

// setResponse puts the response of the call into the record.
func (e *execution) setResponse(record *natscallv1.Execution) (err error) {
	res := e.call.Response()
	if res == nil {
		return rpc.Errorf(rpc.CodeInternal, "%s returned no response and no error", e.call.Method())
	}
	if record.Response, err = proto.Marshal(res); err != nil {
		return rpc.NewError(rpc.CodeInternal, "the response does not encode")
	}
	return nil
}

// tooLarge returns the record of a result of so many bytes that the store does not take.
func (e *execution) tooLarge(size int) []byte {
	record := proto.CloneOf(e.own)
	record.State = ended
	record.Error = statusOf(rpc.Errorf(rpc.CodeDataLoss, "the call with this idempotency key has run; its result has %d bytes, which is more than is kept", size))
	return encode(record)
}

// replay ends the call with the result of another one.
func (e *execution) replay(record *natscallv1.Execution) error {
	toHeader(record.GetHeader(), e.call.ResponseHeader())
	toHeader(record.GetTrailer(), e.call.ResponseTrailer())
	if status := record.GetError(); status != nil {
		var details []proto.Message
		for _, d := range status.GetDetails() {
			details = append(details, d)
		}
		return rpc.WithExecution(rpc.NewError(rpc.Code(status.GetCode()), status.GetMessage(), details...), rpc.ExecutionDidRun)
	}
	if e.call.Kind() != rpc.KindUnary {
		return nil
	}
	res := e.method.NewResponse()
	if err := proto.Unmarshal(record.GetResponse(), res); err != nil {
		return rpc.WithExecution(rpc.NewError(rpc.CodeInternal, "the response that was kept is not valid"), rpc.ExecutionDidRun)
	}
	e.call.SetResponse(res)
	return nil
}

// get returns the record of the key.
func (e *execution) get(ctx context.Context) (*natscallv1.Execution, uint64, error) {
	data, revision, err := e.store.Get(ctx, e.key)
	if err != nil {
		return nil, 0, err
	}
	record := new(natscallv1.Execution)
	if err := proto.Unmarshal(data, record); err != nil || record.GetOwner() == "" || record.GetState() == 0 {
		return nil, 0, fmt.Errorf("rpcdedup: the record %s is not valid: %v", e.key, err)
	}
	return record, revision, nil
}

// unavailable returns the error of a call that could not claim its key.
func (e *execution) unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	e.warn("the store of idempotency keys does not answer", err)
	return rpc.RetryAfter(rpc.NewError(rpc.CodeUnavailable, "the store of idempotency keys does not answer"), longestWait)
}

func encode(record *natscallv1.Execution) []byte {
	data, _ := proto.Marshal(record) // of valid strings: cannot fail
	return data
}

// statusOf returns an error as its callers get it.
func statusOf(err error) *natscallv1.Status {
	e := rpc.AddDetails(err).(*rpc.Error)
	status := &natscallv1.Status{Code: int32(e.Code()), Message: strings.ToValidUTF8(e.Message(), "\uFFFD")}
	for _, d := range e.Details() {
		if packed, err := anypb.New(d); err == nil {
			status.Details = append(status.Details, packed)
		}
	}
	return status
}

func fromHeader(h rpc.Header) map[string]*natscallv1.ExecutionHeader {
	record := map[string]*natscallv1.ExecutionHeader{}
	for key, values := range h {
		record[key] = &natscallv1.ExecutionHeader{Values: values}
	}
	return record
}

func toHeader(record map[string]*natscallv1.ExecutionHeader, h rpc.Header) {
	for key, values := range record {
		h[key] = values.GetValues()
	}
}
