package pages_test

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/natscall/natscall/internal/pages"
)

// root is the checkout.
const root = "../.."

// follower is the test that follows the pages whose blocks have titles, in an empty folder.
const follower = "cmd/protoc-gen-go-natscall:TestPages"

// languageTests are tests that know all blocks of a language, on any page or on one.
var languageTests = map[string]string{
	"hex":                   "rpc/internal/wire:TestProtocolPage",
	"promql":                "examples/observe:TestNames",
	"docs/security.md sh":   "cmd/natscall:TestSecurityPage",
	"docs/security.md conf": "cmd/natscall:TestSecurityPage",
	"docs/tool.md console":  "cmd/natscall:TestSessions",
	"docs/tool.md sh":       "cmd/natscall:TestCompleteBash",
}

// TestBlocks: what the pages show is tried. Each of their blocks is
//
//   - written or run by TestPages, if it has a title;
//   - run by the test that it names, as in "```sh test=cmd/natscall:TestSecurityPage", which reads
//     the page;
//   - a part of a file of its language that tests compile or read: of a .go file for "```go";
//   - commands of make, whose targets exist;
//   - YAML or JSON that can be parsed;
//   - a diagram of "```mermaid" with lines that Mermaid reads, about what the diagram declares;
//   - or for the eye only: "```text".
func TestBlocks(t *testing.T) {
	names, err := pages.Names(root)
	if err != nil {
		t.Fatal(err)
	}
	c := readCheckout(t)
	for _, name := range names {
		blocks, err := pages.Read(root, name)
		if err != nil {
			t.Error(err)
		}
		for _, b := range blocks {
			if err := c.covers(b); err != nil {
				start, _, _ := strings.Cut(b.Text, "\n")
				t.Errorf("%s: %v\n%s", b, err, start)
			}
		}
	}
}

// TestUncovered: what no test tries is found.
func TestUncovered(t *testing.T) {
	c := readCheckout(t)
	for _, b := range []pages.Block{
		{Page: "docs/x.md", Language: "go", Text: "func thisIsNowhere() {}\n"},
		{Page: "docs/x.md", Language: "proto", Text: "message Nowhere {}\n"},
		{Page: "docs/x.md", Language: "sh", Text: "rm -rf x\n"},
		{Page: "docs/x.md", Language: "sh", Text: "make nothing\n"},
		{Page: "docs/x.md", Language: "sh", Test: "cmd/natscall:TestNothing", Text: "ls\n"},
		{Page: "docs/x.md", Language: "sh", Test: "cmd/natscall:TestSecurityPage", Text: "ls\n"},
		{Page: "docs/x.md", Language: "sh", Test: "nowhere:TestSecurityPage", Text: "ls\n"},
		{Page: "docs/health.md", Language: "sh", Test: "internal/pages:TestUncovered", Text: "ls\n"},
		{Page: "docs/x.md", Language: "sh", Title: "x", Text: "ls\n"},
		{Page: "docs/x.md", Language: "json", Text: "{\n"},
		{Page: "docs/x.md", Language: "yaml", Text: "a: [\n"},
		{Page: "docs/x.md", Language: "mermaid", Text: "pie\n"},
		{Page: "docs/x.md", Language: "", Text: "ls\n"},
	} {
		if err := c.covers(b); err == nil {
			t.Errorf("%+v passes", b)
		}
	}
}

// checkout is what blocks are looked for in.
type checkout struct {
	sources map[string][]string // the texts of files by the ends of their names, such as "go"
	tests   map[string]string   // the text of the tests of a package, by its folder
	targets string              // the Makefile
}

func readCheckout(t *testing.T) checkout {
	t.Helper()
	c := checkout{sources: map[string][]string{}, tests: map[string]string{}}
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && name != "." && (strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata"):
			return fs.SkipDir
		case entry.IsDir():
			return nil
		}
		language := strings.TrimPrefix(path.Ext(name), ".")
		switch language {
		case "go", "proto":
		default:
			return nil
		}
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(name)))
		if err != nil {
			return err
		}
		c.sources[language] = append(c.sources[language], string(text))
		if strings.HasSuffix(name, "_test.go") {
			c.tests[path.Dir(name)] += string(text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	if err != nil {
		t.Fatal(err)
	}
	c.targets = string(makefile)
	return c
}

// covers returns why no test tries a block, or nil.
func (c checkout) covers(b pages.Block) error {
	switch {
	case b.Title != "":
		return c.hasTest(follower, b.Page)
	case b.Test != "":
		return c.hasTest(b.Test, b.Page)
	case languageTests[b.Page+" "+b.Language] != "":
		return c.hasTest(languageTests[b.Page+" "+b.Language], b.Page)
	case languageTests[b.Language] != "":
		return c.hasTest(languageTests[b.Language], b.Page)
	}
	switch b.Language {
	case "text":
		return nil
	case "mermaid":
		return checkDiagram(b.Text)
	case "go", "proto":
		return c.hasSource(b)
	case "yaml":
		return yaml.Unmarshal([]byte(b.Text), new(map[string]any))
	case "sh":
		return c.hasTargets(b)
	case "json":
		if !json.Valid([]byte(b.Text)) {
			return fmt.Errorf("this is no JSON")
		}
		return nil
	}
	return fmt.Errorf("no test tries a block of the language %q: give it title= or test=, or make it text", b.Language)
}

// hasTest looks for a test, DIR:TestName, in a package whose tests read a page. Of those here only
// TestShop runs blocks, of all pages.
func (c checkout) hasTest(test, page string) error {
	dir, name, _ := strings.Cut(test, ":")
	text := c.tests[dir]
	if !strings.Contains(text, "func "+name+"(t *testing.T)") {
		return fmt.Errorf("there is no test %s in %s", name, dir)
	}
	if test == shopTest {
		return nil
	}
	if dir == "internal/pages" || !strings.Contains(text, page) {
		return fmt.Errorf("the tests of %s do not read %s", dir, page)
	}
	return nil
}

// hasSource looks for a block in the files of its language, where it may be indented.
func (c checkout) hasSource(b pages.Block) error {
	for indent := range 4 {
		indented := "\n" + regexp.MustCompile(`(?m)^(.)`).ReplaceAllString(b.Text, strings.Repeat("\t", indent)+"$1")
		for _, text := range c.sources[b.Language] {
			if strings.Contains(text, indented) {
				return nil
			}
		}
	}
	return fmt.Errorf("this is in no .%s file: put it into one that tests compile", b.Language)
}

// hasTargets makes sure that each line is a command of make with a target that there is.
func (c checkout) hasTargets(b pages.Block) error {
	for line := range strings.Lines(b.Text) {
		command, _, _ := strings.Cut(line, "#")
		words := strings.Fields(command)
		if len(words) < 2 || words[0] != "make" {
			return fmt.Errorf("no test runs %q: give the block title= or test=", strings.TrimSpace(line))
		}
		if !strings.Contains(c.targets, "\n"+words[1]+":") {
			return fmt.Errorf("the Makefile has no target %s", words[1])
		}
	}
	return nil
}
