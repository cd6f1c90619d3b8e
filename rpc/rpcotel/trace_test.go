package rpcotel_test

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/baggage"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	tracenoop "go.opentelemetry.io/otel/trace/noop"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcotel"
)

// TestSpans: a span on each side of a call of every shape, with the right parent and attributes.
func TestSpans(t *testing.T) {
	w := newWorld(t)
	server := serve(t, w.Connect(), &handlers{}, w.interceptor())
	c := dial(t, w.Connect(), w.interceptor())
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			ctx, root := w.tracer.Start(t.Context(), "root")
			must(t, call(ctx, c))
			root.End()
			all := w.spans.wait(t, 3)
			kinds := [...]trace.SpanKind{trace.SpanKindClient, trace.SpanKindServer}
			if name == "Note" {
				kinds = [...]trace.SpanKind{trace.SpanKindProducer, trace.SpanKindConsumer}
			}
			client, served := of(t, all, kinds[0]), of(t, all, kinds[1])
			if client.Parent().SpanID() != root.SpanContext().SpanID() || client.Parent().IsRemote() {
				t.Error("the client's span is not a child of the program's")
			}
			if name == "Note" {
				checkLinked(t, served, client.SpanContext())
			} else if served.Parent().SpanID() != client.SpanContext().SpanID() || !served.Parent().IsRemote() || len(served.Links()) > 0 {
				t.Error("the server's span is not a child of the client's")
			}
			checkAttributes(t, name, server.Instance(testDesc.Name), client, served)
		})
	}
}

// checkLinked: the span begins a trace of its own, with a link.
func checkLinked(t *testing.T, span sdktrace.ReadOnlySpan, to trace.SpanContext) {
	t.Helper()
	if span.Parent().IsValid() || span.SpanContext().TraceID() == to.TraceID() {
		t.Errorf("the span has the parent %v", span.Parent())
	}
	if len(span.Links()) != 1 || span.Links()[0].SpanContext.SpanID() != to.SpanID() || span.Links()[0].SpanContext.TraceID() != to.TraceID() {
		t.Errorf("the links are %v", span.Links())
	}
}

// checkAttributes compares all attributes.
func checkAttributes(t *testing.T, name, instance string, client, served sdktrace.ReadOnlySpan) {
	t.Helper()
	for _, span := range []sdktrace.ReadOnlySpan{client, served} {
		if span.Name() != "test.v1.Test/"+name || span.Status().Code != codes.Unset {
			t.Errorf("span %q has the status %v", span.Name(), span.Status())
		}
	}
	both := map[string]string{"rpc.system.name": "natscall", "rpc.method": "test.v1.Test/" + name, "rpc.response.status_code": "OK"}
	onClient, onServer := maps.Clone(both), maps.Clone(both)
	onServer["natscall.instance"] = instance
	if name == "Note" {
		maps.Copy(onClient, map[string]string{"messaging.system": "nats", "messaging.operation.name": "send",
			"messaging.operation.type": "send", "messaging.destination.name": "notes.new"})
		maps.Copy(onServer, map[string]string{"messaging.system": "nats", "messaging.operation.name": "process", "messaging.operation.type": "process"})
	} else {
		onClient["server.address"], onClient["natscall.instance"] = "test.v1.Test", instance
	}
	gotClient, gotServer := values(client.Attributes()), values(served.Attributes())
	if len(gotServer["natscall.call.id"]) != 32 != (name == "Note") {
		t.Errorf("the call's id is %q", gotServer["natscall.call.id"])
	}
	if gotServer["natscall.queue.duration"] == "" {
		t.Error("the server's span does not say how long the request has waited")
	}
	delete(gotServer, "natscall.call.id")
	delete(gotServer, "natscall.queue.duration")
	if diff := cmp.Diff([]map[string]string{onClient, onServer}, []map[string]string{gotClient, gotServer}); diff != "" {
		t.Errorf("client, server (-want +got):\n%s", diff)
	}
}

// TestRetry: both attempts of a call are children of the client's one span, which has an event for
// the second.
func TestRetry(t *testing.T) {
	w := newWorld(t)
	refused := false
	refuse := func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		if !refused {
			refused = true
			return rpc.NewError(rpc.CodeUnavailable, "later", &anypb.Any{TypeUrl: "type.googleapis.com/google.rpc.RetryInfo"})
		}
		return next(ctx, call)
	}
	serve(t, w.Connect(), &handlers{}, w.interceptor(), rpc.WithInterceptors(refuse))
	must(t, calls["Do"](t.Context(), dial(t, w.Connect(), w.interceptor())))
	all := w.spans.wait(t, 3)
	client := of(t, all, trace.SpanKindClient)
	statuses := map[string]codes.Code{}
	ids := map[string]bool{}
	for _, span := range all {
		if span.SpanKind() == trace.SpanKindServer {
			got := values(span.Attributes())
			statuses[got["rpc.response.status_code"]] = span.Status().Code
			ids[got["natscall.call.id"]] = true
			if span.Parent().SpanID() != client.SpanContext().SpanID() {
				t.Error("an attempt on the server is not a child of the client's span")
			}
		}
	}
	if diff := cmp.Diff(map[string]codes.Code{"UNAVAILABLE": codes.Error, "OK": codes.Unset}, statuses); diff != "" {
		t.Errorf("the statuses of the attempts (-want +got):\n%s", diff)
	}
	if len(client.Events()) != 1 || client.Status().Code != codes.Unset || client.Events()[0].Name != "natscall.attempt" {
		t.Fatalf("the client's span has the status %v and the events %v", client.Status(), client.Events())
	}
	attempt := values(client.Events()[0].Attributes)
	if !ids[attempt["natscall.attempt.id"]] {
		t.Errorf("no server has seen the attempt %q", attempt["natscall.attempt.id"])
	}
	delete(attempt, "natscall.attempt.id")
	if diff := cmp.Diff(map[string]string{"natscall.attempt.number": "1", "natscall.attempt.subject": "test.v1.Test.Do"}, attempt); diff != "" {
		t.Errorf("the attempt (-want +got):\n%s", diff)
	}
}

// TestHedge: a hedge is an event of the client's span, and is counted as one.
func TestHedge(t *testing.T) {
	w := newWorld(t)
	first, second := make(chan struct{}), make(chan struct{})
	handler := &handlers{do: func(ctx context.Context, in string) (string, error) {
		select {
		case first <- struct{}{}:
			<-ctx.Done()
			return "", ctx.Err()
		case second <- struct{}{}:
			return in, nil
		}
	}}
	serve(t, w.Connect(), handler)
	serve(t, w.Connect(), handler)
	c := dial(t, w.Connect(), w.interceptor(), rpc.WithHedging(time.Millisecond))
	called := make(chan error, 1)
	go func() { called <- calls["Do"](t.Context(), c) }()
	<-first
	<-second
	must(t, <-called)
	client := of(t, w.spans.wait(t, 1), trace.SpanKindClient)
	// The first hedge may have come to the instance that has the call.
	for i, event := range client.Events() {
		got := values(event.Attributes)
		if got["natscall.attempt.hedge"] != "true" || got["natscall.attempt.number"] != strconv.Itoa(i+1) {
			t.Errorf("event %d of the span has %v", i, got)
		}
	}
	all := w.metrics()
	if got := points(all["natscall.client.hedges"]); len(client.Events()) == 0 || got["rpc.method=Do"] != strconv.Itoa(len(client.Events())) {
		t.Errorf("the hedges are %v, with %d events", got, len(client.Events()))
	}
	if got := points(all["natscall.client.retries"]); len(got) > 0 {
		t.Errorf("the retries are %v, want none", got)
	}
}

// TestThroughServices: one trace goes through a stream and the call that its handler makes.
func TestThroughServices(t *testing.T) {
	w := newWorld(t)
	nc := w.Connect()
	inner := dial(t, nc, w.interceptor())
	serve(t, nc, &handlers{watch: func(ctx context.Context, _ string) error { return calls["Do"](ctx, inner) }}, w.interceptor())
	must(t, calls["Watch"](t.Context(), dial(t, w.Connect(), w.interceptor())))
	path := []string{}
	parents := map[trace.SpanID]sdktrace.ReadOnlySpan{}
	var parent trace.SpanID // of the root
	for _, span := range w.spans.wait(t, 4) {
		parents[span.Parent().SpanID()] = span
	}
	for span := parents[parent]; span != nil; span = parents[span.SpanContext().SpanID()] {
		path = append(path, span.SpanKind().String()+" "+span.Name())
	}
	want := "client test.v1.Test/Watch, server test.v1.Test/Watch, client test.v1.Test/Do, server test.v1.Test/Do"
	if got := strings.Join(path, ", "); got != want {
		t.Errorf("the trace is %s, want %s", got, want)
	}
}

// TestStatus: which codes are errors of a span, and what is known about the execution.
func TestStatus(t *testing.T) {
	w := newWorld(t)
	var code rpc.Code
	server := serve(t, w.Connect(), &handlers{do: func(context.Context, string) (string, error) {
		return "", rpc.Errorf(code, "no apples")
	}}, w.interceptor())
	c := dial(t, w.Connect(), w.interceptor(), rpc.WithoutRetry())
	for _, test := range []struct {
		code   rpc.Code
		name   string
		server codes.Code
	}{
		{rpc.CodeCanceled, "CANCELLED", codes.Unset},
		{rpc.CodeUnknown, "UNKNOWN", codes.Error},
		{rpc.CodeInvalidArgument, "INVALID_ARGUMENT", codes.Unset},
		{rpc.CodeDeadlineExceeded, "DEADLINE_EXCEEDED", codes.Error},
		{rpc.CodeNotFound, "NOT_FOUND", codes.Unset},
		{rpc.CodeAlreadyExists, "ALREADY_EXISTS", codes.Unset},
		{rpc.CodePermissionDenied, "PERMISSION_DENIED", codes.Unset},
		{rpc.CodeResourceExhausted, "RESOURCE_EXHAUSTED", codes.Unset},
		{rpc.CodeFailedPrecondition, "FAILED_PRECONDITION", codes.Unset},
		{rpc.CodeAborted, "ABORTED", codes.Unset},
		{rpc.CodeOutOfRange, "OUT_OF_RANGE", codes.Unset},
		{rpc.CodeUnimplemented, "UNIMPLEMENTED", codes.Error},
		{rpc.CodeInternal, "INTERNAL", codes.Error},
		{rpc.CodeUnavailable, "UNAVAILABLE", codes.Error},
		{rpc.CodeDataLoss, "DATA_LOSS", codes.Error},
		{rpc.CodeUnauthenticated, "UNAUTHENTICATED", codes.Unset},
	} {
		code = test.code
		if err := calls["Do"](t.Context(), c); rpc.CodeOf(err) != code {
			t.Fatalf("the call ends with %v, want %v", err, code)
		}
		all := w.spans.wait(t, 2)
		for kind, want := range map[trace.SpanKind]codes.Code{trace.SpanKindClient: codes.Error, trace.SpanKindServer: test.server} {
			span := of(t, all, kind)
			got := values(span.Attributes())
			text, kindOfError := "", ""
			if want == codes.Error {
				text, kindOfError = "no apples", test.name
			}
			if status := span.Status(); status.Code != want || status.Description != text {
				t.Errorf("%v, %v: the status is %v", code, kind, status)
			}
			if got["rpc.response.status_code"] != test.name || got["error.type"] != kindOfError || got["natscall.execution"] != "did_run" ||
				got["natscall.instance"] != server.Instance(testDesc.Name) {
				t.Errorf("%v, %v: the attributes are %v", code, kind, got)
			}
		}
	}
}

// TestPropagation: headers are in lower case on the wire, and read in any case.
func TestPropagation(t *testing.T) {
	w := newWorld(t)
	var got baggage.Baggage
	serve(t, w.Connect(), &handlers{do: func(ctx context.Context, _ string) (string, error) {
		got = baggage.FromContext(ctx)
		return "", nil
	}}, w.interceptor())
	nc := w.Connect()
	wire, err := nc.SubscribeSync("test.v1.Test.Do")
	must(t, err)
	must(t, nc.Flush())
	member, err := baggage.NewMember("tenant", "acme")
	must(t, err)
	bag, err := baggage.New(member)
	must(t, err)
	state, err := trace.ParseTraceState("vendor=1")
	must(t, err)
	parent := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled, TraceState: state})
	ctx := baggage.ContextWithBaggage(trace.ContextWithSpanContext(t.Context(), parent), bag)
	must(t, calls["Do"](ctx, dial(t, nc, w.interceptor())))
	sent, err := wire.NextMsgWithContext(t.Context())
	must(t, err)
	client := of(t, w.spans.wait(t, 2), trace.SpanKindClient).SpanContext()
	traceparent := "00-" + client.TraceID().String() + "-" + client.SpanID().String() + "-01"
	if client.TraceID() != parent.TraceID() || got.String() != "tenant=acme" {
		t.Errorf("the trace is %v, want %v; the handler sees the baggage %q", client.TraceID(), parent.TraceID(), got)
	}
	if diff := cmp.Diff(nats.Header{"traceparent": {traceparent}, "tracestate": {"vendor=1"}, "baggage": {"tenant=acme"}}, sent.Header); diff != "" {
		t.Errorf("on the wire (-want +got):\n%s", diff)
	}
	for _, key := range []string{"traceparent", "Traceparent", "TRACEPARENT"} {
		_, err := nc.RequestMsgWithContext(t.Context(), &nats.Msg{Subject: "test.v1.Test.Do", Header: nats.Header{key: {traceparent}}})
		must(t, err)
		if span := of(t, w.spans.wait(t, 1), trace.SpanKindServer); span.Parent().SpanID() != client.SpanID() {
			t.Errorf("%s was not read", key)
		}
	}
}

// TestWithoutSpans: what records no spans passes the trace context on.
func TestWithoutSpans(t *testing.T) {
	w := newWorld(t)
	serve(t, w.Connect(), &handlers{}, w.interceptor())
	c := dial(t, w.Connect(), w.interceptor(rpcotel.WithTracerProvider(tracenoop.NewTracerProvider())))
	ctx, root := w.tracer.Start(t.Context(), "root")
	must(t, calls["Do"](ctx, c))
	if span := of(t, w.spans.wait(t, 1), trace.SpanKindServer); span.Parent().SpanID() != root.SpanContext().SpanID() {
		t.Errorf("the server's parent is %v", span.Parent())
	}
}

// TestSampling: the caller's decision counts for all services; a span that is not sampled costs no
// header in the response.
func TestSampling(t *testing.T) {
	w := newWorld(t, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample())))
	var parent trace.SpanContext
	serve(t, w.Connect(), &handlers{do: func(ctx context.Context, _ string) (string, error) {
		parent = trace.SpanContextFromContext(ctx)
		return "", nil
	}}, w.interceptor())
	nc := w.Connect()
	for _, call := range calls {
		must(t, call(t.Context(), dial(t, nc, w.interceptor())))
	}
	if w.spans.wait(t, 0); parent.IsSampled() || !parent.IsValid() {
		t.Errorf("the handler's span is %v", parent)
	}
}

// TestPublicEndpoint: those who are not trusted are linked to, and decide nothing.
func TestPublicEndpoint(t *testing.T) {
	w := newWorld(t, sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.AlwaysSample())))
	var bag string
	h := &handlers{do: func(ctx context.Context, _ string) (string, error) {
		bag = baggage.FromContext(ctx).String()
		return "", nil
	}}
	public := rpcotel.WithPublicEndpoint(func(call *rpc.Call) bool { return call.Header().Get("from") == "outside" })
	serve(t, w.Connect(), h, w.interceptor(public))
	nc := w.Connect()
	// It is not sampled.
	parent := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}})
	headers := propagation.HeaderCarrier{}
	w3c.Inject(trace.ContextWithSpanContext(t.Context(), parent), headers)
	headers.Set("baggage", "tenant=acme")
	request := func(from string) {
		msg := &nats.Msg{Subject: "test.v1.Test.Do", Header: maps.Clone(nats.Header(headers))}
		msg.Header["from"] = []string{from}
		_, err := nc.RequestMsgWithContext(t.Context(), msg)
		must(t, err)
	}
	request("outside")
	checkLinked(t, of(t, w.spans.wait(t, 1), trace.SpanKindServer), parent)
	if bag != "" {
		t.Errorf("the handler sees the baggage %q", bag)
	}
	if request("inside"); bag != "tenant=acme" {
		t.Errorf("the handler sees the baggage %q", bag)
	}
	w.spans.wait(t, 0) // the caller's decision
}

// TestFilter: of calls that are left out nothing is recorded, and nothing is sent.
func TestFilter(t *testing.T) {
	w := newWorld(t)
	filter := rpcotel.WithFilter(func(_ context.Context, call *rpc.Call) bool { return call.Method() != "/test.v1.Test/Do" })
	var header rpc.Header
	serve(t, w.Connect(), &handlers{do: func(ctx context.Context, _ string) (string, error) {
		header = rpc.CallFromContext(ctx).Header()
		return "", nil
	}}, w.interceptor(filter))
	c := dial(t, w.Connect(), w.interceptor(filter))
	must(t, calls["Do"](t.Context(), c))
	w.spans.wait(t, 0)
	if got := w.metrics(); len(got) > 0 || len(header) > 0 {
		t.Errorf("%v was measured, %v was sent", got, header)
	}
	must(t, calls["Watch"](t.Context(), c))
	w.spans.wait(t, 2)
	for name, m := range w.metrics() {
		if name == "rpc.client.call.duration" && len(points(m)) != 1 {
			t.Errorf("%s: %v", name, points(m))
		}
	}
}

// TestCapture: headers become attributes where they are named, and attributes of the program are
// added.
func TestCapture(t *testing.T) {
	w := newWorld(t)
	opts := []rpcotel.Option{
		rpcotel.WithRequestHeaders("Tenant", "Missing", "tenant"), rpcotel.WithResponseHeaders("Cost", "Rows"),
		rpcotel.WithSpanAttributes(func(_ context.Context, call *rpc.Call) []attribute.KeyValue {
			return []attribute.KeyValue{attribute.Bool("on.server", call.OnServer())}
		}),
	}
	header := func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.ResponseHeader().Set("cost", "7")
		call.ResponseTrailer().Add("rows", "1")
		call.ResponseTrailer().Add("rows", "2")
		return next(ctx, call)
	}
	serve(t, w.Connect(), &handlers{}, w.interceptor(opts...), rpc.WithInterceptors(header))
	c := dial(t, w.Connect(), w.interceptor(opts...), rpc.WithHeader("TENANT", "acme"), rpc.WithHeader("secret", "x"))
	for _, name := range []string{"Do", "Watch", "Collect", "Chat"} {
		must(t, calls[name](t.Context(), c))
		for _, span := range w.spans.wait(t, 2) {
			got := values(span.Attributes())
			for key := range got {
				if !strings.HasPrefix(key, "rpc.re") || !strings.Contains(key, ".metadata.") {
					delete(got, key)
				}
			}
			want := map[string]string{"rpc.request.metadata.tenant": `["acme"]`, "rpc.response.metadata.cost": `["7"]`, "rpc.response.metadata.rows": `["1","2"]`}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s, %v (-want +got):\n%s", name, span.SpanKind(), diff)
			}
			if on := values(span.Attributes())["on.server"]; (on == "true") != (span.SpanKind() == trace.SpanKindServer) {
				t.Errorf("%s, %v: on.server is %q", name, span.SpanKind(), on)
			}
		}
	}
}

// TestGather: Propagate carries the trace to all instances, as no interceptor sees a gathering.
func TestGather(t *testing.T) {
	w := newWorld(t)
	for range 2 {
		serve(t, w.Connect(), &handlers{}, w.interceptor())
	}
	c := dial(t, w.Connect(), w.interceptor())
	ctx, root := w.tracer.Start(t.Context(), "root")
	rows := testDo.Gather(ctx, c, wrapperspb.String("x"), rpc.WithCallOptions(rpcotel.Propagate(ctx, w3c)...))
	for row := range rows.All() {
		must(t, row.Err)
	}
	for _, span := range w.spans.wait(t, 2) {
		if span.SpanKind() != trace.SpanKindServer || span.Parent().SpanID() != root.SpanContext().SpanID() {
			t.Errorf("%v has the parent %v", names([]sdktrace.ReadOnlySpan{span}), span.Parent())
		}
	}
}

// TestOptions: what cannot be meant is refused.
func TestOptions(t *testing.T) {
	for want, opt := range map[string]rpcotel.Option{
		"WithTracerProvider(nil)":     rpcotel.WithTracerProvider(nil),
		"WithMeterProvider(nil)":      rpcotel.WithMeterProvider(nil),
		"WithPropagator(nil)":         rpcotel.WithPropagator(nil),
		"WithFilter(nil)":             rpcotel.WithFilter(nil),
		"WithPublicEndpoint(nil)":     rpcotel.WithPublicEndpoint(nil),
		"WithSpanAttributes(nil)":     rpcotel.WithSpanAttributes(nil),
		"WithDurationAttributes(nil)": rpcotel.WithDurationAttributes(nil),
		"has no name":                 rpcotel.WithRequestHeaders(""),
		"an option is nil":            nil,
	} {
		_, err := rpcotel.NewInterceptor(opt)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
		if _, err := rpcotel.ObserveServer(nil, opt); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ObserveServer: %v, want %s", err, want)
		}
	}
}
