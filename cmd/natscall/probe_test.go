package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"github.com/nats-io/nuid"

	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcschema"
)

// probe tries one thing that a user of the shop does.
type probe func(ctx context.Context, p *peer) error

// The roots of the subjects of the shop's services.
const (
	inventoryRoot = "inventory.v1.InventoryService"
	orderRoot     = "order.v1.OrderService"
	feedRoot      = "order.v1.OrderFeedService"
)

// callers make a call of a unary method of each service.
var callers = map[string]func(context.Context, *rpc.Client, []byte, ...rpc.CallOption) error{
	inventoryRoot: func(ctx context.Context, c *rpc.Client, unknown []byte, opts ...rpc.CallOption) error {
		req := &inventoryv1.ReleaseRequest{ProductId: "apple", ReservationId: "none"}
		req.ProtoReflect().SetUnknown(unknown)
		_, err := inventoryv1nats.NewInventoryServiceClient(c).Release(ctx, req, opts...)
		return err
	},
	orderRoot: func(ctx context.Context, c *rpc.Client, unknown []byte, opts ...rpc.CallOption) error {
		req := &orderv1.GetOrderRequest{OrderId: "none"}
		req.ProtoReflect().SetUnknown(unknown)
		_, err := orderv1nats.NewOrderServiceClient(c).GetOrder(ctx, req, opts...)
		return err
	},
	feedRoot: func(ctx context.Context, c *rpc.Client, unknown []byte, opts ...rpc.CallOption) error {
		req := new(orderv1.ListFeedRequest)
		req.ProtoReflect().SetUnknown(unknown)
		_, err := orderv1nats.NewOrderFeedServiceClient(c).ListFeed(ctx, req, opts...)
		return err
	},
}

// served is nil if err comes from a handler.
func served(err error) error {
	var e *rpc.Error
	if errors.As(err, &e) && e.Remote() && e.Code() != rpc.CodeUnavailable {
		return nil
	}
	return err
}

// probesOf are what the runtime does for the calls of a service.
func (s *shop) probesOf(root string) map[string]probe {
	call := callers[root]
	return map[string]probe{
		"cancel " + root: func(ctx context.Context, p *peer) error {
			return s.whileHeld(ctx, p, call, func(cancel func(), h *hold) error {
				cancel()
				return awaitRefusal(ctx, p, h.ended)
			})
		},
		"alive " + root: func(ctx context.Context, p *peer) error {
			queries := make(chan []byte, 64)
			heard := func(m *nats.Msg) {
				select {
				case queries <- m.Data:
				default:
				}
			}
			// It listens before the call: when an instance has answered, all are not asked again.
			return s.listening(ctx, root+"._all.alive", heard, func() error {
				return s.whileHeld(ctx, p, call, func(_ func(), h *hold) error {
					return awaitQuery(ctx, p, queries, h.id)
				})
			})
		},
		"large " + root: func(ctx context.Context, p *peer) error {
			return served(call(ctx, p.client, large()))
		},
	}
}

// awaitQuery waits for a query about the call with an id, or for an error that NATS refuses p
// something.
func awaitQuery(ctx context.Context, p *peer, queries <-chan []byte, id []byte) error {
	for {
		select {
		case query := <-queries:
			if bytes.Contains(query, id) {
				return nil
			}
		case refused := <-p.refused:
			return errors.New(refused)
		case <-ctx.Done():
			return fmt.Errorf("nobody has asked: %w", ctx.Err())
		}
	}
}

// oneProbes are calls to one instance, of the methods that may run twice.
func oneProbes() map[string]probe {
	probes := map[string]probe{}
	for root, kinds := range map[string]map[string]rpc.Kind{
		inventoryRoot: {
			"AddStock": rpc.KindUnary, "GetStock": rpc.KindUnary, "ListStock": rpc.KindUnary, "Reserve": rpc.KindUnary, "Confirm": rpc.KindUnary,
			"Release": rpc.KindUnary, "WatchStock": rpc.KindServerStream, "ImportStock": rpc.KindClientStream,
		},
		orderRoot: {
			"PlaceOrder": rpc.KindUnary, "GetOrder": rpc.KindUnary, "ListOrders": rpc.KindUnary, "PickOrder": rpc.KindBidi,
		},
		feedRoot: {"ListFeed": rpc.KindUnary},
	} {
		for name, kind := range kinds {
			method := rpc.NewRawMethod(&rpc.ServiceDesc{Name: root}, rpc.MethodDesc{Name: name}, kind)
			probes["one "+root+"/"+name] = func(ctx context.Context, p *peer) error {
				var instance string
				if err := served(callers[root](ctx, p.client, nil, rpc.ResponseInstance(&instance))); err != nil {
					return err
				}
				return served(callOne(ctx, p.client, method, rpc.WithInstance(instance)))
			}
		}
	}
	return probes
}

// callOne makes a call with an empty request, and reads its first response.
func callOne(ctx context.Context, c *rpc.Client, m *rpc.Method, opts ...rpc.CallOption) error {
	if m.Kind() == rpc.KindUnary {
		return m.Call(ctx, c, new(rpc.Raw), new(rpc.Raw), opts...)
	}
	var req any
	if m.Kind() == rpc.KindServerStream {
		req = new(rpc.Raw)
	}
	stream, err := m.Open(ctx, c, req, opts...)
	if err != nil {
		return err
	}
	defer stream.Close()
	stream.CloseSend()
	if err = stream.Recv(new(rpc.Raw)); err == io.EOF {
		return nil
	}
	return err
}

// whileHeld makes a call whose handler waits, and calls f meanwhile.
func (s *shop) whileHeld(ctx context.Context, p *peer, call func(context.Context, *rpc.Client, []byte, ...rpc.CallOption) error, f func(cancel func(), h *hold) error) error {
	name := nuid.Next()
	h := s.hold(name)
	// What is tried is not that the call ends at its deadline, which is later than that of ctx.
	calling, cancel := context.WithTimeout(context.WithoutCancel(ctx), patience)
	ended := make(chan error, 1)
	go func() { ended <- call(calling, p.client, nil, rpc.WithHeader(holdHeader, name)) }()
	defer func() { cancel(); close(h.release); <-ended }()
	if err := awaitRefusal(ctx, p, h.running); err != nil {
		return err
	}
	return f(cancel, h)
}

// instancesProbe finds out that no instance of a service has a method.
func instancesProbe(root string) probe {
	return func(ctx context.Context, p *peer) error {
		ended := make(chan error, 1)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() { ended <- callers[root](ctx, p.client, nil) }()
		select {
		case err := <-ended:
			if rpc.CodeOf(err) == rpc.CodeUnimplemented {
				return nil
			}
			return fmt.Errorf("not UNIMPLEMENTED but %w", err)
		case refused := <-p.refused:
			cancel()
			<-ended
			return errors.New(refused)
		}
	}
}

// inventoryProbes call each method of the inventory.
func inventoryProbes() map[string]probe {
	type client = inventoryv1nats.InventoryServiceClient
	with := func(f func(context.Context, client) error) probe {
		return func(ctx context.Context, p *peer) error {
			return f(ctx, inventoryv1nats.NewInventoryServiceClient(p.client))
		}
	}
	return map[string]probe{
		"AddStock": with(func(ctx context.Context, c client) error {
			_, err := c.AddStock(ctx, &inventoryv1.AddStockRequest{ProductId: "apple", Quantity: 100})
			return err
		}),
		"GetStock": with(func(ctx context.Context, c client) error {
			_, err := c.GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: "apple"})
			return err
		}),
		"ListStock": with(func(ctx context.Context, c client) error {
			_, err := c.ListStock(ctx, &inventoryv1.ListStockRequest{})
			return err
		}),
		"Reserve": with(func(ctx context.Context, c client) error {
			_, err := c.Reserve(ctx, &inventoryv1.ReserveRequest{ProductId: "apple", ReservationId: nuid.Next(), Quantity: 1})
			return err
		}),
		"Confirm": with(func(ctx context.Context, c client) error {
			_, err := c.Confirm(ctx, &inventoryv1.ConfirmRequest{ProductId: "apple", ReservationId: "none"})
			return served(err)
		}),
		"Release": with(func(ctx context.Context, c client) error {
			_, err := c.Release(ctx, &inventoryv1.ReleaseRequest{ProductId: "apple", ReservationId: "none"})
			return served(err)
		}),
		"WatchStock": with(func(ctx context.Context, c client) error {
			stream, err := c.WatchStock(ctx, &inventoryv1.WatchStockRequest{})
			if err != nil {
				return err
			}
			defer stream.Close()
			_, err = stream.Recv()
			return err
		}),
		"ImportStock": with(func(ctx context.Context, c client) error {
			stream, err := c.ImportStock(ctx)
			if err != nil {
				return err
			}
			defer stream.Close()
			delivery := nuid.Next()
			for range 100 {
				if err := stream.Send(&inventoryv1.ImportStockRequest{DeliveryId: delivery, ProductId: "fig", Quantity: 1}); err != nil {
					break // CloseAndRecv says why
				}
			}
			_, err = stream.CloseAndRecv()
			return err
		}),
	}
}

// orderProbes call each method of the services for orders.
func (s *shop) orderProbes() map[string]probe {
	place := func(ctx context.Context, p *peer) (*orderv1.Order, error) {
		res, err := orderv1nats.NewOrderServiceClient(p.client).PlaceOrder(ctx, &orderv1.PlaceOrderRequest{
			RequestId: nuid.Next(), Lines: []*orderv1.Line{{ProductId: "apple", Quantity: 1}},
		})
		return res.GetOrder(), err
	}
	return map[string]probe{
		"PlaceOrder": func(ctx context.Context, p *peer) error {
			placed, err := place(ctx, p)
			if err == nil && placed.GetState() != orderv1.OrderState_ORDER_STATE_CONFIRMED {
				err = fmt.Errorf("the order is %v", placed)
			}
			return err
		},
		"GetOrder": func(ctx context.Context, p *peer) error { return served(callers[orderRoot](ctx, p.client, nil)) },
		"ListOrders": func(ctx context.Context, p *peer) error {
			_, err := orderv1nats.NewOrderServiceClient(p.client).ListOrders(ctx, &orderv1.ListOrdersRequest{})
			return err
		},
		"PickOrder": func(ctx context.Context, p *peer) error {
			stream, err := orderv1nats.NewOrderServiceClient(p.client).PickOrder(ctx)
			if err != nil {
				return err
			}
			defer stream.Close()
			if err := stream.Send(&orderv1.PickOrderRequest{Action: &orderv1.PickOrderRequest_OrderId{OrderId: "none"}}); err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			_, err = stream.Recv()
			return served(err)
		},
		"ListFeed": func(ctx context.Context, p *peer) error { return callers[feedRoot](ctx, p.client, nil) },
		"large response": func(ctx context.Context, p *peer) error {
			res, err := orderv1nats.NewOrderFeedServiceClient(p.client).ListFeed(ctx, new(orderv1.ListFeedRequest), rpc.WithHeader(largeHeader, "yes"))
			if n := len(res.ProtoReflect().GetUnknown()); err == nil && n < maxPayload {
				err = fmt.Errorf("the response has %d bytes", n)
			}
			return err
		},
		"OrderPlaced": func(ctx context.Context, p *peer) error {
			id, heard := nuid.Next(), make(chan struct{}, 1)
			return s.listening(ctx, "orders.new", func(m *nats.Msg) {
				if strings.Contains(string(m.Data), id) {
					heard <- struct{}{}
				}
			}, func() error {
				err := orderv1nats.NewOrderFeedServiceClient(p.client).OrderPlaced(ctx, &orderv1.OrderPlacedRequest{OrderId: id, ProductId: "apple"})
				if err != nil {
					return err
				}
				return awaitRefusal(ctx, p, heard)
			})
		},
	}
}

// publishOrder publishes an order, as anybody can, and waits until it is decided and taken from the
// stream that it came by.
func (s *shop) publishOrder(ctx context.Context) error {
	id := nuid.Next()
	if err := s.spy.Publish("orders.new", []byte(`{"order_id":"`+id+`","product_id":"apple"}`)); err != nil {
		return err
	}
	js, err := jetstream.New(s.spy)
	if err != nil {
		return err
	}
	for decided, left := false, true; !decided || left; { // until ctx ends
		m, err := s.spy.RequestWithContext(ctx, "order.v1.OrderService.GetOrder", []byte(`{"order_id":"`+id+`"}`))
		if err != nil {
			return err
		}
		decided = strings.Contains(string(m.Data), "_CONFIRMED") || strings.Contains(string(m.Data), "_REJECTED")
		stream, err := js.Stream(ctx, "orders-new")
		if err != nil {
			return err
		}
		left = stream.CachedInfo().State.Msgs > 0
	}
	return nil
}

// listening calls f while the account of the services is listened in on.
func (s *shop) listening(ctx context.Context, subject string, heard nats.MsgHandler, f func() error) error {
	sub, err := s.spy.Subscribe(subject, heard)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := s.spy.FlushWithContext(ctx); err != nil {
		return err
	}
	return f()
}

// ask publishes a request, and takes the first answer.
func ask(ctx context.Context, p *peer, subject string, data []byte, take func(*nats.Msg) error) error {
	inbox := p.nc.NewInbox()
	answers := make(chan *nats.Msg, 16)
	sub, err := p.nc.ChanSubscribe(inbox, answers)
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := p.nc.PublishRequest(subject, inbox, data); err != nil {
		return err
	}
	select {
	case m := <-answers:
		return take(m)
	case refused := <-p.refused:
		return errors.New(refused)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// discoveryProbes ask for services as nats micro does.
func discoveryProbes() map[string]probe {
	ask := func(ctx context.Context, p *peer, subject string, answer any) error {
		return ask(ctx, p, subject, nil, func(m *nats.Msg) error { return json.Unmarshal(m.Data, answer) })
	}
	out := map[string]probe{
		"list": func(ctx context.Context, p *peer) error { return ask(ctx, p, "$SRV.INFO", new(micro.Info)) },
	}
	for _, name := range []string{"InventoryService", "OrderService", "OrderFeedService"} {
		out["stats "+name] = func(ctx context.Context, p *peer) error { return ask(ctx, p, "$SRV.STATS."+name, new(micro.Stats)) }
		out["one "+name] = func(ctx context.Context, p *peer) error {
			var found micro.Ping
			if err := ask(ctx, p, "$SRV.PING."+name, &found); err != nil {
				return err
			}
			return ask(ctx, p, "$SRV.STATS."+name+"."+found.ID, new(micro.Stats))
		}
	}
	return out
}

// ownProbes use the methods that each service has beside its own, as a tool does.
func ownProbes() map[string]probe {
	out := map[string]probe{}
	for root := range callers {
		desc := &rpc.ServiceDesc{Name: root}
		files, health := rpc.SchemaMethod(desc), rpc.HealthMethod(desc)
		call := func(ctx context.Context, p *peer, opts ...rpc.CallOption) error {
			_, err := health.Call(ctx, p.client, new(natscallv1.GetHealthRequest), opts...)
			return err
		}
		out["schema "+root] = func(ctx context.Context, p *peer) error {
			_, err := rpcschema.Fetch(ctx, p.client, desc)
			return err
		}
		out["schema of one "+root] = func(ctx context.Context, p *peer) error {
			var instance string
			req := new(natscallv1.GetSchemaRequest)
			if _, err := files.Call(ctx, p.client, req, rpc.ResponseInstance(&instance)); err != nil {
				return err
			}
			_, err := files.Call(ctx, p.client, req, rpc.WithInstance(instance))
			return err
		}
		out["health "+root] = func(ctx context.Context, p *peer) error { return call(ctx, p) }
		out["health of one "+root] = func(ctx context.Context, p *peer) error {
			var instance string
			if err := call(ctx, p, rpc.ResponseInstance(&instance)); err != nil {
				return err
			}
			return call(ctx, p, rpc.WithInstance(instance))
		}
		out["health of all "+root] = func(ctx context.Context, p *peer) error {
			g := health.Gather(ctx, p.client, new(natscallv1.GetHealthRequest))
			answers := 0
			for one := range g.All() {
				if one.Err != nil {
					return one.Err
				}
				answers++
			}
			if answers == 0 {
				return errors.New("no instance has answered")
			}
			return nil
		}
		out["peers "+root] = func(ctx context.Context, p *peer) error {
			return ask(ctx, p, root+"._all.instances", append([]byte{0, 1, 7, 0}, nuid.Next()[:16]...), func(m *nats.Msg) error {
				if m.Header.Get("Status") != "" {
					return nats.ErrNoResponders
				}
				return nil
			})
		}
	}
	return out
}

// merged returns all probes.
func merged(all ...map[string]probe) map[string]probe {
	out := make(map[string]probe)
	for _, m := range all {
		maps.Copy(out, m)
	}
	return out
}

// run runs probes one after the other, in a good order: there has to be stock before it is sold.
func (s *shop) run(t *testing.T, p *peer, probes map[string]probe) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(probes)) {
		start := time.Now()
		if err := probes[name](testContext(t), p); err != nil {
			t.Errorf("%s fails after %v: %v", name, time.Since(start), err)
		}
	}
	for _, p := range append(s.peers, p) {
		select {
		case refused := <-p.refused:
			t.Errorf("NATS refuses: %s", refused)
		default:
		}
	}
}
