package rpc_test

import (
	"context"
	"fmt"
	"log"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcschema"
)

// The code of docs/schemas.md comes from this file.

// callBySchema calls a method without generated code or .proto files.
func callBySchema(ctx context.Context, client *rpc.Client, in string) error {
	desc := &rpc.ServiceDesc{Name: "order.v1.OrderService"}
	set, err := rpcschema.Fetch(ctx, client, desc)
	if err != nil {
		return err
	}
	files, err := protodesc.NewFiles(set)
	if err != nil {
		return err
	}
	found, err := files.FindDescriptorByName("order.v1.OrderService.GetOrder")
	if err != nil {
		return err
	}
	md := found.(protoreflect.MethodDescriptor)
	method, err := rpc.NewMethod(desc, md, dynamicpb.NewMessageType(md.Input()), dynamicpb.NewMessageType(md.Output()))
	if err != nil {
		return err
	}
	fmt.Print(md.ParentFile().SourceLocations().ByDescriptor(md).LeadingComments)
	req, res := method.NewRequest(), method.NewResponse()
	if err := protojson.Unmarshal([]byte(in), req); err != nil {
		return err
	}
	if err := method.Call(ctx, client, req, res); err != nil {
		return err
	}
	fmt.Println(protojson.MarshalOptions{}.Format(res) != "{}")
	return nil
}

// The schema of a service comes from the service.
func ExampleSchemaMethod() {
	nc, stop := connect()
	defer stop()
	defer serveOrders(nc)()
	client := rpc.NewClient(nc)
	defer client.Close()
	if err := callBySchema(context.Background(), client, `{"orderId": "42"}`); err != nil {
		log.Fatal(err)
	}
	// Output:
	// GetOrder returns an order. It fails with NOT_FOUND where there is none with the id.
	// true
}
