package rpc

import (
	"bytes"
	"encoding/json"
	"fmt"
	"sync"

	"google.golang.org/protobuf/encoding/protojson"
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
	// Unknown fields are ignored, so that peers may differ in age.
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

func (c Codec) appendMessage(b []byte, m proto.Message) ([]byte, error) {
	if c == CodecJSON {
		return appendJSON(b, m)
	}
	return proto.MarshalOptions{}.MarshalAppend(b, m)
}

// appendJSON takes the blanks out that protojson puts in at random.
func appendJSON(b []byte, m proto.Message) ([]byte, error) {
	data, err := protojson.Marshal(m)
	if err != nil {
		return b, err
	}
	out := bytes.NewBuffer(b)
	err = json.Compact(out, data)
	return out.Bytes(), err
}

func (c Codec) unmarshal(data []byte, m proto.Message) error {
	if c == CodecJSON {
		return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(data, m)
	}
	return proto.Unmarshal(data, m)
}

// A buffer is where a message is encoded before nats.go copies it. Who takes
// one puts it back when the message is published.
type buffer struct {
	b      []byte
	packed bool // the message in b is compressed
}

var buffers = sync.Pool{New: func() any { return &buffer{b: make([]byte, 0, 1024)} }}

// maxPooledBuffer keeps a rare larger message from staying in the pool: a bit
// more than the default of max_payload.
const maxPooledBuffer = 1<<20 + 64<<10

func takeBuffer() *buffer { return buffers.Get().(*buffer) }

func (b *buffer) putBack() {
	if cap(b.b) <= maxPooledBuffer {
		b.b, b.packed = b.b[:0], false
		buffers.Put(b)
	}
}
