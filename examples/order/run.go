package order

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
)

// Run serves orders and their feed on nc, and places the orders that are
// published, until ctx ends; then it finishes what it has begun, and returns.
func Run(ctx context.Context, nc *nats.Conn, c Config) (err error) {
	client := c.NewClient(nc)
	defer client.Close()
	orders, err := New(ctx, nc, client, c)
	if err != nil {
		return err
	}
	intake, err := NewIntake(ctx, nc, orders, c)
	if err != nil {
		return err
	}
	// The feed has a server of its own, which listens before the first event is
	// sent, and until the last one was.
	stop, err := startFeed(ctx, nc, c, orders.lease)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	srv := c.NewServer(nc)
	if err := orderv1nats.RegisterOrderServiceServer(srv, orders, rpc.WithHealthCheck(orders.orders.Check)); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel() // ends what runs beside srv, also where that could not run
	running.Go(func() { orders.Recover(ctx) })
	running.Go(func() { intake.Run(ctx) })
	return srv.Run(ctx)
}

// startFeed returns a function that stops the feed, for which it has a time of
// its own, as NATS may be away.
func startFeed(ctx context.Context, nc *nats.Conn, c Config, grace time.Duration) (stop func() error, err error) {
	feed, err := NewFeed(ctx, nc, c)
	if err != nil {
		return nil, err
	}
	srv := c.NewServer(nc)
	if err := orderv1nats.RegisterOrderFeedServiceServer(srv, feed, rpc.WithHealthCheck(feed.items.Check)); err != nil {
		return nil, err
	}
	return func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		return srv.Shutdown(ctx)
	}, srv.Start(ctx)
}
