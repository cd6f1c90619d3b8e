package rpcvalidate

import (
	"errors"
	"fmt"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/natscall/natscall/rpc"
)

// compile compiles the rules of a method's messages, and of all messages that these may contain. So
// the first call is not slower than others.
func (v *Validation) compile(m *rpc.Method) error {
	checked := []proto.Message{m.NewRequest()}
	if v.responses && m.Kind() != rpc.KindOneWay {
		checked = append(checked, m.NewResponse())
	}
	c := compiler{validator: v.validator, seen: map[protoreflect.MessageDescriptor]bool{}}
	for _, message := range checked {
		if message == nil {
			return errors.New("rpcvalidate: the types of its messages are not known; WithFilter can leave the method out")
		}
		c.compile(message)
	}
	if err := errors.Join(c.errs...); err != nil {
		return fmt.Errorf("rpcvalidate: %w", err)
	}
	return nil
}

// compiler compiles rules.
type compiler struct {
	validator protovalidate.Validator
	seen      map[protoreflect.MessageDescriptor]bool
	errs      []error
}

// compile compiles the rules of a message of a type, which is empty, and of the messages in it.
func (c *compiler) compile(m proto.Message) {
	md := m.ProtoReflect().Descriptor()
	if c.seen[md] {
		return
	}
	c.seen[md] = true
	c.try(m, md)
	for i := range md.Fields().Len() {
		field := md.Fields().Get(i)
		c.try(m, field)
		if inner := messageIn(field); inner != nil && !ignored(field) {
			c.compile(newMessage(inner))
		}
	}
}

// try has the validator use only those rules of an empty message that belong to d, which is the
// message or one of its fields, since its error does not name the field.
func (c *compiler) try(m proto.Message, d protoreflect.Descriptor) {
	only := protovalidate.FilterFunc(func(_ protoreflect.Message, rules protoreflect.Descriptor) bool { return rules == d })
	err := c.validator.Validate(m, protovalidate.WithFilter(only))
	var bad *protovalidate.CompilationError
	if errors.As(err, &bad) {
		c.errs = append(c.errs, fmt.Errorf("the rules of %s: %w", d.FullName(), bad))
	}
}

// messageIn returns the type of the messages in a field, or nil.
func messageIn(field protoreflect.FieldDescriptor) protoreflect.MessageDescriptor {
	if field.IsMap() {
		return field.MapValue().Message()
	}
	return field.Message()
}

// ignored reports whether the messages in a field are never checked.
func ignored(field protoreflect.FieldDescriptor) bool {
	rules, err := protovalidate.ResolveFieldRules(field)
	return err == nil && rules.GetIgnore() == validate.Ignore_IGNORE_ALWAYS
}

// newMessage returns an empty message, of the generated type if there is one.
func newMessage(md protoreflect.MessageDescriptor) proto.Message {
	t, err := protoregistry.GlobalTypes.FindMessageByName(md.FullName())
	if err == nil && t.Descriptor() == md {
		return t.New().Interface()
	}
	return dynamicpb.NewMessage(md)
}
