package main

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/natscall/natscall/examples/internal/traces"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
)

// TestObserve runs the demo for a moment, where there is no Prometheus.
func TestObserve(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Setenv("PATH", "")
	var stdout, stderr strings.Builder
	if code := execute(t.Context(), []string{"-observe", "100ms"}, &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d, stderr %s, stdout %s", code, stderr.String(), stdout.String())
	}
	for _, want := range []string{
		"inventory/2 http://127.0.0.1:", "There is no Prometheus", "One trace through all processes",
		"* natscall.attempt", "UNAVAILABLE not_run", "~ order.v1.OrderFeedService/OrderPlaced",
		"Percentiles are left to Prometheus", "CALLS/S", "nats sub 'logs.>'",
		"WARN  call served method=/inventory.v1.InventoryService/Reserve code=unavailable",
		"INFO  call served method=/order.v1.OrderService/PlaceOrder code=ok",
	} {
		if !strings.Contains(stdout.String(), want) {
			t.Errorf("the demo does not show %q:\n%s", want, stdout.String())
		}
	}
}

// TestObserveStays: with -serve the shop is open until it is told to close.
func TestObserveStays(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	t.Setenv("PATH", "")
	ctx, cancel := context.WithCancel(t.Context())
	stdout := &writer{on: "Ctrl-C closes it", stop: cancel}
	var stderr strings.Builder
	if code := execute(ctx, []string{"-observe", "1ms", "-serve"}, stdout, &stderr); code != 0 || ctx.Err() == nil {
		t.Errorf("exit code %d, stderr %s", code, stderr.String())
	}
}

// TestTrace checks the parents of each span in the trace of an order for which a call was retried,
// and that was then picked by a stream.
func TestTrace(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	var stdout strings.Builder
	o := newObservation(&stdout, slog.New(slog.DiscardHandler))
	defer func() {
		if err := o.close(); err != nil {
			t.Error(err)
		}
	}()
	if err := o.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := o.load(t.Context(), time.Millisecond); err != nil {
		t.Fatal(err)
	}
	id, err := o.showTrace(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	root, err := o.shop.spans.Tree(id)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	outline(root, "", &lines)
	want := []string{
		"shopping",
		"  client PlaceOrder customer",
		"    server PlaceOrder order",
		"      client Reserve order",
		"        server Reserve inventory",
		"      client Confirm order",
		"        server Confirm inventory",
		"      producer OrderPlaced order",
		"        consumer OrderPlaced order",
		"  client GetOrder customer",
		"    server GetOrder order",
		"  client PickOrder customer",
		"    server PickOrder order",
	}
	for _, w := range want {
		if !contains(lines, w) {
			t.Errorf("no span is %q:\n%s", w, strings.Join(lines, "\n"))
		}
	}
	for _, l := range lines {
		if !contains(want, strings.TrimSuffix(l, " retried")) {
			t.Errorf("a span is %q:\n%s", l, strings.Join(lines, "\n"))
		}
	}
	checkRetry(t, root)
}

func contains(lines []string, want string) bool {
	for _, l := range lines {
		if strings.TrimSuffix(l, " retried") == want {
			return true
		}
	}
	return false
}

// outline is each span of a tree with its kind, method and service, indented below its parent.
func outline(n *traces.Node, indent string, lines *[]string) {
	line := "shopping"
	if n.Parent().IsValid() {
		line = describe(n.Span)
	}
	if len(n.Events()) > 0 {
		line += " retried"
	}
	*lines = append(*lines, indent+line)
	for _, c := range n.Children {
		outline(c, indent+"  ", lines)
	}
	for _, s := range n.Linked {
		*lines = append(*lines, indent+"  "+describe(s))
	}
}

func describe(s traces.Span) string {
	service, _, _ := strings.Cut(traces.Process(s), "/")
	return s.SpanKind().String() + " " + s.Name()[strings.LastIndexByte(s.Name(), '/')+1:] + " " + service
}

// checkRetry checks that the attempts of a call are children of one span of the client, each in an
// instance, and that the first has not run.
func checkRetry(t *testing.T, root *traces.Node) {
	t.Helper()
	found := false
	root.All(func(n *traces.Node) bool {
		if len(n.Events()) == 0 || n.SpanKind() != trace.SpanKindClient || n.Name() != strings.TrimPrefix(reserveMethod, "/") {
			return true
		}
		found = true
		if len(n.Children) != len(n.Events())+1 {
			t.Errorf("%d attempts after the first, but %d servers' spans", len(n.Events()), len(n.Children))
		}
		var codes []string
		for _, c := range n.Children {
			for _, kv := range c.Attributes() {
				if kv.Key == "rpc.response.status_code" {
					codes = append(codes, kv.Value.AsString())
				}
			}
		}
		if codes[0] != "UNAVAILABLE" || codes[len(codes)-1] != "OK" {
			t.Errorf("the attempts have ended with %q", codes)
		}
		return true
	})
	if !found {
		t.Errorf("no call was retried before %s", orderv1nats.OrderServicePickOrderMethod)
	}
}
