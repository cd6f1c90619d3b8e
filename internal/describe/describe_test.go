package describe_test

import (
	"context"
	"testing"
	"time"

	"github.com/bufbuild/protocompile"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/internal/describe"
	natscallproto "github.com/natscall/natscall/proto"
)

const source = `syntax = "proto3";
package shop.v2beta1;
import "natscall/v1/options.proto";
import "google/protobuf/empty.proto";

// Plain says nothing
// but this.
//
// And more.
service Plain {
  rpc Get(google.protobuf.Empty) returns (google.protobuf.Empty);
}

// Not this comment.
service Full {
  option (natscall.v1.service) = {
    subject_prefix: "eu.shop"
    micro_name: "full"
    version: "1.2.3"
    description: "All options."
    queue_group: "g"
    no_queue_group: true
    metadata: {key: "a" value: "b"}
    timeout: {seconds: 3}
  };
  rpc Tell(google.protobuf.Empty) returns (google.protobuf.Empty) {
    option idempotency_level = IDEMPOTENT;
    option (natscall.v1.method) = {
      subject: "orders.new"
      timeout: {nanos: 5}
      metadata: {key: "c" value: "d"}
      one_way: true
    };
  }
  rpc Get(google.protobuf.Empty) returns (google.protobuf.Empty);
}
`

var (
	wantPlain = describe.Service{
		Name: "shop.v2beta1.Plain", MicroName: "Plain", Version: "2.0.0-beta1", Description: "Plain says nothing but this.",
	}
	wantFull = describe.Service{
		Name: "shop.v2beta1.Full", MicroName: "full", Version: "1.2.3", Description: "All options.",
		SubjectPrefix: "eu.shop", QueueGroup: "g", NoQueueGroup: true,
		Metadata: map[string]string{"a": "b"}, Timeout: 3 * time.Second,
	}
	wantTell = describe.Method{
		Name: "Tell", Subject: "orders.new", Timeout: 5, Metadata: map[string]string{"c": "d"},
		Idempotency: descriptorpb.MethodOptions_IDEMPOTENT, OneWay: true,
	}
	wantGet = describe.Method{Name: "Get"}
)

// encoded returns the file as a compiler gives it away.
func encoded(t *testing.T) []byte {
	t.Helper()
	compiler := protocompile.Compiler{
		Resolver: protocompile.WithStandardImports(&protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(map[string]string{
			"shop.proto": source, natscallproto.OptionsPath: string(natscallproto.Options),
		})}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	files, err := compiler.Compile(context.Background(), "shop.proto")
	if err != nil {
		t.Fatal(err)
	}
	file := protodesc.ToFileDescriptorProto(files[0])
	data, err := proto.Marshal(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// parse makes descriptors of an encoded file. The resolver decides on the form of its options.
func parse(t *testing.T, data []byte, edit func(*descriptorpb.FileDescriptorProto), resolver *protoregistry.Types) protoreflect.FileDescriptor {
	t.Helper()
	file := new(descriptorpb.FileDescriptorProto)
	if err := (proto.UnmarshalOptions{Resolver: resolver}).Unmarshal(data, file); err != nil {
		t.Fatal(err)
	}
	edit(file)
	desc, err := protodesc.NewFile(file, protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	return desc
}

func asParsed(*descriptorpb.FileDescriptorProto) {}

func extensions(t *testing.T, list ...protoreflect.ExtensionType) *protoregistry.Types {
	t.Helper()
	types := new(protoregistry.Types)
	for _, x := range list {
		if err := types.RegisterExtension(x); err != nil {
			t.Fatal(err)
		}
	}
	return types
}

// TestForms reads the options in each form that they have in a descriptor.
func TestForms(t *testing.T) {
	data := encoded(t)
	dynamic := dynamicOptions(t)
	forms := map[string]*protoregistry.Types{
		"known":   extensions(t, natscallv1.E_Service, natscallv1.E_Method),
		"dynamic": extensions(t, dynamicpb.NewExtensionType(dynamic.ByName("service")), dynamicpb.NewExtensionType(dynamic.ByName("method"))),
		"unknown": new(protoregistry.Types),
	}
	for name, types := range forms {
		t.Run(name, func(t *testing.T) {
			services := parse(t, data, asParsed, types).Services()
			checkFull(t, services.ByName("Full"))
			plain := services.ByName("Plain")
			equal(t, wantPlain, describe.ServiceOf(plain))
			equal(t, wantGet, describe.MethodOf(plain.Methods().Get(0)))
		})
	}
}

// dynamicOptions are the natscall options with a descriptor other than that of the generated types.
func dynamicOptions(t *testing.T) protoreflect.ExtensionDescriptors {
	t.Helper()
	file, err := protodesc.NewFile(protodesc.ToFileDescriptorProto(natscallv1.File_natscall_v1_options_proto), protoregistry.GlobalFiles)
	if err != nil {
		t.Fatal(err)
	}
	return file.Extensions()
}

func checkFull(t *testing.T, full protoreflect.ServiceDescriptor) {
	t.Helper()
	service, tell, get := describe.ServiceOf(full), describe.MethodOf(full.Methods().ByName("Tell")), describe.MethodOf(full.Methods().ByName("Get"))
	equal(t, wantFull, service)
	equal(t, wantTell, tell)
	equal(t, wantGet, get)
	equal(t, "eu.shop.shop.v2beta1.Full", service.Root())
	equal(t, "orders.new", service.Subject(tell))
	equal(t, "eu.shop.shop.v2beta1.Full.Get", service.Subject(get))
}

func equal[T any](t *testing.T, want, got T) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// dynamicService is a service whose options are a dynamic message as a whole.
type dynamicService struct{ protoreflect.ServiceDescriptor }

func (s dynamicService) Options() protoreflect.ProtoMessage {
	data, err := proto.Marshal(s.ServiceDescriptor.Options())
	if err != nil {
		panic(err)
	}
	message := dynamicpb.NewMessage((*descriptorpb.ServiceOptions)(nil).ProtoReflect().Descriptor())
	if err := (proto.UnmarshalOptions{Resolver: new(protoregistry.Types)}).Unmarshal(data, message); err != nil {
		panic(err)
	}
	return message
}

func TestDynamicMessageOfOptions(t *testing.T) {
	services := parse(t, encoded(t), asParsed, nil).Services()
	equal(t, wantFull, describe.ServiceOf(dynamicService{services.ByName("Full")}))
	equal(t, wantPlain, describe.ServiceOf(dynamicService{services.ByName("Plain")}))
}

func TestNoSourceInfo(t *testing.T) {
	file := parse(t, encoded(t), func(f *descriptorpb.FileDescriptorProto) { f.SourceCodeInfo = nil }, nil)
	want := wantPlain
	want.Description = ""
	equal(t, want, describe.ServiceOf(file.Services().ByName("Plain")))
	equal(t, wantFull, describe.ServiceOf(file.Services().ByName("Full")))
}

// TestMalformedOptions has a version that is not UTF-8, which counts as none.
func TestMalformedOptions(t *testing.T) {
	file := parse(t, encoded(t), func(f *descriptorpb.FileDescriptorProto) {
		f.Service[0].Options = new(descriptorpb.ServiceOptions)
		f.Service[0].Options.ProtoReflect().SetUnknown([]byte{
			0xb2, 0xba, 0x1b, 6, // field 56230
			0x12, 1, 'm', // micro_name
			0x1a, 1, 0xff, // version
		})
	}, nil)
	got := describe.ServiceOf(file.Services().Get(0))
	want := wantPlain
	want.MicroName = got.MicroName // either is fine
	equal(t, want, got)
}

// TestNewerOptions keeps options of a later options.proto, so that the plugin can refuse them.
func TestNewerOptions(t *testing.T) {
	unknown := []byte{0xb2, 0xba, 0x1b, 3, 0xf8, 0x7, 1} // field 127 in field 56230
	file := parse(t, encoded(t), func(f *descriptorpb.FileDescriptorProto) {
		f.Service[0].Options = new(descriptorpb.ServiceOptions)
		f.Service[0].Options.ProtoReflect().SetUnknown(unknown)
		f.Service[0].Method[0].Options = new(descriptorpb.MethodOptions)
		f.Service[0].Method[0].Options.ProtoReflect().SetUnknown(unknown)
	}, nil)
	service := file.Services().Get(0)
	for name, options := range map[string]proto.Message{
		"service": describe.ServiceOptions(service), "method": describe.MethodOptions(service.Methods().Get(0)),
	} {
		if got := options.ProtoReflect().GetUnknown(); string(got) != string(unknown[4:]) {
			t.Errorf("%s: got unknown fields % x, want % x", name, got, unknown[4:])
		}
	}
}

func TestNoOptions(t *testing.T) {
	plain := parse(t, encoded(t), asParsed, nil).Services().ByName("Plain")
	if got := describe.ServiceOptions(plain); got != nil {
		t.Errorf("got options %v of a service without", got)
	}
	if got := describe.MethodOptions(plain.Methods().Get(0)); got != nil {
		t.Errorf("got options %v of a method without", got)
	}
}
