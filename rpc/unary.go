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
	"github.com/natscall/natscall/rpc/internal/reply"
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
	r := reply.Request{
		ID: wire.NewID(), Subject: a.subjects.request, Root: a.subjects.root, Plain: a.call.options.plain,
		Timer: !a.byCtx, Deadline: a.deadline, Left: a.left,
	}
	var failed *Error
	if r.Header, r.Buffer, failed = a.encode(r.ID); failed != nil {
		return failed
	}
	if a.isLarge(r.Header, r.Buffer) {
		r.Buffer.PutBack()
		return a.largeRequest(ctx)
	}
	if r.Plain && a.call.options.codec == CodecJSON {
		r.IsResponse = a.call.method.isResponse
	}
	got, foreign, err := a.client.inbox.Do(ctx, &r)
	switch {
	case err != nil:
		failed = a.replyError(ctx, err, r.Header)
		if err == reply.ErrContext && failed.code == CodeCanceled && !r.Plain {
			a.client.cancel(a.subjects.root, r.ID)
		}
		return a.blameForeign(failed, foreign)
	case !r.Plain && wire.IsFrame(got.Data):
		a.subjects.hasAnswered()
		return a.largeResponse(ctx, r.ID, got.Data)
	}
	a.subjects.hasAnswered()
	return a.finish(&got)
}

// replyError is the error of a call that has got no reply.
func (a *attempt) replyError(ctx context.Context, err error, h nats.Header) *Error {
	var unsent *reply.UnsentError
	var invalid *reply.InvalidError
	switch {
	case err == reply.ErrContext:
		return contextError(ctx, MayHaveRun)
	case err == reply.ErrDeadline:
		return endError(context.DeadlineExceeded, MayHaveRun)
	case err == nats.ErrNoResponders:
		return noService(a.client.nc, a.subjects.request)
	case errors.As(err, &unsent):
		return unsentError(unsent.Size, h, unsent.Err)
	case errors.As(err, &invalid):
		return wrongAnswer(invalid.Err)
	}
	return err.(*Error) // of the watch, or a refusal
}

// wrongAnswer is the error of a call whose answer cannot be read.
func wrongAnswer(err error) *Error {
	return failf(CodeInternal, MayHaveRun, "the server's answer is not valid: %v", err).because(err)
}

// isLarge reports whether a request has to travel as a stream.
func (a *attempt) isLarge(h nats.Header, buf *buffer.Buffer) bool {
	size := len(buf.B) + headerSize(h)
	return size > smallestMaxPayload && !a.call.options.plain && int64(size) > a.client.nc.MaxPayload()
}

// blameForeign adds to an error what was seen of replies that were not a
// natscall server's, or not the service's: the likely cause of a call that got no other.
func (a *attempt) blameForeign(err *Error, seen reply.Foreign) *Error {
	out := *err
	switch {
	case seen.Acks > 0:
		out.message += fmt.Sprintf("; an acknowledgement of JetStream came: a stream captures %s, or another subject that this client calls", a.subjects.request)
	case seen.Others > 0 && !a.call.options.plain:
		out.message += "; a reply came that is not natscall's: a plain NATS service needs rpc.WithPlainRequests"
	default:
		return err
	}
	return &out
}

// encode makes the header and the data of a request. The buffer is the caller's to put back.
func (a *attempt) encode(id wire.ID) (nats.Header, *buffer.Buffer, *Error) {
	plain := a.call.options.plain || a.call.method.kind == KindOneWay
	h, err := a.header(plain)
	if err != nil {
		return nil, nil, failf(CodeInvalidArgument, NotRun, "%v", err).because(err)
	}
	buf := buffer.Take()
	coding := a.call.options.coding()
	if !plain {
		buf.B = wire.AppendRequest(buf.B, id, wire.Codec(coding.codec), a.left)
	}
	envelope := len(buf.B)
	if buf.B, err = coding.appendMessage(buf.B, a.call.request); err != nil {
		buf.PutBack()
		return nil, nil, failf(CodeInvalidArgument, NotRun, "the request does not encode: %v", err).because(err)
	}
	if size, limit := len(buf.B)-envelope, a.client.options.maxMessageSize; size > limit {
		buf.PutBack()
		return nil, nil, overLimit("request", size, limit, NotRun)
	}
	if !plain {
		buf.Compress(wire.Compression(a.call.options.compression), envelope)
		buf.B[wire.FlagsOffset] |= byte(buf.Flags(wire.Compression(a.call.options.compression)))
	}
	return h, buf, nil
}

// publishOneWay publishes at once, so that the caller learns of an error.
func (a *attempt) publishOneWay() *Error {
	if failed := connectionError(a.client.nc); failed != nil {
		return failed
	}
	h, buf, failed := a.encode(wire.ID{})
	if failed != nil {
		return failed
	}
	defer buf.PutBack()
	err := publish.Send(a.client.nc, &nats.Msg{Subject: a.subjects.request, Header: h, Data: buf.B})
	return unsentError(len(buf.B), h, err)
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
func (a *attempt) finish(r *reply.Reply) *Error {
	call := a.call
	if len(r.Msg.Header) > 0 && (a.client.next != nil || call.options.responseHeader != nil || call.options.responseTrailer != nil) {
		call.responseHeader, call.responseTrailer = splitHeader(r.Msg.Header)
	}
	if call.options.plain {
		if err := plainError(r.Msg, call.options.codec); err != nil {
			return err
		}
		return a.decode(r.Data, r.Msg.Size())
	}
	flags, body := wire.ResponseOf(r.Data) // which the inbox has checked
	whole := r.Msg.Size()
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
