package rpc

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/natscall/natscall/rpc/internal/connwatch"
)

// Execution says what is known about whether the handler of a failed call ran.
type Execution uint8

const (
	// MayHaveRun means that it is not known. Only idempotent work may be sent again.
	MayHaveRun Execution = iota
	// NotRun means that the handler certainly did not run.
	NotRun
	// DidRun means that the handler ran.
	DidRun
)

// String returns "may have run", "not run" or "did run".
func (x Execution) String() string {
	return [...]string{"may have run", "not run", "did run"}[min(x, DidRun)]
}

// Error is the error of a call: a code, a message and details. Handlers make one with [NewError] or
// [Errorf]; clients find it with errors.As, or read its code with [CodeOf]. Every error that a
// generated client returns is an *Error, except io.EOF of a stream and the errors of functions that
// interceptors set with OnSend and OnReceive. An Error is immutable.
type Error struct {
	code      Code
	message   string
	details   []*anypb.Any
	remote    bool
	refused   bool // not run, and another instance may take the call: the client sends it again
	execution Execution
	cause     error
}

// NewError returns an *Error. The message is for people and crosses the wire, as do the details,
// which may be any Protobuf messages. An *anypb.Any is taken as a detail that is packed already,
// and nil is ignored. A detail that does not encode is left out, and the message says so. A code
// that is not an error's (CodeOK, or out of range) becomes CodeInternal.
func NewError(code Code, message string, details ...proto.Message) error {
	e := newError(code, message)
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
	return e
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

// failf returns an error of the runtime itself.
func failf(code Code, x Execution, format string, args ...any) *Error {
	return &Error{code: code, execution: x, message: fmt.Sprintf(format, args...)}
}

// refusal returns the error of a call that did not run and that another instance may take.
func refusal(format string, args ...any) *Error {
	e := failf(CodeUnavailable, NotRun, format, args...)
	e.refused = true
	return e
}

// overLimit returns the error of a message that is larger than this side's option allows.
func overLimit(what string, size, limit int, x Execution) *Error {
	return failf(CodeResourceExhausted, x, "the %s has %d bytes, the limit is %d (rpc.WithMaxMessageSize)", what, size, limit)
}

// overMaxPayload returns the error of a message that is too large for NATS and cannot be sent as a
// stream.
func overMaxPayload(what string, size int, header nats.Header, x Execution) *Error {
	return failf(CodeResourceExhausted, x, "the %s has %d bytes and %d of headers, more than the NATS server's max_payload", what, size, headerSize(header))
}

// noService returns the error of a request to which NATS answered "no responders".
func noService(nc *nats.Conn, subject string) *Error {
	hint := ""
	if nc.Opts.NoEcho {
		hint = "; a service on the same connection does not get it, as that has nats.NoEcho"
	}
	return refusal("no service answers on %q%s", subject, hint).because(nats.ErrNoResponders)
}

// because sets the error that e wraps.
func (e *Error) because(err error) *Error {
	e.cause = err
	return e
}

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

// handlerError turns the error of a handler or an interceptor into the one that is sent to the
// caller. If it wraps an *Error, the text is that of the whole chain.
func handlerError(err error) *Error {
	var e *Error
	if !errors.As(err, &e) || e == nil || e.code == CodeOK {
		return &Error{code: CodeOf(err), message: err.Error(), execution: DidRun, cause: err}
	}
	out := *e
	if err != error(e) {
		out.message = strings.Replace(err.Error(), e.Error(), e.message, 1)
		out.cause = err // which leads to e and to anything else that err wraps
	}
	out.remote, out.refused, out.execution = false, false, DidRun
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

// clientError turns the error of a client's interceptor into the *Error that a client promises to
// return, and keeps what is known about the execution.
func (c *Call) clientError(err error) *Error {
	out := asError(err)
	var e *Error
	switch {
	case error(out) == err:
		return out
	case errors.As(err, &e) && e != nil && e.code != CodeOK:
		out.remote, out.refused, out.execution = e.remote, e.refused, e.execution
	case c.sent:
		out.execution = MayHaveRun
	default:
		out.execution = NotRun
	}
	return out.because(err)
}

// asNil returns e as an error, which is nil if e is.
func asNil(e *Error) error {
	if e == nil {
		return nil
	}
	return e
}

// contextError returns the error of a call whose ctx has ended. If ctx has a cause, the message
// names it and errors.Is finds it.
func contextError(ctx context.Context, x Execution) *Error {
	err := ctx.Err()
	cause := context.Cause(ctx)
	if cause == err {
		return endError(err, x)
	}
	out := endError(err, x).because(cause)
	if e, ok := cause.(*Error); ok { // without its code, which would be a second one
		out.message += ": " + e.Message()
	} else {
		out.message += ": " + cause.Error()
	}
	return out
}

// endError returns the error of a call that ended by err, which is context.Canceled or
// context.DeadlineExceeded.
func endError(err error, x Execution) *Error {
	code, what := CodeCanceled, "the caller's context was cancelled"
	if errors.Is(err, context.DeadlineExceeded) {
		code, what = CodeDeadlineExceeded, "the deadline passed"
	}
	return failf(code, x, "%s (%v)", what, x).because(err)
}

// natsErrors maps errors of nats.go to codes. Each of them means that the message was not sent; for
// any other error that is not known.
var natsErrors = []struct {
	err  error
	code Code
}{
	{nats.ErrNoResponders, CodeUnavailable},
	{nats.ErrConnectionClosed, CodeUnavailable},
	{nats.ErrConnectionDraining, CodeUnavailable},
	{nats.ErrConnectionReconnecting, CodeUnavailable},
	{nats.ErrDisconnected, CodeUnavailable},
	{nats.ErrReconnectBufExceeded, CodeUnavailable},
	{nats.ErrTimeout, CodeUnavailable},
	{nats.ErrMaxPayload, CodeResourceExhausted},
	{nats.ErrPermissionViolation, CodePermissionDenied},
	{nats.ErrAuthorization, CodeUnauthenticated},
	{nats.ErrAuthExpired, CodeUnauthenticated},
	{nats.ErrBadSubject, CodeInvalidArgument},
	{nats.ErrHeadersNotSupported, CodeUnimplemented},
	{nats.ErrBadHeaderMsg, CodeInvalidArgument},
	{nats.ErrInvalidConnection, CodeInvalidArgument},
}

// natsError maps an error of nats.go by the table above. x is what is known about the execution if
// the message was not sent. After any other error, such as one of the socket, it may have been
// sent.
func natsError(err error, x Execution) *Error {
	for _, row := range natsErrors {
		if errors.Is(err, row.err) {
			return failf(row.code, x, "%v", err).because(err)
		}
	}
	if x == NotRun {
		x = MayHaveRun
	}
	return failf(CodeUnavailable, x, "publish: %v", err).because(err)
}

// connectionError returns why nothing can be sent now, or nil.
func connectionError(nc *nats.Conn) *Error {
	if nc == nil {
		return failf(CodeInvalidArgument, NotRun, "the NATS connection is nil")
	}
	switch nc.Status() {
	case nats.CONNECTED:
		return nil
	case nats.CLOSED:
		err := connwatch.ClosedError(nc)
		return failf(CodeUnavailable, NotRun, "%v", err).because(err)
	default:
		return failf(CodeUnavailable, NotRun, "%s", connwatch.Describe(nc))
	}
}
