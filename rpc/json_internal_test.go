package rpc

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// TestUnknownNameFarDown: to find the unknown name in a request that is nested as deeply as
// JSON may be costs about what it costs to read it, and the error does not repeat it.
func TestUnknownNameFarDown(t *testing.T) {
	const depth = 9_900
	name := strings.Repeat("n", 80)
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("tree.proto"), Package: proto.String("test"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Tree"), Field: []*descriptorpb.FieldDescriptorProto{{
			Name: &name, JsonName: &name, Number: proto.Int32(1), TypeName: proto.String(".test.Tree"),
			Type:  descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(),
			Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum(),
		}}}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	body := []byte(strings.Repeat(`{"`+name+`":`, depth) + `{"x":1}` + strings.Repeat("}", depth))
	began := time.Now()
	err = jsonOptions{strict: strictAlways}.unmarshal(body, dynamicpb.NewMessage(file.Messages().Get(0)))
	took := time.Since(began)
	if err == nil || len(err.Error()) > 1000 || !strings.Contains(err.Error(), `...x"; test.Tree has `+name) {
		t.Errorf("error of %d bytes", len(err.Error()))
	}
	if took > 5*time.Second { // it was a quarter of a minute; it is a tenth of a second
		t.Errorf("it took %v", took)
	}
}
