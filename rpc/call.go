package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"

	"google.golang.org/protobuf/proto"
)

// Call is one call, as interceptors see it on either side, and as a handler finds it with
// [CallFromContext]. It belongs to the goroutine that runs the call: its methods must not be called
// concurrently, and not after the call has ended.
type Call struct {
	method *method
	client *clientCall // which the Call is part of; nil on a server
	served *serverCall // likewise; nil on a client, and if the call has ended before anybody asked
	hooks  *callHooks  // nil if there are none

	header          Header // of the request
	responseHeader  Header
	responseTrailer Header

	request    proto.Message
	requestErr *Error // of a server's call: why the request does not decode
	response   proto.Message
}

// callHooks are the functions that interceptors have set with OnSend, OnReceive and OnEnd.
type callHooks struct {
	onSend, onReceive func(proto.Message) error
	onEnd             []func(error)
}

func (c *Call) hooked() *callHooks {
	if c.hooks == nil {
		c.hooks = new(callHooks)
	}
	return c.hooks
}

// sending runs the functions of OnSend.
func (c *Call) sending(m proto.Message) error {
	if c.hooks == nil || c.hooks.onSend == nil {
		return nil
	}
	return c.hooks.onSend(m)
}

// received runs the functions of OnReceive.
func (c *Call) received(m proto.Message) error {
	if c.hooks == nil || c.hooks.onReceive == nil {
		return nil
	}
	return c.hooks.onReceive(m)
}

// Method returns the full name of the method, as in "/order.v1.OrderService/PlaceOrder".
func (c *Call) Method() string { return c.method.FullName() }

// Kind returns the shape of the method.
func (c *Call) Kind() Kind { return c.method.kind }

// Idempotency returns what the method's idempotency_level promises.
func (c *Call) Idempotency() Idempotency { return c.method.Idempotency }

// OnServer reports whether this is the server's side of the call.
func (c *Call) OnServer() bool { return c.client == nil }

// Header returns the metadata of the request. A client's interceptor may change it before it calls
// next. On the server it is what was received, including the headers of NATS and of the protocol,
// and must not be changed.
func (c *Call) Header() Header {
	if c.header == nil && !c.OnServer() {
		c.header = Header{}
	}
	return c.header
}

// ResponseHeader returns the metadata of the response. On the server, fill it before the handler
// returns or, on a stream, sends its first message or calls SendHeader. On the client it is filled
// when next returns, or for a stream when OnEnd runs.
func (c *Call) ResponseHeader() Header {
	if c.responseHeader == nil {
		c.responseHeader = Header{}
	}
	return c.responseHeader
}

// ResponseTrailer is like ResponseHeader for the trailer, which is also sent with errors.
func (c *Call) ResponseTrailer() Header {
	if c.responseTrailer == nil {
		c.responseTrailer = Header{}
	}
	return c.responseTrailer
}

// AskInstance makes the response say which instance has answered. A client's interceptor calls it
// before next; it costs a NATS header of the response. On a server it does nothing.
func (c *Call) AskInstance() {
	if c.client != nil {
		c.client.asks = true
	}
}

// Instance returns the token of an instance, which [WithInstance] takes. On a client it is, when
// next has returned, the one that has answered: if AskInstance was called or next has returned an
// error, and always for a stream; otherwise it is "". On a server it is the service's own.
func (c *Call) Instance() string {
	switch {
	case c.served != nil:
		return c.served.endpoint.service.identity.ID
	case c.client == nil:
		return "" // the call has ended
	case c.client.stream != nil:
		return c.client.stream.client.Instance()
	}
	return c.client.instance
}

// SendHeader sends the response header before the first message of a stream, so that the client's
// Header returns. Afterwards ResponseHeader must not be changed. Where the header can only go with
// the first message or the response (unary calls, plain NATS clients), SendHeader does nothing and
// returns nil. It is for the handler and its interceptors.
//
// The error is an *Error: CodeFailedPrecondition if a header or a message has been sent before, or
// on a client; CodeInternal or CodeResourceExhausted if the header is not valid or is too large.
func (c *Call) SendHeader() error {
	switch {
	case c.client != nil:
		return failf(CodeFailedPrecondition, ExecutionMayHaveRun, "%s: SendHeader is for servers", c.Method())
	case c.served == nil || c.served.stream == nil || c.Kind() <= KindOneWay:
		return nil
	}
	return c.served.stream.sendHeader()
}

// Request returns the request message. On the server the first use decodes it, so an interceptor
// that refuses a call without it, such as one that checks credentials, saves that work. The error
// of a request that does not decode has CodeInvalidArgument. The request is nil if the client
// streams: OnReceive (on a client OnSend) sees those messages.
func (c *Call) Request() (proto.Message, error) {
	if c.request == nil && c.requestErr == nil && c.served != nil && !c.streamsIn() {
		req, err := c.served.decode()
		if err != nil && c.served.stream != nil {
			return nil, err // perhaps of the context; the stream remembers its own errors
		}
		c.request, c.requestErr = req, err
	}
	return c.request, asNil(c.requestErr)
}

// Response returns the response message. It is nil before next has returned, after an error, and
// for a one-way call.
func (c *Call) Response() proto.Message { return c.response }

// SetResponse lets an interceptor answer without calling next, for instance from a cache. The
// message must be of the method's response type, or the call ends with CodeInternal.
func (c *Call) SetResponse(m proto.Message) { c.response = m }

// streamsIn reports whether this side of the call receives a stream.
func (c *Call) streamsIn() bool {
	switch c.method.kind {
	case KindBidi:
		return true
	case KindServerStream:
		return !c.OnServer()
	case KindClientStream:
		return c.OnServer()
	}
	return false
}

// OnSend makes f run for each message of a stream before this side sends it; an error of f becomes
// the error of Send. f does not run for a single request or response: see Request and Response.
// Call OnSend before next. Several functions run in the order in which they were set; a nil f is
// ignored.
func (c *Call) OnSend(f func(proto.Message) error) { c.hooked().onSend = both(c.hooked().onSend, f) }

// OnReceive makes f run for each message of a stream after this side has received it, and for the
// response to a client's stream, which Response does not return; an error of f becomes the error of
// Recv. Call OnReceive before next. On a bidirectional stream f may run concurrently with the
// function of OnSend. A nil f is ignored.
func (c *Call) OnReceive(f func(proto.Message) error) {
	c.hooked().onReceive = both(c.hooked().onReceive, f)
}

func both(f, g func(proto.Message) error) func(proto.Message) error {
	switch {
	case f == nil:
		return g
	case g == nil:
		return f
	}
	return func(m proto.Message) error {
		if err := f(m); err != nil {
			return err
		}
		return g(m)
	}
}

// OnEnd makes f run once, with the call's error, when the call is over on this side. f runs on
// whatever goroutine ends the call, so it must not block, and not close the client or server. A
// panic in f is logged and goes no further. Call OnEnd before next. A nil f is ignored.
//
// OnEnd exists for a client's streams: there next only opens the stream, which goes on until its
// end has been received, it is closed, or ctx ends. Any other call ends when next returns.
func (c *Call) OnEnd(f func(error)) {
	if f != nil {
		c.hooked().onEnd = append(c.hooked().onEnd, f)
	}
}

// ended runs each function of OnEnd once. err is nil after a clean end.
func (c *Call) ended(err error) {
	if c.hooks == nil {
		return
	}
	for n := len(c.hooks.onEnd); n > 0; n = len(c.hooks.onEnd) {
		f := c.hooks.onEnd[n-1]
		c.hooks.onEnd = c.hooks.onEnd[:n-1]
		c.runHook(f, err)
	}
}

// runHook runs f and stops a panic: the goroutine may be one of nats.go's, or have a call to
// answer.
func (c *Call) runHook(f func(error), err error) {
	defer func() {
		if r := recover(); r != nil {
			c.log().Error("natscall: a function of OnEnd panicked", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
		}
	}()
	f(err)
}

// log returns the server's logger; a client has no logger of its own.
func (c *Call) log() *slog.Logger {
	if c.served != nil {
		return c.served.endpoint.log()
	}
	return slog.Default().With("method", c.Method())
}

// DeadlineBy says what has set the deadline of a call on a server.
type DeadlineBy uint8

const (
	// DeadlineByNone means that the call has no deadline.
	DeadlineByNone DeadlineBy = iota
	// DeadlineByCaller means that the caller has set it.
	DeadlineByCaller
	// DeadlineByMethod means that the .proto file has set it, for a caller that named none.
	DeadlineByMethod
	// DeadlineByServer means that it is the server's default ([WithTimeout]) or one of its limits.
	DeadlineByServer
)

// String returns "none", "caller", "method" or "server".
func (d DeadlineBy) String() string {
	return [...]string{"none", "caller", "method", "server", "unknown"}[min(d, DeadlineByServer+1)]
}

// DeadlineBy says what has set the deadline of a handler's context. On a client it is
// DeadlineByNone.
func (c *Call) DeadlineBy() DeadlineBy {
	if c.served == nil {
		return DeadlineByNone
	}
	return c.served.deadlineBy
}

// Draining returns a channel that is closed when the service begins to drain, because the server
// shuts down or the service is unregistered. A streaming handler that would go on for long should
// then return, best with CodeUnavailable, so that its caller moves to another instance. Otherwise
// its context is canceled when the grace period is over. On a client Draining returns nil.
func (c *Call) Draining() <-chan struct{} {
	if c.served == nil {
		return nil
	}
	return c.served.endpoint.service.drainStarted
}

// Next is the rest of a call: the interceptors that are left and then the
// handler (on the server) or the wire (on the client).
type Next func(ctx context.Context, call *Call) error

// Interceptor runs around calls, on a client or on a server. It calls next, or ends the call
// itself; what it returns is the call's error. Several interceptors are folded once, when the
// client or server is made; the first is the outermost.
//
// The ctx that it passes to next bounds what follows. On a server that is the handler with its
// stream's Send and Recv. On a client it is the attempts and, for a streaming call, the whole
// stream: so it must not be canceled when next returns.
//
// It may call next again after next has returned, but not concurrently. On a client this makes the
// call once more, and closes a stream that was opened before. On a server it runs the handler
// again, unless the method streams: then the second next fails with CodeInternal.
type Interceptor func(ctx context.Context, call *Call, next Next) error

// chain folds interceptors around last.
func chain(interceptors []Interceptor, last Next) Next {
	next := last
	for i := len(interceptors) - 1; i >= 0; i-- {
		intercept, inner := interceptors[i], next
		next = func(ctx context.Context, call *Call) error { return intercept(ctx, call, inner) }
	}
	return next
}

// checkSent refuses nil, which would otherwise be sent as an empty message.
func (c *Call) checkSent(m proto.Message) error {
	if m != nil && m != c.method.nilRequest && m != c.method.nilResponse {
		return nil
	}
	code := CodeInvalidArgument
	if c.OnServer() { // the caller is not to blame
		code = CodeInternal
	}
	return failf(code, ExecutionMayHaveRun, "%s: Send(nil): there is nothing to send", c.Method())
}
