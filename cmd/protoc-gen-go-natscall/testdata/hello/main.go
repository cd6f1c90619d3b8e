// hello serves the service of docs/generate.md and calls it once, on the NATS
// server whose URL is its argument.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/natscall/natscall/rpc"

	hellov1 "example.com/hello/gen/hello/v1"
	"example.com/hello/gen/hello/v1/hellov1nats"
)

type greeter struct {
	hellov1nats.UnimplementedHelloServiceServer
}

func (greeter) Greet(_ context.Context, req *hellov1.GreetRequest) (*hellov1.GreetResponse, error) {
	return &hellov1.GreetResponse{Text: "Hello " + req.GetName()}, nil
}

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	nc, err := nats.Connect(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	server := rpc.NewServer(nc)
	if err := hellov1nats.RegisterHelloServiceServer(server, greeter{}); err != nil {
		log.Fatal(err)
	}
	if err := server.Start(ctx); err != nil {
		log.Fatal(err)
	}
	client := rpc.NewClient(nc)
	res, err := hellov1nats.NewHelloServiceClient(client).Greet(ctx, &hellov1.GreetRequest{Name: "Ada"})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(res.GetText())
	if err := server.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
}
