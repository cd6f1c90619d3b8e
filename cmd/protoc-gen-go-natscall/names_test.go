package main

import (
	"go/parser"
	"go/token"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestDurationLiteral(t *testing.T) {
	tests := []struct {
		d    time.Duration
		n    int64
		unit string
	}{
		{3 * time.Hour, 3, "Hour"},
		{90 * time.Minute, 90, "Minute"},
		{90 * time.Second, 90, "Second"},
		{1500 * time.Millisecond, 1500, "Millisecond"},
		{time.Microsecond, 1, "Microsecond"},
		{1, 1, "Nanosecond"},
		{1<<63 - 1, 1<<63 - 1, "Nanosecond"},
	}
	for _, test := range tests {
		if n, unit := durationLiteral(test.d); n != test.n || unit != test.unit {
			t.Errorf("%v: got %d %s, want %d %s", test.d, n, unit, test.n, test.unit)
		}
	}
}

func TestGoComment(t *testing.T) {
	tests := []struct {
		text string
		want []string
	}{
		{"", nil},
		{" \n\n", nil},
		{" One.\n", []string{"// One."}},
		{"\n One.  \n\n Two.\n\n", []string{"// One.", "//", "// Two."}},
		{"   indented", []string{"//   indented"}},
		{"go:embed x", []string{"// go:embed x"}},
		{"\t +build x", []string{"// `+build` x"}},
		{"a\x00b\ufeffc\r\nd\ufffd", []string{"// abc", "// d"}},
	}
	for _, test := range tests {
		if diff := cmp.Diff(test.want, goComment(test.text)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.text, diff)
		}
	}
}

// FuzzGoComment looks for text that does not stay in its comment.
func FuzzGoComment(f *testing.F) {
	for _, seed := range []string{"one\ntwo", "*/ x", "go:build ignore", "+build ignore", "\x00\ufeff\r", "\xff", "\u2028"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		source := strings.Join(goComment(text), "\n") + "\npackage p\n"
		file, err := parser.ParseFile(token.NewFileSet(), "", source, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			t.Fatalf("%q: %v", source, err)
		}
		for _, group := range file.Comments {
			for _, line := range group.List {
				if line.Text != "//" && !strings.HasPrefix(line.Text, "// ") && !strings.HasPrefix(line.Text, "//\t") {
					t.Errorf("%q is more than a comment", line.Text)
				}
			}
		}
	})
}
