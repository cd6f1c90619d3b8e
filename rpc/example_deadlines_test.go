package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
)

// The code of docs/deadlines.md comes from this file.

var errTenantGone = errors.New("the tenant was removed")

// backend asks the order service for what its own callers want.
type backend struct {
	orderv1nats.UnimplementedOrderServiceServer
	orders orderv1nats.OrderServiceClient
	ended  chan error // of handlers, for those who look
}

func (b backend) GetOrder(ctx context.Context, req *orderv1.GetOrderRequest) (*orderv1.GetOrderResponse, error) {
	defer b.note(ctx)
	return b.orders.GetOrder(ctx, req) // which has what is left of the caller's time
}

// note notes how the context of a handler has ended.
func (b backend) note(ctx context.Context) {
	<-ctx.Done()
	b.ended <- context.Cause(ctx)
}

// serveBackend serves a backend under the prefix "front", and what it asks.
func serveBackend() (client *rpc.Client, ended <-chan error, stop func()) {
	nc, disconnect := connect()
	stopOrders := serveOrders(nc)
	inner := rpc.NewClient(nc)
	b := backend{orders: orderv1nats.NewOrderServiceClient(inner), ended: make(chan error, 1)}
	srv := rpc.NewServer(nc, rpc.WithSubjectPrefix("front"))
	if err := orderv1nats.RegisterOrderServiceServer(srv, b); err != nil {
		log.Fatal(err)
	}
	if err := srv.Start(context.Background()); err != nil {
		log.Fatal(err)
	}
	client = rpc.NewClient(nc, rpc.WithSubjectPrefix("front"))
	return client, b.ended, func() {
		_ = client.Close()
		_ = srv.Shutdown(context.Background())
		_ = inner.Close()
		stopOrders()
		disconnect()
	}
}

func ExampleWithTimeout() {
	client, ended, stop := serveBackend()
	defer stop()
	orders := orderv1nats.NewOrderServiceClient(client)
	ctx := context.Background()

	_, err := orders.GetOrder(ctx, &orderv1.GetOrderRequest{OrderId: "slow"}, rpc.WithTimeout(100*time.Millisecond))
	fmt.Println(rpc.CodeOf(err), errors.Is(err, context.DeadlineExceeded))
	fmt.Println("the handler:", errors.Is(<-ended, context.DeadlineExceeded))
	// Output:
	// deadline_exceeded true
	// the handler: true
}

func ExampleError_Unwrap() {
	client, ended, stop := serveBackend()
	defer stop()
	orders := orderv1nats.NewOrderServiceClient(client)

	ctx, cancel := context.WithCancelCause(context.Background())
	time.AfterFunc(50*time.Millisecond, func() { cancel(errTenantGone) })
	_, err := orders.GetOrder(ctx, &orderv1.GetOrderRequest{OrderId: "slow"})
	fmt.Println(rpc.CodeOf(err), errors.Is(err, errTenantGone))
	fmt.Println("the handler:", rpc.CodeOf(<-ended))
	// Output:
	// canceled true
	// the handler: canceled
}
