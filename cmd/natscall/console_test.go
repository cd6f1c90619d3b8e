package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
)

// console is where somebody uses the tool, beside a shop.
type console struct {
	*testing.T
	shop *shop
	url  string
}

// newConsole opens a shop with one instance of each service.
func newConsole(t *testing.T) *console {
	t.Helper()
	s := newShop(t, nil)
	must(t, s.serveInventory("inventory"))
	must(t, s.serveOrders("order"))
	return &console{t, s, s.srv.URL()}
}

// ran is what a command has done.
type ran struct {
	status         int
	stdout, stderr string
}

// run runs a command with nothing on stdin.
func (c *console) run(args ...string) ran {
	c.Helper()
	return c.pipe("", args...)
}

// pipe runs a command with a text on stdin.
func (c *console) pipe(stdin string, args ...string) ran {
	c.Helper()
	return runAt(testContext(c.T), c.url, strings.NewReader(stdin), args...)
}

// runAt runs a command at a server.
func runAt(ctx context.Context, url string, stdin io.Reader, args ...string) ran {
	var stdout, stderr bytes.Buffer
	status := run(ctx, append(slices.Clone(args), "--server", url), stdin, &stdout, &stderr)
	return ran{status, stdout.String(), stderr.String()}
}

// ok runs a command that must succeed, and returns what it prints.
func (c *console) ok(args ...string) string {
	c.Helper()
	r := c.run(args...)
	if r.status != problem.StatusOK {
		c.Fatalf("natscall %s: exit status %d\n%s%s", strings.Join(args, " "), r.status, r.stdout, r.stderr)
	}
	return r.stdout
}

// read decodes what a command prints in JSON.
func (c *console) read(v any, args ...string) {
	c.Helper()
	text := c.ok(args...)
	if err := json.Unmarshal([]byte(text), v); err != nil {
		c.Fatalf("natscall %s: %v: %s", strings.Join(args, " "), err, text)
	}
}

// screen is a writer whose lines somebody waits for.
type screen struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func newScreen() *screen { return &screen{changed: make(chan struct{}, 1)} }

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer func() {
		select {
		case s.changed <- struct{}{}:
		default:
		}
	}()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// await waits until the screen shows a text so many times.
func (s *screen) await(ctx context.Context, t *testing.T, text string, times int) {
	t.Helper()
	for strings.Count(s.String(), text) < times {
		select {
		case <-s.changed:
		case <-ctx.Done():
			t.Fatalf("the screen does not show %q %d times:\n%s", text, times, s)
		}
	}
}
