package schema

import (
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Template returns a message with all of its fields set, so that its JSON shows what it can have:
// one element in each list and map, and the first field of each oneof. A message that contains
// itself is left out the second time.
func Template(md protoreflect.MessageDescriptor) *dynamicpb.Message {
	m := dynamicpb.NewMessage(md)
	fill(m, map[protoreflect.FullName]bool{})
	return m
}

func fill(m protoreflect.Message, outer map[protoreflect.FullName]bool) {
	name := m.Descriptor().FullName()
	if name == "google.protobuf.Value" {
		// It has no JSON without a value.
		m.Set(m.Descriptor().Fields().ByName("null_value"), protoreflect.ValueOfEnum(0))
	}
	if name.Parent() == "google.protobuf" && name.Name() != "Empty" {
		return // its JSON has a form of its own, and the zero value shows it
	}
	outer[name] = true
	defer delete(outer, name)
	for i := range m.Descriptor().Fields().Len() {
		fd := m.Descriptor().Fields().Get(i)
		if o := fd.ContainingOneof(); o != nil && o.Fields().Get(0) != fd {
			continue
		}
		if value, ok := example(m, fd, outer); ok {
			m.Set(fd, value)
		}
	}
}

// example returns a value for a field. ok is false for one that would not end.
func example(m protoreflect.Message, fd protoreflect.FieldDescriptor, outer map[protoreflect.FullName]bool) (protoreflect.Value, bool) {
	element := fd
	if fd.IsMap() {
		element = fd.MapValue()
	}
	if md := element.Message(); md != nil && outer[md.FullName()] {
		return protoreflect.Value{}, false
	}
	switch {
	case fd.IsMap():
		value := m.NewField(fd)
		one := value.Map().NewValue()
		fillMessage(element, one, outer)
		value.Map().Set(fd.MapKey().Default().MapKey(), one)
		return value, true
	case fd.IsList():
		value := m.NewField(fd)
		one := value.List().NewElement()
		fillMessage(element, one, outer)
		value.List().Append(one)
		return value, true
	case fd.Message() != nil:
		value := m.NewField(fd)
		fillMessage(element, value, outer)
		return value, true
	}
	return fd.Default(), true
}

func fillMessage(fd protoreflect.FieldDescriptor, value protoreflect.Value, outer map[protoreflect.FullName]bool) {
	if fd.Message() != nil {
		fill(value.Message(), outer)
	}
}
