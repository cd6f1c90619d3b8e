package main

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/compiler/protogen"
)

// defaultPackageSuffix makes the name of the generated package from that of the
// messages.
const defaultPackageSuffix = "nats"

// target is where the services of a file are generated.
type target struct {
	path protogen.GoImportPath
	name protogen.GoPackageName
	file string // with its folder
}

// newTarget places the services of f, by default in a package of their own:
// those of foo/v1/foo.proto go into foo/v1/foov1nats/foo.nats.go. Without a
// suffix they go into the package of the messages, to foo/v1/foo.nats.go.
func newTarget(f *protogen.File, suffix string) target {
	if suffix == "" {
		return target{f.GoImportPath, f.GoPackageName, f.GeneratedFilenamePrefix + generatedSuffix}
	}
	// protoc-gen-go puts "_" before a name that Go does not allow (type, 2fa). The
	// Go tools skip folders that start with it, so ours does not.
	folder := strings.TrimLeft(string(f.GoPackageName), "_") + suffix
	dir, base := path.Split(f.GeneratedFilenamePrefix)
	return target{
		path: protogen.GoImportPath(path.Join(string(f.GoImportPath), folder)),
		name: packageName(folder),
		file: path.Join(dir, folder, base+generatedSuffix),
	}
}

// generatedSuffix ends the names of generated files.
const generatedSuffix = ".nats.go"

// packageName is the name of the package in a folder: the same, with "_" before
// a digit, as protoc-gen-go does it.
func packageName(folder string) protogen.GoPackageName {
	if first, _ := utf8.DecodeRuneInString(folder); unicode.IsDigit(first) {
		folder = "_" + folder
	}
	return protogen.GoPackageName(folder)
}

// importName separates the path of an import from the name that the package
// gets in the file. No import path can hold it.
const importName = "/#/"

// namedImport asks protogen, which names imports by the last element of their
// path, to name this one by its package.
func namedImport(path protogen.GoImportPath, name protogen.GoPackageName) protogen.GoImportPath {
	return path + importName + protogen.GoImportPath(name)
}

// realImport is the path that namedImport was given.
func realImport(path protogen.GoImportPath) protogen.GoImportPath {
	before, _, _ := strings.Cut(string(path), importName)
	return protogen.GoImportPath(before)
}

// packageNames returns the name of each package of messages by its import path.
func packageNames(gen *protogen.Plugin) map[protogen.GoImportPath]protogen.GoPackageName {
	names := make(map[protogen.GoImportPath]protogen.GoPackageName)
	for _, f := range gen.Files {
		names[f.GoImportPath] = f.GoPackageName
	}
	return names
}

// lowerFirst makes the Go name of a service unexported. Go names that protogen
// makes start with an ASCII letter, always an upper-case one.
func lowerFirst(name string) string {
	return strings.ToLower(name[:1]) + name[1:]
}

// goComment returns text as the lines of a Go comment; none for an empty one.
func goComment(text string) []string {
	if strings.TrimSpace(text) == "" {
		return nil
	}
	var lines []string
	for line := range strings.SplitSeq(strings.Trim(text, "\n"), "\n") {
		lines = append(lines, commentLine(line))
	}
	return lines
}

// commentLine makes sure that a line stays a comment. The space after the
// slashes keeps "go:generate" from becoming an instruction to the Go tools, and
// the backquotes do so for "+build", which go/printer would even move to the top
// of the file. Characters that Go source must not hold are left out.
func commentLine(line string) string {
	line = strings.TrimPrefix(strings.Map(commentRune, line), " ")
	if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "+build"); ok {
		line = "`+build`" + rest
	}
	return strings.TrimRight("// "+line, " \t")
}

// commentRune keeps the characters that may stand in a Go comment.
func commentRune(r rune) rune {
	const byteOrderMark = '\uFEFF'
	if r == byteOrderMark || r == unicode.ReplacementChar || unicode.IsControl(r) && r != '\t' {
		return -1
	}
	return r
}

// durationLiteral splits d into a number and the name of the largest unit of
// package time that d is a multiple of.
func durationLiteral(d time.Duration) (n int64, unit string) {
	units := []struct {
		size time.Duration
		name string
	}{
		{time.Hour, "Hour"}, {time.Minute, "Minute"}, {time.Second, "Second"},
		{time.Millisecond, "Millisecond"}, {time.Microsecond, "Microsecond"},
	}
	for _, u := range units {
		if d%u.size == 0 {
			return int64(d / u.size), u.name
		}
	}
	return int64(d), "Nanosecond"
}

// mapLiteral returns m as a Go literal with sorted keys.
func mapLiteral(m map[string]string) string {
	var entries []string
	for _, key := range slices.SortedFunc(maps.Keys(m), cmp.Compare) {
		entries = append(entries, fmt.Sprintf("%s: %s", strconv.Quote(key), strconv.Quote(m[key])))
	}
	return "map[string]string{" + strings.Join(entries, ", ") + "}"
}
