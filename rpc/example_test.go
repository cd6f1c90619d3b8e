package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/durationpb"

	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
)

// orders implements the generated interface of the order service.
type orders struct {
	orderv1nats.UnimplementedOrderServiceServer // methods that are left out
}

func (orders) GetOrder(ctx context.Context, req *orderv1.GetOrderRequest) (*orderv1.GetOrderResponse, error) {
	switch id := req.GetOrderId(); id {
	case "42":
		rpc.CallFromContext(ctx).ResponseHeader().Set("served-for", rpc.CallFromContext(ctx).Header().Get("tenant"))
		return &orderv1.GetOrderResponse{Order: &orderv1.Order{OrderId: id}}, nil
	case "slow":
		<-ctx.Done() // the caller's deadline, or the caller has gone
		return nil, ctx.Err()
	default:
		return nil, rpc.NewError(rpc.CodeNotFound, "there is no order "+id, durationpb.New(time.Minute))
	}
}

// connect starts what a deployment has already: a NATS server.
func connect() (nc *nats.Conn, stop func()) {
	ns, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true})
	if err != nil {
		log.Fatal(err)
	}
	ns.Start()
	nc, err = nats.Connect("", nats.InProcessServer(ns))
	if err != nil {
		log.Fatal(err)
	}
	return nc, func() { nc.Close(); ns.Shutdown(); ns.WaitForShutdown() }
}

// serveOrders starts the order service; in a program it is usually srv.Run(ctx) in main.
func serveOrders(nc *nats.Conn, opts ...rpc.ServerOption) (stop func()) {
	srv := rpc.NewServer(nc, opts...)
	if err := orderv1nats.RegisterOrderServiceServer(srv, orders{}); err != nil {
		log.Fatal(err)
	}
	if err := srv.Start(context.Background()); err != nil {
		log.Fatal(err)
	}
	return func() { _ = srv.Shutdown(context.Background()) }
}

func Example() {
	nc, stop := connect()
	defer stop()
	defer serveOrders(nc)()

	client := rpc.NewClient(nc)
	defer client.Close()
	orders := orderv1nats.NewOrderServiceClient(client)
	res, err := orders.GetOrder(context.Background(), &orderv1.GetOrderRequest{OrderId: "42"})
	fmt.Println(res.GetOrder().GetOrderId(), err)
	// Output: 42 <nil>
}

func ExampleError() {
	nc, stop := connect()
	defer stop()
	defer serveOrders(nc)()
	client := rpc.NewClient(nc)
	defer client.Close()
	orders := orderv1nats.NewOrderServiceClient(client)

	_, err := orders.GetOrder(context.Background(), &orderv1.GetOrderRequest{OrderId: "7"})
	var e *rpc.Error
	if errors.As(err, &e) {
		fmt.Println(e.Code(), "/", e.Message(), "/", e.Execution())
		fmt.Println("retry after", e.Details()[0].(*durationpb.Duration).AsDuration())
	}

	_, err = orders.GetOrder(context.Background(), &orderv1.GetOrderRequest{OrderId: "slow"}, rpc.WithTimeout(10*time.Millisecond))
	fmt.Println(rpc.CodeOf(err), errors.Is(err, context.DeadlineExceeded))
	// Output:
	// not_found / there is no order 7 / did run
	// retry after 1m0s
	// deadline_exceeded true
}

func ExampleAddDetails() {
	errLocked := errors.New("the row is locked")

	err := rpc.AddDetails(rpc.Errorf(rpc.CodeAborted, "order %d: %w", 42, errLocked), durationpb.New(time.Second))

	wait, _ := rpc.Detail[*durationpb.Duration](err)
	fmt.Println(err, "/", errors.Is(err, errLocked), "/", wait.AsDuration())
	// Output: aborted: order 42: the row is locked / true / 1s
}

func ExampleWithHeader() {
	nc, stop := connect()
	defer stop()
	defer serveOrders(nc)()
	client := rpc.NewClient(nc)
	defer client.Close()
	orders := orderv1nats.NewOrderServiceClient(client)

	var header rpc.Header
	_, err := orders.GetOrder(context.Background(), &orderv1.GetOrderRequest{OrderId: "42"},
		rpc.WithHeader("tenant", "acme"), rpc.ResponseHeader(&header))
	fmt.Println(header.Get("served-for"), err)
	// Output: acme <nil>
}

func ExampleInterceptor() {
	logCalls := func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		err := next(ctx, call)
		side := "client"
		if call.OnServer() {
			side = "server"
		}
		fmt.Println(side, call.Method(), rpc.CodeOf(err))
		return err
	}
	authenticate := func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		public := call.Method() == orderv1nats.OrderServiceListOrdersMethod
		if !public && call.Header().Get("token") != "secret" {
			// The request has not been decoded yet.
			return rpc.Errorf(rpc.CodeUnauthenticated, "the token is wrong")
		}
		return next(ctx, call)
	}

	nc, stop := connect()
	defer stop()
	defer serveOrders(nc, rpc.WithInterceptors(logCalls, authenticate))()
	client := rpc.NewClient(nc, rpc.WithInterceptors(logCalls), rpc.WithHeader("token", "guess"))
	defer client.Close()

	orders := orderv1nats.NewOrderServiceClient(client)
	_, _ = orders.GetOrder(context.Background(), &orderv1.GetOrderRequest{OrderId: "42"})
	_, _ = orders.ListOrders(context.Background(), &orderv1.ListOrdersRequest{})
	// Output:
	// server /order.v1.OrderService/GetOrder unauthenticated
	// client /order.v1.OrderService/GetOrder unauthenticated
	// server /order.v1.OrderService/ListOrders unimplemented
	// client /order.v1.OrderService/ListOrders unimplemented
}

// brokenOrders has lost its database.
type brokenOrders struct {
	orderv1nats.UnimplementedOrderServiceServer
}

func (brokenOrders) GetOrder(context.Context, *orderv1.GetOrderRequest) (*orderv1.GetOrderResponse, error) {
	return nil, errors.New("sql: db-7.internal refuses the connection")
}

// The text of an error without a code is the server's own business here.
func ExampleWithInterceptors() {
	nc, stop := connect()
	defer stop()
	hide := func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		err := next(ctx, call)
		if rpc.CodeOf(err) == rpc.CodeUnknown {
			fmt.Println("log:", err)
			return rpc.NewError(rpc.CodeInternal, "internal error")
		}
		return err
	}
	srv := rpc.NewServer(nc, rpc.WithInterceptors(hide))
	if err := orderv1nats.RegisterOrderServiceServer(srv, brokenOrders{}); err != nil {
		log.Fatal(err)
	}
	if err := srv.Start(context.Background()); err != nil {
		log.Fatal(err)
	}
	defer func() { _ = srv.Shutdown(context.Background()) }()

	client := rpc.NewClient(nc)
	defer client.Close()
	_, err := orderv1nats.NewOrderServiceClient(client).GetOrder(context.Background(), &orderv1.GetOrderRequest{})
	fmt.Println(err)
	// Output:
	// log: sql: db-7.internal refuses the connection
	// internal: internal error
}

// Any NATS client can call a method: the body of the request is the message.
func Example_plainRequest() {
	nc, stop := connect()
	defer stop()
	defer serveOrders(nc)()

	m, err := nc.Request("order.v1.OrderService.GetOrder", []byte(`{"order_id":"42"}`), time.Second)
	fmt.Println(len(m.Data) > 0, m.Data[0] == '{', err)
	m, err = nc.Request("order.v1.OrderService.GetOrder", []byte(`{"order_id":"7"}`), time.Second)
	fmt.Println(m.Header.Get("Nats-Service-Error-Code"), m.Header.Get("Nats-Service-Error"), err)
	// Output:
	// true true <nil>
	// 5 not_found: there is no order 7 <nil>
}

// Many small calls at once, and a client that may pay the price of batches.
func ExampleWithBatching() {
	nc, stop := connect()
	defer stop()
	defer serveOrders(nc)()

	client := rpc.NewClient(nc, rpc.WithBatching(16<<10))
	defer client.Close()
	orders := orderv1nats.NewOrderServiceClient(client)
	var found atomic.Int64
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			if _, err := orders.GetOrder(context.Background(), &orderv1.GetOrderRequest{OrderId: "42"}); err == nil {
				found.Add(1)
			}
		})
	}
	wg.Wait()
	fmt.Println(found.Load())
	// Output: 100
}

// A service whose method PlaceOrder may not use up what its other methods need.
func ExampleWithMethodLimits() {
	nc, stop := connect()
	defer stop()
	srv, impl := rpc.NewServer(nc), orders{}
	err := orderv1nats.RegisterOrderServiceServer(srv, impl,
		rpc.WithMethodLimits(orderv1nats.OrderServicePlaceOrderMethod, 50, 50)) // 50 run, 50 wait
	fmt.Println(err)
	// Output: <nil>
}
