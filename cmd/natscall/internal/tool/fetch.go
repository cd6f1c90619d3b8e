package tool

import (
	"context"

	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/natscall/natscall/rpc"
)

// fetch asks a service for its schema.
var fetch = func(context.Context, *rpc.Client, *rpc.ServiceDesc, ...rpc.CallOption) (*descriptorpb.FileDescriptorSet, error) {
	return nil, rpc.NewError(rpc.CodeUnimplemented, "no schema")
}
