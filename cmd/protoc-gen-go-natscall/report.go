package main

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/runtime/protoimpl"
)

// Numbers of fields in descriptor.proto: they make the paths under which source
// positions are found.
const (
	nameField           = 1 // of services and methods
	serviceOptionsField = 3
	methodOptionsField  = 4
)

// declaration is a service or a method, and where it stands.
type declaration struct {
	desc     protoreflect.Descriptor
	file     *protogen.File
	location protoreflect.SourcePath
	options  protoreflect.SourcePath // of the natscall options
	fields   protoreflect.FieldDescriptors
}

func declare(f *protogen.File, desc protoreflect.Descriptor, at protogen.Location, optionsField int32, options *protoimpl.ExtensionInfo) declaration {
	extension := options.TypeDescriptor()
	return declaration{
		desc:     desc,
		file:     f,
		location: at.Path,
		options:  subPath(at.Path, optionsField, int32(extension.Number())),
		fields:   extension.Message().Fields(),
	}
}

// subPath returns a path below path, in memory of its own.
func subPath(path protoreflect.SourcePath, numbers ...int32) protoreflect.SourcePath {
	return append(slices.Clip(path), numbers...)
}

// name is the path of the declaration's name.
func (d declaration) name() protoreflect.SourcePath {
	return subPath(d.location, nameField)
}

// option is the path of one of the declaration's natscall options.
func (d declaration) option(name protoreflect.Name) protoreflect.SourcePath {
	return subPath(d.options, int32(d.fields.ByName(name).Number()))
}

// position is file:line:column of path. Compilers do not record each field of
// an option that is written as a message, so the nearest that is known counts.
func (d declaration) position(path protoreflect.SourcePath) string {
	for ; len(path) > 0; path = path[:len(path)-1] {
		if at := d.file.Desc.SourceLocations().ByPath(path); len(at.Path) > 0 {
			return fmt.Sprintf("%s:%d:%d", d.file.Desc.Path(), at.StartLine+1, at.StartColumn+1)
		}
	}
	return d.file.Desc.Path()
}

// problems are all that is wrong, so that one run reports all of it.
type problems []error

func (p *problems) report(d declaration, path protoreflect.SourcePath, format string, args ...any) {
	reason := fmt.Errorf(format, args...)
	*p = append(*p, fmt.Errorf("%s: %s: %w", d.position(path), d.desc.FullName(), reason))
}

// option reports what is wrong with an option, if anything.
func (p *problems) option(d declaration, name protoreflect.Name, err error) {
	if err != nil {
		p.report(d, d.option(name), "%s %w", name, err)
	}
}

// reportFile reports what is wrong with a file as a whole.
func (p *problems) reportFile(f *protogen.File, path protoreflect.SourcePath, format string, args ...any) {
	d := declaration{desc: f.Desc, file: f}
	*p = append(*p, fmt.Errorf("%s: %s", d.position(path), fmt.Sprintf(format, args...)))
}
