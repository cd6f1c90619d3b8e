package rpc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/internal/names"
	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/wire"
)

const (
	// minBackoff is about a round trip within a data centre, maxBackoff what a
	// rolling restart takes: a caller is at most that late.
	minBackoff = 5 * time.Millisecond
	maxBackoff = 500 * time.Millisecond
)

// send makes a call and sends it again where that is safe, until its deadline.
// It is the Next behind the last interceptor.
func (c *Client) send(ctx context.Context, call *Call) error {
	call.sent = true
	deadline, byCtx := call.deadline(ctx)
	a := attempt{client: c, call: call, subjects: c.subjectsOf(call.method), deadline: deadline, byCtx: byCtx}
	until := deadline // of further attempts
	if until.IsZero() {
		until = time.Now().Add(call.options.clientTimeout)
	}
	var last *Error // of the attempt before; says more than the deadline that ends the attempts
	for backoff := minBackoff; ; backoff = min(2*backoff, maxBackoff) {
		err := a.run(ctx)
		if err == nil {
			return nil
		}
		if last != nil && errors.Is(err, context.DeadlineExceeded) && err.execution == NotRun {
			return last
		}
		err = err.after(last).withCauseOf(ctx)
		delay, again := call.mayRetry(err)
		if !again {
			return err
		}
		last = err
		delay = max(delay, backoff/2+rand.N(backoff/2))
		if end := pause(ctx, until, delay); errors.Is(end, context.DeadlineExceeded) {
			return last
		} else if end != nil {
			return contextError(ctx, last.execution)
		}
	}
}

// after returns e as the error of a call whose attempt before ended with
// last: if that one may have run, so may the call.
func (e *Error) after(last *Error) *Error {
	if last == nil || last.execution == NotRun || e.execution != NotRun {
		return e
	}
	out := *e
	out.execution = MayHaveRun
	return &out
}

// withCauseOf returns e with the cause of the end of ctx, where the server has said first what
// ctx says too.
func (e *Error) withCauseOf(ctx context.Context) *Error {
	if end := ctx.Err(); end == nil || e.cause != nil || !e.Is(end) {
		return e
	}
	out := *e
	return out.because(context.Cause(ctx))
}

// deadline is the caller's, else that of the method, else that of the client.
// byCtx says that ctx ends at the deadline, so that it needs no timer.
func (c *Call) deadline(ctx context.Context) (deadline time.Time, byCtx bool) {
	deadline, byCtx = ctx.Deadline()
	timeout := c.options.timeout
	if timeout == 0 && byCtx {
		return deadline, true
	}
	if timeout == 0 {
		timeout = c.method.timeout
	}
	if timeout == 0 && c.method.kind > KindOneWay {
		return time.Time{}, true // a stream may go on for ever
	}
	if timeout == 0 {
		timeout = c.options.clientTimeout
	}
	own := time.Now().Add(timeout)
	if byCtx && deadline.Before(own) {
		return deadline, true
	}
	return own, false
}

// mayRetry is the rule of docs/protocol.md: only what certainly did not run,
// or may run twice, and only what another try can change. A connection that
// is down is not waited for. delay is the least that the server asks for.
func (c *Call) mayRetry(err *Error) (delay time.Duration, again bool) {
	if c.options.once || err.code != CodeUnavailable {
		return 0, false
	}
	switch err.execution {
	case NotRun:
		if err.refused {
			return 0, true
		}
		return err.retryDelay()
	case MayHaveRun:
		return 0, c.method.Idempotency != IdempotencyUnknown
	}
	return 0, false
}

// pause waits for d; it returns an error when ctx or the deadline ends first.
func pause(ctx context.Context, deadline time.Time, d time.Duration) error {
	if time.Until(deadline) <= d {
		return context.DeadlineExceeded
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// attempt is one sending of a call.
type attempt struct {
	client   *Client
	call     *Call
	subjects *subjects
	deadline time.Time
	byCtx    bool
	left     time.Duration
}

// run sends the request and waits for the end of the call.
func (a *attempt) run(ctx context.Context) *Error {
	if ctx.Err() != nil {
		return contextError(ctx, NotRun)
	}
	if a.deadline.IsZero() {
		a.left = 0
	} else if a.left = time.Until(a.deadline); a.left <= 0 {
		return endError(context.DeadlineExceeded, NotRun)
	}
	if err := a.client.open(); err != nil {
		return err
	}
	switch a.call.method.kind {
	case KindUnary:
		return a.roundTrip(ctx) // its publisher looks at the connection
	case KindOneWay:
		return a.publishOneWay()
	}
	return a.openAttempt(ctx)
}

func (a *attempt) roundTrip(ctx context.Context) *Error {
	out := a.client.out
	id := wire.NewID()
	m := publish.Message{Subject: a.subjects.request}
	if failed := a.encode(&m, id); failed != nil { // a message may panic: no waiter is in use yet
		return failed
	}
	if a.isLarge(&m) {
		m.Buffer.PutBack()
		return a.largeRequest(ctx)
	}
	w := a.client.inbox.take(id)
	m.Owner, m.Reply = w, w.start(id, a.subjects, a.call)
	if failed := a.client.refusal(); failed != nil { // a Close that has not met the waiter
		m.Buffer.PutBack()
		out.Skip()
		w.stop()
		w.release()
		return failed
	}
	if out.MaxBatch > 0 && !a.call.options.plain {
		m.Batch, m.Tag = publish.BatchMay, uint64(w.slot)
	}
	out.Publish(m)
	r, failed := a.wait(ctx, w)
	foreign := w.foreign // nobody changes it any more
	w.release()
	switch {
	case failed != nil:
		if failed.code == CodeCanceled && !a.call.options.plain {
			a.client.cancel(a.subjects.root, id)
		}
		return a.blameForeign(failed, foreign)
	case r.err != nil:
		return a.blameForeign(r.err, foreign)
	}
	a.subjects.hasAnswered()
	if !a.call.options.plain && wire.IsFrame(r.data) {
		return a.largeResponse(ctx, id, r.data)
	}
	return a.finish(&r)
}

// isLarge reports whether a request has to travel as a stream.
func (a *attempt) isLarge(m *publish.Message) bool {
	size := len(m.Buffer.B) + headerSize(m.Header)
	return size > smallestMaxPayload && !a.call.options.plain && int64(size) > a.client.nc.MaxPayload()
}

// wait returns the reply, or why none is waited for any longer.
func (a *attempt) wait(ctx context.Context, w *waiter) (reply, *Error) {
	var alarm <-chan time.Time
	if !a.byCtx {
		alarm = w.alarm.at(a.deadline, a.left)
	}
	byCtx := false
	for expired := false; !expired && !byCtx; {
		select {
		case <-w.ended:
			return w.taken(), nil
		case <-ctx.Done():
			byCtx = true
		case <-alarm:
			left := time.Until(a.deadline)
			if expired = left <= 0; !expired { // it was set for a call before
				w.alarm.reset(a.deadline, left)
			}
		}
	}
	switch r, ok := w.stop(); {
	case ok:
		return r, nil
	case byCtx:
		return reply{}, contextError(ctx, MayHaveRun)
	}
	return reply{}, endError(context.DeadlineExceeded, MayHaveRun)
}

// blameForeign adds to an error what was seen of replies that were not a
// natscall server's, or not the service's: the likely cause of a call that got no other.
func (a *attempt) blameForeign(err *Error, seen foreignReplies) *Error {
	out := *err
	switch {
	case seen.acks > 0:
		out.message += fmt.Sprintf("; an acknowledgement of JetStream came: a stream captures %s, or another subject that this client calls", a.subjects.request)
	case seen.others > 0 && !a.call.options.plain:
		out.message += "; a reply came that is not natscall's: a plain NATS service needs rpc.WithPlainRequests"
	default:
		return err
	}
	return &out
}

// encode makes the header and the data of a request. The buffer is the caller's to put back.
func (a *attempt) encode(m *publish.Message, id wire.ID) *Error {
	plain := a.call.options.plain || a.call.method.kind == KindOneWay
	var err error
	if m.Header, err = a.header(plain); err != nil {
		return failf(CodeInvalidArgument, NotRun, "%v", err).because(err)
	}
	buf := buffer.Take()
	coding := a.call.options.coding()
	if !plain {
		buf.B = wire.AppendRequest(buf.B, id, wire.Codec(coding.codec), a.left)
	}
	envelope := len(buf.B)
	if buf.B, err = coding.appendMessage(buf.B, a.call.request); err != nil {
		buf.PutBack()
		return failf(CodeInvalidArgument, NotRun, "the request does not encode: %v", err).because(err)
	}
	if size, limit := len(buf.B)-envelope, a.client.options.maxMessageSize; size > limit {
		buf.PutBack()
		return overLimit("request", size, limit, NotRun)
	}
	if !plain {
		buf.Compress(wire.Compression(a.call.options.compression), envelope)
		buf.B[wire.FlagsOffset] |= byte(buf.Flags(wire.Compression(a.call.options.compression)))
	}
	m.Buffer = buf
	return nil
}

// publishOneWay publishes at once, so that the caller learns of an error.
func (a *attempt) publishOneWay() *Error {
	if failed := connectionError(a.client.nc); failed != nil {
		return failed
	}
	m := publish.Message{Subject: a.subjects.request}
	if failed := a.encode(&m, wire.ID{}); failed != nil {
		return failed
	}
	defer m.Buffer.PutBack()
	err := publish.Send(a.client.nc, &nats.Msg{Subject: m.Subject, Header: m.Header, Data: m.Buffer.B})
	return unsentError(len(m.Buffer.B), m.Header, err)
}

// Sent implements publish.Owner. It ends the call whose request could not be published, unless it
// has ended.
func (w *waiter) Sent(m *publish.Message, err error) {
	if err == nil {
		return
	}
	failed := unsentError(len(m.Buffer.B), m.Header, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting && w.subject == m.Reply { // a call that ended without a reply has left its reply subject
		w.endLocked(reply{err: failed})
	}
}

// unsentError is the error of a request that could not be published.
func unsentError(size int, header nats.Header, err error) *Error {
	if err == nil {
		return nil
	}
	if e, ok := err.(*Error); ok {
		return e
	}
	if errors.Is(err, nats.ErrMaxPayload) {
		return overMaxPayload("request", size, header, NotRun).because(err)
	}
	return natsError(err, NotRun)
}

// header returns the NATS header of the request, nil if it needs none.
func (a *attempt) header(plain bool) (nats.Header, error) {
	h, err := a.call.header.appendTo(nil, "")
	if err != nil || !plain {
		return h, err
	}
	if a.call.method.kind == KindOneWay && a.call.options.codec == CodecProto {
		return h, nil // what a message without a header is taken for
	}
	if h == nil {
		h = nats.Header{}
	}
	h[wire.ContentTypeHeader] = []string{a.call.options.codec.contentType()}
	if a.call.method.kind != KindOneWay {
		h[wire.TimeoutHeader] = []string{wire.FormatTimeout(a.left)}
	}
	return h, nil
}

// cancel tells the instances of a service that the caller of a call has gone.
// It is an attempt: the caller waits for nothing any more.
func (c *Client) cancel(root string, id wire.ID) {
	_ = c.nc.Publish(names.Join(root, wire.CancelToken), wire.AppendCancel(nil, id))
}

// finish turns a reply into the response or error of the call.
func (a *attempt) finish(r *reply) *Error {
	call := a.call
	if len(r.msg.Header) > 0 && (a.client.next != nil || call.options.responseHeader != nil || call.options.responseTrailer != nil) {
		call.responseHeader, call.responseTrailer = splitHeader(r.msg.Header)
	}
	if call.options.plain {
		if err := plainError(r.msg, call.options.codec); err != nil {
			return err
		}
		return a.decode(r.data, r.msg.Size())
	}
	flags, body := wire.ResponseOf(r.data) // which the inbox has checked
	whole := r.msg.Size()
	switch {
	case flags&wire.FlagError != 0:
		return parseStatus(body, flags.Execution())
	case Codec(flags.Codec()) != call.options.codec:
		return failf(CodeInternal, DidRun, "the response is in %v, the request asked for %v", Codec(flags.Codec()), call.options.codec)
	case flags&wire.FlagCompressed != 0 && Compression(flags.Compression()) != call.options.compression:
		return failf(CodeInternal, DidRun, "the response is compressed with %v, the request asked for %v", Compression(flags.Compression()), call.options.compression)
	case flags&wire.FlagCompressed != 0:
		var err *Error
		if body, err = Compression(flags.Compression()).decompress(body, a.client.options.maxMessageSize); err != nil {
			return responseError(err)
		}
		whole = cap(body)
	}
	return a.decode(body, whole)
}

// responseError is the error of a response that does not decompress. It is the server's fault.
func responseError(err *Error) *Error {
	code := err.code
	if code == CodeInvalidArgument {
		code = CodeInternal
	}
	return failf(code, DidRun, "response: %s", err.message)
}

// decode decodes the response, which is part of so much memory.
func (a *attempt) decode(body []byte, whole int) *Error {
	if limit := a.client.options.maxMessageSize; len(body) > limit {
		return overLimit("response", len(body), limit, DidRun)
	}
	res := a.call.method.newResponse()
	if err := a.call.options.coding().unmarshal(body, res, whole); err != nil {
		return failf(CodeInternal, DidRun, "the response is not a valid %s: %v", messageName(res), err).because(err)
	}
	a.call.response = res
	return nil
}
