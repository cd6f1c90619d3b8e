package rpc

import (
	"context"
	"errors"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// clientCall is a call of a client.
type clientCall struct {
	Call
	options  *callOptions
	stream   *messageStream // of a streaming call, once it is open
	sent     bool           // an attempt was made
	streamed bool           // a stream holds it, possibly for longer than the call
	asks     bool           // the response is to name its instance
	instance string         // that has answered, where it is known
}

// callPool has calls to be used again, of clients without interceptors. An interceptor may keep its
// Call.
var callPool = sync.Pool{New: func() any { return new(clientCall) }}

// set makes c the call of a method. header, which interceptors may change, belongs to the call.
func (c *clientCall) set(m *method, header Header, request proto.Message, o *callOptions) {
	*c = clientCall{Call: Call{method: m, client: c, header: header, request: request}, options: o}
}

// putBack makes the call available to others, unless a stream has it.
func (c *clientCall) putBack() {
	if !c.streamed {
		*c = clientCall{}
		callPool.Put(c)
	}
}

// deadline returns the earlier of ctx's deadline and the call's own timeout. If there is neither,
// the method's timeout counts, then the client's default (not for streams). byCtx reports whether
// ctx ends at the deadline, so that no timer is needed.
func (c *clientCall) deadline(ctx context.Context) (deadline time.Time, byCtx bool) {
	deadline, byCtx = ctx.Deadline()
	timeout := c.options.timeout
	switch {
	case timeout == wire.NoTimeout && c.options.plain && !byCtx:
		timeout = maxPlainTimeout // as nobody notices that its replica has died
	case timeout == wire.NoTimeout, timeout == 0 && byCtx:
		return deadline, true
	}
	if timeout == 0 {
		timeout = c.method.timeout
	}
	if timeout == 0 && c.method.kind > KindOneWay {
		return time.Time{}, true // a stream may go on forever
	}
	if timeout == 0 {
		timeout = c.options.clientTimeout
	}
	own := time.Now().Add(timeout)
	if byCtx && deadline.Before(own) {
		return deadline, true
	}
	return own, false
}

// mayRetry is the rule of docs/protocol.md. Only an UNAVAILABLE call is sent again: if it did not
// run and another try may help, or if its method may run twice. So a connection that is down is not
// waited for, unless an earlier attempt may have run. delay is the least that the server asks for.
func (c *clientCall) mayRetry(err *Error) (delay time.Duration, again bool) {
	if c.options.once || err.code != CodeUnavailable {
		return 0, false
	}
	switch err.execution {
	case ExecutionNotRun:
		if err.refused {
			return 0, c.options.instance == "" // which another one cannot stand in for
		}
		return err.retryDelay()
	case ExecutionMayHaveRun:
		return 0, c.method.Idempotency != IdempotencyUnknown
	}
	return 0, false
}

// asksInstance reports whether the response is to name its instance.
func (c *clientCall) asksInstance() bool { return c.asks || c.options.responseInstance != nil }

// end runs the hooks of OnEnd, fills what the caller asked for beside the response, and returns the
// result.
func (c *clientCall) end(err error) (proto.Message, error) {
	c.ended(err)
	fillHeader(c.options.responseHeader, c.responseHeader)
	fillHeader(c.options.responseTrailer, c.responseTrailer)
	if c.options.responseInstance != nil {
		*c.options.responseInstance = c.instance
	}
	if err != nil {
		return nil, err
	}
	return c.response, nil
}

// clientError turns the error of a client's interceptor into the *Error that a client promises to
// return, and keeps what is known about the execution.
func (c *clientCall) clientError(err error) *Error {
	out := asError(err)
	var e *Error
	switch {
	case error(out) == err:
		return out
	case errors.As(err, &e) && e != nil && e.code != CodeOK:
		out.remote, out.refused, out.execution, out.instance = e.remote, e.refused, e.execution, e.instance
	case c.sent:
		out.execution = ExecutionMayHaveRun
	default:
		out.execution = ExecutionNotRun
	}
	return out.because(err)
}
