package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/format"
	"go/scanner"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/pluginpb"
)

// goldenPackages is the import path of the packages of testdata/proto. They
// exist only while TestGoldenCompiles compiles them.
const goldenPackages = "github.com/natscall/natscall/cmd/protoc-gen-go-natscall/internal/golden"

// modulePath and moduleRoot are the module of this package, and where it stands.
const (
	modulePath = "github.com/natscall/natscall"
	moduleRoot = "../.."
)

var update = flag.Bool("update", false, "rewrite the golden files")

// goldenSet is a folder with .proto files under proto, and what the plugin makes
// of them under golden.
type goldenSet struct{ dir, parameter string }

func goldenSets() []goldenSet {
	return []goldenSet{
		{"testdata", "paths=source_relative"},
		{"testdata/samepackage", "paths=source_relative,package_suffix="},
	}
}

func TestGolden(t *testing.T) {
	for _, set := range goldenSets() {
		got := outputs(t, set.request(t))
		if *update {
			if err := os.RemoveAll(set.dir + "/golden"); err != nil {
				t.Fatal(err)
			}
			writeFiles(t, set.dir+"/golden", got)
		}
		if diff := cmp.Diff(readFiles(t, set.dir+"/golden"), got); diff != "" {
			t.Errorf("output differs from %s/golden (-want +got); go test -update rewrites it:\n%s", set.dir, diff)
		}
	}
}

func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, text := range files {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func readFiles(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	root := os.DirFS(dir)
	err := fs.WalkDir(root, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := fs.ReadFile(root, name)
		files[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// readGolden returns the golden files of all sets.
func readGolden(t *testing.T) map[string]string {
	t.Helper()
	files := make(map[string]string)
	for _, set := range goldenSets() {
		maps.Copy(files, readFiles(t, set.dir+"/golden"))
	}
	return files
}

// TestGoldenCompiles compiles the golden files, together with the messages that
// protoc-gen-go makes of the same input.
func TestGoldenCompiles(t *testing.T) {
	files := readGolden(t)
	for _, set := range goldenSets() {
		maps.Copy(files, messages(t, set.request(t)))
	}
	checkCompiles(t, files)
}

// checkCompiles compiles Go files, named from goldenPackages on, against the
// runtime. They are laid over the module, so nothing is written into the
// checkout.
func checkCompiles(t *testing.T, files map[string]string) {
	t.Helper()
	dir := t.TempDir()
	writeFiles(t, dir, files)

	root, err := filepath.Abs(moduleRoot)
	if err != nil {
		t.Fatal(err)
	}
	var overlay struct{ Replace map[string]string }
	overlay.Replace = make(map[string]string)
	packages := make(map[string]bool)
	for name := range files {
		place := filepath.Join(root, strings.TrimPrefix(goldenPackages, modulePath), filepath.FromSlash(name))
		overlay.Replace[place] = filepath.Join(dir, filepath.FromSlash(name))
		packages[goldenPackages+"/"+path.Dir(name)] = true
	}
	text, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	writeFiles(t, dir, map[string]string{"overlay.json": string(text)})

	args := []string{"build", "-overlay", filepath.Join(dir, "overlay.json")}
	for name := range packages {
		args = append(args, name)
	}
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		t.Errorf("generated code does not compile: %v\n%s", err, out)
	}
}

// messages runs protoc-gen-go of our protobuf version.
func messages(t *testing.T, request *pluginpb.CodeGeneratorRequest) map[string]string {
	t.Helper()
	request = proto.CloneOf(request)
	request.Parameter = proto.String("paths=source_relative") // without ours, which it refuses
	response := protocGenGo(t, request)
	if response.Error != nil {
		t.Fatal(response.GetError())
	}
	return responseFiles(response)
}

func protocGenGo(t *testing.T, request *pluginpb.CodeGeneratorRequest) *pluginpb.CodeGeneratorResponse {
	t.Helper()
	in, err := proto.Marshal(request)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "run", "google.golang.org/protobuf/cmd/protoc-gen-go")
	cmd.Stdin = bytes.NewReader(in)
	cmd.Stderr = t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	response := new(pluginpb.CodeGeneratorResponse)
	if err := proto.Unmarshal(out, response); err != nil {
		t.Fatal(err)
	}
	return response
}

func TestFeaturesAreThoseOfProtocGenGo(t *testing.T) {
	want := protocGenGo(t, new(pluginpb.CodeGeneratorRequest))
	got := run(t, new(pluginpb.CodeGeneratorRequest))
	if !proto.Equal(want, got) {
		t.Errorf("we declare %v, protoc-gen-go declares %v", got, want)
	}
}

func TestGoldenIsFormatted(t *testing.T) {
	for name, text := range readGolden(t) {
		formatted, err := format.Source([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(string(formatted), text); diff != "" {
			t.Errorf("%s is not as gofmt writes it (-gofmt +ours):\n%s", name, diff)
		}
	}
}

// TestGoldenDecidesNothing finds the statements that belong in the runtime.
func TestGoldenDecidesNothing(t *testing.T) {
	decisions := []token.Token{token.IF, token.FOR, token.SWITCH, token.SELECT, token.GO, token.DEFER}
	for name, text := range readGolden(t) {
		var s scanner.Scanner
		file := token.NewFileSet().AddFile(name, -1, len(text))
		s.Init(file, []byte(text), nil, 0)
		for pos, tok, _ := s.Scan(); tok != token.EOF; pos, tok, _ = s.Scan() {
			if slices.Contains(decisions, tok) {
				t.Errorf("%s: generated code has %q", file.Position(pos), tok)
			}
		}
	}
}

func TestSameInputSameOutput(t *testing.T) {
	request := goldenSets()[0].request(t)
	first := run(t, request)
	for range 10 {
		if again := run(t, request); !proto.Equal(first, again) {
			t.Fatal("two runs with the same input differ")
		}
	}

	slices.Reverse(request.FileToGenerate)
	if diff := cmp.Diff(responseFiles(first), outputs(t, request)); diff != "" {
		t.Errorf("the order of the files to generate matters (-one way +the other):\n%s", diff)
	}
}

func TestLinesPerMethod(t *testing.T) {
	const limit = 15
	shapes := map[string]string{
		"unary":         `rpc M%(Request) returns (Response) {option (natscall.v1.method).metadata = {key: "a" value: "b"};}`,
		"one way":       `rpc M%(Request) returns (google.protobuf.Empty) {option (natscall.v1.method).one_way = true;}`,
		"server stream": `rpc M%(Request) returns (stream Response);`,
		"client stream": `rpc M%(stream Request) returns (Response);`,
		"bidi":          `rpc M%(stream Request) returns (stream Response);`,
	}
	for name, method := range shapes {
		t.Run(name, func(t *testing.T) {
			one := codeLines(t, strings.ReplaceAll(method, "%", "1"))
			two := codeLines(t, strings.ReplaceAll(method, "%", "1")+strings.ReplaceAll(method, "%", "2"))
			if n := two - one; n > limit {
				t.Errorf("a method adds %d lines, more than %d", n, limit)
			}
		})
	}
}

// codeLines counts the lines that are generated for a service with some methods.
func codeLines(t *testing.T, methods string) int {
	t.Helper()
	request := compile(t, map[string]string{"a.proto": `syntax = "proto3"; package a.v1;
		import "google/protobuf/empty.proto"; import "natscall/v1/options.proto";
		option go_package = "example.com/a";
		service S {` + methods + `} message Request {} message Response {}`})
	for _, text := range outputs(t, request) {
		return strings.Count(text, "\n")
	}
	t.Fatal("no output")
	return 0
}

func TestParameters(t *testing.T) {
	source := map[string]string{"dir/foo.proto": `syntax = "proto3"; package foo.v1;
		option go_package = "example.com/shop/gen/foo/v1;foov1";
		service FooService { rpc Get(Foo) returns (Foo); } message Foo {}`}
	tests := []struct{ parameter, file, pkg, messages string }{
		{"", "example.com/shop/gen/foo/v1/foov1nats/foo.nats.go", "foov1nats", "example.com/shop/gen/foo/v1"},
		{"paths=import", "example.com/shop/gen/foo/v1/foov1nats/foo.nats.go", "foov1nats", "example.com/shop/gen/foo/v1"},
		{"paths=source_relative", "dir/foov1nats/foo.nats.go", "foov1nats", "example.com/shop/gen/foo/v1"},
		{"module=example.com/shop", "gen/foo/v1/foov1nats/foo.nats.go", "foov1nats", "example.com/shop/gen/foo/v1"},
		{"Mdir/foo.proto=example.com/other/bar", "example.com/other/bar/foov1nats/foo.nats.go", "foov1nats", "example.com/other/bar"},
		{"paths=source_relative,Mdir/foo.proto=example.com/other;bar", "dir/barnats/foo.nats.go", "barnats", "example.com/other"},
		{"package_suffix=rpc", "example.com/shop/gen/foo/v1/foov1rpc/foo.nats.go", "foov1rpc", "example.com/shop/gen/foo/v1"},
		{"paths=source_relative,package_suffix=_2", "dir/foov1_2/foo.nats.go", "foov1_2", "example.com/shop/gen/foo/v1"},
	}
	for _, test := range tests {
		t.Run(test.parameter, func(t *testing.T) {
			request := compile(t, source)
			request.Parameter = proto.String(test.parameter)
			got := outputs(t, request)
			text, ok := got[test.file]
			if !ok || len(got) != 1 {
				t.Fatalf("got %d files, want only %s:\n%v", len(got), test.file, got)
			}
			for _, want := range []string{"\npackage " + test.pkg + "\n", ` "` + test.messages + `"` + "\n"} {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in:\n%s", want, text)
				}
			}
		})
	}
}

func TestWrongParameter(t *testing.T) {
	tests := map[string]string{
		"paths=source_relative,retry=3": `unknown parameter "retry": want paths, module, M<file>, package_suffix or comments`,
		"package_suffix=rpc/v1":         `package_suffix "rpc/v1": want letters, digits and "_", as in the name of a Go package`,
		"package_suffix=-rpc":           `package_suffix "-rpc": want letters, digits and "_", as in the name of a Go package`,
	}
	for parameter, want := range tests {
		request := compile(t, map[string]string{"a.proto": `syntax = "proto3"; option go_package = "example.com/a";`})
		request.Parameter = proto.String(parameter)
		if _, _, err := newRun(request); err == nil || err.Error() != want {
			t.Errorf("%s: got %v, want %s", parameter, err, want)
		}
	}
}
