package inventory

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/natscall/natscall/examples/internal/backoff"
	"github.com/natscall/natscall/examples/internal/check"
	"github.com/natscall/natscall/examples/internal/kvtable"
	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/rpc"
)

// maxWatched bounds the filter of a watch, which each change is compared with.
const maxWatched = 100

// WatchStock implements inventory.v1.InventoryService.
func (s *Service) WatchStock(ctx context.Context, req *inventoryv1.WatchStockRequest, to *rpc.Sender[*inventoryv1.WatchStockResponse]) error {
	keys, err := watchedKeys(req)
	if err != nil {
		return err
	}
	changes, err := s.products.Watch(ctx, keys...) // ends with ctx, which ends when this returns
	if err != nil {
		return err
	}
	draining := rpc.CallFromContext(ctx).Draining()
	for {
		select {
		case row, ok := <-changes:
			if !ok {
				return cmp.Or(ctx.Err(), rpc.Errorf(rpc.CodeUnavailable, "the stock is out of sight: watch again"))
			}
			if row.Value.exists() != nil {
				continue
			}
			if err := to.Send(&inventoryv1.WatchStockResponse{Stock: row.Value.stock()}); err != nil {
				return err
			}
		case <-draining:
			return rpc.Errorf(rpc.CodeUnavailable, "this instance shuts down: watch again")
		}
	}
}

// watchedKeys are the entries that a request asks for.
func watchedKeys(req *inventoryv1.WatchStockRequest) ([]string, error) {
	ids := req.GetProductIds()
	if len(ids) == 0 {
		return []string{kvtable.AllKeys}, nil
	}
	if len(ids) > maxWatched {
		return nil, rpc.Errorf(rpc.CodeInvalidArgument, "product_ids: there are %d, not up to %d", len(ids), maxWatched)
	}
	for i, id := range ids {
		if err := check.ID(fmt.Sprintf("product_ids[%d]", i), id); err != nil {
			return nil, err
		}
	}
	// NATS refuses a filter that has an id twice.
	return slices.Compact(slices.Sorted(slices.Values(ids))), nil
}

// rewatch is how Watch looks for another instance. Nothing is lost meanwhile,
// as each watch begins with the stock as it is.
var rewatch = backoff.Policy{First: 5 * time.Millisecond, Limit: 200 * time.Millisecond}

// Watch calls WatchStock, and again where an instance or a connection ends it:
// it yields the stock of the products, or of all, as it is and then each
// change, until ctx ends. An error is the last element.
func Watch(ctx context.Context, client inventoryv1nats.InventoryServiceClient, products ...string) iter.Seq2[*inventoryv1.Stock, error] {
	return func(yield func(*inventoryv1.Stock, error) bool) {
		for range rewatch.Attempts(ctx) {
			err := watchOnce(ctx, client, products, yield)
			switch rpc.CodeOf(err) {
			case rpc.CodeOK:
				return // whoever ranges over it has left
			case rpc.CodeUnavailable, rpc.CodeDataLoss, rpc.CodeDeadlineExceeded:
				// Another attempt may go on.
			default:
				yield(nil, err)
				return
			}
		}
		yield(nil, ctx.Err())
	}
}

// watchOnce watches until the stream ends. It returns nil where yield does not
// want more.
func watchOnce(ctx context.Context, client inventoryv1nats.InventoryServiceClient, products []string, yield func(*inventoryv1.Stock, error) bool) error {
	stream, err := client.WatchStock(ctx, &inventoryv1.WatchStockRequest{ProductIds: products})
	if err != nil {
		return err
	}
	defer stream.Close()
	for res, err := range stream.All() {
		if err != nil {
			return err
		}
		if !yield(res.GetStock(), nil) {
			return nil
		}
	}
	return rpc.Errorf(rpc.CodeUnavailable, "the watch has ended")
}
