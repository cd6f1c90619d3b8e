package rpcotel

import (
	"context"
	"encoding/json"
	"errors"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/natscall/natscall/rpc"
)

// ObserveServer records what a server counts by itself, and what its interceptors do not see: calls
// that wait for a free handler, that are refused under load, and all that are answered. The numbers
// are those of `nats micro stats`. They are read from s ([rpc.Server.Stats]) whenever metrics are
// collected, and cost a call nothing.
//
// Of the options only [WithMeterProvider] has an effect. Unregister what is returned when the
// server is not used any more. The numbers of two servers in one process that serve the same method
// are added up.
func ObserveServer(s *rpc.Server, opts ...Option) (metric.Registration, error) {
	o, err := newOptions(opts)
	if err != nil {
		return nil, err
	}
	meter := o.meters.Meter(scope, metric.WithSchemaURL(schemaURL))
	makers := instruments{meter: meter}
	load := serverLoad{
		queued:   makers.upDown(queuedMetric, "Calls that wait for a free handler."),
		shed:     makers.observed(shedMetric, "{call}", "Calls that were refused under load, by reason."),
		answered: makers.observed(answeredMetric, "{call}", "Calls that were answered, or refused, by status."),
		refused:  makers.observed(refusedAnswers, "{message}", "Answers that NATS has not let the server publish."),
	}
	if err := errors.Join(makers.errs...); err != nil {
		return nil, err
	}
	return meter.RegisterCallback(func(_ context.Context, to metric.Observer) error { return load.observe(s, to) },
		load.queued, load.shed, load.answered, load.refused)
}

// serverLoad has the instruments of ObserveServer.
type serverLoad struct {
	queued                  metric.Int64ObservableUpDownCounter
	shed, answered, refused metric.Int64ObservableCounter
}

// endpointData is what is read of the Data of an endpoint.
type endpointData struct {
	Queued  int64              `json:"queued"`
	ShedBy  map[string]int64   `json:"shed_by"`
	Codes   map[rpc.Code]int64 `json:"codes"`
	Refused int64              `json:"answers_refused"` // of the whole server
}

func (l *serverLoad) observe(s *rpc.Server, to metric.Observer) error {
	var errs []error
	var refused int64
	for _, service := range s.Stats() {
		for _, endpoint := range service.Endpoints {
			var data endpointData
			errs = append(errs, json.Unmarshal(endpoint.Data, &data))
			l.observeMethod(service.Metadata[serviceMetadata]+"/"+endpoint.Name, &data, to)
			refused = data.Refused
		}
	}
	to.ObserveInt64(l.refused, refused)
	return errors.Join(errs...)
}

func (l *serverLoad) observeMethod(name string, data *endpointData, to metric.Observer) {
	method := methodKey.String(name)
	observe := func(i metric.Int64Observable, n int64, more ...attribute.KeyValue) {
		to.ObserveInt64(i, n, metric.WithAttributes(append(more, method)...))
	}
	observe(l.queued, data.Queued)
	for reason, n := range data.ShedBy {
		observe(l.shed, n, reasonKey.String(reason))
	}
	for code, n := range data.Codes {
		observe(l.answered, n, statusKey.String(statusName(code)))
	}
}
