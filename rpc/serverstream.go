package rpc

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// newStream makes a stream whose end ends the context of the call.
func (c *serverCall) newStream() *stream {
	server := c.endpoint.service.server
	s := newStream(c.id, &c.call, server.nc, &server.streams, server.options.maxMessageSize)
	s.coding, s.compression = c.coding(), c.accepts
	s.waitUnder(&c.ctx)
	s.onEnd = func(err *Error) {
		switch {
		case err == nil, c.answered.Load(): // the call has ended already, or is ended by a shutdown
		case err.code == CodeCanceled:
			c.ctx.endWith(contextCanceled)
		default:
			c.ctx.endWith(contextLost)
		}
	}
	return s
}

// accept tells the client where to send its frames. to is the subject for the server's frames, or
// "" if the client is yet to send it.
func (c *serverCall) accept(to string) *Error {
	s := c.stream
	s.mu.Lock()
	s.heardAt = time.Now() // while the call was queued, the client could not send anything
	credit, _ := s.recv.Grant()
	added := s.table.add(s)
	s.mu.Unlock()
	if !added {
		failed := refusal("the server is stopping, or has a stream with this id")
		s.end(failed)
		return failed
	}
	m := nats.Msg{Subject: c.reply, Data: c.answerBody(wire.AppendAccept(nil, c.id, credit, c.endpoint.service.identity.ID))}
	if err := publish.Send(s.nc, &m); err != nil {
		failed := natsError(err, NotRun)
		s.end(failed)
		return failed
	}
	s.mu.Lock() // only now, so that nothing overtakes the accept
	if s.to == "" {
		s.to = to
	}
	s.flushLocked()
	s.mu.Unlock()
	return nil
}

// sender returns what a server-streaming handler sends to. ctx is the handler's context.
func (c *serverCall) sender(ctx context.Context) messageSender {
	if c.stream != nil {
		return c.stream
	}
	return &plainStream{call: c, ctx: ctx, remote: c.isRemote(), probed: c.ctx.clock().now()}
}

// endStream sends the message of an answer, if it has one, and the status. It returns when the end
// has been published, or the call's context has ended.
func (c *serverCall) endStream(message *buffer.Buffer, err *Error) {
	s := c.stream
	if failed := s.begin(); failed != nil && err == nil {
		err = c.verdict(failed)
	}
	if message != nil && err == nil {
		err = c.verdict(s.sendBuffer(message, 0))
	}
	trailer, failed := c.trailer()
	if failed != nil && err == nil {
		err = failed
	}
	s.mu.Lock()
	s.trailer = trailer
	s.finishLocked(err, false)
	s.mu.Unlock()
	select {
	case <-s.ended:
	case <-c.ctx.Done(): // nobody waits for the rest
		stopped := failf(CodeUnavailable, DidRun, "the server was stopped before the response had been sent")
		if errors.Is(c.ctx.Err(), context.DeadlineExceeded) {
			stopped = contextError(&c.ctx, DidRun)
		}
		s.endNow(stopped)
	}
}

// trailer returns the NATS header of the end frame, or an error if it may not be sent.
func (c *serverCall) trailer() (nats.Header, *Error) {
	h, err := c.call.responseTrailer.appendTo(nil, wire.TrailerPrefix)
	if err != nil {
		return nil, failf(CodeInternal, DidRun, "response: %v", err)
	}
	if failed := c.stream.checkMetadata(h); failed != nil {
		return nil, failed
	}
	return h, nil
}

// checkMetadata bounds the response header, and also the trailer, to an eighth of max_payload each:
// so both fit into an end frame together with a status of half of max_payload.
func (s *stream) checkMetadata(h nats.Header) *Error {
	if size, limit := headerSize(h), int(s.nc.MaxPayload()/8); size > limit {
		return failf(CodeResourceExhausted, DidRun, "response: %d bytes of metadata, the limit is %d, an eighth of the NATS server's max_payload", size, limit)
	}
	return nil
}

// endNow sends the status, drops what is still queued, and waits until the stream has ended.
func (s *stream) endNow(err *Error) {
	s.finishNow(err)
	<-s.ended // the flusher needs no credit for an end frame
}

// begin fixes the response header; it runs on the handler's goroutine. If the header cannot be
// sent, it returns an error, which the first Send returns.
func (s *stream) begin() error {
	if !s.call.onServer || s.begun.Load() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun.Load() {
		return nil
	}
	defer s.begun.Store(true) // with the header
	h, err := s.call.responseHeader.appendTo(nil, "")
	if err != nil {
		return failf(CodeInternal, DidRun, "response: %v", err).because(err)
	}
	if failed := s.checkMetadata(h); failed != nil {
		return failed
	}
	s.header = h
	return nil
}

// endSent ends a server's stream, whose end frame has been published.
func (s *stream) endSent() {
	s.mu.Lock()
	to, final := s.to, s.final
	s.mu.Unlock()
	_ = s.nc.Publish(to, nil) // tells accounts to free what they keep for the reply subject
	s.end(final)
}

// largeResponse announces a response that does not fit into a NATS message, and sends it as a
// stream once the client has granted credit.
func (c *serverCall) largeResponse(message *buffer.Buffer) {
	c.stream = c.newStream()
	if err := c.accept(""); err != nil {
		c.endpoint.log().Error("natscall: a response was not announced", "error", err)
		return
	}
	c.endStream(message, nil)
}
