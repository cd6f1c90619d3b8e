// Package telemetry is what a process of the examples shows of itself: metrics for Prometheus,
// traces, and a log that says what became of each call.
//
// It holds no global state, so that several replicas in one process are as apart as processes are.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	otelprometheus "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	noopmetric "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	nooptrace "go.opentelemetry.io/otel/trace/noop"

	"github.com/natscall/natscall/examples/internal/httpd"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpclog"
	"github.com/natscall/natscall/rpc/rpcotel"
)

// slow is when a call is worth a warning: customers wait for it.
const slow = time.Second

// finer gives durations more buckets than the conventions have, whose first is 5 ms: most calls in
// a data centre would be in it.
var finer = sdkmetric.NewView(sdkmetric.Instrument{Name: "rpc.*.call.duration"},
	sdkmetric.Stream{Aggregation: sdkmetric.AggregationExplicitBucketHistogram{Boundaries: []float64{
		0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
	}}})

// Config says what is shown. The zero value shows nothing.
type Config struct {
	Service  string // the resource: service.name
	Instance string // service.instance.id, one for each process

	Metrics string                // where /metrics is served; port 0 takes a free one
	Traces  sdktrace.SpanExporter // where spans go; it is shut down by Close
	Batch   bool                  // whether they go there in batches, as they do to another process
	Calls   *slog.Logger          // where each call is logged
}

// Telemetry is what a process shows. A nil one shows nothing.
type Telemetry struct {
	config       Config
	meters       metric.MeterProvider
	tracers      trace.TracerProvider
	interceptors []rpc.Interceptor
	closers      []func(context.Context) error // in the order in which they are made

	url string // of /metrics
}

// Start begins to serve metrics and to export traces.
func Start(c Config) (_ *Telemetry, err error) {
	t := &Telemetry{config: c, meters: noopmetric.NewMeterProvider(), tracers: nooptrace.NewTracerProvider()}
	defer func() {
		if err != nil {
			err = errors.Join(err, t.Close(context.Background()))
		}
	}()
	about := resource.NewSchemaless(
		attribute.String("service.name", c.Service), attribute.String("service.instance.id", c.Instance))
	if c.Metrics != "" {
		if err := t.startMetrics(about); err != nil {
			return nil, err
		}
	}
	if c.Traces != nil {
		t.startTraces(about)
	}
	return t, t.intercept()
}

// startMetrics makes the meter provider, and serves what it collects.
func (t *Telemetry) startMetrics(about *resource.Resource) error {
	registry := prometheus.NewRegistry()
	// The scope would be three more labels of each series that say the same everywhere.
	exporter, err := otelprometheus.New(otelprometheus.WithRegisterer(registry), otelprometheus.WithoutScopeInfo())
	if err != nil {
		return err
	}
	meters := sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter), sdkmetric.WithResource(about), sdkmetric.WithView(finer))
	t.meters = meters
	t.closers = append(t.closers, meters.Shutdown)
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true}))
	server, err := httpd.Start(t.config.Metrics, mux)
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	t.url = server.URL + "/metrics"
	t.closers = append(t.closers, server.Close)
	return nil
}

// startTraces makes the tracer provider.
func (t *Telemetry) startTraces(about *resource.Resource) {
	export := sdktrace.WithSyncer(t.config.Traces)
	if t.config.Batch {
		export = sdktrace.WithBatcher(t.config.Traces)
	}
	tracers := sdktrace.NewTracerProvider(export, sdktrace.WithResource(about))
	t.tracers = tracers
	t.closers = append(t.closers, tracers.Shutdown)
}

// intercept makes the interceptors. The log comes second, so that its records have the context of
// the span.
func (t *Telemetry) intercept() error {
	recorded, err := rpcotel.NewInterceptor(
		rpcotel.WithMeterProvider(t.meters), rpcotel.WithTracerProvider(t.tracers), rpcotel.WithPropagator(propagator))
	if err != nil {
		return err
	}
	t.interceptors = append(t.interceptors, recorded)
	if t.config.Calls == nil {
		return nil
	}
	logged, err := rpclog.NewInterceptor(t.config.Calls, rpclog.WithSlow(slow))
	if err != nil {
		return err
	}
	t.interceptors = append(t.interceptors, logged)
	return nil
}

// propagator carries the context of traces from process to process.
var propagator = propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{})

// Interceptors are for the clients and servers of the process, before any others.
func (t *Telemetry) Interceptors() []rpc.Interceptor {
	if t == nil {
		return nil
	}
	return t.interceptors
}

// ObserveServer adds what a server counts by itself to the metrics, until Close.
func (t *Telemetry) ObserveServer(s *rpc.Server) error {
	if t == nil {
		return nil
	}
	_, err := rpcotel.ObserveServer(s, rpcotel.WithMeterProvider(t.meters))
	return err
}

// Tracer is for spans of the program's own.
func (t *Telemetry) Tracer() trace.Tracer {
	return t.tracers.Tracer("github.com/natscall/natscall/examples")
}

// URL is where the metrics are, or "".
func (t *Telemetry) URL() string { return t.url }

// Close sends what is left to send, and ends what Start has begun. A nil one has nothing.
func (t *Telemetry) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	var errs []error
	for i := len(t.closers) - 1; i >= 0; i-- {
		errs = append(errs, t.closers[i](ctx))
	}
	t.closers = nil
	return errors.Join(errs...)
}
