package pages_test

import (
	"bufio"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/natscall/natscall/internal/pages"
)

// shopTest is what console blocks name that are run on the shop of the examples.
const shopTest = "internal/pages:TestShop"

// TestShop runs the console blocks that name it, with the nats command and natscall, on the shop of
// the examples after some seconds of load.
func TestShop(t *testing.T) {
	t.Parallel()
	// The time is enough for a busy machine.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	t.Cleanup(cancel)
	bin := t.TempDir()
	goCommand(ctx, t, nil, "build", "-o", bin+string(filepath.Separator), "./examples/shop", "./cmd/natscall")
	goCommand(ctx, t, []string{"GOBIN=" + bin, "GOFLAGS=", "GOWORK=off"}, "install", tool(t, "nats"))
	env := append(os.Environ(), "PATH="+bin+string(os.PathListSeparator)+os.Getenv("PATH"),
		"XDG_CONFIG_HOME="+t.TempDir(), "NATS_URL="+openShop(ctx, t, bin))

	names, err := pages.Names(root)
	if err != nil {
		t.Fatal(err)
	}
	ran := 0
	for _, name := range names {
		if blocks := shopBlocks(t, name); len(blocks) > 0 {
			t.Run(name, func(t *testing.T) { runOnShop(ctx, t, env, blocks) })
			ran += len(blocks)
		}
	}
	if ran < 3 {
		t.Errorf("%d blocks name %s", ran, shopTest)
	}
}

func shopBlocks(t *testing.T, name string) (blocks []pages.Block) {
	t.Helper()
	all, err := pages.Read(root, name)
	if err != nil {
		t.Error(err)
	}
	for _, b := range all {
		if b.Test == shopTest {
			blocks = append(blocks, b)
		}
	}
	return blocks
}

// hasPrinted waits until a command in the background, such as "nats sub", has said that it listens.
const hasPrinted = "while kill -0 $! 2>/dev/null && ! test -s $1; do sleep 0.02; done"

// runOnShop runs the blocks of a page, in an empty folder.
func runOnShop(ctx context.Context, t *testing.T, env []string, blocks []pages.Block) {
	var script strings.Builder
	for n, b := range blocks {
		text, err := pages.ConsoleScript(n, b, hasPrinted)
		if err != nil || b.Language != "console" {
			t.Fatalf("%s: a block of the language %s, %v", b, b.Language, err)
		}
		script.WriteString(text)
	}
	script.WriteString("wait\n")
	printed := t.TempDir()
	cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", script.String())
	cmd.Dir, cmd.Env, cmd.WaitDelay = t.TempDir(), append(env, pages.PrintedVar+"="+printed), time.Minute
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if err := pages.Compare(blocks, printed); err != nil {
		t.Error(err)
	}
}

// openShop starts the shop with its logs in JetStream, and returns the URL of its NATS server when
// it is open.
func openShop(ctx context.Context, t *testing.T, bin string) string {
	t.Helper()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "shop"), "-observe", "1s", "-serve")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay, cmd.Stderr = time.Minute, os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_, _ = io.Copy(io.Discard, stdout)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the shop: %v", err)
		}
	})
	opened := regexp.MustCompile(`export NATS_URL=(\S+)`)
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if m := opened.FindStringSubmatch(lines.Text()); m != nil {
			return m[1]
		}
	}
	t.Fatal("the shop has not opened")
	return ""
}

func goCommand(ctx context.Context, t *testing.T, env []string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %q: %v\n%s", args, err, out)
	}
}

// tool returns the package and version of a tool that .ci/tools pins.
func tool(t *testing.T, name string) string {
	t.Helper()
	for line := range strings.Lines(readPage(t, ".ci/tools")) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == name {
			return fields[1]
		}
	}
	t.Fatalf(".ci/tools has no %s", name)
	return ""
}
