package rpc_test

import (
	"context"
	"fmt"
	"log"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/rpc"
)

// The code of docs/untyped.md comes from this file.

// product is a server of generated code.
type product struct {
	inventoryv1nats.UnimplementedInventoryServiceServer
}

func (product) GetStock(_ context.Context, req *inventoryv1.GetStockRequest) (*inventoryv1.GetStockResponse, error) {
	return &inventoryv1.GetStockResponse{Stock: &inventoryv1.Stock{ProductId: req.GetProductId()}}, nil
}

// A tool that has read the .proto file at run time calls a method with JSON.
func ExampleMethod_dynamic() {
	nc, stop := connect()
	defer stop()
	srv := rpc.NewServer(nc)
	if err := inventoryv1nats.RegisterInventoryServiceServer(srv, product{}); err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	if err := srv.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer srv.Shutdown(ctx)
	client := rpc.NewClient(nc)
	defer client.Close()
	// A tool gets it from protodesc.NewFiles.
	sd := inventoryv1.File_inventory_v1_inventory_proto.Services().Get(0)

	callJSON := func(sd protoreflect.ServiceDescriptor, name protoreflect.Name, in string) (string, error) {
		md := sd.Methods().ByName(name)
		m, err := rpc.NewMethod(rpc.NewServiceDesc(sd), md,
			dynamicpb.NewMessageType(md.Input()), dynamicpb.NewMessageType(md.Output()))
		if err != nil {
			return "", err
		}
		req, res := dynamicpb.NewMessage(md.Input()), dynamicpb.NewMessage(md.Output())
		if err := protojson.Unmarshal([]byte(in), req); err != nil {
			return "", err
		}
		if err := m.Call(ctx, client, req, res); err != nil {
			return "", err
		}
		out, err := protojson.Marshal(res)
		return string(out), err
	}
	fmt.Println(callJSON(sd, "GetStock", `{"productId": "apple"}`))
	// Output:
	// {"stock":{"productId":"apple"}} <nil>
}

// A gateway passes on encoded messages whose types it does not know.
func ExampleMethod_raw() {
	nc, stop := connect()
	defer stop()
	defer serveStreams(nc)()
	client := rpc.NewClient(nc)
	defer client.Close()
	ctx := context.Background()
	request, err := proto.Marshal(&inventoryv1.WatchStockRequest{ProductIds: []string{"apple"}})
	if err != nil {
		log.Fatal(err)
	}

	desc := &rpc.ServiceDesc{Name: "inventory.v1.InventoryService"} // from discovery, for instance
	watch := rpc.NewRawMethod(desc, rpc.MethodDesc{Name: "WatchStock"}, rpc.KindServerStream)
	stream, err := watch.Open(ctx, client, &rpc.Raw{Codec: rpc.CodecProto, Data: request})
	if err != nil {
		log.Fatal(err)
	}
	defer stream.Close()
	var message rpc.Raw
	if err := stream.Recv(&message); err != nil {
		log.Fatal(err)
	}
	var res inventoryv1.WatchStockResponse
	if err := message.Unmarshal(&res); err != nil { // only to print it
		log.Fatal(err)
	}
	fmt.Println(res.GetStock().GetProductId(), res.GetStock().GetAvailable())
	// Output:
	// apple 3
}

// A server decodes requests into what it likes.
func ExampleHandleMethod() {
	nc, stop := connect()
	defer stop()
	ctx := context.Background()

	desc := &rpc.ServiceDesc{Name: "echo.v1.EchoService", MicroName: "EchoService", Version: "1.0.0"}
	echo := rpc.NewRawMethod(desc, rpc.MethodDesc{Name: "Echo"}, rpc.KindUnary)
	srv := rpc.NewServer(nc)
	err := rpc.Register(srv, desc, "hi ", nil, rpc.HandleMethod(echo, func(greeting string, _ context.Context, s *rpc.Stream) error {
		var req rpc.Raw
		if err := s.Recv(&req); err != nil {
			return err
		}
		return s.Send(&rpc.Raw{Codec: req.Codec, Data: append([]byte(greeting), req.Data...)})
	}))
	if err != nil {
		log.Fatal(err)
	}
	if err := srv.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer srv.Shutdown(ctx)

	m, err := nc.RequestWithContext(ctx, "echo.v1.EchoService.Echo", []byte("there"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(m.Data))
	// Output:
	// hi there
}
