package main

import (
	"fmt"
	"os"
	"os/exec"
	"path"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	natscallproto "github.com/natscall/natscall/proto"
)

// TestRefusedGoPackages is about Go packages that protoc-gen-go writes and that
// the services could not import, or could not be in.
func TestRefusedGoPackages(t *testing.T) {
	const imports = "the package of the services imports that of the messages, and "
	const full = `; write it in full, as in "example.com/project/order/v1", or ` + samePackage
	const name = `; write another one after a semicolon, as in "example.com/project/order/v1;orderv1"`
	tests := []struct {
		goPackage, parameter, want string // want follows the position, ": " and the culprit
		inSamePackage              bool   // it is refused there, too
	}{
		{goPackage: "./pb", want: `go_package "./pb": ` + imports + "the import path is relative" + full},
		{goPackage: "../pb;pb", want: `go_package "../pb;pb": ` + imports + "the import path is relative" + full},
		{goPackage: ".;pb", want: `go_package ".;pb": ` + imports + "the import path is relative" + full},
		{goPackage: "/abs/pb", want: `go_package "/abs/pb": ` + imports + "the import path is absolute" + full},
		{goPackage: "example.com/a/", want: `go_package "example.com/a/": ` + imports + "the import path has an empty element" + full},
		{goPackage: "example.com/a b", want: `go_package "example.com/a b": ` + imports + "the import path has the character ' '" + full},
		{goPackage: "https://example.com/a", want: `go_package "https://example.com/a": ` + imports + "the import path has the character ':'" + full},
		{goPackage: "example.com/aux/v1", want: `go_package "example.com/aux/v1": ` + imports +
			`the import path has the element "aux", which Go refuses as Windows keeps it for a device` + full},
		{goPackage: "example.com/vendor/a", want: `go_package "example.com/vendor/a": ` + imports + `the import path has the element "vendor"` + full},
		{goPackage: "example.com/a;main", want: `go_package "example.com/a;main": the package of the services imports that of the messages, ` +
			"and nothing can import a package main; rename it or " + samePackage},
		{goPackage: "example.com/a;documentation", inSamePackage: true,
			want: `go_package "example.com/a;documentation": the package name "documentation" makes the Go tools ignore the file` + name},
		{goPackage: "example.com/a;my-pb", inSamePackage: true,
			want: `go_package "example.com/a;my-pb": the package name "my-pb" is not an identifier` + name},
		{goPackage: "example.com/a;type", inSamePackage: true,
			want: `go_package "example.com/a;type": the package name "type" is not an identifier` + name},
		{goPackage: "example.com/-", want: `go_package "example.com/-": ` + imports + `the import path ends with "-", which starts with '-'` + full},
		{goPackage: "example.com/vendor;a", want: `go_package "example.com/vendor;a": ` + imports + `the import path has the element "vendor"` + full},
		{goPackage: "example.com/a", parameter: "Ma.proto=./pb",
			want: `parameter Ma.proto=./pb: ` + imports + "the import path is relative" + full},
	}
	for _, test := range tests {
		t.Run(test.goPackage+" "+test.parameter, func(t *testing.T) {
			request := compile(t, map[string]string{"a.proto": fmt.Sprintf(
				"syntax = \"proto3\"; package a.v1;\noption go_package = %q;\nmessage E {} service S { rpc M(E) returns (E); }", test.goPackage)})
			want := "a.proto:2:1: " + test.want
			if test.parameter != "" {
				want = "a.proto: " + test.want
			}
			request.Parameter = proto.String(test.parameter)
			if diff := cmp.Diff(want, run(t, request).GetError()); diff != "" {
				t.Errorf("wrong error (-want +got):\n%s", diff)
			}
			request.Parameter = proto.String(test.parameter + ",package_suffix=")
			if got := run(t, request).GetError(); test.inSamePackage && got != want {
				t.Errorf("with package_suffix= it says %q, want %q", got, want)
			} else if !test.inSamePackage && got != "" {
				t.Errorf("it is refused with package_suffix=, too: %s", got)
			}
		})
	}
}

// TestRefusedImports is about what the generated code would import from the
// files that a file imports, and about packages that have something already.
func TestRefusedImports(t *testing.T) {
	const a = "syntax = \"proto3\"; package a; option go_package = \"%\";\nmessage E {}"
	const b = "syntax = \"proto3\"; package b; import \"a.proto\"; option go_package = \"example.com/b\";\nservice S {\n  rpc M(a.E) returns (E);\n}\nmessage E {}"
	options := func(goPackage string) map[string]string {
		return map[string]string{
			natscallproto.OptionsPath: strings.Replace(string(natscallproto.Options), "github.com/natscall/natscall/gen/natscall/v1;", goPackage+";", 1),
			"a.proto":                 "syntax = \"proto3\";\nimport \"natscall/v1/options.proto\"; option go_package = \"example.com/a\";",
		}
	}
	tests := map[string]struct {
		files           map[string]string
		parameter, want string
	}{
		"relative": {
			files: map[string]string{"a.proto": strings.Replace(a, "%", "./a", 1), "b.proto": b},
			want:  `b.proto:3:7: b.S.M: its request a.E cannot be imported: its Go package "./a" is relative`,
		},
		"main": {
			files: map[string]string{"a.proto": strings.Replace(a, "%", "example.com/a;main", 1), "b.proto": b},
			want:  `b.proto:3:7: b.S.M: its request a.E cannot be imported: its Go package "example.com/a" is named main`,
		},
		"internal to others": {
			files: map[string]string{"a.proto": strings.Replace(a, "%", "example.com/a/internal/pb", 1), "b.proto": b},
			want:  `b.proto:3:7: b.S.M: its request a.E cannot be imported: its Go package "example.com/a/internal/pb" is internal to "example.com/a"`,
		},
		"internal to us": {
			files: map[string]string{"a.proto": strings.Replace(a, "%", "example.com/b/internal/pb", 1), "b.proto": b},
		},
		"services where messages are": {
			files: map[string]string{"a.proto": strings.Replace(a, "%", "example.com/b/bnats", 1), "b.proto": b},
			want:  `b.proto:1:49: go_package "example.com/b": the services would go into the package "example.com/b/bnats", which has messages; set another package_suffix`,
		},
		"a suffix that makes a special name": {
			files:     map[string]string{"b.proto": strings.ReplaceAll(strings.Replace(b, `import "a.proto"; `, "", 1), "a.E", "E")},
			parameter: "Mb.proto=example.com/b;test,package_suffix=data",
			want:      `b.proto: the services would go into a package named "testdata", which Go treats specially; set another package_suffix`,
		},
		"managed mode that renames natscall's options": {
			files: options("example.com/gen/natscall/v1"),
			want: `a.proto:2:1: the Go package of natscall/v1/options.proto must be "github.com/natscall/natscall/gen/natscall/v1", not "example.com/gen/natscall/v1": ` +
				`in buf's managed mode list {file_option: go_package, path: natscall/v1} under managed.disable; otherwise leave the file's go_package as it is, without a parameter M for it`,
		},
		"a file that the Go tools leave out": {
			files: map[string]string{"x/_a.proto": "syntax = \"proto3\"; option go_package = \"example.com/a\"; service S {}"},
			want:  `x/_a.proto: the Go tools ignore or refuse files whose names start with '_', such as the generated _a.nats.go; rename the .proto file`,
		},
		"natscall's options as they are": {files: options("github.com/natscall/natscall/gen/natscall/v1")},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			request := compile(t, test.files)
			request.Parameter = proto.String(test.parameter)
			if diff := cmp.Diff(test.want, run(t, request).GetError()); diff != "" {
				t.Errorf("wrong error (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRefusedInSamePackage is about names that protoc-gen-go generates as well.
func TestRefusedInSamePackage(t *testing.T) {
	const out = "; rename one of them, or set a package_suffix, which gives the services a package of their own"
	tests := map[string]struct{ source, want string }{
		"message": {
			"message OrderClient {}",
			"a.proto:3:9: a.Order: the generated OrderClient is also generated by protoc-gen-go, for a.OrderClient (a.proto:4:9)" + out,
		},
		"enum": {
			"enum UnimplementedOrderServer { A = 0; }",
			"a.proto:3:9: a.Order: the generated UnimplementedOrderServer is also generated by protoc-gen-go, for a.UnimplementedOrderServer (a.proto:4:6)" + out,
		},
		"enum value": {
			"service Colour_RED {}\nenum Colour { RED = 0; REDName = 1; }",
			"a.proto:4:9: a.Colour_RED: the generated Colour_REDName is also generated by protoc-gen-go, for a.REDName (a.proto:5:24)" + out,
		},
		"nested message": {
			"service M_Order {}\nmessage M { message OrderName {} }",
			"a.proto:4:9: a.M_Order: the generated M_OrderName is also generated by protoc-gen-go, for a.M.OrderName (a.proto:5:21)" + out,
		},
		"case of a oneof": {
			"service M_Order {}\nmessage M { oneof o { string order_name = 1; } }",
			"a.proto:4:9: a.M_Order: the generated M_OrderName is also generated by protoc-gen-go, for a.M.order_name (a.proto:5:30)" + out,
		},
		"extension": {
			"service E_Order {}\nextend M { string order_name = 100; }\nmessage M { extensions 100; }",
			"a.proto:4:9: a.E_Order: the generated E_OrderName is also generated by protoc-gen-go, for a.order_name (a.proto:5:19)" + out,
		},
		"default value": {
			"service Default_M_Order {}\nmessage M { string order_name = 1 [default = \"x\"]; }",
			"a.proto:4:9: a.Default_M_Order: the generated Default_M_OrderName is also generated by protoc-gen-go, for a.M.order_name (a.proto:5:20)" + out,
		},
		"variable with the methods": {
			"service M { rpc Get(E) returns (E); }\nmessage E {} message MMethods {}",
			"a.proto:4:9: a.M: the generated MMethods is also generated by protoc-gen-go, for a.MMethods (a.proto:5:22)" + out,
		},
		"constant of a method": {
			"service M { rpc Get(E) returns (E); }\nmessage E {} message MGetMethod {}",
			"a.proto:4:17: a.M.Get: the generated MGetMethod is also generated by protoc-gen-go, for a.MGetMethod (a.proto:5:22)" + out,
		},
		"names that are alike": {
			"message orderclient {} message OrderServe {} message Orders {} message OrderMethods {} enum Desc { orderDesc = 0; }", "",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			request := compile(t, map[string]string{"a.proto": "edition = \"2023\"; package a;\noption go_package = \"example.com/a\";\nservice Order {}\n" + test.source})
			if got := run(t, request).GetError(); got != "" {
				t.Errorf("it is refused in a package of its own: %s", got)
			}
			request.Parameter = proto.String("package_suffix=")
			if diff := cmp.Diff(test.want, run(t, request).GetError()); diff != "" {
				t.Errorf("wrong error (-want +got):\n%s", diff)
			}
		})
	}
}

// TestPackageNamesCompile generates services beside messages whose packages have
// names that generated code uses itself, that Go has, or that folders must not.
func TestPackageNamesCompile(t *testing.T) {
	names := []string{
		"orderClient", "orderDesc", "OrderMethods", "OrderGetMethod", "OrderClient", "OrderName", "NewOrderClient",
		"ctx", "req", "opts", "c", "s", "impl", "stream", "context", "rpc", "time",
		"string", "error", "nil", "any", "type", "func", "2fa", "_hidden", "test", "internal", "nats", "init", "len", "foo_test",
	}
	sources := make(map[string]string)
	for i, name := range names {
		sources[fmt.Sprintf("%d/order.proto", i)] = fmt.Sprintf(`syntax = "proto3"; package x%d; import "natscall/v1/options.proto";
			option go_package = "%s/names/%d/%s"; message Message {}
			service Order {
				option (natscall.v1.service).timeout.seconds = 1;
				rpc Get(Message) returns (Message);
				rpc Watch(stream Message) returns (stream Message);
			}`, i, goldenPackages, i, name)
	}
	request := compile(t, sources)
	request.Parameter = proto.String("paths=import,module=" + goldenPackages)
	files := outputs(t, request)
	for name := range files {
		if base := path.Base(path.Dir(name)); base[0] == '_' || base[0] == '.' {
			t.Errorf("./... leaves out %s", name)
		}
	}
	response := protocGenGo(t, request)
	if response.Error != nil {
		t.Fatal(response.GetError())
	}
	for name, text := range responseFiles(response) {
		files[name] = text
	}
	checkCompiles(t, files)
}

// TestImportReason compares with the go command, in a module with a package at
// each path that a folder can have.
func TestImportReason(t *testing.T) {
	elements := []string{
		"a", "type", "v2", "a.b", ".a", "a+b", "a-b", "a_b", "a~b", "_a", "2", "console", "com0", "go", "internal", "testdata", "vendor", "-a/b",
		"-a", "+a", "~a", "a.", "a b", "a:b", "a@b", "a,b", "ä", "aux", "AUX.x", "lpt9", "nul/a", "a~1", "~1", "vendor/a", "a!", "[a]", "a=b", "a&b", "a$",
	}
	const module = "example.com/m/"
	paths := []string{"./a", "../a", ".", "..", "/a", "vendor/a", module + "/a", module + "a/", module + "./a", module + "a/.."}
	files := map[string]string{"go.mod": "module example.com/m\n\ngo 1.26\n"}
	for _, element := range elements {
		files[element+"/a.go"] = "package a\n"
		paths = append(paths, module+element)
	}
	for i, path := range paths {
		files[fmt.Sprintf("importers/%d/a.go", i)] = fmt.Sprintf("package a\n\nimport _ %q\n", path)
	}
	dir := t.TempDir()
	writeFiles(t, dir, files)
	for i, path := range paths {
		cmd := exec.Command("go", "build", fmt.Sprintf("./importers/%d", i))
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "GOWORK=off", "GOFLAGS=-mod=mod", "GOPROXY=off")
		out, err := cmd.CombinedOutput()
		if reason := importReason(path); (reason != "") != (err != nil) {
			t.Errorf("%q: we say %q, the go command says %v\n%s", path, reason, err, out)
		}
	}
}
