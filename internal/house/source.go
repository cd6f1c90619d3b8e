package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"
)

// source is a file with its syntax.
type source struct {
	path   string
	text   string
	syntax *ast.File
	set    *token.FileSet
}

func parse(path string) *source {
	text, set := must(os.ReadFile(path)), token.NewFileSet()
	syntax := must(parser.ParseFile(set, path, text, parser.ParseComments|parser.SkipObjectResolution))
	return &source{path, string(text), syntax, set}
}

func (f *source) isGenerated() bool { return ast.IsGenerated(f.syntax) }

func (f *source) isTest() bool { return strings.HasSuffix(f.path, "_test.go") }

func (f *source) line(at token.Pos) int { return f.set.Position(at).Line }

// of returns the source of a node.
func (f *source) of(n ast.Node) string {
	return f.text[f.set.Position(n.Pos()).Offset:f.set.Position(n.End()).Offset]
}

// comments returns where lines with a comment are wider than the limit.
func (f *source) comments(limit int) (where []string) {
	lines := strings.Split(f.text, "\n")
	for _, group := range f.syntax.Comments {
		for n := f.line(group.Pos()); n <= f.line(group.End()); n++ {
			if columns(lines[n-1]) > limit {
				where = append(where, fmt.Sprint(f.path, ":", n))
			}
		}
	}
	return slices.Compact(where)
}

// columns is the width of a line in an editor with tabs of four columns.
func columns(line string) int {
	return utf8.RuneCountInString(line) + 3*strings.Count(line, "\t")
}

// goFiles returns the Go files below root, but none in folders that are hidden,
// hold test data or have the name skip.
func goFiles(root, skip string) (paths []string) {
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		switch name := entry.Name(); {
		case err != nil || path == root:
			return err
		case entry.IsDir() && (name == "testdata" || name == skip || name[0] == '.'):
			return filepath.SkipDir
		case filepath.Ext(name) == ".go":
			paths = append(paths, path)
		}
		return nil
	})
	return must(paths, err)
}
