package rpcotel

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"

	"github.com/natscall/natscall/rpc"
)

// carrier is the header of a call as a propagator sees it. Keys are read in any case of letters and
// written in lower case, as W3C wants it: servers and consumers in other languages look for them
// there, and NATS keeps the case. Nats-Trace-*, of NATS's own message tracing, is not touched.
type carrier struct{ call *rpc.Call }

var _ propagation.ValuesGetter = carrier{}

// Get implements propagation.TextMapCarrier.
func (c carrier) Get(key string) string { return c.call.Header().Get(key) }

// Values implements propagation.ValuesGetter.
func (c carrier) Values(key string) []string { return c.call.Header().Values(key) }

// Set implements propagation.TextMapCarrier.
func (c carrier) Set(key, value string) { c.call.Header().Set(strings.ToLower(key), value) }

// Keys implements propagation.TextMapCarrier.
func (c carrier) Keys() []string {
	header := c.call.Header()
	keys := make([]string, 0, len(header))
	for key := range header {
		keys = append(keys, strings.ToLower(key))
	}
	return keys
}

// Propagate returns options that send the trace context of ctx with what has no interceptors,
// [rpc.UnaryMethod.Gather]:
//
//	rpc.WithCallOptions(rpcotel.Propagate(ctx, nil)...)
//
// A nil p is the global propagator.
func Propagate(ctx context.Context, p propagation.TextMapPropagator) (opts []rpc.CallOption) {
	if p == nil {
		p = otel.GetTextMapPropagator()
	}
	fields := propagation.MapCarrier{}
	p.Inject(ctx, fields)
	for key, value := range fields {
		opts = append(opts, rpc.WithHeader(strings.ToLower(key), value))
	}
	return opts
}
