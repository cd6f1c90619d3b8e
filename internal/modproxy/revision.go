package modproxy

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/zip"
)

// Revision is a tree of a git repository: a commit, a tag, or a tree that is not committed yet.
// What is made of it is what the go command makes of a tag: the zip has the files that git has, and
// a module without a licence gets that of the repository.
type Revision struct {
	Repo string // a folder of the repository's
	Name string
}

// Modules returns the modules that go.work lists, each as of one version.
func (r Revision) Modules(version string) ([]Module, error) {
	text, err := r.file("go.work")
	if err != nil {
		return nil, err
	}
	work, err := modfile.ParseWork("go.work", []byte(text), nil)
	if err != nil {
		return nil, err
	}
	var modules []Module
	for _, use := range work.Use {
		modules = append(modules, Module{Path: path.Join(Root, use.Path), Version: version})
	}
	return modules, nil
}

// Write adds the modules to the files of a module proxy. Each is as its own tag has it.
func (r Revision) Write(dir string, modules []Module) error {
	time, err := r.git("show", "--no-patch", "--format=%cI", r.Name+"^{commit}")
	if err != nil {
		return err
	}
	for _, m := range modules {
		mod, err := r.file(m.File("go.mod"))
		if err != nil {
			return err
		}
		err = m.write(dir, mod, strings.TrimSpace(time), func(w io.Writer) error { return r.zip(w, m) })
		if err != nil {
			return fmt.Errorf("%s: %w", m.Path, err)
		}
	}
	return nil
}

// Sums are what go.sum has of a module's version.
type Sums struct {
	Zip string // of all files
	Mod string // of go.mod
}

// Sums computes the sums of a module. They are the ones of the module's version as soon as this
// revision has its tag.
func (r Revision) Sums(m Module) (Sums, error) {
	mod, err := r.file(m.File("go.mod"))
	if err != nil {
		return Sums{}, err
	}
	var sums Sums
	sums.Mod, err = dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(mod)), nil
	})
	if err != nil {
		return Sums{}, err
	}
	dir, err := os.MkdirTemp("", "natscall-zip-")
	if err != nil {
		return Sums{}, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "module.zip")
	if err := createFile(file, func(w io.Writer) error { return r.zip(w, m) }); err != nil {
		return Sums{}, fmt.Errorf("%s: %w", m.Path, err)
	}
	sums.Zip, err = dirhash.HashZip(file, dirhash.Hash1)
	return sums, err
}

func (r Revision) zip(w io.Writer, m Module) error {
	tree, err := r.git("rev-parse", r.Name+"^{tree}")
	if err != nil {
		return err
	}
	repo, err := os.MkdirTemp("", "natscall-repo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(repo)
	if err := r.borrow(repo); err != nil {
		return err
	}
	return zip.CreateFromVCS(w, m.version(), repo, strings.TrimSpace(tree), m.Folder())
}

// borrow makes an empty repository that has all objects of this one. CreateFromVCS wants the root
// of a repository with a folder .git, which the worktrees of git worktree add do not have.
func (r Revision) borrow(repo string) error {
	objects, err := r.git("rev-parse", "--path-format=absolute", "--git-path", "objects")
	if err != nil {
		return err
	}
	if _, err := (Revision{Repo: repo}).git("init", "--quiet"); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(repo, ".git", "objects", "info", "alternates"), []byte(objects), 0o666)
}

func (r Revision) file(name string) (string, error) { return r.git("show", r.Name+":"+name) }

func (r Revision) git(args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir = r.Repo
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return string(out), nil
}
