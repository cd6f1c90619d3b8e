package rpc

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// Codec is the encoding of the messages of a call. A server answers in the
// codec of the request.
type Codec uint8

const (
	// CodecProto is the Protobuf binary encoding, the default.
	CodecProto = Codec(wire.CodecProto)
	// CodecJSON is the Protobuf JSON mapping (protobuf.dev/programming-guides/json).
	// WithStrictJSON says what becomes of unknown fields.
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
		return b, err // out may be nil, and b is a buffer that others use again
	}
	return out, nil
}

// vtMarshaler and vtUnmarshaler are what vtprotobuf (its features marshal, size
// and unmarshal) generates beside a message. They do what package proto does without
// reflection, but do not check whether strings are UTF-8.
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

// unmarshal decodes data into m, which is empty. A large bytes field is not
// copied but shares the memory of data, which nobody else may use again. whole is how
// large that memory is: who keeps the field keeps all of it.
func (c coding) unmarshal(data []byte, m proto.Message, whole int) error {
	if c.codec == CodecJSON {
		return c.json.unmarshal(data, m)
	}
	return decodeProto(data, m, max(minAlias, whole/maxKeep))
}

// decodeProto leaves a bytes field of at least minimum bytes where it is.
func decodeProto(data []byte, m proto.Message, minimum int) error {
	if len(data) > minimum {
		if f := findLargeField(data, minimum); f.value != nil {
			return f.unmarshal(data, m)
		}
	}
	return unmarshalProto(data, m, wholeMessage)
}

// Messages are decoded into new ones, so that there is nothing to reset. A part of a message need not have its required fields.
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
