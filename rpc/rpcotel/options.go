package rpcotel

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/natscall/natscall/rpc"
)

// Option is an option of [NewInterceptor] and [ObserveServer].
type Option func(*options) error

type options struct {
	tracers         trace.TracerProvider
	meters          metric.MeterProvider
	propagator      propagation.TextMapPropagator
	filter          func(context.Context, *rpc.Call) bool
	public          func(*rpc.Call) bool // nil if no endpoint is public
	requestHeaders  []capture
	responseHeaders []capture
	spanAttributes  func(context.Context, *rpc.Call) []attribute.KeyValue
	callAttributes  func(context.Context, *rpc.Call) []attribute.KeyValue
}

// capture is a header that becomes an attribute of spans.
type capture struct {
	header    string
	attribute attribute.Key
}

func newOptions(opts []Option) (*options, error) {
	o := &options{
		tracers: otel.GetTracerProvider(), meters: otel.GetMeterProvider(), propagator: otel.GetTextMapPropagator(),
	}
	for _, opt := range opts {
		if opt == nil {
			return nil, errors.New("rpcotel: an option is nil")
		}
		if err := opt(o); err != nil {
			return nil, fmt.Errorf("rpcotel: %w", err)
		}
	}
	return o, nil
}

// WithTracerProvider sets where spans go. The default is the global provider
// ([otel.SetTracerProvider]). That of go.opentelemetry.io/otel/trace/noop records none; the trace
// context is passed on all the same.
func WithTracerProvider(p trace.TracerProvider) Option {
	return func(o *options) error { o.tracers = p; return notNil("WithTracerProvider", p != nil) }
}

// WithMeterProvider sets where metrics go. The default is the global provider
// ([otel.SetMeterProvider]). That of go.opentelemetry.io/otel/metric/noop records none, and what
// would be measured costs nothing then.
func WithMeterProvider(p metric.MeterProvider) Option {
	return func(o *options) error { o.meters = p; return notNil("WithMeterProvider", p != nil) }
}

// WithPropagator sets how the trace context, and baggage, travel in headers. The default is the
// global propagator ([otel.SetTextMapPropagator]), which does nothing unless a program sets it.
func WithPropagator(p propagation.TextMapPropagator) Option {
	return func(o *options) error { o.propagator = p; return notNil("WithPropagator", p != nil) }
}

// WithFilter leaves out calls for which record reports false: nothing of them is recorded, and no
// trace context is sent or taken. It runs for each call, on clients and servers.
func WithFilter(record func(ctx context.Context, call *rpc.Call) bool) Option {
	return func(o *options) error { o.filter = record; return notNil("WithFilter", record != nil) }
}

// WithPublicEndpoint makes calls on a server, for which public reports true, begin traces of their
// own: they are linked to the callers' spans, do not inherit their sampling decision, and take no
// baggage. It is for callers that are not trusted, such as those in other accounts:
//
//	func(call *rpc.Call) bool { return strings.HasPrefix(call.Peer().Reply, "_R_.") }
//
// The default is that the remote parent is trusted, so that one trace goes through all services.
func WithPublicEndpoint(public func(*rpc.Call) bool) Option {
	return func(o *options) error { o.public = public; return notNil("WithPublicEndpoint", public != nil) }
}

// WithRequestHeaders makes the named headers of requests attributes of spans,
// rpc.request.metadata.<key> in lower case. Do not name headers that carry secrets. The default is
// none.
func WithRequestHeaders(keys ...string) Option {
	return func(o *options) error { return addCaptures(&o.requestHeaders, requestMetadata, keys) }
}

// WithResponseHeaders is like [WithRequestHeaders] for the headers and trailers of responses,
// rpc.response.metadata.<key>.
func WithResponseHeaders(keys ...string) Option {
	return func(o *options) error { return addCaptures(&o.responseHeaders, responseMetadata, keys) }
}

// WithSpanAttributes adds attributes to spans. f runs for calls whose span is recorded, after the
// sampler has decided.
func WithSpanAttributes(f func(ctx context.Context, call *rpc.Call) []attribute.KeyValue) Option {
	return func(o *options) error { o.spanAttributes = f; return notNil("WithSpanAttributes", f != nil) }
}

// WithDurationAttributes adds attributes to the durations of calls, rpc.client.call.duration and
// rpc.server.call.duration. f runs for every call, when it begins. Each combination of values is a
// time series, so they must be few; and a set of attributes is made for each call, which costs
// about a microsecond.
func WithDurationAttributes(f func(ctx context.Context, call *rpc.Call) []attribute.KeyValue) Option {
	return func(o *options) error { o.callAttributes = f; return notNil("WithDurationAttributes", f != nil) }
}

func notNil(option string, ok bool) error {
	if ok {
		return nil
	}
	return fmt.Errorf("%s(nil)", option)
}

func addCaptures(all *[]capture, prefix string, keys []string) error {
	for _, key := range keys {
		lower := strings.ToLower(key)
		if key == "" {
			return errors.New("a header to capture has no name")
		}
		if !slices.ContainsFunc(*all, func(c capture) bool { return c.header == lower }) {
			*all = append(*all, capture{lower, attribute.Key(prefix + lower)})
		}
	}
	return nil
}

// attributes returns those of the captured headers that are there.
func attributes(captures []capture, headers ...rpc.Header) (out []attribute.KeyValue) {
	for _, c := range captures {
		for _, h := range headers {
			if values := h.Values(c.header); len(values) > 0 {
				out = append(out, c.attribute.StringSlice(values))
				break
			}
		}
	}
	return out
}
