package rpctap

import (
	"slices"
	"strings"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// Subject is what a subject says by itself. A method may have a subject of its own, which looks
// like any other: only discovery knows whose it is.
type Subject struct {
	Name     string // the whole subject
	Root     string // of the service: its prefix and full name; "" if it is an inbox
	Method   string // the last token of the subject of a request
	All      bool   // it goes to every instance
	Instance string // the only instance that gets it
	Stream   string // id of the call whose stream the client's frame belongs to
}

// ParseSubject reads a subject. It takes what it cannot tell for the subject of a method.
func ParseSubject(name string) Subject {
	s := Subject{Name: name}
	if strings.HasPrefix(name, "_") || strings.HasPrefix(name, "$") { // of an inbox, or of NATS
		return s
	}
	tokens := strings.Split(name, ".")
	own := slices.IndexFunc(tokens, func(t string) bool { return t == wire.AllToken || t == wire.InstanceToken })
	if own < 0 {
		s.Root, s.Method = cutLast(tokens)
		return s
	}
	s.Root = strings.Join(tokens[:own], ".")
	rest := tokens[own+1:]
	if s.All = tokens[own] == wire.AllToken; !s.All && len(rest) > 0 {
		s.Instance, rest = rest[0], rest[1:]
	}
	s.below(rest)
	return s
}

// below reads what follows the token of all, or of an instance.
func (s *Subject) below(tokens []string) {
	switch {
	case len(tokens) > 1 && tokens[0] == wire.CallToken:
		s.Method = strings.Join(tokens[1:], ".")
	case len(tokens) == 1 && !s.All:
		if id, ok := wire.ParseID(tokens[0]); ok {
			s.Stream = id.String()
		}
	}
}

func cutLast(tokens []string) (root, last string) {
	n := len(tokens) - 1
	return strings.Join(tokens[:n], "."), tokens[n]
}
