package order

import (
	"context"
	"errors"
	"io"

	"github.com/natscall/natscall/examples/internal/kvtable"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/rpc"
)

// pickStream is a worker's end of a session, as the service sees it.
type pickStream = rpc.BidiStream[*orderv1.PickOrderResponse, *orderv1.PickOrderRequest]

// PickOrder implements order.v1.OrderService. What the worker does is written
// before the answer, so that a session can be cut off anywhere.
func (s *Service) PickOrder(ctx context.Context, worker *pickStream) error {
	row, err := s.beginPicking(ctx, worker)
	if err != nil {
		return err
	}
	draining := rpc.CallFromContext(ctx).Draining()
	problem := ""
	for {
		if err := worker.Send(row.Value.told(problem)); err != nil {
			return err
		}
		if row.Value.finished() {
			return nil
		}
		select {
		case <-draining:
			// A worker that is slower is cut off when the grace period ends, which does no harm.
			return rpc.Errorf(rpc.CodeUnavailable, "this instance shuts down: go on in another session")
		default:
		}
		req, err := worker.Recv()
		if errors.Is(err, io.EOF) {
			return nil // the rest is for another session
		}
		if err != nil {
			return err
		}
		if problem, err = s.pick(ctx, &row, req); err != nil {
			return err
		}
	}
}

// beginPicking finds out which order the worker wants, and what was picked of
// it before.
func (s *Service) beginPicking(ctx context.Context, worker *pickStream) (row kvtable.Row[picking], err error) {
	req, err := worker.Recv()
	if errors.Is(err, io.EOF) {
		return row, rpc.Errorf(rpc.CodeInvalidArgument, "order_id: no message named the order")
	}
	if err != nil {
		return row, err
	}
	order, err := s.order(ctx, req.GetOrderId())
	if err != nil {
		return row, err
	}
	if order.GetState() != confirmed {
		return row, rpc.Errorf(rpc.CodeFailedPrecondition, "order %s is not confirmed", order.GetOrderId())
	}
	row, err = s.picks.Get(ctx, order.GetOrderId())
	if errors.Is(err, kvtable.ErrNotFound) {
		row.Value, err = newPicking(order), nil
	}
	return row, err
}

// pick writes what the worker has done. problem says why it does not count.
func (s *Service) pick(ctx context.Context, row *kvtable.Row[picking], req *orderv1.PickOrderRequest) (problem string, err error) {
	next := *row
	if next.Value, problem = row.Value.after(req); problem != "" {
		return problem, nil
	}
	next.Revision, err = s.picks.Put(ctx, next)
	if errors.Is(err, kvtable.ErrConflict) {
		return "", rpc.Errorf(rpc.CodeAborted, "order %s is picked by another worker at the same time", row.Key)
	}
	*row = next
	return "", err
}
