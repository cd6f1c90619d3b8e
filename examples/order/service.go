// Package order implements order.v1.OrderService and order.v1.OrderFeedService
// on JetStream key-value buckets, with the inventory service as its stock. Any
// number of replicas can serve it side by side.
//
// Placing an order is a saga: what cannot be one transaction, as the stock of
// each product is an entry of its own in another service, becomes steps that
// can each be repeated, and undone until the order is decided. record.go has
// the states, saga.go what is done in each, and recover.go finishes what a
// replica that crashed has left. What becomes of an order afterwards, in the
// warehouse, is in pick.go.
//
// Orders come by PlaceOrder, whose callers wait, and by the subject orders.new,
// on which anybody can publish one, also while no service runs: intake.go takes
// them from there. Each line that is sold is announced on the same subject, and
// kept for a day by what is in feed.go.
package order

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/natscall/natscall/examples/internal/app"
	"github.com/natscall/natscall/examples/internal/check"
	"github.com/natscall/natscall/examples/internal/kvtable"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
)

// DefaultLease is some thousand times what a step of an order takes, and short
// enough for a customer to wait for.
const DefaultLease = 5 * time.Second

// ParseLease reads a lease that makes sense, of at least 100 ms: a step takes
// some calls, and a call can take some milliseconds.
func ParseLease(text string) (time.Duration, error) {
	lease, err := time.ParseDuration(text)
	if err == nil && lease < 100*time.Millisecond {
		err = errors.New("must be at least 100ms")
	}
	return lease, err
}

// Config says how the order service runs.
type Config struct {
	app.Settings

	// Lease is how long an order's owner has for each state. After that
	// another replica takes the order over. 0 means DefaultLease.
	Lease time.Duration
}

// Service implements orderv1nats.OrderServiceServer.
type Service struct {
	orders    *kvtable.Table[record]
	picks     *kvtable.Table[picking]
	inventory inventoryv1nats.InventoryServiceClient
	events    orderv1nats.OrderFeedServiceClient
	flush     func(context.Context) error // returns when NATS has what was sent
	lease     time.Duration
	log       *slog.Logger
}

var _ orderv1nats.OrderServiceServer = (*Service)(nil)

// New opens the buckets "orders" and "picks", and makes them if they do not
// exist. The service calls the inventory, and sends its events, over client,
// which is a client on nc.
func New(ctx context.Context, nc *nats.Conn, client *rpc.Client, c Config) (*Service, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	orders, err := kvtable.Open[record](ctx, js, kvtable.Config{
		Prefix: c.Prefix, Name: "orders", Description: "Orders and how far they are", Replicas: c.Replicas, Log: c.Log,
	})
	if err != nil {
		return nil, err
	}
	picks, err := kvtable.Open[picking](ctx, js, kvtable.Config{
		Prefix: c.Prefix, Name: "picks", Description: "What was picked of each order", Replicas: c.Replicas, Log: c.Log,
	})
	if err != nil {
		return nil, err
	}
	if c.Lease == 0 {
		c.Lease = DefaultLease
	}
	return &Service{
		orders:    orders,
		picks:     picks,
		inventory: inventoryv1nats.NewInventoryServiceClient(client),
		events:    orderv1nats.NewOrderFeedServiceClient(client),
		flush:     nc.FlushWithContext,
		lease:     c.Lease,
		log:       c.Log,
	}, nil
}

// PlaceOrder implements order.v1.OrderService.
func (s *Service) PlaceOrder(ctx context.Context, req *orderv1.PlaceOrderRequest) (*orderv1.PlaceOrderResponse, error) {
	if err := checkRequest(req); err != nil {
		return nil, err
	}
	end, err := s.place(ctx, newRecord(req))
	if err != nil {
		return nil, err
	}
	return end.answer()
}

// place returns the order as it was decided, also where it was asked for
// before.
//
// An order that was accepted is seen through whether its caller waits or not,
// so the work does not end with ctx; each of its states has the lease as its
// time.
func (s *Service) place(ctx context.Context, order row) (record, error) {
	err := s.attempt(ctx, func(ctx context.Context) error { return s.write(ctx, &order, order.Value) })
	switch {
	case errors.Is(err, errLost):
		return s.await(ctx, order)
	case err != nil:
		return record{}, err // if it was written it will be taken over, as nobody works on it
	}
	if err := s.work(context.WithoutCancel(ctx), &order); err != nil {
		s.log.Warn("order is left to be taken over", "order", order.Key, "state", order.Value.state(), "err", err)
	}
	if order.Value.decided() {
		return order.Value, nil
	}
	return s.await(ctx, order)
}

// await waits until the order that somebody else works on is decided.
func (s *Service) await(ctx context.Context, order row) (record, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the watch
	changes, err := s.orders.Watch(ctx, order.Key)
	if err != nil {
		return record{}, err
	}
	for now := range changes {
		switch {
		case !now.Value.asks(order.Value):
			return record{}, rpc.Errorf(rpc.CodeAlreadyExists, "%s was used for another order", order.Value.id())
		case now.Value.decided():
			return now.Value, nil
		}
	}
	return record{}, rpc.Errorf(rpc.CodeUnavailable, "order %s is not decided yet: repeat the request to learn more", order.Key)
}

// GetOrder implements order.v1.OrderService.
func (s *Service) GetOrder(ctx context.Context, req *orderv1.GetOrderRequest) (*orderv1.GetOrderResponse, error) {
	order, err := s.order(ctx, req.GetOrderId())
	if err != nil {
		return nil, err
	}
	return &orderv1.GetOrderResponse{Order: order}, nil
}

func (s *Service) order(ctx context.Context, id string) (*orderv1.Order, error) {
	if err := check.ID("order_id", id); err != nil {
		return nil, err
	}
	r, err := s.orders.Get(ctx, id)
	switch {
	case errors.Is(err, kvtable.ErrNotFound):
		return nil, rpc.Errorf(rpc.CodeNotFound, "there is no order %q", id)
	case err != nil:
		return nil, err
	}
	return r.Value.Order.Msg, nil
}

// ListOrders implements order.v1.OrderService.
func (s *Service) ListOrders(ctx context.Context, req *orderv1.ListOrdersRequest) (*orderv1.ListOrdersResponse, error) {
	size, err := check.PageSize("page_size", req.GetPageSize())
	if err != nil {
		return nil, err
	}
	rows, more, err := s.orders.Page(ctx, req.GetPageToken(), size)
	if err != nil {
		return nil, err
	}
	res := new(orderv1.ListOrdersResponse)
	for _, r := range rows {
		res.Orders = append(res.Orders, r.Value.Order.Msg)
	}
	if more {
		res.NextPageToken = rows[len(rows)-1].Key
	}
	return res, nil
}
