package rpcvalidate_test

import (
	"context"
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcvalidate"
)

// cel returns a rule in CEL.
func cel(expression string) *validate.Rule {
	return validate.Rule_builder{Id: proto.String("a.rule"), Expression: proto.String(expression)}.Build()
}

// badRules are rules that do not compile, of a.v1.Request or, where inner is set, of a.v1.Inner,
// with what Register says.
var badRules = []struct {
	name    string
	message *validate.MessageRules
	field   *validate.FieldRules // of the field "text"
	inner   bool
	want    string
}{
	{"an unknown field", validate.MessageRules_builder{Cel: []*validate.Rule{cel("this.size > 1")}}.Build(), nil, false, "a.v1.Request: compilation error"},
	{"no boolean", validate.MessageRules_builder{Cel: []*validate.Rule{cel("1 + 1")}}.Build(), nil, false, "a.v1.Request: compilation error"},
	{"a oneof of an unknown field", validate.MessageRules_builder{Oneof: []*validate.MessageOneofRule{
		validate.MessageOneofRule_builder{Fields: []string{"size"}}.Build(),
	}}.Build(), nil, false, "a.v1.Request: compilation error"},
	{"a syntax error", nil, validate.FieldRules_builder{Cel: []*validate.Rule{cel("this ==")}}.Build(), false, "a.v1.Request.text: compilation error"},
	{"rules of another type", nil, validate.FieldRules_builder{Int32: validate.Int32Rules_builder{Gt: proto.Int32(1)}.Build()}.Build(), false, "a.v1.Request.text: compilation error"},
	{"a pattern", nil, validate.FieldRules_builder{String: validate.StringRules_builder{Pattern: proto.String("(")}.Build()}.Build(), false, "a.v1.Request.text: "},
	{"a message in a message", validate.MessageRules_builder{Cel: []*validate.Rule{cel("nothing")}}.Build(), nil, true, "a.v1.Inner: compilation error"},
	{"a field in a message", nil, validate.FieldRules_builder{Cel: []*validate.Rule{cel("this > 1")}}.Build(), true, "a.v1.Inner.text: compilation error"},
}

// TestBadRules: Register fails, and says which rules are wrong.
func TestBadRules(t *testing.T) {
	for _, test := range badRules {
		for _, how := range []string{"message", "list", "map"} {
			t.Run(test.name+" in a "+how, func(t *testing.T) {
				request, inner := newType("Request"), newType("Inner")
				target := request
				if test.inner {
					target = inner
				}
				rule(target, test.message, test.field)
				contain(request, how, nil)
				err := register(t, newValidation(t, nil), fileOf(t, request, inner))
				if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "/a.v1.A/Do") {
					t.Errorf("Register: %v\nwant %q", err, test.want)
				}
			})
		}
	}
}

// TestAllBadRules: Register names all rules that are wrong.
func TestAllBadRules(t *testing.T) {
	request, inner := newType("Request"), newType("Inner")
	rule(request, validate.MessageRules_builder{Cel: []*validate.Rule{cel("this.size > 1")}}.Build(), validate.FieldRules_builder{Cel: []*validate.Rule{cel("this ==")}}.Build())
	rule(inner, nil, validate.FieldRules_builder{Cel: []*validate.Rule{cel("this > 1")}}.Build())
	contain(request, "message", nil)
	err := register(t, newValidation(t, nil), fileOf(t, request, inner))
	for _, part := range []string{"the rules of a.v1.Request: ", "the rules of a.v1.Request.text: ", "the rules of a.v1.Inner.text: "} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("Register: %v\nwant %q", err, part)
		}
	}
}

// TestRulesThatDoNotMatter: rules that are never used may be wrong, and those of responses are used
// if responses are checked.
func TestRulesThatDoNotMatter(t *testing.T) {
	bad := validate.MessageRules_builder{Cel: []*validate.Rule{cel("nothing")}}.Build()
	request, inner := newType("Request"), newType("Inner")
	rule(inner, bad, nil)
	contain(request, "message", validate.FieldRules_builder{Ignore: validate.Ignore_IGNORE_ALWAYS.Enum()}.Build())
	must(t, register(t, newValidation(t, nil), fileOf(t, request, inner)))

	response := newType("Response")
	rule(response, bad, nil)
	file := fileOf(t, newType("Request"), response)
	must(t, register(t, newValidation(t, nil), file))
	if err := register(t, newValidation(t, nil, rpcvalidate.WithResponses()), file); err == nil || !strings.Contains(err.Error(), "the rules of a.v1.Response: ") {
		t.Errorf("Register: %v", err)
	}
	leaveOut := rpcvalidate.WithFilter(func(string) bool { return false })
	must(t, register(t, newValidation(t, nil, rpcvalidate.WithResponses(), leaveOut), file))

	// They also do not fail as long as the message is never empty.
	divides := newType("Request")
	rule(divides, validate.MessageRules_builder{Cel: []*validate.Rule{cel("1 / size(this.text) == 1")}}.Build(), nil)
	must(t, register(t, newValidation(t, nil), fileOf(t, divides)))
}

// TestClientBadRules: a client finds bad rules when it makes a call.
func TestClientBadRules(t *testing.T) {
	request := newType("Request")
	rule(request, nil, validate.FieldRules_builder{Cel: []*validate.Rule{cel("this ==")}}.Build())
	m := methodOf(t, fileOf(t, request))
	c := dial(t, connect(t), newValidation(t, nil).Client())
	err := m.Call(testContext(t), c, m.NewRequest(), m.NewResponse())
	if e := wantCode(t, err, rpc.CodeInternal, rpc.ExecutionNotRun); !strings.Contains(e.Message(), "the rules of a.v1.Request fail: compilation error") {
		t.Errorf("the call: %v", e)
	}
}

// TestRawMethods: a method whose types are not known cannot be checked, which Register and calls
// say.
func TestRawMethods(t *testing.T) {
	nc := connect(t)
	desc := &rpc.ServiceDesc{Name: "a.v1.A", MicroName: "A", Version: "1.0.0"}
	do := rpc.NewRawMethod(desc, rpc.MethodDesc{Name: "Do"}, rpc.KindUnary)
	handler := rpc.HandleMethod(do, func(_ int, _ context.Context, s *rpc.Stream) error { return s.Send(&rpc.Raw{Codec: rpc.CodecProto}) })
	srv := rpc.NewServer(nc)
	err := rpc.Register(srv, desc, 0, []rpc.ServiceOption{newValidation(t, nil).Server()}, handler)
	if err == nil || !strings.Contains(err.Error(), "types of its messages are not known") {
		t.Errorf("Register: %v", err)
	}
	leaveOut := newValidation(t, nil, rpcvalidate.WithFilter(func(string) bool { return false }))
	must(t, rpc.Register(srv, desc, 0, []rpc.ServiceOption{leaveOut.Server()}, handler))
	run(t, srv)
	var res rpc.Raw
	req := &rpc.Raw{Codec: rpc.CodecProto}
	must(t, do.Call(testContext(t), dial(t, nc, leaveOut.Client()), req, &res))
	wantCode(t, do.Call(testContext(t), dial(t, nc, newValidation(t, nil).Client()), req, &res), rpc.CodeUnimplemented, rpc.ExecutionNotRun)
}

// TestDynamicMessages: methods without Go types are checked too, whether their handler takes
// messages or bytes.
func TestDynamicMessages(t *testing.T) {
	nc := connect(t)
	request := newType("Request")
	rule(request, nil, validate.FieldRules_builder{String: validate.StringRules_builder{MinLen: proto.Uint64(3)}.Build()}.Build())
	file := fileOf(t, request)
	for name, recv := range map[string]func(*rpc.Method) any{
		"messages": func(m *rpc.Method) any { return m.NewRequest() },
		"bytes":    func(*rpc.Method) any { return new(rpc.Raw) },
	} {
		t.Run(name, func(t *testing.T) {
			m, ran := methodOf(t, file), 0
			prefix := rpc.WithSubjectPrefix(name)
			srv := rpc.NewServer(nc, newValidation(t, nil).Server(), prefix)
			must(t, rpc.Register(srv, m.Service(), 0, nil, rpc.HandleMethod(m, func(_ int, _ context.Context, s *rpc.Stream) error {
				if err := s.Recv(recv(m)); err != nil {
					return err
				}
				ran++
				return s.Send(m.NewResponse())
			})))
			run(t, srv)
			c, checked := dial(t, nc, prefix), dial(t, nc, prefix, newValidation(t, nil).Client())
			req := m.NewRequest()
			text := req.ProtoReflect().Descriptor().Fields().ByName("text")
			for _, value := range []string{"no", "yes"} {
				req.ProtoReflect().Set(text, protoreflect.ValueOfString(value))
				data, err := proto.Marshal(req)
				must(t, err)
				raw := &rpc.Raw{Codec: rpc.CodecProto, Data: data}
				for _, call := range []func() error{
					func() error { return m.Call(testContext(t), c, req, m.NewResponse()) },
					func() error { return m.Call(testContext(t), c, raw, new(rpc.Raw)) },
					func() error { return m.Call(testContext(t), checked, req, m.NewResponse()) },
					func() error { return m.Call(testContext(t), checked, raw, new(rpc.Raw)) },
				} {
					if err := call(); value == "yes" {
						must(t, err)
					} else {
						wantInvalid(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun, "text")
					}
				}
			}
			if ran != 4 {
				t.Errorf("the handler ran %d times", ran)
			}
		})
	}
}

// TestRawResponses: encoded responses are checked, and one that does not decode is refused.
func TestRawResponses(t *testing.T) {
	nc := connect(t)
	request, response := newType("Request"), newType("Response")
	rule(response, nil, validate.FieldRules_builder{String: validate.StringRules_builder{MinLen: proto.Uint64(3)}.Build()}.Build())
	m := methodOf(t, fileOf(t, request, response))
	for name, test := range map[string]struct {
		data []byte // of the response
		code rpc.Code
	}{
		"good":       {[]byte("\x0a\x03yes"), rpc.CodeOK},
		"bad":        {[]byte("\x0a\x02no"), rpc.CodeInternal},
		"no message": {[]byte{0xff}, rpc.CodeInternal},
	} {
		t.Run(name, func(t *testing.T) {
			prefix := rpc.WithSubjectPrefix(strings.ReplaceAll(name, " ", "-"))
			checked := newValidation(t, &logs{}, rpcvalidate.WithResponses())
			for i, validation := range []rpc.ServiceOption{checked.Server(), rpc.WithInterceptors()} {
				srv := rpc.NewServer(nc, prefix)
				must(t, rpc.Register(srv, m.Service(), 0, []rpc.ServiceOption{validation}, rpc.HandleMethod(m, func(_ int, _ context.Context, s *rpc.Stream) error {
					return s.Send(&rpc.Raw{Codec: rpc.CodecProto, Data: test.data})
				})))
				must(t, srv.Start(testContext(t)))
				opts := []rpc.ClientOption{prefix}
				if i == 1 { // the client is the one that checks
					opts = append(opts, checked.Client())
				}
				err := m.Call(testContext(t), dial(t, nc, opts...), &rpc.Raw{Codec: rpc.CodecProto}, new(rpc.Raw))
				if rpc.CodeOf(err) != test.code {
					t.Errorf("checked by %d: %v", i, err)
				}
				must(t, srv.Shutdown(testContext(t)))
			}
		})
	}
}

// newType returns a message with one field, "text".
func newType(name string) *descriptorpb.DescriptorProto {
	return &descriptorpb.DescriptorProto{Name: proto.String(name), Field: []*descriptorpb.FieldDescriptorProto{{
		Name: proto.String("text"), Number: proto.Int32(1), JsonName: proto.String("text"),
		Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
	}}}
}

// rule gives a message and its field rules, where they are not nil.
func rule(m *descriptorpb.DescriptorProto, message *validate.MessageRules, field *validate.FieldRules) {
	if message != nil {
		m.Options = &descriptorpb.MessageOptions{}
		proto.SetExtension(m.Options, validate.E_Message, message)
	}
	if field != nil {
		m.Field[0].Options = &descriptorpb.FieldOptions{}
		proto.SetExtension(m.Field[0].Options, validate.E_Field, field)
	}
}

// contain gives m a field that has Inner, as a message, in a list or in a map.
func contain(m *descriptorpb.DescriptorProto, how string, rules *validate.FieldRules) {
	inner := &descriptorpb.FieldDescriptorProto{
		Name: proto.String("inner"), Number: proto.Int32(2), JsonName: proto.String("inner"), TypeName: proto.String(".a.v1.Inner"),
		Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
	}
	if rules != nil {
		inner.Options = &descriptorpb.FieldOptions{}
		proto.SetExtension(inner.Options, validate.E_Field, rules)
	}
	if how == "list" {
		inner.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
	}
	if how == "map" {
		value := proto.CloneOf(inner)
		value.Name, value.JsonName = proto.String("value"), proto.String("value")
		key := newType("").Field[0]
		key.Name, key.JsonName = proto.String("key"), proto.String("key")
		m.NestedType = []*descriptorpb.DescriptorProto{{
			Name: proto.String("InnerEntry"), Field: []*descriptorpb.FieldDescriptorProto{key, value},
			Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)},
		}}
		inner.TypeName = proto.String(".a.v1." + m.GetName() + ".InnerEntry")
		inner.Label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()
	}
	m.Field = append(m.Field, inner)
}

// fileOf returns a file as it comes over the wire, with the service a.v1.A, whose method Do takes
// the first type and returns the last one.
func fileOf(t *testing.T, types ...*descriptorpb.DescriptorProto) protoreflect.FileDescriptor {
	t.Helper()
	name := func(m *descriptorpb.DescriptorProto) *string { return proto.String(".a.v1." + m.GetName()) }
	encoded, err := proto.Marshal(&descriptorpb.FileDescriptorProto{
		Name: proto.String("a.proto"), Package: proto.String("a.v1"), Syntax: proto.String("proto3"), MessageType: types,
		Dependency: []string{"buf/validate/validate.proto"},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: proto.String("A"), Method: []*descriptorpb.MethodDescriptorProto{{
			Name: proto.String("Do"), InputType: name(types[0]), OutputType: name(types[len(types)-1]),
		}}}},
	})
	must(t, err)
	decoded := &descriptorpb.FileDescriptorProto{}
	must(t, proto.Unmarshal(encoded, decoded))
	file, err := protodesc.NewFile(decoded, protoregistry.GlobalFiles)
	must(t, err)
	return file
}

// methodOf returns the method of the file.
func methodOf(t *testing.T, file protoreflect.FileDescriptor) *rpc.Method {
	t.Helper()
	service := file.Services().Get(0)
	md := service.Methods().Get(0)
	m, err := rpc.NewMethod(rpc.NewServiceDesc(service), md, dynamicpb.NewMessageType(md.Input()), dynamicpb.NewMessageType(md.Output()))
	must(t, err)
	return m
}

// register registers the service of the file with a server of its own.
func register(t *testing.T, v *rpcvalidate.Validation, file protoreflect.FileDescriptor) error {
	t.Helper()
	m := methodOf(t, file)
	return rpc.Register(rpc.NewServer(connect(t)), m.Service(), 0, []rpc.ServiceOption{v.Server()},
		rpc.HandleMethod(m, func(int, context.Context, *rpc.Stream) error { return nil }))
}
