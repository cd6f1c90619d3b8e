package rpcotel_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.opentelemetry.io/otel/attribute"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcotel"
)

// points returns the values of a metric by their attributes: of a histogram how many there are, and
// their sum where that is no time.
func points(m metricdata.Metrics) map[string]string {
	out := map[string]string{}
	switch data := m.Data.(type) {
	case metricdata.Histogram[float64]:
		for _, p := range data.DataPoints {
			out[attributesOf(p.Attributes)] = fmt.Sprint(p.Count)
		}
	case metricdata.Histogram[int64]:
		for _, p := range data.DataPoints {
			out[attributesOf(p.Attributes)] = fmt.Sprintf("%d, together %d", p.Count, p.Sum)
		}
	case metricdata.Sum[int64]:
		for _, p := range data.DataPoints {
			out[attributesOf(p.Attributes)] = fmt.Sprint(p.Value)
		}
	}
	return out
}

func attributesOf(set attribute.Set) string {
	all := values(set.ToSlice())
	text := []string{}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		text = append(text, key+"="+strings.TrimPrefix(all[key], "test.v1.Test/"))
	}
	return strings.Join(text, " ")
}

// described returns the kind and the unit of a metric.
func described(m metricdata.Metrics) string {
	switch data := m.Data.(type) {
	case metricdata.Histogram[float64], metricdata.Histogram[int64]:
		return "histogram, " + m.Unit
	case metricdata.Sum[int64]:
		if data.IsMonotonic {
			return "counter, " + m.Unit
		}
		return "up-down counter, " + m.Unit
	}
	return fmt.Sprintf("%T %s", m.Data, m.Unit)
}

// TestMetrics has all metrics with their names, units and attributes. Dashboards and alerts depend
// on them.
func TestMetrics(t *testing.T) {
	w := newWorld(t)
	attempts := 0
	sometimes := func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		switch attempts++; {
		case call.Method() == "/test.v1.Test/Do" && attempts == 1: // is tried again
			return rpc.NewError(rpc.CodeUnavailable, "later", &anypb.Any{TypeUrl: "type.googleapis.com/google.rpc.RetryInfo"})
		}
		return next(ctx, call)
	}
	noted := make(chan struct{})
	server := serve(t, w.Connect(), &handlers{
		do: func(_ context.Context, in string) (string, error) {
			if in == "" {
				return "", rpc.Errorf(rpc.CodeNotFound, "no apples")
			}
			return in, nil
		},
		note: func(context.Context, string) error { close(noted); return nil },
	}, w.interceptor(), rpc.WithInterceptors(sometimes))
	registration, err := rpcotel.ObserveServer(server, w.opts...)
	must(t, err)
	defer func() { must(t, registration.Unregister()) }()
	c := dial(t, w.Connect(), w.interceptor())
	for _, name := range []string{"Do", "Watch", "Collect", "Chat", "Note"} {
		must(t, calls[name](t.Context(), c))
	}
	<-noted
	if _, err := testDo.Call(t.Context(), c, wrapperspb.String("")); rpc.CodeOf(err) != rpc.CodeNotFound {
		t.Fatal(err)
	}
	w.spans.wait(t, 13) // all calls are over on both sides

	const ok = " rpc.response.status_code=OK rpc.system.name=natscall"
	const notFound = "error.type=NOT_FOUND rpc.method=Do rpc.response.status_code=NOT_FOUND rpc.system.name=natscall"
	want := map[string]struct {
		described string
		points    map[string]string
	}{
		"rpc.client.call.duration": {"histogram, s", map[string]string{
			"rpc.method=Do" + ok: "1", "rpc.method=Watch" + ok: "1", "rpc.method=Collect" + ok: "1", "rpc.method=Chat" + ok: "1", "rpc.method=Note" + ok: "1",
			notFound: "1",
		}},
		"rpc.server.call.duration": {"histogram, s", map[string]string{
			"rpc.method=Do" + ok: "1", "rpc.method=Watch" + ok: "1", "rpc.method=Collect" + ok: "1", "rpc.method=Chat" + ok: "1", "rpc.method=Note" + ok: "1",
			strings.TrimPrefix(notFound, "error.type=NOT_FOUND "):                                                "1",
			"error.type=UNAVAILABLE rpc.method=Do rpc.response.status_code=UNAVAILABLE rpc.system.name=natscall": "1",
		}},
		"natscall.client.active_calls": {"up-down counter, {call}", ofEach("0", "0", "0", "0", "0")},
		"natscall.server.active_calls": {"up-down counter, {call}", ofEach("0", "0", "0", "0", "0")},

		"natscall.client.request.messages":  {"counter, {message}", ofEach("2", "1", "3", "2", "1")},
		"natscall.server.request.messages":  {"counter, {message}", ofEach("2", "1", "3", "2", "1")},
		"natscall.client.response.messages": {"counter, {message}", ofEach("1", "2", "1", "2", "")},
		"natscall.server.response.messages": {"counter, {message}", ofEach("1", "2", "1", "2", "")},
		// A text of one letter has 3 bytes.
		"natscall.client.request.size":  {"counter, By", ofEach("3", "3", "9", "6", "3")},
		"natscall.server.request.size":  {"counter, By", ofEach("3", "3", "9", "6", "3")},
		"natscall.client.response.size": {"counter, By", ofEach("3", "6", "5", "6", "")},
		"natscall.server.response.size": {"counter, By", ofEach("3", "6", "5", "6", "")},

		"natscall.client.requests_per_call":  {"histogram, {message}", ofEach("", "1, together 1", "1, together 3", "1, together 2", "")},
		"natscall.server.requests_per_call":  {"histogram, {message}", ofEach("", "1, together 1", "1, together 3", "1, together 2", "")},
		"natscall.client.responses_per_call": {"histogram, {message}", ofEach("", "1, together 2", "1, together 1", "1, together 2", "")},
		"natscall.server.responses_per_call": {"histogram, {message}", ofEach("", "1, together 2", "1, together 1", "1, together 2", "")},

		"natscall.client.retries": {"counter, {attempt}", ofEach("1", "", "", "", "")},
		"natscall.client.failed_calls": {"counter, {call}", map[string]string{
			"natscall.execution=did_run rpc.method=Do rpc.response.status_code=NOT_FOUND": "1"}},

		"natscall.server.queued_calls": {"up-down counter, {call}", ofEach("0", "0", "0", "0", "0")},
		"natscall.server.answered_calls": {"counter, {call}", map[string]string{
			"rpc.method=Do rpc.response.status_code=OK": "1", "rpc.method=Do rpc.response.status_code=UNAVAILABLE": "1",
			"rpc.method=Do rpc.response.status_code=NOT_FOUND": "1", "rpc.method=Watch rpc.response.status_code=OK": "1",
			"rpc.method=Collect rpc.response.status_code=OK": "1", "rpc.method=Chat rpc.response.status_code=OK": "1",
			"rpc.method=Note rpc.response.status_code=OK": "1"}},
		"natscall.server.refused_answers": {"counter, {message}", map[string]string{"": "0"}},
	}
	got := w.metrics()
	delete(got, "natscall.server.queue.duration") // only if a call has waited: TestServerLoad
	for name, m := range got {
		expected, known := want[name]
		if !known {
			t.Errorf("%s is unknown: %v", name, points(m))
			continue
		}
		if described(m) != expected.described || m.Description == "" {
			t.Errorf("%s is a %s (%q), want a %s", name, described(m), m.Description, expected.described)
		}
		if diff := cmp.Diff(expected.points, points(m)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	documented := map[string]bool{"natscall.server.queue.duration | histogram, s": true, "natscall.server.shed_calls | counter, {call}": true, "natscall.client.hedges | counter, {attempt}": true}
	for name, m := range want {
		if _, ok := got[name]; !ok {
			t.Errorf("%s is missing", name)
		}
		documented[name+" | "+m.described] = true
	}
	if diff := cmp.Diff(documented, inGuide(t)); diff != "" {
		t.Errorf("the metrics in docs/telemetry.md (-want +got):\n%s", diff)
	}
}

// ofEach returns the points of a metric whose only attribute is the method.
func ofEach(do, watch, collect, chat, note string) map[string]string {
	all := map[string]string{"Do": do, "Watch": watch, "Collect": collect, "Chat": chat, "Note": note}
	out := map[string]string{}
	for method, value := range all {
		if value != "" {
			out["rpc.method="+method] = value
		}
	}
	return out
}

// TestFailedCalls: whether they have run is a part of what is counted.
func TestFailedCalls(t *testing.T) {
	w := newWorld(t)
	c := dial(t, w.Connect(), w.interceptor(), rpc.WithoutRetry())
	// Nobody is there.
	if err := calls["Do"](t.Context(), c); rpc.CodeOf(err) != rpc.CodeUnavailable {
		t.Fatal(err)
	}
	entered := make(chan struct{})
	serve(t, w.Connect(), &handlers{do: func(ctx context.Context, _ string) (string, error) {
		close(entered)
		<-ctx.Done()
		return "", ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() { <-entered; cancel() }() // ends when the handler runs
	if err := calls["Do"](ctx, c); rpc.CodeOf(err) != rpc.CodeCanceled {
		t.Fatal(err)
	}
	want := map[string]string{
		"natscall.execution=not_run rpc.method=Do rpc.response.status_code=UNAVAILABLE":    "1",
		"natscall.execution=may_have_run rpc.method=Do rpc.response.status_code=CANCELLED": "1",
	}
	if diff := cmp.Diff(want, points(w.metrics()["natscall.client.failed_calls"])); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestActive: calls are counted while they are there.
func TestActive(t *testing.T) {
	w := newWorld(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	serve(t, w.Connect(), &handlers{watch: func(context.Context, string) error {
		entered <- struct{}{}
		<-leave
		return nil
	}}, w.interceptor())
	c := dial(t, w.Connect(), w.interceptor())
	var running sync.WaitGroup
	for range 3 {
		running.Go(func() {
			if err := calls["Watch"](t.Context(), c); err != nil {
				t.Error(err)
			}
		})
		<-entered
	}
	got := w.metrics()
	for _, side := range []string{"client", "server"} {
		if n := points(got["natscall."+side+".active_calls"])["rpc.method=Watch"]; n != "3" {
			t.Errorf("%s calls are active on the %s, want 3", n, side)
		}
	}
	close(leave)
	running.Wait()
}

// TestExemplars: a duration leads to the trace of a call that took so long.
func TestExemplars(t *testing.T) {
	w := newWorld(t)
	serve(t, w.Connect(), &handlers{}, w.interceptor())
	c := dial(t, w.Connect(), w.interceptor())
	must(t, calls["Do"](t.Context(), c))
	must(t, calls["Watch"](t.Context(), c))
	ids := map[string]bool{}
	for _, span := range w.spans.wait(t, 4) {
		ids[span.SpanContext().SpanID().String()] = true
	}
	got := w.metrics()
	seen := map[string]bool{}
	for _, name := range []string{"rpc.client.call.duration", "rpc.server.call.duration"} {
		for _, p := range got[name].Data.(metricdata.Histogram[float64]).DataPoints {
			for _, e := range p.Exemplars {
				seen[fmt.Sprintf("%x", e.SpanID)] = true
			}
		}
	}
	if diff := cmp.Diff(ids, seen); diff != "" {
		t.Errorf("spans with an exemplar (-want +got):\n%s", diff)
	}
}

// TestServerLoad: what is refused before any interceptor, and what waits.
func TestServerLoad(t *testing.T) {
	w := newWorld(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	server := serve(t, w.Connect(), &handlers{do: func(context.Context, string) (string, error) {
		entered <- struct{}{}
		<-leave
		return "", nil
	}}, w.interceptor(), rpc.WithMaxConcurrency(1), rpc.WithMaxQueue(1))
	registration, err := rpcotel.ObserveServer(server, w.opts...)
	must(t, err)
	c := dial(t, w.Connect(), rpc.WithoutRetry())
	var running sync.WaitGroup
	call := func() {
		if err := calls["Do"](t.Context(), c); err != nil {
			t.Error(err)
		}
	}
	running.Go(call)
	<-entered
	// One of two more waits, and the other is refused.
	refused := make(chan error, 2)
	for range 2 {
		running.Go(func() { refused <- calls["Do"](t.Context(), c) })
	}
	if err := <-refused; rpc.CodeOf(err) != rpc.CodeResourceExhausted {
		t.Fatal(err)
	}
	got := w.metrics()
	for name, want := range map[string]map[string]string{
		"natscall.server.queued_calls":   {"rpc.method=Do": "1", "rpc.method=Watch": "0", "rpc.method=Collect": "0", "rpc.method=Chat": "0", "rpc.method=Note": "0"},
		"natscall.server.shed_calls":     {"natscall.shed.reason=queue rpc.method=Do": "1"},
		"natscall.server.answered_calls": {"rpc.method=Do rpc.response.status_code=RESOURCE_EXHAUSTED": "1"},
		"natscall.server.active_calls":   {"rpc.method=Do": "1"},
	} {
		if diff := cmp.Diff(want, points(got[name])); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if unit := described(got["natscall.server.shed_calls"]); unit != "counter, {call}" {
		t.Errorf("shed_calls is a %s", unit)
	}
	waiting := time.NewTimer(2 * time.Millisecond) // less is not measured
	<-waiting.C
	close(leave)
	<-entered
	running.Wait()
	must(t, <-refused)
	if queue := w.metrics()["natscall.server.queue.duration"]; described(queue) != "histogram, s" || len(points(queue)) != 1 {
		t.Errorf("how long the call has waited: a %s of %v", described(queue), points(queue))
	}
	must(t, registration.Unregister())
	if m, ok := w.metrics()["natscall.server.answered_calls"]; ok {
		t.Errorf("after Unregister there is %v", points(m))
	}
}

// TestDurationAttributes: attributes of the program.
func TestDurationAttributes(t *testing.T) {
	w := newWorld(t)
	tenant := rpcotel.WithDurationAttributes(func(_ context.Context, call *rpc.Call) []attribute.KeyValue {
		return []attribute.KeyValue{attribute.String("tenant", call.Header().Get("tenant"))}
	})
	serve(t, w.Connect(), &handlers{}, w.interceptor(tenant))
	must(t, calls["Do"](t.Context(), dial(t, w.Connect(), w.interceptor(tenant), rpc.WithHeader("tenant", "acme"))))
	for _, name := range []string{"rpc.client.call.duration", "rpc.server.call.duration"} {
		want := map[string]string{"rpc.method=Do rpc.response.status_code=OK rpc.system.name=natscall tenant=acme": "1"}
		if diff := cmp.Diff(want, points(w.metrics()[name])); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestMeterProvider: without one, or where a view drops what is measured of messages, the hooks for
// that are not set. What is left goes on.
func TestMeterProvider(t *testing.T) {
	w := newWorld(t)
	reader := sdkmetric.NewManualReader()
	drop := sdkmetric.NewView(sdkmetric.Instrument{Name: "natscall.*"}, sdkmetric.Stream{Aggregation: sdkmetric.AggregationDrop{}})
	few := rpcotel.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader), sdkmetric.WithView(drop)))
	serve(t, w.Connect(), &handlers{}, w.interceptor(few))
	c := dial(t, w.Connect(), w.interceptor(rpcotel.WithMeterProvider(metricnoop.NewMeterProvider())))
	for _, name := range []string{"Do", "Watch", "Collect", "Chat"} {
		must(t, calls[name](t.Context(), c))
	}
	w.spans.wait(t, 8)
	w.reader = reader
	got := w.metrics()
	if len(got) != 1 || len(points(got["rpc.server.call.duration"])) != 4 {
		t.Errorf("measured: %v", got)
	}
}

// TestConcurrency: many calls of all shapes at once are counted exactly, and every span finds its
// parent.
func TestConcurrency(t *testing.T) {
	w := newWorld(t)
	serve(t, w.Connect(), &handlers{}, w.interceptor(), rpc.WithMaxStreams(1000), rpc.WithMaxQueue(1000))
	c := dial(t, w.Connect(), w.interceptor())
	const callers, rounds = 8, 20
	var running sync.WaitGroup
	for range callers {
		running.Go(func() {
			for range rounds {
				for name, call := range calls {
					if err := call(t.Context(), c); err != nil {
						t.Error(name, err)
					}
				}
			}
		})
	}
	running.Wait()
	all := w.spans.wait(t, 2*callers*rounds*len(calls))
	byID := map[string]sdktrace.ReadOnlySpan{}
	for _, span := range all {
		byID[span.SpanContext().SpanID().String()] = span
	}
	for _, span := range all {
		parent := span.Parent()
		if len(span.Links()) == 1 {
			parent = span.Links()[0].SpanContext
		}
		if from := byID[parent.SpanID().String()]; parent.IsValid() && (from == nil || from.Name() != span.Name()) {
			t.Fatalf("%s has the parent %v", span.Name(), parent)
		}
	}
	got := w.metrics()
	for _, side := range []string{"client", "server"} {
		for attributes, n := range points(got["rpc."+side+".call.duration"]) {
			if n != fmt.Sprint(callers*rounds) {
				t.Errorf("%s: %s calls on the %s", attributes, n, side)
			}
		}
		for attributes, n := range points(got["natscall."+side+".active_calls"]) {
			if n != "0" {
				t.Errorf("%s: %s calls are still active on the %s", attributes, n, side)
			}
		}
	}
}

// TestPanic: a call ends in telemetry whatever the handler does.
func TestPanic(t *testing.T) {
	w := newWorld(t)
	serve(t, w.Connect(), &handlers{do: func(context.Context, string) (string, error) { panic("boom") }},
		w.interceptor(), rpc.WithLogger(quiet))
	var failed *rpc.Error
	if err := calls["Do"](t.Context(), dial(t, w.Connect(), w.interceptor())); !errors.As(err, &failed) {
		t.Fatal(err)
	}
	for _, span := range w.spans.wait(t, 2) {
		if got := values(span.Attributes())["error.type"]; got != "INTERNAL" {
			t.Errorf("%v: error.type is %q", span.SpanKind(), got)
		}
	}
}

// TestTwoInterceptors: what several interceptors of a program observe is added up.
func TestTwoInterceptors(t *testing.T) {
	w := newWorld(t)
	serve(t, w.Connect(), &handlers{}, w.interceptor())
	for range 2 {
		must(t, calls["Do"](t.Context(), dial(t, w.Connect(), w.interceptor())))
	}
	got := w.metrics()
	for name, want := range map[string]string{"rpc.client.call.duration": "2", "natscall.client.request.messages": "2", "natscall.client.request.size": "6"} {
		for attributes, n := range points(got[name]) {
			if n != want {
				t.Errorf("%s %s: %s, want %s", name, attributes, n, want)
			}
		}
	}
}
