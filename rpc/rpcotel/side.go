package rpcotel

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/natscall/natscall/rpc"
)

// side has the instruments of clients or of servers, and their methods.
type side struct {
	server  bool
	methods sync.Map // full names -> *method

	duration            metric.Float64Histogram
	active              metric.Int64UpDownCounter
	request, response   metric.Int64Histogram   // sizes
	requests, responses metric.Int64Histogram   // messages of a stream
	queue               metric.Float64Histogram // of a server
	retries, failed     metric.Int64Counter     // of a client
}

// The boundaries of histograms.
var (
	durations  = []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10} // of the conventions
	queueTimes = []float64{0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}
	sizes      = []float64{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20}
	counts     = []float64{0, 1, 2, 5, 10, 20, 50, 100, 1000, 10_000, 100_000, 1_000_000}
)

func newSide(meter metric.Meter, server bool) (*side, error) {
	s := &side{server: server}
	makers := instruments{meter: meter, side: "client"}
	outgoing := "an outgoing"
	if server {
		makers.side, outgoing = "server", "an incoming"
	}
	s.duration = makers.seconds(durationMetric, "Measures the duration of "+outgoing+" Remote Procedure Call (RPC).", durations)
	s.active = makers.upDown(activeMetric, "Calls that have begun and not ended.")
	s.request = makers.histogram(requestSize, "By", "Sizes of requests as they go over the wire, without envelopes: of each message of a stream.", sizes)
	s.response = makers.histogram(responseSize, "By", "Sizes of responses as they go over the wire, without envelopes: of each message of a stream.", sizes)
	s.requests = makers.histogram(requestCount, "{message}", "Messages of the client in a stream.", counts)
	s.responses = makers.histogram(responseCount, "{message}", "Messages of the server in a stream.", counts)
	if server {
		s.queue = makers.seconds(queueMetric, "How long a request has waited before its interceptors and handler.", queueTimes)
	} else {
		s.retries = makers.counter(retriesMetric, "{attempt}", "Attempts of calls after their first one.")
		s.failed = makers.counter(failedMetric, "{call}", "Calls that have failed, by whether they have run.")
	}
	return s, errors.Join(makers.errs...)
}

// instruments makes the instruments of a side, and keeps the errors.
type instruments struct {
	meter metric.Meter
	side  string
	errs  []error
}

// name puts the side into the name of a metric that both have.
func (i *instruments) name(name string) string { return strings.Replace(name, "%s", i.side, 1) }

func (i *instruments) note(name string, err error) {
	if err != nil {
		i.errs = append(i.errs, fmt.Errorf("rpcotel: metric %s: %w", i.name(name), err))
	}
}

func (i *instruments) seconds(name, description string, bounds []float64) metric.Float64Histogram {
	h, err := i.meter.Float64Histogram(i.name(name), metric.WithUnit("s"), metric.WithDescription(description), metric.WithExplicitBucketBoundaries(bounds...))
	i.note(name, err)
	return h
}

func (i *instruments) histogram(name, unit, description string, bounds []float64) metric.Int64Histogram {
	h, err := i.meter.Int64Histogram(i.name(name), metric.WithUnit(unit), metric.WithDescription(description), metric.WithExplicitBucketBoundaries(bounds...))
	i.note(name, err)
	return h
}

func (i *instruments) upDown(name, description string) metric.Int64UpDownCounter {
	c, err := i.meter.Int64UpDownCounter(i.name(name), metric.WithUnit("{call}"), metric.WithDescription(description))
	i.note(name, err)
	return c
}

func (i *instruments) counter(name, unit, description string) metric.Int64Counter {
	c, err := i.meter.Int64Counter(i.name(name), metric.WithUnit(unit), metric.WithDescription(description))
	i.note(name, err)
	return c
}

// method is what is computed once for a method on one side.
type method struct {
	name   string // of spans, and the value of rpc.method
	start  []trace.SpanStartOption
	add    []metric.AddOption // the method as an attribute
	record []metric.RecordOption
	ends   [rpc.CodeUnauthenticated + 1][]metric.RecordOption // of the duration, by code
	server bool
}

// method returns that of a call.
func (s *side) method(call *rpc.Call) *method {
	name := call.Method()
	if m, ok := s.methods.Load(name); ok {
		return m.(*method)
	}
	m, _ := s.methods.LoadOrStore(name, newMethod(strings.TrimPrefix(name, "/"), call.Kind(), s.server))
	return m.(*method)
}

func newMethod(name string, kind rpc.Kind, server bool) *method {
	m := &method{name: name, server: server}
	m.start = []trace.SpanStartOption{
		trace.WithSpanKind(spanKind(kind, server)), trace.WithAttributes(systemKey.String(system), methodKey.String(name)),
	}
	if kind == rpc.KindOneWay {
		m.start = append(m.start, trace.WithAttributes(messaging(server)...))
	}
	set := metric.WithAttributeSet(attribute.NewSet(methodKey.String(name)))
	m.add, m.record = []metric.AddOption{set}, []metric.RecordOption{set}
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
		messagingSystemKey.String(messagingSystemName), operationNameKey.String(operation), operationTypeKey.String(operation),
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
