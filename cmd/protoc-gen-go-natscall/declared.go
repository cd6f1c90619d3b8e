package main

import (
	"iter"
	"path"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// identifiers are the package-level identifiers of Go packages, each with the
// declaration in a .proto file that it is generated for.
type identifiers map[protogen.GoIdent]declaration

// declaredByMessages returns what protoc-gen-go declares for the messages, enums
// and extensions of all files. It matters where services share their package.
// Names that ours cannot equal, such as Enum_name and file_a_proto_init, are
// left out.
func declaredByMessages(gen *protogen.Plugin) identifiers {
	ids := make(identifiers)
	for _, f := range gen.Files {
		ids.add(f, "", f.GoDescriptorIdent.GoName, f.Desc, protogen.Location{})
		ids.addExtensions(f, f.Extensions)
		for _, e := range f.Enums {
			ids.addEnum(f, e)
		}
		for _, m := range f.Messages {
			ids.addMessage(f, m)
		}
	}
	return ids
}

func (ids identifiers) add(f *protogen.File, before, name string, desc protoreflect.Descriptor, at protogen.Location) {
	ids[f.GoImportPath.Ident(before+name)] = declaration{desc: desc, file: f, location: at.Path}
}

func (ids identifiers) addMessage(f *protogen.File, m *protogen.Message) {
	ids.add(f, "", m.GoIdent.GoName, m.Desc, m.Location)
	for _, field := range m.Fields {
		if field.Desc.HasDefault() {
			ids.add(f, "Default_", field.GoIdent.GoName, field.Desc, field.Location)
		}
		if field.Oneof != nil {
			ids.add(f, "", field.GoIdent.GoName, field.Desc, field.Location)
		}
	}
	for _, oneof := range m.Oneofs {
		ids.add(f, "is", oneof.GoIdent.GoName, oneof.Desc, oneof.Location)
		ids.add(f, "case_", oneof.GoIdent.GoName, oneof.Desc, oneof.Location)
	}
	ids.addExtensions(f, m.Extensions)
	for _, e := range m.Enums {
		ids.addEnum(f, e)
	}
	for _, nested := range m.Messages {
		ids.addMessage(f, nested)
	}
}

func (ids identifiers) addEnum(f *protogen.File, e *protogen.Enum) {
	ids.add(f, "", e.GoIdent.GoName, e.Desc, e.Location)
	for _, value := range e.Values {
		ids.add(f, "", value.GoIdent.GoName, value.Desc, value.Location)
	}
}

func (ids identifiers) addExtensions(f *protogen.File, extensions []*protogen.Extension) {
	for _, x := range extensions {
		ids.add(f, "E_", x.GoIdent.GoName, x.Desc, x.Location)
	}
}

// importNames yields the names that the files of protoc-gen-go give to the
// packages they import. Go allows none of them as a name in the same package.
func importNames(gen *protogen.Plugin) iter.Seq[protogen.GoIdent] {
	return func(yield func(protogen.GoIdent) bool) {
		for _, f := range gen.Files {
			for i := range f.Desc.Imports().Len() {
				imported := gen.FilesByPath[f.Desc.Imports().Get(i).Path()]
				if !yield(f.GoImportPath.Ident(path.Base(string(imported.GoImportPath)))) {
					return
				}
			}
		}
	}
}
