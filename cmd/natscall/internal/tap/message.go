package tap

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/natscall/natscall/cmd/natscall/internal/schema"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctap"
)

// Message is a message of a call as it is shown.
type Message struct {
	Size       int             `json:"size"`
	Compressed bool            `json:"compressed,omitempty"`
	JSON       json.RawMessage `json:"message,omitempty"`
	Fields     string          `json:"fields,omitempty"` // by number, where there is no schema
	Bytes      []byte          `json:"bytes,omitempty"`  // where it does not decode
	Error      string          `json:"error,omitempty"`  // why
}

// messageOf decodes a message of an event.
func messageOf(e *rpctap.Event, method *Method, m rpctap.StreamMessage) Message {
	out := Message{Size: m.Size, Compressed: m.Compressed}
	if m.Err != nil {
		out.Error = m.Err.Error()
		return out
	}
	var err error
	if t := method.typeOf(e.From); t != nil {
		out.JSON, err = decode(e, t, method.types, m.Data)
	} else {
		out.JSON, out.Fields, err = unknown(e.Codec, m.Data)
	}
	if err != nil {
		out.Bytes, out.Error = m.Data, err.Error()
	}
	return out
}

// decode returns a message as JSON, by its type.
func decode(e *rpctap.Event, t protoreflect.MessageType, types *schema.Types, data []byte) ([]byte, error) {
	m := t.New().Interface()
	if types == nil {
		types = linked
	}
	if isJSON(e, t, data) {
		err := protojson.UnmarshalOptions{Resolver: types, DiscardUnknown: true}.Unmarshal(trimmed(data), m)
		if err != nil {
			return nil, fmt.Errorf("not a valid %s in JSON: %w", t.Descriptor().FullName(), cleaned(err))
		}
	} else if err := (proto.UnmarshalOptions{Resolver: types}).Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("not a valid %s in Protobuf: %w", t.Descriptor().FullName(), cleaned(err))
	}
	return schema.Marshal(m, types, false)
}

// linked are the types that the tool knows by itself.
var linked = schema.New(new(protoregistry.Files)).Types()

// isJSON reports whether a message is in JSON. A plain request may not say so. Then, as a server
// does, it is taken for Protobuf if it is a message of the type without unknown fields.
func isJSON(e *rpctap.Event, t protoreflect.MessageType, data []byte) bool {
	if e.Codec == rpc.CodecJSON || !e.Guessed || len(data) == 0 {
		return e.Codec == rpc.CodecJSON && len(trimmed(data)) > 0
	}
	m := t.New().Interface()
	known := proto.Unmarshal(data, m) == nil && len(m.ProtoReflect().GetUnknown()) == 0
	return !known && json.Valid(trimmed(data))
}

// trimmed returns JSON without a byte order mark, and without blanks around it.
func trimmed(data []byte) []byte {
	return bytes.TrimSpace(bytes.TrimPrefix(data, []byte("\ufeff")))
}

// unknown returns what a message of an unknown type shows: JSON as it is, or the numbers of fields.
func unknown(codec rpc.Codec, data []byte) (text []byte, fields string, err error) {
	if codec == rpc.CodecJSON {
		var out bytes.Buffer
		err := json.Compact(&out, data)
		return out.Bytes(), "", err
	}
	m := new(emptypb.Empty)
	if err := proto.Unmarshal(data, m); err != nil {
		return nil, "", errors.New("not valid Protobuf")
	}
	return nil, singleSpaced(prototext.MarshalOptions{EmitUnknown: true}.Format(m)), nil
}

// singleSpaced takes out the blanks that prototext puts in at random, which are none of a value.
func singleSpaced(text string) string {
	out, quoted, escaped := make([]byte, 0, len(text)), false, false
	for i := range len(text) {
		switch c := text[i]; {
		case escaped:
			escaped = false
		case c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case c == ' ' && !quoted && i > 0 && text[i-1] == ' ':
			continue
		}
		out = append(out, text[i])
	}
	return string(out)
}

// cleaned returns an error of Protobuf without the blanks of varying kind that it has.
func cleaned(err error) error {
	return errors.New(string(bytes.ReplaceAll([]byte(err.Error()), []byte("\u00a0"), []byte(" "))))
}
