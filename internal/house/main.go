// Command house counts what makes packages hard to read, and checks the limits
// that are kept. It runs at the root of the repository:
//
//	go run ./internal/house [folder ...]
//
// It prints a table with a row for each package, by default of all rooms, and
// exits with 1 and a line for each finding that is over a limit.
package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

func main() {
	log.SetFlags(0)
	folders := os.Args[1:]
	if len(folders) == 0 {
		folders = rooms()
	}
	if found := check(folders, os.Stdout); len(found) > 0 {
		for _, f := range found {
			log.Print(f)
		}
		os.Exit(1)
	}
}

// must ends the program where there is nothing to count.
func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

// rooms are the folders with the packages of the runtime and the plugin. The
// comparison is a module of its own.
func rooms() []string {
	folders := []string{"rpc", "internal/names", "cmd/protoc-gen-go-natscall"}
	for _, path := range goFiles("rpc/internal", "compare") {
		if folder := filepath.Dir(path); !slices.Contains(folders, folder) {
			folders = append(folders, folder)
		}
	}
	return folders
}

// check prints what is counted, and returns what is over its limit.
func check(folders []string, out io.Writer) []finding {
	found := wideComments(".")
	var packages []*counts
	for _, folder := range folders {
		p := count(folder)
		packages = append(packages, p)
		found = append(found, findings(p)...)
	}
	table(out, packages)
	return found
}

// table writes a row for each package, and below the names that do not fit in.
func table(out io.Writer, packages []*counts) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "package\tfiles\tlines\tsplit types\tlargest struct\tmutexes\tatomics\tgo\tpools"+
		"\tfunction median/p90/max\tshared names\twide comments code/tests")
	for _, p := range packages {
		row(w, p)
	}
	_ = w.Flush()
	for _, p := range packages {
		list(out, p.folder+": types with methods in several files", ranked(p.methods))
		list(out, p.folder+": names of functions with several owners", ranked(p.owners))
		list(out, p.folder+": comment lines that are too wide", slices.Concat(p.wide, p.wideInTests))
	}
}

func row(w io.Writer, p *counts) {
	name, fields := p.largest()
	fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%s %d\t%d\t%d\t%d\t%d\t%d/%d/%d\t%d\t%d/%d\n",
		p.folder, p.files, p.lines, len(p.methods.shared()), name, fields, p.mutexes, p.atomics, p.gos, p.pools,
		p.length(50), p.length(90), p.length(100), len(p.owners.shared()), len(p.wide), len(p.wideInTests))
}

func list(out io.Writer, title string, names []string) {
	if len(names) > 0 {
		fmt.Fprintf(out, "\n%s:\n%s\n", title, strings.Join(names, ", "))
	}
}

// ranked returns the names that are shared, with how often, the most shared first.
func ranked(s sets) []string {
	names := s.shared()
	slices.SortStableFunc(names, func(a, b string) int { return len(s[b]) - len(s[a]) })
	for i, name := range names {
		names[i] = fmt.Sprint(name, " ", len(s[name]))
	}
	return names
}
