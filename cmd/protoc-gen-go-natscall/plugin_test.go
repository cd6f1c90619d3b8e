package main

import (
	"context"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"github.com/bufbuild/protocompile/linker"
	"google.golang.org/protobuf/compiler/protogen"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/pluginpb"

	natscallproto "github.com/natscall/natscall/proto"
)

// request is what a compiler sends for all of the set.
func (set goldenSet) request(t *testing.T) *pluginpb.CodeGeneratorRequest {
	t.Helper()
	request := compile(t, readFiles(t, set.dir+"/proto"))
	request.Parameter = proto.String(set.parameter)
	for _, file := range request.ProtoFile {
		if strings.HasPrefix(file.GetName(), "edition2024/") {
			file.Edition = descriptorpb.Edition_EDITION_2024.Enum()
		}
	}
	return request
}

// compile is what protoc or buf does: it turns the text of files into the
// request for a plugin, with source info and imports before what imports them.
func compile(t testing.TB, files map[string]string) *pluginpb.CodeGeneratorRequest {
	t.Helper()
	all := map[string]string{natscallproto.OptionsPath: string(natscallproto.Options)}
	maps.Copy(all, files)
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(all)}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	names := slices.Sorted(maps.Keys(files))
	compiled, err := compiler.Compile(context.Background(), names...)
	if err != nil {
		t.Fatal(err)
	}
	request := &pluginpb.CodeGeneratorRequest{FileToGenerate: names}
	seen := make(map[string]bool)
	for _, file := range compiled {
		request.ProtoFile = appendFile(request.ProtoFile, file, seen)
	}
	return overTheWire(t, request)
}

func appendFile(list []*descriptorpb.FileDescriptorProto, file protoreflect.FileDescriptor, seen map[string]bool) []*descriptorpb.FileDescriptorProto {
	if seen[file.Path()] {
		return list
	}
	seen[file.Path()] = true
	for i := range file.Imports().Len() {
		list = appendFile(list, file.Imports().Get(i).FileDescriptor, seen)
	}
	if result, ok := file.(linker.Result); ok {
		return append(list, result.FileDescriptorProto())
	}
	return append(list, protodesc.ToFileDescriptorProto(file))
}

// overTheWire gives options the types that a plugin sees.
func overTheWire(t testing.TB, request *pluginpb.CodeGeneratorRequest) *pluginpb.CodeGeneratorRequest {
	t.Helper()
	data, err := proto.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	received := new(pluginpb.CodeGeneratorRequest)
	if err := proto.Unmarshal(data, received); err != nil {
		t.Fatal(err)
	}
	return received
}

// run runs the plugin in this process.
func run(t testing.TB, request *pluginpb.CodeGeneratorRequest) *pluginpb.CodeGeneratorResponse {
	t.Helper()
	gen, p, err := newRun(overTheWire(t, request))
	if err != nil {
		t.Fatal(err)
	}
	if err := p.generate(gen); err != nil {
		gen.Error(err)
	}
	return gen.Response()
}

// newRun reads the parameters of a request.
func newRun(request *pluginpb.CodeGeneratorRequest) (*protogen.Plugin, *plugin, error) {
	p := &plugin{parameters{packageSuffix: defaultPackageSuffix, comments: true}}
	gen, err := p.options().New(request)
	return gen, p, err
}

// outputs runs the plugin and returns its files by their names.
func outputs(t testing.TB, request *pluginpb.CodeGeneratorRequest) map[string]string {
	t.Helper()
	response := run(t, request)
	if response.Error != nil {
		t.Fatal(response.GetError())
	}
	return responseFiles(response)
}

func responseFiles(response *pluginpb.CodeGeneratorResponse) map[string]string {
	files := make(map[string]string)
	for _, file := range response.GetFile() {
		files[file.GetName()] = file.GetContent()
	}
	return files
}

// TestNoComments: with comments=false none of the .proto files' comments is there for tools.
func TestNoComments(t *testing.T) {
	request := goldenSets()[0].request(t)
	for parameter, want := range map[string]bool{"": true, ",comments=true": true, ",comments=false": false} {
		changed := proto.Clone(request).(*pluginpb.CodeGeneratorRequest)
		changed.Parameter = proto.String(changed.GetParameter() + parameter)
		found := false
		for _, content := range outputs(t, changed) {
			found = found || strings.Contains(content, "Comments:") || strings.Contains(content, `Description: "Unary takes`)
		}
		if found != want {
			t.Errorf("%q: comments are there: %v", parameter, found)
		}
	}
	changed := proto.Clone(request).(*pluginpb.CodeGeneratorRequest)
	changed.Parameter = proto.String("comments=perhaps")
	if _, _, err := newRun(changed); err == nil || !strings.Contains(err.Error(), "comments=perhaps: want true or false") {
		t.Errorf("got %v", err)
	}
}
