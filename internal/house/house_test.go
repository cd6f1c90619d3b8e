package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const small = "testdata/small"

func TestCount(t *testing.T) {
	want := &counts{
		folder: small, files: 2, lines: 53,
		methods: sets{"box": set(small+"/a.go", small+"/b.go"), "counter": set(small + "/a.go")},
		owners:  sets{"get": set("box", "counter"), "put": set("box"), "start": set("")},
		fields:  map[string]int{"box": 6, "counter": 1},
		lengths: []int{5, 1, 7, 1},
		mutexes: 5, atomics: 2, pools: 1, gos: 2,
		wide:        []string{small + "/a.go:40", small + "/a.go:42", small + "/b.go:9"},
		wideInTests: []string{small + "/small_test.go:3"},
	}
	got := count(small)
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(counts{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if name, fields := got.largest(); name != "box" || fields != 6 {
		t.Errorf("the largest struct is %s with %d fields", name, fields)
	}
}

func set(values ...string) map[string]bool {
	s := map[string]bool{}
	for _, v := range values {
		s[v] = true
	}
	return s
}

func TestLength(t *testing.T) {
	p := &counts{lengths: []int{10, 1, 9, 2, 8, 3, 7, 4, 6, 5}}
	if a, b, c := p.length(50), p.length(90), p.length(100); a != 5 || b != 9 || c != 10 {
		t.Errorf("median, p90 and max are %d, %d, %d", a, b, c)
	}
	if n := new(counts).length(50); n != 0 {
		t.Errorf("%d without functions", n)
	}
}

func TestGoFiles(t *testing.T) {
	want := []string{"a.go", "b.go", "generated.go", "internal/c.go", "small_test.go"}
	for i := range want {
		want[i] = small + "/" + want[i]
	}
	if diff := cmp.Diff(want, goFiles(small, "skipped")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if slices.ContainsFunc(goFiles(".", ""), func(path string) bool { return strings.HasPrefix(path, "testdata") }) {
		t.Error("test data is counted")
	}
}

func TestFindings(t *testing.T) {
	p := &counts{
		folder:  "rpc",
		methods: sets{"split": set("a.go", "b.go"), "allowed": set("a.go", "b.go"), "whole": set("a.go")},
		fields:  map[string]int{"small": 15, "large": 16},
		mutexes: 5,
	}
	got := slices.Concat(splitTypes(p, map[string]string{"rpc.allowed": "a reason"}), largeStructs(p), locks(p))
	want := []finding{
		{"rpc.split: files with its methods", 2, []string{"a.go", "b.go"}},
		{"rpc.large: fields", 16, nil},
		{"rpc: mutexes", 5, nil},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(finding{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	p.folder = "rpc/internal/pool"
	if found := locks(p); found != nil {
		t.Errorf("found %v", found)
	}
}

func TestWideComments(t *testing.T) {
	want := []finding{
		{small + "/a.go: comment lines that are too wide", 2, []string{small + "/a.go:40", small + "/a.go:42"}},
		{small + "/b.go: comment lines that are too wide", 1, []string{small + "/b.go:9"}},
		{small + "/small_test.go: comment lines that are too wide", 1, []string{small + "/small_test.go:3"}},
	}
	if diff := cmp.Diff(want, wideComments(small), cmp.AllowUnexported(finding{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestFinding(t *testing.T) {
	for want, f := range map[string]finding{
		"rpc.a: fields: 20":           {"rpc.a: fields", 20, nil},
		"b.go: wide: 2 b.go:1 b.go:2": {"b.go: wide", 2, []string{"b.go:1", "b.go:2"}},
	} {
		if f.String() != want {
			t.Errorf("got %q, want %q", f, want)
		}
	}
}

func TestExceptions(t *testing.T) {
	if len(maySplit) > 3 {
		t.Errorf("%d types may be split, three are too many already", len(maySplit))
	}
	for name, reason := range maySplit {
		if reason == "" {
			t.Errorf("%s: no reason", name)
		}
	}
}

func TestTable(t *testing.T) {
	var out strings.Builder
	table(&out, []*counts{count(small)})
	for _, want := range []string{
		"testdata/small  2      53     1            box 6",
		"\ntestdata/small: types with methods in several files:\nbox 2\n",
		"\ntestdata/small: names of functions with several owners:\nget 2\n",
		"testdata/small/b.go:9, testdata/small/small_test.go:3\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("want %q in\n%s", want, out.String())
		}
	}
}
