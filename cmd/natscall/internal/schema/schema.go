// Package schema has what is known of the messages and methods of services: from a service itself,
// from .proto files or from descriptor sets.
package schema

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/natscall/natscall/rpc"
)

// Schema is a set of files with all that they import.
type Schema struct {
	Files *protoregistry.Files
	types *dynamicpb.Types
}

// FromSet returns the schema that a descriptor set has. What it imports may be missing from it.
func FromSet(set *descriptorpb.FileDescriptorSet) (*Schema, error) {
	files, err := newFiles(set)
	if err != nil {
		return nil, err
	}
	// Once more, now that the custom options are known that are declared in the set.
	data, err := proto.Marshal(set)
	if err != nil {
		return nil, err
	}
	known := new(descriptorpb.FileDescriptorSet)
	if err := (proto.UnmarshalOptions{Resolver: behind{protoregistry.GlobalTypes, dynamicpb.NewTypes(files)}}).Unmarshal(data, known); err != nil {
		return nil, err
	}
	if files, err = newFiles(known); err != nil {
		return nil, err
	}
	return New(files), nil
}

func newFiles(set *descriptorpb.FileDescriptorSet) (*protoregistry.Files, error) {
	return protodesc.FileOptions{AllowUnresolvable: true}.NewFiles(set)
}

// New returns the schema of files.
func New(files *protoregistry.Files) *Schema {
	return &Schema{Files: files, types: dynamicpb.NewTypes(files)}
}

// Types finds the types of the schema, and those that are linked into the tool, for the JSON of a
// google.protobuf.Any.
func (s *Schema) Types() *Types {
	return &Types{behind{s.types, protoregistry.GlobalTypes}}
}

// Service returns the service of a full name.
func (s *Schema) Service(name string) (protoreflect.ServiceDescriptor, error) {
	d, err := s.Files.FindDescriptorByName(protoreflect.FullName(name))
	if sd, ok := d.(protoreflect.ServiceDescriptor); ok && err == nil {
		return sd, nil
	}
	if err == nil {
		return nil, fmt.Errorf("%s is no service", name)
	}
	return nil, err
}

// Method returns a method for calls with dynamic messages.
func Method(md protoreflect.MethodDescriptor) (*rpc.Method, error) {
	desc := rpc.NewServiceDesc(md.Parent().(protoreflect.ServiceDescriptor))
	return rpc.NewMethod(desc, md, dynamicpb.NewMessageType(md.Input()), dynamicpb.NewMessageType(md.Output()))
}

// Find returns the messages and enums with a full name, or whose full names end in a name.
func (s *Schema) Find(name string) []protoreflect.Descriptor {
	var exact, ending []protoreflect.Descriptor
	s.Files.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for _, d := range typesIn(f) {
			if string(d.FullName()) == name {
				exact = append(exact, d)
			} else if strings.HasSuffix("."+strings.ToLower(string(d.FullName())), "."+strings.ToLower(name)) {
				ending = append(ending, d)
			}
		}
		return true
	})
	if len(exact) > 0 {
		return exact
	}
	return ending
}

// typesIn returns the messages and enums of a file or message, nested ones included.
func typesIn(in interface {
	Messages() protoreflect.MessageDescriptors
	Enums() protoreflect.EnumDescriptors
}) []protoreflect.Descriptor {
	var out []protoreflect.Descriptor
	for i := range in.Enums().Len() {
		out = append(out, in.Enums().Get(i))
	}
	for i := range in.Messages().Len() {
		md := in.Messages().Get(i)
		if !md.IsMapEntry() {
			out = append(append(out, md), typesIn(md)...)
		}
	}
	return out
}

// Services returns all services, in the order of their names.
func (s *Schema) Services() []protoreflect.ServiceDescriptor {
	var out []protoreflect.ServiceDescriptor
	s.Files.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			out = append(out, f.Services().Get(i))
		}
		return true
	})
	slices.SortFunc(out, func(a, b protoreflect.ServiceDescriptor) int {
		return strings.Compare(string(a.FullName()), string(b.FullName()))
	})
	return out
}

// Names returns the full names of all that can be described, but for what Protobuf itself defines.
func (s *Schema) Names() []string {
	var out []string
	for _, sd := range s.Services() {
		out = append(out, string(sd.FullName()))
		for i := range sd.Methods().Len() {
			out = append(out, string(sd.FullName())+"/"+string(sd.Methods().Get(i).Name()))
		}
	}
	s.Files.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for _, d := range typesIn(f) {
			if f.Package() != "google.protobuf" {
				out = append(out, string(d.FullName()))
			}
		}
		return true
	})
	slices.Sort(out)
	return slices.Compact(out)
}

// Set returns the files as a descriptor set, each after those that it imports.
func (s *Schema) Set() *descriptorpb.FileDescriptorSet {
	set, seen := new(descriptorpb.FileDescriptorSet), map[string]bool{}
	var add func(f protoreflect.FileDescriptor)
	add = func(f protoreflect.FileDescriptor) {
		if seen[f.Path()] || f.IsPlaceholder() {
			return
		}
		seen[f.Path()] = true
		for i := range f.Imports().Len() {
			add(f.Imports().Get(i).FileDescriptor)
		}
		set.File = append(set.File, protodesc.ToFileDescriptorProto(f))
	}
	var files []protoreflect.FileDescriptor
	s.Files.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		files = append(files, f)
		return true
	})
	slices.SortFunc(files, func(a, b protoreflect.FileDescriptor) int { return strings.Compare(a.Path(), b.Path()) })
	for _, f := range files {
		add(f)
	}
	return set
}

// FromFiles returns the schema of .proto files and descriptor sets. The folders are those in which
// the .proto files and what they import are looked for.
func FromFiles(files, folders []string) (*Schema, error) {
	all := new(protoregistry.Files)
	var add func(f protoreflect.FileDescriptor) error
	add = func(f protoreflect.FileDescriptor) error {
		if _, err := all.FindFileByPath(f.Path()); !errors.Is(err, protoregistry.NotFound) || f.IsPlaceholder() {
			return nil
		}
		for i := range f.Imports().Len() {
			if err := add(f.Imports().Get(i).FileDescriptor); err != nil {
				return err
			}
		}
		return all.RegisterFile(f)
	}
	for _, file := range files {
		described, err := readFile(file, folders)
		if err != nil {
			return nil, err
		}
		for _, d := range described {
			if err := add(d); err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
		}
	}
	return New(all), nil
}
