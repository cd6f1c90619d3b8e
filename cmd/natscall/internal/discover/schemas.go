package discover

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// SchemaGroup are the instances of a service with the same schema.
type SchemaGroup struct {
	Hash      string // "" for instances that keep it to themselves
	Instances []Instance
}

// SchemaGroups returns the instances by their schemas: those of the newest version come first, of
// one version the most, and last those that say nothing of their schema. There is one group unless
// instances are of different age.
func (s *Service) SchemaGroups() []SchemaGroup {
	var out []SchemaGroup
	for _, i := range s.Instances {
		at := slices.IndexFunc(out, func(g SchemaGroup) bool { return g.Hash == i.Schema })
		if at < 0 {
			at = len(out)
			out = append(out, SchemaGroup{Hash: i.Schema})
		}
		out[at].Instances = append(out[at].Instances, i)
	}
	for _, g := range out {
		slices.SortStableFunc(g.Instances, func(a, b Instance) int { return compareVersions(b.Version, a.Version) })
	}
	slices.SortStableFunc(out, func(a, b SchemaGroup) int {
		if (a.Hash == "") != (b.Hash == "") {
			return strings.Compare(b.Hash, a.Hash)
		}
		return cmp.Or(compareVersions(b.Newest().Version, a.Newest().Version), len(b.Instances)-len(a.Instances))
	})
	return out
}

// Newest returns the instance with the newest version.
func (g SchemaGroup) Newest() Instance { return g.Instances[0] }

// Versions returns the versions of the instances, each once.
func (g SchemaGroup) Versions() []string { return (&Service{Instances: g.Instances}).Versions() }

// compareVersions compares versions as semver.org orders them, and what follows a dash or plus by
// its letters.
func compareVersions(a, b string) int {
	numbersA, restA := splitVersion(a)
	numbersB, restB := splitVersion(b)
	switch order := slices.Compare(numbersA, numbersB); {
	case order != 0:
		return order
	case restA == "" || restB == "": // what is released is newer than what came before it
		return strings.Compare(restB, restA)
	}
	return strings.Compare(restA, restB)
}

func splitVersion(version string) (numbers []int, rest string) {
	end := strings.IndexAny(version, "-+")
	if end < 0 {
		end = len(version)
	}
	for part := range strings.SplitSeq(version[:end], ".") {
		n, _ := strconv.Atoi(part) // micro takes only versions that have numbers
		numbers = append(numbers, n)
	}
	return numbers, strings.TrimPrefix(version[end:], "+")
}

// ShortHash returns as much of a hash as tells schemas apart.
func ShortHash(hash string) string {
	_, hex, _ := strings.Cut(hash, ":")
	return hex[:min(8, len(hex))]
}
