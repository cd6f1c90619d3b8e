package rpc

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

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
		err = err.after(last)
		if !call.mayRetry(err) {
			return err
		}
		last = err
		if end := pause(ctx, until, backoff/2+rand.N(backoff/2)); errors.Is(end, context.DeadlineExceeded) {
			return last
		} else if end != nil {
			return contextError(end, last.execution)
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
// is down is not waited for.
func (c *Call) mayRetry(err *Error) bool {
	if c.options.once || err.code != CodeUnavailable {
		return false
	}
	switch err.execution {
	case NotRun:
		return err.remote || errors.Is(err, nats.ErrNoResponders)
	case MayHaveRun:
		return c.method.Idempotency != IdempotencyUnknown
	}
	return false
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
	subjects subjects
	deadline time.Time
	byCtx    bool
	left     time.Duration
}

// run sends the request and waits for the end of the call.
func (a *attempt) run(ctx context.Context) *Error {
	if err := ctx.Err(); err != nil {
		return contextError(err, NotRun)
	}
	if a.deadline.IsZero() {
		a.left = 0
	} else if a.left = time.Until(a.deadline); a.left <= 0 {
		return contextError(context.DeadlineExceeded, NotRun)
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
	out := &a.client.out
	id := wire.NewID()
	o := outgoing{subject: a.subjects.request}
	if failed := a.encode(&o, id); failed != nil { // a message may panic: no waiter is in use yet
		return failed
	}
	if a.isLarge(&o) {
		o.buf.putBack()
		return a.largeRequest(ctx)
	}
	w := a.client.inbox.take(id)
	o.owner, o.reply = w, w.start(id, a.subjects.request, a.subjects.root, a.call.options.plain)
	if failed := a.client.refusal(); failed != nil { // a Close that has not met the waiter
		o.buf.putBack()
		out.unpublished()
		w.stop()
		w.release()
		return failed
	}
	if out.maxBatch > 0 && !a.call.options.plain {
		o.batch, o.tag = batchMay, uint64(w.slot)
	}
	out.publish(o)
	r, err := a.wait(ctx, w)
	strangers := w.strangers // nobody changes it any more
	w.release()
	switch {
	case err != nil:
		if errors.Is(err, context.Canceled) && !a.call.options.plain {
			a.client.cancel(a.subjects.root, id)
		}
		return a.blameStrangers(contextError(err, MayHaveRun), strangers)
	case r.err != nil:
		return a.blameStrangers(r.err, strangers)
	}
	if !a.call.options.plain && wire.IsFrame(r.data) {
		return a.largeResponse(ctx, id, r.data)
	}
	return a.finish(&r)
}

// isLarge tells whether a request has to travel as a stream.
func (a *attempt) isLarge(o *outgoing) bool {
	size := len(o.buf.b) + headerSize(o.header)
	return size > smallestMaxPayload && !a.call.options.plain && int64(size) > a.client.nc.MaxPayload()
}

// wait returns the reply, or the error of ctx, or context.DeadlineExceeded.
func (a *attempt) wait(ctx context.Context, w *waiter) (reply, error) {
	var deadline <-chan time.Time
	if !a.byCtx {
		deadline = w.alarm(a.left)
		defer w.timer.Stop()
	}
	var err error
	select {
	case <-w.ended:
		return w.taken(), nil
	case <-ctx.Done():
		err = ctx.Err()
	case <-deadline:
		err = context.DeadlineExceeded
	}
	if r, ok := w.stop(); ok {
		return r, nil
	}
	return reply{}, err
}

// alarm starts the waiter's timer, which is made once and used again.
func (w *waiter) alarm(d time.Duration) <-chan time.Time {
	if w.timer == nil {
		w.timer = time.NewTimer(d)
	} else {
		w.timer.Reset(d)
	}
	return w.timer.C
}

// blameStrangers adds to an error that replies came which were not a
// natscall server's: the likely cause of a call that got no other.
func (a *attempt) blameStrangers(err *Error, strangers int) *Error {
	if strangers == 0 {
		return err
	}
	out := *err
	out.message += "; a reply came that is not natscall's: a plain NATS service needs rpc.WithPlainRequests, and a JetStream stream may be listening on " + a.subjects.request
	return &out
}

// encode makes the header and the data of a request. The buffer is the caller's to put back.
func (a *attempt) encode(o *outgoing, id wire.ID) *Error {
	plain := a.call.options.plain || a.call.method.kind == KindOneWay
	var err error
	if o.header, err = a.header(plain); err != nil {
		return failf(CodeInvalidArgument, NotRun, "%v", err).because(err)
	}
	buf := takeBuffer()
	codec := a.call.options.codec
	if !plain {
		buf.b = wire.AppendRequest(buf.b, id, wire.Codec(codec), a.left)
	}
	envelope := len(buf.b)
	if buf.b, err = codec.appendMessage(buf.b, a.call.request); err != nil {
		buf.putBack()
		return failf(CodeInvalidArgument, NotRun, "the request does not encode: %v", err).because(err)
	}
	if size, limit := len(buf.b)-envelope, a.client.options.maxMessageSize; size > limit {
		buf.putBack()
		return failf(CodeResourceExhausted, NotRun, "the request has %d bytes, the limit is %d", size, limit)
	}
	if !plain {
		buf.pack(a.call.options.compression, envelope)
		buf.b[wire.FlagsOffset] |= buf.flags(a.call.options.compression)
	}
	o.buf = buf
	return nil
}

// publishOneWay publishes at once, so that the caller learns of an error.
func (a *attempt) publishOneWay() *Error {
	if failed := connectionError(a.client.nc); failed != nil {
		return failed
	}
	o := outgoing{subject: a.subjects.request}
	if failed := a.encode(&o, wire.ID{}); failed != nil {
		return failed
	}
	defer o.buf.putBack()
	err := publishMsg(a.client.nc, &nats.Msg{Subject: o.subject, Header: o.header, Data: o.buf.b})
	return unsentError(len(o.buf.b), o.header, err)
}

// sent ends the call whose request could not be published, unless it has ended.
func (w *waiter) sent(o *outgoing, err error) {
	if err == nil {
		return
	}
	failed := unsentError(len(o.buf.b), o.header, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting && w.subject == o.reply { // a call that ended without a reply has left its reply subject
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
	e := natsError(err, NotRun)
	if errors.Is(err, nats.ErrMaxPayload) {
		e.message = fmt.Sprintf("the request has %d bytes and %d of headers, more than the NATS server's max_payload", size, headerSize(header))
	}
	return e
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
	_ = c.nc.Publish(wire.Join(root, wire.CancelToken), wire.AppendCancel(nil, id))
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
		return a.decode(r.data, r.msg.Size(), call.options.codec)
	}
	flags, body := wire.ResponseOf(r.data) // which the inbox has checked
	whole := r.msg.Size()
	switch {
	case flags&wire.FlagError != 0:
		return parseStatus(body, flags&wire.FlagNotRun != 0)
	case flags&wire.FlagCompressed != 0:
		var err *Error
		if body, err = Compression(flags.Compression()).unpack(body, a.client.options.maxMessageSize); err != nil {
			return failf(err.code, DidRun, "response: %s", err.message)
		}
		whole = cap(body)
	}
	return a.decode(body, whole, Codec(flags.Codec()))
}

// decode decodes the response, which is part of so much memory.
func (a *attempt) decode(body []byte, whole int, codec Codec) *Error {
	if limit := a.client.options.maxMessageSize; len(body) > limit {
		return failf(CodeResourceExhausted, DidRun, "the response has %d bytes, the limit is %d", len(body), limit)
	}
	res := a.call.method.newResponse()
	if err := codec.unmarshal(body, res, whole); err != nil {
		return failf(CodeInternal, DidRun, "the response is not a valid %s: %v", messageName(res), err).because(err)
	}
	a.call.response = res
	return nil
}
