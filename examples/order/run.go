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
	feed, srv, err := newServers(ctx, nc, c, orders)
	if err != nil {
		return err
	}
	if err := feed.Start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stopFeed(ctx, feed, orders.lease)) }()
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel() // ends what runs beside srv, also where that could not run
	running.Go(func() { orders.Recover(ctx) })
	running.Go(func() { intake.Run(ctx) })
	return srv.Run(ctx)
}

// newServers returns the server of the feed, which listens before the first event is sent and until
// the last one was, and that of the orders. None is started before both are made: the process is
// ready when all of its servers are.
func newServers(ctx context.Context, nc *nats.Conn, c Config, orders *Service) (feed, srv *rpc.Server, err error) {
	events, err := NewFeed(ctx, nc, c)
	if err != nil {
		return nil, nil, err
	}
	feed, srv = c.NewServer(nc), c.NewServer(nc)
	if err := orderv1nats.RegisterOrderFeedServiceServer(feed, events, rpc.WithHealthCheck(events.items.Check)); err != nil {
		return nil, nil, err
	}
	if err := orderv1nats.RegisterOrderServiceServer(srv, orders, rpc.WithHealthCheck(orders.orders.Check)); err != nil {
		return nil, nil, err
	}
	return feed, srv, nil
}

// stopFeed has a time of its own, as NATS may be away.
func stopFeed(ctx context.Context, feed *rpc.Server, grace time.Duration) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	return feed.Shutdown(ctx)
}
