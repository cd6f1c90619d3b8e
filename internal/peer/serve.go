package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"sync"

	"github.com/nats-io/nats.go"

	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
)

// serve writes a line when it is ready, and answers until its input ends.
func serve(ctx context.Context, nc *nats.Conn, prefix string, in io.Reader, out io.Writer) error {
	server := rpc.NewServer(nc, rpc.WithSubjectPrefix(prefix))
	orders := &orders{placed: make(map[string]chan struct{})}
	if err := inventoryv1nats.RegisterInventoryServiceServer(server, inventory{}); err != nil {
		return err
	}
	if err := orderv1nats.RegisterOrderServiceServer(server, orders); err != nil {
		return err
	}
	if err := orderv1nats.RegisterOrderFeedServiceServer(server, orders); err != nil {
		return err
	}
	if err := server.Start(ctx); err != nil {
		return err
	}
	fmt.Fprintln(out, "serving")
	if _, err := io.Copy(io.Discard, in); err != nil {
		return err
	}
	return server.Shutdown(ctx)
}

// inventory does what the names of products say.
type inventory struct {
	inventoryv1nats.UnimplementedInventoryServiceServer
}

func (inventory) GetStock(ctx context.Context, req *inventoryv1.GetStockRequest) (*inventoryv1.GetStockResponse, error) {
	call := rpc.CallFromContext(ctx)
	call.ResponseHeader().Set("Peer-Echo", call.Header().Get("Peer-Say"))
	call.ResponseTrailer().Set("Peer-Trailer", "end")
	switch req.GetProductId() {
	case "wrong":
		return nil, rpc.NewError(rpc.CodeFailedPrecondition, "there are too few", &inventoryv1.OutOfStock{ProductId: "wrong", Available: 3})
	case "slow":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return &inventoryv1.GetStockResponse{Stock: &inventoryv1.Stock{ProductId: req.GetProductId(), Available: 1}}, nil
}

// AddStock has no idempotency level.
func (inventory) AddStock(_ context.Context, req *inventoryv1.AddStockRequest) (*inventoryv1.AddStockResponse, error) {
	return &inventoryv1.AddStockResponse{Stock: &inventoryv1.Stock{ProductId: req.GetProductId(), Received: req.GetQuantity()}}, nil
}

// WatchStock sends as many messages as the first product says, and fails if there is a second one.
func (inventory) WatchStock(_ context.Context, req *inventoryv1.WatchStockRequest, to *rpc.Sender[*inventoryv1.WatchStockResponse]) error {
	count, err := strconv.Atoi(req.GetProductIds()[0])
	if err != nil {
		return rpc.Errorf(rpc.CodeInvalidArgument, "%w", err)
	}
	for i := range count {
		if err := to.Send(&inventoryv1.WatchStockResponse{Stock: &inventoryv1.Stock{Available: int32(i)}}); err != nil {
			return err
		}
	}
	if len(req.GetProductIds()) > 1 {
		return rpc.Errorf(rpc.CodeAborted, "that was all")
	}
	return nil
}

// ImportStock adds up.
func (inventory) ImportStock(_ context.Context, from *rpc.Receiver[*inventoryv1.ImportStockRequest]) (*inventoryv1.ImportStockResponse, error) {
	res := new(inventoryv1.ImportStockResponse)
	for line, err := range from.All() {
		if err != nil {
			return nil, err
		}
		res.Lines++
		res.Quantity += int64(line.GetQuantity())
	}
	return res, nil
}

// orders knows which orders have been placed, one way.
type orders struct {
	orderv1nats.UnimplementedOrderServiceServer
	orderv1nats.UnimplementedOrderFeedServiceServer

	mu     sync.Mutex
	placed map[string]chan struct{} // closed when the order is there
}

func (o *orders) order(id string) chan struct{} {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.placed[id] == nil {
		o.placed[id] = make(chan struct{})
	}
	return o.placed[id]
}

func (o *orders) OrderPlaced(_ context.Context, req *orderv1.OrderPlacedRequest) error {
	close(o.order(req.GetOrderId()))
	return nil
}

// GetOrder waits until the order has been placed.
func (o *orders) GetOrder(ctx context.Context, req *orderv1.GetOrderRequest) (*orderv1.GetOrderResponse, error) {
	select {
	case <-o.order(req.GetOrderId()):
		return &orderv1.GetOrderResponse{Order: &orderv1.Order{OrderId: req.GetOrderId()}}, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// PickOrder sends back what it is sent.
func (o *orders) PickOrder(_ context.Context, stream *rpc.BidiStream[*orderv1.PickOrderResponse, *orderv1.PickOrderRequest]) error {
	for req, err := range stream.All() {
		if err != nil {
			return err
		}
		pick := &orderv1.PickOrderResponse_Pick{Pick: req.GetPicked()}
		if err := stream.Send(&orderv1.PickOrderResponse{Next: pick}); err != nil {
			return err
		}
	}
	return nil
}
