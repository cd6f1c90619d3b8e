package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/natscall/natscall/examples/inventory"
	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/rpc"
)

// The lorry's delivery.
const (
	deliveryLines = 3000
	wrongLine     = 2001
)

// delivery is its lines; number wrong has a quantity that cannot be.
func delivery(wrong int) []*inventoryv1.ImportStockRequest {
	lines := make([]*inventoryv1.ImportStockRequest, deliveryLines)
	for i := range lines {
		lines[i] = &inventoryv1.ImportStockRequest{DeliveryId: "lorry-1", ProductId: []string{"fig", "kiwi"}[i%2], Quantity: 2}
		if i+1 == wrong {
			lines[i].Quantity = -2
		}
	}
	return lines
}

// lorryComes imports a delivery with a wrong line, and then the right one.
func (s *story) lorryComes(ctx context.Context) error {
	_, err := s.importStock(ctx, delivery(wrongLine))
	stopped, _ := rpc.Detail[*inventoryv1.ImportStopped](err)
	s.say("the call fails: %v", err)
	s.say("its detail says that %d lines are in the stock", stopped.GetLines())
	if err := expect(rpc.CodeOf(err) == rpc.CodeInvalidArgument && stopped.GetLines() == wrongLine-1, "not %d", wrongLine-1); err != nil {
		return err
	}
	res, err := s.importStock(ctx, delivery(0))
	if err != nil {
		return err
	}
	s.say("put right, and sent again: %d lines, %d of them known, %d items added", res.GetLines(), res.GetRepeatedLines(), res.GetQuantity())
	return errors.Join(
		expect(res.GetLines() == deliveryLines && res.GetRepeatedLines() == wrongLine-1, "not %d and %d", deliveryLines, wrongLine-1),
		s.expectStock(ctx, "fig", deliveryLines, 0, 0), s.expectStock(ctx, "kiwi", deliveryLines, 0, 0))
}

func (s *story) importStock(ctx context.Context, lines []*inventoryv1.ImportStockRequest) (*inventoryv1.ImportStockResponse, error) {
	stream, err := s.stock.ImportStock(ctx)
	if err != nil {
		return nil, err
	}
	for _, l := range lines {
		if err := stream.Send(l); errors.Is(err, io.EOF) {
			break // the inventory has ended it; CloseAndRecv tells why
		} else if err != nil {
			return nil, err
		}
	}
	return stream.CloseAndRecv()
}

// adaIsPicked is a conversation: the worker does something, and is told what
// is next.
func (s *story) adaIsPicked(ctx context.Context) error {
	worker, err := s.orders.PickOrder(ctx)
	if err != nil {
		return err
	}
	defer worker.Close()
	var last *orderv1.PickOrderResponse
	for _, turn := range []struct {
		does string
		req  *orderv1.PickOrderRequest
		told string
	}{
		{"scans the order", &orderv1.PickOrderRequest{Action: &orderv1.PickOrderRequest_OrderId{OrderId: s.first.GetOrderId()}}, "pick 2 apple"},
		{"scans a plum", picked("plum", 1), `"plum" is not what was to be picked: pick 2 apple`},
		{"scans 2 apples", picked("apple", 2), "pick 1 pear"},
		{"finds no pear", &orderv1.PickOrderRequest{Action: &orderv1.PickOrderRequest_Missing{Missing: line("pear", 1)}}, "picked 2 apple, missing 1 pear"},
	} {
		if err := worker.Send(turn.req); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if last, err = worker.Recv(); err != nil {
			return err
		}
		s.say("%-16s -> %s", turn.does, told(last))
		if err := expect(told(last) == turn.told, "not %s", turn.told); err != nil {
			return err
		}
	}
	_, err = worker.Recv()
	return expect(errors.Is(err, io.EOF), "the session goes on: %v", err)
}

func picked(product string, quantity int32) *orderv1.PickOrderRequest {
	return &orderv1.PickOrderRequest{Action: &orderv1.PickOrderRequest_Picked{Picked: line(product, quantity)}}
}

// told is what the scanner shows.
func told(res *orderv1.PickOrderResponse) string {
	if r := res.GetResult(); r != nil {
		return "picked" + items(r.GetPicked()) + ", missing" + items(r.GetMissing())
	}
	text := fmt.Sprintf("pick %d %s", res.GetPick().GetQuantity(), res.GetPick().GetProductId())
	if res.GetProblem() != "" {
		text = res.GetProblem() + ": " + text
	}
	return text
}

func items(lines []*orderv1.Line) (text string) {
	for _, l := range lines {
		text += fmt.Sprintf(" %d %s", l.GetQuantity(), l.GetProductId())
	}
	return text
}

// screen watches the apples while Cora and Dan buy one each. In between both
// replicas of the inventory are restarted, one after the other.
func (s *story) screen(ctx context.Context) error {
	events := []func() error{
		func() error { return s.buyApple(ctx, "cora-1") },
		func() error { return errors.Join(s.restart("inventory"), s.buyApple(ctx, "dan-1")) },
	}
	for apples, err := range inventory.Watch(ctx, s.stock, "apple") {
		if err != nil {
			return err
		}
		s.say("the screen: %d available, %d reserved, %d sold", apples.GetAvailable(), apples.GetReserved(), apples.GetSold())
		if apples.GetReserved() != 0 || apples.GetSold() != int32(4-len(events)) {
			continue // in the middle, or what it was before the restart
		}
		if len(events) == 0 {
			return s.expectStock(ctx, "apple", 6, 0, 4)
		}
		if err := events[0](); err != nil {
			return err
		}
		events = events[1:]
	}
	return ctx.Err()
}

func (s *story) buyApple(ctx context.Context, requestID string) error {
	order, err := s.place(ctx, requestID, line("apple", 1))
	s.say("%s: %s", requestID, state(order))
	return err
}

// restart stops and starts the replicas of a service, one after the other.
func (s *story) restart(name string) error {
	restarted := 0
	for _, r := range s.shop.services {
		if r.name != name {
			continue
		}
		if err := r.stop(); err != nil {
			return err
		}
		if err := s.shop.start(r); err != nil {
			return err
		}
		if err := s.shop.awaitServices(); err != nil {
			return err
		}
		restarted++
		s.say("replica %d of the %s was restarted", restarted, name)
	}
	return nil
}
