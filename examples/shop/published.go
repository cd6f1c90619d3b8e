package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/natscall/natscall/examples/internal/backoff"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
)

// published is an order as any NATS client can publish it.
const published = `{"order_id":"12345","product_id":"67890"}`

// publishedOrder is placed when the services are back, and once, although it was
// published twice.
func (s *story) publishedOrder(ctx context.Context) error {
	if err := s.shop.stopServices(); err != nil {
		return err
	}
	s.say("no replica runs, and the order is published, twice")
	for range 2 {
		if err := s.nc.Publish("orders.new", []byte(published)); err != nil {
			return err
		}
	}
	if err := s.awaitStream(ctx, 2); err != nil {
		return err
	}
	s.say("the stream orders-new keeps 2 messages")
	if err := s.shop.startServices(); err != nil {
		return err
	}
	if err := s.awaitStream(ctx, 0); err != nil {
		return err
	}
	res, err := s.orders.GetOrder(ctx, &orderv1.GetOrderRequest{OrderId: "12345"})
	if err != nil {
		return err
	}
	s.say("all replicas are back. order %s of 1 67890: %s, once: 4 are left", res.GetOrder().GetOrderId(), state(res.GetOrder()))
	return errors.Join(
		expect(res.GetOrder().GetState() == orderv1.OrderState_ORDER_STATE_CONFIRMED, "it is %v", res.GetOrder()),
		s.expectStock(ctx, "67890", 4, 0, 1))
}

// awaitStream waits until the stream of orders.new has so many messages.
func (s *story) awaitStream(ctx context.Context, want uint64) error {
	js, err := jetstream.New(s.nc)
	if err != nil {
		return err
	}
	var have uint64
	for range (backoff.Policy{First: time.Millisecond, Limit: 100 * time.Millisecond}).Attempts(ctx) {
		stream, err := js.Stream(ctx, "orders-new")
		if err != nil {
			return err
		}
		if have = stream.CachedInfo().State.Msgs; have == want {
			return nil
		}
	}
	return fmt.Errorf("the stream has %d messages, not %d: %w", have, want, ctx.Err())
}
