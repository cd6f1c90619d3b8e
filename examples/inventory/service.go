// Package inventory implements inventory.v1.InventoryService on a JetStream
// key-value bucket. Any number of replicas can serve it side by side.
//
// What may happen to a product is in product.go, as pure functions; this file
// checks requests, and lets one write to the product's entry decide.
package inventory

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/natscall/natscall/examples/internal/app"
	"github.com/natscall/natscall/examples/internal/check"
	"github.com/natscall/natscall/examples/internal/kvtable"
	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/rpc"
)

// Service implements inventoryv1nats.InventoryServiceServer.
type Service struct {
	products *kvtable.Table[product]
	now      func() time.Time
}

var _ inventoryv1nats.InventoryServiceServer = (*Service)(nil)

// New opens the bucket "inventory", and makes it if it does not exist.
func New(ctx context.Context, js jetstream.JetStream, s app.Settings) (*Service, error) {
	products, err := kvtable.Open[product](ctx, js, kvtable.Config{
		Prefix: s.Prefix, Name: "inventory", Description: "Stock of each product", Replicas: s.Replicas, Log: s.Log,
	})
	if err != nil {
		return nil, err
	}
	return &Service{products: products, now: time.Now}, nil
}

// Run serves the inventory on nc until ctx ends; then it finishes the calls
// that it has, and returns.
func Run(ctx context.Context, nc *nats.Conn, s app.Settings) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	service, err := New(ctx, js, s)
	if err != nil {
		return err
	}
	srv := s.NewServer(nc)
	if err := inventoryv1nats.RegisterInventoryServiceServer(srv, service, rpc.WithHealthCheck(service.products.Check)); err != nil {
		return err
	}
	return srv.Run(ctx)
}

// GetStock implements inventory.v1.InventoryService.
func (s *Service) GetStock(ctx context.Context, req *inventoryv1.GetStockRequest) (*inventoryv1.GetStockResponse, error) {
	if err := check.ID("product_id", req.GetProductId()); err != nil {
		return nil, err
	}
	row, err := s.products.Get(ctx, req.GetProductId())
	if errors.Is(err, kvtable.ErrNotFound) {
		row.Value.ID, err = req.GetProductId(), nil
	}
	if err := check.First(err, row.Value.exists()); err != nil {
		return nil, err
	}
	return &inventoryv1.GetStockResponse{Stock: row.Value.stock()}, nil
}

// ListStock implements inventory.v1.InventoryService.
func (s *Service) ListStock(ctx context.Context, req *inventoryv1.ListStockRequest) (*inventoryv1.ListStockResponse, error) {
	size, err := check.PageSize("page_size", req.GetPageSize())
	if err != nil {
		return nil, err
	}
	rows, more, err := s.products.Page(ctx, req.GetPageToken(), size)
	if err != nil {
		return nil, err
	}
	res := new(inventoryv1.ListStockResponse)
	for _, row := range rows {
		if row.Value.exists() == nil {
			res.Stock = append(res.Stock, row.Value.stock())
		}
	}
	if more {
		res.NextPageToken = rows[len(rows)-1].Key
	}
	return res, nil
}

// AddStock implements inventory.v1.InventoryService.
func (s *Service) AddStock(ctx context.Context, req *inventoryv1.AddStockRequest) (*inventoryv1.AddStockResponse, error) {
	if err := check.Quantity("quantity", req.GetQuantity()); err != nil {
		return nil, err
	}
	p, err := s.update(ctx, req.GetProductId(), func(p product) (product, error) {
		return p.add(req.GetQuantity())
	})
	if err != nil {
		return nil, err
	}
	return &inventoryv1.AddStockResponse{Stock: p.stock()}, nil
}

// Reserve implements inventory.v1.InventoryService.
func (s *Service) Reserve(ctx context.Context, req *inventoryv1.ReserveRequest) (*inventoryv1.ReserveResponse, error) {
	if err := check.Quantity("quantity", req.GetQuantity()); err != nil {
		return nil, err
	}
	r, err := s.decide(ctx, req, func(p product) (product, error) {
		return p.reserve(req.GetReservationId(), req.GetQuantity())
	})
	if err != nil {
		return nil, err
	}
	return &inventoryv1.ReserveResponse{Reservation: r}, nil
}

// Confirm implements inventory.v1.InventoryService.
func (s *Service) Confirm(ctx context.Context, req *inventoryv1.ConfirmRequest) (*inventoryv1.ConfirmResponse, error) {
	r, err := s.decide(ctx, req, func(p product) (product, error) {
		return p.confirm(req.GetReservationId(), s.now())
	})
	if err != nil {
		return nil, err
	}
	return &inventoryv1.ConfirmResponse{Reservation: r}, nil
}

// Release implements inventory.v1.InventoryService.
func (s *Service) Release(ctx context.Context, req *inventoryv1.ReleaseRequest) (*inventoryv1.ReleaseResponse, error) {
	r, err := s.decide(ctx, req, func(p product) (product, error) {
		return p.release(req.GetReservationId(), s.now())
	})
	if err != nil {
		return nil, err
	}
	return &inventoryv1.ReleaseResponse{Reservation: r}, nil
}

// decide changes the reservation that a request names, and returns it.
func (s *Service) decide(ctx context.Context, req interface {
	GetProductId() string
	GetReservationId() string
}, change func(product) (product, error)) (*inventoryv1.Reservation, error) {
	if err := check.ID("reservation_id", req.GetReservationId()); err != nil {
		return nil, err
	}
	p, err := s.update(ctx, req.GetProductId(), change)
	if err != nil {
		return nil, err
	}
	return p.reservation(req.GetReservationId()), nil
}

// update changes a product's entry.
func (s *Service) update(ctx context.Context, id string, change func(product) (product, error)) (product, error) {
	if err := check.ID("product_id", id); err != nil {
		return product{}, err
	}
	return s.products.Update(ctx, id, func(p product) (product, error) {
		p.ID = id // an entry that does not exist yet has none
		return change(p)
	})
}

func (p product) stock() *inventoryv1.Stock {
	return &inventoryv1.Stock{
		ProductId: p.ID, Available: p.Available, Reserved: p.reserved(), Sold: p.Sold, Received: p.Received,
	}
}

func (p product) reservation(id string) *inventoryv1.Reservation {
	r := p.Reservations[id]
	states := map[state]inventoryv1.ReservationState{
		open:      inventoryv1.ReservationState_RESERVATION_STATE_OPEN,
		confirmed: inventoryv1.ReservationState_RESERVATION_STATE_CONFIRMED,
		released:  inventoryv1.ReservationState_RESERVATION_STATE_RELEASED,
	}
	return &inventoryv1.Reservation{ProductId: p.ID, ReservationId: id, Quantity: r.Quantity, State: states[r.State]}
}
