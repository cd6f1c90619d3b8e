package schema

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
)

// source has what is hard to show: messages in themselves, maps, options that nobody knows.
const source = `syntax = "proto3";
package zoo.v1;

import "google/protobuf/any.proto";
import "google/protobuf/descriptor.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/struct.proto";

extend google.protobuf.FieldOptions {
  Note note = 50000;
}

// Note is an option.
message Note {
  string text = 1;
}

// Animal is in the zoo.
message Animal {
  // name is what it is called.
  string name = 1 [(zoo.v1.note) = {text: "short"}];
  repeated Animal young = 2;
  map<string, Meal> meals = 3;
  oneof home {
    Cage cage = 4;
    string meadow = 5;
  }
  optional Kind kind = 6;
  google.protobuf.Duration age = 7;
  google.protobuf.Any extra = 8;
  google.protobuf.Struct notes = 9;
  bytes picture = 10;
  repeated int64 weights = 11;

  message Cage {
    int32 number = 1;
  }

  // Kind is what it is.
  enum Kind {
    KIND_UNSPECIFIED = 0;
    KIND_BIRD = 1;
  }
}

message Meal {
  double grams = 1;
}

message Empty {}

service ZooService {
  // Feed feeds it.
  rpc Feed(Animal) returns (Empty);
}
`

// zoo returns the schema of source, once compiled and once as it comes from a service.
func zoo(t *testing.T) map[string]*Schema {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "zoo.proto")
	if err := os.WriteFile(file, []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	compiled, err := FromFiles([]string{file}, []string{dir})
	if err != nil {
		t.Fatal(err)
	}
	data, err := proto.Marshal(compiled.Set())
	if err != nil {
		t.Fatal(err)
	}
	set := new(descriptorpb.FileDescriptorSet)
	if err := proto.Unmarshal(data, set); err != nil {
		t.Fatal(err)
	}
	sent, err := FromSet(set)
	if err != nil {
		t.Fatal(err)
	}
	return map[string]*Schema{"compiled": compiled, "sent": sent}
}

func message(t *testing.T, s *Schema, name string) protoreflect.MessageDescriptor {
	t.Helper()
	found := s.Find(name)
	if len(found) != 1 {
		t.Fatalf("%d descriptors have the name %s", len(found), name)
	}
	return found[0].(protoreflect.MessageDescriptor)
}

// TestText: the text has comments and options, also those that only the schema itself declares, and
// is the same wherever the schema comes from.
func TestText(t *testing.T) {
	for from, s := range zoo(t) {
		text, err := Text(message(t, s, "zoo.v1.Animal"))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{
			"// Animal is in the zoo.\nmessage Animal {\n", "  // name is what it is called.\n", `[(note) = { text: "short" }]`,
			"map<string, Meal> meals = 3;", "oneof home {", "optional Kind kind = 6;", "message Cage {", "// Kind is what it is.\n",
		} {
			if !strings.Contains(text, want) {
				t.Errorf("%s: the text does not have %q:\n%s", from, want, text)
			}
		}
		sd, err := s.Service("zoo.v1.ZooService")
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, d := range Messages(sd.Methods().Get(0).Input(), sd.Methods().Get(0).Output()) {
			names = append(names, string(d.Name()))
		}
		if got := strings.Join(names, " "); got != "Animal Meal Empty" { // the others are in Animal
			t.Errorf("%s: the messages of the method are %s", from, got)
		}
		if got := Comment(sd.Methods().Get(0)); got != "Feed feeds it." {
			t.Errorf("%s: the comment is %q", from, got)
		}
	}
}

// TestTemplateOfValue: a value that may be anything has no JSON unless it is something.
func TestTemplateOfValue(t *testing.T) {
	data, err := Marshal(Template((*structpb.Value)(nil).ProtoReflect().Descriptor()), nil, true)
	if err != nil || string(data) != "null" {
		t.Errorf("%s, %v", data, err)
	}
}

// TestTemplate: it has all fields, ends where a message is in itself, and can be read.
func TestTemplate(t *testing.T) {
	const want = `{"name":"","meals":{"":{"grams":0}},"cage":{"number":0},"kind":"KIND_UNSPECIFIED","age":"0s","extra":{},"notes":{},"picture":"","weights":["0"],"young":[]}`
	for from, s := range zoo(t) {
		md := message(t, s, "Animal")
		got, err := Marshal(Template(md), s.Types(), true)
		if err != nil {
			t.Fatal(err)
		}
		for part := range strings.SplitSeq(strings.Trim(want, "{}"), `,"`) {
			if !strings.Contains(string(got), strings.Trim(part, `"`)) {
				t.Errorf("%s: the template does not have %s: %s", from, part, got)
			}
		}
		if err := Unmarshal(got, dynamicpb.NewMessage(md), s.Types()); err != nil {
			t.Errorf("%s: the template cannot be read: %v", from, err)
		}
	}
}

// TestUnmarshal: errors say where something is wrong, and what there is.
func TestUnmarshal(t *testing.T) {
	const fields = "the fields of zoo.v1.Animal are name, young, meals, cage, meadow, kind, age, extra, notes, picture, weights"
	for from, s := range zoo(t) {
		for _, test := range []struct{ json, says, next string }{
			{`{"name": "Bo", "young": [{"name": "Bi"}], "meals": {"noon": {"grams": 1.5}}, "notes": {"any": [1]}}`, "", ""},
			{`{"extra": {"@type": "type.googleapis.com/zoo.v1.Meal", "grams": 1}}`, "", ""},
			{`{"Name": "Bo"}`, `unknown field "Name" in Animal`, fields},
			{`{"young": [{}, {"nam": ""}]}`, `unknown field "nam" in Animal.young[1]`, fields},
			{`{"meals": {"noon": {"kilos": 1}}}`, `unknown field "kilos" in Animal.meals["noon"]`, "the fields of zoo.v1.Meal are grams"},
			{`{"cage": {"bars": 1}}`, `unknown field "bars" in Animal.cage`, "the fields of zoo.v1.Animal.Cage are number"},
			{`{"kind": "KIND_FISH"}`, `zoo.v1.Animal: (line 1:10): invalid value for enum field kind: "KIND_FISH"`, "--template"},
			{`{"age": "long"}`, "zoo.v1.Animal: (line 1:9): invalid google.protobuf.Duration value", "--template"},
			{"{\n  \"name\": Bo\n}", "malformed JSON: line 2, column 11: invalid character 'B'", "--template"},
			{`{"name": "Bo"`, "malformed JSON: it ends too early", "--template"},
			{` []`, "zoo.v1.Animal: a message is an object of JSON", "--template"},
		} {
			t.Run(from+" "+test.json, func(t *testing.T) {
				err := Unmarshal([]byte(test.json), dynamicpb.NewMessage(message(t, s, "Animal")), s.Types())
				if test.says == "" {
					if err != nil {
						t.Error(err)
					}
					return
				}
				if err == nil || !strings.HasPrefix(err.Error(), test.says) || !strings.Contains(problem.Of(err).Next, test.next) {
					t.Errorf("it says %v, and %q; want %s", err, problem.Of(err).Next, test.says)
				}
			})
		}
	}
	s := zoo(t)["sent"]
	err := Unmarshal([]byte(`{"a": 1}`), dynamicpb.NewMessage(message(t, s, "zoo.v1.Empty")), s.Types())
	if err == nil || problem.Of(err).Next != "zoo.v1.Empty has no fields" {
		t.Errorf("of a message without fields: %v", err)
	}
}

// TestFind: full names count for more than their ends.
func TestFind(t *testing.T) {
	for from, s := range zoo(t) {
		for name, want := range map[string]int{"zoo.v1.Meal": 1, "meal": 1, "animal.CAGE": 1, "Kind": 2, "v1.Empty": 1, "Empty": 1, "Nobody": 0} {
			found := s.Find(name)
			if name == "Kind" { // google.protobuf has one or more, too
				if len(found) < 1 {
					t.Errorf("%s: there is no %s", from, name)
				}
			} else if len(found) != want {
				t.Errorf("%s: %d descriptors have the name %s, want %d", from, len(found), name, want)
			}
		}
	}
}

// TestTemplateOfTree: the template of types that all contain each other ends, and has the outer
// ones with all of their fields.
func TestTemplateOfTree(t *testing.T) {
	const types = 15
	file := &descriptorpb.FileDescriptorProto{Name: proto.String("tree.proto"), Syntax: proto.String("proto3")}
	for i := range types {
		m := &descriptorpb.DescriptorProto{Name: proto.String(fmt.Sprint("M", i))}
		for j := range types {
			m.Field = append(m.Field, &descriptorpb.FieldDescriptorProto{
				Name: proto.String(fmt.Sprint("f", j)), Number: proto.Int32(int32(j + 1)), TypeName: proto.String(fmt.Sprint(".M", j)),
				Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum(),
			})
		}
		file.MessageType = append(file.MessageType, m)
	}
	f, err := protodesc.NewFile(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	data, err := Marshal(Template(f.Messages().Get(0)), nil, true)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string][]map[string][]any
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if len(data) > 1<<20 || len(got) != types || len(got["f3"]) != 1 || len(got["f3"][0]) != types {
		t.Errorf("%d bytes, with %d fields, of which f3 is %v", len(data), len(got), got["f3"])
	}
}

// TestTextOfWindows: a file whose lines end as on Windows has the same text, and comments.
func TestTextOfWindows(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "zoo.proto")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(source, "\n", "\r\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := FromFiles([]string{file}, []string{dir})
	if err != nil {
		t.Fatal(err)
	}
	md := message(t, s, "Animal")
	got, err := Text(md)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Text(message(t, zoo(t)["sent"], "Animal"))
	if err != nil || got != want {
		t.Errorf("%v, got\n%q, want\n%q", err, got, want)
	}
	note := s.Find("Note")[0]
	if got := Comment(note); strings.Contains(got, "\r") {
		t.Errorf("the comment is %q", got)
	}
}
