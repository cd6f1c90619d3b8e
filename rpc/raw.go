package rpc

import (
	"fmt"

	"google.golang.org/protobuf/proto"
)

// Raw is an encoded message. The functions of [Method] and [Stream] take and fill a *Raw wherever
// they take a proto.Message, so that gateways and recorders pass on messages whose types they do
// not know.
//
// A call has one codec, which its first message or [WithCodec] decides; a Raw in another one is
// refused. What is sent may be reused when the function has returned (a handler's response: when
// the handler has). What is received belongs to the receiver: it shares memory with nothing that
// is used again, and may be part of a larger piece of memory.
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

// append appends a message, which is a proto.Message or a *Raw.
func (c coding) append(b []byte, m any) ([]byte, error) {
	switch m := m.(type) {
	case *Raw:
		if m.Codec != c.codec {
			return b, fmt.Errorf("it is in %v, and the call in %v", m.Codec, c.codec)
		}
		return append(b, m.Data...), nil
	case proto.Message:
		return c.appendMessage(b, m)
	}
	return b, notMessage(m)
}

// decode decodes data into m, which is an empty proto.Message or a *Raw. whole is the size of the
// memory that data is part of.
func (c coding) decode(data []byte, m any, whole int) error {
	switch m := m.(type) {
	case *Raw:
		m.Codec, m.Data = c.codec, data[:len(data):len(data)]
		return nil
	case proto.Message:
		return c.unmarshal(data, m, whole)
	}
	return notMessage(m)
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
