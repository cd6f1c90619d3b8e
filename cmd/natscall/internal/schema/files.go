package schema

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/reporter"
	protobuf "google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/proto"
)

// Services returns the services that .proto files and descriptor sets define, in their order. The
// folders are those in which the .proto files and what they import are looked for.
func Services(files, folders []string) ([]protoreflect.ServiceDescriptor, error) {
	var all []protoreflect.ServiceDescriptor
	known := make(map[protoreflect.FullName]bool)
	for _, file := range files {
		described, err := readFile(file, folders)
		if err != nil {
			return nil, err
		}
		count := 0
		for _, d := range described {
			for i := range d.Services().Len() {
				service := d.Services().Get(i)
				if count++; !known[service.FullName()] {
					known[service.FullName()] = true
					all = append(all, service)
				}
			}
		}
		if count == 0 {
			return nil, fmt.Errorf("%s defines no services", file)
		}
	}
	return all, nil
}

func readFile(file string, folders []string) (described []protoreflect.FileDescriptor, err error) {
	if filepath.Ext(file) == ".proto" {
		described = make([]protoreflect.FileDescriptor, 1)
		described[0], err = sources{folders, make(map[string]string)}.compile(file)
	} else {
		described, err = readSet(file)
	}
	if errors.Is(err, fs.ErrNotExist) {
		next := "a schema is in .proto files or descriptor sets; -I names the folders with what .proto files import"
		err = problem.UsageWithNext(next, "%w", err)
	}
	return described, err
}

// readSet reads what `protoc --descriptor_set_out` and `buf build` write. What it imports may be
// missing from it.
func readSet(file string) ([]protoreflect.FileDescriptor, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	set := new(descriptorpb.FileDescriptorSet)
	if err := protobuf.Unmarshal(data, set); err != nil || len(set.GetFile()) == 0 {
		return nil, fmt.Errorf("%s is no descriptor set, and no source as its name does not end in .proto", file)
	}
	described, err := protodesc.FileOptions{AllowUnresolvable: true}.NewFiles(set)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	out := make([]protoreflect.FileDescriptor, len(set.GetFile()))
	for i, f := range set.GetFile() { // in the order of the set
		if out[i], err = described.FindFileByPath(f.GetName()); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	return out, nil
}

// sources finds .proto files by the names under which they are imported.
type sources struct {
	folders []string
	opened  map[string]string // files by their names
}

// compile returns the descriptor of a file.
func (s sources) compile(file string) (protoreflect.FileDescriptor, error) {
	name, err := s.nameOf(file)
	if err != nil {
		return nil, err
	}
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{Accessor: s.open}),
		SourceInfoMode: protocompile.SourceInfoStandard,
		MaxParallelism: 1, // the resolver is not safe for several goroutines
	}
	compiled, err := compiler.Compile(context.Background(), name)
	if positioned := reporter.ErrorWithPos(nil); errors.As(err, &positioned) {
		at := positioned.GetPosition()
		if opened := s.opened[at.Filename]; opened != "" {
			at.Filename = opened
		}
		return nil, fmt.Errorf("%v: %w", at, positioned.Unwrap())
	}
	if err != nil {
		return nil, err
	}
	return compiled[0], nil
}

// nameOf returns the name of a file, which is relative to the first folder that it is in. The file
// may also be given by that name, as protoc takes it.
func (s sources) nameOf(file string) (string, error) {
	if _, err := os.Stat(file); err != nil {
		if s.has(file) {
			return filepath.ToSlash(filepath.Clean(file)), nil
		}
		return "", err
	}
	path, err := filepath.Abs(file)
	if err != nil {
		return "", err
	}
	for _, folder := range s.folders {
		root, err := filepath.Abs(folder)
		if err != nil {
			return "", err
		}
		if name, err := filepath.Rel(root, path); err == nil && filepath.IsLocal(name) {
			return filepath.ToSlash(name), nil
		}
	}
	return "", fmt.Errorf("%s is in none of the folders that -I names: %s", file, strings.Join(s.folders, ", "))
}

// has reports whether one of the folders has a file of this name.
func (s sources) has(name string) bool {
	return filepath.IsLocal(name) && slices.ContainsFunc(s.folders, func(folder string) bool {
		_, err := os.Stat(filepath.Join(folder, name))
		return err == nil
	})
}

// open opens a file by its name. The options of natscall are always those that this tool knows.
func (s sources) open(name string) (io.ReadCloser, error) {
	if name == proto.OptionsPath {
		return io.NopCloser(bytes.NewReader(proto.Options)), nil
	}
	for _, folder := range s.folders {
		path := filepath.Join(folder, filepath.FromSlash(name))
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		s.opened[name] = path
		return f, err
	}
	return nil, fmt.Errorf("no folder that -I names has it (%s): %w", strings.Join(s.folders, ", "), os.ErrNotExist)
}
