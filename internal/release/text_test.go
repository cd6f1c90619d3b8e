package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/mod/module"

	"github.com/natscall/natscall/internal/modproxy"
)

func TestChangelog(t *testing.T) {
	const site = "https://github.com/natscall/natscall"
	first := "# Changelog\n\nIntroduction.\n\n## Unreleased\n\n### Added\n\n- A thing.\n"
	released := "# Changelog\n\nIntroduction.\n\n## [Unreleased]\n\n## [0.1.0] - 2026-01-02\n\n### Added\n\n- A thing.\n\n" +
		"[Unreleased]: " + site + "/compare/v0.1.0...HEAD\n[0.1.0]: " + site + "/releases/tag/v0.1.0\n"
	later := strings.Replace(released, "## [Unreleased]\n", "## [Unreleased]\n\n### Fixed\n\n- A [thing].\n  It had two lines.\n\n", 1)
	tests := []struct {
		name, text, version, previous string
		want, err                     string
	}{
		{name: "first", text: first, version: "v0.1.0", want: released},
		{
			name: "second", text: later, version: "v0.2.0-rc.1", previous: "v0.1.0",
			want: "# Changelog\n\nIntroduction.\n\n## [Unreleased]\n\n## [0.2.0-rc.1] - 2026-01-02\n\n### Fixed\n\n- A [thing].\n  It had two lines.\n\n" +
				"## [0.1.0] - 2026-01-02\n\n### Added\n\n- A thing.\n\n" +
				"[Unreleased]: " + site + "/compare/v0.2.0-rc.1...HEAD\n[0.2.0-rc.1]: " + site + "/compare/v0.1.0...v0.2.0-rc.1\n" +
				"[0.1.0]: " + site + "/releases/tag/v0.1.0\n",
		},
		{name: "nothing to say", text: released, version: "v0.2.0", err: `says nothing under "Unreleased": write what v0.2.0 brings`},
		{name: "empty sections", text: "## Unreleased\n\n### Added\n\n### Fixed\n\n## [0.1.0]\n\n- Old.\n", version: "v0.2.0", err: "says nothing"},
		{name: "no heading", text: "# Changelog\n\n- A thing.\n", version: "v0.1.0", err: `has no heading "## Unreleased"`},
		{name: "again", text: later, version: "v0.1.0", err: "has a section for 0.1.0 already"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got string
			c, err := parseChangelog(test.text)
			if err == nil {
				got, err = c.release(test.version, test.previous, "2026-01-02")
			}
			checkError(t, err, test.err)
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("changelog (-want +got):\n%s", diff)
			}
		})
	}
}

func TestCheckVersion(t *testing.T) {
	for version, want := range map[string]string{
		"v0.1.0": "", "v1.2.3": "", "v0.2.0-rc.1": "",
		"0.1.0": "want a semantic version", "v0.1": "want a semantic version", "v0.1.0+linux": "want a semantic version",
		"latest": "want a semantic version", "v01.0.0": "want a semantic version",
		"v0.1.0-0.20260101000000-abcdefabcdef": "the go command gives to commits without a tag",
		"v2.0.0":                               "end with the major version, as github.com/natscall/natscall/v2",
	} {
		t.Run(version, func(t *testing.T) { checkError(t, checkVersion(version), want) })
	}
}

func TestCheckTags(t *testing.T) {
	modules := []modproxy.Module{{Path: modproxy.Root}, {Path: modproxy.Root + "/cmd/natscall"}}
	tests := []struct {
		name, version string
		all, merged   []string
		err           string
	}{
		{name: "first", version: "v0.1.0", all: []string{"nightly", "other/thing"}, merged: []string{"nightly", "other/v9.0.0"}},
		{name: "next", version: "v0.10.0", all: []string{"v0.9.0"}, merged: []string{"v0.9.0"}},
		{name: "after its candidate", version: "v0.1.0", all: []string{"v0.1.0-rc.1"}, merged: []string{"v0.1.0-rc.1"}},
		{name: "fix of an older one", version: "v0.1.1", all: []string{"v0.1.0", "v0.2.0"}, merged: []string{"v0.1.0"}},
		{name: "exists", version: "v0.1.0", all: []string{"v0.1.0"}, err: "the tag v0.1.0 exists"},
		{name: "of one module", version: "v0.1.0", all: []string{"cmd/natscall/v0.1.0"}, err: "the tag cmd/natscall/v0.1.0 exists"},
		{name: "backwards", version: "v0.9.0", all: []string{"v0.10.0"}, merged: []string{"v0.10.0"}, err: "v0.9.0 is not after v0.10.0"},
		{name: "candidate of before", version: "v0.1.0-rc.2", all: []string{"v0.1.0"}, merged: []string{"v0.1.0"}, err: "is not after v0.1.0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			checkError(t, checkTags(test.version, modules, test.all, test.merged), test.err)
		})
	}
}

func TestSetRequirements(t *testing.T) {
	released := map[string]string{modproxy.Root: "v0.2.0", modproxy.Root + "/rpc/rpcotel": "v0.2.0"}
	const head = "module github.com/natscall/natscall/examples\n\ngo 1.26.0\n\n"
	tests := []struct{ name, text, want, err string }{
		{
			name: "versions",
			text: head + "require (\n\tgithub.com/natscall/natscall v0.1.0 // why\n\texample.com/natscall v0.1.0\n)\n\nrequire github.com/natscall/natscall/rpc/rpcotel v0.1.0 // indirect\n",
			want: head + "require (\n\tgithub.com/natscall/natscall v0.2.0 // why\n\texample.com/natscall v0.1.0\n)\n\nrequire github.com/natscall/natscall/rpc/rpcotel v0.2.0 // indirect\n",
		},
		{name: "replace", text: head + "replace example.com/a => ./a\n", err: "examples/go.mod replaces example.com/a, so go install would refuse the module"},
		{name: "not released", text: head + "require github.com/natscall/natscall/internal/chaos v0.1.0\n", err: "examples/go.mod requires github.com/natscall/natscall/internal/chaos, which go.work does not list"},
		{name: "broken", text: "mod", err: "examples/go.mod"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, required, err := setRequirements("examples/go.mod", []byte(test.text), released)
			checkError(t, err, test.err)
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Errorf("go.mod (-want +got):\n%s", diff)
			}
			if want := []string{modproxy.Root, modproxy.Root + "/rpc/rpcotel"}; err == nil && !slices.Equal(required, want) {
				t.Errorf("it requires %v, want %v", required, want)
			}
		})
	}
}

func TestSetReplacements(t *testing.T) {
	const before = `// Why there is a workspace.

go 1.26.0

use (
	.
	./examples
)

// The next versions.
replace (
	example.com/a v0.1.0 => ./a
	github.com/natscall/natscall v0.1.0 => ./
	github.com/natscall/natscall/examples v0.0.9 => ./examples // why
)
`
	got, err := setReplacements([]byte(before), map[string]string{modproxy.Root: "v0.2.0", modproxy.Root + "/examples": "v0.2.0"})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(strings.Replace(before, "natscall v0.1.0", "natscall v0.2.0", 1), "v0.0.9", "v0.2.0", 1)
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("go.work (-want +got):\n%s", diff)
	}
}

func TestSetSums(t *testing.T) {
	const before = `example.com/a v1.10.0 h1:a=
example.com/a v1.9.0/go.mod h1:b=
example.com/a v1.10.0/go.mod h1:c=
github.com/natscall/natscall v0.1.0 h1:old=
github.com/natscall/natscall v0.1.0/go.mod h1:old=
github.com/natscall/natscall2 v0.1.0/go.mod h1:d=
github.com/z/z v0.1.0/go.mod h1:e=
`
	const want = `example.com/a v1.9.0/go.mod h1:b=
example.com/a v1.10.0 h1:a=
example.com/a v1.10.0/go.mod h1:c=
github.com/natscall/natscall v0.2.0 h1:new=
github.com/natscall/natscall v0.2.0/go.mod h1:mod=
github.com/natscall/natscall2 v0.1.0/go.mod h1:d=
github.com/z/z v0.1.0/go.mod h1:e=
`
	got, err := setSums([]byte(before), map[module.Version]string{
		{Path: modproxy.Root, Version: "v0.2.0/go.mod"}: "h1:mod=", {Path: modproxy.Root, Version: "v0.2.0"}: "h1:new=",
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("go.sum (-want +got):\n%s", diff)
	}
	_, err = setSums([]byte("example.com/a v1.0.0\n"), nil)
	checkError(t, err, `go.sum has the line "example.com/a v1.0.0\n"`)
}

func TestInOrder(t *testing.T) {
	var modules []modproxy.Module
	for _, path := range []string{"a", "b", "c", "d"} {
		modules = append(modules, modproxy.Module{Path: path})
	}
	ordered, err := inOrder(modules, map[string][]string{"a": {"d"}, "b": {"c", "d"}, "c": {"d"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range ordered {
		got = append(got, m.Path)
	}
	if want := []string{"d", "a", "c", "b"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	_, err = inOrder(modules, map[string][]string{"a": {"b"}, "b": {"c"}, "c": {"a"}})
	checkError(t, err, "a requires itself, through other modules")
}

func checkError(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("got the error %v", err)
	case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
		t.Errorf("got the error %v, want one with %q", err, want)
	}
}
