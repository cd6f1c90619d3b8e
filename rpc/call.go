package rpc

import (
	"context"
	"log/slog"
	"reflect"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
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

	request  any // a proto.Message; on a client also a *Raw
	response any // a proto.Message or a *Raw
	values   any // what SetValue has left: nothing, one value or several as callValues
}

// Method returns the full name of the method, as in "/order.v1.OrderService/PlaceOrder".
func (c *Call) Method() string { return c.method.FullName() }

// Descriptor returns the Protobuf descriptor of the method, or nil if it is not known
// ([NewRawMethod]).
func (c *Call) Descriptor() protoreflect.MethodDescriptor { return c.method.Descriptor() }

// Kind returns the shape of the method.
func (c *Call) Kind() Kind { return c.method.kind }

// Idempotency returns what the method's idempotency_level promises.
func (c *Call) Idempotency() Idempotency { return c.method.desc.Idempotency }

// OnServer reports whether this is the server's side of the call.
func (c *Call) OnServer() bool { return c.client == nil }

// Header returns the header of the request. A client's interceptor may change it before it calls
// next. On the server it is what was received, including the headers of NATS and of the protocol,
// and must not be changed.
func (c *Call) Header() Header {
	if c.header == nil && !c.OnServer() {
		c.header = Header{}
	}
	return c.header
}

// ResponseHeader returns the header of the response. On the server, fill it before the handler
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
	case c.hooks != nil && c.hooks.sendHeader != nil:
		return c.hooks.sendHeader()
	case c.served == nil || c.served.stream == nil || c.Kind() <= KindOneWay:
		return nil
	}
	return c.served.stream.sendHeader()
}

// Request returns the request message. On the server the first use decodes it, so an interceptor
// that refuses a call without it, such as one that checks credentials, saves that work. The error
// of a request that does not decode has CodeInvalidArgument. The request is nil if the client
// streams: OnReceive (on a client OnSend) sees those messages.
//
// The request of a call of [Method] is decoded for interceptors only, so what they change in it is
// not seen by a handler or sent to one. The error of a request whose type is not known
// ([NewRawMethod]) has CodeUnimplemented; [Call.RequestData] returns it as it is.
func (c *Call) Request() (proto.Message, error) {
	switch req := c.request.(type) {
	case *Raw:
		return c.decodeRaw(req, false)
	case proto.Message:
		return req, nil
	}
	if c.served == nil || c.streamsIn() {
		return nil, nil
	}
	return c.served.decodeOnce()
}

// RequestData returns the encoded request on a server, decompressed but not decoded, as an
// interceptor that checks a signature needs it. It is nil if the client streams. It must not be
// changed. On a client the functions of [Call.OnAttempt] see the encoded request; there RequestData
// returns an error with CodeFailedPrecondition.
func (c *Call) RequestData() ([]byte, error) {
	switch {
	case c.served == nil:
		return nil, failf(CodeFailedPrecondition, ExecutionMayHaveRun, "%s: RequestData is for servers; OnAttempt has the encoded request", c.Method())
	case c.streamsIn():
		return nil, nil
	}
	data, err := c.served.data()
	return data, asNil(err)
}

// Response returns the response message. It is nil before next has returned, after an error, for a
// one-way call, and for one whose type is not known ([NewRawMethod]). A response that is a *Raw is
// decoded for each use.
func (c *Call) Response() proto.Message {
	switch res := c.response.(type) {
	case *Raw:
		if m, err := c.decodeRaw(res, true); err == nil {
			return m
		}
	case proto.Message:
		return res
	}
	return nil
}

// SetResponse lets an interceptor answer without calling next, for instance from a cache. The
// message must be of the method's response type, or the call ends with CodeInternal.
func (c *Call) SetResponse(m proto.Message) {
	c.response = nil // not a nil proto.Message
	if m != nil {
		c.response = m
	}
}

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

// OnSend makes f run for each message that this side sends, before it is encoded: for each message
// of a stream, a single request and a single response. An error of f becomes the error of Send or
// of the call, and the message is not sent. A request that is sent again is one message: OnAttempt
// sees how often it is sent.
//
// OnSend, OnSent and OnReceive are to be called before next. Several functions run in the order in
// which they were set; a nil f is ignored. On a bidirectional stream those of sending and those of
// receiving may run concurrently. On a server they run for the response when all interceptors have
// returned, so what is to happen after the last message belongs into OnEnd.
func (c *Call) OnSend(f func(*Message) error) {
	if f != nil {
		c.hooked().onSend = append(c.hooked().onSend, f)
	}
}

// OnSent makes f run once after each message for which all functions of OnSend have run: it has
// been encoded and given to the stream's window, or is given to the connection next, or err says
// why not. It runs after OnAttempt, and for a request with the first attempt. A panic in f is
// logged and goes no further.
func (c *Call) OnSent(f func(m *Message, err error)) {
	if f != nil {
		c.hooked().onSent = append(c.hooked().onSent, f)
	}
}

// OnReceive makes f run for each message that this side has received, before it is decoded: for
// each message of a stream, a single request and a single response. An error of f becomes the error
// of the call or, on a stream, of this and every later Recv, as nothing may be missing from what is
// received. A request is received when its handler is about to run.
func (c *Call) OnReceive(f func(*Message) error) {
	if f != nil {
		c.hooked().onReceive = append(c.hooked().onReceive, f)
	}
}

// OnEnd makes f run once, with the call's error, when the call is over on this side. f runs on
// whatever goroutine ends the call, so it must not block, and not close the client or server. A
// panic in f is logged and goes no further. Call OnEnd before next. Of several functions the one
// that was set last runs first, as with defer. A nil f is ignored.
//
// Only OnEnd is there for the end of a call of any shape. On a client next only opens a stream,
// which goes on until its end has been received, it is closed, or ctx ends. On a server the
// response is encoded when next has returned.
func (c *Call) OnEnd(f func(error)) {
	if f != nil {
		c.hooked().onEnd = append(c.hooked().onEnd, f)
	}
}

// OnAttempt makes f run on a client before each attempt to send the request or to open the stream,
// when the request has been encoded. An error of f ends the call. Call OnAttempt before next. A nil
// f is ignored, and so is OnAttempt on a server.
func (c *Call) OnAttempt(f func(*Attempt) error) {
	if f != nil && !c.OnServer() {
		c.hooked().onAttempt = append(c.hooked().onAttempt, f)
	}
}

func (c *Call) hooked() *callHooks {
	if c.hooks == nil {
		c.hooks = newCallHooks(c)
	}
	return c.hooks
}

// decodeRaw decodes a *Raw, which is a response or a request.
func (c *Call) decodeRaw(raw any, response bool) (proto.Message, error) {
	newMessage := c.method.newRequest
	if response {
		newMessage = c.method.newResponse
	}
	if newMessage == nil {
		return nil, failf(CodeUnimplemented, ExecutionMayHaveRun, "%s: the types of its messages are not known here", c.Method())
	}
	m := newMessage()
	return m, raw.(*Raw).Unmarshal(m)
}

// log returns the logger of the client or server.
func (c *Call) log() *slog.Logger {
	switch {
	case c.served != nil:
		return c.served.endpoint.log()
	case c.client != nil:
		return c.client.options.logger.With("method", c.Method())
	}
	return slog.Default()
}

// ID returns the id of the request on a server: 32 hexadecimal digits, which the client's
// [Attempt.ID] has too. On a client, and for a plain request, which has none, ID returns "".
func (c *Call) ID() string {
	if c.served == nil || c.served.plain {
		return ""
	}
	return c.served.id.String()
}

// Subject returns, on a server, the subject that the request has come to. It is not the one that
// the caller has published to where an import or a mapping renames that. On a client Subject
// returns ""; an attempt knows its own ([Attempt.Subject]).
func (c *Call) Subject() string {
	if c.served == nil {
		return ""
	}
	return c.served.subject
}

// QueueGroup returns, on a server, the queue group by which the request has come: one instance of
// each group gets it. It is "" for a request that each instance gets, for one that was sent to this
// instance in particular, and on a client.
func (c *Call) QueueGroup() string {
	if c.served == nil || c.served.to != toGroup {
		return ""
	}
	return c.served.endpoint.queueGroup
}

// callValues are several values of SetValue, each of another type.
type callValues []any

// SetValue leaves a value on the call for other interceptors and for the handler, who get it by its
// type ([CallValue]). It replaces an earlier value of the same type, and ignores nil. Unlike a
// value in a context, a pointer costs no allocation. Call SetValue before next; what it leaves may
// then be read concurrently.
func (c *Call) SetValue(value any) {
	all, several := c.values.(callValues)
	switch {
	case value == nil:
	case several:
		i := slices.IndexFunc(all, func(v any) bool { return reflect.TypeOf(v) == reflect.TypeOf(value) })
		if i < 0 {
			c.values = append(all, value)
		} else {
			all[i] = value
		}
	case c.values == nil || reflect.TypeOf(c.values) == reflect.TypeOf(value):
		c.values = value
	default:
		c.values = callValues{c.values, value}
	}
}

// CallValue returns the value of type T that an interceptor has left with [Call.SetValue]. ok is
// false if there is none, or call is nil.
func CallValue[T any](call *Call) (value T, ok bool) {
	if call == nil {
		return value, false
	}
	all, several := call.values.(callValues)
	if !several {
		value, ok = call.values.(T)
		return value, ok
	}
	for _, v := range all {
		if value, ok = v.(T); ok {
			return value, true
		}
	}
	return value, false
}

// HandlerCalled reports whether the handler has been called, for a server's interceptor whose next
// has returned: without it the error is that of another interceptor, or the request does not
// decode. On a client it is false.
func (c *Call) HandlerCalled() bool {
	return c.served != nil && c.served.handling.Load() == callHandled
}

// QueueTime returns how long the request has waited on the server between its arrival and the
// interceptors. On a client it is 0.
func (c *Call) QueueTime() time.Duration {
	if c.served == nil {
		return 0
	}
	return c.served.waited
}

// Peer is what one side of a call knows of the other side.
type Peer struct {
	// Plain says that the caller has sent a plain NATS request, or a client is to send one.
	Plain bool
	// Codec is the encoding of the call's messages.
	Codec Codec
	// Compression is how the server may compress responses.
	Compression Compression
	// Reply is, on a server, the subject for the answer, and "" if none is wanted. A client's inbox
	// says nothing about who it is, but NATS lets no client use one that begins with "_R_.": such a
	// request has come through a service import. What its header Nats-Request-Info says is not
	// proved by that; rpcauth checks what can be checked.
	Reply string
	// HeaderSize is, on a server, how many bytes the header of the request's NATS message took as
	// it came, with its line ends. They may be more than [Call.Header] has: nats.go stops at the
	// first blank line. Requests that share a message share its header.
	HeaderSize int
}

// Peer returns what this side knows of the other side of the call.
func (c *Call) Peer() Peer {
	switch {
	case c.served != nil:
		r := &c.served.received
		return Peer{r.plain, r.codec, r.accepts, r.reply, int(r.headSize)}
	case c.client != nil:
		o := c.client.options
		return Peer{Plain: o.plain || c.Kind() == KindOneWay, Codec: o.codec, Compression: o.compression}
	}
	return Peer{}
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
	return c.served.endpoint.service.steps.started
}

// Stopped returns a channel that is closed when a shutdown does not wait for calls any longer. Then
// their contexts end too, with what is derived from them; Stopped is for interceptors that let a
// handler go on when its caller has gone. On a client Stopped returns nil.
func (c *Call) Stopped() <-chan struct{} {
	if c.served == nil {
		return nil
	}
	return c.served.endpoint.service.steps.abandoned
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
func (c *Call) checkSent(m any) error {
	if m != nil && m != c.method.nilRequest && m != c.method.nilResponse {
		return nil
	}
	code := CodeInvalidArgument
	if c.OnServer() { // the caller is not to blame
		code = CodeInternal
	}
	return failf(code, ExecutionMayHaveRun, "%s: Send(nil): there is nothing to send", c.Method())
}
