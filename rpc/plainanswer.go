package rpc

import (
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/anypb"

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
	size := len(buf.B) + headerSize(a.call.responseHeader) + headerSize(a.call.responseTrailer)
	if size <= smallestMaxPayload {
		return nil
	}
	if limit := a.endpoint.service.server.nc.MaxPayload(); int64(size) > limit {
		return failf(CodeResourceExhausted, DidRun, "the response has %d bytes, the NATS server's max_payload is %d, and only natscall clients take more", size, limit)
	}
	return nil
}

func (a plainAnswer) respond(buf *buffer.Buffer, took time.Duration) (kept bool) {
	h, err := a.header()
	if err != nil {
		a.refuse(failf(CodeInternal, DidRun, "response: %v", err))
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
	codec, s := a.coding(), e.status()
	out, err := codec.appendMessage(b, s)
	if err != nil { // in JSON, a detail whose type is not linked here: send the others
		a.endpoint.log().Error("natscall: a detail of an error was left out", "error", err)
		s.Details = slices.DeleteFunc(slices.Clone(s.Details), func(d *anypb.Any) bool {
			_, err := codec.appendMessage(nil, d)
			return err != nil
		})
		out, _ = codec.appendMessage(b, s)
	}
	return out
}
