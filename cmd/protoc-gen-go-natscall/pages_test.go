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
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestPages does what README.md and docs/generate.md tell their readers to do,
// in an empty folder: it writes the files and runs the lines of the pages as
// they stand, with bash, and natscall comes from a module proxy. Each of them
// ends with a call, on a NATS server of the test.
func TestPages(t *testing.T) {
	readme, guide := readPage(t, "README.md"), readPage(t, "docs/generate.md")
	const source = "proto/hello/v1/hello.proto"
	call := readme.pick("main.go", "run")
	tests := []struct {
		name     string
		blocks   []block
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

	r := newReader(t)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			out, err := r.run(t, dir, script(test.blocks))
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if !strings.Contains(out, "\nHello Ada\n") {
				t.Errorf("the program does not say \"Hello Ada\":\n%s", out)
			}
			dir = filepath.Join(dir, "hello")
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
			before, rest, _ := strings.Cut(blocks[i].text, "  disable:\n")
			if _, after, ok := strings.Cut(rest, "  override:\n"); ok {
				blocks[i].text = before + "  override:\n" + after
			}
		}
		out, err := r.run(t, t.TempDir(), script(blocks))
		if err == nil || !strings.Contains(out, "list {file_option: go_package, path: natscall/v1} under managed.disable") {
			t.Errorf("got %v, want what is to be disabled:\n%s", err, out)
		}
	})
}

// block is a fenced block of a page. What stands behind the fence says what it
// is: the language, title=NAME, where blocks share a title variant=NAME, and
// append where the block belongs to the end of the file.
type block struct {
	language, title, variant, text string
	append                         bool
}

// key is what names the block among those of its page.
func (b block) key() string { return strings.TrimSpace(b.title + " " + b.variant) }

// page has the blocks of a page that are for its reader to copy.
type page struct {
	*testing.T
	name   string
	blocks []block
	picked map[string]bool
}

func readPage(t *testing.T, name string) page {
	t.Helper()
	p := page{t, name, nil, make(map[string]bool)}
	for i, part := range strings.Split("\n"+readFile(t, moduleRoot+"/"+name), "\n```") {
		info, text, _ := strings.Cut(part, "\n")
		if i%2 == 0 || info == "" || strings.HasPrefix(text, "make ") {
			continue
		}
		b := block{text: text + "\n"}
		for i, word := range strings.Fields(info) {
			key, value, _ := strings.Cut(word, "=")
			switch {
			case i == 0:
				b.language = word
			case key == "title":
				b.title = value
			case key == "variant":
				b.variant = value
			case key == "append":
				b.append = true
			}
		}
		if b.title != "" || b.language == "sh" || b.language == "yaml" || b.language == "proto" {
			p.blocks = append(p.blocks, b)
		}
	}
	return p
}

// pick returns blocks by their keys.
func (p page) pick(keys ...string) []block {
	p.Helper()
	var blocks []block
	for _, key := range keys {
		i := slices.IndexFunc(p.blocks, func(b block) bool { return b.key() == key })
		if i < 0 {
			p.Fatalf("%s has no block %q", p.name, key)
		}
		blocks = append(blocks, p.blocks[i])
		p.picked[key] = true
	}
	return blocks
}

// checkAllPicked makes sure that the page tells its reader nothing untried.
func (p page) checkAllPicked(t *testing.T) {
	t.Helper()
	for _, b := range p.blocks {
		if !p.picked[b.key()] {
			t.Errorf("no test tries this block of %s, with the title %q:\n%s", p.name, b.key(), b.text)
		}
	}
}

// script makes a script of blocks: it writes the files and runs the lines.
func script(blocks []block) string {
	var lines strings.Builder
	for _, b := range blocks {
		redirect := ">"
		if b.append {
			redirect = ">>"
		}
		if b.language == "sh" {
			lines.WriteString(b.text)
		} else {
			fmt.Fprintf(&lines, "mkdir -p %s\ncat %s%s <<'END OF FILE'\n%sEND OF FILE\n", path.Dir(b.title), redirect, b.title, b.text)
		}
	}
	return lines.String()
}

// withoutGoPackage leaves out what managed mode fills in.
func withoutGoPackage(blocks []block) []block {
	for i, b := range blocks {
		if b.language != "proto" {
			continue
		}
		lines := slices.Collect(strings.Lines(b.text))
		lines = slices.DeleteFunc(lines, func(line string) bool { return strings.HasPrefix(line, "option go_package") })
		blocks[i].text = strings.Join(lines, "")
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
		"NATS_URL="+rpctest.NewServer(t).URL(),
		"PATH="+strings.Join([]string{filepath.Join(gopath, "bin"), bin, os.Getenv("PATH")}, string(os.PathListSeparator)),
	)}
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

// installTools puts buf, in the version that .ci/tools pins, and protoc into a
// folder.
func installTools(t *testing.T, bin string) {
	t.Helper()
	cmd := exec.Command("go", "install", tool(t, "buf"))
	cmd.Env = append(os.Environ(), "GOBIN="+bin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go install %s: %v\n%s", tool(t, "buf"), err, out)
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
