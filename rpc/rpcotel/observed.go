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

	started           time.Time
	more              []attribute.KeyValue // of the duration
	requests, answers atomic.Int64         // messages, of a stream also by other goroutines
}

// describe adds to a span that is recorded what its sampler need not know.
func (c *observed) describe() {
	if c.side.server {
		c.span.SetAttributes(instanceKey.String(c.call.Instance()), queueTimeKey.Float64(c.call.QueueTime().Seconds()))
		if id := c.call.ID(); id != "" {
			c.span.SetAttributes(callIDKey.String(id))
		}
	} else if c.call.Kind() != rpc.KindOneWay {
		c.call.AskInstance()
	}
	if len(c.requestHeaders) > 0 {
		c.span.SetAttributes(attributes(c.requestHeaders, c.call.Header())...)
	}
	if c.spanAttributes != nil {
		c.span.SetAttributes(c.spanAttributes(c.ctx, c.call)...)
	}
}

// startMetrics begins to measure, if anybody wants to know.
func (c *observed) startMetrics() {
	s := c.side
	if c.measured = s.duration.Enabled(c.ctx) || s.active.Enabled(c.ctx); !c.measured {
		return
	}
	s.active.Add(c.ctx, 1, c.method.add...)
	if s.server {
		s.queue.Record(c.ctx, c.call.QueueTime().Seconds(), c.method.record...)
	}
	if c.callAttributes != nil {
		c.more = c.callAttributes(c.ctx, c.call)
	}
	c.started = time.Now()
}

// hook sets the functions that observe the call on its way.
func (c *observed) hook() {
	s := c.side
	if c.measured && (s.request.Enabled(c.ctx) || s.response.Enabled(c.ctx) || s.requests.Enabled(c.ctx) || s.responses.Enabled(c.ctx)) {
		c.call.OnSent(c.sent)
		c.call.OnReceive(c.received)
	}
	if !s.server && (c.recording || s.retries.Enabled(c.ctx)) {
		c.call.OnAttempt(c.attempt)
	}
	c.call.OnEnd(c.end)
}

// sent is what OnSent runs.
func (c *observed) sent(m *rpc.Message, err error) {
	switch {
	case err != nil:
	case c.side.server:
		c.answer(m)
	default:
		c.request(m)
	}
}

// received is what OnReceive runs.
func (c *observed) received(m *rpc.Message) error {
	if c.side.server {
		c.request(m)
	} else {
		c.answer(m)
	}
	return nil
}

func (c *observed) request(m *rpc.Message) {
	c.requests.Add(1)
	c.side.request.Record(c.ctx, int64(m.WireSize()), c.method.record...)
}

func (c *observed) answer(m *rpc.Message) {
	c.answers.Add(1)
	c.side.response.Record(c.ctx, int64(m.WireSize()), c.method.record...)
}

// attempt is what OnAttempt runs.
func (c *observed) attempt(a *rpc.Attempt) error {
	if a.Number() > 0 && c.measured {
		c.side.retries.Add(c.ctx, 1, c.method.add...)
	}
	if !c.recording {
		return nil
	}
	if a.Number() == 0 {
		c.span.SetAttributes(c.address(a))
	}
	fields := []attribute.KeyValue{
		attemptNumberKey.Int(a.Number()), attemptSubjectKey.String(a.Subject()), attemptSizeKey.Int(len(a.Data())),
	}
	if id := a.ID(); id != "" {
		fields = append(fields, attemptIDKey.String(id))
	}
	if instance := a.Instance(); instance != "" {
		fields = append(fields, attemptInstanceKey.String(instance))
	}
	c.span.AddEvent(attemptEvent, trace.WithAttributes(fields...))
	return nil
}

// address says what the client addresses.
func (c *observed) address(a *rpc.Attempt) attribute.KeyValue {
	if c.call.Kind() == rpc.KindOneWay {
		return destinationKey.String(a.Subject())
	}
	return addressKey.String(serverAddress(a.Subject(), c.method.name))
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
	s.active.Add(c.ctx, -1, c.method.add...)
	if c.call.Kind() > rpc.KindOneWay {
		s.requests.Record(c.ctx, c.requests.Load(), c.method.record...)
		s.responses.Record(c.ctx, c.answers.Load(), c.method.record...)
	}
	if err != nil && !s.server {
		s.failed.Add(c.ctx, 1, metric.WithAttributes(
			methodKey.String(c.method.name), statusKey.String(statusName(code)), executionKey.String(executionName(execution(err)))))
	}
}

func (c *observed) endSpan(code rpc.Code, err error) {
	server := c.side.server
	fields := make([]attribute.KeyValue, 0, 4)
	fields = append(fields, statusKey.String(statusName(code)))
	if isError(code, server) {
		fields = append(fields, errorKey.String(statusName(code)))
	}
	var failed *rpc.Error
	if errors.As(err, &failed) {
		c.span.SetStatus(status(code, server), failed.Message())
		fields = append(fields, executionKey.String(executionName(failed.Execution())))
	}
	if instance := c.instance(failed); instance != "" {
		fields = append(fields, instanceKey.String(instance))
	}
	c.span.SetAttributes(fields...)
	if len(c.responseHeaders) > 0 {
		c.span.SetAttributes(attributes(c.responseHeaders, c.call.ResponseHeader(), c.call.ResponseTrailer())...)
	}
}

// instance returns the instance that has answered a client; a server's span has its own.
func (c *observed) instance(failed *rpc.Error) string {
	switch {
	case c.side.server:
		return ""
	case failed != nil && failed.Instance() != "":
		return failed.Instance()
	}
	return c.call.Instance()
}

// execution returns what is known of whether a failed call has run.
func execution(err error) rpc.Execution {
	var failed *rpc.Error
	if errors.As(err, &failed) {
		return failed.Execution()
	}
	return rpc.ExecutionMayHaveRun
}
