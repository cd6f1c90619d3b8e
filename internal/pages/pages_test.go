package pages_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/natscall/natscall/internal/pages"
)

func TestParse(t *testing.T) {
	text := "# A page\n\n```yaml title=buf.yaml variant=b append\na: 1\n\nb: 2\n```\ntext\n```sh test=x:TestY\nls\n```\n```\n```\n- item\n  ```text\n  a\n    b\n  ```\n"
	got, err := pages.Parse("p.md", text)
	want := []pages.Block{
		{Page: "p.md", Line: 3, Info: "yaml title=buf.yaml variant=b append", Language: "yaml", Title: "buf.yaml", Variant: "b", Append: true, Text: "a: 1\n\nb: 2\n"},
		{Page: "p.md", Line: 9, Info: "sh test=x:TestY", Language: "sh", Test: "x:TestY", Text: "ls\n"},
		{Page: "p.md", Line: 12},
		{Page: "p.md", Line: 15, Info: "text", Language: "text", Text: "a\n  b\n"},
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
}

func TestParseMistakes(t *testing.T) {
	for name, tt := range map[string]struct{ text, want string }{
		"nested":  {"```sh\n```go\n```\n", "p.md:2: a block begins inside"},
		"endless": {"x\n```sh\nls\n", "p.md:2 does not end"},
	} {
		if _, err := pages.Parse("p.md", tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", name, err, tt.want)
		}
	}
}

func TestSteps(t *testing.T) {
	b := pages.Block{Page: "p.md", Line: 1, Text: "$ ls\na\nb\n$ true\n$ cat \\\n  file\n$ x\n"}
	got, err := b.Steps()
	want := []pages.Step{{"ls\n", "a\nb\n"}, {"true\n", ""}, {"cat \\\n  file\n", ""}, {"x\n", ""}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, (-want +got):\n%s", err, diff)
	}
	b.Text = "a\n$ ls\n"
	if _, err := b.Steps(); err == nil {
		t.Error("output before the first command is taken")
	}
}

func TestMismatch(t *testing.T) {
	for name, tt := range map[string]struct{ page, printed, want string }{
		"same":             {"a\nb\n", "a\nb\n", ""},
		"white space":      {"  a\nb", "\na  \n b\n\n", ""},
		"nothing":          {"", "", ""},
		"other":            {"a\nb\n", "a\nc\n", "b"},
		"missing":          {"a\nb\n", "a\n", "b"},
		"more":             {"a\n", "a\nb\n", "(the end, before b)"},
		"unexpected":       {"", "b\n", "(the end, before b)"},
		"wild":             {"id ... is ... now\n", "id 42 is here now\n", ""},
		"wild and other":   {"id ... is ... now\n", "id 42 was here now\n", "id ... is ... now"},
		"wild at the ends": {"...b...\n", "abc\n", ""},
		"end before wild":  {"ab...b\n", "ab\n", "ab...b"},
		"wild lines":       {"a\n...\nd\n", "a\nb\nc\nd\n", ""},
		"no wild lines":    {"a\n...\nd\n", "a\nd\n", ""},
		"wild end":         {"a\n...\n", "a\nb\n", ""},
		"wild, then other": {"a\n...\nd\n", "a\nb\n", "d"},
	} {
		if got := pages.Mismatch(tt.page, tt.printed); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
