package pages_test

import (
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/natscall/natscall/internal/pages"
)

func readPage(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// table returns the cells of the table of a page whose first row begins with a line, by their row
// and column.
func table(t *testing.T, page, header string) map[[2]string]string {
	t.Helper()
	_, rest, ok := strings.Cut(readPage(t, page), "\n"+header)
	if !ok {
		t.Fatalf("%s has no table that begins with %s", page, header)
	}
	cells := map[[2]string]string{}
	var columns []string
	for i, line := range strings.Split(header+rest, "\n") {
		if !strings.HasPrefix(line, "|") {
			break
		}
		row := strings.Split(strings.Trim(line, "|"), "|")
		for j := range row {
			row[j] = strings.TrimSpace(row[j])
		}
		switch i {
		case 0:
			columns = row
		case 1:
		default:
			for j, cell := range row[1:] {
				cells[[2]string{row[0], columns[j+1]}] = cell
			}
		}
	}
	return cells
}

// TestFigures: the figures of README.md are those of docs/performance.md.
func TestFigures(t *testing.T) {
	columns := map[string]string{
		"raw nats.go": "raw", "micro + Protobuf": "micro", "natscall": "natscall", "natscall, batched": "natscall-batch",
		"grpc-go": "grpc", "connect-go": "connect", "psrpc": "psrpc",
	}
	rows := map[string]string{
		"60 bytes, 1 caller": "unary-60B-1", "60 bytes, 16 callers": "unary-60B-16", "60 bytes, 64 callers": "unary-60B-64",
		"60 bytes, 256 callers": "unary-60B-256", "256 KiB, 16 callers": "unary-256KiB-16",
		"server stream, 60 bytes": "server-stream-60B", "server stream, 16 KiB": "server-stream-16KiB",
	}
	measured := table(t, "docs/performance.md", "| | raw | micro-bytes |")
	shown := table(t, "README.md", "| | raw nats.go |")
	for at, cell := range shown {
		if want := measured[[2]string{rows[at[0]], columns[at[1]]}]; cell != want {
			t.Errorf("%s, %s: README.md has %q, docs/performance.md %q", at[0], at[1], cell, want)
		}
	}
	if len(shown) != len(rows)*len(columns) {
		t.Errorf("the table has %d figures, want %d", len(shown), len(rows)*len(columns))
	}
}

// link is a link of Markdown, without images.
var link = regexp.MustCompile(`\]\(([^)\s]+)\)`)

// TestLinks: what pages link to in the checkout is there, with the heading that they name.
func TestLinks(t *testing.T) {
	names, err := pages.Names(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range append(names, "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "examples/README.md") {
		for _, m := range link.FindAllStringSubmatch(withoutCode(readPage(t, name)), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			target := name
			if file != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(name), file))
			}
			if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s links to %s, which is not there", name, m[1])
			} else if anchor != "" && !slices.Contains(anchors(readPage(t, target)), anchor) {
				t.Errorf("%s links to %s; the headings of %s are %q", name, m[1], target, anchors(readPage(t, target)))
			}
		}
	}
}

// inline is code in a line.
var inline = regexp.MustCompile("`[^`\n]*`")

// withoutCode returns the text of a page without its blocks and without code in lines.
func withoutCode(text string) string { return inline.ReplaceAllString(withoutBlocks(text), "") }

// withoutBlocks returns the text of a page without its blocks.
func withoutBlocks(text string) string {
	var out strings.Builder
	for i, part := range strings.Split("\n"+text, "\n```") {
		if i%2 == 0 {
			out.WriteString(part)
		}
	}
	return out.String()
}

// heading is a line that links can name.
var heading = regexp.MustCompile(`(?m)^#+ (.+)$`)

// anchors returns the names of the headings of a page, as GitHub makes them.
func anchors(text string) []string {
	var names []string
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		name := strings.ToLower(regexp.MustCompile(`[^\pL\pN _-]`).ReplaceAllString(m[1], ""))
		names = append(names, strings.ReplaceAll(name, " ", "-"))
	}
	return names
}

// TestIndex: README.md names every page.
func TestIndex(t *testing.T) {
	names, err := pages.Names(root)
	if err != nil {
		t.Fatal(err)
	}
	missing := map[string]bool{}
	for _, name := range names[1:] {
		missing[name] = true
	}
	_, index, _ := strings.Cut(readPage(t, "README.md"), "## Read on")
	for _, m := range link.FindAllStringSubmatch(index, -1) {
		delete(missing, m[1])
	}
	if len(missing) > 0 {
		t.Errorf("\"Read on\" of README.md does not name %v", slices.Sorted(maps.Keys(missing)))
	}
}
