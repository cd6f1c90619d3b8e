package rpc

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"runtime/debug"

	"google.golang.org/protobuf/proto"
)

// Call is one call, as its interceptors see it on either side and, on the
// server, as its handler finds it with [CallFromContext]. It belongs to the
// goroutine that runs the call: its methods must not be called concurrently,
// and not after the call has ended.
type Call struct {
	method   *method
	options  *callOptions // of a client's call
	served   *serverCall  // of a server's call: where the request still has to be decoded
	stream   *stream      // of a client's streaming call, once it is open
	hooks    *callHooks   // nil where there is none
	onServer bool
	sent     bool // a client has sent it, or tried to
	streamed bool // a client's stream has it, and may have it longer than the call

	header          Header // of the request
	responseHeader  Header
	responseTrailer Header

	request    proto.Message
	requestErr error // of a server's call: why the request does not decode
	response   proto.Message
}

// callHooks are what interceptors want to see of a call.
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

// sending runs what OnSend has collected.
func (c *Call) sending(m proto.Message) error {
	if c.hooks == nil || c.hooks.onSend == nil {
		return nil
	}
	return c.hooks.onSend(m)
}

// received runs what OnReceive has collected.
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

// OnServer tells on which side of the call this is.
func (c *Call) OnServer() bool { return c.onServer }

// Header returns the metadata of the request. A client's interceptor may
// change it before it calls next; on the server it is what came, with the
// headers of NATS and of the protocol, and must not be changed.
func (c *Call) Header() Header {
	if c.header == nil && !c.onServer {
		c.header = Header{}
	}
	return c.header
}

// ResponseHeader returns the metadata of the response: on the server to be
// filled before the handler returns, or sends its first message; on the client filled when next returns,
// of a stream when OnEnd runs.
func (c *Call) ResponseHeader() Header {
	if c.responseHeader == nil {
		c.responseHeader = Header{}
	}
	return c.responseHeader
}

// ResponseTrailer is like ResponseHeader for the trailer, which also travels with errors.
func (c *Call) ResponseTrailer() Header {
	if c.responseTrailer == nil {
		c.responseTrailer = Header{}
	}
	return c.responseTrailer
}

// Request returns the request message. On the server the first use decodes
// it: an interceptor that decides without it, such as one that checks
// credentials, spares the work. A request that does not decode is CodeInvalidArgument. It is
// nil where the client streams: OnReceive, and on a client OnSend, see those requests.
func (c *Call) Request() (proto.Message, error) {
	if c.request == nil && c.requestErr == nil && c.served != nil && !c.streamsIn() {
		req, err := c.served.decode()
		if err != nil && c.served.stream != nil {
			return nil, err // which its context may have caused; the stream remembers its own errors
		}
		c.request, c.requestErr = req, err
	}
	return c.request, c.requestErr
}

// Response returns the response message: nil before next has returned, after
// an error, and of a one-way call.
func (c *Call) Response() proto.Message { return c.response }

// SetResponse lets an interceptor answer in place of next, for instance from
// a cache. The message must be of the method's response type, or the call ends with CodeInternal.
func (c *Call) SetResponse(m proto.Message) { c.response = m }

// streamsIn tells whether this side of the call receives a stream.
func (c *Call) streamsIn() bool {
	switch c.method.kind {
	case KindBidi:
		return true
	case KindServerStream:
		return !c.onServer
	case KindClientStream:
		return c.onServer
	}
	return false
}

// OnSend makes f see each message of a stream before it is sent on this side; its error is that of
// Send. A single request or response is none of them: see Request and Response. Call it before
// next. Several are called in their order; nil is ignored.
func (c *Call) OnSend(f func(proto.Message) error) { c.hooked().onSend = both(c.hooked().onSend, f) }

// OnReceive makes f see each message of a stream after it was received on this side, and the
// response of a client's stream, which Response does not have; its error is that of Recv. Call it
// before next. On a bidirectional stream f may run while that of OnSend does. A nil f is ignored.
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

// OnEnd makes f run once when the call is over on this side, with its error, on whatever goroutine
// ends it: f must not block, and not close the client or server. A panic in f is logged and goes
// no further. It is there because a client's stream goes on after next has returned, which opens
// it, until the end has been received, or the stream is closed, or ctx ends. For other calls next
// returns at the same time. Call it before next. A nil f is ignored.
func (c *Call) OnEnd(f func(error)) {
	if f != nil {
		c.hooked().onEnd = append(c.hooked().onEnd, f)
	}
}

// ended runs what OnEnd has collected, each once. err is nil after a clean end.
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

// runHook contains a panic: the goroutine may be one of nats.go's, or have a call to answer.
func (c *Call) runHook(f func(error), err error) {
	defer func() {
		if r := recover(); r != nil {
			c.log().Error("natscall: a function of OnEnd panicked", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
		}
	}()
	f(err)
}

// log is the server's logger; a client has none of its own.
func (c *Call) log() *slog.Logger {
	if c.served != nil {
		return c.served.endpoint.log()
	}
	return slog.Default().With("method", c.Method())
}

// Draining returns a channel that is closed when the server begins to shut
// down. A streaming handler that would go on for long ends then, best with
// CodeUnavailable, so that its caller moves to another instance; else it is cancelled
// when the grace period is over. On a client it returns nil.
func (c *Call) Draining() <-chan struct{} {
	if c.served == nil {
		return nil
	}
	return c.served.endpoint.service.drainStarted
}

// Next is the rest of a call: the interceptors that are left and then the
// handler (on the server) or the wire (on the client).
type Next func(ctx context.Context, call *Call) error

// Interceptor runs around calls, on a client or on a server. It calls next, or
// ends the call itself; what it returns is the call's error. Several are folded
// once, when the client or server is made; the first is the outermost.
//
// The ctx that it gives to next bounds what follows: on a server the handler and
// its stream's Send and Recv; on a client the attempts and, of a streaming call, all of the stream,
// so that it must not be cancelled when next has returned.
//
// It may call next again when that has returned, and not concurrently: on a client to make the
// call once more, which closes the stream that was opened before; on a server to run a handler
// again that does not stream (of one that does the second next fails with CodeInternal).
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

// checkSent refuses nil, which would be sent as an empty message.
func (c *Call) checkSent(m proto.Message) error {
	if m != nil && m != c.method.nilRequest && m != c.method.nilResponse {
		return nil
	}
	code := CodeInvalidArgument
	if c.onServer { // it is no fault of the caller's
		code = CodeInternal
	}
	return failf(code, MayHaveRun, "%s: Send(nil): there is nothing to send", c.Method())
}

// checkResponse refuses what cannot be sent as, or returned for, a response of m.
func (m *method) checkResponse(res proto.Message) error {
	if reflect.TypeOf(res) == reflect.TypeOf(m.nilResponse) && res != m.nilResponse {
		return nil
	}
	if res == nil || !res.ProtoReflect().IsValid() {
		return failf(CodeInternal, DidRun, "%s returned no response and no error", m.FullName())
	}
	return failf(CodeInternal, DidRun, "%s: response is a %T, not a %T", m.FullName(), res, m.nilResponse)
}
