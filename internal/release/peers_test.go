//go:build release

package main

import (
	"archive/zip"
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/semver"

	"github.com/natscall/natscall/internal/modproxy"
	"github.com/natscall/natscall/rpc/rpctest"
)

// peers builds programs of internal/peer with versions of natscall from a module proxy.
type peers struct {
	proxy string
	env   []string
	url   string // of NATS
}

// testPeers lets the last release of each minor version, and the one of this test, talk to the
// checkout. The code of the older one, with what was generated for it, must also work when only the
// version in its go.mod is raised. docs/compatibility.md promises both.
func (r *testRelease) testPeers(t *testing.T) {
	p := peers{proxy: t.TempDir(), url: rpctest.NewServer(t, rpctest.WithoutLeakCheck()).URL()}
	var err error
	if p.env, err = modproxy.Environ(p.proxy, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	// A fix of an older version is on a branch of its own, and later versions owe this one nothing.
	olds := lastOfMinors(slices.DeleteFunc(r.tags(t), func(tag string) bool {
		return tag != r.version && semver.Compare(tag, r.previous) > 0
	}))
	if !slices.Contains(olds, r.version) {
		t.Fatalf("the releases %v lack the one of this test, %s", olds, r.version)
	}
	for _, old := range olds {
		main := []modproxy.Module{{Path: modproxy.Root, Version: old}}
		if err := (modproxy.Revision{Repo: r.clone, Name: old}).Write(p.proxy, main); err != nil {
			t.Fatal(err)
		}
	}
	next := nextVersion(r.version)
	if err := modproxy.Write(p.proxy, []modproxy.Module{{Path: modproxy.Root, Version: next, Dir: r.checkout}}); err != nil {
		t.Fatal(err)
	}
	current := p.build(t, next, next)
	for _, old := range olds {
		released, raised := p.build(t, old, old), p.build(t, old, next)
		t.Run(old+" calls the checkout", func(t *testing.T) { p.talk(t, released, current) })
		t.Run("the checkout calls "+old, func(t *testing.T) { p.talk(t, current, released) })
		t.Run("code of "+old+" calls "+old, func(t *testing.T) { p.talk(t, raised, released) })
		t.Run(old+" calls code of "+old, func(t *testing.T) { p.talk(t, released, raised) })
	}
}

// lastOfMinors returns the last release of each minor version, the newest first.
func lastOfMinors(tags []string) []string {
	versions := slices.DeleteFunc(slices.Clone(tags), func(tag string) bool { return !semver.IsValid(tag) || semver.Prerelease(tag) != "" })
	slices.SortFunc(versions, func(a, b string) int { return semver.Compare(b, a) })
	return slices.CompactFunc(versions, func(a, b string) bool { return semver.MajorMinor(a) == semver.MajorMinor(b) })
}

func TestLastOfMinors(t *testing.T) {
	got := lastOfMinors([]string{"examples/v0.3.0", "nightly", "v0.1.0", "v0.1.10", "v0.1.9", "v0.2.0", "v0.3.0-rc.1", "v0.10.0"})
	if want := []string{"v0.10.0", "v0.2.0", "v0.1.10"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// own is what a peer is made of, as a module of its own: itself, and generated code.
var own = []string{"internal/peer", "gen/order", "gen/inventory"}

// build makes a peer in a module of its own, of the code of one version and with the runtime of
// another one.
func (p peers) build(t *testing.T, code, runtime string) (program string) {
	t.Helper()
	const module = "example.com/peer"
	dir := t.TempDir()
	files, err := zip.OpenReader(filepath.Join(p.proxy, filepath.FromSlash(modproxy.Root), "@v", code+".zip"))
	if err != nil {
		t.Fatal(err)
	}
	defer files.Close()
	for _, file := range files.File {
		name := strings.TrimPrefix(file.Name, modproxy.Root+"@"+code+"/")
		for _, folder := range own {
			if strings.HasPrefix(name, folder+"/") && path.Ext(name) == ".go" && !strings.HasSuffix(name, "_test.go") {
				writeOwn(t, filepath.Join(dir, filepath.FromSlash(name)), file, module)
			}
		}
	}
	for _, args := range [][]string{
		{"mod", "init", module},
		{"mod", "edit", "-require", modproxy.Root + "@" + runtime},
		{"mod", "tidy"},
		{"build", "-o", "peer.exe", "./internal/peer"},
	} {
		runIn(t, dir, p.env, "go", args...)
	}
	return filepath.Join(dir, "peer.exe")
}

// writeOwn writes a file of natscall as one of another module, which imports the copies of own.
func writeOwn(t *testing.T, name string, file *zip.File, module string) {
	t.Helper()
	r, err := file.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	source := string(text)
	for _, folder := range own {
		source = strings.ReplaceAll(source, `"`+modproxy.Root+"/"+folder, `"`+module+"/"+folder)
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(source), 0o666); err != nil {
		t.Fatal(err)
	}
}

// kinds is how many kinds of calls a peer makes at least.
const kinds = 19

// talk lets one program call another one.
func (p peers) talk(t *testing.T, client, server string) {
	prefix := "peers." + strings.NewReplacer("/", "-", " ", "-", ".", "-").Replace(t.Name())
	serve := exec.CommandContext(context.WithoutCancel(t.Context()), server, "-prefix", prefix, "serve")
	serve.Env, serve.Stderr = append(os.Environ(), "NATS_URL="+p.url), t.Output()
	input, err := serve.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	output, err := serve.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := serve.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = input.Close() // it ends then
		if err := serve.Wait(); err != nil {
			t.Errorf("the server: %v", err)
		}
	}()
	if _, err := bufio.NewReader(output).ReadString('\n'); err != nil {
		t.Fatalf("the server does not start: %v", err)
	}
	out := runIn(t, t.TempDir(), serve.Env, client, "-prefix", prefix, "call")
	if n := strings.Count(out, "ok "); n < kinds {
		t.Errorf("%d kinds of calls, want at least %d:\n%s", n, kinds, out)
	}
}
