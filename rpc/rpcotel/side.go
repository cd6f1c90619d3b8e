package rpcotel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/natscall/natscall/rpc"
)

// side has the instruments of clients or of servers, and their methods.
type side struct {
	server  bool
	methods atomic.Pointer[map[string]*method] // by full name; replaced when there is a new one

	duration            metric.Float64Histogram
	requests, responses metric.Int64Histogram   // messages of a stream
	queue               metric.Float64Histogram // of a server
	retries, hedges     metric.Int64Counter     // of a client
	failed              metric.Int64Counter     // likewise

	observed observedInstruments
}

// observedInstruments are those whose numbers each method counts by itself: an atomic addition
// costs a call less than a measurement.
type observedInstruments struct {
	active                    metric.Int64ObservableUpDownCounter
	requests, responses       metric.Int64ObservableCounter
	requestSize, responseSize metric.Int64ObservableCounter
}

// minQueueTime is the shortest time in the queue that is measured: less is none.
const minQueueTime = time.Millisecond

// The boundaries of histograms.
var (
	// Those of the conventions.
	durations  = []float64{0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10}
	queueTimes = []float64{0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10}
	counts     = []float64{0, 1, 2, 5, 10, 20, 50, 100, 1000, 10_000, 100_000, 1_000_000}
)

func newSide(meter metric.Meter, server bool) (*side, error) {
	s := &side{server: server}
	s.methods.Store(&map[string]*method{})
	makers := instruments{meter: meter, side: "client"}
	outgoing := "an outgoing"
	if server {
		makers.side, outgoing = "server", "an incoming"
	}
	s.duration = makers.seconds(durationMetric, "Measures the duration of "+outgoing+" Remote Procedure Call (RPC).", durations)
	s.requests = makers.messages(requestsPerCall, "Messages of the client in a stream.")
	s.responses = makers.messages(responsesPerCall, "Messages of the server in a stream.")
	s.observed = observedInstruments{
		active:       makers.upDown(activeMetric, "Calls that have begun and not ended."),
		requests:     makers.observed(requestsMetric, "{message}", "Requests, and messages of the client in streams."),
		responses:    makers.observed(responsesMetric, "{message}", "Responses, and messages of the server in streams."),
		requestSize:  makers.observed(requestSize, "By", "Size of the requests as they go over the wire, without envelopes."),
		responseSize: makers.observed(responseSize, "By", "Size of the responses as they go over the wire, without envelopes."),
	}
	if server {
		s.queue = makers.seconds(queueMetric, "How long requests have waited, if that was a millisecond or more.", queueTimes)
	} else {
		s.retries = makers.counter(retriesMetric, "{attempt}", "Attempts of calls after one that has failed.")
		s.hedges = makers.counter(hedgesMetric, "{attempt}", "Attempts of calls beside one that waits.")
		s.failed = makers.counter(failedMetric, "{call}", "Calls that have failed, by whether they have run.")
	}
	o := &s.observed
	_, err := meter.RegisterCallback(s.observe, o.active, o.requests, o.responses, o.requestSize, o.responseSize)
	return s, errors.Join(append(makers.errs, err)...)
}

// observe is called when metrics are collected.
func (s *side) observe(_ context.Context, to metric.Observer) error {
	o := &s.observed
	for _, m := range *s.methods.Load() {
		to.ObserveInt64(o.active, m.active.Load(), m.observe...)
		to.ObserveInt64(o.requests, m.requests.messages.Load(), m.observe...)
		to.ObserveInt64(o.requestSize, m.requests.bytes.Load(), m.observe...)
		if m.kind == rpc.KindOneWay {
			continue // has no responses
		}
		to.ObserveInt64(o.responses, m.responses.messages.Load(), m.observe...)
		to.ObserveInt64(o.responseSize, m.responses.bytes.Load(), m.observe...)
	}
	return nil
}

// method returns that of a call.
func (s *side) method(call *rpc.Call) *method {
	name := call.Method()
	for {
		known := s.methods.Load()
		if m := (*known)[name]; m != nil {
			return m
		}
		more := maps.Clone(*known)
		more[name] = newMethod(strings.TrimPrefix(name, "/"), call.Kind(), s.server)
		s.methods.CompareAndSwap(known, &more)
	}
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

func (i *instruments) messages(name, description string) metric.Int64Histogram {
	h, err := i.meter.Int64Histogram(i.name(name), metric.WithUnit("{message}"), metric.WithDescription(description), metric.WithExplicitBucketBoundaries(counts...))
	i.note(name, err)
	return h
}

func (i *instruments) counter(name, unit, description string) metric.Int64Counter {
	c, err := i.meter.Int64Counter(i.name(name), metric.WithUnit(unit), metric.WithDescription(description))
	i.note(name, err)
	return c
}

func (i *instruments) upDown(name, description string) metric.Int64ObservableUpDownCounter {
	c, err := i.meter.Int64ObservableUpDownCounter(i.name(name), metric.WithUnit("{call}"), metric.WithDescription(description))
	i.note(name, err)
	return c
}

func (i *instruments) observed(name, unit, description string) metric.Int64ObservableCounter {
	c, err := i.meter.Int64ObservableCounter(i.name(name), metric.WithUnit(unit), metric.WithDescription(description))
	i.note(name, err)
	return c
}
