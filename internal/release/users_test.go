//go:build release

package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/semver"

	"github.com/natscall/natscall/internal/modproxy"
)

// testRelease is a release of the checkout, made in a clone and served by a module proxy.
type testRelease struct {
	checkout string
	clone    string
	previous string // the release that the checkout comes after, if any
	version  string
	modules  []modproxy.Module
	proxy    string
	gopath   string
	env      []string // in which the go command finds the release
}

// TestUsers makes a release of what is committed and does with it what users do. It takes minutes,
// so it has a target of its own: make release-test.
func TestUsers(t *testing.T) {
	r := makeRelease(t)
	t.Run("sums", r.testSums)
	t.Run("modules", r.testModules)
	t.Run("commands", r.testCommands)
	t.Run("demo", r.testDemo)
	t.Run("peers", r.testPeers)
	t.Run("pages", r.testPages)
}

func makeRelease(t *testing.T) *testRelease {
	t.Helper()
	checkout, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	r := &testRelease{checkout: checkout, clone: filepath.Join(t.TempDir(), "natscall"), proxy: t.TempDir(), gopath: t.TempDir()}
	runIn(t, checkout, nil, "git", "clone", "--quiet", ".", r.clone)
	runIn(t, r.clone, nil, "git", "switch", "--quiet", "--force-create", "released")
	runIn(t, r.clone, nil, "git", "config", "user.name", "Ada")
	runIn(t, r.clone, nil, "git", "config", "user.email", "ada@example.com")
	sayMore(t, r.clone)
	r.previous = latest(strings.Fields(runIn(t, r.clone, nil, "git", "tag", "--merged", "HEAD")))
	// On the branch of an older version there are tags of later ones.
	r.version = nextVersion(latest(r.tags(t)))

	var stdout, stderr bytes.Buffer
	t.Chdir(r.clone)
	if code := run(t.Context(), []string{r.version}, &stdout, &stderr); code != 0 {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	t.Logf("%s", &stdout)

	revision := modproxy.Revision{Repo: r.clone, Name: r.version}
	if r.modules, err = revision.Modules(r.version); err != nil {
		t.Fatal(err)
	}
	if err := revision.Write(r.proxy, r.modules); err != nil {
		t.Fatal(err)
	}
	if r.env, err = modproxy.Environ(r.proxy, r.gopath); err != nil {
		t.Fatal(err)
	}
	return r
}

// tags are all tags of the clone.
func (r *testRelease) tags(t *testing.T) []string {
	t.Helper()
	return strings.Fields(runIn(t, r.clone, nil, "git", "tag"))
}

// sayMore writes into a changelog that says nothing yet, as after a release.
func sayMore(t *testing.T, clone string) {
	t.Helper()
	text := read(t, clone, changelogName)
	c, err := parseChangelog(text)
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(c.unreleased) != "" {
		return
	}
	text = unreleasedHeading.ReplaceAllString(text, "## [Unreleased]\n\n- Nothing but a test.")
	if err := os.WriteFile(filepath.Join(clone, changelogName), []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	runIn(t, clone, nil, "git", "commit", "--quiet", "--all", "--message", "Say more")
}

// nextVersion is a version after the last one.
func nextVersion(last string) string {
	if last == "" {
		return "v0.99.0"
	}
	var major, minor int
	if _, err := fmt.Sscanf(semver.MajorMinor(last), "v%d.%d", &major, &minor); err != nil {
		panic(err) // a valid version has both
	}
	return fmt.Sprintf("v%d.%d.0", major, minor+1)
}

// testSums lets the go command fetch the tags from git: it must find what the proxy has, and what
// stands in each go.sum.
func (r *testRelease) testSums(t *testing.T) {
	env := append(os.Environ(),
		"GOPATH="+t.TempDir(), "GOMODCACHE=", "GOWORK=off", "GOFLAGS=-modcacherw",
		"GOPROXY=direct", "GONOSUMDB="+modproxy.Root,
		"GIT_CONFIG_COUNT=1", "GIT_CONFIG_KEY_0=url.file://"+filepath.ToSlash(r.clone)+".insteadOf", "GIT_CONFIG_VALUE_0="+repository,
	)
	for _, m := range r.modules {
		var found struct{ Sum, GoModSum string }
		out := runIn(t, t.TempDir(), env, "go", "mod", "download", "-json", m.Path+"@"+m.Version)
		if err := json.Unmarshal([]byte(out), &found); err != nil {
			t.Fatal(err)
		}
		sums, err := (modproxy.Revision{Repo: r.clone, Name: m.Tag()}).Sums(m)
		if err != nil {
			t.Fatal(err)
		}
		if sums.Zip != found.Sum || sums.Mod != found.GoModSum {
			t.Errorf("%s: the go command finds %+v, and the release has %+v", m.Path, found, sums)
		}
	}
}

// testModules builds each module outside of the workspace, as its users do: against the versions in
// its go.mod, with the hashes in its go.sum.
func (r *testRelease) testModules(t *testing.T) {
	for _, m := range r.modules {
		t.Run(m.Tag(), func(t *testing.T) {
			dir := filepath.Join(r.clone, filepath.FromSlash(m.Folder()))
			for _, args := range [][]string{{"mod", "tidy", "-diff"}, {"build", "./..."}, {"vet", "./..."}} {
				runIn(t, dir, r.env, "go", args...)
			}
			if mod := read(t, dir, "go.mod"); strings.Contains(mod, "replace") {
				t.Errorf("go.mod replaces something:\n%s", mod)
			}
		})
	}
}

// testCommands installs the commands that docs name: they know their version.
func (r *testRelease) testCommands(t *testing.T) {
	for path, args := range map[string]string{
		modproxy.Root + "/cmd/natscall":               "version",
		modproxy.Root + "/cmd/protoc-gen-go-natscall": "--version",
	} {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			runIn(t, t.TempDir(), r.env, "go", "install", path+"@latest")
			file := filepath.Join(r.gopath, "bin", name)
			info, err := buildinfo.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if info.Main.Version != r.version || info.Main.Replace != nil {
				t.Errorf("it is made of %+v, want %s", info.Main, r.version)
			}
			for _, dep := range info.Deps {
				if isOurs(dep.Path) && (dep.Version != r.version || dep.Replace != nil) {
					t.Errorf("it has %+v, want %s", dep, r.version)
				}
			}
			if out := runIn(t, t.TempDir(), r.env, file, args); !strings.Contains(out, r.version) {
				t.Errorf("%s %s prints %q, want %s", name, args, out, r.version)
			}
		})
	}
}

// testDemo runs the demo as README.md says for readers without a clone.
func (r *testRelease) testDemo(t *testing.T) {
	path := modproxy.Root + "/examples/shop@latest"
	if readme := read(t, r.clone, "README.md"); !strings.Contains(readme, "`go run "+path+"`") {
		t.Errorf("README.md does not run %s", path)
	}
	if out := runIn(t, t.TempDir(), r.env, "go", "run", path); !strings.Contains(out, "Every line adds up") {
		t.Errorf("the demo did not come to its end:\n%s", out)
	}
}

// testPages follows README.md and the guides of the release, with the release.
func (r *testRelease) testPages(t *testing.T) {
	out := runIn(t, r.clone, nil, "go", "test", "-count", "1", "-timeout", "20m", "-run", "^TestPages$", "-v", "./cmd/protoc-gen-go-natscall", "-proxy", r.proxy)
	if !strings.Contains(out, "--- PASS: TestPages ") {
		t.Errorf("the pages were not followed:\n%s", out)
	}
}

// runIn runs a command and returns what it prints.
func runIn(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = dir, env
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("in %s: %s %s: %v\n%s%s", dir, name, strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String()
}
