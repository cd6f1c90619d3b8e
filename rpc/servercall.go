package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/natscall/natscall/rpc/internal/admission"
	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// serverCall is one request on its way through a server.
//
//	          take            Run            answer           leave
//	received ------> queued ------> running --------> answered ------> left
//	   |                |              |
//	   |     refuse     |    refuse    |  refuse
//	   +------------> answered <-------+
//
// It is answered once: by the goroutine that runs it, by the subscription's goroutine if it is
// refused on arrival (then it ends there), or by a shutdown that no longer waits. A call that a
// shutdown has answered still runs until its handler returns. Each call is a new object: nothing of
// it is reused.
type serverCall struct {
	ctx  callContext
	call Call

	received
	answerForm answerForm
	stream     *messageStream // of the request or of a large response, or nil
	streamRead bool           // body is the request that came in the stream

	handling atomic.Int32 // callFresh, callHandled or callGivenUp
	steps    steps
	ticket   admission.Ticket
}

// Ticket implements admission.Task.
func (c *serverCall) Ticket() *admission.Ticket { return &c.ticket }

// steps is the set of steps that a call has taken.
type steps struct{ bits atomic.Uint32 }

const (
	callRunning  uint32 = 1 << iota
	callAnswered        // or about to be
	callCounted         // in the statistics, as a call that has ended
	callSending         // a message of a plain stream is being published
	callEndLeft         // its sender is to answer behind it
)

// take takes a step. It reports whether that is the first time.
func (s *steps) take(step uint32) (first bool) { return s.bits.Or(step)&step == 0 }

// beginSending reports whether a message of a plain stream may be published: the call has not been
// answered.
func (s *steps) beginSending() bool {
	if s.bits.Or(callSending)&callAnswered == 0 {
		return true
	}
	s.endSending()
	return false
}

// endSending reports whether the answer of the call was left to the sender.
func (s *steps) endSending() (left bool) { return s.bits.And(^callSending)&callEndLeft != 0 }

// refuse takes the step callAnswered. If a message is being published then, it leaves the answer to
// the sender, since nothing may follow the end of a plain stream.
func (s *steps) refuse() (first, left bool) {
	for {
		before := s.bits.Load()
		after := before | callAnswered
		if left = before&callSending != 0; left {
			after |= callEndLeft
		}
		if before&callAnswered != 0 {
			return false, false
		}
		if s.bits.CompareAndSwap(before, after) {
			return true, left
		}
	}
}

// taken reports whether the step has been taken.
func (s *steps) taken(step uint32) bool { return s.bits.Load()&step != 0 }

// Whether the handler is called is decided once: by the goroutine that is about to call it, or by
// the one that is about to report that it did not run.
const (
	callFresh int32 = iota
	callHandled
	callGivenUp
)

// enter is called right before the handler. It returns an error if the caller has been told that
// the handler did not run.
func (c *serverCall) enter() error {
	if c.handling.CompareAndSwap(callFresh, callHandled) || c.handling.Load() == callHandled {
		return nil
	}
	return failf(CodeUnavailable, ExecutionNotRun, "the call was given up")
}

// request decodes the request and then calls enter.
func (c *serverCall) request() (proto.Message, error) {
	if err := c.receiving(); err != nil {
		return nil, err
	}
	req, err := c.call.Request()
	if err == nil {
		err = c.enter()
	}
	return req, err
}

// receiving runs the functions of OnReceive for a single request.
func (c *serverCall) receiving() error {
	if c.call.hooks == nil {
		return nil
	}
	data, err := c.data()
	if err != nil {
		return err
	}
	return c.call.hooks.receiveRequest(len(data), int(c.wireSize))
}

// giveUp decides against the handler. It reports whether the handler was not called; then it never
// will be.
func (c *serverCall) giveUp() bool {
	return c.handling.CompareAndSwap(callFresh, callGivenUp) || c.handling.Load() == callGivenUp
}

// execution returns what the caller is told about the execution of the call that e ended. Without a
// queue group that is never "not run": another instance may have run the call. A caller that has
// asked all instances is told about this one.
func (c *serverCall) execution(e *Error) wire.Execution {
	x := e.execution
	if x == ExecutionMayHaveRun && c.handling.Load() == callHandled {
		x = ExecutionDidRun
	}
	return x.onWire(e.refused, c.to == toAll || c.alone())
}

// receive takes a request that came at a time of the server's clock. If it returns an error, the
// request is to be refused with that.
func (c *serverCall) receive(m *nats.Msg, at time.Duration) *Error {
	c.call.header, c.waited = Header(m.Header), at
	asked, open, err := c.parse(m)
	if err == nil && c.plain && c.endpoint.method.kind == KindServerStream {
		err = c.checkPlainStream()
	}
	var timeout time.Duration
	if timeout, c.deadlineBy = c.timeout(asked); timeout > 0 {
		c.ctx.deadline = at + min(timeout, math.MaxInt64-at)
	}
	c.answerForm = c.chooseForm()
	if err == nil && open.Kind == wire.KindOpen {
		err = c.receiveOpen(&open)
	}
	return err
}

// timeout decides how long the call may take, 0 for any time, and what has set that. asked is
// what the request says.
func (c *serverCall) timeout(asked time.Duration) (timeout time.Duration, by DeadlineBy) {
	options, method := &c.endpoint.service.server.options, c.endpoint.method
	unnamed, longest := c.endpoint.timeouts()
	bound := func(limit time.Duration) {
		if timeout == 0 || timeout > limit {
			timeout, by = limit, DeadlineByServer
		}
	}
	switch {
	case asked > 0:
		timeout, by = asked, DeadlineByCaller
	case asked == wire.NoTimeout:
	case method.timeout > 0:
		timeout, by = method.timeout, DeadlineByMethod
	case c.plain || method.kind <= KindOneWay: // other streams may go on forever
		timeout, by = unnamed, DeadlineByServer
	}
	if c.plain && asked != 0 {
		bound(maxPlainTimeout)
	}
	if method.kind <= KindOneWay && longest > 0 {
		bound(longest)
	}
	if method.kind == KindServerStream && c.plain && c.isRemote() {
		bound(options.plainStreams.time)
	}
	return timeout, by
}

// chooseForm decides how the call is answered, unless its request opens a stream.
func (c *serverCall) chooseForm() answerForm {
	switch {
	case c.reply == "":
		return noAnswer{c}
	case !c.plain:
		return envelopeAnswer{c}
	case c.endpoint.method.kind == KindServerStream:
		return plainStreamAnswer{plainAnswer{c}}
	}
	return plainAnswer{c}
}

// receiveOpen makes the server's side of a stream.
func (c *serverCall) receiveOpen(e *wire.Envelope) *Error {
	open, err := wire.ParseOpen(e)
	if err == nil && c.reply == "" {
		err = errors.New("the open has no reply subject")
	}
	if err != nil {
		return failf(CodeInvalidArgument, ExecutionNotRun, "%v", err)
	}
	answer := streamAnswer{c}
	c.answerForm, c.stream = answer, answer.newStream(open)
	return nil
}

// data returns the encoded request, decompressed, of a call whose client does not stream. The first
// use receives it from the stream, if there is one.
func (c *serverCall) data() ([]byte, *Error) {
	if c.stream == nil || c.streamRead {
		return c.received.data()
	}
	in, err := c.stream.recvOnlyBytes()
	if err != nil {
		return nil, asError(err)
	}
	c.body, c.whole, c.wireSize, c.streamRead = in.data, uint32(in.whole), uint32(in.wireSize), true
	return c.body, nil
}

// decodeOnce decodes the request for the Call, unless that has failed before.
func (c *serverCall) decodeOnce() (proto.Message, error) {
	if hooks := c.call.hooks; hooks != nil && hooks.requestErr != nil {
		return nil, hooks.requestErr
	}
	if !c.endpoint.method.typed() {
		return nil, failf(CodeUnimplemented, ExecutionNotRun, "%s: the types of its messages are not known here", c.call.Method())
	}
	_, err := c.data()
	if err == nil {
		req := c.endpoint.method.newRequest()
		if err = c.decodeInto(req); err == nil {
			c.call.request = req
			return req, nil
		}
	}
	if c.stream == nil { // otherwise it is perhaps that of the context
		c.call.hooked().requestErr = err
	}
	return nil, err
}

// decodeInto decodes the request into m. data has returned the encoded request before.
func (c *serverCall) decodeInto(m any) *Error {
	err := c.received.decodeInto(m)
	if err != nil && c.stream != nil {
		return asError(c.stream.Reject(err))
	}
	return err
}

// Run serves the call on the current goroutine. Whatever the user's code does, the call is answered
// and leaves the table. If a handler, interceptor or hook panics or calls runtime.Goexit, it does
// so before returned is true.
func (c *serverCall) Run() {
	c.steps.take(callRunning)
	started := c.ctx.clock().now()
	if stall := &c.endpoint.service.server.stall; stall.stalled(started) {
		stall.wait()
		started = c.ctx.clock().now()
	}
	c.waited = started - c.waited
	defer c.leave()
	if err := c.begin(started); err != nil {
		c.refuse(err)
		return
	}
	returned := false
	defer func() {
		if !returned {
			c.answerPanic(recover(), started)
		}
	}()
	err := c.serve()
	returned = true
	c.answer(err, c.ended(started))
}

// begin returns why a call that was queued is not to run, or nil.
func (c *serverCall) begin(now time.Duration) *Error {
	fits := c.ticket.Begin(now, c.ctx.deadline)
	if c.ticket.Waited() {
		c.endpoint.stats.waits.add(c.waited)
	}
	if c.ctx.expired(now) {
		c.ctx.expire()
	}
	switch {
	case c.ctx.ended() != nil:
		return contextError(&c.ctx, ExecutionNotRun)
	case !fits:
		return c.endpoint.overload(&c.ticket, c.ctx.deadline-now)
	}
	return nil
}

// ended returns how long the call has run.
func (c *serverCall) ended(started time.Duration) (took time.Duration) {
	now := c.ctx.clock().now()
	c.ticket.Ran(now, now-started)
	return now - started
}

// leave ends everything that belongs to a call that has been answered.
func (c *serverCall) leave() {
	if kept := c.ctx.finish(c.mayBeKept()); !kept { // a context that somebody keeps keeps c
		c.body, c.call.request, c.call.response = nil, nil, nil
	}
	if c.stream != nil && !c.stream.Over() { // a forced shutdown met the accept
		c.stream.server.EndAndWait(failf(CodeUnavailable, ExecutionMayHaveRun, "the server was stopped before the call had ended"))
	}
	c.endpoint.service.calls.Remove(c.id)
}

// mayBeKept reports whether interceptors, or a handler with its stream, have got hold of the call.
func (c *serverCall) mayBeKept() bool {
	return c.endpoint.method.kind > KindOneWay || c.stream != nil || c.endpoint.hasInterceptors()
}

// serve runs the interceptors and the handler.
func (c *serverCall) serve() *Error {
	if c.stream != nil {
		if err := (streamAnswer{c}).accept(c.reply); err != nil {
			return err
		}
	}
	err := c.endpoint.run(&c.ctx, &c.call)
	if err == nil && c.hasMessage() {
		if err = c.call.method.checkResponse(c.call.response, false); err == nil && c.call.hooks != nil {
			c.call.hooks.response.message, err = c.call.hooks.sending(c.call.response)
		}
	}
	return c.verdict(err)
}

// hasMessage reports whether the answer of the call, if it is no error, has a message.
func (c *serverCall) hasMessage() bool {
	return c.call.method.hasResponse() && c.call.method.kind != KindOneWay
}

// verdict returns the error to send to the caller, or nil. If the handler has not been called, it
// never will be.
func (c *serverCall) verdict(err error) *Error {
	if err == nil {
		return nil
	}
	e := handlerError(err)
	switch notRun := c.giveUp(); {
	case !notRun:
		e.execution = ExecutionDidRun
	case !e.claimed:
		e.execution = ExecutionNotRun
	}
	return e
}

// handle is the Next of a server's innermost interceptor. ctx, which an interceptor may have
// derived from the call's, bounds the stream too.
func handle(ctx context.Context, call *Call) error {
	c := call.served
	if call.method.kind > KindOneWay && c.handling.Load() != callFresh {
		return failf(CodeInternal, ExecutionDidRun, "an interceptor called next twice: %s streams, and its stream has been used", call.Method())
	}
	if c.stream != nil && ctx != context.Context(&c.ctx) {
		before := c.stream.WaitUnder(ctx)
		defer c.stream.WaitUnder(before) // for the answer
	}
	err := c.endpoint.invoke(ctx, call)
	if err != nil {
		call.response = nil
	}
	return err
}

// sender returns what a server-streaming handler sends to. ctx is the handler's context.
func (c *serverCall) sender(ctx context.Context) messageSender {
	if c.stream != nil {
		return c.stream
	}
	return &plainStream{call: c, ctx: ctx, remote: c.isRemote(), probed: c.ctx.clock().now()}
}

// answer adds the call to the statistics and sends its response or error. If a shutdown has
// answered, it only runs the functions of OnSent and OnEnd.
func (c *serverCall) answer(err *Error, took time.Duration) {
	if !c.steps.take(callAnswered) {
		c.call.hooks.answered(0, errStopped().because(asNil(err)))
		return
	}
	buf := buffer.Take()
	if err == nil && c.call.method.hasResponse() {
		err = c.encode(buf)
	}
	if err == nil {
		err = c.checkMetadata()
	}
	c.endpoint.stats.count(err, took)
	c.steps.take(callCounted)
	if c.call.hooks != nil {
		defer c.send(buf, err, took) // deferred, since a hook may end the goroutine
		c.call.hooks.answered(len(buf.B), asNil(err))
		return
	}
	c.send(buf, err, took)
}

// errStopped returns the error of a call that a shutdown has not waited for.
func errStopped() *Error {
	return failf(CodeUnavailable, ExecutionDidRun, "the server was stopped before the call had ended")
}

// checkMetadata checks what the handler has set, so that the hooks and the statistics know of an
// error.
func (c *serverCall) checkMetadata() *Error {
	if err := cmp.Or(c.call.responseHeader.check(), c.call.responseTrailer.check()); err != nil {
		return failf(CodeInternal, ExecutionDidRun, "response: %v", err).because(err)
	}
	return nil
}

// send sends the response in buf, or the error.
func (c *serverCall) send(buf *buffer.Buffer, err *Error, took time.Duration) {
	if err != nil {
		c.answerForm.fail(err)
	} else if c.answerForm.respond(buf, took) {
		return // the buffer is the publisher's
	}
	buf.PutBack()
}

// encode encodes the response into buf, as the transport sends it.
func (c *serverCall) encode(buf *buffer.Buffer) (failed *Error) {
	defer func() {
		if r := recover(); r != nil { // the handler is still changing the message
			failed = failf(CodeInternal, ExecutionDidRun, "the response does not encode")
			c.endpoint.log().Error("natscall: a response does not encode", "panic", fmt.Sprint(r))
		}
	}()
	return c.answerForm.encode(buf)
}

// encodeBody appends the response itself, for an answerForm.
func (c *serverCall) encodeBody(buf *buffer.Buffer) *Error {
	if c.call.method.kind == KindOneWay {
		return nil // an empty answer acknowledges a message of JetStream
	}
	var err error
	before := len(buf.B)
	if c.call.hooks != nil {
		c.call.hooks.response.from = before
	}
	if buf.B, err = c.coding().append(buf.B, c.call.response); err != nil {
		return failf(CodeInternal, ExecutionDidRun, "the response does not encode: %v", err)
	}
	size, limit := len(buf.B)-before, c.endpoint.sizes().send
	if c.call.hooks != nil {
		c.call.hooks.response.size = size
	}
	if size > limit {
		return overSendLimit("response", size, limit, ExecutionDidRun)
	}
	return nil
}

// sizeOf is what an encoded response takes of max_payload, with the header and trailer that the
// handler has set.
func (c *serverCall) sizeOf(buf *buffer.Buffer) int {
	size := len(buf.B) + headerSize(c.call.responseHeader) + headerSize(c.call.responseTrailer)
	if c.named {
		size += headerSize(c.nameInstance(nil))
	}
	return size
}

// refuse answers a call with an error. It is for a call that another goroutine runs, or that none
// will run.
func (c *serverCall) refuse(err *Error) {
	first, left := c.steps.refuse()
	if !first {
		return
	}
	c.endpoint.stats.countRefused(err)
	c.steps.take(callCounted)
	if !left {
		c.answerForm.refuse(err)
	}
}

// publish hands the response to the publisher, which publishes it together with those of other
// calls. This goroutine flushes them if they are many or late, otherwise one of the pool does.
func (c *serverCall) publish(m publish.Message, took time.Duration) {
	if out := c.endpoint.service.server.out; out.Add(m, took) {
		out.Flush()
	}
}

// Sent implements publish.Owner. If the response was not published, it tries to send an error.
func (c *serverCall) Sent(m *publish.Message, err error) {
	if err == nil {
		return
	}
	failed := natsError(err, ExecutionDidRun)
	if errors.Is(err, nats.ErrMaxPayload) {
		failed = overMaxPayload("response", len(m.Buffer.B), m.Header, ExecutionDidRun)
	}
	c.answerForm.refuse(failed)
}

// Leads implements publish.Owner. It matters to clients only, since an answer has no reply subject.
func (c *serverCall) Leads([]*publish.Message) bool { return true }

// Claim implements publish.Owner. The caller may still wait.
func (c *serverCall) Claim(*publish.Message) bool { return true }

// header returns the NATS header of the answer, or nil if the handler set none and the
// instance is not to be named.
func (c *serverCall) header() (nats.Header, error) {
	h, err := c.call.responseHeader.appendTo(nil, "")
	if err != nil {
		return nil, err
	}
	if h, err = c.call.responseTrailer.appendTo(h, wire.TrailerPrefix); err == nil && c.named {
		h = c.nameInstance(h)
	}
	return h, err
}

// nameInstance adds to the header of an answer which instance it comes from.
func (c *serverCall) nameInstance(h nats.Header) nats.Header {
	if h == nil {
		h = nats.Header{}
	}
	h[wire.InstanceHeader] = []string{c.endpoint.service.identity.ID}
	return h
}

// errorHeader is header for an error. If what the handler has set is not valid, the error is sent
// without it.
func (c *serverCall) errorHeader() nats.Header {
	h, err := c.header()
	if err != nil {
		c.endpoint.log().Error("natscall: the header and trailer of an error were left out", "error", err)
		return nil
	}
	return h
}

// statusForm is the form in which a transport sends errors.
type statusForm interface {
	// appendStatus appends an error to b, and may add to the header.
	appendStatus(b []byte, h nats.Header, e *Error) []byte
}

// tell sends an error, unless that would acknowledge a message of JetStream.
func (c *serverCall) tell(form statusForm, err *Error, header nats.Header) {
	if c.acknowledges() {
		c.logUntold(err)
		return
	}
	c.sendError(form, err, header)
}

// sendError publishes an error, and shortens it if it does not fit into a NATS message.
func (c *serverCall) sendError(form statusForm, err *Error, header nats.Header) {
	failed := c.publishError(form, err, header)
	if errors.Is(failed, nats.ErrMaxPayload) {
		failed = c.publishError(form, err.shortened(), nil)
	}
	if failed == nil {
		return
	}
	if unlogged, ok := c.endpoint.unsent.Next(); ok {
		c.endpoint.log().Error("natscall: an error was not sent", "error", failed, "unsent", err, "unlogged", unlogged)
	}
}

func (c *serverCall) publishError(form statusForm, err *Error, header nats.Header) error {
	buf := buffer.Take()
	defer buf.PutBack()
	h := c.nameInstance(err.header(header))
	buf.B = form.appendStatus(buf.B, h, err)
	return publish.Send(c.endpoint.service.server.nc, &nats.Msg{Subject: c.reply, Header: h, Data: c.answerBody(buf.B)})
}

// encodeStatus appends the status of an error, without the details that do not encode: in JSON
// those whose type is not linked here.
func (c *serverCall) encodeStatus(b []byte, codec coding, e *Error) []byte {
	s := e.status()
	out, err := codec.appendMessage(b, s)
	if err != nil {
		c.endpoint.log().Error("natscall: a detail of an error was left out", "error", err)
		s.Details = slices.DeleteFunc(slices.Clone(s.Details), func(d *anypb.Any) bool {
			_, err := codec.appendMessage(nil, d)
			return err != nil
		})
		out, _ = codec.appendMessage(b, s)
	}
	return out
}

// logUntold logs an error that cannot be sent to any caller.
func (c *serverCall) logUntold(err *Error) {
	if unlogged, ok := c.endpoint.untold.Next(); ok {
		c.endpoint.log().Error("natscall: a message that nobody waits for an answer to has failed", "error", err, "unlogged", unlogged)
	}
}

// answerPanic answers a call whose handler did not return. recovered is nil after runtime.Goexit,
// which cannot be stopped.
func (c *serverCall) answerPanic(recovered any, started time.Duration) {
	what := "the handler ended its goroutine"
	if recovered != nil {
		what = "the handler panicked"
	}
	switch unlogged, ok := c.endpoint.panicked.Next(); {
	case !ok:
	case recovered != nil:
		c.endpoint.log().Error("natscall: "+what, "panic", fmt.Sprint(recovered), "stack", string(debug.Stack()), "unlogged", unlogged)
	default:
		c.endpoint.log().Error("natscall: "+what+" (runtime.Goexit)", "unlogged", unlogged)
	}
	c.answer(c.verdict(failf(CodeInternal, ExecutionDidRun, "%s", what)), c.ended(started))
}
