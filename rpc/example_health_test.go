package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"

	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpchealth"
)

// The code of docs/health.md comes from this file.

// database stands for what a service needs.
type database struct{}

func (database) PingContext(context.Context) error { return nil }

// An instance says that it cannot do its work. It is the only one, so it stays in its queue group.
func ExampleServer_SetHealth() {
	nc, stop := connect()
	defer stop()
	ctx := context.Background()
	var db database
	server := rpc.NewServer(nc, rpc.WithHealthCheck(func(ctx context.Context) error {
		return db.PingContext(ctx) // ctx ends after a second
	}))
	if err := orderv1nats.RegisterOrderServiceServer(server, orderv1nats.UnimplementedOrderServiceServer{}); err != nil {
		log.Fatal(err)
	}
	http.Handle("/", rpchealth.Handler(server))
	if err := server.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer server.Shutdown(ctx)
	show := func() {
		h := server.Health()[0]
		fmt.Println(h.Serving, h.Reason, h.TakesCalls)
	}
	err := server.SetHealth(orderv1nats.OrderServiceName, errors.New("the disk is full"))
	if err != nil {
		log.Fatal(err)
	}
	show()
	err = server.SetHealth(orderv1nats.OrderServiceName, nil) // healthy again
	if err != nil {
		log.Fatal(err)
	}
	show()
	// Output:
	// false the disk is full true
	// true  true
}
