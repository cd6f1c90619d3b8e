package order

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/examples/internal/kvtable"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/rpc"
)

// publish publishes as "nats pub orders.new" does.
func (w *world) publish(messages ...string) {
	w.t.Helper()
	for _, m := range messages {
		if err := w.nc.Publish("orders.new", []byte(m)); err != nil {
			w.t.Fatal(err)
		}
	}
	if err := w.nc.Flush(); err != nil {
		w.t.Fatal(err)
	}
}

func published(id, product string, quantity int32) string {
	return fmt.Sprintf(`{"order_id":%q,"product_id":%q,"quantity":%d}`, id, product, quantity)
}

// intake is one that does not run.
func (w *world) intake(s *Service) *Intake {
	w.t.Helper()
	i, err := NewIntake(w.t.Context(), w.nc, s, w.config)
	if err != nil {
		w.t.Fatal(err)
	}
	return i
}

// allTaken waits until nothing is left of what was published.
func (w *world) allTaken() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 60*time.Second)
	defer cancel()
	js, err := jetstream.New(w.nc)
	if err != nil {
		w.t.Fatal(err)
	}
	var left uint64
	for range persistence.Attempts(ctx) {
		stream, err := js.Stream(ctx, "orders-new")
		if err != nil {
			w.t.Fatal(err)
		}
		if left = stream.CachedInfo().State.Msgs; left == 0 {
			return
		}
	}
	w.t.Fatalf("%d messages are left", left)
}

// wantOrder waits until the order is finished, as it should be.
func (w *world) wantOrder(s *Service, id string, state orderv1.OrderState, reason orderv1.RejectionReason) {
	w.t.Helper()
	if o := w.finished(s, id).Order.Msg; o.GetState() != state || o.GetRejection().GetReason() != reason || o.GetRequestId() != "" {
		w.t.Errorf("order %v, want it %v, reason %v", o, state, reason)
	}
}

// logged makes the world's services write their warnings to what it returns.
func (w *world) logged() *safeBuffer {
	log := new(safeBuffer)
	w.config.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn}))
	return log
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// What is published while nobody is there is placed when somebody comes, once.
func TestPublishedWhileAllAreDown(t *testing.T) {
	w := newWorld(t)
	stopInventory, stopOrder := w.runInventory(), w.runOrder()
	w.add("67890", 10)
	w.add("apple", 9)
	if _, err := w.orders.ListOrders(t.Context(), &orderv1.ListOrdersRequest{}); err != nil {
		t.Fatal(err)
	}
	stopOrder()
	stopInventory()
	w.publish(
		`{"order_id":"12345","product_id":"67890"}`, `{"order_id":"12345","product_id":"67890"}`,
		published("three", "apple", 3), published("many", "apple", 7), published("unknown", "unicorn", 1),
	)
	// The orders come first: until the inventory is there they wait.
	w.runOrder()
	w.runOrder()
	w.runInventory()
	w.allTaken()
	observer := w.service()
	w.wantOrder(observer, "12345", confirmed, 0)
	w.wantOrder(observer, "unknown", rejected, orderv1.RejectionReason_REJECTION_REASON_UNKNOWN_PRODUCT)
	three, many := w.finished(observer, "three"), w.finished(observer, "many")
	switch { // the first to come gets them
	case three.state() == confirmed && many.state() == rejected:
		w.checkStock("apple", 6, 0, 3)
	case three.state() == rejected && many.state() == confirmed:
		w.checkStock("apple", 2, 0, 7)
	default:
		t.Errorf("orders %v and %v, of which one can be had", three.Order.Msg, many.Order.Msg)
	}
	w.checkStock("67890", 9, 0, 1)
	w.heard("12345", "67890")
}

// A message that is as long as NATS allows, and quoted in the reason why it is
// refused, is terminated all the same.
func TestPublishedTooLongToQuote(t *testing.T) {
	w := newWorld(t)
	log := w.logged()
	w.runOrder()
	w.intake(w.service()) // makes the stream
	advisories, err := w.nc.SubscribeSync("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.orders-new.order-service")
	if err != nil {
		t.Fatal(err)
	}
	w.publish(`{"order_id":` + strings.Repeat("1", 1<<20-20) + `}`)
	if _, err := advisories.NextMsg(60 * time.Second); err != nil {
		t.Error(err)
	}
	w.allTaken()
	if text := log.String(); len(text) > 4096 || strings.Count(text, "a published order is refused") != 1 {
		t.Errorf("logged %d bytes: %.4096s", len(text), text)
	}
	if cut := brief(strings.Repeat("x", maxReason-1) + "é"); cut != strings.Repeat("x", maxReason-1) {
		t.Errorf("cut to %q", cut)
	}
}

// The inventory is away for longer than any try takes.
func TestPublishedWithoutInventory(t *testing.T) {
	w := newWorld(t)
	w.config.Lease = 100 * time.Millisecond
	log := w.logged()
	stop := w.runInventory()
	w.add("apple", 5)
	stop()
	w.runOrder()
	w.intake(w.service()) // makes the stream
	w.publish(published("patient", "apple", 2))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range persistence.Attempts(ctx) {
		if strings.Count(log.String(), "is tried again") > 1 {
			break
		}
	}
	w.runInventory()
	w.wantOrder(w.service(), "patient", confirmed, 0)
	w.allTaken()
	w.checkStock("apple", 3, 0, 2)
}

// A message whose order cannot be written comes again.
func TestPublishedWithoutBucket(t *testing.T) {
	w := newWorld(t)
	w.runInventory()
	w.add("apple", 5)
	kv := bucket(t, w, "orders")
	consumer, err := w.intake(w.service()).open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	w.publish(published("again", "apple", 2))
	m, err := consumer.Next()
	if err != nil {
		t.Fatal(err)
	}
	s := w.service()
	s.lease = testLease / 4
	s.orders = kvtable.New[record](mortalKV{kv, new(mortal)})
	s.take(t.Context(), m)
	w.runOrder()
	w.wantOrder(w.service(), "again", confirmed, 0)
	w.allTaken()
	w.checkStock("apple", 3, 0, 2)
}

// Two replicas place each order once, of many that are published several times
// at once, and what was sold adds up.
func TestManyArePublished(t *testing.T) {
	const orders, times, stock = 40, 3, 25
	w := openWorld(t)
	w.add("pear", stock)
	var all sync.WaitGroup
	for range times {
		nc := w.srv.Connect()
		all.Go(func() {
			for n := range orders {
				if err := nc.Publish("orders.new", []byte(published(fmt.Sprint("order-", n), "pear", 1))); err != nil {
					t.Error(err)
				}
			}
			if err := nc.Flush(); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	w.allTaken()
	observer, states := w.service(), map[orderv1.OrderState]int{}
	for n := range orders {
		states[w.finished(observer, fmt.Sprint("order-", n)).state()]++
	}
	if states[confirmed] != stock || states[rejected] != orders-stock {
		t.Errorf("%v, want %d confirmed", states, stock)
	}
	w.checkStock("pear", 0, 0, stock)
	list, err := w.orders.ListOrders(t.Context(), &orderv1.ListOrdersRequest{PageSize: 1000})
	if err != nil || len(list.GetOrders()) != orders {
		t.Errorf("%d orders, %v, want %d", len(list.GetOrders()), err, orders)
	}
}

// What can never be placed is refused once, with the reason in the log and in
// JetStream's advisory.
func TestPublishedAndRefused(t *testing.T) {
	w := newWorld(t)
	log := w.logged()
	w.runInventory()
	w.runOrder()
	w.add("apple", 10)
	w.intake(w.service()) // makes the stream
	advisories, err := w.nc.SubscribeSync("$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.orders-new.order-service")
	if err != nil {
		t.Fatal(err)
	}
	w.publish(published("taken", "apple", 1))
	w.wantOrder(w.service(), "taken", confirmed, 0)
	binary, err := proto.Marshal(&orderv1.OrderPlacedRequest{OrderId: "1", ProductId: "apple"})
	if err != nil {
		t.Fatal(err)
	}
	bad := []struct{ message, reason string }{
		{"", "order_id"},
		{"hello", "invalid_argument"},
		{`{"order_id":`, "invalid_argument"},
		{`{"order_id":"1","product_id":"apple","colour":"red"}`, "colour"},
		{string(binary) + "\x22\x00", "invalid_argument"}, // a field of another type
		{string(binary) + "\x50\x01", "unknown fields"},
		{`{"product_id":"apple"}`, "order_id"},
		{`{"order_id":"1"}`, "product_id"},
		{`{"order_id":"a.b","product_id":"apple"}`, "order_id"},
		{published("1", "apple", 0), "quantity"},
		{published("1", "apple", 1_000_001), "quantity"},
		{published(orderID("r"), "apple", 1), "PlaceOrder"},
		{published("taken", "apple", 2), "another order"},
		{published("taken", "pear", 1), "another order"},
	}
	for _, b := range bad {
		w.publish(b.message)
		m, err := advisories.NextMsg(10 * time.Second)
		if err != nil {
			t.Fatalf("%q is not refused: %v", b.message, err)
		}
		if !strings.Contains(string(m.Data), b.reason) {
			t.Errorf("%q: %s, want %s", b.message, m.Data, b.reason)
		}
	}
	w.allTaken()
	if n := strings.Count(log.String(), "a published order is refused"); n != len(bad) {
		t.Errorf("%d are refused, want %d:\n%s", n, len(bad), log)
	}
	w.checkStock("apple", 9, 0, 1)
	if list, err := w.orders.ListOrders(t.Context(), &orderv1.ListOrdersRequest{}); err != nil || len(list.GetOrders()) != 1 {
		t.Errorf("orders %v, %v, want one", list, err)
	}
}

// What the services announce is taken from the stream, and is no order.
func TestAnnouncementsAreNoOrders(t *testing.T) {
	w := newWorld(t)
	log := w.logged()
	w.runInventory()
	w.runOrder()
	w.add("apple", 10)
	w.add("plum", 10)
	res, err := w.orders.PlaceOrder(t.Context(), request("r", line("apple", 4), line("plum", 1)))
	if err != nil {
		t.Fatal(err)
	}
	w.publish(published("p", "apple", 1))
	observer := w.service()
	w.wantOrder(observer, "p", confirmed, 0)
	for _, sold := range [][2]string{{res.GetOrder().GetOrderId(), "apple"}, {res.GetOrder().GetOrderId(), "plum"}, {"p", "apple"}} {
		w.heard(sold[0], sold[1])
	}
	w.allTaken()
	w.checkStock("apple", 5, 0, 5)
	w.checkStock("plum", 9, 0, 1)
	if list, err := w.orders.ListOrders(t.Context(), &orderv1.ListOrdersRequest{}); err != nil || len(list.GetOrders()) != 2 {
		t.Errorf("orders %v, %v, want two", list, err)
	}
	if feed, err := w.feed.ListFeed(t.Context(), &orderv1.ListFeedRequest{}); err != nil || len(feed.GetItems()) != 3 {
		t.Errorf("feed %v, %v, want what was sold", feed, err)
	}
	if log.String() != "" {
		t.Errorf("log:\n%s", log)
	}
}

// A typed client can publish an order too: the stream that captures it does not
// disturb. It answers those who ask, whether a service runs or not.
func TestPublishedByOthers(t *testing.T) {
	w := newWorld(t)
	w.intake(w.service()) // makes the stream
	for i, codec := range []rpc.Codec{rpc.CodecProto, rpc.CodecJSON} {
		req := &orderv1.OrderPlacedRequest{OrderId: fmt.Sprint("typed-", i), ProductId: "apple"}
		if err := w.feed.OrderPlaced(t.Context(), req, rpc.WithCodec(codec)); err != nil {
			t.Error(err)
		}
	}
	js, err := jetstream.New(w.nc)
	if err != nil {
		t.Fatal(err)
	}
	if ack, err := js.Publish(t.Context(), "orders.new", []byte(published("known-to-be-kept", "apple", 1))); err != nil || ack.Stream != "orders-new" || ack.Sequence != 3 {
		t.Errorf("%+v, %v", ack, err)
	}
	w.runInventory()
	w.add("apple", 10)
	w.runOrder()
	observer := w.service()
	for _, id := range []string{"typed-0", "typed-1", "known-to-be-kept"} {
		w.wantOrder(observer, id, confirmed, 0)
	}
	w.allTaken()
	w.checkStock("apple", 7, 0, 3)
}

// A stream that exists is used, also where it captures more.
func TestStreamThatExists(t *testing.T) {
	w := newWorld(t)
	js, err := jetstream.New(w.nc)
	if err != nil {
		t.Fatal(err)
	}
	audit, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "audit", Subjects: []string{"orders.>"}})
	if err != nil {
		t.Fatal(err)
	}
	w.publish(published("early", "apple", 1))
	if err := w.nc.Publish("orders.old", []byte("something else")); err != nil {
		t.Fatal(err)
	}
	w.runInventory()
	w.add("apple", 10)
	w.runOrder()
	w.wantOrder(w.service(), "early", confirmed, 0)
	w.heard("early", "apple")
	if info, err := audit.Info(t.Context()); err != nil || info.State.Msgs != 3 { // with the event
		t.Errorf("%+v, %v, want 3 messages", info, err)
	}
}

// The stream may be lost, and with it what was on it: a new one is made.
func TestStreamIsDeleted(t *testing.T) {
	w := newWorld(t)
	log := w.logged()
	w.runInventory()
	w.add("apple", 10)
	w.runOrder()
	w.intake(w.service()) // makes the stream
	js, err := jetstream.New(w.nc)
	if err != nil {
		t.Fatal(err)
	}
	w.publish(published("before", "apple", 1))
	w.wantOrder(w.service(), "before", confirmed, 0)
	if err := js.DeleteStream(t.Context(), "orders-new"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for range persistence.Attempts(ctx) {
		if _, err = js.Stream(ctx, "orders-new"); err == nil {
			break
		}
	}
	w.publish(published("after", "apple", 1))
	w.wantOrder(w.service(), "after", confirmed, 0)
	if !strings.Contains(log.String(), "cannot take the orders") {
		t.Errorf("log:\n%s", log)
	}
}

// A published order is carried on by others where its owner falls asleep, and not
// given up. The owner finds out when it wakes up.
func TestPublishedOwnerThatWasAsleep(t *testing.T) {
	w := newWorld(t)
	w.runInventory()
	w.runOrder() // looks after what the others leave
	w.add("pear", 5)
	awake := make(chan struct{})
	s := w.service()
	asleep := &sleepy{InventoryServiceClient: s.inventory, awake: awake}
	s.inventory = asleep
	slept := make(chan error, 1)
	go func() { slept <- s.placePublished(t.Context(), []byte(published("p", "pear", 2))) }()
	w.wantOrder(w.service(), "p", confirmed, 0) // by the one that has taken it over
	close(awake)
	if err := <-slept; err != nil || asleep.late != nil {
		t.Errorf("%v and %v, want what the other has done", err, asleep.late)
	}
	w.checkStock("pear", 3, 0, 2)
}

// Without a stream there is no intake.
func TestIntakeWithoutConnection(t *testing.T) {
	w := newWorld(t)
	s := w.service()
	nc := w.srv.Connect()
	nc.Close()
	if _, err := NewIntake(t.Context(), nc, s, w.config); err == nil || !strings.Contains(err.Error(), nats.ErrConnectionClosed.Error()) {
		t.Errorf("%v, want that the connection is closed", err)
	}
}
