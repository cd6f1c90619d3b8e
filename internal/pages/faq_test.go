package pages_test

import (
	"go/scanner"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// quoted is a heading of the FAQ that begins with a text of an error or a log.
var quoted = regexp.MustCompile("(?m)^### `([^`]+)`( from the compiler)?$")

// verb is what a format puts something in place of.
var verb = regexp.MustCompile(`%[-+# 0-9.*]*[a-zA-Z]`)

// TestQuotedErrors: the errors that docs/faq.md quotes are in the code, of natscall or of nats.go.
func TestQuotedErrors(t *testing.T) {
	texts := stringsIn(t, root)
	texts = append(texts, stringsIn(t, moduleDir(t, "github.com/nats-io/nats.go"))...)
	headings := quoted.FindAllStringSubmatch(readPage(t, "docs/faq.md"), -1)
	if len(headings) < 25 {
		t.Errorf("the FAQ quotes %d texts", len(headings))
	}
	for _, h := range headings {
		if h[2] == "" && !occurs(h[1], texts) {
			t.Errorf("no string in the code has %q", h[1])
		}
	}
	for _, wrong := range []string{"no service answers at …", "nothing of this is anywhere", "the server has … limit"} {
		if occurs(wrong, texts) {
			t.Errorf("%q is found", wrong)
		}
	}
}

// occurs reports whether a text has what the page quotes: its parts between the ellipses, with a
// verb of a format in between.
func occurs(quote string, texts []string) bool {
	parts := strings.Split(quote, "…")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	pattern := regexp.MustCompile(strings.Join(parts, "(?s:.*)"+verb.String()+"(?s:.*)"))
	for _, text := range texts {
		if pattern.MatchString(text) || pattern.MatchString(strings.ReplaceAll(text, "%q", `"%s"`)) {
			return true
		}
	}
	return false
}

// stringsIn returns the strings in the Go files of a folder, without tests.
func stringsIn(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata"):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
			return nil
		}
		text, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(name)))
		all = append(all, literals(text)...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// literals returns the strings of a Go file. Those that are added are one.
func literals(source []byte) []string {
	files := token.NewFileSet()
	var s scanner.Scanner
	s.Init(files.AddFile("", files.Base(), len(source)), source, nil, 0)
	var all []string
	added := false
	for last := token.ILLEGAL; ; {
		_, tok, text := s.Scan()
		switch tok {
		case token.EOF:
			return all
		case token.STRING:
			value, err := strconv.Unquote(text)
			if err != nil {
				continue
			}
			if added && last == token.ADD {
				all[len(all)-1] += value
			} else {
				all = append(all, value)
			}
			added = true
		case token.ADD:
			added = added && last == token.STRING
		default:
			added = false
		}
		last = tok
	}
}

func moduleDir(t *testing.T, module string) string {
	t.Helper()
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", module)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}
