package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/encoding/protojson"

	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
)

// The code of docs/streams.md comes from this file.

// stock implements two methods of the generated interface of the inventory service.
type stock struct {
	inventoryv1nats.UnimplementedInventoryServiceServer
}

func (stock) WatchStock(ctx context.Context, req *inventoryv1.WatchStockRequest, to *rpc.Sender[*inventoryv1.WatchStockResponse]) error {
	call := rpc.CallFromContext(ctx)
	call.ResponseHeader().Set("warehouse", "north")
	if err := call.SendHeader(); err != nil { // without it the header goes with the first message
		return err
	}
	for _, id := range req.GetProductIds() {
		res := &inventoryv1.WatchStockResponse{Stock: &inventoryv1.Stock{ProductId: id, Available: 3}}
		if err := to.Send(res); err != nil {
			return err // the caller has gone
		}
	}
	select { // a real one waits for changes too
	case <-ctx.Done(): // the caller has gone
		return ctx.Err()
	case <-call.Draining():
		return rpc.Errorf(rpc.CodeUnavailable, "this instance shuts down: watch again")
	}
}

func (stock) ImportStock(_ context.Context, lines *rpc.Receiver[*inventoryv1.ImportStockRequest]) (*inventoryv1.ImportStockResponse, error) {
	res := new(inventoryv1.ImportStockResponse)
	for line, err := range lines.All() { // until the client calls CloseAndRecv
		if err != nil {
			return nil, err // the caller has gone
		}
		if line.GetQuantity() < 1 {
			return nil, rpc.Errorf(rpc.CodeInvalidArgument, "line %d: the quantity is %d", res.GetLines()+1, line.GetQuantity())
		}
		res.Lines++
		res.Quantity += int64(line.GetQuantity())
	}
	return res, nil
}

// warehouse implements a method of the generated interface of the order service.
type warehouse struct {
	orderv1nats.UnimplementedOrderServiceServer
}

func (warehouse) PickOrder(ctx context.Context, worker *rpc.BidiStream[*orderv1.PickOrderResponse, *orderv1.PickOrderRequest]) error {
	picked := int32(0)
	for req, err := range worker.All() { // until the client calls CloseSend
		if err != nil {
			return err // the caller has gone
		}
		picked += req.GetPicked().GetQuantity()
		next := &orderv1.PickOrderResponse{Next: &orderv1.PickOrderResponse_Pick{Pick: &orderv1.Line{ProductId: "apple", Quantity: 9 - picked}}}
		if err := worker.Send(next); err != nil {
			return err
		}
	}
	rpc.CallFromContext(ctx).ResponseTrailer().Set("picked", fmt.Sprint(picked))
	return nil // this ends the stream
}

// serveStreams starts both services.
func serveStreams(nc *nats.Conn, opts ...rpc.ServerOption) (stop func()) {
	srv := rpc.NewServer(nc, opts...)
	if err := inventoryv1nats.RegisterInventoryServiceServer(srv, stock{}); err != nil {
		log.Fatal(err)
	}
	if err := orderv1nats.RegisterOrderServiceServer(srv, warehouse{}); err != nil {
		log.Fatal(err)
	}
	if err := srv.Start(context.Background()); err != nil {
		log.Fatal(err)
	}
	return func() { _ = srv.Shutdown(context.Background()) }
}

func ExampleReceiver() {
	nc, stop := connect()
	defer stop()
	defer serveStreams(nc)()
	client := rpc.NewClient(nc)
	defer client.Close()
	inventory := inventoryv1nats.NewInventoryServiceClient(client)
	ctx := context.Background()

	stream, err := inventory.WatchStock(ctx, &inventoryv1.WatchStockRequest{ProductIds: []string{"apple", "pear"}})
	if err != nil {
		log.Fatal(err)
	}
	defer stream.Close() // the handler's context ends
	header, err := stream.Header(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("from the", header.Get("warehouse"))
	seen := 0
	for res, err := range stream.All() {
		if err != nil {
			log.Fatal(err) // how the server ended it, or what went wrong
		}
		fmt.Println(res.GetStock().GetProductId(), res.GetStock().GetAvailable())
		if seen++; seen == 2 {
			break // seen enough
		}
	}
	// Output:
	// from the north
	// apple 3
	// pear 3
}

func ExampleClientStream() {
	nc, stop := connect()
	defer stop()
	defer serveStreams(nc)()
	client := rpc.NewClient(nc)
	defer client.Close()
	inventory := inventoryv1nats.NewInventoryServiceClient(client)
	ctx := context.Background()

	deliver := func(quantities ...int32) (*inventoryv1.ImportStockResponse, error) {
		stream, err := inventory.ImportStock(ctx)
		if err != nil {
			return nil, err
		}
		for _, n := range quantities {
			err := stream.Send(&inventoryv1.ImportStockRequest{ProductId: "apple", Quantity: n})
			if errors.Is(err, io.EOF) {
				break // the server has ended the stream; CloseAndRecv tells how
			}
			if err != nil {
				return nil, err
			}
		}
		return stream.CloseAndRecv()
	}
	res, err := deliver(10, 20, 30)
	fmt.Println(res.GetLines(), res.GetQuantity(), err)
	_, err = deliver(10, -20, 30)
	fmt.Println(err)
	// Output:
	// 3 60 <nil>
	// invalid_argument: line 2: the quantity is -20
}

func ExampleBidiStream() {
	nc, stop := connect()
	defer stop()
	defer serveStreams(nc)()
	client := rpc.NewClient(nc)
	defer client.Close()
	orders := orderv1nats.NewOrderServiceClient(client)
	ctx := context.Background()

	stream, err := orders.PickOrder(ctx)
	if err != nil {
		log.Fatal(err)
	}
	defer stream.Close() // nothing, where the stream has ended before
	for range 2 {
		apples := &orderv1.Line{ProductId: "apple", Quantity: 3}
		if err := stream.Send(&orderv1.PickOrderRequest{Action: &orderv1.PickOrderRequest_Picked{Picked: apples}}); err != nil {
			break // io.EOF: the server has ended the stream; Recv tells how
		}
		res, err := stream.Recv()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(res.GetPick().GetQuantity(), res.GetPick().GetProductId(), "left")
	}
	stream.CloseSend()
	_, err = stream.Recv()
	fmt.Println(err, stream.Trailer().Get("picked"))
	// Output:
	// 6 apple left
	// 3 apple left
	// EOF 6
}

// An instance that shuts down sends its watchers away, and they go on with another.
func ExampleCall_Draining() {
	nc, stop := connect()
	defer stop()
	stopFirst := serveStreams(nc)
	client := rpc.NewClient(nc)
	defer client.Close()
	inventory := inventoryv1nats.NewInventoryServiceClient(client)
	ctx, cancel := context.WithCancel(context.Background())
	stopSecond := func() {}
	defer func() { stopSecond() }()
	shown := 0
	show := func(p *inventoryv1.Stock) {
		fmt.Println(p.GetProductId(), p.GetAvailable())
		if shown++; shown == 2 {
			cancel()
			return
		}
		stopSecond = serveStreams(nc) // a rolling restart
		go stopFirst()
	}

	watch := func() error {
		stream, err := inventory.WatchStock(ctx, &inventoryv1.WatchStockRequest{ProductIds: []string{"apple"}})
		if err != nil {
			return err
		}
		defer stream.Close()
		for res, err := range stream.All() {
			if err != nil {
				return err
			}
			show(res.GetStock())
		}
		return nil
	}
	for {
		err := watch()
		if rpc.CodeOf(err) != rpc.CodeUnavailable {
			fmt.Println(rpc.CodeOf(err))
			break
		}
		time.Sleep(10 * time.Millisecond) // another instance, or the connection, will be there
	}
	// Output:
	// apple 3
	// apple 3
	// canceled
}

func ExampleCall_OnEnd() {
	nc, stop := connect()
	defer stop()
	defer serveStreams(nc)()
	ended := make(chan string, 1)

	countMessages := func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		sent, received := 0, 0
		call.OnSend(func(*rpc.Message) error { sent++; return nil })
		call.OnReceive(func(*rpc.Message) error { received++; return nil })
		call.OnEnd(func(err error) {
			ended <- fmt.Sprintf("%s: %d sent, %d received, %v", call.Method(), sent, received, rpc.CodeOf(err))
		})
		return next(ctx, call) // on a client it returns when the stream is open
	}
	client := rpc.NewClient(nc, rpc.WithInterceptors(countMessages))
	defer client.Close()

	stream, err := inventoryv1nats.NewInventoryServiceClient(client).ImportStock(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	for range 3 {
		if err := stream.Send(&inventoryv1.ImportStockRequest{ProductId: "apple", Quantity: 1}); err != nil {
			break
		}
	}
	_, err = stream.CloseAndRecv()
	fmt.Println(err)
	fmt.Println(<-ended)
	// Output:
	// <nil>
	// /inventory.v1.InventoryService/ImportStock: 3 sent, 1 received, ok
}

// Any NATS client can read a server stream: each message is a NATS message.
func Example_plainStream() {
	nc, stop := connect()
	defer stop()
	defer serveStreams(nc)()

	replies, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		log.Fatal(err)
	}
	req := nats.NewMsg("inventory.v1.InventoryService.WatchStock")
	req.Reply, req.Data = replies.Subject, []byte(`{"product_ids":["apple"]}`)
	req.Header.Set("Natscall-Timeout", "100") // ms: a plain client cannot say that it has gone
	if err := nc.PublishMsg(req); err != nil {
		log.Fatal(err)
	}
	for {
		m, err := replies.NextMsg(5 * time.Second)
		if err != nil {
			log.Fatal(err)
		}
		if code := m.Header.Get("Nats-Service-Error-Code"); code != "" {
			fmt.Println("the end, with code", code) // "0" after a clean end
			return
		}
		var res inventoryv1.WatchStockResponse
		if err := protojson.Unmarshal(m.Data, &res); err != nil {
			log.Fatal(err)
		}
		fmt.Println(res.GetStock().GetProductId(), res.GetStock().GetAvailable())
	}
	// Output:
	// apple 3
	// the end, with code 4
}
