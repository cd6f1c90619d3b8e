package rpc

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// Codec is the encoding of the messages of a call. A server answers in the codec of the request.
type Codec uint8

const (
	// CodecProto is the Protobuf binary encoding, the default.
	CodecProto = Codec(wire.CodecProto)
	// CodecJSON is the Protobuf JSON mapping (protobuf.dev/programming-guides/json).
	// WithStrictJSON decides what happens to unknown fields.
	CodecJSON = Codec(wire.CodecJSON)
)

// String returns "protobuf" or "json".
func (c Codec) String() string {
	switch c {
	case CodecProto:
		return "protobuf"
	case CodecJSON:
		return "json"
	}
	return fmt.Sprintf("codec_%d", uint8(c))
}

func (c Codec) contentType() string {
	if c == CodecJSON {
		return wire.ContentTypeJSON
	}
	return wire.ContentTypeProto
}

// coding is how the messages of a call are encoded.
type coding struct {
	codec Codec
	json  jsonOptions
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

func (c coding) appendMessage(b []byte, m proto.Message) ([]byte, error) {
	if c.codec == CodecJSON {
		return c.json.append(b, m)
	}
	return appendProto(b, m)
}

func appendProto(b []byte, m proto.Message) ([]byte, error) {
	if vt, ok := m.(vtMarshaler); ok {
		return appendVT(b, vt)
	}
	out, err := proto.MarshalOptions{}.MarshalAppend(b, m)
	if err != nil {
		return b, err // out may be nil, and b is a buffer to be reused
	}
	return out, nil
}

// vtMarshaler and vtUnmarshaler are the methods that vtprotobuf (its features marshal, size and
// unmarshal) generates for a message. They do the work of package proto without reflection, but do
// not check that strings are UTF-8.
type (
	vtMarshaler interface {
		SizeVT() int
		MarshalToSizedBufferVT(b []byte) (int, error) // fills b from its end
	}
	vtUnmarshaler interface{ UnmarshalVT(b []byte) error } // merges
)

func appendVT(b []byte, m vtMarshaler) ([]byte, error) {
	size := m.SizeVT()
	out := slices.Grow(b, size)[:len(b)+size]
	n, err := m.MarshalToSizedBufferVT(out[len(b):])
	if err == nil && n != size {
		err = fmt.Errorf("%T has %d bytes where SizeVT is %d: is it being changed?", m, n, size)
	}
	if err != nil {
		return b, err
	}
	return out, nil
}

// unmarshal decodes data into m, which is empty. A large bytes field is not copied: it shares the
// memory of data, which therefore must not be reused. whole is the size of that memory, all of
// which is retained as long as the field is.
func (c coding) unmarshal(data []byte, m proto.Message, whole int) error {
	if c.codec == CodecJSON {
		return c.json.unmarshal(data, m)
	}
	return decodeProto(data, m, max(minAlias, whole/maxKeep))
}

// decodeProto decodes data into m, and does not copy a bytes field of at least minimum bytes.
func decodeProto(data []byte, m proto.Message, minimum int) error {
	if len(data) > minimum {
		if f := findLargeField(data, minimum); f.value != nil {
			return f.unmarshal(data, m)
		}
	}
	return unmarshalProto(data, m, wholeMessage)
}

// Messages are decoded into new ones, so there is nothing to reset. A part of a message may lack
// required fields.
var (
	wholeMessage  = proto.UnmarshalOptions{Merge: true}
	partOfMessage = proto.UnmarshalOptions{Merge: true, AllowPartial: true}
)

func unmarshalProto(data []byte, m proto.Message, o proto.UnmarshalOptions) error {
	if vt, ok := m.(vtUnmarshaler); ok {
		return vt.UnmarshalVT(data)
	}
	return o.Unmarshal(data, m)
}
