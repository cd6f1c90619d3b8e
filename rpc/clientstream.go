package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/internal/names"
	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/flow"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/reply"
	"github.com/natscall/natscall/rpc/internal/wait"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// openStream makes every call of a streaming method. req is nil if the client streams.
func (c *Client) openStream(ctx context.Context, m *method, req proto.Message, opts []CallOption) (*stream, error) {
	o, err := c.callOptions(opts)
	if err != nil {
		return nil, err
	}
	call := &Call{method: m, header: o.header, request: req, options: o}
	switch {
	case o.responseHeader != nil || o.responseTrailer != nil:
		return nil, failf(CodeInvalidArgument, NotRun, "%s streams: in place of rpc.ResponseHeader and rpc.ResponseTrailer its stream has the methods Header and Trailer", m.FullName())
	case o.plain:
		return nil, failf(CodeUnimplemented, NotRun, "%s streams; rpc.WithPlainRequests is for unary calls", m.FullName())
	case m.kind == KindServerStream && req == m.nilRequest:
		return nil, failf(CodeInvalidArgument, NotRun, "%s: the request is nil", m.FullName())
	case c.next == nil:
		err = c.send(ctx, call)
	default:
		call.header = maps.Clone(o.header)
		err = c.next(ctx, call)
	}
	switch {
	case err != nil && call.stream != nil: // an interceptor refuses the stream
		failed := call.clientError(err)
		call.stream.cancel(failed)
		err = failed
	case err != nil:
		err = call.clientError(err)
	case call.stream == nil:
		err = failf(CodeInternal, NotRun, "%s: an interceptor has not opened the stream", m.FullName())
	default:
		if call.hooks != nil && len(call.hooks.onEnd) > 0 {
			call.stream.notify(ctx, call.ended)
		}
		return call.stream, nil
	}
	call.ended(err)
	return nil, err
}

// openAttempt opens a stream and returns when a server has accepted it.
func (a *attempt) openAttempt(ctx context.Context) *Error {
	if failed := connectionError(a.client.nc); failed != nil {
		return failed
	}
	s, failed := a.newStream(ctx)
	if failed != nil {
		return failed
	}
	if failed := a.publishOpen(s); failed != nil {
		s.end(failed)
		return failed
	}
	if failed := s.awaitOpen(); failed != nil {
		if failed.remote {
			a.subjects.hasAnswered()
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return a.blameForeign(failed, s.foreign)
	}
	a.subjects.hasAnswered()
	if before := a.call.stream; before != nil { // an interceptor has called next again
		before.cancel(failf(CodeCanceled, MayHaveRun, "an interceptor opened another stream"))
	}
	a.call.stream = s
	return nil
}

// newStream makes the client's side of a stream. It ends with ctx.
func (a *attempt) newStream(ctx context.Context) (*stream, *Error) {
	s := a.attach(ctx, wire.NewID())
	if a.call.request == nil {
		return s, nil
	}
	buf := buffer.Take()
	defer buf.PutBack()
	var err error
	if buf.B, err = s.coding.appendMessage(buf.B, a.call.request); err == nil {
		err = s.sendBuffer(buf, 0)
	} else {
		err = failf(CodeInvalidArgument, NotRun, "the request does not encode: %v", err)
	}
	if err != nil {
		e := *asError(err)
		e.execution = NotRun
		s.end(&e)
		return nil, &e
	}
	s.closeSend()
	return s, nil
}

// attach makes a stream for the call and adds it to the client's table. The stream ends with ctx or
// at the deadline.
func (a *attempt) attach(ctx context.Context, id wire.ID) *stream {
	c := a.client
	s := newStream(id, a.call, c.nc, &c.streams, c.options.maxMessageSize)
	s.coding, s.compression = a.call.options.coding(), a.call.options.compression
	s.request = a.subjects.request
	a.call.streamed = true
	cancel := context.CancelFunc(func() {})
	if !a.byCtx { // otherwise ctx ends at the deadline, with a cause of its own
		s.caller = ctx
		ctx, cancel = context.WithDeadline(ctx, a.deadline)
	}
	s.mu.Lock() // ctx may have ended, and the stream with it
	s.waitUnder(ctx)
	stop := context.AfterFunc(ctx, func() { s.cancel(contextError(ctx, MayHaveRun)) })
	s.onEnd = func(*Error) {
		stop()
		cancel()
	}
	added := c.streams.add(s)
	s.mu.Unlock()
	if !added {
		s.end(failf(CodeCanceled, NotRun, "the client was closed"))
	} else if failed := c.refusal(); failed != nil { // it began before the stream was added
		s.end(failed)
	}
	return s
}

// publishOpen publishes the open, with as much of the first message as fits into it.
func (a *attempt) publishOpen(s *stream) *Error {
	header, err := a.call.header.appendTo(nil, "")
	if err != nil {
		return failf(CodeInvalidArgument, NotRun, "%v", err).because(err)
	}
	s.mu.Lock()
	if s.over { // the client was closed or ctx has ended: nothing is sent
		defer s.mu.Unlock()
		failed := *s.err
		failed.execution = NotRun
		return &failed
	}
	credit, _ := s.recv.Grant()
	room := a.client.nc.MaxPayload() - int64(headerSize(header)+wire.HeaderSize+2*wire.MaxFrameHeader)
	o := wire.Open{Credit: credit, Data: s.send.Opening(int(min(room, wire.MaxOpenData)))}
	if o.Last = s.send.Closing() && s.send.Buffered() == 0; o.Last {
		s.send.EndedInOpening()
	}
	m := nats.Msg{Subject: a.subjects.request, Reply: s.renewReplyLocked(), Header: header}
	m.Data = wire.AppendOpen(nil, s.id, wire.Codec(s.coding.codec), a.left, o)
	m.Data[wire.FlagsOffset] |= byte(wire.Compression(s.compression).Flags())
	s.mu.Unlock()
	return unsentError(len(m.Data), m.Header, publish.Send(a.client.nc, &m))
}

// awaitOpen waits until the stream is open, or over.
func (s *stream) awaitOpen() *Error {
	for {
		s.mu.Lock()
		open, over, err := s.to != "", s.over, s.err
		s.mu.Unlock()
		switch {
		case open:
			return nil
		case over && err == nil:
			return failf(CodeInternal, MayHaveRun, "the stream ended before it was accepted")
		case over:
			return err
		}
		select {
		case <-s.readable:
		case <-s.ended:
		}
	}
}

// deliver takes a message that came on a reply subject of s.
func (s *stream) deliver(m *nats.Msg) {
	s.mu.Lock()
	opening := s.to == ""
	s.mu.Unlock()
	switch {
	case reply.IsNoResponders(m) && opening:
		s.end(noService(s.nc, s.request))
	case reply.IsNoResponders(m):
		s.end(failf(CodeUnavailable, MayHaveRun, "the instance has gone").because(nats.ErrNoResponders))
	case opening, len(m.Data) > 0 && !wire.IsFrame(m.Data):
		s.accept(m) // perhaps an error, or foreign, such as JetStream's acknowledgement
	case len(m.Data) > 0:
		s.receive(m)
	case len(m.Header) == 0: // it follows the end frame, which would have removed s
		s.cancel(flowError(fmt.Errorf("%w: the end", flow.ErrLost)))
	}
}

// accept takes the first answer. It ignores a foreign one, and one to another call.
func (s *stream) accept(m *nats.Msg) {
	switch mine, err := wire.Answers(m.Data, s.id); {
	case !mine:
		s.sawForeign(m)
	case err != nil:
		s.cancel(wrongAnswer(err))
	case wire.IsFrame(m.Data):
		f, _ := wire.ParseFrame(m.Data)
		_, instance, _ := wire.ParseAccept(&f)
		s.opened(instance, f.Number)
	default:
		s.refusedBy(m.Data)
	}
}

// sawForeign counts a message that came instead of the first answer.
func (s *stream) sawForeign(m *nats.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.foreign.Count(m)
}

// refusedBy ends the stream with the error that came instead of an accept.
func (s *stream) refusedBy(envelope []byte) {
	flags, body := wire.ResponseOf(envelope)
	if flags&wire.FlagError == 0 {
		s.cancel(wrongAnswer(errors.New("a response in place of an accept")))
		return
	}
	s.end(parseStatus(body, flags.Execution()))
}

// opened makes s send its frames to an instance.
func (s *stream) opened(instance string, credit uint64) {
	s.mu.Lock()
	s.to = names.Join(s.table.rootOf(s.call.method), wire.InstanceToken, instance, s.id.String())
	s.heardAt = time.Now()
	s.send.Grant(credit)
	s.flushLocked()
	s.mu.Unlock()
	wait.Signal(s.readable)
}

// recvOnly receives the message of a stream that has exactly one.
func (s *stream) recvOnly(m proto.Message) error {
	if err := s.recvMessage(m); err != nil {
		if errors.Is(err, io.EOF) {
			return s.peerError("%s: the stream ended without a message", s.call.Method())
		}
		return err
	}
	switch b, _, err := s.recvBytes(); {
	case err == nil:
		return s.failRecv(s.peerError("%s: a second message came, of %d bytes, where there is one", s.call.Method(), len(b)))
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

// largeRequest makes a unary call as a stream, since its request does not fit into a NATS message.
func (a *attempt) largeRequest(ctx context.Context) *Error {
	if failed := a.openAttempt(ctx); failed != nil {
		return failed
	}
	return a.only(a.call.stream)
}

// largeResponse receives the response that an accept has announced.
func (a *attempt) largeResponse(ctx context.Context, id wire.ID, accept []byte) *Error {
	f, err := wire.ParseFrame(accept)
	if err != nil {
		return failf(CodeInternal, MayHaveRun, "%v", err)
	}
	_, instance, err := wire.ParseAccept(&f)
	if err != nil {
		return failf(CodeInternal, MayHaveRun, "%v", err)
	}
	s := a.attach(ctx, id)
	s.mu.Lock()
	credit, _ := s.recv.Grant()
	s.mu.Unlock()
	s.opened(instance, f.Number)
	s.publishCredit(credit)
	return a.only(s)
}

// only receives the response of a unary call from a stream.
func (a *attempt) only(s *stream) *Error {
	res := a.call.method.newResponse()
	err := s.recvOnly(res)
	s.mu.Lock()
	a.call.responseHeader, a.call.responseTrailer = s.responseHeader, s.responseTrailer
	s.mu.Unlock()
	if err != nil {
		e := asError(err)
		s.cancel(e)
		return e
	}
	a.call.response = res
	return nil
}
