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

// Execution says what is known about a failed call: whether its handler ran.
type Execution uint8

const (
	// MayHaveRun means that nobody knows. Only idempotent work may be sent again.
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

// Error is the error of a call: a code, a message and details. Handlers make
// one with [NewError] or [Errorf]; clients find it with errors.As, or read its
// code with [CodeOf]. Every error that a generated client returns has one. It
// does not change after it was made.
type Error struct {
	code      Code
	message   string
	details   []*anypb.Any
	remote    bool
	refused   bool // not run, and another instance may take the call: it is sent again
	execution Execution
	cause     error
}

// NewError returns an *Error. The message is for people and crosses the wire;
// so do the details, any Protobuf messages. An *anypb.Any is a detail that is packed
// already; nil is none; what does not encode is left out, and the message says so.
// A code that is no error (CodeOK, or out of range) becomes CodeInternal.
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

// Errorf returns an *Error with a formatted message. The operands of %w can be
// found by errors.Is and errors.As on this side of the wire.
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

// failf makes an error of the runtime's own.
func failf(code Code, x Execution, format string, args ...any) *Error {
	return &Error{code: code, execution: x, message: fmt.Sprintf(format, args...)}
}

// refusal makes the error of a call that did not run and that another instance may take.
func refusal(format string, args ...any) *Error {
	e := failf(CodeUnavailable, NotRun, format, args...)
	e.refused = true
	return e
}

// overLimit is the error of a message that this side's option does not allow.
func overLimit(what string, size, limit int, x Execution) *Error {
	return failf(CodeResourceExhausted, x, "the %s has %d bytes, the limit is %d (rpc.WithMaxMessageSize)", what, size, limit)
}

// overMaxPayload is the error of a message that NATS does not take and that cannot be sent as a
// stream.
func overMaxPayload(what string, size int, header nats.Header, x Execution) *Error {
	return failf(CodeResourceExhausted, x, "the %s has %d bytes and %d of headers, more than the NATS server's max_payload", what, size, headerSize(header))
}

// noService is the error of a request that met no responders.
func noService(nc *nats.Conn, subject string) *Error {
	hint := ""
	if nc.Opts.NoEcho {
		hint = "; a service on the same connection does not get it, as that has nats.NoEcho"
	}
	return refusal("no service answers on %q%s", subject, hint).because(nats.ErrNoResponders)
}

// because sets what errors.Is and errors.As find behind e.
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

// Code returns the code, never CodeOK: an Error that is nil or zero, which this
// package does not make, has CodeUnknown.
func (e *Error) Code() Code {
	if e == nil || e.code == CodeOK {
		return CodeUnknown
	}
	return e.code
}

// orZero is e, or an Error without anything for nil: methods of a nil *Error do not panic.
func (e *Error) orZero() *Error {
	if e == nil {
		return new(Error)
	}
	return e
}

// Message returns the message without the code.
func (e *Error) Message() string { return e.orZero().message }

// Details returns the details. One whose type is not linked into the program
// is an *anypb.Any. The messages are new in each call.
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

// Detail returns the first detail of type M, as in
//
//	order, ok := rpc.Detail[*orderv1.Order](err)
//
// of the first *Error in the chain of err.
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

// Is lets errors.Is find context.Canceled behind CodeCanceled and
// context.DeadlineExceeded behind CodeDeadlineExceeded, wherever they came from.
func (e *Error) Is(target error) bool {
	switch target {
	case context.Canceled:
		return e.Code() == CodeCanceled
	case context.DeadlineExceeded:
		return e.Code() == CodeDeadlineExceeded
	}
	return false
}

// handlerError turns what a handler or an interceptor returned into what the
// caller is told. The text of a wrapped *Error is that of the whole chain.
func handlerError(err error) *Error {
	var e *Error
	if !errors.As(err, &e) || e == nil || e.code == CodeOK {
		return &Error{code: CodeOf(err), message: err.Error(), execution: DidRun, cause: err}
	}
	out := *e
	if err != error(e) {
		out.message = strings.Replace(err.Error(), e.Error(), e.message, 1)
		out.cause = err // which leads to e and to what else err wraps
	}
	out.remote, out.refused, out.execution = false, false, DidRun
	return &out
}

// asError returns an error of the runtime as what it is.
func asError(err error) *Error {
	var e *Error
	if errors.As(err, &e) && e != nil && error(e) == err && e.code != CodeOK {
		return e
	}
	return handlerError(err)
}

// clientError returns what a client's interceptor returned as what a client
// promises to return. What is known about the execution stays known.
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

// asNil returns a nil *Error as a nil error.
func asNil(e *Error) error {
	if e == nil {
		return nil
	}
	return e
}

// contextError is the error of a call whose ctx has ended. The cause of that,
// if there is one, stands in the message and is found by errors.Is.
func contextError(ctx context.Context, x Execution) *Error {
	err := ctx.Err()
	cause := context.Cause(ctx)
	if cause == err {
		return endError(err, x)
	}
	out := endError(err, x).because(cause)
	if e, ok := cause.(*Error); ok { // its code would be a second one
		out.message += ": " + e.Message()
	} else {
		out.message += ": " + cause.Error()
	}
	return out
}

// endError is the error of a call that ended with context.Canceled or context.DeadlineExceeded.
func endError(err error, x Execution) *Error {
	code, what := CodeCanceled, "the caller's context was cancelled"
	if errors.Is(err, context.DeadlineExceeded) {
		code, what = CodeDeadlineExceeded, "the deadline passed"
	}
	return failf(code, x, "%s (%v)", what, x).because(err)
}

// natsErrors says what an error of nats.go means for a call. Each of them
// keeps a message from being sent; of any other that is not known.
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

// natsError maps an error of nats.go by the table above. x is what a message that
// was not sent means. Any other error, such as one of the socket, may have come behind the message.
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

// connectionError says why nothing can be sent now; it is nil where something can.
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
