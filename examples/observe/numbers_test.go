package observe_test

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/natscall/natscall/examples/internal/natslog"
	"github.com/natscall/natscall/examples/internal/prom"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/rpc"
)

// counts is how many calls have ended how, by method and code, as in
// "inventory.v1.InventoryService/GetStock NOT_FOUND".
type counts map[string]int

func (c counts) add(method, code string, n int) {
	if n == 0 {
		return
	}
	code = strings.ToUpper(code)
	if code == "CANCELED" {
		code = "CANCELLED" // as telemetry spells it
	}
	c[strings.TrimPrefix(method, "/")+" "+code] += n
}

func (c counts) String() string {
	var lines []string
	for _, key := range slices.Sorted(maps.Keys(c)) {
		lines = append(lines, fmt.Sprintf("   %s: %d", key, c[key]))
	}
	return strings.Join(lines, "\n")
}

// TestSameNumbers makes calls of all shapes with known outcomes, and finds the same numbers in the
// metrics, in `nats micro stats` and in the log.
func TestSameNumbers(t *testing.T) {
	w := newWorld(t)
	want := w.traffic(t.Context())
	all := maps.Clone(want) // also what is shed, which no interceptor sees
	all.add(inventoryv1nats.InventoryServiceAddStockMethod, "RESOURCE_EXHAUSTED", 1)
	w.same("nats micro stats", all, w.micro)
	w.same("natscall_server_answered_calls_total", all, func() counts { return w.metric("natscall_server_answered_calls_total", false) })
	w.sameCalls(want)
	w.checkClient()
	w.checkLoad()

	w.hedge(t.Context())
	want.add(inventoryv1nats.InventoryServiceGetStockMethod, "OK", 1)
	want.add(inventoryv1nats.InventoryServiceGetStockMethod, "CANCELED", 1) // has lost
	w.sameCalls(want)
}

// sameCalls compares what the interceptors of the servers have recorded.
func (w *world) sameCalls(want counts) {
	w.t.Helper()
	w.same("rpc_server_call_duration_seconds", want, func() counts { return w.metric("rpc_server_call_duration_seconds", false) })
	w.same("log of the servers", want, func() counts { return w.logged("call served") })
}

// same waits until a source has the numbers, as canceled and one-way calls end in the background.
func (w *world) same(name string, want counts, read func() counts) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	var got counts
	for range until.Attempts(ctx) {
		if got = read(); maps.Equal(got, want) {
			return
		}
	}
	w.t.Errorf("%s has\n%v\nwant\n%v", name, got, want)
}

// traffic makes calls, and returns how they have ended on the servers.
func (w *world) traffic(ctx context.Context) counts {
	w.t.Helper()
	want := counts{}
	call := func(n int, method string, code rpc.Code, make func() error) {
		for range n {
			if err := make(); rpc.CodeOf(err) != code {
				w.t.Errorf("%s: %v, want %v", method, err, code)
			}
		}
		want.add(method, code.String(), n)
	}
	const (
		get      = inventoryv1nats.InventoryServiceGetStockMethod
		reserve  = inventoryv1nats.InventoryServiceReserveMethod
		add      = inventoryv1nats.InventoryServiceAddStockMethod
		watch    = inventoryv1nats.InventoryServiceWatchStockMethod
		deliver  = inventoryv1nats.InventoryServiceImportStockMethod
		pick     = "/order.v1.OrderService/PickOrder"
		announce = "/order.v1.OrderFeedService/OrderPlaced"
	)
	call(5, get, rpc.CodeOK, func() error { return w.get(ctx, good) })
	call(4, get, rpc.CodeNotFound, func() error { return w.get(ctx, none) })
	call(3, get, rpc.CodeInternal, func() error { return w.get(ctx, broken) })
	call(2, get, rpc.CodeDeadlineExceeded, func() error { return w.get(ctx, stuck, rpc.WithTimeout(50*time.Millisecond)) })
	call(3, watch, rpc.CodeOK, func() error { return w.watch(ctx, good, good, good) })
	call(2, watch, rpc.CodeNotFound, func() error { return w.watch(ctx, good, none) })
	call(2, deliver, rpc.CodeOK, func() error { return w.deliver(ctx, good, good) })
	call(1, deliver, rpc.CodeInvalidArgument, func() error { return w.deliver(ctx, good, wrong, good) })
	call(2, pick, rpc.CodeOK, func() error { return w.pick(ctx, good, good) })
	call(1, pick, rpc.CodeInternal, func() error { return w.pick(ctx, good, broken) })
	call(6, announce, rpc.CodeOK, func() error { return w.announce(ctx, good) })

	call(3, reserve, rpc.CodeOK, func() error { return w.reserve(ctx, busy) })
	want.add(reserve, "UNAVAILABLE", 3) // each was refused at first

	w.overload(ctx)
	want.add(add, "CANCELED", 1)
	want.add(add, "OK", 1)
	return want
}

// micro asks the services as `nats micro stats` does.
func (w *world) micro() counts {
	w.t.Helper()
	sub, err := w.nc.SubscribeSync(w.nc.NewInbox())
	must(w.t, err)
	defer func() { _ = sub.Unsubscribe() }()
	must(w.t, w.nc.PublishRequest("$SRV.STATS", sub.Subject, nil))
	got := counts{}
	for range 3 * instances { // services
		m, err := sub.NextMsg(patience)
		must(w.t, err)
		var stats micro.Stats
		must(w.t, json.Unmarshal(m.Data, &stats))
		for _, e := range stats.Endpoints {
			var data struct {
				Codes map[string]int `json:"codes"`
			}
			must(w.t, json.Unmarshal(e.Data, &data))
			sum := 0
			for code, n := range data.Codes {
				got.add(stats.Metadata["natscall.service"]+"/"+e.Name, code, n)
				sum += n
			}
			if sum != e.NumRequests || sum-data.Codes["ok"] != e.NumErrors {
				w.t.Errorf("%s: %d requests, %d errors, codes %v", e.Name, e.NumRequests, e.NumErrors, data.Codes)
			}
		}
	}
	return got
}

// metric reads the text of /metrics of the servers, or of the client.
func (w *world) metric(name string, ofClient bool) counts {
	w.t.Helper()
	got := counts{}
	all := w.scrape()
	from := all[:instances]
	if ofClient {
		from = all[instances:]
	}
	for _, f := range from {
		for method := range f.Values(name, "rpc_method") {
			for code := range f.Values(name, "rpc_response_status_code") {
				n := f.Sum(name, map[string]string{"rpc_method": method, "rpc_response_status_code": code})
				got.add(method, code, int(n))
			}
		}
	}
	return got
}

// logged counts the records about calls in the stream that has the logs of all processes.
func (w *world) logged(message string) counts {
	w.t.Helper()
	records, err := natslog.Read(w.t.Context(), w.logs, time.Time{})
	must(w.t, err)
	got := counts{}
	for _, r := range records {
		if r.Message == message {
			got.add(r.Attributes["method"].(string), r.Attributes["code"].(string), 1)
		}
	}
	return got
}

// checkClient compares what the client knows of failed calls.
func (w *world) checkClient() {
	w.t.Helper()
	failed := w.metric("natscall_client_failed_calls_total", true)
	w.same("log of the client", failed, func() counts { return w.logged("call made") })
	took := w.metric("rpc_client_call_duration_seconds", true)
	for key, n := range took {
		if strings.HasSuffix(key, " OK") {
			delete(took, key)
		} else if n != failed[key] {
			w.t.Errorf("rpc_client_call_duration_seconds of %s is %d, natscall_client_failed_calls_total %d", key, n, failed[key])
		}
	}
	want := counts{}
	want.add(inventoryv1nats.InventoryServiceGetStockMethod, "NOT_FOUND", 4)
	want.add(inventoryv1nats.InventoryServiceGetStockMethod, "INTERNAL", 3)
	want.add(inventoryv1nats.InventoryServiceGetStockMethod, "DEADLINE_EXCEEDED", 2)
	want.add(inventoryv1nats.InventoryServiceWatchStockMethod, "NOT_FOUND", 2)
	want.add(inventoryv1nats.InventoryServiceImportStockMethod, "INVALID_ARGUMENT", 1)
	want.add(inventoryv1nats.InventoryServiceAddStockMethod, "CANCELED", 1)
	want.add(inventoryv1nats.InventoryServiceAddStockMethod, "RESOURCE_EXHAUSTED", 1)
	want.add("order.v1.OrderService/PickOrder", "INTERNAL", 1)
	if !maps.Equal(failed, want) {
		w.t.Errorf("failed calls\n%v\nwant\n%v", failed, want)
	}
}

// checkLoad compares what else was counted: retries, hedges, what was shed and what has waited, and
// that nothing is left.
func (w *world) checkLoad() {
	w.t.Helper()
	method := func(m string) map[string]string { return map[string]string{"rpc_method": strings.TrimPrefix(m, "/")} }
	all := w.scrape()
	client := all[instances]
	if n := client.Sum("natscall_client_retries_total", method(inventoryv1nats.InventoryServiceReserveMethod)); n != 3 {
		w.t.Errorf("%v retries", n)
	}
	shed := method(inventoryv1nats.InventoryServiceAddStockMethod)
	shed["natscall_shed_reason"] = "method"
	if n := sum(all, "natscall_server_shed_calls_total", shed); n != 1 {
		w.t.Errorf("%v calls were shed", n)
	}
	if n := sum(all, "natscall_server_queue_duration_seconds", method(inventoryv1nats.InventoryServiceAddStockMethod)); n != 1 {
		w.t.Errorf("%v calls have waited", n)
	}
	for _, name := range []string{"natscall_server_active_calls", "natscall_client_active_calls", "natscall_server_queued_calls"} {
		if n := sum(all, name, nil); n != 0 {
			w.t.Errorf("%s is %v", name, n)
		}
	}
	watched := method(inventoryv1nats.InventoryServiceWatchStockMethod)
	if n := sum(all, "natscall_server_response_messages_total", watched); n != 3*3+2*1 {
		w.t.Errorf("%v messages were sent in streams", n)
	}
}

func sum(all []prom.Families, name string, labels map[string]string) (n float64) {
	for _, f := range all {
		n += f.Sum(name, labels)
	}
	return n
}

// load is what the first instance does now of AddStock.
func (w *world) load() (now struct {
	InFlight int `json:"in_flight"`
	Queued   int `json:"queued"`
}) {
	for _, s := range w.servers[0].Stats() {
		for _, e := range s.Endpoints {
			if s.Name == "InventoryService" && e.Name == "AddStock" {
				must(w.t, json.Unmarshal(e.Data, &now))
			}
		}
	}
	return now
}
