package rpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// jsonOptions are how messages are written and read in JSON.
type jsonOptions struct {
	strict      strictness
	unpopulated bool
	protoNames  bool
}

// strictness says whether fields and enum names that a message does not have are refused.
type strictness uint8

const (
	strictByForm strictness = iota // refused in plain requests, ignored in everything else
	strictNever
	strictAlways
)

// WithStrictJSON sets what happens to fields and enum names in JSON that the message type does not
// have. With true they are refused, and the error lists the names that exist; with false they are
// ignored. If it is not set, a server refuses them in plain requests, which people write without
// the help of a compiler, and ignores them in envelopes and one-way messages, since one peer may be
// newer than the other. Clients ignore them in responses.
func WithStrictJSON(strict bool) PeerCallOption {
	return forJSON(func(o *jsonOptions) {
		o.strict = strictNever
		if strict {
			o.strict = strictAlways
		}
	})
}

// WithJSONUnpopulated sets whether JSON that this side writes includes the fields that are not set,
// with their zero values. The default is false.
func WithJSONUnpopulated(emit bool) PeerCallOption {
	return forJSON(func(o *jsonOptions) { o.unpopulated = emit })
}

// WithJSONProtoNames sets whether JSON that this side writes uses the field names of the .proto
// file, such as order_id instead of orderId. Both are always understood. The default is false.
func WithJSONProtoNames(use bool) PeerCallOption {
	return forJSON(func(o *jsonOptions) { o.protoNames = use })
}

// forJSON makes an option of both sides, and of a call.
func forJSON(set func(*jsonOptions)) option {
	return option{
		client: func(o *clientOptions) error { set(&o.json); return nil },
		call:   func(o *callOptions) error { set(&o.json); return nil },
		server: func(o *serverOptions) error { set(&o.json); return nil },
	}
}

var linkedTypes = jsonTypes{protoregistry.GlobalTypes}

// append appends m, without the blanks that protojson adds at random.
func (o jsonOptions) append(b []byte, m proto.Message) ([]byte, error) {
	data, err := protojson.MarshalOptions{EmitUnpopulated: o.unpopulated, UseProtoNames: o.protoNames, Resolver: linkedTypes}.Marshal(m)
	if err != nil {
		return b, err
	}
	out := bytes.NewBuffer(b)
	if err := json.Compact(out, data); err != nil {
		return b, err
	}
	return out.Bytes(), nil
}

// unmarshal decodes data into m. Empty data is an empty message.
func (o jsonOptions) unmarshal(data []byte, m proto.Message) error {
	if data = trimJSON(data); len(data) == 0 {
		return proto.CheckInitialized(m)
	}
	strict := o.strict == strictAlways
	err := protojson.UnmarshalOptions{DiscardUnknown: !strict, Resolver: linkedTypes}.Unmarshal(data, m)
	if err != nil && strict {
		if unknown := unknownName(data, m.ProtoReflect().Descriptor()); unknown != "" {
			return errors.New(unknown)
		}
	}
	return err
}

// trimJSON cuts off a byte order mark, which editors write, and blanks.
func trimJSON(data []byte) []byte {
	return bytes.Trim(bytes.TrimPrefix(data, []byte("\uFEFF")), " \t\r\n")
}

// isKnownProto reports whether data is a Protobuf message of m's type without unknown fields. m is
// empty and is overwritten.
func isKnownProto(data []byte, m proto.Message) bool {
	return proto.Unmarshal(data, m) == nil && len(m.ProtoReflect().GetUnknown()) == 0
}

// unknownName describes the first field or enum name in a JSON text that a message type does not
// have, and lists those that it has. It returns "" if all are known or the text is not JSON.
func unknownName(data []byte, message protoreflect.MessageDescriptor) string {
	var v any
	if json.Unmarshal(data, &v) != nil {
		return ""
	}
	return unknownIn(v, message, "")
}

// hasOwnJSON reports whether a message has a JSON form of its own, whose members are not its
// fields.
func hasOwnJSON(message protoreflect.MessageDescriptor) bool {
	if message.FullName().Parent() != "google.protobuf" {
		return false
	}
	switch name := message.Name(); name {
	case "Any", "Timestamp", "Duration", "FieldMask", "Struct", "Value", "ListValue":
		return true
	default:
		return message.ParentFile().Path() == "google/protobuf/wrappers.proto"
	}
}

func unknownIn(v any, message protoreflect.MessageDescriptor, path string) string {
	object, ok := v.(map[string]any)
	if !ok || hasOwnJSON(message) {
		return ""
	}
	for _, name := range slices.Sorted(maps.Keys(object)) {
		field := fieldByName(message, name)
		switch {
		case field == nil && strings.HasPrefix(name, "["): // an extension
		case field == nil:
			return fmt.Sprintf("unknown field %q; %s has %s", path+name, message.FullName(), fieldNames(message))
		default:
			if unknown := unknownInField(object[name], field, below(path, name)); unknown != "" {
				return unknown
			}
		}
	}
	return ""
}

// maxPath is the length from which a path no longer grows: it is copied at each level, and there
// may be ten thousand levels.
const maxPath = 256

// below returns the path of a step further down.
func below(path, step string) string {
	switch {
	case len(path) <= maxPath:
		return path + step
	case strings.HasSuffix(path, "..."):
		return path
	}
	return path + "..."
}

func fieldByName(message protoreflect.MessageDescriptor, name string) protoreflect.FieldDescriptor {
	if field := message.Fields().ByJSONName(name); field != nil {
		return field
	}
	return message.Fields().ByTextName(name)
}

func unknownInField(v any, field protoreflect.FieldDescriptor, path string) string {
	switch list, isList := v.([]any); {
	case field.IsMap():
		entries, _ := v.(map[string]any)
		for _, key := range slices.Sorted(maps.Keys(entries)) {
			if unknown := unknownInValue(entries[key], field.MapValue(), below(path, "."+key)); unknown != "" {
				return unknown
			}
		}
	case isList && field.IsList():
		for i, element := range list {
			if unknown := unknownInValue(element, field, below(path, fmt.Sprintf("[%d]", i))); unknown != "" {
				return unknown
			}
		}
	default:
		return unknownInValue(v, field, path)
	}
	return ""
}

func unknownInValue(v any, field protoreflect.FieldDescriptor, path string) string {
	if message := field.Message(); message != nil {
		return unknownIn(v, message, below(path, "."))
	}
	name, isName := v.(string)
	if enum := field.Enum(); enum != nil && isName && enum.Values().ByName(protoreflect.Name(name)) == nil {
		return fmt.Sprintf("field %q: %q is no value of %s, which has %s", path, name, enum.FullName(), enumNames(enum))
	}
	return ""
}

// maxNames is how many names an error lists.
const maxNames = 30

func fieldNames(message protoreflect.MessageDescriptor) string {
	fields := message.Fields()
	if fields.Len() == 0 {
		return "no fields"
	}
	return listNames(fields.Len(), func(i int) string { return fields.Get(i).JSONName() })
}

func enumNames(enum protoreflect.EnumDescriptor) string {
	values := enum.Values()
	return listNames(values.Len(), func(i int) string { return string(values.Get(i).Name()) })
}

func listNames(n int, name func(int) string) string {
	var names []string
	for i := range min(n, maxNames) {
		names = append(names, name(i))
	}
	if n > maxNames {
		names = append(names, fmt.Sprintf("and %d more", n-maxNames))
	}
	return strings.Join(names, ", ")
}
