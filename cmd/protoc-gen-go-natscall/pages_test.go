package main

import (
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/natscall/natscall/internal/modproxy"
	"github.com/natscall/natscall/internal/pages"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestPages does what the pages tell their readers to do, in an empty folder: it writes the files
// and runs the lines of the blocks with titles as they stand, with bash, on a NATS server of the
// test, and natscall comes from a module proxy.
func TestPages(t *testing.T) {
	r := newReader(t)
	t.Run("hello", r.testHello)
	t.Run("getting started", r.testGettingStarted)
	t.Run("modules", r.testModules)
}

// testHello follows README.md and docs/generate.md. Each of their ways ends with a call.
func (r reader) testHello(t *testing.T) {
	t.Parallel() // as the others: most of the time is that of downloads, and of linkers
	readme, guide := readPage(t, "README.md"), readPage(t, "docs/generate.md")
	const source = "proto/hello/v1/hello.proto"
	call := readme.pick("main.go", "run")
	tests := []struct {
		name     string
		blocks   []pages.Block
		requires []string // in go.mod, beside what each has
		extra    []string // generated beside what each has
	}{
		{
			name:   "README",
			blocks: readme.pick("start", source, "buf.yaml", "buf.gen.yaml", "main.go", "generate", "run"),
		},
		{
			name:   "tool directive",
			blocks: append(guide.pick("start", source, "buf.yaml", "tool", "buf.gen.yaml tool", "options tool", "generate"), call...),
		},
		{
			name:   "go install",
			blocks: append(guide.pick("start", source, "buf.yaml", "install", "buf.gen.yaml install", "options install", "generate"), call...),
		},
		{
			name:   "managed mode",
			blocks: append(withoutGoPackage(guide.pick("start", source, "buf.yaml", "tool", "buf.gen.yaml managed", "options tool", "generate")), call...),
		},
		{
			name:   "protoc",
			blocks: append(guide.pick("start", source, "install", "options install", "protoc"), call...),
		},
		{
			name:     "vtprotobuf",
			blocks:   append(guide.pick("start", source, "buf.yaml", "tool", "buf.gen.yaml tool", "vtproto", "buf.gen.yaml vtproto", "options tool", "generate"), call...),
			requires: []string{"github.com/planetscale/vtprotobuf"},
			extra:    []string{"gen/hello/v1/hello_vtproto.pb.go"},
		},
	}
	readme.checkAllPicked(t)
	guide.checkAllPicked(t)

	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := filepath.Join(r.follow(t, test.blocks), "hello")
			checkRequirements(t, dir, test.requires)
			if test.requires == nil {
				checkSums(t, dir)
			}
			checkGenerated(t, dir, test.extra)
		})
	}

	t.Run("managed mode without disable", func(t *testing.T) {
		blocks := withoutGoPackage(guide.pick("start", source, "buf.yaml", "tool", "buf.gen.yaml managed", "options tool", "generate"))
		for i := range blocks {
			before, rest, _ := strings.Cut(blocks[i].Text, "  disable:\n")
			if _, after, ok := strings.Cut(rest, "  override:\n"); ok {
				blocks[i].Text = before + "  override:\n" + after
			}
		}
		out, err := r.run(t, t.TempDir(), script(blocks))
		if err == nil || !strings.Contains(out, "list {file_option: go_package, path: natscall/v1} under managed.disable") {
			t.Errorf("got %v, want what is to be disabled:\n%s", err, out)
		}
	})
}

// maxExample is how many lines the service of README.md may have, with its .proto file and client.
const maxExample = 80

// TestExampleIsShort holds README.md to what it promises.
func TestExampleIsShort(t *testing.T) {
	lines := 0
	for _, b := range readPage(t, "README.md").pick("proto/hello/v1/hello.proto", "main.go") {
		lines += strings.Count(b.Text, "\n")
	}
	if lines >= maxExample {
		t.Errorf("the .proto file, the service and the client have %d lines, want less than %d", lines, maxExample)
	}
}

// testGettingStarted follows the guide from its first line to its last.
func (r reader) testGettingStarted(t *testing.T) {
	t.Parallel()
	r.follow(t, readPage(t, "docs/getting-started.md").all())
}

// testModules adds to a module what its reader gets beside package rpc.
func (r reader) testModules(t *testing.T) {
	t.Parallel()
	blocks := readPage(t, "README.md").pick("start")
	for _, name := range []string{"docs/tool.md", "docs/security.md", "docs/identity.md", "docs/telemetry.md", "docs/validation.md"} {
		blocks = append(blocks, readPage(t, name).all()...)
	}
	dir := filepath.Join(r.follow(t, blocks), "hello")
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range []string{"rpcauth", "rpcotel", "rpcvalidate"} {
		if !strings.Contains(string(out), modproxy.Root+"/rpc/"+module) {
			t.Errorf("go.mod does not require %s:\n%s", module, out)
		}
	}
}

// page has the blocks of a page that are for its reader to copy: those with titles.
type page struct {
	*testing.T
	name   string
	blocks []pages.Block
	picked map[string]bool
}

func readPage(t *testing.T, name string) page {
	t.Helper()
	blocks, err := pages.Read(moduleRoot, name)
	if err != nil {
		t.Fatal(err)
	}
	blocks = slices.DeleteFunc(blocks, func(b pages.Block) bool { return b.Title == "" })
	return page{t, name, blocks, make(map[string]bool)}
}

// pick returns blocks by their keys.
func (p page) pick(keys ...string) []pages.Block {
	p.Helper()
	var blocks []pages.Block
	for _, key := range keys {
		i := slices.IndexFunc(p.blocks, func(b pages.Block) bool { return b.Key() == key })
		if i < 0 {
			p.Fatalf("%s has no block %q", p.name, key)
		}
		blocks = append(blocks, p.blocks[i])
		p.picked[key] = true
	}
	return blocks
}

// all returns the blocks in their order.
func (p page) all() []pages.Block {
	var keys []string
	for _, b := range p.blocks {
		keys = append(keys, b.Key())
	}
	return p.pick(keys...)
}

// checkAllPicked makes sure that the page tells its reader nothing untried.
func (p page) checkAllPicked(t *testing.T) {
	t.Helper()
	for _, b := range p.blocks {
		if !p.picked[b.Key()] {
			t.Errorf("no test tries this block of %s, with the title %q:\n%s", p.name, b.Key(), b.Text)
		}
	}
}

// serves waits until a service in the background is there, or has ended.
const serves = "while kill -0 $! && ! nats micro ls --json 2>/dev/null | grep -q '\"id\"'; do sleep 0.02; done"

// script makes a script of blocks: it writes the files and runs the lines. What the commands
// of console blocks print goes to files.
func script(blocks []pages.Block) string {
	var lines strings.Builder
	for i, b := range blocks {
		redirect := ">"
		if b.Append {
			redirect = ">>"
		}
		switch b.Language {
		case "sh":
			lines.WriteString(b.Text)
		case "console":
			text, _ := pages.ConsoleScript(i, b, serves)
			lines.WriteString(text)
		default:
			fmt.Fprintf(&lines, "mkdir -p %s\ncat %s%s <<'END OF FILE'\n%sEND OF FILE\n", path.Dir(b.Title), redirect, b.Title, b.Text)
		}
	}
	return lines.String()
}

// withoutGoPackage leaves out what managed mode fills in.
func withoutGoPackage(blocks []pages.Block) []pages.Block {
	for i, b := range blocks {
		if b.Language != "proto" {
			continue
		}
		lines := slices.Collect(strings.Lines(b.Text))
		lines = slices.DeleteFunc(lines, func(line string) bool { return strings.HasPrefix(line, "option go_package") })
		blocks[i].Text = strings.Join(lines, "")
	}
	return blocks
}

// reader is somebody who has Go, buf, protoc and a NATS server, and natscall
// from a module proxy: no checkout, no go.sum, and an empty module cache.
type reader struct{ env []string }

func newReader(t *testing.T) reader {
	t.Helper()
	bin, gopath := t.TempDir(), t.TempDir()
	installTools(t, bin)
	env, err := modproxy.Environ(newProxy(t), gopath)
	if err != nil {
		t.Fatal(err)
	}
	return reader{append(env,
		"XDG_CONFIG_HOME="+t.TempDir(), // no context of nats that somebody has selected
		"PATH="+strings.Join([]string{filepath.Join(gopath, "bin"), bin, os.Getenv("PATH")}, string(os.PathListSeparator)),
	)}
}

// follow does what blocks say, in an empty folder, whose name it returns.
func (r reader) follow(t *testing.T, blocks []pages.Block) string {
	t.Helper()
	dir, printed := t.TempDir(), t.TempDir()
	r.env = append(slices.Clip(r.env), pages.PrintedVar+"="+printed, "NATS_URL="+rpctest.NewServer(t).URL())
	out, err := r.run(t, dir, script(blocks))
	if err := pages.Compare(blocks, printed); err != nil { // says why a script has failed, too
		t.Error(err)
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// run runs a script with bash and returns what it says.
func (r reader) run(t *testing.T, dir, script string) (string, error) {
	t.Helper()
	// The prelude ends the services of scripts that fail.
	const prelude = "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"
	cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", prelude+script)
	cmd.Dir, cmd.Env, cmd.WaitDelay = dir, r.env, time.Minute
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// protocScript is in place of protoc, which is no Go program: buf's own
// implementation of it. Like protoc it wants the folders of the output to exist.
const protocScript = `#!/bin/sh
for arg; do
	case $arg in
	--*_out=*) test -d "${arg#*=}" || { echo "${arg#*=}/: No such file or directory" >&2; exit 1; } ;;
	esac
done
exec buf alpha protoc "$@"
`

// installTools puts buf and nats, in the versions that .ci/tools pins, and protoc into a folder.
func installTools(t *testing.T, bin string) {
	t.Helper()
	for _, name := range []string{"buf", "nats"} {
		cmd := exec.Command("go", "install", tool(t, name))
		cmd.Env = append(os.Environ(), "GOBIN="+bin, "GOFLAGS=", "GOWORK=off")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("go install %s: %v\n%s", tool(t, name), err, out)
		}
	}
	if err := os.WriteFile(filepath.Join(bin, "protoc"), []byte(protocScript), 0o755); err != nil {
		t.Fatal(err)
	}
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

// checkRequirements makes sure that users of the runtime pay for nothing but
// nats.go, protobuf and what those need: in their go.mod and in their program.
func checkRequirements(t *testing.T, dir string, extra []string) {
	t.Helper()
	want := append([]string{
		"github.com/klauspost/compress",
		"github.com/nats-io/nats.go",
		"github.com/nats-io/nkeys",
		"github.com/nats-io/nuid",
		"github.com/natscall/natscall",
		"golang.org/x/crypto",
		"golang.org/x/sys",
		"google.golang.org/protobuf",
	}, extra...)
	slices.Sort(want)

	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var mod struct{ Require []struct{ Path string } }
	if err := json.Unmarshal(out, &mod); err != nil {
		t.Fatal(err)
	}
	var required []string
	for _, require := range mod.Require {
		required = append(required, require.Path)
	}
	slices.Sort(required)
	if diff := cmp.Diff(want, required); diff != "" {
		t.Errorf("requirements of a module that uses natscall (-want +got):\n%s", diff)
	}

	program, err := buildinfo.ReadFile(filepath.Join(dir, "hello"))
	if err != nil {
		t.Fatal(err)
	}
	var linked []string
	for _, module := range program.Deps {
		linked = append(linked, module.Path)
	}
	slices.Sort(linked)
	if diff := cmp.Diff(want, linked); diff != "" {
		t.Errorf("modules in a program that uses natscall (-want +got):\n%s", diff)
	}
}

// checkGenerated makes sure that only the module's own files are generated.
func checkGenerated(t *testing.T, dir string, extra []string) {
	t.Helper()
	var got []string
	for name := range readFiles(t, filepath.Join(dir, "gen")) {
		got = append(got, "gen/"+name)
	}
	want := append([]string{"gen/hello/v1/hello.pb.go", "gen/hello/v1/hellov1nats/hello.nats.go"}, extra...)
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("generated files (-want +got):\n%s", diff)
	}
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
