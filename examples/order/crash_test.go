package order

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/natscall/natscall/examples/internal/kvtable"
	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/rpc"
)

// crash is an order whose replica crashes at some point.
type crash struct {
	name      string
	replica   *mortal
	accepted  bool // it crashes when the order has been written
	outOfLuck bool // the second line cannot be had
	lines     []*orderv1.Line

	res *orderv1.PlaceOrderResponse
	err error
}

// A replica crashes at every point of an order, before an effect and between
// an effect and its answer. Two others finish what it has left, at once.
func TestCrashAnywhere(t *testing.T) {
	w := newWorld(t)
	w.runInventory()
	w.runOrder()
	w.runOrder()
	kv := bucket(t, w, "orders")
	var crashes []*crash
	for _, outOfLuck := range []bool{false, true} {
		whole := newCrash(w, "whole", outOfLuck, math.MaxInt, false)
		whole.place(w, kv)
		for n := range whole.replica.done {
			for _, torn := range []bool{false, true} {
				crashes = append(crashes, newCrash(w, fmt.Sprintf("%d-%t", n, torn), outOfLuck, n, torn))
			}
		}
	}
	if len(crashes) < 2*(9+7) { // two lines: create, 2 reserve, 4 more writes and so on
		t.Fatalf("there are only %d points to crash at", len(crashes))
	}
	var all sync.WaitGroup
	for _, c := range crashes {
		all.Go(func() { c.place(w, kv) })
	}
	all.Wait()
	observer := w.service()
	ends := map[orderv1.OrderState]int{}
	for _, c := range crashes {
		ends[c.check(w, observer)]++
	}
	if ends[confirmed] == 0 || ends[rejected] == 0 {
		t.Errorf("orders went one way only: %v", ends)
	}
	t.Logf("%d points: %v", len(crashes), ends)
}

// The replica that has got a message crashes at every point. Others finish what
// it has left: there is one order, which is sold once or not at all.
func TestIntakeCrashesAnywhere(t *testing.T) {
	w := newWorld(t)
	w.runInventory()
	kv := bucket(t, w, "orders")
	consumer, err := w.intake(w.service()).open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	// begin publishes an order, and gives it to a replica that crashes.
	var dying sync.WaitGroup
	begin := func(id string, stock int32, replica *mortal) {
		w.add(id, stock)
		w.publish(published(id, id, 2))
		m, err := consumer.Next()
		if err != nil {
			t.Fatal(err)
		}
		s := w.service()
		s.lease = testLease / 4 // how long a dead replica tries on
		replica.wrap(s, kv)
		dying.Go(func() { s.take(t.Context(), mortalMsg{m, replica}) })
	}
	stocks := map[string]int32{}
	for _, stock := range []int32{1, 5} {
		whole := &mortal{left: math.MaxInt}
		begin(fmt.Sprint("whole-", stock), stock, whole)
		dying.Wait()
		for n := range whole.done {
			for _, torn := range []bool{false, true} {
				id := fmt.Sprintf("%d-%d-%t", stock, n, torn)
				stocks[id] = stock
				begin(id, stock, &mortal{left: n, torn: torn})
			}
		}
	}
	if len(stocks) < 2*(9+6) { // write, reserve, write, confirm, write, announce, flush, write, ack
		t.Fatalf("there are only %d points to crash at", len(stocks))
	}
	dying.Wait()
	w.runOrder()
	w.runOrder()
	w.allTaken()
	observer := w.service()
	for id, stock := range stocks {
		if stock == 1 {
			w.wantOrder(observer, id, rejected, orderv1.RejectionReason_REJECTION_REASON_OUT_OF_STOCK)
			w.checkStock(id, 1, 0, 0)
			continue
		}
		w.wantOrder(observer, id, confirmed, 0)
		w.checkStock(id, 3, 0, 2)
	}
	t.Logf("%d points", len(stocks))
}

func bucket(t *testing.T, w *world, name string) jetstream.KeyValue {
	t.Helper()
	w.service() // makes it
	js, err := jetstream.New(w.nc)
	if err != nil {
		t.Fatal(err)
	}
	kv, err := js.KeyValue(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return kv
}

// newCrash delivers two products of the crash's own: 5 of the first, and of
// the second 5 or 1.
func newCrash(w *world, point string, outOfLuck bool, n int, torn bool) *crash {
	c := &crash{name: fmt.Sprintf("%s-%t", point, outOfLuck), replica: &mortal{left: n, torn: torn}, accepted: n > 0 || torn, outOfLuck: outOfLuck}
	second := int32(5)
	if outOfLuck {
		second = 1
	}
	w.add("first-"+c.name, 5)
	w.add("second-"+c.name, second)
	c.lines = []*orderv1.Line{line("first-"+c.name, 3), line("second-"+c.name, 2)}
	return c
}

func (c *crash) place(w *world, kv jetstream.KeyValue) {
	s := w.service()
	s.lease = testLease / 4 // how long a dead replica tries on
	c.replica.wrap(s, kv)
	ctx, cancel := context.WithTimeout(w.t.Context(), testLease)
	defer cancel()
	c.res, c.err = s.PlaceOrder(ctx, request(c.name, c.lines...))
}

// check finds the order as it should be, and returns its state.
func (c *crash) check(w *world, observer *Service) orderv1.OrderState {
	w.t.Helper()
	id := orderID(c.name)
	if _, err := observer.orders.Get(w.t.Context(), id); errors.Is(err, kvtable.ErrNotFound) {
		if c.accepted {
			w.t.Errorf("%s: the order is lost", c.name)
		}
		c.checkStock(w, 0)
		return 0
	}
	end := w.finished(observer, id)
	switch {
	case end.state() == rejected:
		c.checkStock(w, 0)
	case c.outOfLuck:
		w.t.Errorf("%s: confirmed, although out of stock", c.name)
	default:
		c.checkStock(w, 1)
		w.heard(id, c.lines[0].GetProductId())
		w.heard(id, c.lines[1].GetProductId())
	}
	if c.err == nil && end.state() != confirmed {
		w.t.Errorf("%s: the caller was told that it is %v, but it is %v", c.name, c.res, end.state())
	}
	return end.state()
}

// checkStock wants both lines sold so many times, and nothing reserved.
func (c *crash) checkStock(w *world, times int32) {
	w.t.Helper()
	second := int32(5)
	if c.outOfLuck {
		second = 1
	}
	w.checkStock(c.lines[0].GetProductId(), 5-3*times, 0, 3*times)
	w.checkStock(c.lines[1].GetProductId(), second-2*times, 0, 2*times)
}

// sleepy falls asleep before it reserves the second product, and wakes up when
// others have finished the order.
type sleepy struct {
	inventoryv1nats.InventoryServiceClient
	awake <-chan struct{}
	late  error
}

func (c *sleepy) Reserve(ctx context.Context, req *inventoryv1.ReserveRequest, opts ...rpc.CallOption) (*inventoryv1.ReserveResponse, error) {
	if req.GetProductId() != "pear" {
		return c.InventoryServiceClient.Reserve(ctx, req, opts...)
	}
	<-c.awake
	// The request is under way, so it does not end with its caller.
	res, err := c.InventoryServiceClient.Reserve(context.WithoutCancel(ctx), req, opts...)
	c.late = err
	return res, err
}

func TestOwnerThatWasAsleep(t *testing.T) {
	w := newWorld(t)
	w.runInventory()
	w.runOrder()
	w.add("apple", 5)
	w.add("pear", 5)
	awake := make(chan struct{})
	s := w.service()
	asleep := &sleepy{InventoryServiceClient: s.inventory, awake: awake}
	s.inventory = asleep
	answer := make(chan error, 1)
	go func() {
		_, err := s.PlaceOrder(t.Context(), request("r", line("apple", 2), line("pear", 2)))
		answer <- err
	}()
	end := w.finished(w.service(), orderID("r"))
	if got := end.Order.Msg.GetRejection().GetReason(); got != orderv1.RejectionReason_REJECTION_REASON_INTERRUPTED {
		t.Errorf("order %v, want it interrupted", end.Order.Msg)
	}
	close(awake)
	if err := <-answer; rpc.CodeOf(err) != rpc.CodeAborted || detail(t, err).GetState() != rejected {
		t.Errorf("PlaceOrder: %v, want what the others decided", err)
	}
	if rpc.CodeOf(asleep.late) != rpc.CodeFailedPrecondition || !strings.Contains(asleep.late.Error(), "released") {
		t.Errorf("the late Reserve: %v, want it refused", asleep.late)
	}
	w.checkStock("apple", 5, 0, 0)
	w.checkStock("pear", 5, 0, 0)
}

// Without an inventory an order is not lost and not half done: it is rejected
// when the inventory is back.
func TestInventoryIsDown(t *testing.T) {
	w := newWorld(t)
	w.config.Lease = 100 * time.Millisecond
	w.runOrder()
	stop := w.runInventory()
	w.add("apple", 5)
	stop()
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := w.orders.PlaceOrder(ctx, request("r", line("apple", 2))); err == nil {
		t.Error("an order without an inventory has succeeded")
	}
	w.runInventory()
	if end := w.finished(w.service(), orderID("r")); end.state() != rejected {
		t.Errorf("order %v, want it rejected", end.Order.Msg)
	}
	w.checkStock("apple", 5, 0, 0)
}

// A caller that has gone does not leave its order half done.
func TestCallerHasGone(t *testing.T) {
	w := newWorld(t)
	w.runInventory()
	w.add("apple", 5)
	s := w.service() // nobody looks after its orders
	ctx, cancel := context.WithCancel(t.Context())
	s.inventory = &gone{s.inventory, cancel}
	if _, err := s.PlaceOrder(ctx, request("r", line("apple", 2))); err != nil {
		t.Errorf("PlaceOrder: %v", err)
	}
	if ctx.Err() == nil {
		t.Fatal("the caller has not gone")
	}
	w.checkStock("apple", 3, 0, 2)
}

// gone cancels the caller's context in the middle of the order.
type gone struct {
	inventoryv1nats.InventoryServiceClient
	cancel func()
}

func (c *gone) Reserve(ctx context.Context, req *inventoryv1.ReserveRequest, opts ...rpc.CallOption) (*inventoryv1.ReserveResponse, error) {
	c.cancel()
	return c.InventoryServiceClient.Reserve(ctx, req, opts...)
}
