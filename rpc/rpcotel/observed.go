package rpcotel

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/natscall/natscall/rpc"
)

// observed is a call that is observed on one side.
type observed struct {
	*telemetry
	side   *side
	method *method
	call   *rpc.Call

	ctx       context.Context // of the span, so that measurements have exemplars
	span      trace.Span
	recording bool // the span is
	measured  bool // metrics are

	started             time.Time
	subject             string               // of the first attempt
	more                []attribute.KeyValue // of the duration
	requests, responses atomic.Int64         // messages, of a stream also by other goroutines
}

// describe begins to describe a span that is recorded. What is not for samplers, or not known yet,
// is set in the end at once.
func (c *observed) describe() {
	if !c.side.server && c.method.kind != rpc.KindOneWay {
		c.call.AskInstance()
	}
	if c.spanAttributes != nil {
		c.span.SetAttributes(c.spanAttributes(c.ctx, c.call)...)
	}
}

// startMetrics begins to measure, if anybody wants to know.
func (c *observed) startMetrics() {
	if c.measured = c.side.duration.Enabled(c.ctx); !c.measured {
		return
	}
	c.method.active.Add(1)
	if waited := c.call.QueueTime(); waited >= minQueueTime {
		c.side.queue.Record(c.ctx, waited.Seconds(), c.method.record...)
	}
	if c.callAttributes != nil {
		c.more = c.callAttributes(c.ctx, c.call)
	}
	c.started = time.Now()
}

// hook sets the functions that observe the call on its way.
func (c *observed) hook() {
	if c.measured {
		c.call.OnSent(c.sent)
		c.call.OnReceive(c.received)
	}
	if !c.side.server {
		c.call.OnAttempt(c.attempt)
	}
	c.call.OnEnd(c.end)
}

// sent is what OnSent runs.
func (c *observed) sent(m *rpc.Message, err error) {
	if err == nil {
		c.count(m, c.side.server)
	}
}

// received is what OnReceive runs.
func (c *observed) received(m *rpc.Message) error {
	c.count(m, !c.side.server)
	return nil
}

func (c *observed) count(m *rpc.Message, response bool) {
	if response {
		c.method.responses.add(m)
		c.responses.Add(1)
	} else {
		c.method.requests.add(m)
		c.requests.Add(1)
	}
}

// attempt is what OnAttempt runs. The first one is the span's own; each further one is an event.
func (c *observed) attempt(a *rpc.Attempt) error {
	if a.Number() == 0 {
		c.subject = a.Subject()
		return nil
	}
	switch {
	case c.measured && a.Hedge():
		c.side.hedges.Add(c.ctx, 1, c.method.add...)
	case c.measured:
		c.side.retries.Add(c.ctx, 1, c.method.add...)
	}
	if c.recording {
		c.span.AddEvent(attemptEvent, trace.WithAttributes(attemptAttributes(a)...))
	}
	return nil
}

func attemptAttributes(a *rpc.Attempt) []attribute.KeyValue {
	fields := []attribute.KeyValue{attemptNumberKey.Int(a.Number()), attemptSubjectKey.String(a.Subject())}
	if id := a.ID(); id != "" {
		fields = append(fields, attemptIDKey.String(id))
	}
	if instance := a.Instance(); instance != "" {
		fields = append(fields, attemptInstanceKey.String(instance))
	}
	if a.Hedge() {
		fields = append(fields, attemptHedgeKey.Bool(true))
	}
	return fields
}

// end is what OnEnd runs.
func (c *observed) end(err error) {
	code := rpc.CodeOf(err)
	if c.measured {
		c.endMetrics(code, err)
	}
	if c.recording {
		c.endSpan(code, err)
	}
	c.span.End()
}

func (c *observed) endMetrics(code rpc.Code, err error) {
	s := c.side
	took := time.Since(c.started).Seconds()
	if len(c.more) == 0 {
		s.duration.Record(c.ctx, took, c.method.ended(code)...)
	} else {
		s.duration.Record(c.ctx, took, c.method.endedWith(code, c.more))
	}
	c.method.active.Add(-1)
	if c.method.kind > rpc.KindOneWay {
		s.requests.Record(c.ctx, c.requests.Load(), c.method.record...)
		s.responses.Record(c.ctx, c.responses.Load(), c.method.record...)
	}
	if err != nil && !s.server {
		s.failed.Add(c.ctx, 1, metric.WithAttributes(
			methodKey.String(c.method.name), statusKey.String(statusName(code)), executionKey.String(executionName(execution(err)))))
	}
}

func (c *observed) endSpan(code rpc.Code, err error) {
	server := c.side.server
	fields := append(make([]attribute.KeyValue, 0, 8), statusKey.String(statusName(code)))
	if isError(code, server) {
		fields = append(fields, errorKey.String(statusName(code)))
	}
	var failed *rpc.Error
	if err != nil && errors.As(err, &failed) {
		c.span.SetStatus(status(code, server), failed.Message())
		fields = append(fields, executionKey.String(executionName(failed.Execution())))
	}
	if server {
		fields = c.serverAttributes(fields)
	} else {
		fields = c.clientAttributes(fields, failed)
	}
	if len(c.requestHeaders) > 0 {
		fields = append(fields, attributes(c.requestHeaders, c.call.Header())...)
	}
	if len(c.responseHeaders) > 0 {
		fields = append(fields, attributes(c.responseHeaders, c.call.ResponseHeader(), c.call.ResponseTrailer())...)
	}
	c.span.SetAttributes(fields...)
}

func (c *observed) serverAttributes(fields []attribute.KeyValue) []attribute.KeyValue {
	fields = append(fields, instanceKey.String(c.call.Instance()), queueTimeKey.Float64(c.call.QueueTime().Seconds()))
	if id := c.call.ID(); id != "" {
		fields = append(fields, callIDKey.String(id))
	}
	return fields
}

func (c *observed) clientAttributes(fields []attribute.KeyValue, failed *rpc.Error) []attribute.KeyValue {
	switch {
	case c.subject == "": // nothing was sent
	case c.method.kind == rpc.KindOneWay:
		fields = append(fields, destinationKey.String(c.subject))
	default:
		fields = append(fields, addressKey.String(serverAddress(c.subject, c.method.name)))
	}
	instance := c.call.Instance()
	if failed != nil && failed.Instance() != "" {
		instance = failed.Instance()
	}
	if instance != "" {
		fields = append(fields, instanceKey.String(instance))
	}
	return fields
}

// execution returns what is known of whether a failed call has run.
func execution(err error) rpc.Execution {
	var failed *rpc.Error
	if errors.As(err, &failed) {
		return failed.Execution()
	}
	return rpc.ExecutionMayHaveRun
}
