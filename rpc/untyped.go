package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/natscall/natscall/internal/describe"
)

// Method is a method without Go types for its messages, for tools, gateways and adapters that
// learn of services at run time. Its messages are proto.Messages or *[Raw]s, in any mixture: a call
// may send a *Raw and have the response decoded into a message. A Method is immutable. Make it once
// for a method and keep it: a client remembers each one that it has called.
//
// On the wire there is no difference to the methods of generated code, so either side may be of
// either kind, and options, interceptors and errors are the same. [UnaryMethod] and its siblings
// are typed views of the same core.
type Method struct{ method }

// NewServiceDesc describes a service by its Protobuf descriptor and the options of
// natscall/v1/options.proto that it has, as generated code does.
func NewServiceDesc(sd protoreflect.ServiceDescriptor) *ServiceDesc {
	s := describe.ServiceOf(sd)
	return &ServiceDesc{
		Name: s.Name, MicroName: s.MicroName, Version: s.Version, Description: s.Description,
		SubjectPrefix: s.SubjectPrefix, QueueGroup: s.QueueGroup, NoQueueGroup: s.NoQueueGroup,
		Metadata: s.Metadata, Timeout: s.Timeout, File: sd.ParentFile(),
	}
}

// NewMethod returns a method by its Protobuf descriptor. s describes its service, as
// [NewServiceDesc] does. request and response make the messages that interceptors see:
// dynamicpb.NewMessageType(md.Input()), for instance, or the type of a generated message. It fails
// if they are not of the method's types.
func NewMethod(s *ServiceDesc, md protoreflect.MethodDescriptor, request, response protoreflect.MessageType) (*Method, error) {
	for _, check := range []struct {
		name string
		got  protoreflect.MessageType
		want protoreflect.MessageDescriptor
	}{{"request", request, md.Input()}, {"response", response, md.Output()}} {
		if check.got == nil || check.got.Descriptor().FullName() != check.want.FullName() {
			return nil, fmt.Errorf("rpc: method %s: the type of the %s is not %s", md.FullName(), check.name, check.want.FullName())
		}
	}
	if s == nil || s.Name != string(md.Parent().FullName()) {
		return nil, fmt.Errorf("rpc: method %s: the description is of another service", md.FullName())
	}
	d := describe.MethodOf(md)
	kind := KindUnary
	switch {
	case md.IsStreamingClient() && md.IsStreamingServer():
		kind = KindBidi
	case md.IsStreamingClient():
		kind = KindClientStream
	case md.IsStreamingServer():
		kind = KindServerStream
	case d.OneWay:
		kind = KindOneWay
	}
	m := &Method{untypedMethod(s, MethodDesc{
		Name: d.Name, Subject: d.Subject, Timeout: d.Timeout, Metadata: d.Metadata,
		Description: d.Description, Idempotency: idempotencyOf(d.Idempotency),
	}, kind)}
	m.request, m.response = string(md.Input().FullName()), string(md.Output().FullName())
	m.newRequest = func() proto.Message { return request.New().Interface() }
	m.newResponse = func() proto.Message { return response.New().Interface() }
	return m, nil
}

func idempotencyOf(level descriptorpb.MethodOptions_IdempotencyLevel) Idempotency {
	switch level {
	case descriptorpb.MethodOptions_NO_SIDE_EFFECTS:
		return IdempotencyNoSideEffects
	case descriptorpb.MethodOptions_IDEMPOTENT:
		return IdempotencyIdempotent
	}
	return IdempotencyUnknown
}

// NewRawMethod returns a method whose message types are not known, for instance from what discovery
// says of a service. Interceptors then cannot decode its messages. A server takes a plain request
// that names no codec for Protobuf unless it begins with a brace.
func NewRawMethod(s *ServiceDesc, d MethodDesc, kind Kind) *Method {
	return &Method{untypedMethod(s, d, kind)}
}

// Call makes a unary or one-way call. req is a proto.Message or a *[Raw]; the response replaces the
// contents of res, which is one too, and which a one-way call ignores. After an error the contents
// of res are undefined. A *Raw request decides the codec of the call, which options may not change.
// The error is an *Error; CodeInvalidArgument names what of req or res is wrong.
func (m *Method) Call(ctx context.Context, c *Client, req, res any, opts ...CallOption) error {
	var err error
	switch {
	case m.kind > KindOneWay:
		err = fmt.Errorf("it is a %v method: Open opens its stream", m.kind)
	case m.kind == KindOneWay:
		err, res = m.checkRequest(req), nil
	default:
		err = errors.Join(m.checkRequest(req), about("the response", res, m.responseName()))
	}
	if err != nil {
		return m.invalid(err)
	}
	_, err = c.invoke(ctx, &m.method, req, res, withCodecOf(req, c, opts))
	return err
}

// Open opens the stream of a call of a streaming method, and returns when a server has accepted it.
// req is the request if the client does not stream, as in [Method.Call], and must otherwise be nil.
// The stream ends with ctx. The codec of a stream of *Raw messages is that of req or of
// [WithCodec]. The error is an *Error.
func (m *Method) Open(ctx context.Context, c *Client, req any, opts ...CallOption) (*Stream, error) {
	var err error
	switch {
	case m.kind <= KindOneWay:
		err = fmt.Errorf("it is a %v method: Call calls it", m.kind)
	case m.kind == KindServerStream:
		err = m.checkRequest(req)
	case req != nil:
		err = fmt.Errorf("it is a %v method: its requests are sent on the stream", m.kind)
	}
	if err != nil {
		return nil, m.invalid(err)
	}
	s, err := c.invokeStream(ctx, &m.method, req, withCodecOf(req, c, opts))
	if err != nil {
		return nil, err
	}
	return &Stream{view: view{s}, side: &clientSide{stream: s, only: m.kind == KindClientStream}}, nil
}

// Gather is like [UnaryMethod.Gather]. req is a proto.Message or a *[Raw], and newResponse makes
// what each response is decoded into, which is one too.
func (m *Method) Gather(ctx context.Context, c *Client, req any, newResponse func() any, opts ...GatherOption) *Gathering[any] {
	g := &gathering{client: c, method: &m.method, request: req, newResponse: newResponse, given: opts}
	return &Gathering[any]{g, func(yield func(gatherRow) bool) { g.run(ctx, yield) }}
}

// withCodecOf makes the codec of a raw request that of the call.
func withCodecOf(req any, c *Client, opts []CallOption) []CallOption {
	if raw, ok := req.(*Raw); ok && (c == nil || raw.Codec != c.options.codec) {
		return append([]CallOption{WithCodec(raw.Codec)}, opts...)
	}
	return opts
}

// HandleMethod joins a method of any shape with a function that serves it. f receives the request
// or requests from the stream, and sends the response or responses to it; a single response is
// encoded when f has returned. What interceptors change in a request is not seen by f.
func HandleMethod[S any](m *Method, f func(S, context.Context, *Stream) error) Handler[S] {
	return Handler[S]{&m.method, func(impl S, ctx context.Context, call *Call) error {
		c := call.served
		if err := c.enter(); err != nil {
			return err
		}
		side := &serverSide{call: c}
		switch {
		case m.kind == KindServerStream:
			side.to = c.sender(ctx)
		case c.stream != nil:
			side.to = c.stream
		}
		call.response = nil // of an interceptor, or of a run before
		return f(impl, ctx, &Stream{view: view{handlerView{call}}, side: side})
	}}
}

// Stream is one side of a call of [Method]: of a stream on a client, of a call of any shape in a
// handler. It takes and fills proto.Messages and *[Raw]s. One goroutine may send while another
// receives.
type Stream struct {
	view
	side side
}

// side is what differs between the sides of a Stream.
type side interface {
	send(m any) error
	recv(m any) error
}

// Send sends a message, which may be reused when Send returns, except for the single response of a
// handler: that is encoded after the handler and the interceptors have returned, and must not
// change any more. It waits and fails as [Sender.Send] does; on a client io.EOF means that the
// server has ended the stream. A handler of a method with a single response may send one.
func (s *Stream) Send(m any) error { return s.side.send(m) }

// Recv receives the next message into m, whose contents it replaces; if none comes, m stays as it
// is. It waits and fails as [Receiver.Recv] does. Where there is one message, the single request in
// a handler or the response to a client's stream, the next Recv returns io.EOF. The error of an m
// that cannot be filled has CodeInvalidArgument (on a server CodeInternal), and does not end the
// stream.
func (s *Stream) Recv(m any) error { return s.side.recv(m) }

// clearMessage makes a message that is to be filled empty.
func clearMessage(m any) {
	if m, ok := m.(proto.Message); ok {
		proto.Reset(m)
	}
}

// CloseSend is like [BidiStream.CloseSend].
func (s *Stream) CloseSend() { s.stream.CloseSend() }

// Close ends the stream early, like [Receiver.Close].
func (s *Stream) Close() { s.stream.Close() }

// clientSide is a client's side of a stream.
type clientSide struct {
	stream *messageStream
	only   bool // one response comes, unless it has come
}

func (c *clientSide) send(m any) error {
	if c.stream.call.Kind() == KindServerStream {
		return failf(CodeFailedPrecondition, ExecutionMayHaveRun, "%s: the request has been sent", c.stream.call.Method())
	}
	method := c.stream.call.method
	if err := about("the message", m, method.requestName()); err != nil {
		return failf(CodeInvalidArgument, ExecutionMayHaveRun, "%s: Send: %v", method.FullName(), err).because(err)
	}
	return c.stream.SendMessage(m)
}

func (c *clientSide) recv(m any) error {
	method := c.stream.call.method
	if err := about("what to fill", m, method.responseName()); err != nil {
		return failf(CodeInvalidArgument, ExecutionMayHaveRun, "%s: Recv: %v", method.FullName(), err).because(err)
	}
	if c.only {
		c.only = false
		return c.stream.recvOnlyInto(m)
	}
	return c.stream.recvInto(m)
}

// serverSide is the side of a handler, of a call of any shape.
type serverSide struct {
	call *serverCall
	to   messageSender // nil if the call has a single response
	read bool          // the only request has been received
}

func (s *serverSide) send(m any) error {
	call := &s.call.call
	if err := about("the message", m, call.method.responseName()); err != nil {
		return failf(CodeInternal, ExecutionDidRun, "%s: Send: %v", call.Method(), err).because(err)
	}
	switch {
	case call.method.kind == KindOneWay:
		return failf(CodeInternal, ExecutionDidRun, "%s is a one-way method: it has no response", call.Method())
	case s.to != nil && !call.method.hasResponse():
		return s.to.SendMessage(m)
	case call.response != nil:
		return failf(CodeInternal, ExecutionDidRun, "%s: there is one response, and it has been sent", call.Method())
	}
	call.response = m
	return nil
}

func (s *serverSide) recv(m any) error {
	c := s.call
	if err := about("what to fill", m, c.call.method.requestName()); err != nil {
		return failf(CodeInternal, ExecutionDidRun, "%s: Recv: %v", c.call.Method(), err).because(err)
	}
	switch {
	case c.call.streamsIn():
		return c.stream.recvInto(m)
	case s.read:
		return io.EOF
	}
	s.read = true
	if err := c.receiving(); err != nil {
		return err
	}
	if _, err := c.data(); err != nil {
		return err
	}
	clearMessage(m)
	return asNil(c.decodeInto(m))
}

// handlerView is what a handler's Stream has of a messages.Stream, which sends nothing.
type handlerView struct{ call *Call }

func (handlerView) SendMessage(any) error     { return errNoStream }
func (handlerView) RecvMessage(any) error     { return errNoStream }
func (handlerView) RecvOnlyMessage(any) error { return errNoStream }
func (handlerView) CloseSend()                {}
func (handlerView) Close()                    {}

func (m handlerView) Header(context.Context) (map[string][]string, error) {
	return m.call.Header(), nil
}
func (handlerView) Trailer() map[string][]string { return nil }
func (handlerView) Instance() string             { return "" }

var errNoStream = failf(CodeInternal, ExecutionDidRun, "the call has no stream")
