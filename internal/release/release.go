package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/module"

	"github.com/natscall/natscall/internal/modproxy"
)

// release is one release while it is made.
type release struct {
	repo    git
	version string
	date    string // in the changelog
	dryRun  bool
	out     io.Writer

	previous string // the version before, if any
	modules  []modproxy.Module
	requires map[string][]string // modules by those that require them
	tree     string              // whose hashes each go.sum has
}

func (r *release) make() error {
	if err := checkVersion(r.version); err != nil {
		return err
	}
	top, err := r.repo.run("rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	r.repo.dir = top
	branch, err := r.repo.branch()
	if err != nil {
		return err
	}
	tree, remove, err := r.repo.addWorktree()
	if err != nil {
		return err
	}
	defer remove()
	if err := r.check(tree); err != nil {
		return err
	}
	commit, err := r.commit(tree)
	if err != nil {
		return err
	}
	if r.dryRun {
		return r.showCommit(commit)
	}
	return r.publish(branch, commit)
}

// check finds the modules and compares the version with those that have been released.
func (r *release) check(tree git) error {
	modules, err := modproxy.Modules(tree.dir)
	if err != nil {
		return err
	}
	for _, m := range modules {
		m.Version = r.version
		r.modules = append(r.modules, m)
	}
	files, err := tree.lines("ls-files", ":(glob)**/go.mod")
	if err != nil {
		return err
	}
	if err := checkListed(files, r.modules); err != nil {
		return err
	}
	all, err := tree.lines("tag")
	if err != nil {
		return err
	}
	merged, err := tree.lines("tag", "--merged", "HEAD")
	if err != nil {
		return err
	}
	r.previous = latest(merged)
	return checkTags(r.version, r.modules, all, merged)
}

// commit writes the files of the release, commits them in tree, and returns the commit.
func (r *release) commit(tree git) (string, error) {
	for _, write := range []func(git) error{r.writeChangelog, r.writeRequirements, r.writeSums} {
		if err := write(tree); err != nil {
			return "", err
		}
	}
	if _, err := tree.run("commit", "--quiet", "--all", "--message", "Release "+r.version); err != nil {
		return "", err
	}
	committed, err := tree.run("rev-parse", "HEAD^{tree}")
	if err != nil {
		return "", err
	}
	if committed != r.tree {
		return "", errors.New("a hook of git has changed the files of the release, so each go.sum has wrong hashes: " +
			"let the hook change them before")
	}
	return tree.run("rev-parse", "HEAD")
}

func (r *release) writeChangelog(tree git) error {
	return edit(tree.dir, changelogName, func(text []byte) ([]byte, error) {
		c, err := parseChangelog(string(text))
		if err != nil {
			return nil, err
		}
		released, err := c.release(r.version, r.previous, r.date)
		return []byte(released), err
	})
}

// writeRequirements writes the version into go.work and each go.mod.
func (r *release) writeRequirements(tree git) error {
	versions := make(map[string]string)
	for _, m := range r.modules {
		versions[m.Path] = r.version
	}
	r.requires = make(map[string][]string)
	for _, m := range r.modules {
		err := edit(tree.dir, m.File("go.mod"), func(text []byte) (_ []byte, err error) {
			text, r.requires[m.Path], err = setRequirements(m.File("go.mod"), text, versions)
			return text, err
		})
		if err != nil {
			return err
		}
	}
	return edit(tree.dir, "go.work", func(text []byte) ([]byte, error) { return setReplacements(text, versions) })
}

// writeSums writes the lines about natscall's modules into each go.sum, beginning with the modules
// that require none. The others need their hashes.
func (r *release) writeSums(tree git) error {
	ordered, err := inOrder(r.modules, r.requires)
	if err != nil {
		return err
	}
	r.modules = ordered
	sums := make(map[string]modproxy.Sums)
	for _, m := range r.modules {
		err := edit(tree.dir, m.File("go.sum"), func(text []byte) ([]byte, error) {
			return setSums(text, r.sumLines(m, sums))
		})
		if err != nil {
			return err
		}
		if _, err := tree.run("add", "--update"); err != nil {
			return err
		}
		if r.tree, err = tree.run("write-tree"); err != nil {
			return err
		}
		if sums[m.Path], err = (modproxy.Revision{Repo: tree.dir, Name: r.tree}).Sums(m); err != nil {
			return err
		}
	}
	return nil
}

// sumLines are the lines of a module's go.sum about those that it requires of natscall.
func (r *release) sumLines(m modproxy.Module, sums map[string]modproxy.Sums) map[module.Version]string {
	lines := make(map[module.Version]string)
	for _, required := range r.requires[m.Path] {
		lines[module.Version{Path: required, Version: r.version}] = sums[required].Zip
		lines[module.Version{Path: required, Version: r.version + "/go.mod"}] = sums[required].Mod
	}
	return lines
}

func (r *release) tags() []string {
	var tags []string
	for _, m := range r.modules {
		tags = append(tags, m.Tag())
	}
	return tags
}

// publish adds the tags and moves the branch to the commit, and says what is to be pushed. An
// interrupt comes before this or after it, so that the branch and its tags belong together.
func (r *release) publish(branch, commit string) error {
	if err := r.repo.ctx.Err(); err != nil {
		return err
	}
	r.repo.ctx = context.WithoutCancel(r.repo.ctx)
	undo, err := r.repo.tag(commit, "natscall "+r.version, r.tags())
	if err != nil {
		return err
	}
	if _, err := r.repo.run("merge", "--quiet", "--ff-only", commit); err != nil {
		undo()
		return err
	}
	fmt.Fprintf(r.out, "%s is committed on %s and tagged:\n\n", r.version, branch)
	r.list()
	fmt.Fprintf(r.out, "\nLook at it with \"git show\", then push all at once:\n\n  git push --atomic %s %s %s\n",
		r.remote(branch), branch, strings.Join(r.tags(), " "))
	fmt.Fprintf(r.out, "\nOr undo it:\n\n  git tag --delete %s\n  git reset --keep HEAD~\n", strings.Join(r.tags(), " "))
	return nil
}

// remote is where the branch is pushed to.
func (r *release) remote(branch string) string {
	remote, err := r.repo.run("config", "branch."+branch+".remote")
	if err != nil { // it is only a word in what is printed
		return "origin"
	}
	return remote
}

func (r *release) showCommit(commit string) error {
	diff, err := r.repo.run("show", "--format=", commit)
	if err != nil {
		return err
	}
	fmt.Fprintf(r.out, "%s\n\n%s would be committed as above and tagged:\n\n", diff, r.version)
	r.list()
	fmt.Fprintln(r.out, "\nThis was a dry run: nothing is changed.")
	return nil
}

// list prints the tags with the modules that those modules require.
func (r *release) list() {
	for _, m := range r.modules {
		line := fmt.Sprintf("  %-24s", m.Tag())
		if required := r.requires[m.Path]; len(required) > 0 {
			line += " requires " + strings.Join(slices.Sorted(maps.Keys(folders(required))), ", ")
		}
		fmt.Fprintln(r.out, strings.TrimRight(line, " "))
	}
}

// folders are names that are shorter than paths.
func folders(paths []string) map[string]bool {
	names := make(map[string]bool)
	for _, path := range paths {
		name := modproxy.Module{Path: path}.Folder()
		if name == "" {
			name = "the main module"
		}
		names[name] = true
	}
	return names
}

// edit changes a file of the repository.
func edit(dir, name string, change func([]byte) ([]byte, error)) error {
	file := filepath.Join(dir, filepath.FromSlash(name))
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the commit has no %s (make tidy writes those that are missing)", name)
	}
	if err != nil {
		return err
	}
	changed, err := change(text)
	if err != nil {
		return err
	}
	return os.WriteFile(file, changed, 0o666)
}
