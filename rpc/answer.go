package rpc

import (
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// answerForm is how the answer of a call gets to its caller. serverCall.receive chooses it by the
// form of the request. An answer leaves that form twice: a large response goes as a stream, and an
// error before the accept of a stream as an envelope.
type answerForm interface {
	// encode encodes the response into an empty buffer.
	encode(buf *buffer.Buffer) *Error
	// respond sends the response that encode has left in buf, or the end of the stream if the
	// method has none. It reports whether it keeps the buffer. took is how long the handler ran.
	respond(buf *buffer.Buffer, took time.Duration) (kept bool)
	// fail sends an error, and the header and trailer that the handler has set.
	fail(err *Error)
	// refuse sends an error at once, and without those, since a running handler may still change
	// that.
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

// respond queues the response. One that does not fit into a NATS message goes as a stream.
func (a envelopeAnswer) respond(buf *buffer.Buffer, took time.Duration) (kept bool) {
	size := a.sizeOf(buf)
	if a.batched {
		size += wire.BatchOverhead
	}
	if size > smallestMaxPayload && int64(size) > a.endpoint.service.server.nc.MaxPayload() {
		streamAnswer(a).respondLarge(buf)
		return false
	}
	h, err := a.header()
	if err != nil {
		a.refuse(failf(CodeInternal, ExecutionDidRun, "response: %v", err))
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

func (a envelopeAnswer) fail(err *Error)   { a.tell(a, err, a.errorHeader()) }
func (a envelopeAnswer) refuse(err *Error) { a.tell(a, err, nil) }

func (a envelopeAnswer) appendStatus(b []byte, _ nats.Header, e *Error) []byte {
	return a.encodeStatus(wire.AppendResponse(b, a.id, 0, wire.FlagError|a.execution(e).Flags()), coding{}, e)
}
