package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// git runs git in a folder. It ends with the context, which is that of one run of this program.
type git struct {
	ctx context.Context
	dir string
}

// gitEnds is more than git takes to remove its lock files when it is interrupted.
const gitEnds = 10 * time.Second

// run returns what git prints, without the end of the last line.
func (g git) run(args ...string) (string, error) {
	cmd := exec.CommandContext(g.ctx, "git", args...)
	cmd.Dir = g.dir
	// A git that is killed leaves its locks.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = gitEnds
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if g.ctx.Err() != nil {
		return "", g.ctx.Err()
	}
	if err != nil {
		return "", fmt.Errorf("git %s: %w\n%s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return strings.TrimRight(string(out), "\n"), nil
}

func (g git) lines(args ...string) ([]string, error) {
	out, err := g.run(args...)
	if out == "" {
		return nil, err
	}
	return strings.Split(out, "\n"), err
}

// branch returns the branch that the checkout is on. The checkout must be clean.
func (g git) branch() (string, error) {
	changed, err := g.run("status", "--porcelain")
	if err != nil {
		return "", err
	}
	if changed != "" {
		return "", fmt.Errorf("commit or remove these changes first, since a release is made of a commit:\n%s", changed)
	}
	branch, err := g.run("branch", "--show-current")
	if err == nil && branch == "" {
		err = errors.New("the checkout is on no branch: git switch to the one that is to be released")
	}
	return branch, err
}

// addWorktree checks out HEAD in a folder for temporary files. remove removes it again.
func (g git) addWorktree() (tree git, remove func(), err error) {
	parent, err := os.MkdirTemp("", "natscall-release-")
	if err != nil {
		return git{}, nil, err
	}
	dir := filepath.Join(parent, "tree")
	remove = func() {
		// The context may have ended, and that of others may not end this.
		clean := git{context.WithoutCancel(g.ctx), g.dir}
		// It may not have been added, or be locked, as it is while it is added.
		_, _ = clean.run("worktree", "remove", "--force", "--force", dir)
		_ = os.RemoveAll(parent)
	}
	if _, err := g.run("worktree", "add", "--quiet", "--detach", dir, "HEAD"); err != nil {
		remove()
		return git{}, nil, err
	}
	return git{g.ctx, dir}, remove, nil
}

// tag adds tags for a commit, all or none.
func (g git) tag(commit, message string, tags []string) (undo func(), err error) {
	var added []string
	undo = func() {
		clean := git{context.WithoutCancel(g.ctx), g.dir}
		for _, tag := range added {
			_, _ = clean.run("tag", "--delete", tag) // it was added a moment ago
		}
	}
	for _, tag := range tags {
		if _, err := g.run("tag", "--annotate", "--message", message, tag, commit); err != nil {
			undo()
			return nil, err
		}
		added = append(added, tag)
	}
	return undo, nil
}
