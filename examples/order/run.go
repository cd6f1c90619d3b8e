package order

import (
	"context"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
)

// Run serves orders and their feed on nc until ctx ends; then it finishes the
// calls that it has, and returns.
func Run(ctx context.Context, nc *nats.Conn, c Config) error {
	client := c.NewClient(nc)
	defer client.Close()
	orders, err := New(ctx, nc, client, c)
	if err != nil {
		return err
	}
	feed, err := NewFeed(ctx, nc, c)
	if err != nil {
		return err
	}
	srv := c.NewServer(nc)
	if err := orderv1nats.RegisterOrderServiceServer(srv, orders); err != nil {
		return err
	}
	if err := orderv1nats.RegisterOrderFeedServiceServer(srv, feed); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var recovering sync.WaitGroup
	defer recovering.Wait()
	defer cancel() // ends Recover, also where srv could not run
	recovering.Go(func() { orders.Recover(ctx) })
	return srv.Run(ctx)
}
