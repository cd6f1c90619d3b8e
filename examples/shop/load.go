package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
)

// The load: many small orders, of which some cannot be had. An entry of the
// inventory keeps the reservations of a product, so there are several products.
const (
	customers   = 4
	products    = 10
	betweenEach = 100 * time.Millisecond // customers come at this rate
	leastOrders = 25                     // so that calls are refused, however short the load
	rareEvery   = 7                      // orders ask for something of which there is little
	hedgeAfter  = time.Millisecond       // of GetOrder
)

const reserveMethod = inventoryv1nats.InventoryServiceReserveMethod

// load lets customers order until the time is up.
func (o *observation) load(ctx context.Context, d time.Duration) error {
	stock := inventoryv1nats.NewInventoryServiceClient(o.client)
	for i := range products {
		if _, err := stock.AddStock(ctx, &inventoryv1.AddStockRequest{ProductId: product(i), Quantity: 1_000_000}); err != nil {
			return err
		}
	}
	if _, err := stock.AddStock(ctx, &inventoryv1.AddStockRequest{ProductId: "rare", Quantity: 3}); err != nil {
		return err
	}
	fmt.Fprintf(o.out, "\n%d customers order for %v, look at their orders, and see them picked. One in %d wants what is rare,\nand of the calls that reserve something the inventory refuses one in %d at first.\n", customers, d, rareEvery, busyEvery)
	o.began = time.Now()
	errs := make([]error, customers)
	var all sync.WaitGroup
	for i := range customers {
		all.Go(func() { errs[i] = o.customer(ctx, i, o.began.Add(d)) })
	}
	all.Wait()
	o.took = time.Since(o.began)
	fmt.Fprintf(o.out, "There were %d orders.\n", o.placed.Load())
	return errors.Join(errs...)
}

// customer orders again and again.
func (o *observation) customer(ctx context.Context, number int, until time.Time) error {
	tick := time.NewTicker(betweenEach)
	defer tick.Stop()
	orders := orderv1nats.NewOrderServiceClient(o.client)
	for i := 0; time.Now().Before(until) || o.placed.Load() < leastOrders; i++ {
		if err := o.shopping(ctx, orders, number, i); err != nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

func product(i int) string { return fmt.Sprintf("product-%d", i%products) }

// shopping is one trace.
func (o *observation) shopping(ctx context.Context, orders orderv1nats.OrderServiceClient, number, i int) error {
	ctx, span := o.settings.Telemetry.Tracer().Start(ctx, "shopping", trace.WithAttributes(attribute.Int("customer", number)))
	defer span.End()
	lines := []*orderv1.Line{line(product(number+i), 1), line(product(number+i+customers), 2)}
	wantsRare := i%rareEvery == rareEvery-1
	if wantsRare {
		lines = append(lines, line("rare", 1))
	}
	o.placed.Add(1)
	res, err := orders.PlaceOrder(ctx, &orderv1.PlaceOrderRequest{RequestId: fmt.Sprintf("%d-%d", number, i), Lines: lines})
	switch {
	case wantsRare && rpc.CodeOf(err) == rpc.CodeFailedPrecondition:
		return nil // nothing is left
	case err != nil:
		return err
	}
	id := res.GetOrder().GetOrderId()
	if _, err := orders.GetOrder(ctx, &orderv1.GetOrderRequest{OrderId: id}, rpc.WithHedging(hedgeAfter)); err != nil {
		return err
	}
	return pickAll(ctx, orders, id)
}

// pickAll picks what it is told to pick, until nothing is left.
func pickAll(ctx context.Context, orders orderv1nats.OrderServiceClient, id string) error {
	worker, err := orders.PickOrder(ctx)
	if err != nil {
		return err
	}
	defer worker.Close()
	req := &orderv1.PickOrderRequest{Action: &orderv1.PickOrderRequest_OrderId{OrderId: id}}
	for {
		if err := worker.Send(req); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		res, err := worker.Recv()
		if err != nil {
			return err
		}
		if res.GetResult() != nil {
			_, err := worker.Recv()
			return expect(errors.Is(err, io.EOF), "picking goes on: %v", err)
		}
		req = picked(res.GetPick().GetProductId(), res.GetPick().GetQuantity())
	}
}
