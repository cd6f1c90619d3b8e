package main

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
)

// running is a command that runs beside the test.
type running struct {
	out, err *screen
	stop     context.CancelFunc // as Ctrl-C does
	exited   chan int
}

// startCommand runs the tool on the shop's server.
func (s *shop) startCommand(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context()) // without a deadline, as in main
	r := &running{newScreen(), newScreen(), stop, make(chan int, 1)}
	args = append(args, "--server", s.srv.URL(), "--no-context")
	go func() { r.exited <- run(ctx, args, strings.NewReader(""), r.out, r.err) }()
	t.Cleanup(stop)
	return r
}

// exit waits until the command has ended.
func (r *running) exit(ctx context.Context, t *testing.T) int {
	t.Helper()
	select {
	case status := <-r.exited:
		return status
	case <-ctx.Done():
		t.Fatalf("the command does not end; it has written:\n%s%s", r.out, r.err)
		return 0
	}
}

// openShop is the shop on a server without users.
func openShop(t *testing.T) *shop {
	t.Helper()
	s := newShop(t, func(*server.Options) {})
	s.login = func(string) []nats.Option { return nil }
	must(t, s.serveInventory("inventory"))
	must(t, s.serveOrders("order"))
	return s
}

// steady replaces what differs from run to run. Calls and ids are numbered as they appear.
func steady(text string) string {
	for _, r := range []struct{ pattern, with string }{
		{`\d\d:\d\d:\d\d\.\d{3}`, "12:00:00.000"},
		{`after [0-9.]+[nµm]?s`, "after 1ms"},
		{`timeout [0-9.]+m?s`, "timeout 10s"},
		{`\b\d+ B\b`, "50 B"},
		{`\d+ control messages`, "10 control messages"},
		{`"20\d\d-[^"]*Z"`, `"2026-01-01T12:00:00Z"`},
		{`(by|to) [A-Za-z0-9]{22}`, "$1 INSTANCE"},
	} {
		text = regexp.MustCompile(r.pattern).ReplaceAllString(text, r.with)
	}
	for _, numbered := range []struct{ pattern, name string }{
		{`\bcall [0-9a-f]{8}\b`, "call "}, {`\bo-[0-9a-f]{20}\b`, "o-"}, {`"[A-Za-z0-9]{22}"`, "request-"},
	} {
		seen := map[string]string{}
		text = regexp.MustCompile(numbered.pattern).ReplaceAllStringFunc(text, func(found string) string {
			if seen[found] == "" {
				seen[found] = fmt.Sprint(numbered.name, len(seen)+1)
			}
			if found[0] == '"' {
				return strconv.Quote(seen[found])
			}
			return seen[found]
		})
	}
	return text
}

// placeOrder places an order of something that is there.
func placeOrder(ctx context.Context, t *testing.T, c *rpc.Client) {
	t.Helper()
	_, err := inventoryv1nats.NewInventoryServiceClient(c).AddStock(ctx, &inventoryv1.AddStockRequest{ProductId: "apple", Quantity: 5})
	must(t, err)
	_, err = orderv1nats.NewOrderServiceClient(c).PlaceOrder(ctx, &orderv1.PlaceOrderRequest{
		RequestId: nuid.Next(), Lines: []*orderv1.Line{{ProductId: "apple", Quantity: 1}},
	})
	must(t, err)
}

// TestTapPlaceOrder shows an order with the calls between the services.
func TestTapPlaceOrder(t *testing.T) {
	s, ctx := openShop(t), testContext(t)
	tap := s.startCommand(t, "tap", "OrderService", "InventoryService", "-m", "PlaceOrder", "-m", "InventoryService/Reserve", "-m", "Confirm")
	tap.err.await(ctx, t, "listening to order.v1.OrderService.>, inventory.v1.InventoryService.>, _INBOX.>", 1)
	placeOrder(ctx, t, s.connect("shopper").client)
	tap.out.await(ctx, t, "ORDER_STATE_CONFIRMED", 1)
	tap.stop()
	if status := tap.exit(ctx, t); status != problem.StatusOK {
		t.Errorf("exit status %d", status)
	}
	want := `12:00:00.000 -> request   order.v1.OrderService/PlaceOrder  call 1  50 B protobuf  timeout 10s
    {"requestId":"request-1","lines":[{"productId":"apple","quantity":1}]}
12:00:00.000 -> request   inventory.v1.InventoryService/Reserve  call 2  50 B protobuf  timeout 10s
    {"productId":"apple","reservationId":"o-1","quantity":1}
12:00:00.000 <- response  inventory.v1.InventoryService/Reserve  call 2  50 B protobuf  after 1ms
    {"reservation":{"productId":"apple","reservationId":"o-1","quantity":1,"state":"RESERVATION_STATE_OPEN"}}
12:00:00.000 -> request   inventory.v1.InventoryService/Confirm  call 3  50 B protobuf  timeout 10s
    {"productId":"apple","reservationId":"o-1"}
12:00:00.000 <- response  inventory.v1.InventoryService/Confirm  call 3  50 B protobuf  after 1ms
    {"reservation":{"productId":"apple","reservationId":"o-1","quantity":1,"state":"RESERVATION_STATE_CONFIRMED"}}
12:00:00.000 <- response  order.v1.OrderService/PlaceOrder  call 1  50 B protobuf  after 1ms
    {"order":{"orderId":"o-1","requestId":"request-1","lines":[{"productId":"apple","quantity":1}],"state":"ORDER_STATE_CONFIRMED","created":"2026-01-01T12:00:00Z"}}
`
	if diff := cmp.Diff(want, steady(tap.out.String())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if summary := "6 messages of 3 calls: 3 request, 3 response"; !strings.Contains(tap.err.String(), summary) {
		t.Errorf("stderr has no %q:\n%s", summary, tap.err)
	}
}

// batch is a batch of one request for the stock of pears, which gets a batch of one answer.
const batch = "\x00\x01\x20\x00\x07\x1b\x00\x01\x01\x00abcdefghijklmnop\x00\x0a\x04pear"

// publish returns a function that publishes a message, with a reply subject in an inbox.
func (s *shop) publish(subject, data string) func() error {
	return func() error {
		nc := s.connect("shopper").nc
		return nc.PublishRequest(subject, nc.NewInbox(), []byte(data))
	}
}

// TestTapForms shows calls of other shapes and forms, each up to a number of messages.
func TestTapForms(t *testing.T) {
	t.Parallel()
	s, ctx := openShop(t), testContext(t)
	client := s.connect("shopper", rpc.WithBatching(4<<10)).client
	inventory := inventoryv1nats.NewInventoryServiceClient(client)
	get := func(id string, opts ...rpc.CallOption) func() error {
		return func() error {
			_, err := inventory.GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: id}, opts...)
			if rpc.CodeOf(err) == rpc.CodeNotFound {
				return nil
			}
			return err
		}
	}
	for name, test := range map[string]struct {
		args []string
		call func() error
		want string
	}{
		"error": {[]string{"InventoryService", "-n", "2"}, get("pear", rpc.WithHeader("tenant", "acme")), `12:00:00.000 -> request   inventory.v1.InventoryService/GetStock  call 1  50 B protobuf  timeout 10s
    header tenant: acme
    {"productId":"pear"}
12:00:00.000 <- error     inventory.v1.InventoryService/GetStock  call 1  50 B  after 1ms  by INSTANCE
    not_found: there is no product "pear" (did run)
`},
		"batch": {[]string{"InventoryService", "-n", "2"}, s.publish("inventory.v1.InventoryService.GetStock", batch), `12:00:00.000 -> batch     inventory.v1.InventoryService/GetStock  1 item  50 B
    item 1 -> request   inventory.v1.InventoryService/GetStock  call 1  50 B protobuf
        {"productId":"pear"}
12:00:00.000 <- batch     inventory.v1.InventoryService/GetStock  1 item  50 B  by INSTANCE
    item 1 <- error     inventory.v1.InventoryService/GetStock  call 1  50 B  after 1ms  by INSTANCE
        not_found: there is no product "pear" (did run)
`},
		"plain": {[]string{"InventoryService", "-n", "2"}, get("pear", rpc.WithPlainRequests()), `12:00:00.000 -> plain     inventory.v1.InventoryService/GetStock  50 B protobuf  timeout 10s
    {"productId":"pear"}
12:00:00.000 <- plain_error inventory.v1.InventoryService/GetStock  50 B  after 1ms  by INSTANCE
    not_found: there is no product "pear" (did run)
`},
		"stream": {[]string{"InventoryService", "-m", "ImportStock", "-n", "6"}, importOne(ctx, inventory), `12:00:00.000 -> open      inventory.v1.InventoryService/ImportStock  call 1  50 B protobuf  timeout 10s  credit 1 MiB
12:00:00.000 <- accept    inventory.v1.InventoryService/ImportStock  call 1  50 B  after 1ms  by INSTANCE  credit 1 MiB
12:00:00.000 -> data      inventory.v1.InventoryService/ImportStock  call 1  50 B protobuf  frame 0  to INSTANCE
    {"deliveryId":"request-1","productId":"fig","quantity":1}
12:00:00.000 -> end       inventory.v1.InventoryService/ImportStock  call 1  50 B  frame 1  to INSTANCE
12:00:00.000 <- data      inventory.v1.InventoryService/ImportStock  call 1  50 B protobuf  after 1ms  frame 0
    {"lines":1,"quantity":"1"}
12:00:00.000 <- end       inventory.v1.InventoryService/ImportStock  call 1  50 B  after 1ms  frame 1
`},
	} {
		t.Run(name, func(t *testing.T) {
			tap := s.startCommand(t, append([]string{"tap"}, test.args...)...)
			tap.err.await(ctx, t, "listening to", 1)
			must(t, test.call())
			if status := tap.exit(ctx, t); status != problem.StatusOK {
				t.Errorf("exit status %d: %s", status, tap.err)
			}
			if diff := cmp.Diff(test.want, steady(tap.out.String())); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// importOne returns a call with a stream of one message.
func importOne(ctx context.Context, c inventoryv1nats.InventoryServiceClient) func() error {
	return func() error {
		stream, err := c.ImportStock(ctx)
		if err != nil {
			return err
		}
		defer stream.Close()
		if err := stream.Send(&inventoryv1.ImportStockRequest{DeliveryId: nuid.Next(), ProductId: "fig", Quantity: 1}); err != nil {
			return err
		}
		_, err = stream.CloseAndRecv()
		return err
	}
}

// TestTapJSON: programs get the same, one object a line, and the bytes if they want them.
func TestTapJSON(t *testing.T) {
	t.Parallel()
	s, ctx := openShop(t), testContext(t)
	tap := s.startCommand(t, "tap", "orders.new", "InventoryService", "--json", "--raw", "-n", "3")
	tap.err.await(ctx, t, "listening to", 1)
	must(t, s.publish("inventory.v1.InventoryService.GetStock", `{"productId":"pear"}`)())
	tap.out.await(ctx, t, "plain_error", 1)
	client := s.connect("shopper").client
	must(t, orderv1nats.NewOrderFeedServiceClient(client).OrderPlaced(ctx, &orderv1.OrderPlacedRequest{OrderId: "o-1"}))
	if status := tap.exit(ctx, t); status != problem.StatusOK {
		t.Errorf("exit status %d: %s", status, tap.err)
	}
	type row struct {
		From, Kind, Service, Method, Codec string
		To                                 struct{ Subject string }
		Messages                           []struct{ Message map[string]any }
		Failure                            *struct{ Code, Message, Execution string }
		Raw                                []byte
	}
	var rows []row
	for d := json.NewDecoder(strings.NewReader(tap.out.String())); d.More(); {
		var r row
		must(t, d.Decode(&r))
		rows = append(rows, r)
	}
	if len(rows) != 3 || len(rows[0].Messages) != 1 || rows[1].Failure == nil || len(rows[2].Messages) != 1 {
		t.Fatalf("the rows are %+v", rows)
	}
	if r := rows[0]; r.From != "client" || r.Kind != "plain" || r.Service != "inventory.v1.InventoryService" || r.Method != "GetStock" ||
		r.Codec != "json" || r.Messages[0].Message["productId"] != "pear" || string(r.Raw) != `{"productId":"pear"}` {
		t.Errorf("the request is %+v", r)
	}
	if f := rows[1].Failure; f.Code != "not_found" || f.Message != `there is no product "pear"` || f.Execution != "did run" || rows[1].Method != "GetStock" {
		t.Errorf("the answer is %+v", rows[1])
	}
	if r := rows[2]; r.To.Subject != "orders.new" || r.Method != "OrderPlaced" || r.Messages[0].Message["orderId"] != "o-1" {
		t.Errorf("the one-way message is %+v", r)
	}
}

// TestTapControl: what tools ask services is shown if that is wanted, and else counted.
func TestTapControl(t *testing.T) {
	t.Parallel()
	s, ctx := openShop(t), testContext(t)
	client := s.connect("shopper").client
	const request, response = "-> request   inventory.v1.InventoryService/_health", "<- response  inventory.v1.InventoryService/_health"
	for name, test := range map[string]struct {
		args  []string
		shown bool
		last  string // what is waited for
	}{
		"not shown": {nil, false, "<- response  inventory.v1.InventoryService/ListStock"},
		"shown":     {[]string{"--control"}, true, "<- response  inventory.v1.InventoryService/ListStock"},
		"asked for": {[]string{"-m", "_health"}, true, response},
	} {
		t.Run(name, func(t *testing.T) {
			tap := s.startCommand(t, append([]string{"tap", "InventoryService"}, test.args...)...)
			tap.err.await(ctx, t, "listening to", 1)
			_, err := rpc.HealthMethod(inventoryv1nats.InventoryServiceMethods.GetStock.Service()).Call(ctx, client, new(natscallv1.GetHealthRequest))
			must(t, err)
			_, err = inventoryv1nats.NewInventoryServiceClient(client).ListStock(ctx, new(inventoryv1.ListStockRequest))
			must(t, err)
			tap.out.await(ctx, t, test.last, 1)
			tap.stop()
			if status := tap.exit(ctx, t); status != problem.StatusOK {
				t.Errorf("exit status %d", status)
			}
			text := tap.out.String()
			if strings.Contains(text, request) != test.shown || strings.Contains(text, response) != test.shown {
				t.Errorf("the tap shows\n%s", text)
			}
			if counted := "control messages not shown (--control shows them)"; !test.shown && !strings.Contains(tap.err.String(), counted) {
				t.Errorf("the summary is %s", tap.err)
			}
		})
	}
}

// TestTapJetStream: what JetStream delivers to an inbox is not shown as a call once more.
func TestTapJetStream(t *testing.T) {
	s, ctx := openShop(t), testContext(t)
	s.spy = s.connect("spy").nc
	client := s.connect("shopper").client
	_, err := inventoryv1nats.NewInventoryServiceClient(client).AddStock(ctx, &inventoryv1.AddStockRequest{ProductId: "apple", Quantity: 5})
	must(t, err)
	tap := s.startCommand(t, "tap", "OrderFeedService", "-n", "4")
	tap.err.await(ctx, t, "listening to order.v1.OrderFeedService.>, orders.new, _INBOX.>", 1)
	must(t, s.publishOrder(ctx)) // and the service publishes that it was sold
	tap.out.await(ctx, t, `"sold":true`, 1)
	_, err = orderv1nats.NewOrderFeedServiceClient(client).ListFeed(ctx, new(orderv1.ListFeedRequest))
	must(t, err)
	if status := tap.exit(ctx, t); status != problem.StatusOK {
		t.Errorf("exit status %d", status)
	}
	text := tap.out.String()
	if strings.Count(text, "/OrderPlaced") != 2 || strings.Count(text, "/ListFeed") != 2 {
		t.Errorf("the tap shows\n%s", text)
	}
}

// TestTapStealsNothing: every call is answered while several taps listen.
func TestTapStealsNothing(t *testing.T) {
	t.Parallel()
	s, ctx := openShop(t), testContext(t)
	var taps []*running
	for range 3 {
		tap := s.startCommand(t, "tap", "--control", "--raw", "-n", "40")
		tap.err.await(ctx, t, "listening to inventory.v1.InventoryService.>, ", 1)
		taps = append(taps, tap)
	}
	inventory := inventoryv1nats.NewInventoryServiceClient(s.connect("shopper").client)
	for i := range 20 {
		_, err := inventory.GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: fmt.Sprint("p", i)})
		if rpc.CodeOf(err) != rpc.CodeNotFound {
			t.Fatal(err)
		}
	}
	for _, tap := range taps {
		if status := tap.exit(ctx, t); status != problem.StatusOK || !strings.Contains(tap.out.String(), "    00000000  00 01 01 ") {
			t.Errorf("exit status %d: %s%s", status, tap.out, tap.err)
		}
	}
}

// TestTapWithoutSchema: without a schema fields have their numbers, and the tap says why.
func TestTapWithoutSchema(t *testing.T) {
	s := newShop(t, func(*server.Options) {})
	s.login = func(string) []nats.Option { return nil }
	must(t, s.serveInventory("inventory", rpc.WithoutSchema()))
	ctx := testContext(t)
	tap := s.startCommand(t, "tap", "inventory.v1.*.GetStock", "--no-replies", "-n", "1")
	tap.err.await(ctx, t, "messages are shown without the names of fields: service inventory.v1.InventoryService does not serve its schema", 1)
	tap.err.await(ctx, t, "listening to inventory.v1.*.GetStock;", 1)
	_, err := inventoryv1nats.NewInventoryServiceClient(s.connect("shopper").client).GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: "pear"})
	if rpc.CodeOf(err) != rpc.CodeNotFound {
		t.Fatal(err)
	}
	if status := tap.exit(ctx, t); status != problem.StatusOK || !strings.Contains(tap.out.String(), `{1:"pear"}`) {
		t.Errorf("exit status %d: %s", status, tap.out)
	}
}

// TestTapLater: a service that starts after the tap is known as soon as it is called.
func TestTapLater(t *testing.T) {
	s := newShop(t, func(*server.Options) {})
	s.login = func(string) []nats.Option { return nil }
	ctx := testContext(t)
	tap := s.startCommand(t, "tap", "inventory.v1.>", "-m", "GetStock")
	tap.err.await(ctx, t, "no service that answers has the subject inventory.v1.>", 1)
	tap.err.await(ctx, t, "listening to", 1)
	must(t, s.serveInventory("inventory"))
	inventory := inventoryv1nats.NewInventoryServiceClient(s.connect("shopper").client)
	get := func(id string) {
		t.Helper()
		if _, err := inventory.GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: id}); rpc.CodeOf(err) != rpc.CodeNotFound {
			t.Fatal(err)
		}
	}
	get("first")
	tap.err.await(ctx, t, "service inventory.v1.InventoryService is there now\n", 1)
	get("second")
	tap.out.await(ctx, t, `{"productId":"second"}`, 1)
	tap.out.await(ctx, t, `{1:"first"}`, 1)
	tap.stop()
	if status := tap.exit(ctx, t); status != problem.StatusOK {
		t.Errorf("exit status %d", status)
	}
}

// TestTapFiles: the schema of a service that serves none comes from a file.
func TestTapFiles(t *testing.T) {
	s := newShop(t, func(*server.Options) {})
	s.login = func(string) []nats.Option { return nil }
	must(t, s.serveInventory("inventory", rpc.WithoutSchema()))
	ctx := testContext(t)
	files := []string{"--proto", "../../proto/inventory/v1/inventory.proto", "-I", "../../proto"}
	for _, what := range []string{"InventoryService", "inventory.v1.InventoryService.*"} {
		tap := s.startCommand(t, append([]string{"tap", what, "-n", "2"}, files...)...)
		tap.err.await(ctx, t, "listening to", 1)
		must(t, s.publish("inventory.v1.InventoryService.GetStock", "\x0a\x04pear")())
		if status := tap.exit(ctx, t); status != problem.StatusOK || !strings.Contains(tap.out.String(), `{"productId":"pear"}`) {
			t.Errorf("%s: exit status %d: %s%s", what, status, tap.out, tap.err)
		}
	}
}

// tapUsers are users of whom one may not listen to inboxes, and one to nothing.
func tapUsers(o *server.Options) {
	open := &server.SubjectPermission{Allow: []string{">"}}
	o.Users = []*server.User{
		{Username: "inventory", Password: "x"}, {Username: "shopper", Password: "x"},
		{Username: "half", Password: "x", Permissions: &server.Permissions{Publish: open, Subscribe: &server.SubjectPermission{Allow: []string{"inventory.>", "_INBOX_half.>"}}}},
		{Username: "none", Password: "x", Permissions: &server.Permissions{Publish: open, Subscribe: &server.SubjectPermission{Allow: []string{"_INBOX_none.>"}}}},
	}
}

// TestTapErrors: what goes wrong has a reason, a next step and an exit status.
func TestTapErrors(t *testing.T) {
	t.Parallel()
	s := newShop(t, tapUsers)
	must(t, s.serveInventory("inventory"))
	ctx := testContext(t)
	as := func(user string, args ...string) []string {
		return append([]string{"tap", "--user", user, "--password", "x", "--inbox-prefix", "_INBOX_" + user}, args...)
	}
	for name, test := range map[string]struct {
		args   []string
		status int
		stderr string
	}{
		"unknown service": {as("shopper", "InventryService"), problem.StatusFailure, "natscall tap: there is no service \"InventryService\"\n  next: did you mean inventory.v1.InventoryService?"},
		"wrong subject":   {as("shopper", "a..b"), problem.StatusUsage, `natscall tap: subject "a..b" has an empty token`},
		"wrong wildcard":  {as("shopper", "a.b>"), problem.StatusUsage, `natscall tap: subject "a.b>" has a wildcard that is no token of its own`},
		"overlap":         {as("shopper", "inventory.*.A", "inventory.v1.*"), problem.StatusUsage, "natscall tap: the subjects inventory.*.A and inventory.v1.* overlap"},
		"negative":        {as("shopper", "-n", "-1"), problem.StatusUsage, "natscall tap: --count and --limit may not be negative"},
		"wrong inbox":     {as("shopper", "--inbox", "a b"), problem.StatusUsage, `natscall tap: --inbox: subject "a b.>" has a blank`},
		"not permitted":   {as("none", "InventoryService"), problem.StatusFailure, "natscall tap: NATS does not permit to subscribe to inventory.v1.InventoryService.>\n  next: "},
	} {
		t.Run(name, func(t *testing.T) {
			tap := s.startCommand(t, test.args...)
			if status := tap.exit(ctx, t); status != test.status || !strings.Contains(tap.err.String(), test.stderr) {
				t.Errorf("exit status %d:\n%s", status, tap.err)
			}
		})
	}
	t.Run("no inboxes", func(t *testing.T) {
		tap := s.startCommand(t, as("half", "InventoryService")...)
		tap.err.await(ctx, t, "NATS does not permit to subscribe to _INBOX.>: the answers there are not shown\nlistening to inventory.v1.InventoryService.>;", 1)
		tap.stop()
		if status := tap.exit(ctx, t); status != problem.StatusOK {
			t.Errorf("exit status %d", status)
		}
	})
	t.Run("no such method", func(t *testing.T) {
		tap := s.startCommand(t, as("shopper", "InventoryService", "-m", "GetStok", "-m", "GetStock")...)
		tap.err.await(ctx, t, "no method is called GetStok yet; did you mean inventory.v1.InventoryService/GetStock?\nlistening to", 1)
		tap.stop()
		if status := tap.exit(ctx, t); status != problem.StatusOK {
			t.Errorf("exit status %d", status)
		}
	})
	t.Run("nothing there", func(t *testing.T) {
		tap := s.startCommand(t, as("shopper", "payment.v1.PaymentService.>")...)
		tap.err.await(ctx, t, "no service that answers has the subject payment.v1.PaymentService.>; `natscall ls` lists those that do\nlistening to", 1)
		tap.stop()
		if status := tap.exit(ctx, t); status != problem.StatusOK || !strings.Contains(tap.err.String(), "0 messages\n") {
			t.Errorf("exit status %d: %s", status, tap.err)
		}
	})
}
