package main

import (
	"fmt"
	"log"
	"maps"
	"regexp"
	"slices"
	"strconv"
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
	what  string // as in known.txt
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

// known are the findings that are accepted, by what they say.
type known map[string]int

var knownLine = regexp.MustCompile(`^(.+): ([1-9]\d*)\n$`)

// parseKnown reads lines such as "rpc.stream: fields: 37".
func parseKnown(text string) known {
	k := known{}
	for line := range strings.Lines(text) {
		parts := knownLine.FindStringSubmatch(line)
		if parts == nil {
			log.Fatalf("%s: the line %q is not <what>: <number>", knownFile, line)
		}
		k[parts[1]] = must(strconv.Atoi(parts[2]))
	}
	return k
}

// offences returns the findings that are not known, or larger.
func (k known) offences(found []finding) (offences []string) {
	for _, f := range found {
		if f.n > k[f.what] {
			offence := fmt.Sprintf("%s: %d %s", f.what, f.n, strings.Join(f.where, " "))
			offences = append(offences, strings.TrimSpace(offence))
		}
	}
	return offences
}

// stale returns what is known and no longer true.
func (k known) stale(found []finding) (offences []string) {
	now := known{}
	for _, f := range found {
		now[f.what] = f.n
	}
	for _, what := range slices.Sorted(maps.Keys(k)) {
		if n := now[what]; n < k[what] {
			offences = append(offences, fmt.Sprintf("%s: \"%s: %d\" is no longer true, %s", knownFile, what, k[what], mend(n)))
		}
	}
	return offences
}

// mend says what to do with a line of known.txt that n has replaced.
func mend(n int) string {
	if n == 0 {
		return "delete the line"
	}
	return fmt.Sprint("write ", n)
}
