package rpc

import (
	"fmt"
	"slices"
	"strings"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
)

// lacks reports whether none of the instances has the method, and none of them is about to come or
// go. Then the lack will not pass. found has at least one instance.
func lacks(found []*natscallv1.Instance, method string) bool {
	for _, instance := range found {
		switch instance.GetState() {
		case natscallv1.State_STATE_SERVING, natscallv1.State_STATE_UNHEALTHY:
		default:
			return false
		}
		if slices.Contains(instance.GetMethods(), method) {
			return false
		}
	}
	return true
}

// servingInstances returns those that serve and have the method.
func servingInstances(found []*natscallv1.Instance, method string) (all []string) {
	for _, instance := range found {
		if instance.GetState() == natscallv1.State_STATE_SERVING && slices.Contains(instance.GetMethods(), method) {
			all = append(all, instance.GetInstance())
		}
	}
	return all
}

// methodsOf returns the methods of the .proto files of all instances, in order.
func methodsOf(found []*natscallv1.Instance) []string {
	var all []string
	for _, instance := range found {
		all = append(all, instance.GetMethods()...)
	}
	all = slices.DeleteFunc(all, func(name string) bool { return strings.HasPrefix(name, "_") })
	slices.Sort(all)
	return slices.Compact(all)
}

// maxNamed is how many methods an error names, about a kilobyte.
const maxNamed = 40

// noMethod returns the error of a call of a method that a service does not have. where is what does
// not have it, and methods are those that it has.
func noMethod(where, method string, methods []string) *Error {
	text := fmt.Sprintf("%s has no method %s", where, method)
	if near := nearest(method, methods); near != "" {
		text += fmt.Sprintf(": did you mean %s?", near)
	}
	switch more := len(methods) - maxNamed; {
	case len(methods) == 0:
		text += "; it has none"
	case more > 0:
		text += fmt.Sprintf("; it has %s and %d more", strings.Join(methods[:maxNamed], ", "), more)
	default:
		text += "; it has " + strings.Join(methods, ", ")
	}
	return failf(CodeUnimplemented, ExecutionNotRun, "%s", text)
}

// nearest returns the name that differs the least from another one, or "" if all of them differ in
// more than a third of their letters.
func nearest(name string, names []string) (near string) {
	least := len(name)/3 + 1
	for _, other := range names {
		if d := distance(strings.ToLower(name), strings.ToLower(other)); d < least {
			near, least = other, d
		}
	}
	return near
}

// distance returns how many bytes have to be inserted, removed and replaced to make b out of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1) // distances of the part of a that has been read to the parts of b
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0] // of the row above
		row[0] = i + 1
		for j := range len(b) {
			replaced := before
			if a[i] != b[j] {
				replaced++
			}
			before = row[j+1]
			row[j+1] = min(replaced, before+1, row[j]+1)
		}
	}
	return row[len(b)]
}
