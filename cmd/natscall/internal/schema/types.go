package schema

import (
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// Types finds messages and extensions by their names.
type Types struct{ behind }

type resolver interface {
	protoregistry.MessageTypeResolver
	protoregistry.ExtensionTypeResolver
}

// behind looks for a type in one place and then in another.
type behind struct{ first, second resolver }

// FindMessageByName is for protojson and prototext, like the others.
func (b behind) FindMessageByName(name protoreflect.FullName) (protoreflect.MessageType, error) {
	if t, err := b.first.FindMessageByName(name); err == nil {
		return t, nil
	}
	return b.second.FindMessageByName(name)
}

func (b behind) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	if t, err := b.first.FindMessageByURL(url); err == nil {
		return t, nil
	}
	return b.second.FindMessageByURL(url)
}

func (b behind) FindExtensionByName(name protoreflect.FullName) (protoreflect.ExtensionType, error) {
	if t, err := b.first.FindExtensionByName(name); err == nil {
		return t, nil
	}
	return b.second.FindExtensionByName(name)
}

func (b behind) FindExtensionByNumber(message protoreflect.FullName, number protoreflect.FieldNumber) (protoreflect.ExtensionType, error) {
	if t, err := b.first.FindExtensionByNumber(message, number); err == nil {
		return t, nil
	}
	return b.second.FindExtensionByNumber(message, number)
}
