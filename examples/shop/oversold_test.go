package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/examples/internal/backoff"
	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
)

const (
	clients     = 32
	ordersEach  = 5
	itemsLeft   = 100 // far fewer than are asked for
	gifts       = clients * ordersEach
	faultAfter  = 10 // answers
	shortLease  = 500 * time.Millisecond
	callTimeout = time.Second // much less than the test; what is open then is asked again
)

// 32 clients order the last 100 items, and a gift with each order, while
// replicas crash and are started again, and connections break.
func TestNeverOversold(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	s, err := openShop(slog.New(slog.DiscardHandler), shortLease)
	if err != nil {
		t.Fatal(err)
	}
	nc, err := s.settings.Connect("test")
	if err != nil {
		t.Fatal(err)
	}
	client := rpc.NewClient(nc, rpc.WithTimeout(callTimeout))
	r := &rush{
		t: t, orders: orderv1nats.NewOrderServiceClient(client), stock: inventoryv1nats.NewInventoryServiceClient(client),
		answers: map[string]orderv1.OrderState{}, progress: make(chan struct{}, clients*ordersEach),
	}
	r.add("item", itemsLeft)
	r.add("gift", gifts)
	f := faults{t: t, shop: s}
	var faulty sync.WaitGroup
	faulty.Go(func() { f.make(r.progress) })
	r.run()
	faulty.Wait()
	r.check()
	_ = client.Close()
	nc.Close()
	f.bury()
	// A service that is cut off cannot end in good order, so all have to be there.
	if err := errors.Join(s.awaitServices(), s.close()); err != nil {
		t.Error(err)
	}
	t.Logf("%d crashes, %d broken connections", f.crashes, f.breaks)
	if f.crashes < 4 || f.breaks < 2 {
		t.Error("too few to prove anything")
	}
}

// rush is all clients, and what each was told.
type rush struct {
	t        *testing.T
	orders   orderv1nats.OrderServiceClient
	stock    inventoryv1nats.InventoryServiceClient
	progress chan struct{} // an answer

	mu      sync.Mutex
	answers map[string]orderv1.OrderState // by request id
}

func (r *rush) add(product string, quantity int32) {
	_, err := r.stock.AddStock(r.t.Context(), &inventoryv1.AddStockRequest{ProductId: product, Quantity: quantity})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *rush) run() {
	var all sync.WaitGroup
	for c := range clients {
		all.Go(func() {
			for n := range ordersEach {
				r.place(fmt.Sprintf("client-%d-%d", c, n), 1+rand.Int32N(4))
				r.progress <- struct{}{}
			}
		})
	}
	all.Wait()
	close(r.progress)
}

// place repeats the request until it has an answer, as a client should.
func (r *rush) place(requestID string, quantity int32) {
	ctx, cancel := context.WithTimeout(r.t.Context(), 2*time.Minute)
	defer cancel()
	req := &orderv1.PlaceOrderRequest{RequestId: requestID, Lines: []*orderv1.Line{line("gift", 1), line("item", quantity)}}
	var err error
	for range (backoff.Policy{First: 5 * time.Millisecond, Limit: 100 * time.Millisecond}).Attempts(ctx) {
		_, err = r.orders.PlaceOrder(ctx, req, rpc.WithTimeout(callTimeout))
		switch rpc.CodeOf(err) {
		case rpc.CodeOK:
			r.answer(requestID, orderv1.OrderState_ORDER_STATE_CONFIRMED)
			return
		case rpc.CodeFailedPrecondition, rpc.CodeAborted:
			r.answer(requestID, orderv1.OrderState_ORDER_STATE_REJECTED)
			return
		case rpc.CodeUnavailable, rpc.CodeDeadlineExceeded: // again
		default:
			r.t.Errorf("%s: %v", requestID, err)
			return
		}
	}
	r.t.Errorf("%s has no answer: %v", requestID, err)
}

func (r *rush) answer(requestID string, state orderv1.OrderState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers[requestID] = state
}

// check compares what the clients were told with what was written.
func (r *rush) check() {
	var items, confirmed int32
	states := map[string]int{}
	orders := r.list()
	for _, order := range orders {
		states[state(order)+" "+order.GetRejection().GetReason().String()]++
		if told := r.answers[order.GetRequestId()]; told != order.GetState() {
			r.t.Errorf("the client was told %v of order %v", told, order)
		}
		if order.GetState() == orderv1.OrderState_ORDER_STATE_CONFIRMED {
			confirmed++
			items += order.GetLines()[1].GetQuantity()
		}
	}
	r.t.Logf("%v", states)
	if len(orders) != clients*ordersEach || len(r.answers) != clients*ordersEach || confirmed == 0 {
		r.t.Errorf("%d orders and %d answers, want %d", len(orders), len(r.answers), clients*ordersEach)
	}
	r.checkStock("item", items, itemsLeft)
	r.checkStock("gift", confirmed, gifts)
}

// checkStock wants what was sold to be what was confirmed, and nothing lost.
func (r *rush) checkStock(product string, sold, received int32) {
	res, err := r.stock.GetStock(r.t.Context(), &inventoryv1.GetStockRequest{ProductId: product}, rpc.WithTimeout(time.Minute))
	if err != nil {
		r.t.Fatal(err)
	}
	want := &inventoryv1.Stock{ProductId: product, Available: received - sold, Sold: sold, Received: received}
	if !proto.Equal(res.GetStock(), want) || sold > received {
		r.t.Errorf("stock %v, want %v", res.GetStock(), want)
	}
	r.t.Logf("%v", res.GetStock())
}

// list returns all orders. Every one of them was answered, so it is decided.
func (r *rush) list() (orders []*orderv1.Order) {
	token := ""
	for more := true; more; more = token != "" {
		res, err := r.orders.ListOrders(r.t.Context(), &orderv1.ListOrdersRequest{PageToken: token}, rpc.WithTimeout(time.Minute))
		if err != nil {
			r.t.Fatal(err)
		}
		orders, token = append(orders, res.GetOrders()...), res.GetNextPageToken()
	}
	return orders
}

// faults happen to one replica after the other.
type faults struct {
	t       *testing.T
	shop    *shop
	crashes int
	breaks  int
	dead    []<-chan error // of replicas that crashed
}

// make breaks something after so many answers, until there are no more.
func (f *faults) make(progress <-chan struct{}) {
	answers := 0
	for range progress {
		if answers++; answers%faultAfter != 0 {
			continue
		}
		r := f.shop.services[(answers/faultAfter)%len(f.shop.services)]
		f.breakConnection(r)
		if answers%(3*faultAfter) != 0 {
			f.crash(r)
		}
	}
}

// breakConnection makes the NATS server cut the connection. The replica makes
// a new one, unless it crashes.
func (f *faults) breakConnection(r *replica) {
	f.breaks++
	id, err := r.nc.GetClientID()
	if err != nil {
		return // it is still connecting again
	}
	if err := f.shop.nats.DisconnectClientByID(id); err != nil {
		f.t.Logf("%s is not connected: %v", r.name, err)
	}
}

// crash cuts the replica off in the middle of what it does: its connection
// goes, unflushed, and with it whatever it knew. A new one starts at once.
func (f *faults) crash(r *replica) {
	f.crashes++
	r.nc.Close()
	r.cancel()
	f.dead = append(f.dead, r.done)
	if err := f.shop.start(r); err != nil {
		f.t.Error(err)
	}
}

// bury waits for the goroutines of the dead. A process would not have them.
func (f *faults) bury() {
	for _, done := range f.dead {
		<-done // what they say of it does not matter
	}
}
