package order

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/rpc"
)

// openWorld has two replicas of each service, which serve, and 10 apples and a
// plum.
func openWorld(t *testing.T) *world {
	t.Helper()
	return open(newWorld(t))
}

// open starts the services of w, and gives them some stock.
func open(w *world) *world {
	t := w.t
	t.Helper()
	for range 2 {
		w.runInventory()
		w.runOrder()
	}
	w.add("apple", 10)
	w.add("plum", 1)
	// This call waits until the service is there; a plain request would not.
	if _, err := w.orders.ListOrders(t.Context(), &orderv1.ListOrdersRequest{}); err != nil {
		t.Fatal(err)
	}
	return w
}

func TestPlaceOrder(t *testing.T) {
	w := openWorld(t)
	res, err := w.orders.PlaceOrder(t.Context(), request("r", line("apple", 4), line("plum", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if order := res.GetOrder(); order.GetState() != confirmed || order.GetRequestId() != "r" || len(order.GetLines()) != 2 {
		t.Errorf("order %v", order)
	}
	w.checkStock("apple", 6, 0, 4)
	w.checkStock("plum", 0, 0, 1)
	got, err := w.orders.GetOrder(t.Context(), &orderv1.GetOrderRequest{OrderId: res.GetOrder().GetOrderId()})
	if err != nil || !proto.Equal(got.GetOrder(), res.GetOrder()) {
		t.Errorf("GetOrder: %v, %v", got, err)
	}
	w.heard(res.GetOrder().GetOrderId(), "apple")
	w.heard(res.GetOrder().GetOrderId(), "plum")
}

func TestRejectedOrder(t *testing.T) {
	w := openWorld(t)
	for _, tt := range []struct {
		product string
		code    rpc.Code
		reason  orderv1.RejectionReason
	}{
		{"plum", rpc.CodeFailedPrecondition, orderv1.RejectionReason_REJECTION_REASON_OUT_OF_STOCK},
		{"unicorn", rpc.CodeNotFound, orderv1.RejectionReason_REJECTION_REASON_UNKNOWN_PRODUCT},
	} {
		t.Run(tt.product, func(t *testing.T) {
			req := request("two of "+tt.product, line("apple", 4), line(tt.product, 2))
			_, err := w.orders.PlaceOrder(t.Context(), req)
			if rpc.CodeOf(err) != tt.code || !strings.Contains(err.Error(), tt.product) {
				t.Errorf("%v, want %v that names the product", err, tt.code)
			}
			order := detail(t, err)
			if order.GetState() != rejected || order.GetRejection().GetReason() != tt.reason {
				t.Errorf("order %v, want %v", order, tt.reason)
			}
			_, again := w.orders.PlaceOrder(t.Context(), req)
			if again == nil || again.Error() != err.Error() {
				t.Errorf("again: %v, want %v", again, err)
			}
			got, err := w.orders.GetOrder(t.Context(), &orderv1.GetOrderRequest{OrderId: order.GetOrderId()})
			if err != nil || !proto.Equal(got.GetOrder(), order) {
				t.Errorf("GetOrder: %v, %v", got, err)
			}
			w.checkStock("apple", 10, 0, 0)
		})
	}
}

func TestSameRequestAtOnce(t *testing.T) {
	w := newWorld(t)
	w.config.Lease = time.Minute // nobody takes over what takes long
	open(w)
	ids := make([]string, 64)
	var all sync.WaitGroup
	for i := range ids {
		all.Go(func() {
			res, err := w.orders.PlaceOrder(t.Context(), request("r", line("apple", 4)), rpc.WithTimeout(time.Minute))
			if err != nil {
				t.Error(err)
			}
			ids[i] = res.GetOrder().GetOrderId()
		})
	}
	all.Wait()
	for _, id := range ids {
		if id != ids[0] {
			t.Errorf("orders %q and %q", id, ids[0])
		}
	}
	w.checkStock("apple", 6, 0, 4)
	list, err := w.orders.ListOrders(t.Context(), &orderv1.ListOrdersRequest{})
	if err != nil || len(list.GetOrders()) != 1 {
		t.Errorf("orders %v, %v, want one", list, err)
	}
}

func TestAnotherRequestUnderTheSameID(t *testing.T) {
	w := openWorld(t)
	if _, err := w.orders.PlaceOrder(t.Context(), request("r", line("apple", 1))); err != nil {
		t.Fatal(err)
	}
	for name, lines := range map[string][]*orderv1.Line{
		"quantity": {line("apple", 2)}, "product": {line("plum", 1)}, "lines": {line("apple", 1), line("plum", 1)},
	} {
		_, err := w.orders.PlaceOrder(t.Context(), request("r", lines...))
		if rpc.CodeOf(err) != rpc.CodeAlreadyExists || !strings.Contains(err.Error(), `request_id: "r"`) {
			t.Errorf("%s: %v, want ALREADY_EXISTS", name, err)
		}
	}
	w.checkStock("apple", 9, 0, 1)
}

func TestInvalidRequests(t *testing.T) {
	w := openWorld(t)
	tooMany := make([]*orderv1.Line, maxLines+1)
	for i := range tooMany {
		tooMany[i] = line(fmt.Sprint(i), 1)
	}
	place := func(req *orderv1.PlaceOrderRequest) error {
		_, err := w.orders.PlaceOrder(t.Context(), req)
		return err
	}
	_, get := w.orders.GetOrder(t.Context(), &orderv1.GetOrderRequest{OrderId: "a.b"})
	_, list := w.orders.ListOrders(t.Context(), &orderv1.ListOrdersRequest{PageSize: -1})
	_, feed := w.feed.ListFeed(t.Context(), &orderv1.ListFeedRequest{Limit: 1001})
	for want, err := range map[string]error{
		"request_id: has 0 characters":                    place(request("", line("apple", 1))),
		"request_id: has 129 characters":                  place(request(strings.Repeat("r", 129), line("apple", 1))),
		"lines: there are 0":                              place(request("r")),
		"lines: there are 101":                            place(request("r", tooMany...)),
		`lines[0].product_id: ""`:                         place(request("r", &orderv1.Line{Quantity: 1})),
		`lines[0].product_id: "a b"`:                      place(request("r", line("a b", 1))),
		"lines[1].quantity: 0":                            place(request("r", line("apple", 1), line("plum", 0))),
		"lines[0].quantity: -1":                           place(request("r", line("apple", -1))),
		"lines[0].quantity: 1000001":                      place(request("r", line("apple", 1_000_001))),
		`lines[2].product_id: "apple" stands in lines[0]`: place(request("r", line("apple", 1), line("plum", 1), line("apple", 1))),
		`order_id: "a.b"`:                                 get,
		"page_size: -1 is not between 1 and 1000":         list,
		"limit: 1001 is not between 1 and 1000":           feed,
	} {
		if rpc.CodeOf(err) != rpc.CodeInvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want INVALID_ARGUMENT with %s", err, want)
		}
	}
	if _, err := w.orders.GetOrder(t.Context(), &orderv1.GetOrderRequest{OrderId: "none"}); rpc.CodeOf(err) != rpc.CodeNotFound {
		t.Errorf("an order that does not exist: %v", err)
	}
}

func TestListOrdersInPages(t *testing.T) {
	w := openWorld(t)
	for i := range 5 {
		if _, err := w.orders.PlaceOrder(t.Context(), request(fmt.Sprint(i), line("apple", 1))); err != nil {
			t.Fatal(err)
		}
	}
	seen, token := map[string]bool{}, ""
	for _, want := range []int{2, 2, 1} {
		res, err := w.orders.ListOrders(t.Context(), &orderv1.ListOrdersRequest{PageSize: 2, PageToken: token})
		if err != nil || len(res.GetOrders()) != want {
			t.Fatalf("%v, %v, want %d orders", res, err, want)
		}
		for _, order := range res.GetOrders() {
			seen[order.GetOrderId()] = true
		}
		token = res.GetNextPageToken()
	}
	if len(seen) != 5 || token != "" {
		t.Errorf("orders %v, then the token %q", seen, token)
	}
}

// What the nats command sends.
func TestPlainJSON(t *testing.T) {
	w := openWorld(t)
	ask := func(subject, body string) *nats.Msg {
		t.Helper()
		m, err := w.nc.Request(subject, []byte(body), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	var placed struct {
		Order struct{ OrderID, State string }
	}
	m := ask("order.v1.OrderService.PlaceOrder", `{"request_id":"r","lines":[{"product_id":"apple","quantity":2}]}`)
	if err := json.Unmarshal(m.Data, &placed); err != nil || placed.Order.State != "ORDER_STATE_CONFIRMED" {
		t.Errorf("PlaceOrder: %s, %v", m.Data, err)
	}
	m = ask("order.v1.OrderService.GetOrder", `{"order_id":"`+placed.Order.OrderID+`"}`)
	if !strings.Contains(string(m.Data), placed.Order.OrderID) || len(m.Header) != 0 {
		t.Errorf("GetOrder: %s, headers %v", m.Data, m.Header)
	}
	m = ask("order.v1.OrderService.GetOrder", `{"order_id":"none"}`)
	if m.Header.Get("Nats-Service-Error-Code") != "5" || !strings.Contains(m.Header.Get("Nats-Service-Error"), "none") {
		t.Errorf("GetOrder of none: headers %v", m.Header)
	}
	m = ask("inventory.v1.InventoryService.GetStock", `{"productId":"apple"}`)
	if !strings.Contains(string(m.Data), "available") {
		t.Errorf("GetStock: %s", m.Data)
	}
}

// Events on orders.new, from and for any NATS client.
func TestPlainEvents(t *testing.T) {
	w := openWorld(t)
	sub, err := w.nc.SubscribeSync("orders.new")
	if err != nil {
		t.Fatal(err)
	}
	res, err := w.orders.PlaceOrder(t.Context(), request("r", line("apple", 2)))
	if err != nil {
		t.Fatal(err)
	}
	m, err := sub.NextMsg(10 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var event map[string]any
	if err := json.Unmarshal(m.Data, &event); err != nil || event["orderId"] != res.GetOrder().GetOrderId() || event["productId"] != "apple" {
		t.Errorf("event %s, %v", m.Data, err)
	}
	for _, body := range []string{
		`{"order_id":"12345","product_id":"67890","sold":true}`,
		`{"order_id":"12345","product_id":"67890","sold":true}`, // heard once
		`{"order_id":"no.id","product_id":"67890","sold":true}`, // not kept
		`{"order_id":"1","product_id":"2","quantity":-1,"sold":true}`,
		`{"order_id":`,
		`{"orderId":"last","productId":"67890","quantity":3,"sold":true}`,
	} {
		if err := w.nc.Publish("orders.new", []byte(body)); err != nil {
			t.Fatal(err)
		}
	}
	w.heard("last", "67890")
	w.heard("12345", "67890")
	w.heard(res.GetOrder().GetOrderId(), "apple")
	feed, err := w.feed.ListFeed(t.Context(), &orderv1.ListFeedRequest{})
	if err != nil || len(feed.GetItems()) != 3 {
		t.Errorf("feed %v, %v, want 3 events", feed, err)
	}
	if newest, err := w.feed.ListFeed(t.Context(), &orderv1.ListFeedRequest{Limit: 1}); err != nil || len(newest.GetItems()) != 1 {
		t.Errorf("feed %v, %v, want 1 event", newest, err)
	}
}

// What became of an event shows in the feed's statistics, so a second one like
// the first is no error, and one that is not kept is.
func TestEventErrors(t *testing.T) {
	w := newWorld(t)
	f, err := NewFeed(t.Context(), w.nc, w.config)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := f.OrderPlaced(t.Context(), &orderv1.OrderPlacedRequest{OrderId: "1", ProductId: "2", Sold: true}); err != nil {
			t.Error(err)
		}
	}
	for want, event := range map[string]*orderv1.OrderPlacedRequest{
		`order_id: ""`:   {ProductId: "2", Sold: true},
		`product_id: ""`: {OrderId: "1", Sold: true},
		"quantity: 0":    {OrderId: "1", ProductId: "2", Quantity: new(int32), Sold: true},
	} {
		if err := f.OrderPlaced(t.Context(), event); rpc.CodeOf(err) != rpc.CodeInvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want INVALID_ARGUMENT with %s", err, want)
		}
	}
}

// Two shops on one NATS do not see each other.
func TestPrefix(t *testing.T) {
	w := openWorld(t)
	w.config.Prefix = "eu.shop"
	w.runInventory()
	w.runOrder()
	req := request("r", line("apple", 1))
	eu := rpc.NewClient(w.nc, rpc.WithSubjectPrefix("eu.shop"))
	defer eu.Close()
	_, err := w.orders.PlaceOrder(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	there := w.through(eu)
	if _, err := there.orders.PlaceOrder(t.Context(), req); rpc.CodeOf(err) != rpc.CodeNotFound {
		t.Errorf("an apple of the other shop: %v", err)
	}
	there.add("apple", 1)
	if _, err := there.orders.PlaceOrder(t.Context(), request("r2", line("apple", 1))); err != nil {
		t.Error(err)
	}
	there.checkStock("apple", 0, 0, 1)
	w.checkStock("apple", 9, 0, 1)
	there.heard(orderID("r2"), "apple")
}

func TestParseLease(t *testing.T) {
	if lease, err := ParseLease("2s"); err != nil || lease != 2*time.Second {
		t.Errorf("%v, %v", lease, err)
	}
	for _, text := range []string{"", "2", "99ms", "-1s"} {
		if _, err := ParseLease(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// Run says so where it cannot serve.
func TestRunFails(t *testing.T) {
	w := newWorld(t)
	nc := w.srv.Connect()
	nc.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := Run(ctx, nc, w.config); err == nil {
		t.Error("Run on a closed connection returned nil")
	}
}
