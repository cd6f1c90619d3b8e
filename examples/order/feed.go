package order

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/natscall/natscall/examples/internal/check"
	"github.com/natscall/natscall/examples/internal/kvtable"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
)

// keepFeed is how long an event is kept, and so how long a second one like it
// is recognised.
const keepFeed = 24 * time.Hour

// Feed implements orderv1nats.OrderFeedServiceServer.
type Feed struct {
	items *kvtable.Table[item] // by order and product, which tells events apart
	log   *slog.Logger
}

type item = kvtable.Message[orderv1.FeedItem, *orderv1.FeedItem]

var _ orderv1nats.OrderFeedServiceServer = (*Feed)(nil)

// NewFeed opens the bucket "feed", and makes it if it does not exist.
func NewFeed(ctx context.Context, nc *nats.Conn, c Config) (*Feed, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, err
	}
	items, err := kvtable.Open[item](ctx, js, kvtable.Config{
		Prefix: c.Prefix, Name: "feed", Description: "What was sold in the last day", Replicas: c.Replicas, MaxAge: keepFeed, Log: c.Log,
	})
	if err != nil {
		return nil, err
	}
	return &Feed{items: items, log: c.Log}, nil
}

// OrderPlaced implements order.v1.OrderFeedService. Nobody waits for what it
// returns: an error shows in the log and in the service's statistics.
func (f *Feed) OrderPlaced(ctx context.Context, req *orderv1.OrderPlacedRequest) error {
	if !req.GetSold() {
		return nil // an order, which is the Intake's
	}
	if err := f.record(ctx, req); err != nil {
		f.log.Warn("event is lost", "order", req.GetOrderId(), "product", req.GetProductId(), "err", err)
		return err
	}
	return nil
}

func (f *Feed) record(ctx context.Context, req *orderv1.OrderPlacedRequest) error {
	if err := check.First(
		check.ID("order_id", req.GetOrderId()),
		check.ID("product_id", req.GetProductId()),
	); err != nil {
		return err
	}
	if req.Quantity != nil {
		if err := check.Quantity("quantity", req.GetQuantity()); err != nil {
			return err
		}
	}
	_, err := f.items.Put(ctx, kvtable.Row[item]{
		Key: req.GetOrderId() + "." + req.GetProductId(),
		Value: item{Msg: &orderv1.FeedItem{
			OrderId: req.GetOrderId(), ProductId: req.GetProductId(), Quantity: req.Quantity, Heard: timestamppb.Now(),
		}},
	})
	if errors.Is(err, kvtable.ErrConflict) {
		return nil // heard before
	}
	return err
}

// ListFeed implements order.v1.OrderFeedService.
func (f *Feed) ListFeed(ctx context.Context, req *orderv1.ListFeedRequest) (*orderv1.ListFeedResponse, error) {
	limit, err := check.PageSize("limit", req.GetLimit())
	if err != nil {
		return nil, err
	}
	res := new(orderv1.ListFeedResponse)
	for row, err := range f.items.All(ctx) {
		if err != nil {
			return nil, err
		}
		res.Items = append(res.Items, row.Value.Msg)
	}
	if n := len(res.Items); n > limit {
		res.Items = res.Items[n-limit:]
	}
	return res, nil
}
