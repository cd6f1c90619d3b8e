package rpc

import (
	"sync"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// retryInfo is the type of the detail with which a server says when a caller may try again. Its
// field 1, retry_delay, is a Duration. The type is not linked here, as its module is large.
const (
	retryInfo      = "google.rpc.RetryInfo"
	retryInfoURL   = "type.googleapis.com/" + retryInfo
	retryInfoDelay = 1
)

// newRetryInfo returns the detail.
func newRetryInfo(delay time.Duration) *anypb.Any {
	value, _ := proto.Marshal(durationpb.New(delay)) // of two integers: cannot fail
	body := protowire.AppendTag(nil, retryInfoDelay, protowire.BytesType)
	return &anypb.Any{TypeUrl: retryInfoURL, Value: protowire.AppendBytes(body, value)}
}

// retryDelay returns the delay of a google.rpc.RetryInfo among the details of an error. ok is false
// if there is no such detail.
func retryDelay(e *Error) (delay time.Duration, ok bool) {
	for _, d := range e.details {
		if string(d.MessageName()) != retryInfo {
			continue
		}
		var delay durationpb.Duration
		if field, _, n := protowire.ConsumeTag(d.GetValue()); n > 0 && field == retryInfoDelay {
			value, _ := protowire.ConsumeBytes(d.GetValue()[n:])
			_ = proto.Unmarshal(value, &delay) // a malformed one asks for no delay
		}
		return delay.AsDuration(), true
	}
	return 0, false
}

// jsonTypes finds the types of messages in an Any that are written or read as JSON: those that are
// linked, and RetryInfo.
type jsonTypes struct{ *protoregistry.Types }

func (t jsonTypes) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	found, err := t.Types.FindMessageByURL(url)
	if err != nil && url == retryInfoURL {
		return retryInfoType()
	}
	return found, err
}

// retryInfoType makes the type, which is not registered, as a program may link the real one.
var retryInfoType = sync.OnceValues(func() (protoreflect.MessageType, error) {
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("google/rpc/error_details.proto"), Package: proto.String("google.rpc"), Syntax: proto.String("proto3"),
		Dependency: []string{"google/protobuf/duration.proto"},
		MessageType: []*descriptorpb.DescriptorProto{{
			Name: proto.String("RetryInfo"),
			Field: []*descriptorpb.FieldDescriptorProto{{
				Name: proto.String("retry_delay"), Number: proto.Int32(retryInfoDelay),
				Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), TypeName: proto.String(".google.protobuf.Duration"),
				Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
			}},
		}},
	}, protoregistry.GlobalFiles)
	if err != nil {
		return nil, err
	}
	return dynamicpb.NewMessageType(file.Messages().Get(0)), nil
})
