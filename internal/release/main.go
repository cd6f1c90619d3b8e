// release makes a release of all modules that go.work lists, in one version:
//
//	go run ./internal/release [-dry-run] v0.2.0
//
// It writes a commit with the changelog, go.work, and each go.mod and go.sum, and tags it for every
// module (v0.2.0, cmd/natscall/v0.2.0, ...). One commit is enough for modules that require each
// other: a go.sum has the hashes of the files of other modules, which are known before they have a
// tag, if those are hashed first that require nothing of natscall.
//
// All is made in a worktree of its own. The branch and the tags follow when the commit is complete,
// so a release that fails, or a dry run, leaves nothing. Nothing is pushed.
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const usage = `Usage: release [-dry-run] VERSION

release commits and tags a version of all modules, such as v0.2.0 or v0.2.0-rc.1. It pushes nothing.

Flags:

`

// elsewhere are variables that git sets for its hooks and aliases. They would lead each git command
// of the release, wherever it runs, to the checkout and its index.
var elsewhere = []string{
	"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY",
	"GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_PREFIX",
}

func main() {
	for _, name := range elsewhere {
		_ = os.Unsetenv(name) // which cannot fail for such a name
	}
	// Whatever ends it early, it removes its worktree. Its output may go to a pager that is left.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // else it would end the process
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit code: 0, 1 for a release that is not made, 2 for wrong arguments.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.Usage = func() {
		fmt.Fprint(stderr, usage)
		flags.PrintDefaults()
	}
	dryRun := flags.Bool("dry-run", false, "show what would be committed and tagged, and leave nothing")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if flags.NArg() != 1 || flags.Arg(0) == "" {
		fmt.Fprintln(stderr, "release: want one version, as in \"make release VERSION=v0.2.0\"")
		return 2
	}
	r := release{
		repo: git{ctx, "."}, version: flags.Arg(0), date: time.Now().UTC().Format(time.DateOnly),
		dryRun: *dryRun, out: stdout,
	}
	err := r.make()
	switch {
	case err != nil && ctx.Err() != nil:
		fmt.Fprintln(stderr, "release: interrupted, and nothing is changed")
		return 1
	case err != nil:
		fmt.Fprintf(stderr, "release: %v\n", err)
		return 1
	}
	return 0
}
