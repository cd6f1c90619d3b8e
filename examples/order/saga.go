package order

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/natscall/natscall/examples/internal/backoff"
	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/rpc"
)

// errLost means that another replica owns the order now.
var errLost = errors.New("another replica has taken the order over")

// persistence is how a step is tried again, until its time is up.
var persistence = backoff.Policy{First: 10 * time.Millisecond, Limit: time.Second}

// work takes the order from state to state until nothing is left to do. It
// must be the order's owner. Where it returns an error the order is left as it
// is, and taken over when its lease has run out.
func (s *Service) work(ctx context.Context, r *row) error {
	for !r.Value.finished() {
		if err := s.step(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// step does what the order's state asks for. It ends with the lease at the
// latest: a replica that was asleep must not go on as if nothing had happened.
func (s *Service) step(ctx context.Context, r *row) error {
	ctx, cancel := context.WithTimeout(ctx, s.lease)
	defer cancel()
	switch r.Value.state() {
	case pending:
		return s.reserve(ctx, r)
	case confirming:
		return s.confirm(ctx, r)
	case releasing:
		return s.release(ctx, r)
	default:
		return s.announce(ctx, r)
	}
}

// reserve sets every line aside. The order's id is the reservation's, as a
// product stands in one line only.
func (s *Service) reserve(ctx context.Context, r *row) error {
	for _, line := range r.Value.Order.Msg.GetLines() {
		err := s.insist(ctx, func(ctx context.Context) error {
			_, err := s.inventory.Reserve(ctx, &inventoryv1.ReserveRequest{
				ProductId: line.GetProductId(), ReservationId: r.Key, Quantity: line.GetQuantity(),
			})
			return err
		})
		if reason := rejectionReason(err); reason != 0 {
			return s.reject(ctx, r, reason, err)
		}
		if err != nil {
			return err
		}
	}
	return s.advance(ctx, r, func(next *record) { next.Order.Msg.State = confirming })
}

// rejectionReason tells a line that cannot be had from a failure. It returns 0 for the latter.
func rejectionReason(err error) orderv1.RejectionReason {
	switch rpc.CodeOf(err) {
	case rpc.CodeFailedPrecondition:
		return orderv1.RejectionReason_REJECTION_REASON_OUT_OF_STOCK
	case rpc.CodeNotFound:
		return orderv1.RejectionReason_REJECTION_REASON_UNKNOWN_PRODUCT
	}
	return 0
}

// reject decides that the order cannot be had.
func (s *Service) reject(ctx context.Context, r *row, reason orderv1.RejectionReason, why error) error {
	message := why.Error()
	if e := (*rpc.Error)(nil); errors.As(why, &e) {
		message = e.Message() // without the code, which is the inventory's
	}
	return s.advance(ctx, r, func(next *record) {
		next.Order.Msg.State = releasing
		next.Order.Msg.Rejection = &orderv1.Rejection{Reason: reason, Message: message}
	})
}

// confirm sells every line. All of them are reserved, and nobody releases what
// an order in this state has reserved. So a reservation that is not found was
// confirmed long ago, by an owner who did not live to write it down, and the
// inventory has forgotten it since.
func (s *Service) confirm(ctx context.Context, r *row) error {
	for _, line := range r.Value.Order.Msg.GetLines() {
		err := s.insist(ctx, func(ctx context.Context) error {
			_, err := s.inventory.Confirm(ctx, &inventoryv1.ConfirmRequest{
				ProductId: line.GetProductId(), ReservationId: r.Key,
			})
			return err
		})
		if err != nil && rpc.CodeOf(err) != rpc.CodeNotFound {
			return err
		}
	}
	return s.advance(ctx, r, func(next *record) { next.Order.Msg.State = confirmed })
}

// release gives every line back, also those of which nobody knows whether they
// were reserved: should such a request arrive yet, the inventory refuses it.
func (s *Service) release(ctx context.Context, r *row) error {
	for _, line := range r.Value.Order.Msg.GetLines() {
		err := s.insist(ctx, func(ctx context.Context) error {
			_, err := s.inventory.Release(ctx, &inventoryv1.ReleaseRequest{
				ProductId: line.GetProductId(), ReservationId: r.Key,
			})
			return err
		})
		if err != nil {
			return err
		}
	}
	return s.advance(ctx, r, func(next *record) { next.Order.Msg.State = rejected })
}

// announce sends an event for each line, and then writes down that it did: an
// event is sent at least once, whatever happens in between. A listener tells a
// second one by its order and product. The events are in JSON, so that people
// can read them with "nats sub orders.new".
func (s *Service) announce(ctx context.Context, r *row) error {
	for _, line := range r.Value.Order.Msg.GetLines() {
		err := s.insist(ctx, func(ctx context.Context) error {
			return s.events.OrderPlaced(ctx, &orderv1.OrderPlacedRequest{
				OrderId: r.Key, ProductId: line.GetProductId(), Quantity: &line.Quantity, Sold: true,
			}, rpc.WithCodec(rpc.CodecJSON))
		})
		if err != nil {
			return err
		}
	}
	if err := s.flush(ctx); err != nil {
		return err
	}
	return s.advance(ctx, r, func(next *record) { next.Announced = true })
}

// insist calls until the outcome is known, or ctx ends. Each call must be
// idempotent, as one that failed may have run.
func (s *Service) insist(ctx context.Context, call func(context.Context) error) (err error) {
	for range persistence.Attempts(ctx) {
		if err = s.attempt(ctx, call); outcomeKnown(err) {
			return err
		}
	}
	return cmp.Or(err, ctx.Err()) // the latter if there was no time for even one attempt
}

// attempt calls once. It takes a part of the time only, so that a replica
// which does not answer leaves time to ask another.
func (s *Service) attempt(ctx context.Context, call func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, s.lease/4)
	defer cancel()
	return call(ctx)
}

func outcomeKnown(err error) bool {
	switch rpc.CodeOf(err) {
	case rpc.CodeOK, rpc.CodeFailedPrecondition, rpc.CodeNotFound, rpc.CodeAlreadyExists, rpc.CodeInvalidArgument,
		rpc.CodePermissionDenied, rpc.CodeUnauthenticated, rpc.CodeUnimplemented, rpc.CodeOutOfRange:
		return true
	}
	return false
}

// advance writes the order as change makes it, as write does.
func (s *Service) advance(ctx context.Context, r *row, change func(*record)) error {
	return s.write(ctx, r, r.Value.with(change))
}

// write writes the order's next value, if the order is still the owner's; else
// it fails with errLost. A write that may have happened is looked up.
func (s *Service) write(ctx context.Context, r *row, value record) error {
	var err error
	for range persistence.Attempts(ctx) {
		next := row{Key: r.Key, Value: value, Revision: r.Revision}
		if next.Revision, err = s.orders.Put(ctx, next); err == nil {
			*r = next
			return nil
		}
		now, getErr := s.orders.Get(ctx, r.Key)
		switch {
		case getErr != nil, now.Revision == r.Revision:
			continue // not written, or not yet: two of the same write count once
		case !now.Value.same(value):
			return errLost
		}
		*r = now
		return nil
	}
	return rpc.Errorf(rpc.CodeUnavailable, "order %s cannot be written: %w", r.Key, cmp.Or(err, ctx.Err()))
}
