package tap

import (
	"fmt"
	"slices"
	"strings"
)

// covers reports whether every subject that matches the second pattern matches the first one.
func covers(pattern, other string) bool {
	p, o := strings.Split(pattern, "."), strings.Split(other, ".")
	for i, token := range p {
		switch {
		case token == ">":
			return len(o) > i
		case i >= len(o) || o[i] == ">":
			return false
		case token != "*" && token != o[i]:
			return false
		}
	}
	return len(p) == len(o)
}

// overlap reports whether a subject may match both patterns.
func overlap(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := 0; ; i++ {
		switch {
		case i == len(x) || i == len(y):
			return len(x) == len(y)
		case x[i] == ">" || y[i] == ">":
			return true
		case x[i] != y[i] && x[i] != "*" && y[i] != "*":
			return false
		}
	}
}

// distinct returns patterns without those that others cover, since NATS delivers a message once for
// each subscription. Patterns of which neither covers the other may not overlap.
func distinct(patterns []string) ([]string, error) {
	var out []string
	for i, p := range patterns {
		covered := slices.ContainsFunc(patterns[:i], func(o string) bool { return covers(o, p) }) ||
			slices.ContainsFunc(patterns[i+1:], func(o string) bool { return o != p && covers(o, p) })
		if !covered {
			out = append(out, p)
		}
	}
	for i, a := range out {
		for _, b := range out[i+1:] {
			if overlap(a, b) {
				return nil, fmt.Errorf("the subjects %s and %s overlap, so some messages would come twice", a, b)
			}
		}
	}
	return out, nil
}

// checkPattern returns what is wrong with a subject that may have wildcards.
func checkPattern(pattern string) error {
	tokens := strings.Split(pattern, ".")
	for i, token := range tokens {
		switch {
		case token == "":
			return fmt.Errorf("subject %q has an empty token", pattern)
		case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r == 0x7f }):
			return fmt.Errorf("subject %q has a blank or a control character", pattern)
		case token == ">" && i < len(tokens)-1:
			return fmt.Errorf("subject %q has > before its end", pattern)
		case len(token) > 1 && strings.ContainsAny(token, "*>"):
			return fmt.Errorf("subject %q has a wildcard that is no token of its own", pattern)
		}
	}
	return nil
}
