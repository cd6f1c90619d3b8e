package rpc

import (
	"context"
	"errors"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/stream"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// newStream makes the server's side of a stream.
func (c *serverCall) newStream(open wire.Open) *messageStream {
	server := c.endpoint.service.server
	config := stream.Config{ID: c.id, Conn: server.nc, Table: server.streams, MaxMessage: server.options.maxMessageSize}
	s := stream.NewServer(&c.ctx, config, c, open)
	return &messageStream{
		Stream: &s.Stream, server: s, call: &c.call, coding: c.coding(),
		compression: c.accepts, maxSize: server.options.maxMessageSize,
	}
}

// Last implements stream.Owner.
func (c *serverCall) Last(err error) stream.Last {
	e := asError(streamError(err))
	if int64(proto.Size(e.status())) > c.endpoint.service.server.nc.MaxPayload()/2 {
		e = e.shortened()
	}
	body, _ := appendProto(nil, e.status())
	return stream.Last{Header: e.header(nil), Body: body, Flags: c.execution(e).Flags()}
}

// StreamEnded implements stream.Owner. The end of the stream ends the context of the call.
func (c *serverCall) StreamEnded(err error) {
	switch {
	case err == nil, c.answered.Load(): // the call has ended already, or is ended by a shutdown
	case CodeOf(streamError(err)) == CodeCanceled:
		c.ctx.endWith(contextCanceled)
	default:
		c.ctx.endWith(contextLost)
	}
}

// accept tells the client where to send its frames. to is the subject for the server's frames, or
// "" if the client is yet to send it.
func (c *serverCall) accept(to string) *Error {
	err := c.stream.server.Accept(to, func(credit uint64) error {
		m := nats.Msg{Subject: c.reply, Data: c.answerBody(wire.AppendAccept(nil, c.id, credit, c.endpoint.service.identity.ID))}
		if err := publish.Send(c.endpoint.service.server.nc, &m); err != nil {
			return natsError(err, NotRun)
		}
		return nil
	})
	switch {
	case err == stream.ErrDuplicate:
		return refusal("the server is stopping, or has a stream with this id")
	case err != nil:
		return err.(*Error)
	}
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
	s.server.Finish(asNil(err), trailer)
	select {
	case <-s.Ended():
	case <-c.ctx.Done(): // nobody waits for the rest
		stopped := failf(CodeUnavailable, DidRun, "the server was stopped before the response had been sent")
		if errors.Is(c.ctx.Err(), context.DeadlineExceeded) {
			stopped = contextError(&c.ctx, DidRun)
		}
		s.server.EndNow(stopped)
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

// largeResponse announces a response that does not fit into a NATS message, and sends it as a
// stream once the client has granted credit.
func (c *serverCall) largeResponse(message *buffer.Buffer) {
	c.stream = c.newStream(wire.Open{})
	if err := c.accept(""); err != nil {
		c.endpoint.log().Error("natscall: a response was not announced", "error", err)
		return
	}
	c.endStream(message, nil)
}
