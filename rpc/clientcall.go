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
	into     any            // what the response is decoded into; nil for a new message
	stream   *messageStream // of a streaming call, once it is open
	sending  *Message       // the request, until the functions of OnSent have run for it
	sent     bool           // an attempt was made
	streamed bool           // a stream holds it, possibly for longer than the call
	asks     bool           // the response is to name its instance
	instance string         // that has answered, where it is known
}

// callPool has calls to be used again, of clients without interceptors. An interceptor may keep its
// Call.
var callPool = sync.Pool{New: func() any { return new(clientCall) }}

// set makes c the call of a method. header, which interceptors may change, belongs to the call.
func (c *clientCall) set(m *method, header Header, request, into any, o *callOptions) {
	*c = clientCall{Call: Call{method: m, client: c, header: header, request: request}, into: into, options: o}
}

// newResponse returns what the response is decoded into.
func (c *clientCall) newResponse() any {
	if c.into == nil {
		return c.method.newResponse()
	}
	if m, ok := c.into.(proto.Message); ok {
		proto.Reset(m) // an attempt before may have begun to fill it
	}
	return c.into
}

// fill makes into the response, where an interceptor has set another one.
func (c *clientCall) fill() error {
	if c.into == nil || c.response == nil || c.response == c.into {
		return nil
	}
	coding := c.options.coding()
	if raw, ok := c.response.(*Raw); ok {
		coding.codec = raw.Codec
	}
	data, err := coding.append(nil, c.response)
	if err == nil {
		err = coding.decode(data, c.newResponse(), len(data))
	}
	if err != nil {
		return failf(CodeInternal, ExecutionMayHaveRun, "%s: the response that an interceptor has set: %v", c.method.FullName(), err).because(err)
	}
	return nil
}

// sendingRequest runs the functions of OnSend for the request, if there is only one.
func (c *clientCall) sendingRequest() error {
	if c.hooks == nil || c.request == nil {
		return nil
	}
	m, err := c.Call.hooks.sending(c.request)
	c.sending = m
	if err != nil {
		return hookError(err, ExecutionNotRun)
	}
	return nil
}

// encodedRequest notes the sizes of the request for the functions of OnSent.
func (c *clientCall) encodedRequest(size, wireSize int) {
	if c.sending != nil {
		c.sending.size, c.sending.wireSize = size, wireSize
	}
}

// sentRequest runs the functions of OnSent for the request, once: when the first attempt is on its
// way, or when the call has ended before that.
func (c *clientCall) sentRequest(err error) {
	if m := c.sending; m != nil {
		c.sending = nil
		c.hooks.sentMessage(m, m.size, m.wireSize, err)
	}
}

// run runs the interceptors and the call. If one of them panics or ends its goroutine, the call
// ends all the same.
func (c *clientCall) run(ctx context.Context, next Next) error {
	returned := false
	defer func() {
		if returned {
			return
		}
		failed := failf(CodeInternal, ExecutionMayHaveRun, "%s: an interceptor panicked", c.method.FullName())
		if c.stream != nil {
			c.stream.client.End(failed)
		}
		c.sentRequest(failed)
		c.hooks.ended(failed)
	}()
	err := next(ctx, &c.Call)
	returned = true
	return err
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

// forAnyInstance reports whether NATS chooses one of the instances for the call, so that another
// one may be chosen too.
func (c *clientCall) forAnyInstance() bool {
	return c.options.instance == "" && !c.options.plain && !c.method.service.NoQueueGroup
}

// isHedged reports whether further attempts may be made while one waits.
func (c *clientCall) isHedged() bool {
	o := &c.options.retry
	return o.hedging != (hedging{}) && !o.once && c.method.mayRunTwice() && c.forAnyInstance()
}

// forget forgets the answer to an attempt that another one follows.
func (c *clientCall) forget() {
	c.instance, c.responseHeader, c.responseTrailer = "", nil, nil
}

// asksInstance reports whether the response is to name its instance.
func (c *clientCall) asksInstance() bool { return c.asks || c.options.results.instance != nil }

// end runs the hooks of OnEnd, fills what the caller asked for beside the response, and returns the
// result.
func (c *clientCall) end(err error) (any, error) {
	c.hooks.ended(err)
	fillHeader(c.options.results.header, c.responseHeader)
	fillHeader(c.options.results.trailer, c.responseTrailer)
	if c.options.results.instance != nil {
		*c.options.results.instance = c.instance
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
	case error(out) == err && !c.sent:
		return out.withExecution(ExecutionNotRun) // whatever call it comes from
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
