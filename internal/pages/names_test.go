package pages_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/natscall/natscall/internal/pages"
)

// TestIdentifiers: what the pages name in their texts, such as rpc.WithHeader, is in the package.
// Their blocks are compiled elsewhere.
func TestIdentifiers(t *testing.T) {
	exported := exportedIn(t, "rpc", "rpc/rpcauth", "rpc/rpcdedup", "rpc/rpchealth", "rpc/rpclog", "rpc/rpcotel",
		"rpc/rpcschema", "rpc/rpctest", "rpc/rpcvalidate")
	// Not google.rpc.Status.
	qualified := regexp.MustCompile(`(?:^|[^.\w])(rpc[a-z]*)\.([A-Z]\w*)(…?)`)
	found := 0
	for name, text := range prose(t) {
		for _, code := range inline.FindAllString(text, -1) {
			for _, m := range qualified.FindAllStringSubmatch(code, -1) {
				found++
				if names := exported[m[1]]; names != nil && !names[m[2]] && m[3] == "" {
					t.Errorf("%s has %s, and package %s has no %s", name, code, m[1], m[2])
				}
			}
		}
	}
	if found < 200 {
		t.Errorf("the pages name %d things", found)
	}
}

// exportedIn returns the exported identifiers of packages, by the names of these.
func exportedIn(t *testing.T, dirs ...string) map[string]map[string]bool {
	t.Helper()
	exported := make(map[string]map[string]bool)
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
		if err != nil || files == nil {
			t.Fatalf("%s has no Go files: %v", dir, err)
		}
		names := make(map[string]bool)
		exported[filepath.Base(dir)] = names
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, decl := range f.Decls {
				addNames(names, decl)
			}
		}
	}
	return exported
}

// addNames adds what a declaration of a package declares.
func addNames(names map[string]bool, decl ast.Decl) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			names[d.Name.Name] = true
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				names[s.Name.Name] = true
			case *ast.ValueSpec:
				for _, name := range s.Names {
					names[name.Name] = true
				}
			}
		}
	}
}

// TestTargets: where texts, and the blocks of CONTRIBUTING.md, say "make x", the Makefile has x.
func TestTargets(t *testing.T) {
	targets := readCheckout(t).targets
	texts := prose(t)
	texts["the blocks of CONTRIBUTING.md"] = regexp.MustCompile("(?m)^(make .*)$").ReplaceAllString(readPage(t, "CONTRIBUTING.md"), "`$1`")
	command := regexp.MustCompile("`make\\s([a-z-]+)") // it may begin at the end of a line
	found := 0
	for name, text := range texts {
		for _, m := range command.FindAllStringSubmatch(text, -1) {
			found++
			if !strings.Contains(targets, "\n"+m[1]+":") {
				t.Errorf("%s has %q, and the Makefile has no target %s", name, m[0], m[1])
			}
		}
	}
	if found < 20 {
		t.Errorf("the pages name %d targets", found)
	}
}

// prose returns the texts of all pages, without their blocks.
func prose(t *testing.T) map[string]string {
	t.Helper()
	names, err := pages.Names(root)
	if err != nil {
		t.Fatal(err)
	}
	texts := make(map[string]string)
	for _, name := range append(names, "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md") {
		texts[name] = withoutBlocks(readPage(t, name))
	}
	return texts
}
