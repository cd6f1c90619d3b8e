package rpc_test

import (
	"context"
	"errors"
	"testing"
	"time"

	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// The code of docs/deadlines.md comes from this file.

var errTenantGone = errors.New("the tenant was removed")

// backend asks the order service for what its own callers want.
type backend struct {
	orderv1nats.UnimplementedOrderServiceServer
	orders orderv1nats.OrderServiceClient
	ended  chan error // how the contexts of handlers have ended
}

func (b backend) GetOrder(ctx context.Context, req *orderv1.GetOrderRequest) (*orderv1.GetOrderResponse, error) {
	defer b.note(ctx)
	return b.orders.GetOrder(ctx, req) // which has what is left of the caller's time
}

// note notes how the context of a handler has ended.
func (b backend) note(ctx context.Context) {
	<-ctx.Done()
	b.ended <- context.Cause(ctx)
}

// inBackend calls f with a client of a backend, in virtual time.
func inBackend(t *testing.T, f func(t *testing.T, orders orderv1nats.OrderServiceClient, ended <-chan error)) {
	rpctest.Bubble(t, func(t *testing.T, nats *rpctest.Server) {
		inner := callOrders(t, nats.Connect())
		startOrders(t, nats.Connect(), shelf{takes: time.Hour})
		b := backend{orders: inner, ended: make(chan error, 1)}
		srv := rpc.NewServer(nats.Connect(), rpc.WithSubjectPrefix("front"))
		must(t, orderv1nats.RegisterOrderServiceServer(srv, b))
		must(t, srv.Start(testContext(t)))
		defer shutdown(t, srv)
		client := rpc.NewClient(nats.Connect(), rpc.WithSubjectPrefix("front"))
		defer client.Close()
		f(t, orderv1nats.NewOrderServiceClient(client), b.ended)
	})
}

func TestDeadlinesGuideTimeout(t *testing.T) {
	inBackend(t, func(t *testing.T, orders orderv1nats.OrderServiceClient, ended <-chan error) {
		ctx, req := t.Context(), &orderv1.GetOrderRequest{OrderId: "42"}
		_, err := orders.GetOrder(ctx, req, rpc.WithTimeout(100*time.Millisecond))
		late := errors.Is(err, context.DeadlineExceeded) // and its code is CodeDeadlineExceeded
		if cause := <-ended; !late || rpc.CodeOf(err) != rpc.CodeDeadlineExceeded || rpc.CodeOf(cause) != rpc.CodeDeadlineExceeded {
			t.Errorf("%v, and for the handler %v", err, cause)
		}
	})
}

func TestDeadlinesGuideCancel(t *testing.T) {
	inBackend(t, func(t *testing.T, orders orderv1nats.OrderServiceClient, ended <-chan error) {
		ctx, req := t.Context(), &orderv1.GetOrderRequest{OrderId: "42"}
		ctx, cancel := context.WithCancelCause(ctx)
		time.AfterFunc(50*time.Millisecond, func() { cancel(errTenantGone) })
		_, err := orders.GetOrder(ctx, req)
		gone := errors.Is(err, errTenantGone) // and its code is CodeCanceled
		if cause := <-ended; !gone || rpc.CodeOf(err) != rpc.CodeCanceled || rpc.CodeOf(cause) != rpc.CodeCanceled {
			t.Errorf("%v, and for the handler %v", err, cause)
		}
	})
}
