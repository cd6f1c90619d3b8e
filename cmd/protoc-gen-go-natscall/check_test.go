package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	natscallproto "github.com/natscall/natscall/proto"
)

// refused are files that the plugin refuses, without the lines that all of them
// start with, and what it says.
func refused() map[string]struct{ source, want string } {
	long := strings.Repeat("long.", 51) + "x" // 256 bytes
	return map[string]struct{ source, want string }{
		"subject with an empty token": {
			methodSource(`option (natscall.v1.method).subject = "a..b";`),
			`a.proto:7:5: a.v1.S.M: subject "a..b" has an empty token`,
		},
		"subject that ends with a dot": {
			methodSource(`option (natscall.v1.method).subject = "a.";`),
			`a.proto:7:5: a.v1.S.M: subject "a." has an empty token`,
		},
		"subject with a space": {
			methodSource(`option (natscall.v1.method).subject = "a b";`),
			`a.proto:7:5: a.v1.S.M: subject "a b" has the character ' '; only printable ASCII without spaces is allowed`,
		},
		"subject with a newline": {
			methodSource(`option (natscall.v1.method).subject = "a\n";`),
			`a.proto:7:5: a.v1.S.M: subject "a\n" has the character '\n'; only printable ASCII without spaces is allowed`,
		},
		"subject that is not ASCII": {
			methodSource(`option (natscall.v1.method).subject = "grüße";`),
			`a.proto:7:5: a.v1.S.M: subject "grüße" has the character 'ü'; only printable ASCII without spaces is allowed`,
		},
		"subject with a wildcard token": {
			methodSource(`option (natscall.v1.method).subject = "a.*.b";`),
			`a.proto:7:5: a.v1.S.M: subject "a.*.b" has the wildcard '*'`,
		},
		"subject with a full wildcard": {
			methodSource(`option (natscall.v1.method).subject = "a.>";`),
			`a.proto:7:5: a.v1.S.M: subject "a.>" has the wildcard '>'`,
		},
		"subject of NATS": {
			methodSource(`option (natscall.v1.method).subject = "$SRV.PING";`),
			`a.proto:7:5: a.v1.S.M: subject "$SRV.PING" starts with "$", which belongs to NATS`,
		},
		"subject among those of the runtime": {
			methodSource(`option (natscall.v1.method).subject = "a.v1.S._all.x";`),
			`a.proto:7:5: a.v1.S.M: subject "a.v1.S._all.x" has the token "_all"; those that start with "_" are reserved for the runtime`,
		},
		"subject with a placeholder": {
			methodSource(`option (natscall.v1.method).subject = "orders.{id}";`),
			placeholderReason("7:5: a.v1.S.M: subject", "orders.{id}", "{id}"),
		},
		"subject with a placeholder of a template": {
			methodSource(`option (natscall.v1.method).subject = "orders.{{.ID}}.new";`),
			placeholderReason("7:5: a.v1.S.M: subject", "orders.{{.ID}}.new", "{{"),
		},
		"subject with a placeholder of a shell": {
			methodSource(`option (natscall.v1.method).subject = "orders.a-${ID}";`),
			placeholderReason("7:5: a.v1.S.M: subject", "orders.a-${ID}", "a-${ID}"),
		},
		"subject with a placeholder of a path": {
			methodSource(`option (natscall.v1.method).subject = "orders.:id";`),
			placeholderReason("7:5: a.v1.S.M: subject", "orders.:id", ":id"),
		},
		"subject with a placeholder of documentation": {
			methodSource(`option (natscall.v1.method).subject = "<tenant>.orders";`),
			placeholderReason("7:5: a.v1.S.M: subject", "<tenant>.orders", "<tenant>"),
		},
		"subject with a placeholder of a format": {
			methodSource(`option (natscall.v1.method).subject = "orders.%s";`),
			placeholderReason("7:5: a.v1.S.M: subject", "orders.%s", "%s"),
		},
		"subject prefix with a placeholder": {
			serviceSource(`option (natscall.v1.service).subject_prefix = "{tenant}";`),
			placeholderReason("6:3: a.v1.S: subject_prefix", "{tenant}", "{tenant}"),
		},
		"subject that is too long": {
			methodSource(`option (natscall.v1.method).subject = "` + long + `";`),
			`a.proto:7:5: a.v1.S.M: subject has 256 bytes, more than 255`,
		},
		"default subject that is too long": {
			serviceSource(`option (natscall.v1.service).subject_prefix = "` + long[:245] + `xy";` + "\n" + `  rpc M(E) returns (E);`),
			`a.proto:7:7: a.v1.S.M: its subject has 256 bytes, more than 255`,
		},
		"root that is too long": {
			serviceSource(`option (natscall.v1.service).subject_prefix = "` + long[:250] + `x";` + "\n" + `  rpc M(E) returns (E) { option (natscall.v1.method).subject = "m"; }`),
			`a.proto:6:3: a.v1.S: with subject_prefix the full name has 258 bytes, more than 255`,
		},
		"root that is too long, said once": {
			serviceSource(`option (natscall.v1.service).subject_prefix = "` + long[:250] + `x";` + "\n" + `  rpc M(E) returns (E);`),
			`a.proto:6:3: a.v1.S: with subject_prefix the full name has 258 bytes, more than 255`,
		},
		"subject in an option that is written as a message": {
			methodSource("option (natscall.v1.method) = {\n      subject: \"a b\"\n    };"),
			`a.proto:7:5: a.v1.S.M: subject "a b" has the character ' '; only printable ASCII without spaces is allowed`,
		},
		"subject prefix": {
			serviceSource(`option (natscall.v1.service).subject_prefix = "eu.";`),
			`a.proto:6:3: a.v1.S: subject_prefix "eu." has an empty token`,
		},
		"micro name": {
			serviceSource(`option (natscall.v1.service).micro_name = "order.v1";`),
			`a.proto:6:3: a.v1.S: micro_name "order.v1" has other characters than letters, digits, "-" and "_"`,
		},
		"micro name that is too long": {
			serviceSource(`option (natscall.v1.service).micro_name = "` + strings.Repeat("x", 256) + `";`),
			`a.proto:6:3: a.v1.S: micro_name has 256 bytes, more than 255`,
		},
		"version with a v": {
			serviceSource(`option (natscall.v1.service).version = "v1.0.0";`),
			`a.proto:6:3: a.v1.S: version "v1.0.0" is not a semantic version such as 1.2.3 or 1.2.3-beta.1`,
		},
		"version of two numbers": {
			serviceSource(`option (natscall.v1.service).version = "1.0";`),
			`a.proto:6:3: a.v1.S: version "1.0" is not a semantic version such as 1.2.3 or 1.2.3-beta.1`,
		},
		"queue group with a space": {
			serviceSource(`option (natscall.v1.service).queue_group = "a b";`),
			`a.proto:6:3: a.v1.S: queue_group "a b" has the character ' '; only printable ASCII without spaces is allowed`,
		},
		"queue group with a wildcard": {
			serviceSource(`option (natscall.v1.service).queue_group = "a.*";`),
			`a.proto:6:3: a.v1.S: queue_group "a.*" has the wildcard '*'`,
		},
		"queue group that is not ASCII": {
			serviceSource(`option (natscall.v1.service).queue_group = "ü";`),
			`a.proto:6:3: a.v1.S: queue_group "ü" has the character 'ü'; only printable ASCII without spaces is allowed`,
		},
		"queue group that is too long": {
			serviceSource(`option (natscall.v1.service).queue_group = "` + long + `";`),
			`a.proto:6:3: a.v1.S: queue_group has 256 bytes, more than 255`,
		},
		"queue group with an empty token": {
			serviceSource(`option (natscall.v1.service).queue_group = ".a";`),
			`a.proto:6:3: a.v1.S: queue_group ".a" has an empty token`,
		},
		"queue group and none": {
			serviceSource(`option (natscall.v1.service).queue_group = "a";` + "\n" + `  option (natscall.v1.service).no_queue_group = true;`),
			`a.proto:7:3: a.v1.S: no_queue_group and queue_group exclude each other`,
		},
		"no queue group, and a stream": {
			serviceSource(`option (natscall.v1.service).no_queue_group = true;` + "\n  rpc M(E) returns (E);\n  rpc N(E) returns (stream E);"),
			`a.proto:6:3: a.v1.S: no_queue_group is not possible with streaming methods such as N, since one instance has to take each stream`,
		},
		"no queue group, and a stream of requests": {
			serviceSource("rpc M(stream E) returns (E);\n" + `  option (natscall.v1.service) = {no_queue_group: true};`),
			`a.proto:7:3: a.v1.S: no_queue_group is not possible with streaming methods such as M, since one instance has to take each stream`,
		},
		"zero timeout": {
			serviceSource(`option (natscall.v1.service).timeout = {};`),
			`a.proto:6:3: a.v1.S: timeout 0s is not more than zero`,
		},
		"negative timeout": {
			methodSource(`option (natscall.v1.method).timeout.seconds = -1;`),
			`a.proto:7:5: a.v1.S.M: timeout -1s is not more than zero`,
		},
		"timeout of 300 years": {
			methodSource(`option (natscall.v1.method).timeout.seconds = 9500000000;`),
			`a.proto:7:5: a.v1.S.M: timeout is longer than 292 years`,
		},
		"timeout of mixed signs": {
			methodSource(`option (natscall.v1.method).timeout = {seconds: 1 nanos: -1};`),
			`a.proto:7:5: a.v1.S.M: timeout {seconds: 1, nanos: -1} is not a valid duration`,
		},
		"timeout with too many nanoseconds": {
			methodSource(`option (natscall.v1.method).timeout = {nanos: 1000000000};`),
			`a.proto:7:5: a.v1.S.M: timeout {seconds: 0, nanos: 1000000000} is not a valid duration`,
		},
		"metadata without a key": {
			serviceSource(`option (natscall.v1.service).metadata = {value: "x"};`),
			`a.proto:6:3: a.v1.S: metadata has an empty key`,
		},
		"metadata of the runtime": {
			methodSource(`option (natscall.v1.method).metadata = {key: "natscall.kind" value: "x"};`),
			`a.proto:7:5: a.v1.S.M: metadata key "natscall.kind" starts with "natscall.", which is reserved for the runtime`,
		},
		"one-way with a response": {
			methodSource(`option (natscall.v1.method).one_way = true;`),
			`a.proto:7:5: a.v1.S.M: one_way needs google.protobuf.Empty as the response, not a.v1.E`,
		},
		"one-way stream": {
			serviceSource("rpc M(stream E) returns (E) {\n    option (natscall.v1.method).one_way = true;\n  }"),
			`a.proto:7:5: a.v1.S.M: one_way is not possible for a method that streams`,
		},
		"reserved method name": {
			serviceSource(`rpc _M(E) returns (E);`),
			`a.proto:6:7: a.v1.S._M: method names that start with "_" are reserved for the runtime`,
		},
		"reserved service name": {
			`service _S {}`,
			`a.proto:5:9: a.v1._S: the full name "a.v1._S" has the token "_S"; those that start with "_" are reserved for the runtime`,
		},
		"methods with one name in Go": {
			serviceSource("rpc get_order(E) returns (E);\n  rpc GetOrder(E) returns (E);"),
			`a.proto:7:7: a.v1.S.GetOrder: its name in Go, GetOrder, is also that of a.v1.S.get_order (a.proto:6:7)`,
		},
		"methods whose constants collide": {
			"service Foo { rpc BarBaz(E) returns (E); }\nservice FooBar { rpc Baz(E) returns (E); }",
			`a.proto:6:22: a.v1.FooBar.Baz: the generated example.com/a/anats.FooBarBazMethod is also generated for a.v1.Foo.BarBaz (a.proto:5:19)`,
		},
		"services with one name in Go": {
			"service order_service {}\nservice OrderService {}",
			`a.proto:6:9: a.v1.OrderService: the generated example.com/a/anats.OrderServiceName is also generated for a.v1.order_service (a.proto:5:9)`,
		},
		"services whose Unimplemented collide": {
			"service Foo {}\nservice UnimplementedFoo {}",
			`a.proto:6:9: a.v1.UnimplementedFoo: the generated example.com/a/anats.UnimplementedFooServer is also generated for a.v1.Foo (a.proto:5:9)`,
		},
		"services whose constructors collide": {
			"service NewFoo {}\nservice Foo {}",
			`a.proto:6:9: a.v1.Foo: the generated example.com/a/anats.NewFooClient is also generated for a.v1.NewFoo (a.proto:5:9)`,
		},
		"subject twice": {
			serviceSource("rpc M(E) returns (E) {\n    option (natscall.v1.method).subject = \"x\";\n  }\n  rpc N(E) returns (E) {\n    option (natscall.v1.method).subject = \"x\";\n  }"),
			`a.proto:9:7: a.v1.S.N: its subject x is also that of a.v1.S.M (a.proto:6:7)`,
		},
		"subject that is the default of another method": {
			serviceSource("rpc M(E) returns (E);\n  rpc N(E) returns (E) {\n    option (natscall.v1.method).subject = \"a.v1.S.M\";\n  }"),
			`a.proto:7:7: a.v1.S.N: its subject a.v1.S.M is also that of a.v1.S.M (a.proto:6:7)`,
		},
		"all at once": {
			"service S {\n  option (natscall.v1.service).version = \"1\";\n  option (natscall.v1.service).micro_name = \".\";\n  rpc _M(E) returns (E);\n}",
			`a.proto:7:3: a.v1.S: micro_name "." has other characters than letters, digits, "-" and "_"
a.proto:6:3: a.v1.S: version "1" is not a semantic version such as 1.2.3 or 1.2.3-beta.1
a.proto:8:7: a.v1.S._M: method names that start with "_" are reserved for the runtime`,
		},
	}
}

func placeholderReason(where, subject, token string) string {
	return fmt.Sprintf("a.proto:%s %q has the token %q, but natscall has no placeholders: subjects are used as they stand",
		where, subject, token)
}

// serviceSource is the source of a service with body on the lines from 6 on.
func serviceSource(body string) string { return "service S {\n  " + body + "\n}" }

// methodSource is the source of a method with options on the lines from 7 on.
func methodSource(options string) string {
	return serviceSource("rpc M(E) returns (E) {\n    " + options + "\n  }")
}

func TestRefused(t *testing.T) {
	for name, test := range refused() {
		t.Run(name, func(t *testing.T) {
			source := "syntax = \"proto3\"; package a.v1; import \"natscall/v1/options.proto\";\n" +
				"import \"google/protobuf/empty.proto\";\n" +
				"option go_package = \"example.com/a\";\nmessage E {}\n" + test.source
			response := run(t, compile(t, map[string]string{"a.proto": source}))
			if diff := cmp.Diff(test.want, response.GetError()); diff != "" {
				t.Errorf("wrong error (-want +got):\n%s", diff)
			}
			if len(response.File) > 0 {
				t.Error("files were generated all the same")
			}
		})
	}
}

func TestRefusedAcrossFiles(t *testing.T) {
	const head = `syntax = "proto3"; import "natscall/v1/options.proto"; option go_package = "example.com/%"; package `
	source := func(pkg, goPackage, body string) string {
		return strings.ReplaceAll(head, "%", goPackage) + pkg + ";\n" + body
	}
	tests := map[string]struct {
		files    map[string]string
		generate []string // all where empty
		want     string
	}{
		"one Go package": {
			files: map[string]string{
				"a.proto": source("a", "x", "service Foo {}"),
				"b.proto": source("b", "x", "service Foo {}"),
			},
			want: "b.proto:2:9: b.Foo: the generated example.com/x/xnats.FooName is also generated for a.Foo (a.proto:2:9)",
		},
		"one root": {
			files: map[string]string{
				"a.proto": source("eu.a", "x", "service Foo {}"),
				"b.proto": source("a", "y", "service Foo {\noption (natscall.v1.service).subject_prefix = \"eu\"; }"),
			},
			want: "b.proto:2:9: a.Foo: its subjects start with eu.a.Foo, as do those of eu.a.Foo (a.proto:2:9)",
		},
		"one subject, and the imported file is not generated": {
			files: map[string]string{
				"a.proto": source("a", "x", "service Foo { rpc M(E) returns (E) { option (natscall.v1.method).subject = \"s\"; } } message E {}"),
				"b.proto": "" + strings.Replace(source("b", "y", "service Bar { rpc M(a.E) returns (a.E) { option (natscall.v1.method).subject = \"s\"; } }"),
					"import", "import \"a.proto\"; import", 1),
			},
			generate: []string{"b.proto"},
			want:     "b.proto:2:19: b.Bar.M: its subject s is also that of a.Foo.M (a.proto:2:19)",
		},
		"imported files are not ours to refuse": {
			files: map[string]string{
				"a.proto": source("a", "x", "service Foo { rpc _M(E) returns (E); rpc m(E) returns (E); rpc M(E) returns (E); } service foo {} message E {}"),
				"b.proto": strings.Replace(source("b", "y", "service Bar { rpc M(a.E) returns (a.E); }"), "import", "import \"a.proto\"; import", 1),
			},
			generate: []string{"b.proto"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			request := compile(t, test.files)
			if test.generate != nil {
				request.FileToGenerate = test.generate
			}
			if diff := cmp.Diff(test.want, run(t, request).GetError()); diff != "" {
				t.Errorf("wrong error (-want +got):\n%s", diff)
			}
		})
	}
}

// TestRefusedUnknownOption is about an options.proto that is newer than the
// plugin: what the plugin does not know it would leave out.
func TestRefusedUnknownOption(t *testing.T) {
	newer := strings.NewReplacer("bool one_way = 4;", "bool one_way = 4; bool once = 1000;",
		"bool no_queue_group = 6;", "bool no_queue_group = 6; string region = 2000;").Replace(string(natscallproto.Options))
	request := compile(t, map[string]string{natscallproto.OptionsPath: newer, "a.proto": `syntax = "proto3"; package a.v1; import "natscall/v1/options.proto";
option go_package = "example.com/a"; message E {}
service S {
  option (natscall.v1.service).region = "eu";
  rpc M(E) returns (E) {
    option (natscall.v1.method) = {once: true one_way: false};
  }
}`})
	request.FileToGenerate = []string{"a.proto"}
	const want = `a.proto:4:3: a.v1.S: this version of protoc-gen-go-natscall does not know the option with the number 2000; update it to the version that options.proto is from
a.proto:6:5: a.v1.S.M: this version of protoc-gen-go-natscall does not know the option with the number 1000; update it to the version that options.proto is from`
	if diff := cmp.Diff(want, run(t, request).GetError()); diff != "" {
		t.Errorf("wrong error (-want +got):\n%s", diff)
	}
}

// TestRefusedWithoutSourceInfo is about compilers that leave positions out.
func TestRefusedWithoutSourceInfo(t *testing.T) {
	request := compile(t, map[string]string{"a.proto": `syntax = "proto3"; option go_package = "example.com/a";
		message E {} service S { rpc _M(E) returns (E); }`})
	for _, file := range request.ProtoFile {
		file.SourceCodeInfo = nil
	}
	const want = `a.proto: S._M: method names that start with "_" are reserved for the runtime`
	if got := run(t, request).GetError(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAbout(t *testing.T) {
	tests := []struct {
		args     []string
		terminal bool
		want     string
	}{
		{[]string{"--version"}, false, "protoc-gen-go-natscall "},
		{[]string{"-h"}, false, "protoc-gen-go-natscall writes"},
		{[]string{"--help"}, true, "protoc-gen-go-natscall writes"},
		{nil, true, "protoc-gen-go-natscall writes"},
	}
	for _, test := range tests {
		if got := about(test.args, test.terminal); !strings.HasPrefix(got, test.want) {
			t.Errorf("about(%q, %v) = %q, want it to start with %q", test.args, test.terminal, got, test.want)
		}
	}
	for _, args := range [][]string{nil, {"--wrong"}, {"--version", "x"}} {
		if got := about(args, false); got != "" {
			t.Errorf("about(%q) = %q, want nothing", args, got)
		}
	}
}
