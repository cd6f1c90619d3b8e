package rpcotel

import (
	"context"
	"slices"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/natscall/natscall/rpc"
)

// NewInterceptor returns an interceptor for clients and servers that records each call as a span
// and in metrics. It is given to [rpc.WithInterceptors], first, so that it sees what the others do:
//
//	rpc.NewClient(nc, rpc.WithInterceptors(telemetry))
//	rpc.NewServer(nc, rpc.WithInterceptors(telemetry))
//
// One interceptor may serve any number of clients and servers; make one for a program, as what it
// counts stays registered with the meter provider. The error is that of an option or of the meter
// provider.
func NewInterceptor(opts ...Option) (rpc.Interceptor, error) {
	o, err := newOptions(opts)
	if err != nil {
		return nil, err
	}
	t := &telemetry{options: o, tracer: o.tracers.Tracer(scope, trace.WithSchemaURL(schemaURL))}
	meter := o.meters.Meter(scope, metric.WithSchemaURL(schemaURL))
	if t.client, err = newSide(meter, false); err != nil {
		return nil, err
	}
	if t.server, err = newSide(meter, true); err != nil {
		return nil, err
	}
	return t.intercept, nil
}

// telemetry is what the calls of an interceptor share.
type telemetry struct {
	*options
	tracer         trace.Tracer
	client, server *side
}

// intercept is the interceptor.
func (t *telemetry) intercept(ctx context.Context, call *rpc.Call, next rpc.Next) error {
	if t.filter != nil && !t.filter(ctx, call) {
		return next(ctx, call)
	}
	c := t.begin(ctx, call)
	return next(c.ctx, call)
}

// begin begins to observe a call.
func (t *telemetry) begin(ctx context.Context, call *rpc.Call) *observed {
	side := t.client
	if call.OnServer() {
		side = t.server
	}
	m := side.method(call)
	c := &observed{telemetry: t, side: side, method: m, call: call}
	c.startSpan(ctx)
	c.startMetrics()
	if c.recording || c.measured {
		c.hook()
	}
	return c
}

// startSpan starts the span of a call. A client sends its context, a server has taken that of the
// caller.
func (c *observed) startSpan(ctx context.Context) {
	t, opts := c.telemetry, c.method.start
	if c.side.server {
		var link trace.SpanContext
		if ctx, link = t.remote(ctx, c.call); link.IsValid() {
			opts = append(slices.Clip(opts), trace.WithNewRoot(), trace.WithLinks(trace.Link{SpanContext: link}))
		}
	}
	c.ctx, c.span = t.tracer.Start(ctx, c.method.name, opts...)
	if c.recording = c.span.IsRecording(); c.recording {
		c.describe()
	}
	if !c.side.server {
		t.propagator.Inject(c.ctx, carrier{c.call})
	}
}

// remote takes the caller's context. link is the span that a call on a server is to be linked to,
// because it is not to be its child: that of a one-way message, which has any number of consumers
// at any time, or of a caller that is not trusted.
func (t *telemetry) remote(ctx context.Context, call *rpc.Call) (_ context.Context, link trace.SpanContext) {
	if len(call.Header()) == 0 {
		return ctx, link
	}
	remote := t.propagator.Extract(ctx, carrier{call})
	switch span := trace.SpanContextFromContext(remote); {
	case t.public != nil && t.public(call):
		return ctx, span
	case call.Kind() == rpc.KindOneWay:
		return remote, span
	}
	return remote, link
}
