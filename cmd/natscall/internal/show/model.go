package show

import (
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/natscall/natscall/cmd/natscall/internal/schema"
	"github.com/natscall/natscall/rpc"
)

// described is a service, method, message or enum in JSON.
type described struct {
	Kind    string  `json:"kind"` // service, method, message or enum
	Name    string  `json:"name"` // the full name
	File    string  `json:"file"`
	Comment string  `json:"comment,omitempty"`
	Shape   string  `json:"shape,omitempty"` // of a method, as discovery names it
	Request string  `json:"request,omitempty"`
	Answer  string  `json:"response,omitempty"`
	Subject string  `json:"subject,omitempty"`
	Repeats string  `json:"idempotency,omitempty"`
	Timeout string  `json:"timeout,omitempty"`
	Methods []part  `json:"methods,omitempty"`
	Fields  []field `json:"fields,omitempty"`
	Values  []value `json:"values,omitempty"`
}

// part is a method of a service.
type part = described

// field is a field of a message.
type field struct {
	Name     string `json:"name"`
	JSON     string `json:"json_name"`
	Number   int32  `json:"number"`
	Type     string `json:"type"`
	Repeated bool   `json:"repeated,omitempty"`
	Optional bool   `json:"optional,omitempty"`
	Oneof    string `json:"oneof,omitempty"`
	Comment  string `json:"comment,omitempty"`
}

// value is a value of an enum.
type value struct {
	Name    string `json:"name"`
	Number  int32  `json:"number"`
	Comment string `json:"comment,omitempty"`
}

func jsonOf(descriptors []protoreflect.Descriptor) []described {
	out := make([]described, len(descriptors))
	for i, d := range descriptors {
		out[i] = describedOf(d)
	}
	return out
}

func describedOf(d protoreflect.Descriptor) described {
	out := described{Name: string(d.FullName()), File: d.ParentFile().Path(), Comment: schema.Comment(d)}
	switch d := d.(type) {
	case protoreflect.ServiceDescriptor:
		out.Kind = "service"
		for i := range d.Methods().Len() {
			out.Methods = append(out.Methods, describedOf(d.Methods().Get(i)))
		}
	case protoreflect.MethodDescriptor:
		out.Kind, out.Request, out.Answer = "method", string(d.Input().FullName()), string(d.Output().FullName())
		out.addOptions(d)
	case protoreflect.MessageDescriptor:
		out.Kind = "message"
		for i := range d.Fields().Len() {
			out.Fields = append(out.Fields, fieldOf(d.Fields().Get(i)))
		}
	case protoreflect.EnumDescriptor:
		out.Kind = "enum"
		for i := range d.Values().Len() {
			v := d.Values().Get(i)
			out.Values = append(out.Values, value{string(v.Name()), int32(v.Number()), schema.Comment(v)})
		}
	}
	return out
}

// addOptions adds what follows from the options of a method.
func (d *described) addOptions(md protoreflect.MethodDescriptor) {
	m, err := schema.Method(md)
	if err != nil {
		return // of options that no server would take
	}
	d.Shape, d.Repeats = m.Kind().String(), m.Desc().Idempotency.String()
	if subjects, err := m.Subjects(""); err == nil {
		d.Subject = subjects.Request
	}
	if timeout := timeoutOf(m); timeout != "" {
		d.Timeout = timeout
	}
}

func timeoutOf(m *rpc.Method) string {
	if own := m.Desc().Timeout; own > 0 {
		return own.String()
	}
	if all := m.Service().Timeout; all > 0 && (m.Kind() == rpc.KindUnary || m.Kind() == rpc.KindOneWay) {
		return all.String()
	}
	return ""
}

func fieldOf(fd protoreflect.FieldDescriptor) field {
	out := field{
		Name: string(fd.Name()), JSON: fd.JSONName(), Number: int32(fd.Number()), Type: typeOf(fd), Comment: schema.Comment(fd),
		Repeated: fd.IsList(), Optional: fd.HasOptionalKeyword(),
	}
	if o := fd.ContainingOneof(); o != nil && !o.IsSynthetic() {
		out.Oneof = string(o.Name())
	}
	return out
}

// typeOf returns the type of a field as a .proto file has it.
func typeOf(fd protoreflect.FieldDescriptor) string {
	switch {
	case fd.IsMap():
		return "map<" + typeOf(fd.MapKey()) + ", " + typeOf(fd.MapValue()) + ">"
	case fd.Message() != nil:
		return string(fd.Message().FullName())
	case fd.Enum() != nil:
		return string(fd.Enum().FullName())
	}
	return fd.Kind().String()
}
