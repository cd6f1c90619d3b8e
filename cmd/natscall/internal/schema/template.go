package schema

import (
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
)

// maxParts is how many messages of a template have their fields set: more than anybody reads. There
// would be millions where a dozen types contain each other, as those of a syntax tree do.
const maxParts = 500

// Template returns a message with all of its fields set, so that its JSON shows what it can have:
// one element in each list and map, and the first field of each oneof. A message that contains
// itself is left out the second time. If there are very many messages, the innermost are empty.
func Template(md protoreflect.MessageDescriptor) *dynamicpb.Message {
	m := dynamicpb.NewMessage(md)
	parts := (*part)(nil).inner(m)
	for n := 0; n < len(parts) && n < maxParts; n++ { // the outer ones first
		parts = append(parts, parts[n].fill()...)
	}
	return m
}

// part is a message of a template whose fields are to be set.
type part struct {
	protoreflect.Message
	outer *part // which contains it
}

// within reports whether the part is a message of a type, or is contained in one.
func (p *part) within(name protoreflect.FullName) bool {
	for ; p != nil; p = p.outer {
		if p.Descriptor().FullName() == name {
			return true
		}
	}
	return false
}

// inner returns a message within the part as a part. What google.protobuf defines is none: its JSON
// has a form of its own, and the zero value shows it.
func (p *part) inner(m protoreflect.Message) []*part {
	name := m.Descriptor().FullName()
	if name == "google.protobuf.Value" {
		// It has no JSON without a value.
		m.Set(m.Descriptor().Fields().ByName("null_value"), protoreflect.ValueOfEnum(0))
	}
	if name.Parent() == "google.protobuf" {
		return nil
	}
	return []*part{{m, p}}
}

// fill sets the fields, and returns the parts within the part.
func (p *part) fill() (inner []*part) {
	for i := range p.Descriptor().Fields().Len() {
		fd := p.Descriptor().Fields().Get(i)
		if o := fd.ContainingOneof(); o != nil && o.Fields().Get(0) != fd {
			continue
		}
		inner = append(inner, p.set(fd)...)
	}
	return inner
}

// set sets a field, unless its message would not end, and returns the part in it.
func (p *part) set(fd protoreflect.FieldDescriptor) []*part {
	md, value := fd.Message(), p.NewField(fd)
	if fd.IsMap() {
		md = fd.MapValue().Message()
	}
	if md != nil && p.within(md.FullName()) {
		return nil
	}
	one := value
	switch {
	case fd.IsMap():
		one = value.Map().NewValue()
		value.Map().Set(fd.MapKey().Default().MapKey(), one)
	case fd.IsList():
		one = value.List().NewElement()
		value.List().Append(one)
	case md == nil:
		value = fd.Default()
	}
	p.Set(fd, value)
	if md == nil {
		return nil
	}
	return p.inner(one.Message())
}
