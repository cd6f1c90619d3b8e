package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/internal/names"
	"github.com/natscall/natscall/rpc/internal/admission"
	"github.com/natscall/natscall/rpc/internal/calls"
	"github.com/natscall/natscall/rpc/internal/loglimit"
	"github.com/natscall/natscall/rpc/internal/pool"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// endpoint is a method of a service.
type endpoint struct {
	service    *service
	method     *method
	subject    string
	queueGroup string
	group15    bool
	unknown    bool // the service does not have the method
	own        bool // one of ownMethods
	invoke     func(ctx context.Context, call *Call) error
	next       Next // the folded interceptors of the method and the handler; nil if it has none
	admission  *admission.Method
	stats      endpointStats
	untold     loglimit.Limit // of errors without a caller to send them to
	doubled    loglimit.Limit // of requests that came twice
	unsent     loglimit.Limit // of errors that could not be sent
	panicked   loglimit.Limit // of handlers that did not return
}

func (e *endpoint) check() error {
	if e.service.desc.NoQueueGroup && e.queueGroup == "" && e.method.kind > KindOneWay {
		return errors.New("NoQueueGroup is not possible with streaming methods, since one instance has to take each stream")
	}
	return errors.Join(
		named("subject", names.CheckSubject(e.subject)),
		named("metadata", names.CheckMetadata(e.method.desc.Metadata)),
	)
}

// intercept makes the interceptors of the method.
func (e *endpoint) intercept() error {
	var all []Interceptor
	for _, f := range e.service.options.ofMethods {
		i, err := f(&Method{*e.method})
		if err != nil {
			return fmt.Errorf("%s: %w", e.method.FullName(), err)
		}
		if i != nil {
			all = append(all, i)
		}
	}
	if len(all) > 0 {
		e.next = chain(all, handle)
	}
	return nil
}

// hasInterceptors reports whether the calls of the method have interceptors.
func (e *endpoint) hasInterceptors() bool {
	s := e.service
	if e.own {
		return false
	}
	return e.next != nil || len(s.options.interceptors)+len(s.server.options.peerOptions.interceptors) > 0
}

// run runs the interceptors and the handler.
func (e *endpoint) run(ctx context.Context, call *Call) error {
	if e.own {
		return handle(ctx, call)
	}
	return e.service.server.next(ctx, call)
}

// sizes returns the limits of messages.
func (e *endpoint) sizes() sizeLimits {
	if e.own {
		return ownSizes
	}
	return e.service.server.options.sizes
}

// timeouts returns the timeout of calls that name none, and the longest there may be, or 0.
func (e *endpoint) timeouts() (unnamed, longest time.Duration) {
	if e.own {
		return defaultTimeout, 0
	}
	return e.service.server.options.timeout, e.service.server.options.maxTimeout
}

func (e *endpoint) log() *slog.Logger {
	return e.service.server.options.logger.With("method", e.method.FullName())
}

// receive is the callback of an endpoint's subscription. It never blocks: the call goes to the pool
// or is refused.
func (e *endpoint) receive(m *nats.Msg) { e.receiveFor(toGroup, m) }

func (e *endpoint) receiveFor(to addressee, m *nats.Msg) {
	s := e.service.server
	now := s.clock.now()
	if s.stall.stalled(now) && s.stall.hold(heldRequest{e, to, m}) {
		return
	}
	if wire.IsBatch(m.Data) {
		e.receiveBatch(to, m, now)
		return
	}
	e.take(e.newServerCall(to), m, now)
}

// receiveBatch takes requests that share a NATS message, and its header: that of a client's batch
// is empty, but the NATS server may have added what it knows of the sender.
func (e *endpoint) receiveBatch(to addressee, m *nats.Msg, now time.Duration) {
	batch, err := wire.ParseBatch(m.Data)
	if err != nil {
		e.take(e.newServerCall(to), m, now) // it refuses m
		return
	}
	for tag, item := range batch.Items() {
		c := e.newServerCall(to)
		c.batched, c.tag, c.whole, c.headSize = true, tag, uint32(len(m.Data)), headSize(m)
		e.take(c, &nats.Msg{Subject: m.Subject, Reply: m.Reply, Header: m.Header, Data: item}, now)
	}
}

func (e *endpoint) newServerCall(to addressee) *serverCall {
	c := &serverCall{received: received{form: form{to: to}, endpoint: e}}
	c.call = Call{method: e.method, served: c}
	c.ctx.served = c
	return c
}

func (e *endpoint) take(c *serverCall, m *nats.Msg, at time.Duration) {
	err := c.receive(m, at)
	if err == nil && c.to != toGroup {
		err = e.absence()
	}
	if err != nil {
		c.refuse(err)
		return
	}
	if e.has(m.Header) { // which is no call of its own, so it is not counted
		c.steps.take(callAnswered)
		c.answerForm.refuse(refusal("the instance has the first attempt of the call"))
		return
	}
	switch e.service.calls.Add(c.id, c) {
	case calls.Duplicate:
		if unlogged, ok := e.doubled.Next(); ok {
			e.log().Warn("natscall: a request came twice and runs once; do imports or mappings overlap?", "call", c.id, "unlogged", unlogged)
		}
		return
	case calls.Canceled:
		c.refuse(endError(context.Canceled, ExecutionNotRun))
		return
	}
	c.ticket.Method = e.admission
	if !e.workers().Submit(c, at, c.ctx.deadline) {
		e.service.calls.Remove(c.id)
		c.refuse(e.overload(&c.ticket, c.ctx.deadline-at))
	}
}

// has reports whether the request with a header is a hedge of a call that is here.
func (e *endpoint) has(h nats.Header) bool {
	first := h[wire.HedgeHeader]
	if len(first) == 0 {
		return false
	}
	id, ok := wire.ParseID(first[0])
	if !ok {
		return false
	}
	_, here := e.service.calls.Get(id)
	return here
}

// workers returns the goroutines that run calls of the method.
func (e *endpoint) workers() *pool.Pool {
	switch {
	case e.own:
		return e.service.workers.own
	case e.method.kind > KindOneWay:
		return e.service.workers.streams
	}
	return e.service.workers.calls
}

// absence returns why a request that is for this instance in particular is not taken, or nil. Any
// other request comes by a subscription of the method, which ends when the instance drains.
func (e *endpoint) absence() *Error {
	switch {
	case e.unknown:
		return noMethod("the instance", e.method.desc.Name, e.service.methods())
	case e.own:
		return nil // tools may ask until the end
	}
	select {
	case <-e.service.steps.started:
		return refusal("the server is draining")
	default:
		return nil
	}
}

// overload returns the error of a request that is refused because too much is to be done already.
// It is not CodeDeadlineExceeded, also where a deadline is the reason: the deadline has not passed,
// and a call that comes when there is less to do succeeds. left is what is left of its deadline.
func (e *endpoint) overload(ticket *admission.Ticket, left time.Duration) *Error {
	// In the first case the pool is closed.
	if ticket.Refused() == admission.NotRefused || e.service.steps.draining.Load() {
		return refusal("the server is draining")
	}
	e.stats.shed[ticket.Refused()].Add(1)
	err := failf(CodeResourceExhausted, ExecutionNotRun, "%s", e.overloadText(ticket, left))
	err.details = append(err.details, newRetryInfo(max(ticket.Wait(), minRetryDelay)))
	return err
}

// minRetryDelay is how long a caller is to wait at least where no wait can be estimated, as for
// streams, which have no queue.
const minRetryDelay = 10 * time.Millisecond

func (e *endpoint) overloadText(ticket *admission.Ticket, left time.Duration) string {
	o, own := &e.service.options, e.admission.Limits()
	streams := e.method.kind > KindOneWay
	switch reason := ticket.Refused(); {
	case e.own:
		return fmt.Sprintf("%s is busy: %d calls of tools run and %d wait, which is the limit", e.method.FullName(), ownLimits.Running, ownLimits.Waiting)
	case reason == admission.QueueFull && streams:
		return fmt.Sprintf("the service is busy: %d streams are open (the server's rpc.WithMaxStreams)", o.streams)
	case reason == admission.QueueFull:
		return fmt.Sprintf("the service is busy: %d calls run and %d wait (the server's rpc.WithMaxConcurrency and rpc.WithMaxQueue)", o.concurrency, o.queue)
	case reason == admission.MethodFull && streams:
		return fmt.Sprintf("%s is busy: %d streams of it are open (the server's rpc.WithMaxStreams and rpc.WithMethodLimits)", e.method.FullName(), own.Running)
	case reason == admission.MethodFull:
		return fmt.Sprintf("%s is busy: %d calls of it run and %d wait (the server's rpc.WithMaxConcurrency, rpc.WithMaxQueue and rpc.WithMethodLimits)", e.method.FullName(), own.Running, own.Waiting)
	case reason == admission.Hopeless:
		return fmt.Sprintf("%s is busy: the call would wait for about %v and needs about %v then, its deadline is in %v (the server's rpc.WithMaxConcurrency and rpc.WithMethodLimits)",
			e.method.FullName(), rounded(ticket.Wait()), rounded(ticket.Need()), rounded(left))
	}
	return fmt.Sprintf("%s is busy: the call has waited until %v of its deadline were left, and needs about %v (the server's rpc.WithMaxConcurrency and rpc.WithMethodLimits)",
		e.method.FullName(), rounded(left), rounded(ticket.Need()))
}

// rounded is an estimate without digits that mean nothing.
func rounded(d time.Duration) time.Duration {
	if d < time.Millisecond {
		return d.Round(time.Microsecond)
	}
	return d.Round(time.Millisecond / 10)
}

// guessCodec returns the codec of a plain request that does not name it. A body that begins with a
// brace is a JSON object, unless the type has a group-encoded field 15, which begins with that
// byte. Any other JSON text, or one that begins with blanks, is taken for JSON unless it is also a
// Protobuf message of which all fields are known. So a number is not mistaken for a message with an
// unknown field, and a Protobuf string of digits still is a string. If the type is not known, only
// the brace counts.
func (e *endpoint) guessCodec(body []byte) Codec {
	switch text := trimJSON(body); {
	case len(body) == 0:
		return CodecProto
	case body[0] == '{' && e.group15:
		return CodecProto
	case body[0] == '{':
		return CodecJSON
	case !e.method.typed():
		return CodecProto
	case len(text) > 0 && !json.Valid(text) || isKnownProto(body, e.method.newRequest()):
		return CodecProto
	}
	return CodecJSON
}

// maxDescription bounds what discovery says of a method, in bytes: all methods share one message.
const maxDescription = 200

func (e *endpoint) metadata() map[string]string {
	m := map[string]string{}
	for k, v := range e.method.desc.Metadata {
		m[k] = v
	}
	m["natscall.method"] = e.method.FullName()
	m["natscall.kind"] = e.method.kind.String()
	if e.method.typed() {
		m["natscall.request"] = e.method.requestName()
		m["natscall.response"] = e.method.responseName()
	}
	if e.method.desc.Description != "" {
		m["natscall.description"] = wire.Truncate(e.method.desc.Description, maxDescription)
	}
	if e.method.desc.Idempotency != IdempotencyUnknown {
		m["natscall.idempotency"] = e.method.desc.Idempotency.String()
	}
	return m
}
