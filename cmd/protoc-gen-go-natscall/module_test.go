package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/natscall/natscall/rpc/rpctest"
)

// TestFreshModule does what docs/generate.md tells users to do, in a module of
// its own, with the files and the commands of that page.
func TestFreshModule(t *testing.T) {
	page := readPage(t, "docs/generate.md")
	url := rpctest.NewServer(t).URL()
	tests := []struct {
		name, install, template string
		managed                 bool
	}{
		{"tool directive", "tool", "buf.gen.yaml tool", false},
		{"go install", "install", "buf.gen.yaml install", false},
		{"managed mode", "tool", "buf.gen.yaml managed", true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := newModule(t)
			m.write("buf.yaml", page["buf.yaml"])
			m.write("buf.gen.yaml", page[test.template])
			m.write("proto/hello/v1/hello.proto", page["proto/hello/v1/hello.proto"])
			if test.managed {
				m.write("proto/hello/v1/hello.proto", withoutGoPackage(page["proto/hello/v1/hello.proto"]))
			}
			m.write("main.go", readFile(t, "testdata/hello/main.go"))

			m.script(page[test.install])
			m.script(page["generate"])
			if got := m.run("go", "run", ".", url); got != "Hello Ada\n" {
				t.Errorf("the program says %q", got)
			}
			m.checkRequirements()
			m.checkGenerated()
		})
	}
}

// TestREADME: the README's buf.gen.yaml are those that TestFreshModule has tried.
func TestREADME(t *testing.T) {
	page := readPage(t, "docs/generate.md")
	readme := readFile(t, "../../README.md")
	for _, name := range []string{"buf.gen.yaml tool", "buf.gen.yaml install"} {
		var indented string
		for line := range strings.Lines(page[name]) {
			code, _, _ := strings.Cut(strings.TrimRight(line, "\n"), " #")
			indented += "   " + code + "\n"
		}
		if !strings.Contains(readme, indented) {
			t.Errorf("README.md does not have %s as docs/generate.md has it:\n%s", name, indented)
		}
	}
	if !strings.Contains(readme, strings.ReplaceAll(strings.TrimSpace("   "+page["tool"]), "\n", "\n   ")) {
		t.Error("README.md does not have the commands of docs/generate.md")
	}
}

// module is a Go module of a user, in a folder of the test.
type module struct {
	*testing.T
	dir, bin string
	buf      string // the import path and version of buf
}

// newModule makes a module that has the checkout in place of a release. It
// starts with our checksums, so that the test asks no checksum database.
func newModule(t *testing.T) module {
	t.Helper()
	root, err := filepath.Abs(moduleRoot)
	if err != nil {
		t.Fatal(err)
	}
	m := module{t, t.TempDir(), t.TempDir(), tool(t, "buf")}
	m.write("go.mod", "module example.com/hello\n\ngo 1.26.0\n\nreplace "+modulePath+" => "+root+"\n")
	m.write("go.sum", readFile(t, moduleRoot+"/go.sum"))
	return m
}

func (m module) write(name, text string) {
	m.Helper()
	if text == "" {
		m.Fatalf("docs/generate.md has no %s", name)
	}
	writeFiles(m.T, m.dir, map[string]string{name: text})
}

// script runs commands of the page, one a line, with the pinned buf. In place of
// "go get", which would ask for releases of natscall, it edits go.mod likewise.
func (m module) script(lines string) {
	m.Helper()
	for line := range strings.Lines(lines) {
		args := strings.Fields(line)
		switch {
		case args[0] == "buf":
			args = slices.Concat([]string{"go", "run", m.buf}, args[1:])
		case strings.HasPrefix(line, "go get -tool "):
			m.run(modEdit("-tool=", args[3:])...)
			args = []string{"go", "list", "-deps", "tool"} // adds what the tools need, as "go get" does
		case strings.HasPrefix(line, "go get "):
			args = modEdit("-require=", args[2:])
		}
		m.run(args...)
	}
}

// modEdit is "go mod edit" with a flag for each of the paths. Any version of
// natscall does for the latest: go.mod replaces it.
func modEdit(flag string, paths []string) []string {
	args := []string{"go", "mod", "edit"}
	for _, path := range paths {
		args = append(args, flag+strings.Replace(path, "@latest", "@v0.0.0", 1))
	}
	return args
}

func (m module) run(args ...string) string {
	m.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = m.dir
	cmd.Env = append(os.Environ(),
		"GOBIN="+m.bin, "PATH="+m.bin+string(os.PathListSeparator)+os.Getenv("PATH"),
		"GOFLAGS=-mod=mod", "GOWORK=off") // -mod=mod completes go.mod, as "go get" does
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		m.Fatalf("%s: %v\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return string(out)
}

// checkRequirements makes sure that users of the runtime pay for nothing but
// nats.go, protobuf and what those need.
func (m module) checkRequirements() {
	m.Helper()
	var mod struct{ Require []struct{ Path string } }
	if err := json.Unmarshal([]byte(m.run("go", "mod", "edit", "-json")), &mod); err != nil {
		m.Fatal(err)
	}
	var got []string
	for _, require := range mod.Require {
		got = append(got, require.Path)
	}
	slices.Sort(got)
	want := []string{
		"github.com/klauspost/compress",
		"github.com/nats-io/nats.go",
		"github.com/nats-io/nkeys",
		"github.com/nats-io/nuid",
		"github.com/natscall/natscall",
		"golang.org/x/crypto",
		"golang.org/x/sys",
		"google.golang.org/protobuf",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		m.Errorf("requirements of a module that uses natscall (-want +got):\n%s", diff)
	}
}

// checkGenerated makes sure that only the module's own files are generated.
func (m module) checkGenerated() {
	m.Helper()
	var got []string
	err := filepath.WalkDir(filepath.Join(m.dir, "gen"), func(path string, entry os.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			got = append(got, filepath.ToSlash(strings.TrimPrefix(path, m.dir+string(filepath.Separator))))
		}
		return err
	})
	if err != nil {
		m.Fatal(err)
	}
	want := []string{"gen/hello/v1/hello.pb.go", "gen/hello/v1/hellov1nats/hello.nats.go"}
	if diff := cmp.Diff(want, got); diff != "" {
		m.Errorf("generated files (-want +got):\n%s", diff)
	}
}

// withoutGoPackage leaves out what managed mode fills in.
func withoutGoPackage(source string) string {
	var kept strings.Builder
	for line := range strings.Lines(source) {
		if !strings.HasPrefix(line, "option go_package") {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// readPage returns the fenced blocks of a page of the repository by the titles
// that stand behind the fence.
func readPage(t *testing.T, name string) map[string]string {
	t.Helper()
	blocks := make(map[string]string)
	for i, part := range strings.Split("\n"+readFile(t, moduleRoot+"/"+name), "\n```") {
		info, text, _ := strings.Cut(part, "\n")
		if _, title, ok := strings.Cut(info, "title="); ok && i%2 == 1 {
			blocks[title] = text + "\n"
		}
	}
	return blocks
}

// tool is the module path and version of a tool that .ci/tools pins.
func tool(t *testing.T, name string) string {
	t.Helper()
	for line := range strings.Lines(readFile(t, moduleRoot+"/.ci/tools")) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == name {
			return fields[1]
		}
	}
	t.Fatalf(".ci/tools has no %s", name)
	return ""
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
