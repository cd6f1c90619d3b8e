package main

import (
	"encoding/csv"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
)

// benchShop is the shop, with apples in stock.
func benchShop(t *testing.T) *shop {
	t.Helper()
	s := openShop(t)
	_, err := inventoryv1nats.NewInventoryServiceClient(s.connect("shopper").client).AddStock(testContext(t), &inventoryv1.AddStockRequest{ProductId: "apple", Quantity: 5})
	must(t, err)
	return s
}

// benchResult is what --json prints, as far as tests look at it.
type benchResult struct {
	Method                                             string
	Calls, Failed, Messages, Bytes, Cut_off, Not_begun int64
	Messages_sent, Bytes_sent                          int64
	Latency_ms                                         map[string]float64
	Histogram                                          []struct{ Count int64 }
	Errors                                             []struct {
		Code    string
		Count   int64
		Example string
	}
}

// TestBench measures methods, with the counts and not the times as the result.
func TestBench(t *testing.T) {
	s, ctx := benchShop(t), testContext(t)
	file := filepath.Join(t.TempDir(), "requests.jsonl")
	must(t, os.WriteFile(file, []byte("{\"productId\":\"apple\"}\n{\"productId\":\"pear\"}\n"), 0o600))
	for name, test := range map[string]struct {
		args     []string
		status   int
		calls    int64
		failed   int64
		messages int64
	}{
		"closed":     {[]string{"GetStock", `{"productId":"apple"}`, "-n", "200", "-c", "8"}, problem.StatusOK, 200, 0, 200},
		"open":       {[]string{"GetStock", `{"productId":"apple"}`, "-n", "50", "-r", "1000", "-c", "4"}, problem.StatusOK, 50, 0, 50},
		"in turn":    {[]string{"GetStock", "@" + file, "-n", "100", "--connections", "3"}, problem.StatusFailure, 100, 50, 50},
		"all fail":   {[]string{"GetStock", `{"productId":"pear"}`, "-n", "7", "--batch"}, problem.StatusFailure, 7, 7, 0},
		"one-way":    {[]string{"OrderPlaced", `{"orderId":"o-1"}`, "-n", "5"}, problem.StatusOK, 5, 0, 0},
		"no request": {[]string{"ListStock", "-n", "3", "-H", "tenant: acme", "--timeout", "9s"}, problem.StatusOK, 3, 0, 3},
	} {
		t.Run(name, func(t *testing.T) {
			bench := s.startCommand(t, append([]string{"bench", "--json"}, test.args...)...)
			if status := bench.exit(ctx, t); status != test.status || bench.err.String() != "" {
				t.Errorf("exit status %d: %s", status, bench.err)
			}
			var r benchResult
			must(t, json.Unmarshal([]byte(bench.out.String()), &r))
			if r.Calls != test.calls || r.Failed != test.failed || r.Messages != test.messages || r.Cut_off != 0 || r.Not_begun != 0 {
				t.Errorf("got %+v", r)
			}
			sum := int64(0)
			for _, bin := range r.Histogram {
				sum += bin.Count
			}
			if sum != test.calls-test.failed {
				t.Errorf("%d calls are in the histogram", sum)
			}
			if test.failed > 0 && (len(r.Errors) != 1 || r.Errors[0].Code != "not_found" || r.Errors[0].Count != test.failed || !strings.Contains(r.Errors[0].Example, `no product "pear"`)) {
				t.Errorf("the errors are %+v", r.Errors)
			}
		})
	}
}

// requested returns a channel that gets the requests to a subject.
func (s *shop) requested(t *testing.T, subject string) <-chan *nats.Msg {
	t.Helper()
	asked := make(chan *nats.Msg, 8)
	nc := s.connect("shopper").nc
	_, err := nc.Subscribe(subject, func(m *nats.Msg) {
		select {
		case asked <- m:
		default:
		}
	})
	must(t, err)
	must(t, nc.Flush())
	return asked
}

// TestBenchInterrupted: Ctrl-C ends a measurement with what there is, and streams that would last.
func TestBenchInterrupted(t *testing.T) {
	s, ctx := benchShop(t), testContext(t)
	for method, cut := range map[string]bool{"ListStock": false, "WatchStock": true} {
		asked := s.requested(t, "inventory.v1.InventoryService."+method)
		bench := s.startCommand(t, "bench", method, "-d", "1h", "-c", "3", "--warmup", "0s")
		for range 3 {
			select {
			case <-asked:
			case <-ctx.Done():
				t.Fatal("nothing is called")
			}
		}
		bench.stop()
		if status := bench.exit(ctx, t); status != problem.StatusOK {
			t.Errorf("%s: exit status %d", method, status)
		}
		text := bench.out.String()
		if !strings.Contains(text, "   interrupted\n") || cut && !strings.Contains(text, "  cut off                 3   by the end") {
			t.Errorf("%s:\n%s%s", method, text, bench.err)
		}
	}
}

// TestBenchText: people get the same, and a file with the distribution.
func TestBenchText(t *testing.T) {
	s, ctx := benchShop(t), testContext(t)
	file := filepath.Join(t.TempDir(), "latencies.csv")
	bench := s.startCommand(t, "bench", "InventoryService/GetStock", `{"productId":"apple"}`, `{"productId":"pear"}`, "-n", "40", "--csv", file)
	if status := bench.exit(ctx, t); status != problem.StatusFailure {
		t.Errorf("exit status %d: %s", status, bench.err)
	}
	for _, want := range []string{
		"inventory.v1.InventoryService/GetStock, 16 at a time, 40 calls\n", "  calls                  40   ", "  failed                 20   50.00 %\n",
		"  p99.9 ", "█", "        20  not_found           ",
	} {
		if !strings.Contains(bench.out.String(), want) {
			t.Errorf("there is no %q in\n%s", want, bench.out)
		}
	}
	written, err := os.ReadFile(file)
	must(t, err)
	rows, err := csv.NewReader(strings.NewReader(string(written))).ReadAll()
	if err != nil || len(rows) < 2 || rows[len(rows)-1][2] != "100.0000" {
		t.Errorf("%v: %s", err, written)
	}
}

// TestBenchErrors: what goes wrong before the first call has a reason and an exit status.
func TestBenchErrors(t *testing.T) {
	t.Parallel()
	s, ctx := benchShop(t), testContext(t)
	for name, test := range map[string]struct {
		args   []string
		status int
		stderr string
	}{
		"no method":     {nil, problem.StatusUsage, "natscall bench: an argument is missing"},
		"unknown":       {[]string{"GetStok"}, problem.StatusFailure, "natscall bench: no service has a method \"GetStok\"\n  next: did you mean inventory.v1.InventoryService/GetStock?"},
		"one request":   {[]string{"GetStock", "--messages", "3"}, problem.StatusUsage, "natscall bench: --messages is for methods that take a stream, and inventory.v1.InventoryService/GetStock is unary"},
		"no messages":   {[]string{"ImportStock", "--messages", "-1"}, problem.StatusUsage, "natscall bench: --messages -1: "},
		"unknown field": {[]string{"GetStock", `{"product":"apple"}`}, problem.StatusFailure, `natscall bench: unknown field "product"`},
		"malformed":     {[]string{"GetStock", `{"productId":`}, problem.StatusFailure, "natscall bench: malformed JSON: "},
		"no file":       {[]string{"GetStock", "@none.json"}, problem.StatusUsage, "natscall bench: requests: open none.json: "},
		"empty stdin":   {[]string{"GetStock", "-"}, problem.StatusUsage, `natscall bench: stdin: there is no request: it is empty`},
		"nobody":        {[]string{"GetStock", "-c", "-1"}, problem.StatusUsage, "natscall bench: --concurrency -1"},
		"no connection": {[]string{"GetStock", "--connections", "0"}, problem.StatusUsage, "natscall bench: --connections 0"},
		"header":        {[]string{"GetStock", "-H", "tenant"}, problem.StatusUsage, `natscall bench: --header "tenant"`},
		"no folder":     {[]string{"GetStock", "--csv", "/nowhere/at/all.csv"}, problem.StatusFailure, "natscall bench: open /nowhere/at/all.csv: "},
	} {
		t.Run(name, func(t *testing.T) {
			bench := s.startCommand(t, append([]string{"bench"}, test.args...)...)
			if status := bench.exit(ctx, t); status != test.status || !strings.HasPrefix(bench.err.String(), test.stderr) || bench.out.String() != "" {
				t.Errorf("exit status %d:\n%s%s", status, bench.out, bench.err)
			}
		})
	}
}
