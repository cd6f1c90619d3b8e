package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"reflect"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/natscall/natscall/internal/names"
)

// GeneratedCodeV1 is referred to by generated code, so that code that needs another version of the
// runtime does not compile.
const GeneratedCodeV1 = true

// Kind is the shape of a method.
type Kind uint8

// The shapes of methods. The zero value is KindUnary.
const (
	KindUnary Kind = iota
	KindOneWay
	KindServerStream
	KindClientStream
	KindBidi
)

// String returns the name that discovery shows, as in "server_stream".
func (k Kind) String() string {
	return [...]string{"unary", "one_way", "server_stream", "client_stream", "bidi_stream"}[min(k, KindBidi)]
}

// Idempotency is the promise of a method's idempotency_level option: whether a call that may have
// run may be sent again.
type Idempotency uint8

// The levels of google.protobuf.MethodOptions.IdempotencyLevel.
const (
	IdempotencyUnknown Idempotency = iota
	IdempotencyNoSideEffects
	IdempotencyIdempotent
)

// String returns the name that discovery shows, or "" for unknown.
func (i Idempotency) String() string {
	return [...]string{"", "no_side_effects", "idempotent"}[min(i, IdempotencyIdempotent)]
}

// ServiceDesc describes a Protobuf service. Generated code fills it from the options of
// natscall/v1/options.proto. It must not change once it is in use.
type ServiceDesc struct {
	Name          string            // full name, as in "order.v1.OrderService"
	MicroName     string            // name in `nats micro ls`
	Version       string            // semantic version
	Description   string            // for discovery
	SubjectPrefix string            // before Name in the subjects; may be empty
	QueueGroup    string            // "" means "q"
	NoQueueGroup  bool              // every instance gets every request
	Metadata      map[string]string // for discovery
	// Timeout is the default of the methods that do not stream; 0 means none.
	Timeout time.Duration
	File    protoreflect.FileDescriptor // where the service is defined
	// Comments are those of File and of what it imports, as protoc-gen-go-natscall encodes them; ""
	// means those that the descriptors themselves have.
	Comments string
}

// root is the subject above all of the service's, without the prefix of a client or server.
func (d *ServiceDesc) root() string { return names.Join(d.SubjectPrefix, d.Name) }

// queueGroup is the group in which the instances listen, unless a server sets another one.
func (d *ServiceDesc) queueGroup() string {
	if d.NoQueueGroup && d.QueueGroup == "" {
		return ""
	}
	return cmp.Or(d.QueueGroup, micro.DefaultQueueGroup)
}

// MethodDesc describes a method of a service. Generated code fills it.
type MethodDesc struct {
	Name        string            // as in the .proto file
	Subject     string            // "" means root.Name
	Timeout     time.Duration     // default; 0 means that of the service, and none for streams
	Metadata    map[string]string // for discovery
	Description string            // for discovery: the first line of the method's comment
	Idempotency Idempotency
}

// method is the untyped core of a method: all that the runtime works with. Its messages are
// proto.Messages or *Raws.
type method struct {
	desc        MethodDesc
	service     *ServiceDesc
	kind        Kind
	fullName    string
	subject     string // without the prefix of a client or server
	root        string // likewise
	timeout     time.Duration
	newRequest  func() proto.Message // nil if the types of the messages are not known
	newResponse func() proto.Message
	nilRequest  any // nil pointers of the types, where these are generated ones
	nilResponse any
	// The names of the types, or "" where newRequest and newResponse are to be asked.
	request, response string
}

func newMethod[Req, Res any, PReq message[Req], PRes message[Res]](s *ServiceDesc, d MethodDesc, kind Kind) method {
	m := untypedMethod(s, d, kind)
	m.newRequest = func() proto.Message { return PReq(new(Req)) }
	m.newResponse = func() proto.Message { return PRes(new(Res)) }
	m.nilRequest, m.nilResponse = PReq(nil), PRes(nil)
	return m
}

func untypedMethod(s *ServiceDesc, d MethodDesc, kind Kind) method {
	m := method{desc: d, service: s, kind: kind, fullName: "/" + s.Name + "/" + d.Name, root: s.root(), timeout: d.Timeout}
	if m.timeout == 0 && kind <= KindOneWay { // a stream has no timeout unless its method sets one
		m.timeout = s.Timeout
	}
	if m.subject = d.Subject; m.subject == "" {
		m.subject = names.Join(m.root, d.Name)
	}
	return m
}

// message is satisfied by *T where T is the struct of a generated message.
type message[T any] interface {
	*T
	proto.Message
}

// mayRunTwice reports whether the method's idempotency_level says so.
func (m *method) mayRunTwice() bool { return m.desc.Idempotency != IdempotencyUnknown }

// FullName returns the name that logs, discovery and interceptors use, as in
// "/order.v1.OrderService/PlaceOrder".
func (m *method) FullName() string { return m.fullName }

// Desc returns the description of the method.
func (m *method) Desc() MethodDesc { return m.desc }

// Service returns the description of the method's service.
func (m *method) Service() *ServiceDesc { return m.service }

// Kind returns the shape of the method.
func (m *method) Kind() Kind { return m.kind }

// Subjects returns the subjects of the method for clients and servers with the prefix that is given
// to [WithSubjectPrefix]. It fails if a server could not serve the method because of its subject.
func (m *method) Subjects(prefix string) (Subjects, error) { return newSubjects(m, prefix) }

// NewRequest returns an empty request, of the type that interceptors see, or nil if the type is not
// known ([NewRawMethod]). If the client streams, it is the type of its messages.
func (m *method) NewRequest() proto.Message { return newOrNil(m.newRequest) }

// NewResponse is like NewRequest for the response. That of a one-way method is an emptypb.Empty.
func (m *method) NewResponse() proto.Message { return newOrNil(m.newResponse) }

func newOrNil(newMessage func() proto.Message) proto.Message {
	if newMessage == nil {
		return nil
	}
	return newMessage()
}

// Unimplemented returns the error of a method that a server does not implement.
func (m *method) Unimplemented() error {
	return failf(CodeUnimplemented, ExecutionDidRun, "%s is not implemented", m.FullName())
}

// Descriptor returns the Protobuf descriptor of the method, or nil if it is not known.
func (m *method) Descriptor() protoreflect.MethodDescriptor {
	if m.service.File == nil {
		return nil
	}
	name := protoreflect.FullName(m.service.Name)
	service := m.service.File.Services().ByName(name.Name())
	if service == nil {
		return nil
	}
	return service.Methods().ByName(protoreflect.Name(m.desc.Name))
}

// typed reports whether the types of the messages are known.
func (m *method) typed() bool { return m.newRequest != nil }

// requestName and responseName are the full names of the message types, or "".
func (m *method) requestName() string {
	if m.request != "" {
		return m.request
	}
	return nameOf(m.newRequest)
}

func (m *method) responseName() string {
	if m.response != "" {
		return m.response
	}
	return nameOf(m.newResponse)
}

func nameOf(newMessage func() proto.Message) string {
	if newMessage == nil {
		return ""
	}
	return messageName(newMessage())
}

func messageName(m proto.Message) string { return string(m.ProtoReflect().Descriptor().FullName()) }

// hasResponse reports whether a handler returns a response rather than sending a stream.
func (m *method) hasResponse() bool { return m.kind != KindServerStream && m.kind != KindBidi }

// hasGroup15 reports whether the request has a group-encoded field 15, which starts with the byte
// of an opening brace. A plain request that begins with this byte is then not taken for JSON.
func (m *method) hasGroup15() bool {
	if !m.typed() {
		return false
	}
	f := m.newRequest().ProtoReflect().Descriptor().Fields().ByNumber(15)
	return f != nil && f.Kind() == protoreflect.GroupKind
}

// Handler is a method of a service together with the method of S that serves it. Generated code
// makes it with HandleUnary and its siblings.
type Handler[S any] struct {
	method *method
	invoke func(impl S, ctx context.Context, call *Call) error
}

// UnaryMethod is a method with one request and one response. It is immutable.
type UnaryMethod[Req, Res proto.Message] struct{ method }

// NewUnaryMethod returns a unary method, for generated code.
func NewUnaryMethod[Req, Res any, PReq message[Req], PRes message[Res]](s *ServiceDesc, d MethodDesc) *UnaryMethod[PReq, PRes] {
	return &UnaryMethod[PReq, PRes]{newMethod[Req, Res, PReq, PRes](s, d, KindUnary)}
}

// Call calls the method and waits for its response. The error is an *Error.
func (m *UnaryMethod[Req, Res]) Call(ctx context.Context, c *Client, req Req, opts ...CallOption) (Res, error) {
	res, err := c.invoke(ctx, &m.method, req, nil, opts)
	if err != nil {
		var none Res
		return none, err
	}
	return res.(Res), nil
}

// Gather asks every instance of the service, whatever its queue group is, and yields their answers
// as they come: see [Gathering.All], which sends the request. It never sends it again.
//
// A gathering ends when all instances have answered that are known, unless an option ends it
// before. These are the ones that answer a query, which is sent together with the request, and
// those that have answered this client within the last minute and are still there. An instance
// that is not known, as it is paused since before, is not waited for. If nothing is known of the
// instances, as the client may not ask them or they are older than the query, the gathering goes on
// until its deadline, which is that of a unary call.
//
// The request has to fit into a NATS message; a response need not. The interceptors of the client
// do not run, since their call has one response; those of the servers do. Across accounts the
// export needs the response type stream: otherwise only one answer comes, and one instance is
// known.
func (m *UnaryMethod[Req, Res]) Gather(ctx context.Context, c *Client, req Req, opts ...GatherOption) *Gathering[Res] {
	g := &gathering{client: c, method: &m.method, request: req, given: opts}
	return &Gathering[Res]{g, func(yield func(gatherRow) bool) { g.run(ctx, yield) }}
}

// HandleUnary joins a unary method with the method of S that serves it.
func HandleUnary[S any, Req, Res proto.Message](m *UnaryMethod[Req, Res], f func(S, context.Context, Req) (Res, error)) Handler[S] {
	return Handler[S]{&m.method, func(impl S, ctx context.Context, call *Call) error {
		req, err := call.served.request()
		if err != nil {
			return err
		}
		call.response, err = f(impl, ctx, req.(Req))
		return err
	}}
}

// OneWayMethod is a method without a response: an event. It is immutable.
type OneWayMethod[Req proto.Message] struct{ method }

// NewOneWayMethod returns a one-way method, for generated code.
func NewOneWayMethod[Req any, PReq message[Req]](s *ServiceDesc, d MethodDesc) *OneWayMethod[PReq] {
	return &OneWayMethod[PReq]{newMethod[Req, emptypb.Empty, PReq](s, d, KindOneWay)}
}

// Call publishes the message. It returns when the message is in the connection's buffer
// (nats.Conn.Flush waits until the NATS server has it), and does not learn whether a service took
// it. The error is an *Error.
func (m *OneWayMethod[Req]) Call(ctx context.Context, c *Client, req Req, opts ...CallOption) error {
	_, err := c.invoke(ctx, &m.method, req, nil, opts)
	return err
}

// HandleOneWay joins a one-way method with the method of S that serves it.
func HandleOneWay[S any, Req proto.Message](m *OneWayMethod[Req], f func(S, context.Context, Req) error) Handler[S] {
	return Handler[S]{&m.method, func(impl S, ctx context.Context, call *Call) error {
		req, err := call.served.request()
		if err != nil {
			return err
		}
		return f(impl, ctx, req.(Req))
	}}
}

// isResponse reports whether a plain JSON reply that has the form of JetStream's acknowledgement is
// a response of the method all the same: its type has those fields. A natscall server gives such a
// response a header.
func (m *method) isResponse(reply *nats.Msg) bool {
	return m.typed() && protojson.Unmarshal(reply.Data, m.newResponse()) == nil
}

// checkResponse refuses a message that is not a response of m. With exact it has to be of the
// generated type, otherwise it may also be a *Raw or have another Go type for the same message.
func (m *method) checkResponse(res any, exact bool) error {
	if reflect.TypeOf(res) == reflect.TypeOf(m.nilResponse) && res != m.nilResponse {
		return nil
	}
	switch err := checkMessage(res, m.responseName()); {
	case isNil(res):
		return failf(CodeInternal, ExecutionDidRun, "%s returned no response and no error", m.FullName())
	case exact:
		return failf(CodeInternal, ExecutionDidRun, "%s: response is a %T, not a %T", m.FullName(), res, m.nilResponse)
	case err != nil:
		return failf(CodeInternal, ExecutionDidRun, "%s: response: %v", m.FullName(), err)
	}
	return nil
}

func (m *method) checkRequest(req any) error { return about("the request", req, m.requestName()) }

func (m *method) invalid(err error) error {
	return failf(CodeInvalidArgument, ExecutionNotRun, "%s: %v", m.FullName(), err).because(err)
}

// about puts what before the reason why a message cannot be used as one of a type.
func about(what string, m any, want string) error {
	err := checkMessage(m, want)
	if isNil(m) {
		err = errors.New("it is nil")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// isNil reports whether m is no message: nil, or a nil pointer.
func isNil(m any) bool {
	switch m := m.(type) {
	case nil:
		return true
	case *Raw:
		return m == nil
	case proto.Message:
		return !m.ProtoReflect().IsValid()
	}
	return false
}

// checkMessage returns why a message that is not nil is none of the type want, which is "" if it is
// not known.
func checkMessage(m any, want string) error {
	switch m := m.(type) {
	case *Raw:
		return nil
	case proto.Message:
		if want != "" && want != messageName(m) {
			return fmt.Errorf("it is a %s, not a %s", messageName(m), want)
		}
		return nil
	}
	return notMessage(m)
}

func (d *ServiceDesc) check() error {
	return errors.Join(
		named("micro name", names.CheckMicroName(d.MicroName)),
		named("version", names.CheckVersion(d.Version)),
		named("queue group", names.CheckQueueGroup(cmp.Or(d.QueueGroup, micro.DefaultQueueGroup))),
		named("metadata", names.CheckMetadata(d.Metadata)),
	)
}
