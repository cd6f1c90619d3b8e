package rpc

import (
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// transport is how the answer of a call gets to its caller. It is chosen once, where the request is
// parsed: the answer has the form of the request.
type transport interface {
	// encode encodes the response into an empty buffer.
	encode(buf *buffer.Buffer) *Error
	// respond sends the response, which encode has left in buf; if the method has none, it sends
	// the end of the stream. It returns true if it keeps the buffer. took is how long the handler
	// ran.
	respond(buf *buffer.Buffer, took time.Duration) (kept bool)
	// fail sends an error, and the metadata that the handler has set.
	fail(err *Error)
	// refuse sends an error at once, and without metadata, as a handler may still be running.
	refuse(err *Error)
}

// noAnswer is for a call whose caller waits for nothing.
type noAnswer struct{ *serverCall }

func (a noAnswer) encode(buf *buffer.Buffer) *Error           { return a.encodeBody(buf) }
func (a noAnswer) respond(*buffer.Buffer, time.Duration) bool { return false }
func (a noAnswer) fail(err *Error)                            { a.logUntold(err) }
func (a noAnswer) refuse(err *Error)                          { a.logUntold(err) }

// envelopeAnswer answers natscall's own requests, of which some are items of a batch.
type envelopeAnswer struct{ *serverCall }

func (a envelopeAnswer) encode(buf *buffer.Buffer) *Error {
	buf.B = wire.AppendResponse(buf.B, a.id, wire.Codec(a.codec), 0)
	if err := a.encodeBody(buf); err != nil {
		return err
	}
	buf.Compress(wire.Compression(a.accepts), wire.HeaderSize)
	buf.B[wire.FlagsOffset] |= byte(buf.Flags(wire.Compression(a.accepts)))
	return nil
}

// respond sends a response that does not fit into a NATS message as a stream.
func (a envelopeAnswer) respond(buf *buffer.Buffer, took time.Duration) (kept bool) {
	size := len(buf.B) + headerSize(a.call.responseHeader) + headerSize(a.call.responseTrailer)
	if a.batched {
		size += wire.BatchOverhead
	}
	if size > smallestMaxPayload && int64(size) > a.endpoint.service.server.nc.MaxPayload() {
		streamAnswer{a.serverCall}.respondLarge(buf)
		return false
	}
	h, err := a.header()
	if err != nil {
		a.refuse(failf(CodeInternal, DidRun, "response: %v", err))
		return false
	}
	m := publish.Message{Subject: a.reply, Header: h, Buffer: buf, Owner: a}
	if a.batched {
		m.Batch, m.Tag = publish.BatchMust, a.tag
	}
	a.publish(m, took)
	return true
}

// smallestMaxPayload is less than any max_payload in use. A message of at most this size is not
// compared with the connection's limit, since reading that takes a lock. If a server's limit is
// lower after all, the publish fails, and the caller gets that error.
const smallestMaxPayload = 4096

func (a envelopeAnswer) fail(err *Error)   { a.tell(a, err, a.metadata()) }
func (a envelopeAnswer) refuse(err *Error) { a.tell(a, err, nil) }

func (a envelopeAnswer) appendStatus(b []byte, _ nats.Header, e *Error) []byte {
	b, _ = appendProto(wire.AppendResponse(b, a.id, 0, wire.FlagError|a.execution(e).Flags()), e.status())
	return b
}
