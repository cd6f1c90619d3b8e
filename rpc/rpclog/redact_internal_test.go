package rpclog

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// secretType is a message with a field of each kind, most of them twice: the second is redacted.
func secretType(t *testing.T) protoreflect.MessageDescriptor {
	t.Helper()
	var fields []*descriptorpb.FieldDescriptorProto
	add := func(name string, kind descriptorpb.FieldDescriptorProto_Type, typeName string, repeated, secret bool) {
		label := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL
		if repeated {
			label = descriptorpb.FieldDescriptorProto_LABEL_REPEATED
		}
		field := &descriptorpb.FieldDescriptorProto{
			Name: proto.String(name), Number: proto.Int32(int32(len(fields) + 1)), Type: kind.Enum(), Label: label.Enum(),
			Options: &descriptorpb.FieldOptions{DebugRedact: proto.Bool(secret)},
		}
		if typeName != "" {
			field.TypeName = proto.String(typeName)
		}
		fields = append(fields, field)
	}
	const text, number, message = descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_TYPE_INT32, descriptorpb.FieldDescriptorProto_TYPE_MESSAGE
	add("name", text, "", false, false)
	add("password", text, "", false, true)
	add("count", number, "", false, false)
	add("pin", number, "", false, true)
	add("names", text, "", true, false)
	add("passwords", text, "", true, true)
	add("one", message, ".test.Secret", false, false)
	add("hidden", message, ".test.Secret", false, true)
	add("many", message, ".test.Secret", true, false)
	add("by_name", message, ".test.Secret.ByNameEntry", true, false)
	add("any", message, ".google.protobuf.Any", false, false)
	value := func(name string, n int32, kind descriptorpb.FieldDescriptorProto_Type, typeName string) *descriptorpb.FieldDescriptorProto {
		f := &descriptorpb.FieldDescriptorProto{Name: proto.String(name), Number: proto.Int32(n), Type: kind.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
		if typeName != "" {
			f.TypeName = proto.String(typeName)
		}
		return f
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("secret.proto"), Package: proto.String("test"), Syntax: proto.String("proto3"), Dependency: []string{"google/protobuf/any.proto"},
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Secret"), Field: fields, NestedType: []*descriptorpb.DescriptorProto{{
			Name: proto.String("ByNameEntry"), Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)},
			Field: []*descriptorpb.FieldDescriptorProto{value("key", 1, text, ""), value("value", 2, message, ".test.Secret")},
		}}}},
	}, protoFiles{})
	if err != nil {
		t.Fatal(err)
	}
	return file.Messages().Get(0)
}

// protoFiles has the one file that the test's own imports.
type protoFiles struct{}

func (protoFiles) FindFileByPath(string) (protoreflect.FileDescriptor, error) {
	return anypb.File_google_protobuf_any_proto, nil
}

func (protoFiles) FindDescriptorByName(protoreflect.FullName) (protoreflect.Descriptor, error) {
	return (*anypb.Any)(nil).ProtoReflect().Descriptor(), nil
}

// TestRedact: nothing that is redacted is seen, however deep it is.
func TestRedact(t *testing.T) {
	const inner = `{"name": "n", "password": "SECRET", "pin": 1234}`
	m := dynamicpb.NewMessage(secretType(t))
	if err := protojson.Unmarshal([]byte(`{
		"name": "n", "password": "SECRET", "count": 1, "pin": 1234, "names": ["a"], "passwords": ["SECRET"],
		"one": `+inner+`, "hidden": `+inner+`, "many": [`+inner+`, `+inner+`], "byName": {"k": `+inner+`}
	}`), m); err != nil {
		t.Fatal(err)
	}
	m.SetUnknown([]byte("\xfa\x07\x06SECRET"))
	before := proto.Clone(m)
	l := &logger{options: options{messages: 1 << 20}}
	got, ok := l.text(m).(json.RawMessage)
	const want = `{"name":"n","password":"[redacted]","count":1,"names":["a"],"one":{"name":"n","password":"[redacted]"},` +
		`"many":[{"name":"n","password":"[redacted]"},{"name":"n","password":"[redacted]"}],"byName":{"k":{"name":"n","password":"[redacted]"}}}`
	if diff := cmp.Diff(want, string(got)); !ok || diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if !proto.Equal(before, m) {
		t.Error("the message itself has changed")
	}
}

// TestRedactAny: what is packed is redacted too, and left out if it cannot be read.
func TestRedactAny(t *testing.T) {
	l := &logger{options: options{messages: 1 << 20, redact: func(f protoreflect.FieldDescriptor) bool {
		return f.FullName() == "google.protobuf.StringValue.value"
	}}}
	packed, err := anypb.New(wrapperspb.String("SECRET"))
	if err != nil {
		t.Fatal(err)
	}
	for want, m := range map[string]proto.Message{
		`{"@type":"type.googleapis.com/google.protobuf.StringValue","value":"[redacted]"}`: packed,
		`{}`:    &anypb.Any{TypeUrl: "type.googleapis.com/test.Unknown", Value: []byte("SECRET")},
		`"x"`:   structpb.NewStringValue("x"),
		`["x"]`: &structpb.ListValue{Values: []*structpb.Value{structpb.NewStringValue("x")}},
	} {
		if got, _ := l.text(m).(json.RawMessage); string(got) != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	if got := l.text(wrapperspb.Bytes(nil)); string(got.(json.RawMessage)) != `""` {
		t.Errorf("%s", got)
	}
	if got := l.text(structpb.NewNumberValue(0)).(json.RawMessage); string(got) != "0" {
		t.Errorf("%s", got)
	}
	if got, ok := l.text(&structpb.Value{}).(string); !ok { // has no JSON
		t.Errorf("%s", got)
	}
}
