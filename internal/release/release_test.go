package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/natscall/natscall/internal/modproxy"
)

// asRelease is the environment variable that makes the test's program the command.
const asRelease = "NATSCALL_AS_RELEASE"

func TestMain(m *testing.M) {
	if os.Getenv(asRelease) != "" {
		main()
	}
	os.Exit(m.Run())
}

// small is a repository with three modules. The last one in go.work is required by the second.
var small = map[string]string{
	"CHANGELOG.md": "# Changelog\n\n## Unreleased\n\n- A thing.\n",
	"LICENSE":      "Do as you like.\n",
	"go.work": "go 1.26.0\n\nuse (\n\t.\n\t./cmd/natscall\n\t./rpc/rpcotel\n)\n\n" +
		"replace (\n\tgithub.com/natscall/natscall v0.1.0 => ./\n\tgithub.com/natscall/natscall/rpc/rpcotel v0.1.0 => ./rpc/rpcotel\n)\n",
	"go.mod":                   "module github.com/natscall/natscall\n\ngo 1.26.0\n",
	"go.sum":                   "",
	"rpc/rpc.go":               "package rpc\n",
	".ci/run":                  "#!/bin/sh\n",
	"rpc/rpcotel/go.mod":       "module github.com/natscall/natscall/rpc/rpcotel\n\ngo 1.26.0\n\nrequire github.com/natscall/natscall v0.1.0\n",
	"rpc/rpcotel/go.sum":       "",
	"rpc/rpcotel/rpcotel.go":   "package rpcotel\n\nimport _ \"github.com/natscall/natscall/rpc\"\n",
	"cmd/natscall/go.mod":      "module github.com/natscall/natscall/cmd/natscall\n\ngo 1.26.0\n\nrequire github.com/natscall/natscall/rpc/rpcotel v0.1.0\n\nrequire github.com/natscall/natscall v0.1.0 // indirect\n",
	"cmd/natscall/go.sum":      "",
	"cmd/natscall/main.go":     "package main\n\nimport _ \"github.com/natscall/natscall/rpc/rpcotel\"\n\nfunc main() { println(\"it runs\") }\n",
	"internal/apart/go.mod":    "module github.com/natscall/natscall/internal/apart\n\nrequire github.com/natscall/natscall v0.0.0\n\nreplace github.com/natscall/natscall => ../..\n",
	"internal/apart/apart.go":  "package apart\n",
	"docs/not in a go file.md": "Text.\n",
}

// repo is a git repository for a test.
type repo struct {
	*testing.T
	git
}

func newRepo(t *testing.T) repo {
	t.Helper()
	// Neither the settings of the person who runs the test, nor a hook of git that runs it, count.
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "GIT_") {
			t.Setenv(name, "") // so that it comes back afterwards
			os.Unsetenv(name)
		}
	}
	t.Setenv("GIT_CONFIG_GLOBAL", os.DevNull)
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	r := repo{t, git{t.Context(), t.TempDir()}}
	r.do("init", "--quiet", "--initial-branch", "main")
	r.do("config", "user.name", "Ada")
	r.do("config", "user.email", "ada@example.com")
	for name, text := range small {
		r.write(name, text)
	}
	r.do("add", "--all")
	r.do("commit", "--quiet", "--message", "All")
	return r
}

func (r repo) do(args ...string) string {
	r.Helper()
	out, err := r.run(args...)
	if err != nil {
		r.Fatal(err)
	}
	return out
}

func (r repo) write(name, text string) {
	r.Helper()
	file := filepath.Join(r.dir, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
		r.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		r.Fatal(err)
	}
}

// state is everything that a release may change.
func (r repo) state() string {
	r.Helper()
	return strings.Join([]string{
		r.do("rev-parse", "HEAD"), r.do("branch", "--list"), r.do("tag"), r.do("status", "--porcelain"), r.do("worktree", "list"),
	}, "\n")
}

// release makes one and returns what it prints.
func (r repo) release(version string, dryRun bool) (string, error) {
	r.Helper()
	var out strings.Builder
	made := release{repo: r.git, version: version, date: "2026-01-02", dryRun: dryRun, out: &out}
	err := made.make()
	return out.String(), err
}

func TestRelease(t *testing.T) {
	r := newRepo(t)
	before := r.state()
	out, err := r.release("v0.2.0", true)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"+## [0.2.0] - 2026-01-02", "+require github.com/natscall/natscall v0.2.0", "\n  rpc/rpcotel/v0.2.0       requires the main module\n", "nothing is changed"} {
		if !strings.Contains(out, want) {
			t.Errorf("the dry run does not say %q:\n%s", want, out)
		}
	}
	if after := r.state(); after != before {
		t.Errorf("the dry run leaves\n%s\nof\n%s", after, before)
	}

	out, err = r.release("v0.2.0", false)
	if err != nil {
		t.Fatal(err)
	}
	if want := "git push --atomic origin main v0.2.0 rpc/rpcotel/v0.2.0 cmd/natscall/v0.2.0\n"; !strings.Contains(out, want) {
		t.Errorf("it does not say %q:\n%s", want, out)
	}
	if status := r.do("status", "--porcelain"); status != "" {
		t.Errorf("it leaves changes:\n%s", status)
	}
	head := r.do("rev-parse", "HEAD")
	for _, tag := range []string{"v0.2.0", "rpc/rpcotel/v0.2.0", "cmd/natscall/v0.2.0"} {
		if got := r.do("rev-parse", tag+"^{commit}"); got != head {
			t.Errorf("%s is the commit %s, want that of the branch, %s", tag, got, head)
		}
	}
	changed := strings.Split(r.do("diff", "--name-only", "HEAD~"), "\n")
	want := []string{"CHANGELOG.md", "cmd/natscall/go.mod", "cmd/natscall/go.sum", "go.work", "rpc/rpcotel/go.mod", "rpc/rpcotel/go.sum"}
	if diff := cmp.Diff(want, changed); diff != "" {
		t.Errorf("changed files (-want +got):\n%s", diff)
	}
	checkSums(t, r, "v0.2.0")

	// The next release, from a branch and a linked worktree.
	r.write("CHANGELOG.md", strings.Replace(read(t, r.dir, "CHANGELOG.md"), "## [Unreleased]\n", "## [Unreleased]\n\n- More.\n", 1))
	r.do("commit", "--quiet", "--all", "--message", "More")
	linked := filepath.Join(t.TempDir(), "linked")
	r.do("worktree", "add", "--quiet", "-b", "next", linked)
	r.dir = linked
	if _, err := r.release("v0.3.0", false); err != nil {
		t.Fatal(err)
	}
	if text := read(t, linked, "CHANGELOG.md"); !strings.Contains(text, "[0.3.0]: https://github.com/natscall/natscall/compare/v0.2.0...v0.3.0\n") {
		t.Errorf("the changelog does not compare the versions:\n%s", text)
	}
	checkSums(t, r, "v0.3.0")
}

// checkSums lets the go command fetch what has been tagged from the repository, as a module proxy
// does, and run it as users do: the sums in each go.sum must be those that it finds.
func checkSums(t *testing.T, r repo, version string) {
	t.Helper()
	env := append(os.Environ(),
		"GOPATH="+t.TempDir(), "GOMODCACHE=", "GOWORK=off", "GOFLAGS=-modcacherw",
		"GOPROXY=direct", "GONOSUMDB="+modproxy.Root,
		"GIT_CONFIG_COUNT=1",
		"GIT_CONFIG_KEY_0=url.file://"+filepath.ToSlash(r.dir)+".insteadOf", "GIT_CONFIG_VALUE_0="+repository,
	)
	command := func(dir string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir, cmd.Env = dir, env
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return string(out)
	}
	sums := r.do("show", "HEAD:cmd/natscall/go.sum")
	for _, path := range []string{modproxy.Root, modproxy.Root + "/rpc/rpcotel"} {
		var module struct{ Sum, GoModSum string }
		if err := json.Unmarshal([]byte(command(r.dir, "mod", "download", "-json", path+"@"+version)), &module); err != nil {
			t.Fatal(err)
		}
		for _, line := range []string{path + " " + version + " " + module.Sum, path + " " + version + "/go.mod " + module.GoModSum} {
			if !slices.Contains(strings.Split(sums, "\n"), line) {
				t.Errorf("cmd/natscall/go.sum lacks the line %q:\n%s", line, sums)
			}
		}
	}
	tool := filepath.Join(r.dir, "cmd", "natscall")
	command(tool, "mod", "tidy", "-diff")
	if out := command(tool, "run", modproxy.Root+"/cmd/natscall@"+version); !strings.Contains(out, "it runs") {
		t.Errorf("go run prints %q", out)
	}
}

func TestRefused(t *testing.T) {
	tests := []struct {
		name, version string
		prepare       func(r repo)
		err           string
	}{
		{"wrong version", "0.2.0", func(repo) {}, "want a semantic version"},
		{"changed file", "v0.2.0", func(r repo) { r.write("rpc/rpc.go", "package rpc // changed\n") }, "commit or remove these changes first, since a release is made of a commit:\n M rpc/rpc.go"},
		{"new file", "v0.2.0", func(r repo) { r.write("rpc/new.go", "package rpc\n") }, "?? rpc/new.go"},
		{"no branch", "v0.2.0", func(r repo) { r.do("switch", "--quiet", "--detach") }, "the checkout is on no branch"},
		{"a module that go.work lacks", "v0.2.0", func(r repo) {
			r.write("rpc/rpclog/go.mod", "module github.com/natscall/natscall/rpc/rpclog\n")
			r.do("add", "--all")
			r.do("commit", "--quiet", "--message", "Logs")
		}, "go.work does not list the module of rpc/rpclog/go.mod, so it would not be released: go work use ./rpc/rpclog"},
		{"no go.sum", "v0.2.0", func(r repo) {
			r.do("rm", "--quiet", "rpc/rpcotel/go.sum")
			r.do("commit", "--quiet", "--message", "None")
		}, "the commit has no rpc/rpcotel/go.sum (make tidy"},
		{"released", "v0.2.0", func(r repo) { r.do("tag", "rpc/rpcotel/v0.2.0") }, "the tag rpc/rpcotel/v0.2.0 exists"},
		{"backwards", "v0.2.0", func(r repo) { r.do("tag", "v0.3.0") }, "v0.2.0 is not after v0.3.0"},
		{"nothing in the changelog", "v0.2.0", func(r repo) {
			r.write("CHANGELOG.md", "# Changelog\n\n## Unreleased\n\n### Added\n")
			r.do("commit", "--quiet", "--all", "--message", "None")
		}, `says nothing under "Unreleased"`},
		{"a tag that git refuses", "v0.2.0", func(r repo) { r.do("tag", "rpc/rpcotel/v0.2.0/x") }, "rpc/rpcotel/v0.2.0"},
		{"a hook that changes files", "v0.2.0", func(r repo) {
			r.write(".git/hooks/pre-commit", "#!/bin/sh\necho '// more' >>rpc/rpc.go\ngit add rpc/rpc.go\n")
			if err := os.Chmod(filepath.Join(r.dir, ".git", "hooks", "pre-commit"), 0o777); err != nil {
				r.Fatal(err)
			}
		}, "a hook of git has changed the files of the release"},
		{"a commit that git refuses", "v0.2.0", func(r repo) { r.do("config", "user.useConfigOnly", "true"); r.do("config", "--unset", "user.email") }, "git commit"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			r := newRepo(t)
			test.prepare(r)
			before := r.state()
			_, err := r.release(test.version, false)
			checkError(t, err, test.err)
			if after := r.state(); after != before {
				t.Errorf("it leaves\n%s\nof\n%s", after, before)
			}
		})
	}
}

// command is the release command as a process of its own.
func (r repo) command(args ...string) *exec.Cmd {
	r.Helper()
	self, err := os.Executable()
	if err != nil {
		r.Fatal(err)
	}
	cmd := exec.CommandContext(r.Context(), self, args...)
	cmd.Dir, cmd.Env = r.dir, append(os.Environ(), asRelease+"=1")
	return cmd
}

// TestInterrupted: a signal leaves nothing, whatever git does when it comes.
func TestInterrupted(t *testing.T) {
	// They run while the worktree is added, and at the commit.
	for _, hook := range []string{"post-checkout", "pre-commit"} {
		t.Run(hook, func(t *testing.T) {
			r := newRepo(t)
			pid := filepath.Join(t.TempDir(), "pid")
			t.Setenv("RELEASE_PID", pid)
			r.write(".git/hooks/"+hook, "#!/bin/sh\nuntil test -s \"$RELEASE_PID\"; do sleep 0.02; done\n"+
				"kill -TERM \"$(cat \"$RELEASE_PID\")\"\nwhile kill -0 $PPID; do sleep 0.02; done 2>/dev/null\n")
			if err := os.Chmod(filepath.Join(r.dir, ".git", "hooks", hook), 0o777); err != nil {
				t.Fatal(err)
			}
			before := r.state()
			var stderr strings.Builder
			cmd := r.command("v0.2.0")
			cmd.Stderr = &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			// In one step, as the hook may be reading.
			if err := os.WriteFile(pid+".new", []byte(strconv.Itoa(cmd.Process.Pid)), 0o666); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(pid+".new", pid); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // the exit code says how it was
			if code := cmd.ProcessState.ExitCode(); code != 1 || stderr.String() != "release: interrupted, and nothing is changed\n" {
				t.Errorf("exit code %d, it says %q", code, &stderr)
			}
			if after := r.state(); after != before {
				t.Errorf("it leaves\n%s\nof\n%s", after, before)
			}
		})
	}
}

// TestPager: whoever has seen enough of a dry run may leave the pager.
func TestPager(t *testing.T) {
	r := newRepo(t)
	before := r.state()
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	_ = reader.Close()
	defer writer.Close()
	cmd := r.command("-dry-run", "v0.2.0")
	cmd.Stdout = writer
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
	if after := r.state(); after != before {
		t.Errorf("it leaves\n%s\nof\n%s", after, before)
	}
}

// TestInHook: variables that git sets for hooks do not make it work on the index of the checkout.
func TestInHook(t *testing.T) {
	r := newRepo(t)
	before := r.state()
	cmd := r.command("-dry-run", "v0.2.0")
	cmd.Env = append(cmd.Env, "GIT_DIR="+filepath.Join(r.dir, ".git"), "GIT_INDEX_FILE="+filepath.Join(r.dir, ".git", "index"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if after := r.state(); after != before {
		t.Errorf("it leaves\n%s\nof\n%s", after, before)
	}
}

func TestRun(t *testing.T) {
	for name, args := range map[string][]string{"no version": nil, "empty": {""}, "two": {"v0.1.0", "v0.2.0"}, "unknown flag": {"-x", "v0.1.0"}} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			if code := run(t.Context(), args, &stdout, &stderr); code != 2 || stderr.String() == "" {
				t.Errorf("exit code %d, it says %q", code, stderr.String())
			}
		})
	}
	var stdout, stderr strings.Builder
	if code := run(t.Context(), []string{"v2.0.0"}, &stdout, &stderr); code != 1 || !strings.HasPrefix(stderr.String(), "release: version v2.0.0: ") {
		t.Errorf("exit code %d, it says %q", code, stderr.String())
	}
}

func read(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
