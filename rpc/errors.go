package rpc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// Error is the error of a call: a code, a message and details. Handlers make one with [NewError] or
// [Errorf]; clients find it with errors.As, or read its code with [CodeOf]. Every error that a
// generated client returns is an *Error, except io.EOF of a stream. An Error is immutable.
type Error struct {
	code      Code
	message   string
	details   []*anypb.Any
	remote    bool
	refused   bool // not run, and another instance may take the call: the client sends it again
	offline   bool // not sent, as the connection is down, and may come back
	execution Execution
	claimed   bool   // an interceptor has set execution
	instance  string // that sent it, or has accepted its stream
	cause     error
}

// NewError returns an *Error. The message is for people and crosses the wire, as do the details,
// which may be any Protobuf messages. An *anypb.Any is taken as a detail that is packed already,
// and nil is ignored. A detail that does not encode is left out, and the message says so. A code
// that is not an error's (CodeOK, or out of range) becomes CodeInternal.
func NewError(code Code, message string, details ...proto.Message) error {
	e := newError(code, message)
	e.addDetails(details)
	return e
}

// AddDetails returns err as an *Error that has details, in addition to those that it has already,
// as in
//
//	return nil, rpc.AddDetails(rpc.Errorf(rpc.CodeAborted, "order %s: %w", id, err), order)
//
// The details are treated as by [NewError]. The code is that of [CodeOf], and errors.Is and
// errors.As find err and all that it wraps, on this side of the wire only. err does not change.
// AddDetails returns nil if err is nil.
func AddDetails(err error, details ...proto.Message) error {
	if err == nil {
		return nil
	}
	e := ofChain(err)
	e.cause = err
	e.addDetails(details)
	return e
}

// RetryAfter returns err as an *Error with a google.rpc.RetryInfo among its details: another try
// may succeed after the delay. If it comes from a server's interceptor that has not run the
// handler, and has CodeUnavailable, the client tries again by itself; [WithRetryCodes] says what
// else is tried again. With a negative delay nothing is. The code is that of [CodeOf]. RetryAfter
// returns nil if err is nil.
func RetryAfter(err error, delay time.Duration) error { return AddDetails(err, newRetryInfo(delay)) }

// WithExecution returns err as an *Error that says what is known about the work of the call. It is
// for an interceptor of a server that answers instead of the handler, and knows of an earlier
// attempt that has run or may have run. Without it the caller is told that the call did not run.
// Where the handler of this call has run, WithExecution changes nothing. It returns nil if err is
// nil.
func WithExecution(err error, x Execution) error {
	if err == nil {
		return nil
	}
	e := ofChain(err)
	e.cause = err
	e.execution, e.claimed = x, true
	return e
}

// addDetails packs details into e, which nobody else has yet.
func (e *Error) addDetails(details []proto.Message) {
	e.details = slices.Clip(e.details) // which may be those of another error
	for _, d := range details {
		if d == nil || !d.ProtoReflect().IsValid() {
			continue
		}
		packed, err := pack(d)
		if err != nil {
			e.message += fmt.Sprintf(" (without a detail that does not encode: %v)", err)
			continue
		}
		e.details = append(e.details, packed)
	}
}

// pack returns a detail as it crosses the wire.
func pack(d proto.Message) (*anypb.Any, error) {
	if packed, ok := d.(*anypb.Any); ok {
		return proto.CloneOf(packed), nil
	}
	return anypb.New(d)
}

// Errorf returns an *Error with a formatted message. Like [NewError] it replaces a code that is not
// an error's by CodeInternal. errors.Is and errors.As find the operands of %w, on this side of the
// wire only.
func Errorf(code Code, format string, args ...any) error {
	err := fmt.Errorf(format, args...)
	e := newError(code, err.Error())
	switch err.(type) {
	case interface{ Unwrap() error }, interface{ Unwrap() []error }:
		e.cause = err
	}
	return e
}

func newError(code Code, message string) *Error {
	if !code.isError() {
		message = fmt.Sprintf("error with code %v: %s", code, message)
		code = CodeInternal
	}
	return &Error{code: code, message: message}
}

// because sets the error that e wraps.
func (e *Error) because(err error) *Error {
	e.cause = err
	return e
}

// after returns e as the error of a call whose attempt before ended with
// last: if that one may have run, so may the call.
func (e *Error) after(last *Error) *Error {
	if last == nil || last.execution == ExecutionNotRun || e.execution != ExecutionNotRun {
		return e
	}
	return e.withExecution(ExecutionMayHaveRun)
}

// withExecution returns a copy of e that says something else about the execution.
func (e *Error) withExecution(x Execution) *Error {
	out := *e
	out.execution = x
	return &out
}

// withCauseOf returns e with the cause of the end of ctx, where the server has said first what
// ctx says too.
func (e *Error) withCauseOf(ctx context.Context) *Error {
	if end := ctx.Err(); end == nil || e.cause != nil || !e.Is(end) {
		return e
	}
	out := *e
	return out.because(context.Cause(ctx))
}

// unbudgeted returns e as the error of a call that is not sent again, as the service's budget is
// spent.
func (e *Error) unbudgeted() *Error {
	out := *e
	out.message += "; it is not sent again, as the client's budget for the service is spent (rpc.WithRetryBudget)"
	return &out
}

// isAbsence reports whether e is the error of noService.
func (e *Error) isAbsence() bool { return e.refused && !e.remote && e.cause == nats.ErrNoResponders }

// Error returns the code's name and the message, as in "not_found: no order 42".
func (e *Error) Error() string {
	if e == nil {
		return "unknown: a nil *rpc.Error"
	}
	if e.message == "" {
		return e.Code().String()
	}
	return e.Code().String() + ": " + e.message
}

// Code returns the code, never CodeOK: a nil *Error and a zero Error, which this package never
// returns, have CodeUnknown.
func (e *Error) Code() Code {
	if e == nil || e.code == CodeOK {
		return CodeUnknown
	}
	return e.code
}

// orZero returns e, or a zero Error for nil, so that methods of a nil *Error do not panic.
func (e *Error) orZero() *Error {
	if e == nil {
		return new(Error)
	}
	return e
}

// Message returns the message without the code.
func (e *Error) Message() string { return e.orZero().message }

// Details returns the details. A detail whose type is not linked into the program is an *anypb.Any.
// Each call of Details returns new messages.
func (e *Error) Details() []proto.Message {
	e = e.orZero()
	out := make([]proto.Message, len(e.details))
	for i, d := range e.details {
		m, err := d.UnmarshalNew()
		if err != nil {
			m = proto.Clone(d)
		}
		out[i] = m
	}
	return out
}

// Detail returns the first detail of type M of the first *Error in the chain of err, as in
//
//	order, ok := rpc.Detail[*orderv1.Order](err)
//
// ok is false if there is no such detail.
func Detail[M proto.Message](err error) (m M, ok bool) {
	var e *Error
	if !errors.As(err, &e) {
		return m, false
	}
	for _, d := range e.Details() {
		if m, ok = d.(M); ok {
			return m, true
		}
	}
	return m, false
}

// Remote reports whether the error came over the wire, from a server, rather
// than from this process.
func (e *Error) Remote() bool { return e.orZero().remote }

// Execution says whether the call's handler ran.
func (e *Error) Execution() Execution { return e.orZero().execution }

// Instance returns the token of the instance that sent the error or, if a stream has ended
// otherwise, of the one that had accepted it. It is "" if none is known: then the error came from
// this process, or from a service that is not natscall's. [WithInstance] takes the token.
func (e *Error) Instance() string { return e.orZero().instance }

// from returns e as the error of a stream or an answer of an instance.
func (e *Error) from(instance string) *Error {
	if instance == "" || e.instance != "" {
		return e
	}
	out := *e
	out.instance = instance
	return &out
}

// Unwrap returns the cause, or nil.
func (e *Error) Unwrap() error { return e.orZero().cause }

// Is lets errors.Is match CodeCanceled with context.Canceled and CodeDeadlineExceeded with
// context.DeadlineExceeded, on whichever side the error was made.
func (e *Error) Is(target error) bool {
	switch target {
	case context.Canceled:
		return e.Code() == CodeCanceled
	case context.DeadlineExceeded:
		return e.Code() == CodeDeadlineExceeded
	}
	return false
}

// status returns the error as it crosses the wire.
func (e *Error) status() *natscallv1.Status {
	return &natscallv1.Status{Code: int32(e.code), Message: strings.ToValidUTF8(e.message, "\uFFFD"), Details: e.details}
}

// header adds to h the headers by which NATS tools see an error.
func (e *Error) header(h nats.Header) nats.Header {
	if h == nil {
		h = nats.Header{}
	}
	h[micro.ErrorCodeHeader] = []string{strconv.Itoa(int(e.code))}
	h[micro.ErrorHeader] = []string{wire.ErrorText(e.code.String(), e.message)}
	return h
}

// shortenedMessage is how many bytes remain of the message of an error that does not fit into a
// NATS message: enough to find it in a log.
const shortenedMessage = 512

// shortened returns the error without details and with a short message.
func (e *Error) shortened() *Error {
	out := *e
	out.message = wire.Truncate(e.message, shortenedMessage) + " (shortened, without details: the error exceeds the NATS server's max_payload)"
	out.details = nil
	return &out
}

// handlerError turns the error of a handler or an interceptor into the one that is sent to the
// caller. If it wraps an *Error, the text is that of the whole chain.
func handlerError(err error) *Error {
	e := ofChain(err)
	e.remote, e.refused, e.instance = false, false, ""
	if !e.claimed {
		e.execution = ExecutionDidRun
	}
	return e
}

// ofChain returns a new *Error with all that err and what it wraps say: the first *Error in the
// chain with the text of the whole chain. It wraps err unless that is an *Error itself.
func ofChain(err error) *Error {
	var e *Error
	if !errors.As(err, &e) || e == nil || e.code == CodeOK {
		return &Error{code: CodeOf(err), message: err.Error(), cause: err}
	}
	out := *e
	if err != error(e) {
		out.message = strings.Replace(err.Error(), e.Error(), e.message, 1)
		out.cause = err // which leads to e and to anything else that err wraps
	}
	return &out
}

// asError returns an *Error of the runtime as it is, and turns any other error into an *Error.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) && e != nil && error(e) == err && e.code != CodeOK {
		return e
	}
	return handlerError(err)
}

// asNil returns e as an error, which is nil if e is.
func asNil(e *Error) error {
	if e == nil {
		return nil
	}
	return e
}
