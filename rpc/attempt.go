package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/internal/names"
	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/instances"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/reply"
	"github.com/natscall/natscall/rpc/internal/stream"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// attempt is one sending of a call.
type attempt struct {
	client   *Client
	call     *clientCall
	subjects *subjects
	subject  string // of the request
	deadline time.Time
	byCtx    bool
	left     time.Duration
	// reconnectBy is until when the call waits for a connection that is down. It is zero if it has
	// not been down yet.
	reconnectBy time.Time
	// strangers is until when a service that this client has never heard of is waited for; zero
	// until an attempt has met no responders.
	strangers time.Time
	// silence says that an instance has taken an attempt and then not answered. From then on an
	// attempt is sent to an instance that has just answered, if there is one.
	silence bool
	standIn string  // the instance that was chosen for this attempt, or ""
	counted int     // attempts before this one that an instance may have worked on
	hedges  int     // beside the last attempt
	hedgeOf wire.ID // the first attempt of the call, if this is a hedge
}

// instance returns the instance that the request is for, or "".
func (a *attempt) instance() string { return cmp.Or(a.call.options.instance, a.standIn) }

// requestSubject returns where the request goes.
func (a *attempt) requestSubject() string {
	if instance := a.instance(); instance != "" {
		return names.Join(a.subjects.root, wire.InstanceToken, instance, wire.CallToken, a.call.method.desc.Name)
	}
	return a.subjects.request
}

// sendTo sends the next attempt to an instance, or to any of them if it is "".
func (a *attempt) sendTo(standIn string) {
	a.standIn = standIn
	a.subject = a.requestSubject()
}

// address decides where the next attempt goes, after silence to an instance that answers: the one
// that was silent may stand still, and the queue group would choose it again.
func (a *attempt) address(ctx context.Context) {
	switch {
	case a.silence:
		a.sendTo(a.choose(ctx, instances.JustNow))
	case a.standIn != "":
		a.sendTo("")
	}
}

// choose returns an instance that serves the method, is none of those to leave out, and has
// answered an instance query at most age ago or answers one now. It returns "" if there is none.
func (a *attempt) choose(ctx context.Context, age time.Duration, leaveOut ...string) string {
	return a.pick(a.askInstances(ctx, age).Instances, leaveOut...)
}

// pick returns one of the instances that serves the method and is none of those to leave out, or
// "".
func (a *attempt) pick(found []*natscallv1.Instance, leaveOut ...string) string {
	if a.subjects.direct.refused() {
		return ""
	}
	all := servingInstances(found, a.call.method.desc.Name)
	all = slices.DeleteFunc(all, func(instance string) bool { return slices.Contains(leaveOut, instance) })
	if len(all) == 0 {
		return ""
	}
	return all[rand.IntN(len(all))]
}

// ended looks at the error of an attempt. If a stand-in could not take it, another instance may.
func (a *attempt) ended(err *Error) *Error {
	lost := err.code == CodeUnavailable && err.execution == ExecutionMayHaveRun && !err.remote
	a.silence = a.silence || lost && a.call.forAnyInstance()
	switch notRun := err.execution == ExecutionNotRun; {
	case a.standIn == "":
		return err
	case err.code == CodePermissionDenied && !err.remote:
		if a.subjects.direct.refuse() {
			err = err.withExecution(ExecutionNotRun)
		}
		a.silence = false
		a.sendTo("")
	case notRun && (err.code == CodeUnavailable || err.code == CodeUnimplemented):
	default:
		return err
	}
	return refusal("%s", err.message).because(err).withExecution(err.execution)
}

// askInstances asks the instances of the service what they are, until the deadline. Answers of age
// ago count too.
func (a *attempt) askInstances(ctx context.Context, age time.Duration) instances.Found {
	if !a.deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, a.deadline)
		defer cancel()
	}
	return a.client.known.Ask(ctx, a.subjects.root, age)
}

// timeLeft returns the timeout that the request names: without a deadline 0 or wire.NoTimeout.
func (a *attempt) timeLeft() time.Duration {
	if a.deadline.IsZero() {
		return min(a.call.options.timeout, 0)
	}
	return time.Until(a.deadline)
}

// run sends the request and waits for the end of the call.
func (a *attempt) run(ctx context.Context) *Error {
	if ctx.Err() != nil {
		return contextError(ctx, ExecutionNotRun)
	}
	if a.left = a.timeLeft(); a.left <= 0 && !a.deadline.IsZero() {
		return endError(context.DeadlineExceeded, ExecutionNotRun)
	}
	if err := a.client.subscribeOnce(ctx, a.deadline); err != nil {
		return err
	}
	if a.client.link.Down() {
		return errReconnecting()
	}
	switch a.call.method.kind {
	case KindUnary:
		return a.roundTrip(ctx)
	case KindOneWay:
		return a.publishOneWay(ctx)
	}
	return a.openStream(ctx)
}

// awaitConnection waits for a connection that was down when the call was to be sent, which takes
// time from the call's reconnectWait, and then runs the attempt. It returns offline, which says
// that the connection is down, if that does not come back in time, and at once if it never will.
func (a *attempt) awaitConnection(ctx context.Context, offline *Error) *Error {
	if a.reconnectBy.IsZero() {
		a.reconnectBy = time.Now().Add(a.call.options.reconnectWait)
	}
	by := a.reconnectBy
	if !a.deadline.IsZero() && a.deadline.Before(by) {
		by = a.deadline
	}
	waiting, cancel := context.WithDeadline(ctx, by)
	defer cancel()
	for {
		switch {
		case a.client.awaitConnection(waiting) == nil:
		case errors.Is(ctx.Err(), context.Canceled):
			return contextError(ctx, ExecutionNotRun)
		case waiting.Err() == nil: // it has been closed, or the client has
			return cmp.Or(a.client.unusable(), offline)
		default:
			return offline
		}
		err := a.run(ctx)
		if err == nil || !err.offline {
			return err
		}
		offline = err
	}
}

func (a *attempt) roundTrip(ctx context.Context) *Error {
	r, large, failed := a.newRequest()
	switch {
	case failed != nil:
		return failed
	case large:
		return a.largeRequest(ctx, r.ID, r.Header, r.Buffer)
	case a.call.isHedged():
		return hedged(ctx, a, r)
	}
	a.call.sentRequest(nil)
	return a.settle(ctx, &r, a.client.do(ctx, &r))
}

// newRequest makes the request of an attempt. large reports whether it has to be sent as a stream.
func (a *attempt) newRequest() (r reply.Request, large bool, failed *Error) {
	r = reply.Request{
		ID: wire.NewID(), Subject: a.subject, Root: a.subjects.root, Plain: a.call.options.plain,
		Timer: !a.byCtx, Deadline: a.deadline, Left: a.left,
	}
	r.Header, r.Buffer, large, failed = a.encode(r.ID)
	if r.Plain && a.call.options.codec == CodecJSON {
		r.IsResponse = a.call.method.isResponse
	}
	return r, large, failed
}

// settle turns what has ended a request into the response or error of the attempt.
func (a *attempt) settle(ctx context.Context, r *reply.Request, end ending) *Error {
	if end.err != nil {
		return a.blameForeign(a.replyError(ctx, end.err, r.Header), end.foreign)
	}
	a.subjects.hasAnswered()
	if a.standIn != "" {
		a.subjects.direct.answered.Store(true)
	}
	if !r.Plain && wire.IsFrame(end.reply.Data) {
		return a.largeResponse(ctx, r.ID, r.ID, end.reply.Data)
	}
	return a.finish(&end.reply)
}

// replyError is the error of a call that has got no reply.
func (a *attempt) replyError(ctx context.Context, err error, h nats.Header) *Error {
	var unsent *reply.UnsentError
	var invalid *reply.InvalidError
	x, err := endOf(err)
	switch {
	case err == reply.ErrContext:
		return contextError(ctx, x)
	case err == reply.ErrDeadline:
		return endError(context.DeadlineExceeded, x)
	case err == nats.ErrNoResponders:
		if instance := a.instance(); instance != "" {
			return noInstance(instance, a.call.method.service.Name)
		}
		return noService(a.client.nc, a.subject)
	case errors.As(err, &unsent):
		return unsentError(unsent.Size, h, unsent.Err)
	case errors.As(err, &invalid):
		return wrongAnswer(invalid.Err)
	case x == ExecutionNotRun:
		return unopened(err)
	}
	return asError(streamError(err)) // or of the watch, or a refusal
}

// explainAbsence asks the instances of a service about a request that has met no responders. lack
// is the error if none of them has the method, and all of them serve. Otherwise the request may be
// sent again until the time until or, if no instance is there and none has ever answered this
// client, for a short while.
func (a *attempt) explainAbsence(ctx context.Context, until time.Time) (lack *Error, giveUp time.Time) {
	if a.strangers.IsZero() {
		a.strangers = time.Now().Add(strangerTime)
	}
	root, m := a.subjects.root, a.call.method
	found := a.askInstances(ctx, instances.JustNow)
	switch {
	case len(found.Instances) > 0 && lacks(found.Instances, m.desc.Name):
		return noMethod("the service "+m.service.Name, m.desc.Name, methodsOf(found.Instances)), until
	case found.Nobody && a.strangers.Before(until) && !a.silence && !a.client.heardOf(root):
		return nil, a.strangers
	}
	return nil, until
}

// isLarge reports whether a request has to travel as a stream.
func (a *attempt) isLarge(h nats.Header, buf *buffer.Buffer) bool {
	size := len(buf.B) + headerSize(h)
	return size > smallestMaxPayload && !a.call.options.plain && a.call.method.kind != KindOneWay && int64(size) > a.client.link.MaxPayload()
}

// blameForeign adds to an error what was seen of replies that were not a
// natscall server's, or not the service's: the likely cause of a call that got no other.
func (a *attempt) blameForeign(err *Error, seen reply.Foreign) *Error {
	out := *err
	switch {
	case seen.Acks > 0:
		out.message += fmt.Sprintf("; an acknowledgement of JetStream came: a stream captures %s, or another subject that this client calls", a.subject)
	case seen.Others > 0 && !a.call.options.plain:
		out.message += "; a reply came that is not natscall's: a plain NATS service needs rpc.WithPlainRequests"
	default:
		return err
	}
	return &out
}

// encode makes the header and the data of a request. large reports whether it has to be sent as a
// stream, since it does not fit into a NATS message: then the buffer has the request without an
// envelope. The buffer is the caller's to put back.
func (a *attempt) encode(id wire.ID) (h nats.Header, buf *buffer.Buffer, large bool, failed *Error) {
	plain := a.call.options.plain || a.call.method.kind == KindOneWay
	h, err := a.header(plain)
	if err != nil {
		return nil, nil, false, failf(CodeInvalidArgument, ExecutionNotRun, "%v", err).because(err)
	}
	buf = buffer.Take()
	coding := a.call.options.coding()
	if !plain {
		buf.B = wire.AppendRequest(buf.B, id, wire.Codec(coding.codec), a.left)
	}
	envelope := len(buf.B)
	data, failed := a.appendRequest(buf, coding)
	if failed != nil {
		buf.PutBack()
		return nil, nil, false, failed
	}
	if !plain {
		if a.call.hooks != nil && a.call.options.compression != CompressionNone {
			data = slices.Clone(data)
		}
		buf.Compress(wire.Compression(a.call.options.compression), envelope)
		buf.B[wire.FlagsOffset] |= byte(buf.Flags(wire.Compression(a.call.options.compression)))
		if a.call.asksInstance() {
			buf.B[wire.FlagsOffset] |= byte(wire.FlagNameInstance)
		}
	}
	if a.call.hooks != nil {
		a.call.encodedRequest(len(data), len(buf.B)-envelope)
		if h, failed = a.attempting(id, data, h); failed != nil {
			buf.PutBack()
			return nil, nil, false, failed
		}
	}
	if large = a.isLarge(h, buf); large {
		buf, failed = a.unwrap(buf, data)
	}
	return h, buf, large, failed
}

// unwrap returns a buffer with the encoded request alone, and puts back buf. What the functions of
// OnAttempt have seen is kept, since another encoding may differ, as in the order of a map's
// entries.
func (a *attempt) unwrap(buf *buffer.Buffer, data []byte) (*buffer.Buffer, *Error) {
	defer buf.PutBack()
	out := buffer.Take()
	if a.call.hooks != nil {
		out.B = append(out.B, data...)
		return out, nil
	}
	// data may have been compressed.
	if _, failed := a.appendRequest(out, a.call.options.coding()); failed != nil {
		out.PutBack()
		return nil, failed
	}
	return out, nil
}

// appendRequest appends the encoded request to the buffer, and returns it.
func (a *attempt) appendRequest(buf *buffer.Buffer, coding coding) ([]byte, *Error) {
	from := len(buf.B)
	var err error
	if buf.B, err = coding.append(buf.B, a.call.request); err != nil {
		return nil, failf(CodeInvalidArgument, ExecutionNotRun, "the request does not encode: %v", err).because(err)
	}
	size, limit := len(buf.B)-from, a.call.options.sizes.send
	a.call.encodedRequest(size, 0)
	if size > limit {
		return nil, overSendLimit("request", size, limit, ExecutionNotRun)
	}
	return buf.B[from:], nil
}

// attempting runs the functions of OnAttempt. It returns the header with what they have added.
func (a *attempt) attempting(id wire.ID, data []byte, h nats.Header) (nats.Header, *Error) {
	if a.call.options.plain || a.call.method.kind == KindOneWay {
		id = wire.ID{}
	}
	return a.call.hooks.attempting(Attempt{
		id: id, subject: a.subject, instance: a.instance(), data: data, header: h, hedge: a.hedgeOf != (wire.ID{}),
	})
}

// publishOneWay returns when the message has been published, so that the caller learns of an error.
func (a *attempt) publishOneWay(ctx context.Context) *Error {
	h, buf, _, failed := a.encode(wire.ID{})
	if failed != nil {
		return failed
	}
	if failed = a.publish(ctx, publish.Message{Subject: a.subject, Header: h, Buffer: buf}); failed == nil {
		a.call.sentRequest(nil)
	}
	return failed
}

// publish publishes a message, of which no answer says that it has come.
func (a *attempt) publish(ctx context.Context, m publish.Message) *Error {
	size := len(m.Buffer.B)
	x, err := endOf(a.client.out.PostAndWait(ctx, a.deadline, m))
	switch {
	case err != nil && err == ctx.Err():
		return contextError(ctx, x)
	case err == context.DeadlineExceeded:
		return endError(err, x)
	}
	return unsentError(size, m.Header, err)
}

// header returns the NATS header of the request, nil if it needs none.
func (a *attempt) header(plain bool) (nats.Header, error) {
	h, err := a.call.header.appendTo(nil, "")
	if err != nil || !plain {
		return a.hedgeHeader(h), err
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
		if a.call.asksInstance() {
			h[wire.NameInstanceHeader] = []string{"1"}
		}
	}
	return h, nil
}

// hedgeHeader adds to the header of a hedge which call it belongs to.
func (a *attempt) hedgeHeader(h nats.Header) nats.Header {
	if a.hedgeOf == (wire.ID{}) {
		return h
	}
	if h == nil {
		h = nats.Header{}
	}
	h[wire.HedgeHeader] = []string{a.hedgeOf.String()}
	return h
}

// finish turns a reply into the response or error of the call.
func (a *attempt) finish(r *reply.Reply) *Error {
	call := a.call
	if h, o := r.Msg.Header, call.options; len(h) > 0 {
		call.instance = h.Get(wire.InstanceHeader)
		if a.client.interceptorsOf(o) != nil || o.results.header != nil || o.results.trailer != nil {
			call.responseHeader, call.responseTrailer = wire.SplitHeader(h)
		}
	}
	in := encoded{coding: call.options.coding(), data: r.Data, whole: r.Msg.Size(), wireSize: len(r.Data)}
	if call.options.plain {
		if err := plainError(r.Msg, call.options.codec); err != nil {
			return err.from(call.instance)
		}
		return a.decode(in)
	}
	var flags wire.Flags
	flags, in.data = wire.ResponseOf(r.Data) // which the inbox has checked
	in.wireSize = len(in.data)
	switch {
	case flags&wire.FlagError != 0:
		return parseStatus(in.data, flags.Execution()).from(call.instance)
	case Codec(flags.Codec()) != call.options.codec:
		return failf(CodeInternal, ExecutionDidRun, "the response is in %v, the request asked for %v", Codec(flags.Codec()), call.options.codec)
	case flags&wire.FlagCompressed != 0 && Compression(flags.Compression()) != call.options.compression:
		return failf(CodeInternal, ExecutionDidRun, "the response is compressed with %v, the request asked for %v", Compression(flags.Compression()), call.options.compression)
	case flags&wire.FlagCompressed != 0:
		var err *Error
		if in.data, err = Compression(flags.Compression()).decompress(in.data, call.options.sizes.receive); err != nil {
			return responseError(err)
		}
		in.whole = cap(in.data)
	}
	return a.decode(in)
}

// decode decodes the response.
func (a *attempt) decode(in encoded) *Error {
	if limit := a.call.options.sizes.receive; len(in.data) > limit {
		return overReceiveLimit("response", len(in.data), limit, ExecutionDidRun)
	}
	res := a.call.newResponse()
	if a.call.hooks != nil {
		if decoded, err := a.call.hooks.receive(in, res); err != nil {
			return hookError(err, ExecutionDidRun)
		} else if decoded {
			a.call.response = res
			return nil
		}
	}
	if err := in.coding.decode(in.data, res, in.whole); err != nil {
		return failf(CodeInternal, ExecutionDidRun, "the response is not a valid %s: %v", typeName(res), err).because(err)
	}
	a.call.response = res
	return nil
}

// openStream opens a stream and returns when a server has accepted it.
func (a *attempt) openStream(ctx context.Context) *Error {
	header, err := a.header(false)
	if err != nil {
		return failf(CodeInvalidArgument, ExecutionNotRun, "%v", err).because(err)
	}
	id, buf := wire.NewID(), buffer.Take()
	header, failed := a.encodeOpening(id, buf, header)
	if failed != nil {
		buf.PutBack()
		return failed
	}
	return a.open(ctx, id, header, buf)
}

// open opens a stream with the request in buf, if there is only one. It puts back buf.
func (a *attempt) open(ctx context.Context, id wire.ID, header nats.Header, buf *buffer.Buffer) *Error {
	s := a.newStream(ctx, id, id) // after the functions of OnAttempt, which may panic
	failed := a.queueRequest(s, buf)
	buf.PutBack()
	if failed != nil {
		s.client.Break(failed)
		return failed
	}
	err := s.client.Open(stream.Open{
		Header: header, HeaderSize: headerSize(header), Timeout: a.left,
		Codec: wire.Codec(s.coding.codec), Compression: wire.Compression(s.compression),
	})
	if err != nil {
		failed := a.replyError(ctx, err, header)
		if failed.remote {
			a.subjects.hasAnswered()
		}
		return a.blameForeign(failed, s.client.Foreign())
	}
	a.subjects.hasAnswered()
	if before := a.call.stream; before != nil { // an interceptor has called next again
		before.client.End(failf(CodeCanceled, ExecutionMayHaveRun, "an interceptor opened another stream"))
	}
	a.call.stream = s
	return nil
}

// newStream makes the client's side of a stream, with an id of its own for the table. It ends with
// ctx or at the deadline.
func (a *attempt) newStream(ctx context.Context, id, callID wire.ID) *messageStream {
	c, root := a.client, a.subjects.root // a must not escape
	config := stream.ClientConfig{
		Config:   stream.Config{ID: id, Conn: c.link, Table: c.streams, MaxMessage: a.call.options.sizes.receive},
		Statuses: statuses{a.deadline},
		CallID:   callID, Subject: a.subject, Root: root, ReplyPrefix: c.watch.prefix,
		Out:       c.out,
		Queued:    a.call.method.kind == KindUnary,
		Refuse:    func() error { return asNil(c.refusal()) },
		Abandoned: func() { c.watch.left.Add(root, callID) },
	}
	if !a.byCtx { // otherwise ctx ends at the deadline, with a cause of its own
		config.Deadline = a.deadline
	}
	a.call.streamed = true
	s := stream.NewClient(ctx, config)
	return &messageStream{
		Stream: &s.Stream, client: s, call: &a.call.Call, coding: a.call.options.coding(),
		compression: a.call.options.compression, sizes: a.call.options.sizes,
	}
}

// encodeOpening encodes the request into buf, if there is only one, and runs the functions of
// OnAttempt. It returns the header of the open.
func (a *attempt) encodeOpening(id wire.ID, buf *buffer.Buffer, h nats.Header) (nats.Header, *Error) {
	if a.call.request == nil {
		return a.attempting(id, nil, h)
	}
	data, failed := a.appendRequest(buf, a.call.options.coding())
	if failed != nil {
		return nil, failed
	}
	return a.attempting(id, data, h)
}

// queueRequest queues the only request, if there is one, for the open to take along.
func (a *attempt) queueRequest(s *messageStream, buf *buffer.Buffer) *Error {
	if a.call.request == nil {
		return nil
	}
	size := len(buf.B)
	err := s.pack(buf, 0)
	if err == nil {
		err = s.Send(buf, 0)
	}
	if err != nil {
		return unopened(err)
	}
	a.call.encodedRequest(size, len(buf.B))
	a.call.sentRequest(nil)
	s.CloseSend()
	return nil
}

// endOf returns what has ended a call, and whether its request may have been published before.
func endOf(err error) (x Execution, end error) {
	if early, ok := err.(*publish.UnpublishedError); ok {
		return ExecutionNotRun, early.Err
	}
	return ExecutionMayHaveRun, err
}

// unopened returns the error of a call or stream that has ended before its request was published.
func unopened(err error) *Error {
	var ended *stream.ContextError
	if errors.As(err, &ended) {
		return contextError(ended.Ctx, ExecutionNotRun)
	}
	failed := asError(streamError(err)).withExecution(ExecutionNotRun)
	failed.refused = failed.code == CodeUnavailable // another attempt may be published
	return failed
}

// largeRequest makes a unary call as a stream, since its request, which is in buf, does not fit
// into a NATS message. The functions of OnAttempt have run.
func (a *attempt) largeRequest(ctx context.Context, id wire.ID, h nats.Header, buf *buffer.Buffer) *Error {
	if failed := a.open(ctx, id, h, buf); failed != nil {
		return failed
	}
	return a.recvResponse(a.call.stream)
}

// largeResponse receives the response that an accept has announced, in a stream with an id of its
// own.
func (a *attempt) largeResponse(ctx context.Context, id, callID wire.ID, accept []byte) *Error {
	f, err := wire.ParseFrame(accept)
	if err != nil {
		return failf(CodeInternal, ExecutionMayHaveRun, "%v", err)
	}
	_, instance, err := wire.ParseAccept(&f)
	if err != nil {
		return failf(CodeInternal, ExecutionMayHaveRun, "%v", err)
	}
	s := a.newStream(ctx, id, callID)
	s.client.Fetch(instance, f.Number)
	failed := a.recvResponse(s)
	if failed != nil && failed.execution == ExecutionNotRun { // the client was closed: it has run
		return failed.withExecution(ExecutionDidRun)
	}
	return failed
}

// recvResponse receives the response of a unary call from a stream.
func (a *attempt) recvResponse(s *messageStream) *Error {
	received := false
	defer func() {
		if !received { // a function of OnReceive has panicked
			s.client.End(failf(CodeCanceled, ExecutionDidRun, "the caller has panicked"))
		}
	}()
	res := a.call.newResponse()
	err := s.RecvOnlyMessage(res)
	received = true
	a.call.responseHeader, a.call.responseTrailer = s.headers()
	a.call.instance = s.client.Instance()
	if err != nil {
		failed := asError(err)
		s.client.End(failed)
		return failed
	}
	a.call.response = res
	return nil
}
