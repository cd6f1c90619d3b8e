package rpc

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/stream"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// streamAnswer answers a call whose request has opened a stream, or whose response needs one.
type streamAnswer struct{ *serverCall }

// newStream makes the server's side of a stream.
func (a streamAnswer) newStream(open wire.Open) *messageStream {
	server := a.endpoint.service.server
	config := stream.Config{ID: a.id, Conn: server.nc, Table: server.streams, MaxMessage: a.endpoint.sizes().receive}
	s := stream.NewServer(&a.ctx, config, a, open)
	return &messageStream{
		Stream: &s.Stream, server: s, call: &a.call, coding: a.coding(),
		compression: a.accepts, sizes: a.endpoint.sizes(),
	}
}

// EndStatus implements stream.ServerCall.
func (a streamAnswer) EndStatus(err error) stream.EndStatus {
	e := asError(streamError(err))
	if int64(proto.Size(e.status())) > a.endpoint.service.server.nc.MaxPayload()/2 {
		e = e.shortened()
	}
	return stream.EndStatus{Header: e.header(nil), Body: a.encodeStatus(nil, coding{}, e), Flags: a.execution(e).Flags()}
}

// StreamEnded implements stream.ServerCall. The end of the stream ends the context of the call.
func (a streamAnswer) StreamEnded(err error) {
	switch {
	case err == nil, a.steps.taken(callAnswered): // the call has ended, or a shutdown ends it
	case CodeOf(streamError(err)) == CodeCanceled:
		a.ctx.endWith(contextCanceled)
	default:
		a.ctx.endWith(contextLost)
	}
}

// ContextEnded implements stream.ServerCall.
func (a streamAnswer) ContextEnded() error { return a.ctx.ended() }

// accept tells the client where to send its frames. to is the subject for the server's frames, or
// "" if the client is yet to send it.
func (a streamAnswer) accept(to string) *Error {
	err := a.stream.server.Accept(to, func(credit uint64) error {
		m := nats.Msg{Subject: a.reply, Data: a.answerBody(wire.AppendAccept(nil, a.id, credit, a.endpoint.service.identity.ID))}
		if err := publish.Send(a.endpoint.service.server.nc, &m); err != nil {
			return natsError(err, ExecutionNotRun)
		}
		return nil
	})
	switch {
	case err == stream.ErrDuplicate:
		return refusal("the server is stopping, or has a stream with this id")
	case err != nil:
		// The handler would have waited for the accept.
		return asError(streamError(err)).withExecution(ExecutionNotRun)
	}
	return nil
}

func (a streamAnswer) encode(buf *buffer.Buffer) *Error {
	if err := a.encodeBody(buf); err != nil {
		return err
	}
	buf.Compress(wire.Compression(a.accepts), 0)
	return nil
}

func (a streamAnswer) respond(buf *buffer.Buffer, _ time.Duration) (kept bool) {
	a.end(buf, 0, nil)
	return false
}

// fail sends an error in place of the accept, if the stream has not been accepted.
func (a streamAnswer) fail(err *Error) {
	if !a.stream.Accepted() {
		envelopeAnswer(a).fail(err)
		return
	}
	a.end(nil, 0, err)
}

func (a streamAnswer) refuse(err *Error) {
	if a.stream.server.Refuse(err) {
		envelopeAnswer(a).refuse(err)
		return
	}
	a.stream.server.EndAndWait(err)
}

// respondLarge announces a response that does not fit into a NATS message, and sends it as a stream
// once the client has granted credit. buf has it in an envelope.
func (a streamAnswer) respondLarge(buf *buffer.Buffer) {
	a.stream = a.newStream(wire.Open{})
	if err := a.accept(""); err != nil {
		a.endpoint.log().Error("natscall: a response was not announced", "error", err)
		return
	}
	a.end(buf, wire.HeaderSize, nil)
}

// end sends the response, if there is one, and the status. It returns when the end has been
// published, or the call's context has ended. The response starts in buf at an offset.
func (a streamAnswer) end(buf *buffer.Buffer, from int, err *Error) {
	s := a.stream
	if failed := s.fixHeader(); failed != nil && err == nil {
		err = a.verdict(failed)
	}
	if err == nil && a.call.method.hasResponse() {
		err = a.verdict(s.sendBuffer(buf, from))
	}
	trailer, failed := a.trailer()
	if failed != nil && err == nil {
		err = failed
	}
	s.server.Finish(asNil(err), trailer)
	select {
	case <-s.Ended():
	case <-a.ctx.Done(): // nobody waits for the rest
		x := ExecutionDidRun
		if err != nil { // the whole request may not have come
			x = err.execution
		}
		stopped := failf(CodeUnavailable, x, "the server was stopped before the response had been sent")
		if errors.Is(a.ctx.Err(), context.DeadlineExceeded) {
			stopped = contextError(&a.ctx, x)
		}
		s.server.EndAndWait(stopped)
	}
}

// trailer returns the NATS header of the end frame, or an error if it may not be sent.
func (a streamAnswer) trailer() (nats.Header, *Error) {
	h, err := a.call.responseTrailer.appendTo(nil, wire.TrailerPrefix)
	if err != nil {
		return nil, failf(CodeInternal, ExecutionDidRun, "response: %v", err)
	}
	if failed := a.stream.checkHeaderSize(h); failed != nil {
		return nil, failed
	}
	return h, nil
}
