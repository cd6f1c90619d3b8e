package rpclog

import (
	"bytes"
	"encoding/json"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/anypb"
)

// redacted is what stands for a text.
const redacted = "[redacted]"

// text returns a message as JSON, without what is to be redacted. A handler of slog that writes
// JSON writes it as it is.
func (l *logger) text(m proto.Message) any {
	m = proto.Clone(m)
	l.redactMessage(m.ProtoReflect())
	data, err := protojson.Marshal(m)
	if err != nil { // that of a message which is not valid
		return "not JSON: " + err.Error()
	}
	var compact bytes.Buffer // protojson's blanks vary
	if err := json.Compact(&compact, data); err != nil {
		return "not JSON: " + err.Error()
	}
	if compact.Len() > l.messages {
		return l.cut(compact.String())
	}
	return json.RawMessage(compact.Bytes())
}

// isRedacted reports whether a field is not to be seen.
func (l *logger) isRedacted(field protoreflect.FieldDescriptor) bool {
	options, _ := field.Options().(*descriptorpb.FieldOptions)
	return options.GetDebugRedact() || l.redact != nil && l.redact(field)
}

// redactMessage redacts the fields of a message, and of all that is in it.
func (l *logger) redactMessage(m protoreflect.Message) {
	if packed, ok := m.Interface().(*anypb.Any); ok {
		l.redactAny(packed)
		return
	}
	m.SetUnknown(nil)
	m.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if l.isRedacted(field) {
			redactField(m, field)
		} else {
			l.redactInside(field, value)
		}
		return true
	})
}

// redactField redacts a field whole.
func redactField(m protoreflect.Message, field protoreflect.FieldDescriptor) {
	if field.Kind() == protoreflect.StringKind && field.Cardinality() != protoreflect.Repeated {
		m.Set(field, protoreflect.ValueOfString(redacted))
		return
	}
	m.Clear(field)
}

// redactInside redacts the messages in a field.
func (l *logger) redactInside(field protoreflect.FieldDescriptor, value protoreflect.Value) {
	switch {
	case field.IsMap() && field.MapValue().Message() != nil:
		value.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
			l.redactMessage(v.Message())
			return true
		})
	case field.IsList() && field.Message() != nil:
		for i := range value.List().Len() {
			l.redactMessage(value.List().Get(i).Message())
		}
	case !field.IsMap() && !field.IsList() && field.Message() != nil:
		l.redactMessage(value.Message())
	}
}

// redactAny redacts the message in an Any. If its type is not linked, only the type's name is left,
// which JSON cannot say: it becomes the message of an empty Any.
func (l *logger) redactAny(packed *anypb.Any) {
	m, err := packed.UnmarshalNew()
	if err != nil {
		proto.Reset(packed)
		return
	}
	l.redactMessage(m.ProtoReflect())
	if err := packed.MarshalFrom(m); err != nil {
		proto.Reset(packed)
	}
}
