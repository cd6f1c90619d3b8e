package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The limits. A type can be read if it stands in one file; a larger struct lacks
// a part with a name; a package with more locks is more than one machine.
const (
	maxFields  = 15
	maxMutexes = 4 // of package rpc
	maxColumns = 100
)

// maySplit are the types, as in "rpc.Call", whose methods may stand in several
// files, with the reason. There are three at most.
var maySplit = map[string]string{}

// finding is a number that is over its limit.
type finding struct {
	what  string
	n     int
	where []string
}

func findings(p *counts) []finding {
	return slices.Concat(splitTypes(p, maySplit), largeStructs(p), locks(p))
}

func splitTypes(p *counts, exceptions map[string]string) (found []finding) {
	for _, name := range p.methods.shared() {
		if full := p.folder + "." + name; exceptions[full] == "" {
			files := slices.Sorted(maps.Keys(p.methods[name]))
			found = append(found, finding{full + ": files with its methods", len(files), files})
		}
	}
	return found
}

func largeStructs(p *counts) (found []finding) {
	for _, name := range slices.Sorted(maps.Keys(p.fields)) {
		if n := p.fields[name]; n > maxFields {
			found = append(found, finding{p.folder + "." + name + ": fields", n, nil})
		}
	}
	return found
}

func locks(p *counts) []finding {
	if p.folder != "rpc" || p.mutexes <= maxMutexes {
		return nil
	}
	return []finding{{p.folder + ": mutexes", p.mutexes, nil}}
}

// wideComments returns the files below root with comments that are too wide.
func wideComments(root string) (found []finding) {
	for _, path := range goFiles(root, "") {
		f := parse(path)
		if where := f.comments(maxColumns); len(where) > 0 && !f.isGenerated() {
			found = append(found, finding{path + ": comment lines that are too wide", len(where), where})
		}
	}
	return found
}

// String says what is over its limit, and where.
func (f finding) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s: %d %s", f.what, f.n, strings.Join(f.where, " ")))
}
