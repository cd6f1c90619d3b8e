// Package problem has the errors of the tool: each is a reason in one line, what to do next, and an
// exit status.
package problem

import (
	"errors"
	"fmt"

	"github.com/natscall/natscall/rpc"
)

// The exit statuses. That of a failed call is StatusCall and the code of its error, as grpcurl does
// it, so that scripts can tell errors apart: 69 is NOT_FOUND, for instance.
const (
	StatusOK      = 0
	StatusFailure = 1
	StatusUsage   = 2
	StatusCall    = 64
)

// Error is what the tool reports before it exits.
type Error struct {
	Reason string // one line
	Next   string // what to do next; may be empty
	Status int    // to exit with
	Quiet  bool   // the output has said it all: nothing is reported
	err    error
}

// Error returns the reason.
func (e *Error) Error() string { return e.Reason }

// Unwrap returns the cause, or nil.
func (e *Error) Unwrap() error { return e.err }

// Call returns the error of the call that has failed, or nil if it was not a call.
func (e *Error) Call() *rpc.Error {
	call, _ := errors.AsType[*rpc.Error](e.err)
	return call
}

// Failure returns an error with a reason and what to do next.
func Failure(next, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Reason: err.Error(), Next: next, Status: StatusFailure, err: err}
}

// Because returns an error with a cause that errors.Is finds, and that stands not in the reason.
func Because(cause error, next, format string, args ...any) error {
	return &Error{Reason: fmt.Sprintf(format, args...), Next: next, Status: StatusFailure, err: cause}
}

// Usage returns an error in how the tool was called.
func Usage(format string, args ...any) error { return UsageWithNext("", format, args...) }

// UsageWithNext is Usage with something else to do next than to read the help.
func UsageWithNext(next, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	return &Error{Reason: err.Error(), Next: next, Status: StatusUsage, err: err}
}

// At returns an error with where it has come from before its reason. The status and what to do next
// stay as they are.
func At(where string, err error) error {
	e := Of(err)
	return &Error{Reason: where + ": " + e.Reason, Next: e.Next, Status: e.Status, err: err}
}

// Quiet returns an error that sets the exit status and is not reported, for commands whose output
// says already what is wrong.
func Quiet(status int) error {
	return &Error{Reason: fmt.Sprintf("exit status %d", status), Status: status, Quiet: true}
}

// OfCall returns the error of a failed call.
func OfCall(err error) error {
	if err == nil {
		return nil
	}
	call, ok := errors.AsType[*rpc.Error](err)
	if !ok {
		return err
	}
	return &Error{Reason: call.Error(), Next: afterCall(call), Status: StatusCall + int(call.Code()), err: err}
}

// WithNext returns the error of a failed call with something else to do next.
func WithNext(err error, next string) error {
	failed := Of(OfCall(err))
	failed.Next = next
	return failed
}

// Of returns what is to be reported of any error.
func Of(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if call, ok := errors.AsType[*rpc.Error](err); ok {
		return OfCall(call).(*Error)
	}
	return &Error{Reason: err.Error(), Status: StatusFailure, err: err}
}

// afterCall says what helps against an error of the runtime. What a handler says speaks for itself.
func afterCall(err *rpc.Error) string {
	switch code := err.Code(); {
	case code == rpc.CodeDeadlineExceeded:
		return "give it more time with --timeout, or look at `natscall ps` for instances that are busy"
	case code == rpc.CodePermissionDenied && !err.Remote():
		return "`natscall permissions --call` prints what the user has to be permitted"
	case code == rpc.CodeUnavailable && !err.Remote():
		return "`natscall ls` lists the running services, `natscall health` says how they are"
	case code == rpc.CodeResourceExhausted && !err.Remote():
		return "send a smaller request; more than max_payload goes to natscall services only, and without --plain"
	case code == rpc.CodeResourceExhausted && err.Execution() == rpc.ExecutionNotRun:
		return "`natscall ps` shows the load of the instances"
	}
	return ""
}
