package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/rpc"
)

// TestCallEveryMethod calls every method of the shop by what its services say of themselves, each
// by a name that is as short as it can be.
func TestCallEveryMethod(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	file := filepath.Join(t.TempDir(), "delivery.json")
	must(t, os.WriteFile(file, []byte(`{"deliveryId": "d-1", "productId": "pear", "quantity": 5}
		{"productId": "plum", "quantity": 1}`), 0o600))
	called := map[string]bool{}
	for _, test := range []struct {
		method, stdin string
		requests      []string
		want          []string // in the output, in this order
	}{
		{"AddStock", "", []string{`{"productId": "apple", "quantity": 10}`}, []string{`"available": 10`}},
		{"GetStock", "", []string{`{"product_id": "apple"}`}, []string{`"productId": "apple"`, `"available": 10`}},
		{"ImportStock", "", []string{"@" + file}, []string{`"lines": 2`, `"quantity": "6"`}},
		{"ListStock", "", nil, []string{`"apple"`, `"pear"`, `"plum"`}},
		{"Reserve", `{"productId": "apple", "reservationId": "r-1", "quantity": 2}`, []string{"-"}, []string{"RESERVATION_STATE_OPEN"}},
		{"Confirm", "", []string{`{"productId": "apple", "reservationId": "r-1"}`}, []string{"RESERVATION_STATE_CONFIRMED"}},
		{"Release", "", []string{`{"productId": "apple", "reservationId": "r-2"}`}, []string{"RESERVATION_STATE_RELEASED"}},
		{"PlaceOrder", "", []string{`{"requestId": "one", "lines": [{"productId": "pear", "quantity": 2}]}`}, []string{`"orderId": "o-`, "ORDER_STATE_CONFIRMED"}},
		{"GetOrder", "", []string{`{"orderId": "ORDER"}`}, []string{"ORDER_STATE_CONFIRMED"}},
		{"ListOrders", "", []string{"{}"}, []string{"ORDER"}},
		{"PickOrder", `{"orderId": "ORDER"} {"picked": {"productId": "pear", "quantity": 2}}`, nil, []string{`{"pick":{"productId":"pear","quantity":2}}` + "\n", `{"result":{"picked":[{"productId":"pear","quantity":2}]}}` + "\n"}},
		{"OrderPlaced", "", []string{`{"orderId": "paper-1", "productId": "pear"}`}, nil},
		{"ListFeed", "", []string{`{"limit": 1000}`}, nil},
		{"WatchStock", "", []string{`{"productIds": ["apple"]}`}, []string{`{"stock":{"productId":"apple","available":8,"sold":2,"received":10}}` + "\n"}},
	} {
		called[test.method] = true
		t.Run(test.method, func(t *testing.T) {
			id := c.firstOrder()
			fill := strings.NewReplacer("ORDER\"", id+"\"", "\"ORDER", "\""+id)
			args := []string{"call", test.method}
			for _, r := range test.requests {
				args = append(args, fill.Replace(r))
			}
			var got string
			if test.method == "WatchStock" {
				got = c.watch(args...)
			} else {
				r := c.pipe(fill.Replace(test.stdin), args...)
				if got = r.stdout; r.status != problem.StatusOK || r.stderr != "" {
					t.Fatalf("exit status %d: %s", r.status, r.stderr)
				}
			}
			for _, want := range test.want {
				want = strings.ReplaceAll(want, "ORDER\"", id+"\"")
				if want == "ORDER" {
					want = id
				}
				_, rest, found := strings.Cut(got, want)
				if !found {
					t.Errorf("it prints\n%swant %s", got, want)
				}
				got = rest
			}
		})
	}
	for _, file := range []protoreflect.FileDescriptor{inventoryv1.File_inventory_v1_inventory_proto, orderv1.File_order_v1_order_proto, orderv1.File_order_v1_feed_proto} {
		for i := range file.Services().Len() {
			methods := file.Services().Get(i).Methods()
			for j := range methods.Len() {
				if name := string(methods.Get(j).Name()); !called[name] {
					t.Errorf("method %s is not called", name)
				}
			}
		}
	}
}

// firstOrder returns the id of the first order, or "" if there is none.
func (c *console) firstOrder() string {
	c.Helper()
	var list struct {
		Orders []struct{ OrderID string }
	}
	c.read(&list, "call", "ListOrders")
	if len(list.Orders) == 0 {
		return ""
	}
	return list.Orders[0].OrderID
}

// watch runs a call that goes on for ever, until it has printed a line: then somebody presses
// Ctrl-C. It returns what was printed.
func (c *console) watch(args ...string) string {
	c.Helper()
	ctx, interrupt := context.WithCancel(testContext(c.T))
	defer interrupt()
	out := newScreen()
	status := make(chan int, 1)
	var stderr bytes.Buffer
	go func() {
		status <- run(ctx, append(args, "--server", c.url), strings.NewReader(""), out, &stderr)
	}()
	out.await(testContext(c.T), c.T, "\n", 1)
	interrupt()
	if got := <-status; got != problem.StatusCall+int(rpc.CodeCanceled) || !strings.Contains(stderr.String(), "canceled") {
		c.Errorf("a call that was interrupted ends with exit status %d: %s", got, &stderr)
	}
	return out.String()
}

// TestCallInteractive: each line of a bidirectional stream is sent when it is there, and each
// answer printed when it comes; the end of stdin ends the requests.
func TestCallInteractive(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	c.ok("call", "AddStock", `{"productId": "apple", "quantity": 5}`)
	c.ok("call", "PlaceOrder", `{"requestId": "r", "lines": [{"productId": "apple", "quantity": 3}]}`)
	ctx := testContext(t)
	stdin, keyboard := io.Pipe()
	out := newScreen()
	done := make(chan int, 1)
	var stderr bytes.Buffer
	go func() {
		done <- run(ctx, []string{"call", "PickOrder", "--server", c.url}, stdin, out, &stderr)
	}()
	typed := func(line string) {
		t.Helper()
		_, err := io.WriteString(keyboard, line+"\n")
		must(t, err)
	}
	typed(fmt.Sprintf(`{"orderId": %q}`, c.firstOrder()))
	out.await(ctx, t, `{"pick":{"productId":"apple","quantity":3}}`, 1)
	typed(`{"picked": {"productId": "apple", "quantity": 1}}`)
	out.await(ctx, t, `{"pick":{"productId":"apple","quantity":2}}`, 1)
	must(t, keyboard.Close())
	if status := <-done; status != problem.StatusOK || stderr.Len() > 0 {
		t.Errorf("after the end of stdin: exit status %d: %s", status, &stderr)
	}
}

// TestCallWays: the same call in all of the ways in which it can be made.
func TestCallWays(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	must(t, c.shop.serveInventory("inventory", rpc.WithSubjectPrefix("blue")))
	c.ok("call", "inventory.v1.InventoryService/AddStock", `{"productId": "apple", "quantity": 10}`)
	const request = `{"productId": "apple"}`
	set := filepath.Join(t.TempDir(), "set.binpb")
	c.ok("describe", "InventoryService", "--descriptor-set", set)
	var services []struct {
		Service, Root string
		Instances     []struct{ Instance string }
	}
	c.read(&services, "ls", "--json")
	instance := ""
	for _, s := range services {
		if s.Root == inventoryRoot {
			instance = s.Instances[0].Instance
		}
	}
	for _, test := range []struct {
		name string
		args []string
		want string
	}{
		{"full name", []string{"inventory.v1.InventoryService/GetStock", request}, `"available": 10`},
		{"name of logs", []string{"/inventory.v1.InventoryService/GetStock", request}, `"available": 10`},
		{"dotted name", []string{"inventory.v1.InventoryService.GetStock", request}, `"available": 10`},
		{"short name", []string{"InventoryService/GetStock", request}, `"available": 10`},
		{"other letters", []string{"inventoryservice/getstock", request}, `"available": 10`},
		{"defaults", []string{"InventoryService/GetStock", request, "--emit-defaults"}, `"reserved": 0`},
		{"plain", []string{"InventoryService/GetStock", request, "--plain"}, `"available": 10`},
		{"without a schema", []string{"InventoryService/GetStock", request, "--no-schema"}, `"available": 10`},
		{"prefix", []string{"InventoryService/GetStock", request, "--prefix", "blue"}, `"available": 10`},
		{"instance", []string{"InventoryService/GetStock", request, "--instance", instance}, `"available": 10`},
		{"proto file in a folder", []string{"InventoryService/GetStock", request, "--proto", "inventory/v1/inventory.proto", "-I", "../../proto"}, `"available": 10`},
		{"proto file", []string{"InventoryService/GetStock", request, "--proto", "../../proto/inventory/v1/inventory.proto", "-I", "../../proto"}, `"available": 10`},
		{"descriptor set", []string{"InventoryService/GetStock", request, "--descriptor-set", set}, `"available": 10`},
		{"all", []string{"InventoryService/GetStock", request, "--all"}, `{"instance":"` + instance + `","response":{"stock":{"productId":"apple","available":10,"received":10}}}`},
		{"header", []string{"InventoryService/GetStock", request, "-H", "Who: me", "--timeout", "20s"}, `"available": 10`},
		{"trace", []string{"InventoryService/GetStock", request, "--trace"}, `"available": 10`},
		{"template", []string{"PlaceOrder", "--template"}, `"requestId": "",`},
		{"template of a file", []string{"GetStock", "--template", "--descriptor-set", set}, `"productId": ""`},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := c.ok(append([]string{"call"}, test.args...)...); !strings.Contains(got, test.want) {
				t.Errorf("it prints\n%s", got)
			}
		})
	}
}

// TestCallTemplate: what --template prints is a request that can be sent, with all of its fields.
func TestCallTemplate(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	for method, want := range map[string]string{
		"PlaceOrder":  `{"requestId":"","lines":[{"productId":"","quantity":0}]}`,
		"PickOrder":   `{"orderId":""}`,
		"WatchStock":  `{"productIds":[""]}`,
		"OrderPlaced": `{"orderId":"","productId":"","quantity":0,"sold":false}`,
	} {
		text := c.ok("call", method, "--template")
		var got bytes.Buffer
		must(t, json.Compact(&got, []byte(text)))
		if got.String() != want {
			t.Errorf("%s: %s, want %s", method, &got, want)
		}
		r := c.pipe(text, "call", method, "-", "--timeout", "5s")
		if strings.Contains(r.stderr, "JSON") || strings.Contains(r.stderr, "unknown field") {
			t.Errorf("%s: the template is no request: %s", method, r.stderr)
		}
	}
}

// TestCallBinary: messages go in and come out encoded, those of streams behind their lengths.
func TestCallBinary(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	request := func(m proto.Message) string {
		data, err := proto.Marshal(m)
		must(t, err)
		return string(data)
	}
	r := c.pipe(request(&inventoryv1.AddStockRequest{ProductId: "fig", Quantity: 3}), "call", "AddStock", "--binary", "-")
	res := new(inventoryv1.AddStockResponse)
	if err := proto.Unmarshal([]byte(r.stdout), res); err != nil || res.GetStock().GetAvailable() != 3 {
		t.Errorf("exit status %d: %v, %v: %s", r.status, res, err, r.stderr)
	}
	var in []byte
	for _, quantity := range []int32{1, 2} {
		line := request(&inventoryv1.ImportStockRequest{DeliveryId: "d", ProductId: "fig", Quantity: quantity})
		in = append(binary.AppendUvarint(in, uint64(len(line))), line...)
	}
	r = c.pipe(string(in), "call", "ImportStock", "--binary")
	imported := new(inventoryv1.ImportStockResponse)
	if err := proto.Unmarshal([]byte(r.stdout), imported); err != nil || imported.GetLines() != 2 {
		t.Errorf("exit status %d: %v, %v: %s", r.status, imported, err, r.stderr)
	}
	c.ok("call", "PlaceOrder", `{"requestId": "r", "lines": [{"productId": "fig", "quantity": 1}]}`)
	line := request(&orderv1.PickOrderRequest{Action: &orderv1.PickOrderRequest_OrderId{OrderId: c.firstOrder()}})
	r = c.pipe(string(append(binary.AppendUvarint(nil, uint64(len(line))), line...)), "call", "PickOrder", "--binary")
	out := bufio.NewReader(strings.NewReader(r.stdout))
	size, err := binary.ReadUvarint(out)
	must(t, err)
	data := make([]byte, size)
	_, err = io.ReadFull(out, data)
	must(t, err)
	pick := new(orderv1.PickOrderResponse)
	if err := proto.Unmarshal(data, pick); err != nil || pick.GetPick().GetProductId() != "fig" {
		t.Errorf("%v, %v", pick, err)
	}
}

// TestCallVerbose: -v prints what is no message to stderr.
func TestCallVerbose(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	c.ok("call", "AddStock", `{"productId": "apple", "quantity": 1}`)
	r := c.run("call", "GetStock", `{"productId": "apple"}`, "-v", "-H", largeHeader+": yes")
	if r.status != problem.StatusOK || !strings.HasPrefix(r.stderr, "instance: ") {
		t.Errorf("exit status %d: %s", r.status, r.stderr)
	}
	if !json.Valid([]byte(r.stdout)) {
		t.Errorf("stdout has more than the response: %s", r.stdout)
	}
}

// TestCallAll: what each instance has answered is a line, errors included, and the exit status is
// that of an error.
func TestCallAll(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	must(t, c.shop.serveInventory("inventory"))
	r := c.run("call", "GetStock", `{"productId": "none"}`, "--all")
	if r.status != problem.StatusCall+int(rpc.CodeNotFound) || r.stderr != "" {
		t.Errorf("exit status %d: %s", r.status, r.stderr)
	}
	var instances []string
	for line := range strings.Lines(r.stdout) {
		var row struct {
			Instance string
			Error    problem.Report
		}
		decode(t, line, &row)
		if row.Error.Code != "not_found" || row.Error.Execution != "did run" {
			t.Errorf("a row is %s", line)
		}
		instances = append(instances, row.Instance)
	}
	if slices.Sort(instances); len(slices.Compact(instances)) != 2 {
		t.Errorf("instances %q have answered", instances)
	}
}

// TestCallEndsFirst: a call that the service ends does not wait for more requests.
func TestCallEndsFirst(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	stdin, keyboard := io.Pipe()
	t.Cleanup(func() { _ = keyboard.Close() })
	var stdout, stderr bytes.Buffer
	done := make(chan int, 1)
	ctx := testContext(t)
	go func() { done <- run(ctx, []string{"call", "ImportStock", "--server", c.url}, stdin, &stdout, &stderr) }()
	_, err := io.WriteString(keyboard, `{"deliveryId": "d", "productId": "a wrong one", "quantity": 1}`)
	must(t, err)
	if status := <-done; status != problem.StatusCall+int(rpc.CodeInvalidArgument) || !strings.Contains(stderr.String(), "ImportStopped") {
		t.Errorf("exit status %d: %s", status, &stderr)
	}
}

// TestCallMalformedStream: a request that cannot be read cancels the call, and the error is that of
// the request.
func TestCallMalformedStream(t *testing.T) {
	t.Parallel()
	c := newConsole(t)
	for stdin, want := range map[string]string{
		`{"deliveryId": "d", "productId": "fig", "quantity": 1} {"quantity": x}`:   "stdin, message 2: malformed JSON: byte 69",
		`{"deliveryId": "d", "productId": "fig", "quantity": 1} {"amount": 1}`:     `stdin, message 2: unknown field "amount" in ImportStockRequest`,
		`{"deliveryId": "d", "productId": "fig", "quantity": 1} {"quantity": "x"}`: "stdin, message 2: inventory.v1.ImportStockRequest: ",
		`{"deliveryId": "d", "productId": "fig", "quantity": 1} {"quantity": 1`:    "stdin, message 2: malformed JSON: it ends too early",
	} {
		r := c.pipe(stdin, "call", "ImportStock")
		if r.status != problem.StatusFailure || !strings.Contains(r.stderr, want) || r.stdout != "" {
			t.Errorf("exit status %d: %s, want %s", r.status, r.stderr, want)
		}
	}
}
