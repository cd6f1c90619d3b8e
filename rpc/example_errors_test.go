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

// The code of docs/errors.md comes from this file.

var (
	errNoRow  = errors.New("no rows")
	errLocked = errors.New("the row is locked")
)

// ledger is an order service with a database.
type ledger struct {
	orderv1nats.UnimplementedOrderServiceServer
	find func(ctx context.Context, id string) (*orderv1.Order, error)
}

func (l ledger) GetOrder(ctx context.Context, req *orderv1.GetOrderRequest) (*orderv1.GetOrderResponse, error) {
	id := req.GetOrderId()
	if id == "" {
		return nil, rpc.NewError(rpc.CodeInvalidArgument, "the order id is empty")
	}
	order, err := l.find(ctx, id)
	switch {
	case errors.Is(err, errNoRow):
		return nil, rpc.Errorf(rpc.CodeNotFound, "there is no order %q", id)
	case errors.Is(err, errLocked):
		return nil, rpc.RetryAfter(rpc.Errorf(rpc.CodeAborted, "order %q: %w", id, err), time.Second)
	case err != nil:
		return nil, err // CodeUnknown; CodeCanceled or CodeDeadlineExceeded if it is ctx's
	}
	return &orderv1.GetOrderResponse{Order: order}, nil
}

func (ledger) PlaceOrder(_ context.Context, req *orderv1.PlaceOrderRequest) (*orderv1.PlaceOrderResponse, error) {
	previous := &orderv1.Order{OrderId: "41"}
	return nil, rpc.NewError(rpc.CodeAlreadyExists, "the request was placed before, as order 41", previous)
}

// serveLedger serves an order service whose database has one order, a locked one and a slow one.
func serveLedger() (orders orderv1nats.OrderServiceClient, stop func()) {
	nc, disconnect := connect()
	find := func(_ context.Context, id string) (*orderv1.Order, error) {
		switch id {
		case "42":
			return &orderv1.Order{OrderId: id}, nil
		case "locked":
			return nil, errLocked
		case "slow":
			return nil, fmt.Errorf("query: %w", context.DeadlineExceeded)
		case "broken":
			return nil, errors.New("sql: db-7.internal refuses the connection")
		}
		return nil, errNoRow
	}
	srv := rpc.NewServer(nc)
	if err := orderv1nats.RegisterOrderServiceServer(srv, ledger{find: find}); err != nil {
		log.Fatal(err)
	}
	if err := srv.Start(context.Background()); err != nil {
		log.Fatal(err)
	}
	client := rpc.NewClient(nc)
	return orderv1nats.NewOrderServiceClient(client), func() {
		_ = client.Close()
		_ = srv.Shutdown(context.Background())
		disconnect()
	}
}

func ExampleCodeOf() {
	orders, stop := serveLedger()
	defer stop()
	ctx := context.Background()

	look := func(id string) {
		res, err := orders.GetOrder(ctx, &orderv1.GetOrderRequest{OrderId: id})
		switch rpc.CodeOf(err) {
		case rpc.CodeOK:
			fmt.Println("order", res.GetOrder().GetOrderId())
		case rpc.CodeNotFound:
			fmt.Println("no such order")
		default:
			fmt.Println(rpc.CodeOf(err)) // err has the text too
		}
	}
	for _, id := range []string{"42", "7", "", "locked", "slow", "broken"} {
		look(id)
	}
	// Output:
	// order 42
	// no such order
	// invalid_argument
	// aborted
	// deadline_exceeded
	// unknown
}

func ExampleDetail() {
	orders, stop := serveLedger()
	defer stop()
	ctx := context.Background()

	_, err := orders.PlaceOrder(ctx, &orderv1.PlaceOrderRequest{RequestId: "r"})
	if previous, ok := rpc.Detail[*orderv1.Order](err); ok {
		fmt.Println("go on with order", previous.GetOrderId())
	}
	// Output: go on with order 41
}

func ExampleError_Execution() {
	nc, stop := connect()
	defer stop()
	client := rpc.NewClient(nc)
	defer client.Close()
	orders := orderv1nats.NewOrderServiceClient(client)

	req := &orderv1.PlaceOrderRequest{RequestId: "r"}
	_, err := orders.PlaceOrder(context.Background(), req, rpc.WithoutRetry())
	var e *rpc.Error
	if errors.As(err, &e) {
		switch e.Execution() {
		case rpc.ExecutionNotRun:
			fmt.Println("nothing has happened:", e)
		case rpc.ExecutionDidRun:
			fmt.Println("the service has refused:", e)
		case rpc.ExecutionMayHaveRun:
			fmt.Println("ask the service whether it has the request:", e)
		}
	}
	// Output:
	// nothing has happened: unavailable: no service answers on "order.v1.OrderService.PlaceOrder"
}
