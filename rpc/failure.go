package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/connwatch"
	"github.com/natscall/natscall/rpc/internal/flow"
	"github.com/natscall/natscall/rpc/internal/stream"
)

// failf returns an error of the runtime itself.
func failf(code Code, x Execution, format string, args ...any) *Error {
	return &Error{code: code, execution: x, message: fmt.Sprintf(format, args...)}
}

// refusal returns the error of a call that did not run and that another instance may take.
func refusal(format string, args ...any) *Error {
	e := failf(CodeUnavailable, ExecutionNotRun, format, args...)
	e.refused = true
	return e
}

// overSendLimit returns the error of a message that is larger than this side may send.
func overSendLimit(what string, size, limit int, x Execution) *Error {
	return failf(CodeResourceExhausted, x, "the %s has %d bytes, the limit is %d (rpc.WithMaxMessageSize or WithMaxSendSize)", what, size, limit)
}

// overReceiveLimit returns the error of a message that is larger than this side takes.
func overReceiveLimit(what string, size, limit int, x Execution) *Error {
	return failf(CodeResourceExhausted, x, "the %s has %d bytes, the limit is %d (rpc.WithMaxMessageSize or WithMaxReceiveSize)", what, size, limit)
}

// overMaxPayload returns the error of a message that is too large for NATS and cannot be sent as a
// stream.
func overMaxPayload(what string, size int, header nats.Header, x Execution) *Error {
	return failf(CodeResourceExhausted, x, "the %s has %d bytes and %d of headers, more than the NATS server's max_payload", what, size, headerSize(header))
}

// wrongAnswer is the error of a call whose answer cannot be read.
func wrongAnswer(err error) *Error {
	return failf(CodeInternal, ExecutionMayHaveRun, "the server's answer is not valid: %v", err).because(err)
}

// unsentError is the error of a request that could not be published.
func unsentError(size int, header nats.Header, err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := err.(*Error); ok {
		return e
	}
	if errors.Is(err, nats.ErrMaxPayload) {
		return overMaxPayload("request", size, header, ExecutionNotRun).because(err)
	}
	return natsError(err, ExecutionNotRun)
}

// responseError is the error of a response that does not decompress. It is the server's fault.
func responseError(err *Error) *Error {
	code := err.code
	if code == CodeInvalidArgument {
		code = CodeInternal
	}
	return failf(code, ExecutionDidRun, "response: %s", err.message)
}

// noService returns the error of a request to which NATS answered "no responders".
func noService(nc *nats.Conn, subject string) *Error {
	hint := ""
	if nc.Opts.NoEcho {
		hint = "; a service on the same connection does not get it, as that has nats.NoEcho"
	}
	return refusal("no service answers on %q%s", subject, hint).because(nats.ErrNoResponders)
}

// noInstance returns the error of a request to one instance to which NATS answered "no responders".
// It is final: no other instance may take the call.
func noInstance(instance, service string) *Error {
	return failf(CodeUnavailable, ExecutionNotRun, "instance %s of %s has gone or never was", instance, service).because(nats.ErrNoResponders)
}

// hookError returns the error of a function of OnSend, OnReceive or OnAttempt as an *Error.
func hookError(err error, x Execution) *Error { return asError(err).withExecution(x) }

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
	code, what := CodeCanceled, "the caller's context was canceled"
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
	if x == ExecutionNotRun {
		x = ExecutionMayHaveRun
	}
	return failf(CodeUnavailable, x, "publish: %v", err).because(err)
}

// connectionError returns why nothing can be sent now, or nil.
func connectionError(nc *nats.Conn) *Error {
	if nc == nil {
		return failf(CodeInvalidArgument, ExecutionNotRun, "the NATS connection is nil")
	}
	switch nc.Status() {
	case nats.CONNECTED:
		return nil
	case nats.CLOSED:
		err := connwatch.ClosedError(nc)
		return failf(CodeUnavailable, ExecutionNotRun, "%v", err).because(err)
	default:
		err := failf(CodeUnavailable, ExecutionNotRun, "%s", connwatch.Describe(nc))
		err.offline = !nc.IsDraining()
		return err
	}
}

// streamErrors maps errors of package stream to codes.
var streamErrors = []struct {
	err     error
	code    Code
	message string
}{
	{stream.ErrClosed, CodeFailedPrecondition, "Send after the end of the sending half"},
	{stream.ErrCanceled, CodeCanceled, "the caller has gone"},
	{stream.ErrGone, CodeUnavailable, "the instance has gone"},
	{stream.ErrDuplicate, CodeInternal, "a stream with this id is open"},
	{flow.ErrLost, CodeDataLoss, ""},
	{flow.ErrPartial, CodeDataLoss, ""},
	{flow.ErrTooLarge, CodeResourceExhausted, ""},
}

// streamError turns an error of package stream into an *Error. io.EOF and an *Error, with which
// this package has ended the stream, stay as they are.
func streamError(err error) error {
	if _, ok := err.(*Error); ok || err == nil || err == io.EOF {
		return err
	}
	var ended *stream.ContextError
	var unsent *stream.PublishError
	var silent *stream.SilenceError
	switch {
	case errors.As(err, &ended):
		return contextError(ended.Ctx, ExecutionMayHaveRun)
	case errors.As(err, &unsent):
		return natsError(unsent.Err, ExecutionMayHaveRun)
	case errors.As(err, &silent):
		return failf(CodeUnavailable, ExecutionMayHaveRun, "nothing came from the peer for %v, three heartbeats (rpc.WithHeartbeat)", silent.For)
	}
	for _, row := range streamErrors {
		if errors.Is(err, row.err) {
			return failf(row.code, ExecutionMayHaveRun, "%s", cmp.Or(row.message, "stream: "+err.Error())).because(err)
		}
	}
	return failf(CodeInternal, ExecutionMayHaveRun, "stream: %v", err).because(err) // a wrong frame
}
