package rpcotel

import (
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/natscall/natscall/rpc"
)

// method is a method on one side: what is computed once, and what it counts.
type method struct {
	name    string // of spans, and the value of rpc.method
	kind    rpc.Kind
	server  bool
	start   []trace.SpanStartOption
	add     []metric.AddOption // the method as an attribute
	record  []metric.RecordOption
	observe []metric.ObserveOption
	ends    [rpc.CodeUnauthenticated + 1][]metric.RecordOption // of the duration, by code

	active              atomic.Int64 // calls
	requests, responses traffic
}

// traffic counts the messages of a direction.
type traffic struct{ messages, bytes atomic.Int64 }

func (t *traffic) add(m *rpc.Message) {
	t.messages.Add(1)
	t.bytes.Add(int64(m.WireSize()))
}

func newMethod(name string, kind rpc.Kind, server bool) *method {
	m := &method{name: name, kind: kind, server: server}
	attributes := []attribute.KeyValue{systemKey.String(system), methodKey.String(name)}
	if kind == rpc.KindOneWay {
		attributes = append(attributes, messaging(server)...)
	}
	m.start = []trace.SpanStartOption{trace.WithSpanKind(spanKind(kind, server)), trace.WithAttributes(attributes...)}
	set := metric.WithAttributeSet(attribute.NewSet(methodKey.String(name)))
	m.add, m.record, m.observe = []metric.AddOption{set}, []metric.RecordOption{set}, []metric.ObserveOption{set}
	for code := range m.ends {
		m.ends[code] = []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(m.endAttributes(rpc.Code(code))...))}
	}
	return m
}

// messaging returns the attributes of a one-way method's span.
func messaging(server bool) []attribute.KeyValue {
	operation := "send"
	if server {
		operation = "process"
	}
	return []attribute.KeyValue{
		messagingSystemKey.String(messagingSystem), operationNameKey.String(operation), operationTypeKey.String(operation),
	}
}

func spanKind(kind rpc.Kind, server bool) trace.SpanKind {
	switch {
	case kind == rpc.KindOneWay && server:
		return trace.SpanKindConsumer
	case kind == rpc.KindOneWay:
		return trace.SpanKindProducer
	case server:
		return trace.SpanKindServer
	}
	return trace.SpanKindClient
}

// endAttributes returns the attributes of the duration of a call that has ended with a code.
func (m *method) endAttributes(code rpc.Code) []attribute.KeyValue {
	out := []attribute.KeyValue{systemKey.String(system), methodKey.String(m.name), statusKey.String(statusName(code))}
	if isError(code, m.server) {
		out = append(out, errorKey.String(statusName(code)))
	}
	return out
}

// ended returns them as an option.
func (m *method) ended(code rpc.Code) []metric.RecordOption {
	if int(code) < len(m.ends) {
		return m.ends[code]
	}
	return []metric.RecordOption{m.endedWith(code, nil)}
}

// endedWith returns them with others as an option.
func (m *method) endedWith(code rpc.Code, more []attribute.KeyValue) metric.RecordOption {
	return metric.WithAttributes(append(m.endAttributes(code), more...)...)
}
