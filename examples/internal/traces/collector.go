// Package traces keeps the last traces of several processes in memory, and shows one as a tree.
package traces

import (
	"context"
	"slices"
	"sync"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Span is a span that has ended.
type Span = sdktrace.ReadOnlySpan

// Collector takes the spans of any number of tracer providers, as what collects traces from
// processes does. It keeps the traces that began last.
type Collector struct {
	limit int

	mu     sync.Mutex
	traces map[trace.TraceID][]Span
	order  []trace.TraceID // of their first spans
}

// NewCollector returns a collector that keeps so many traces.
func NewCollector(limit int) *Collector {
	return &Collector{limit: limit, traces: map[trace.TraceID][]Span{}}
}

// ExportSpans implements sdktrace.SpanExporter.
func (c *Collector) ExportSpans(_ context.Context, spans []Span) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range spans {
		id := s.SpanContext().TraceID()
		if c.traces[id] == nil {
			c.order = append(c.order, id)
		}
		c.traces[id] = append(c.traces[id], s)
	}
	for len(c.order) > c.limit {
		delete(c.traces, c.order[0])
		c.order = c.order[1:]
	}
	return nil
}

// Shutdown implements sdktrace.SpanExporter. It does nothing: others may still export.
func (c *Collector) Shutdown(context.Context) error { return nil }

// Spans returns those of a trace in the order in which they began.
func (c *Collector) Spans(id trace.TraceID) []Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	spans := slices.Clone(c.traces[id])
	slices.SortStableFunc(spans, func(a, b Span) int { return a.StartTime().Compare(b.StartTime()) })
	return spans
}

// Last returns the trace that began last of those that are wanted. The id of none is not valid.
func (c *Collector) Last(wanted func([]Span) bool) (id trace.TraceID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range slices.Backward(c.order) {
		if wanted(c.traces[id]) {
			return id
		}
	}
	return trace.TraceID{}
}

// linked returns the spans with a link to another span, which are in other traces as a rule.
func (c *Collector) linked(to trace.SpanContext) (spans []Span) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range c.order {
		for _, s := range c.traces[id] {
			if slices.ContainsFunc(s.Links(), func(l sdktrace.Link) bool {
				return l.SpanContext.TraceID() == to.TraceID() && l.SpanContext.SpanID() == to.SpanID()
			}) {
				spans = append(spans, s)
			}
		}
	}
	return spans
}
