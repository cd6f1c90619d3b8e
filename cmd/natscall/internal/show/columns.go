package show

import (
	"slices"

	"github.com/natscall/natscall/cmd/natscall/internal/discover"
	"github.com/natscall/natscall/cmd/natscall/internal/output"
)

// How short names and sentences get in narrow terminals, as long as they can still be told apart.
const (
	leastName   = 16
	leastPrefix = 8
	leastID     = 10
	leastText   = 28
)

// prefixColumn stands behind SERVICE where services have subject prefixes.
const prefixColumn = "PREFIX"

// withPrefix adds the column of prefixes, behind the first one.
func withPrefix(prefixed bool, columns ...string) []string {
	if !prefixed {
		return columns
	}
	return slices.Insert(columns, 1, prefixColumn)
}

// service returns the cells of a service: its name and, in a table with that column, its prefix.
func service(prefixed bool, name, prefix string) []any {
	if !prefixed {
		return []any{name}
	}
	return []any{name, prefix}
}

// anyPrefix reports whether a service has a subject prefix.
func anyPrefix(services []*discover.Service) bool {
	return slices.ContainsFunc(services, func(s *discover.Service) bool { return s.Prefix() != "" })
}

// keyOf names a service so that it is told from those of the same name under another prefix.
func keyOf(name, prefix string) string {
	if prefix == "" {
		return name
	}
	return name + " --prefix " + prefix
}

// shrinkNames lets the names of services and their prefixes, and then the ids of instances, be
// shortened.
func shrinkNames(table *output.Table) {
	table.Shrink(prefixColumn, leastPrefix, output.Tail)
	table.Shrink("SERVICE", leastName, output.Tail)
	table.Shrink("INSTANCE", leastID, output.Middle)
}
