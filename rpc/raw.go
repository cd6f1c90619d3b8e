package rpc

import (
	"fmt"

	"google.golang.org/protobuf/proto"
)

// Raw is an encoded message. The functions of [Method] and [Stream] take and fill a *Raw wherever
// they take a proto.Message, so that gateways and recorders pass on messages whose types they do
// not know.
//
// A call has one codec, which its only request or [WithCodec] decides, and on a server the caller
// ([Call.Peer] has it); a Raw in another one is refused. What is sent may be reused when the
// function has returned, except for the single response of a handler: that is encoded after the
// handler and the interceptors have returned, and must not change any more. What is received
// belongs to the receiver: it shares memory with nothing that is used again, and may be part of a
// larger piece of memory. An interceptor of the server that looks at a request after the handler
// finds what the handler has made of the bytes.
type Raw struct {
	Codec Codec
	Data  []byte
}

// Unmarshal decodes the message into m, whose contents it replaces. Unknown fields and enum names
// of JSON are ignored. m may keep parts of Data.
func (r *Raw) Unmarshal(m proto.Message) error {
	proto.Reset(m)
	return coding{codec: r.Codec}.unmarshal(r.Data, m, len(r.Data))
}

func notMessage(m any) error {
	return fmt.Errorf("a %T is neither a proto.Message nor a *rpc.Raw", m)
}

// typeName names the type of a message in errors.
func typeName(m any) string {
	if m, ok := m.(proto.Message); ok {
		return messageName(m)
	}
	return "message"
}
