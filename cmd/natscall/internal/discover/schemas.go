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

// compareVersions compares versions as semver.org orders them; of two builds of one version the one
// with the greater name is newer, or the one that has a name.
func compareVersions(a, b string) int {
	numbersA, restA := splitVersion(a)
	numbersB, restB := splitVersion(b)
	earlyA, earlyB := strings.HasPrefix(restA, "-"), strings.HasPrefix(restB, "-")
	switch order := slices.Compare(numbersA, numbersB); {
	case order != 0:
		return order
	case earlyA && !earlyB: // what is released is newer than what came before it
		return -1
	case earlyB && !earlyA:
		return 1
	}
	return slices.CompareFunc(strings.Split(restA, "."), strings.Split(restB, "."), compareParts)
}

// compareParts compares numbers as such, and other words by their letters.
func compareParts(a, b string) int {
	numberA, errA := strconv.Atoi(a)
	numberB, errB := strconv.Atoi(b)
	if errA == nil && errB == nil {
		return cmp.Compare(numberA, numberB)
	}
	return strings.Compare(a, b)
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
