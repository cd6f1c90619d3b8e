package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/examples/internal/backoff"
	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
)

// story is a customer of the shop, who tells what happens and checks it.
type story struct {
	out    io.Writer
	shop   *shop
	nc     *nats.Conn
	stock  inventoryv1nats.InventoryServiceClient
	orders orderv1nats.OrderServiceClient
	feed   orderv1nats.OrderFeedServiceClient
	heard  *nats.Subscription // of orders.new, as any NATS client may have
	placed atomic.Int64       // calls of PlaceOrder
	first  *orderv1.Order
}

// eventsHeard are those of the published order, of Ada's two lines, and of the
// crowd's orders.
const eventsHeard = 1 + 2 + 9

// tellStory fails at the first thing that is not as it says.
func tellStory(ctx context.Context, out io.Writer, shop *shop) error {
	ctx, cancel := context.WithTimeout(ctx, storyTime)
	defer cancel()
	nc, err := shop.settings.Connect("customer")
	if err != nil {
		return err
	}
	defer nc.Close()
	client := rpc.NewClient(nc)
	defer client.Close()
	s := &story{
		out: out, shop: shop, nc: nc,
		stock:  inventoryv1nats.NewInventoryServiceClient(client),
		orders: orderv1nats.NewOrderServiceClient(client),
		feed:   orderv1nats.NewOrderFeedServiceClient(client),
	}
	if s.heard, err = nc.SubscribeSync("orders.new"); err != nil {
		return err
	}
	fmt.Fprintf(out, "A shop: NATS with JetStream at %s, %d replicas of the inventory, %d of the orders.\n", shop.url(), replicas, replicas)
	for i, chapter := range []struct {
		title string
		tell  func(context.Context) error
	}{
		{"Goods come in. Nobody has told the client where the inventory is: it calls a subject.", s.goodsComeIn},
		{"A lorry brings 3000 lines: one call, to which the client streams. Line 2001 is wrong.", s.lorryComes},
		{`Both services are stopped, and somebody publishes an order: nats pub orders.new '` + published + `'`, s.publishedOrder},
		{"Ada orders. Both lines are reserved, then both are sold: all or nothing.", s.adaOrders},
		{"Ada did not see the answer, and sends the same request again. She gets the same order.", s.adaRepeats},
		{"Bob wants more plums than there are. The apples that were reserved for him are released.", s.bobIsRefused},
		{"20 customers at once want 2 pears each, of 19. Each pear is sold once.", s.crowd},
		{"A worker with a scanner picks Ada's order: a call in which both sides stream, and talk.", s.adaIsPicked},
		{"Any NATS client can call: nats req order.v1.OrderService.GetOrder in JSON.", s.plainRequest},
		{"Each line that was sold is an event on orders.new. Ada's order, as nats sub shows it:", s.listen},
		{"A screen shows the apples: a call to which the inventory streams. It goes on while both replicas restart.", s.screen},
		{"What has become of the goods. Every line adds up.", s.inventory},
		{"What NATS knows of the services: nats micro ls, and how many requests each instance has served.",
			func(context.Context) error { return s.discovery() }},
	} {
		fmt.Fprintf(out, "\n%d. %s\n", i+1, chapter.title)
		if err := chapter.tell(ctx); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return nil
}

func (s *story) goodsComeIn(ctx context.Context) error {
	for _, goods := range []*inventoryv1.AddStockRequest{
		{ProductId: "apple", Quantity: 10}, {ProductId: "pear", Quantity: 20}, {ProductId: "plum", Quantity: 1},
		{ProductId: "67890", Quantity: 5},
	} {
		res, err := s.stock.AddStock(ctx, goods)
		if err != nil {
			return err
		}
		s.say("%-5s %2d available", res.GetStock().GetProductId(), res.GetStock().GetAvailable())
		if err := expect(res.GetStock().GetAvailable() == goods.GetQuantity(), "%v of %v are available", res.GetStock(), goods); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) adaOrders(ctx context.Context) (err error) {
	if s.first, err = s.place(ctx, "ada-1", line("apple", 2), line("pear", 1)); err != nil {
		return err
	}
	s.say("order %s of 2 apples and 1 pear: %s", s.first.GetOrderId(), state(s.first))
	return s.expectStock(ctx, "apple", 8, 0, 2)
}

func (s *story) adaRepeats(ctx context.Context) error {
	again, err := s.place(ctx, "ada-1", line("apple", 2), line("pear", 1))
	if err != nil {
		return err
	}
	s.say("order %s: %s, and there are still 8 apples", again.GetOrderId(), state(again))
	if err := expect(again.GetOrderId() == s.first.GetOrderId(), "it is another order"); err != nil {
		return err
	}
	return s.expectStock(ctx, "apple", 8, 0, 2)
}

func (s *story) bobIsRefused(ctx context.Context) error {
	_, err := s.place(ctx, "bob-1", line("apple", 3), line("plum", 2))
	s.say("the call fails: %v", err)
	var e *rpc.Error
	if !errors.As(err, &e) || e.Code() != rpc.CodeFailedPrecondition || len(e.Details()) != 1 {
		return fmt.Errorf("error %w, not one about the stock, with the order", err)
	}
	order, isOrder := e.Details()[0].(*orderv1.Order)
	if err := expect(isOrder && order.GetState() == orderv1.OrderState_ORDER_STATE_REJECTED, "it is not rejected: %v", order); err != nil {
		return err
	}
	s.say("order %s, a detail of the error: %s, and there are 8 apples again", order.GetOrderId(), state(order))
	return errors.Join(s.expectStock(ctx, "apple", 8, 0, 2), s.expectStock(ctx, "plum", 1, 0, 0))
}

func (s *story) crowd(ctx context.Context) error {
	var served, refused atomic.Int64
	var customers sync.WaitGroup
	for i := range 20 {
		customers.Go(func() {
			_, err := s.place(ctx, fmt.Sprintf("crowd-%d", i), line("pear", 2))
			switch rpc.CodeOf(err) {
			case rpc.CodeOK:
				served.Add(1)
			case rpc.CodeFailedPrecondition:
				refused.Add(1)
			default:
				s.say("customer %d: %v", i, err)
			}
		})
	}
	customers.Wait()
	s.say("%d got theirs, %d were refused, 1 pear is left", served.Load(), refused.Load())
	return errors.Join(
		expect(served.Load() == 9 && refused.Load() == 11, "not 9 and 11"),
		s.expectStock(ctx, "pear", 1, 0, 19))
}

func (s *story) plainRequest(ctx context.Context) error {
	m, err := s.nc.RequestWithContext(ctx, "order.v1.OrderService.GetOrder", []byte(`{"order_id":"`+s.first.GetOrderId()+`"}`))
	if err != nil {
		return err
	}
	s.say("%s", m.Data)
	var res orderv1.GetOrderResponse
	if err := protojson.Unmarshal(m.Data, &res); err != nil {
		return err
	}
	return expect(proto.Equal(res.GetOrder(), s.first), "it is not Ada's order: %v", s.first)
}

// listen reads the events of Ada's lines, of the crowd's, and of the order that
// was published.
func (s *story) listen(ctx context.Context) error {
	sold := map[string]int32{}
	for events := 0; events < eventsHeard; {
		m, err := s.heard.NextMsgWithContext(ctx)
		if err != nil {
			return fmt.Errorf("after %v: %w", sold, err)
		}
		var event orderv1.OrderPlacedRequest
		if err := protojson.Unmarshal(m.Data, &event); err != nil {
			return err
		}
		if !event.GetSold() {
			continue // the published order
		}
		events++
		sold[event.GetProductId()] += event.GetQuantity()
		if event.GetOrderId() == s.first.GetOrderId() {
			s.say("%s", m.Data)
		}
	}
	s.say("and 10 more. Together: %d apples, %d pears, %d of 67890", sold["apple"], sold["pear"], sold["67890"])
	return errors.Join(expect(sold["apple"] == 2 && sold["pear"] == 19 && sold["67890"] == 1, "not 2, 19 and 1"), s.feedHas(ctx))
}

// feedHas waits until the feed has heard the same.
func (s *story) feedHas(ctx context.Context) error {
	for range (backoff.Policy{First: time.Millisecond, Limit: 100 * time.Millisecond}).Attempts(ctx) {
		res, err := s.feed.ListFeed(ctx, &orderv1.ListFeedRequest{})
		if err != nil {
			return err
		}
		if len(res.GetItems()) < eventsHeard {
			continue // nobody waits for the handlers of events
		}
		s.say("OrderFeedService.ListFeed returns %d events.", len(res.GetItems()))
		return expect(len(res.GetItems()) == eventsHeard, "not %d: %v", eventsHeard, res.GetItems())
	}
	return fmt.Errorf("not all events were heard: %w", ctx.Err())
}

func (s *story) inventory(ctx context.Context) error {
	res, err := s.stock.ListStock(ctx, &inventoryv1.ListStockRequest{})
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(s.out, 0, 0, 3, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "PRODUCT\tRECEIVED\t=\tAVAILABLE\t+\tRESERVED\t+\tSOLD\t")
	var wrong []error
	for _, p := range res.GetStock() {
		fmt.Fprintf(table, "%s\t%d\t\t%d\t\t%d\t\t%d\t\n", p.GetProductId(), p.GetReceived(), p.GetAvailable(), p.GetReserved(), p.GetSold())
		wrong = append(wrong, expect(p.GetReceived() == p.GetAvailable()+p.GetReserved()+p.GetSold() && p.GetReserved() == 0, "%v does not add up", p))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return errors.Join(append(wrong, expect(len(res.GetStock()) == 6, "there are not 6 products"))...)
}

// place orders, and counts it.
func (s *story) place(ctx context.Context, requestID string, lines ...*orderv1.Line) (*orderv1.Order, error) {
	s.placed.Add(1)
	res, err := s.orders.PlaceOrder(ctx, &orderv1.PlaceOrderRequest{RequestId: requestID, Lines: lines})
	return res.GetOrder(), err
}

func (s *story) expectStock(ctx context.Context, product string, available, reserved, sold int32) error {
	res, err := s.stock.GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: product})
	if err != nil {
		return err
	}
	p := res.GetStock()
	return expect(p.GetAvailable() == available && p.GetReserved() == reserved && p.GetSold() == sold,
		"the stock is %v, not %d available, %d reserved, %d sold", p, available, reserved, sold)
}

func line(product string, quantity int32) *orderv1.Line {
	return &orderv1.Line{ProductId: product, Quantity: quantity}
}

// state is the state without the prefix that Protobuf wants.
func state(o *orderv1.Order) string { return strings.TrimPrefix(o.GetState().String(), "ORDER_STATE_") }
