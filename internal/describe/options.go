package describe

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
)

// ServiceOptions returns the natscall options of a service as they stand, or nil if it has none. It
// returns what can be read of options that are not well formed.
func ServiceOptions(sd protoreflect.ServiceDescriptor) *natscallv1.ServiceOptions {
	standard := new(descriptorpb.ServiceOptions)
	reparse(sd.Options(), standard)
	options, _ := proto.GetExtension(standard, natscallv1.E_Service).(*natscallv1.ServiceOptions)
	return options
}

// MethodOptions is to a method what ServiceOptions is to a service.
func MethodOptions(md protoreflect.MethodDescriptor) *natscallv1.MethodOptions {
	return methodOptions(standardMethodOptions(md))
}

func standardMethodOptions(md protoreflect.MethodDescriptor) *descriptorpb.MethodOptions {
	standard := new(descriptorpb.MethodOptions)
	reparse(md.Options(), standard)
	return standard
}

func methodOptions(standard *descriptorpb.MethodOptions) *natscallv1.MethodOptions {
	options, _ := proto.GetExtension(standard, natscallv1.E_Method).(*natscallv1.MethodOptions)
	return options
}

// reparse makes generated types of the options of a descriptor. In a descriptor that was made at
// run time, the options themselves and the natscall ones in them may be dynamic messages, and the
// natscall ones may be unknown fields. Encoded, all of them are the same.
func reparse(options, into proto.Message) {
	data, err := proto.MarshalOptions{AllowPartial: true}.Marshal(options)
	if err != nil {
		return // only a string that is not UTF-8, which no compiler lets through
	}
	// What cannot be read is left out, as the contract of the callers says.
	_ = proto.UnmarshalOptions{AllowPartial: true, Resolver: natscallTypes}.Unmarshal(data, into)
}

// natscallTypes has only our own extensions, so that faults of others do no harm to ours.
var natscallTypes = extensionTypes(natscallv1.E_Service, natscallv1.E_Method)

func extensionTypes(extensions ...protoreflect.ExtensionType) *protoregistry.Types {
	types := new(protoregistry.Types)
	for _, x := range extensions {
		if err := types.RegisterExtension(x); err != nil {
			panic(err) // two of ours with one number
		}
	}
	return types
}
