package rpc

import (
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/reply"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// plainAnswer answers a plain request.
type plainAnswer struct{ *serverCall }

func (a plainAnswer) encode(buf *buffer.Buffer) *Error {
	if err := a.encodeBody(buf); err != nil {
		return err
	}
	size := a.sizeOf(buf)
	if size <= smallestMaxPayload {
		return nil
	}
	if limit := a.endpoint.service.server.nc.MaxPayload(); int64(size) > limit {
		return failf(CodeResourceExhausted, ExecutionDidRun, "the response has %d bytes, the NATS server's max_payload is %d, and only natscall clients take more", size, limit)
	}
	return nil
}

func (a plainAnswer) respond(buf *buffer.Buffer, took time.Duration) (kept bool) {
	h, err := a.header()
	if err != nil {
		a.refuse(failf(CodeInternal, ExecutionDidRun, "response: %v", err))
		return false
	}
	if reply.LooksLikePubAck(buf.B) { // the header says that it is a response
		if h == nil {
			h = nats.Header{}
		}
		h[plainMessageHeader] = []string{"1"}
	}
	a.publish(publish.Message{Subject: a.reply, Header: h, Buffer: buf, Owner: a}, took)
	return true
}

func (a plainAnswer) fail(err *Error)   { a.tell(a, err, a.errorHeader()) }
func (a plainAnswer) refuse(err *Error) { a.tell(a, err, nil) }

// appendStatus encodes an error in the codec of the request.
func (a plainAnswer) appendStatus(b []byte, h nats.Header, e *Error) []byte {
	wire.SetExecution(h, a.execution(e))
	return a.encodeStatus(b, a.coding(), e)
}
