package traces

import (
	"context"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// process returns the tracer of a process whose spans are collected.
func process(t *testing.T, c *Collector, service string) trace.Tracer {
	p := sdktrace.NewTracerProvider(sdktrace.WithSyncer(c), sdktrace.WithResource(resource.NewSchemaless(
		attribute.String("service.name", service), attribute.String("service.instance.id", "1"))))
	t.Cleanup(func() {
		if err := p.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return p.Tracer("test")
}

func TestTree(t *testing.T) {
	c := NewCollector(10)
	client, server := process(t, c, "client"), process(t, c, "server")
	ctx, root := client.Start(t.Context(), "root")
	calling, call := client.Start(ctx, "s.S/M", trace.WithSpanKind(trace.SpanKindClient))
	call.AddEvent("natscall.attempt", trace.WithAttributes(attribute.Int("natscall.attempt.number", 1)))
	_, served := server.Start(calling, "s.S/M", trace.WithSpanKind(trace.SpanKindServer))
	served.SetAttributes(attribute.String("rpc.response.status_code", "NOT_FOUND"))
	sending, sent := client.Start(ctx, "s.S/Note", trace.WithSpanKind(trace.SpanKindProducer))
	id := root.SpanContext().TraceID()

	for _, tt := range []struct {
		end  trace.Span
		want string // the error
	}{
		{nil, "it has no root"},
		{served, "the parent of server s.S/M is missing"},
		{call, "the parent of client s.S/M is missing"},
		{root, ""},
		{sent, ""},
	} {
		if tt.end != nil {
			tt.end.End()
		}
		tree, err := c.Tree(id)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("tree %v, error %v, want %q", tree, err, tt.want)
		}
	}
	tree, _ := c.Tree(id)
	if tree.Answered() {
		t.Error("nobody has taken the message")
	}
	_, consumed := server.Start(t.Context(), "s.S/Note", trace.WithSpanKind(trace.SpanKindConsumer),
		trace.WithLinks(trace.LinkFromContext(sending)))
	consumed.End()
	tree, _ = c.Tree(id)
	if !tree.Answered() {
		t.Error("all has been answered")
	}
	var out strings.Builder
	if err := tree.Print(&out, "  "); err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(out.String()) {
		fields := strings.Fields(line)
		got = append(got, line[:len(line)-len(strings.TrimLeft(line, " "))]+fields[0]+" "+fields[len(fields)-1])
	}
	want := "  SPAN PROCESS\n  root client/1\n    s.S/M client/1\n      * number=1\n      s.S/M NOT_FOUND\n    s.S/Note client/1\n      ~ server/1"
	if strings.Join(got, "\n") != want {
		t.Errorf("it prints\n%s", out.String())
	}
}

func TestTwoRoots(t *testing.T) {
	c := NewCollector(10)
	tracer := process(t, c, "p")
	_, root := tracer.Start(t.Context(), "root")
	root.End()
	spans := c.Spans(root.SpanContext().TraceID())
	if err := c.ExportSpans(t.Context(), []Span{renamed{spans[0]}}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Tree(root.SpanContext().TraceID()); err == nil || !strings.Contains(err.Error(), "two roots") {
		t.Errorf("error %v", err)
	}
}

// renamed is another span of the same trace.
type renamed struct{ sdktrace.ReadOnlySpan }

func (r renamed) SpanContext() trace.SpanContext {
	return r.ReadOnlySpan.SpanContext().WithSpanID(trace.SpanID{1})
}

// TestLimit: the oldest traces are forgotten.
func TestLimit(t *testing.T) {
	c := NewCollector(2)
	tracer := process(t, c, "p")
	var ids []trace.TraceID
	for range 3 {
		_, s := tracer.Start(t.Context(), "s")
		s.End()
		ids = append(ids, s.SpanContext().TraceID())
	}
	all := func([]Span) bool { return true }
	if len(c.Spans(ids[0])) != 0 || len(c.Spans(ids[1])) != 1 || c.Last(all) != ids[2] {
		t.Errorf("kept are %v, last %v", c.order, c.Last(all))
	}
	if c.Last(func([]Span) bool { return false }).IsValid() {
		t.Error("what is not wanted is found")
	}
}
