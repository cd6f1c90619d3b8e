package inventory

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/natscall/natscall/examples/internal/check"
	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/rpc"
)

// maxBatch is how many lines are read before they are added to the stock: so
// many that a product is written once for many of its lines, and so few that a
// delivery of any length takes little memory.
const maxBatch = 1000

// imported is a delivery as far as it has been read.
type imported struct {
	id       string
	lines    int32             // that were read
	stocked  int32             // of them, that are in the stock
	batch    map[string][]line // the others, by product
	fresh    int32             // of those in the stock, that were not there before
	quantity int64             // of those
}

// read checks the next line, and adds it to the batch.
func (i *imported) read(req *inventoryv1.ImportStockRequest) error {
	number := i.lines + 1
	field := func(name string) string { return fmt.Sprintf("line %d: %s", number, name) }
	if number == 1 {
		i.id, i.batch = req.GetDeliveryId(), map[string][]line{}
	}
	if id := req.GetDeliveryId(); id != "" && id != i.id {
		return rpc.Errorf(rpc.CodeInvalidArgument, "%s: %.80q is not %q, as in the first line", field("delivery_id"), id, i.id)
	}
	if err := check.First(
		check.ID(field("delivery_id"), i.id),
		check.ID(field("product_id"), req.GetProductId()),
		check.Quantity(field("quantity"), req.GetQuantity()),
	); err != nil {
		return err
	}
	i.lines = number
	i.batch[req.GetProductId()] = append(i.batch[req.GetProductId()], line{number, req.GetQuantity()})
	return nil
}

// full reports whether the batch is to be added to the stock.
func (i *imported) full() bool { return i.lines-i.stocked >= maxBatch }

// stopped is the error of an import that err has ended.
func (i *imported) stopped(err error) error {
	message := err.Error()
	if e := (*rpc.Error)(nil); errors.As(err, &e) {
		message = e.Message()
	}
	return rpc.NewError(rpc.CodeOf(err), message, &inventoryv1.ImportStopped{Lines: i.stocked})
}

// ImportStock implements inventory.v1.InventoryService.
func (s *Service) ImportStock(ctx context.Context, lines *rpc.Receiver[*inventoryv1.ImportStockRequest]) (*inventoryv1.ImportStockResponse, error) {
	var i imported
	for req, err := range lines.All() {
		if err != nil {
			// The caller has gone, or was cut off: it knows nothing, and sends all again.
			return nil, err
		}
		if err := i.read(req); err != nil {
			return nil, i.stopped(cmp.Or(s.stock(ctx, &i), err))
		}
		if !i.full() {
			continue
		}
		if err := s.stock(ctx, &i); err != nil {
			return nil, i.stopped(err)
		}
	}
	if err := s.stock(ctx, &i); err != nil {
		return nil, i.stopped(err)
	}
	return &inventoryv1.ImportStockResponse{Lines: i.lines, RepeatedLines: i.lines - i.fresh, Quantity: i.quantity}, nil
}

// stock adds the batch to the stock, each product by one write.
func (s *Service) stock(ctx context.Context, i *imported) error {
	for id, lines := range i.batch {
		var fresh, quantity int32
		_, err := s.update(ctx, id, func(p product) (product, error) {
			next, err := p.deliver(i.id, lines, s.now())
			fresh, quantity = int32(len(p.fresh(i.id, lines))), next.Received-p.Received
			return next, err
		})
		if err != nil {
			return err
		}
		i.fresh += fresh
		i.quantity += int64(quantity)
	}
	i.stocked = i.lines
	clear(i.batch)
	return nil
}
