package describe_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/bufbuild/protocompile"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/natscall/natscall/internal/describe"
)

// compiled returns the first of several files.
func compiled(t *testing.T, files map[string]string, first string) protoreflect.FileDescriptor {
	t.Helper()
	compiler := protocompile.Compiler{
		Resolver:       protocompile.WithStandardImports(&protocompile.SourceResolver{Accessor: protocompile.SourceAccessorFromMap(files)}),
		SourceInfoMode: protocompile.SourceInfoStandard,
	}
	out, err := compiler.Compile(context.Background(), first)
	if err != nil {
		t.Fatal(err)
	}
	return out[0]
}

// TestComments: the comments of the files that matter come back, on what they are about.
func TestComments(t *testing.T) {
	f := compiled(t, map[string]string{
		"a.proto": `syntax = "proto3"; import "b.proto"; import "options.proto"; import "google/protobuf/empty.proto";

			// Detached.

			// S serves.
			service S {
			  // Do does.
			  rpc Do(google.protobuf.Empty) returns (B) { // Trailing.
			    option (extra) = "x";
			  }
			}`,
		"b.proto": `syntax = "proto3"; import "c.proto"; import "d.proto";
			// B is one.
			message B { map<string, C> c = 1; D d = 2; }`,
		"c.proto": `syntax = "proto3";
			// C is one.
			message C {}`,
		"d.proto": `syntax = "proto3";
			// D is one.
			enum D { ZERO = 0; }`,
		"options.proto": `syntax = "proto3"; import "google/protobuf/descriptor.proto";
			// Extra has a long comment.
			extend google.protobuf.MethodOptions { string extra = 50000; }`,
	}, "a.proto")
	text, err := describe.EncodeComments(f)
	if err != nil {
		t.Fatal(err)
	}
	files, err := describe.DecodeComments(text)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for path, info := range files {
		for _, at := range info.GetLocation() {
			got[path] = append(got[path], strings.TrimSpace(strings.Join(at.GetLeadingDetachedComments(), "")+at.GetLeadingComments()+at.GetTrailingComments()))
		}
	}
	want := map[string][]string{
		"a.proto": {"Detached.\n S serves.", "Do does.\n Trailing."}, "b.proto": {"B is one."}, "c.proto": {"C is one."}, "d.proto": {"D is one."},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if again, _ := describe.EncodeComments(f); again != text {
		t.Error("the same comments are encoded in two ways")
	}
}

func TestNoComments(t *testing.T) {
	text, err := describe.EncodeComments(compiled(t, map[string]string{"a.proto": `syntax = "proto3"; service S {}`}, "a.proto"))
	if text != "" || err != nil {
		t.Errorf("got %q, %v", text, err)
	}
	if files, err := describe.DecodeComments(""); len(files) != 0 || err != nil {
		t.Errorf("got %v, %v", files, err)
	}
	for _, bad := range []string{"*", "AAAA", "KLUv/WSX"} {
		if files, err := describe.DecodeComments(bad); len(files) != 0 || err == nil {
			t.Errorf("%q: got %v, %v", bad, files, err)
		}
	}
}

// TestDescription: what stands in discovery is the first line, with the rest of its sentence.
func TestDescription(t *testing.T) {
	for comment, want := range map[string]string{
		"// Do does it.":                         "Do does it.",
		"// Do does it.\n// And more.":           "Do does it.",
		"// Do does it, and what\n// follows. A": "Do does it, and what follows. A",
		"// Do does it\n//\n// And more.":        "Do does it",
		"// Is it?\n// Yes.":                     "Is it?",
		"":                                       "",
	} {
		f := compiled(t, map[string]string{"a.proto": "syntax = \"proto3\"; import \"google/protobuf/empty.proto\"; service S {\n" + comment +
			"\nrpc Do(google.protobuf.Empty) returns (google.protobuf.Empty); }"}, "a.proto")
		if got := describe.MethodOf(f.Services().Get(0).Methods().Get(0)).Description; got != want {
			t.Errorf("%q: got %q, want %q", comment, got, want)
		}
	}
}

// TestImportedInManyWays: a file that is imported in very many ways is visited once.
func TestImportedInManyWays(t *testing.T) {
	const files = 100
	sources := map[string]string{}
	for i := range files {
		source := `syntax = "proto3";`
		for j := max(0, i-2); j < i; j++ {
			source += fmt.Sprintf(`import "f%d.proto";`, j)
		}
		sources[fmt.Sprintf("f%d.proto", i)] = source
	}
	last := fmt.Sprintf("f%d.proto", files-1)
	all := describe.Imported(compiled(t, sources, last))
	for i, f := range all {
		if want := fmt.Sprintf("f%d.proto", i); f.Path() != want {
			t.Errorf("file %d is %s", i, f.Path())
		}
	}
	if len(all) != files {
		t.Errorf("there are %d files", len(all))
	}
}
