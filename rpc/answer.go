package rpc

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/reply"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// answer counts the call and sends its response, or its error. Only the first
// answer of a call counts.
func (c *serverCall) answer(err *Error, took time.Duration) {
	if !c.answered.CompareAndSwap(false, true) {
		return
	}
	buf := buffer.Take()
	message, large := (*buffer.Buffer)(nil), false
	if err == nil && c.call.method.hasResponse() {
		message = buf
		large, err = c.encode(buf)
	}
	c.endpoint.stats.count(err, took)
	c.counted.Store(true)
	switch {
	case c.stream != nil && err != nil && !c.stream.Accepted() && c.reply != "":
		c.sendError(buf, err, c.metadata())
	case c.stream != nil && err != nil:
		c.endStream(nil, err)
	case c.stream != nil:
		c.endStream(message, nil)
	case err != nil && !c.isAsked():
		c.logUntold(err)
	case c.reply == "":
	case err != nil:
		c.sendError(buf, err, c.metadata())
	case message == nil:
		c.endPlainStream()
	case large:
		c.largeResponse(buf)
	default:
		c.send(buf, took)
		return // the buffer is the publisher's
	}
	buf.PutBack()
}

// refuse answers a call with an error, from outside the goroutine that runs it or would have.
func (c *serverCall) refuse(err *Error) {
	if !c.answered.CompareAndSwap(false, true) {
		return
	}
	c.endpoint.stats.countRefused(err)
	c.counted.Store(true)
	if c.stream != nil && c.stream.Accepted() {
		c.stream.server.EndNow(err)
		return
	}
	if !c.isAsked() {
		c.logUntold(err)
		return
	}
	buf := buffer.Take()
	defer buf.PutBack()
	c.sendError(buf, err, nil)
}

// logUntold logs an error that cannot be sent to any caller.
func (c *serverCall) logUntold(err *Error) {
	if unlogged, ok := c.endpoint.untold.Next(); ok {
		c.endpoint.log().Error("natscall: a message that nobody waits for an answer to has failed", "error", err, "unlogged", unlogged)
	}
}

// encode encodes the response into buf: as an envelope, as a plain message, or, for a stream and
// for a large response, as the bare message. large reports that the response needs a stream.
func (c *serverCall) encode(buf *buffer.Buffer) (large bool, failed *Error) {
	envelope := 0
	defer func() {
		if r := recover(); r != nil { // the handler is still changing the message
			failed = failf(CodeInternal, DidRun, "the response does not encode")
			c.endpoint.log().Error("natscall: a response does not encode", "panic", fmt.Sprint(r))
		}
	}()
	if !c.plain && c.stream == nil {
		buf.B = wire.AppendResponse(buf.B, c.id, wire.Codec(c.codec), 0)
		envelope = len(buf.B)
	}
	if c.call.method.kind == KindOneWay {
		return false, nil // an empty answer acknowledges a message of JetStream
	}
	var err error
	if buf.B, err = c.coding().appendMessage(buf.B, c.call.response); err != nil {
		return false, failf(CodeInternal, DidRun, "the response does not encode: %v", err)
	}
	s := c.endpoint.service.server
	if size, limit := len(buf.B)-envelope, s.options.maxMessageSize; size > limit {
		return false, overLimit("response", size, limit, DidRun)
	}
	if envelope > 0 {
		buf.Compress(wire.Compression(c.accepts), envelope)
		buf.B[wire.FlagsOffset] |= byte(buf.Flags(wire.Compression(c.accepts)))
	}
	size := len(buf.B) + headerSize(c.call.responseHeader) + headerSize(c.call.responseTrailer)
	if c.batched {
		size += wire.BatchOverhead
	}
	if size <= smallestMaxPayload || c.reply == "" || c.stream != nil {
		return false, nil
	}
	switch limit := s.nc.MaxPayload(); {
	case int64(size) <= limit:
		return false, nil
	case c.plain:
		return false, failf(CodeResourceExhausted, DidRun, "the response has %d bytes, the NATS server's max_payload is %d, and only natscall clients take more", size, limit)
	}
	buf.B = append(buf.B[:0], buf.B[envelope:]...)
	return true, nil
}

// smallestMaxPayload is less than any max_payload in use. A message of at most this size is not
// compared with the connection's limit, since reading that takes a lock. If a server's limit is
// lower after all, the publish fails, and the caller gets that error.
const smallestMaxPayload = 4096

// send hands the response to the publisher, which publishes it together with those of other calls.
// This goroutine flushes them if they are many or late, otherwise one of the pool does.
func (c *serverCall) send(buf *buffer.Buffer, took time.Duration) {
	h, err := c.header()
	if err != nil {
		c.sendError(buf, failf(CodeInternal, DidRun, "response: %v", err), nil)
		buf.PutBack()
		return
	}
	if c.plain && reply.LooksLikePubAck(buf.B) { // the header says that it is a response
		if h == nil {
			h = nats.Header{}
		}
		h[plainMessageHeader] = []string{"1"}
	}
	m := publish.Message{Subject: c.reply, Header: h, Buffer: buf, Owner: c}
	if c.batched {
		m.Batch, m.Tag = publish.BatchMust, c.tag
	}
	if out := c.endpoint.service.server.out; out.Add(m, took) {
		out.Flush()
	}
}

// Sent implements publish.Owner. If the response was not published, it tries to send an error.
func (c *serverCall) Sent(m *publish.Message, err error) {
	if err == nil {
		return
	}
	failed := natsError(err, DidRun)
	if errors.Is(err, nats.ErrMaxPayload) {
		failed = overMaxPayload("response", len(m.Buffer.B), m.Header, DidRun)
	}
	buf := buffer.Take()
	defer buf.PutBack()
	c.sendError(buf, failed, nil)
}

// header returns the NATS header of the answer, or nil if the handler set no metadata.
func (c *serverCall) header() (nats.Header, error) {
	h, err := c.call.responseHeader.appendTo(nil, "")
	if err != nil {
		return nil, err
	}
	return c.call.responseTrailer.appendTo(h, wire.TrailerPrefix)
}

// metadata is header for an error. If the metadata is not valid, the error is sent without it.
func (c *serverCall) metadata() nats.Header {
	h, err := c.header()
	if err != nil {
		c.endpoint.log().Error("natscall: metadata of an error was left out", "error", err)
		return nil
	}
	return h
}

// sendError publishes an error, and shortens it if it does not fit into a NATS message.
func (c *serverCall) sendError(buf *buffer.Buffer, err *Error, metadata nats.Header) {
	failed := c.publishError(buf, err, metadata)
	if errors.Is(failed, nats.ErrMaxPayload) {
		failed = c.publishError(buf, err.shortened(), nil)
	}
	if failed == nil {
		return
	}
	if unlogged, ok := c.endpoint.unsent.Next(); ok {
		c.endpoint.log().Error("natscall: an error was not sent", "error", failed, "unsent", err, "unlogged", unlogged)
	}
}

func (c *serverCall) publishError(buf *buffer.Buffer, err *Error, metadata nats.Header) error {
	buf.B = c.appendStatus(buf.B[:0], err)
	h := err.header(metadata)
	if c.plain {
		wire.SetExecution(h, c.execution(err))
	}
	return publish.Send(c.endpoint.service.server.nc, &nats.Msg{Subject: c.reply, Header: h, Data: c.answerBody(buf.B)})
}

// appendStatus encodes an error as the body of the answer: for a plain request in its codec, else
// as Protobuf in an envelope.
func (c *serverCall) appendStatus(b []byte, e *Error) []byte {
	codec := c.coding()
	if !c.plain {
		b, codec = wire.AppendResponse(b, c.id, 0, wire.FlagError|c.execution(e).Flags()), coding{}
	}
	s := e.status()
	out, err := codec.appendMessage(b, s)
	if err != nil { // in JSON, a detail whose type is not linked here: send the others
		c.endpoint.log().Error("natscall: a detail of an error was left out", "error", err)
		s.Details = slices.DeleteFunc(slices.Clone(s.Details), func(d *anypb.Any) bool {
			_, err := codec.appendMessage(nil, d)
			return err != nil
		})
		out, _ = codec.appendMessage(b, s)
	}
	return out
}

// Leads implements publish.Owner. It matters to clients only, since an answer has no reply subject.
func (c *serverCall) Leads([]*publish.Message) bool { return true }
