package rpcauth

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/natscall/natscall/rpc"
)

// unmatched are patterns that match no registered method yet.
type unmatched struct {
	expected sync.Once
	n        atomic.Int64

	mu       sync.Mutex
	patterns map[string]bool
}

// expect sets the patterns, once.
func (u *unmatched) expect(patterns []string) {
	u.expected.Do(func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		u.patterns = map[string]bool{}
		for _, pattern := range patterns {
			if pattern != "*" {
				u.patterns[pattern] = true
			}
		}
		u.n.Store(int64(len(u.patterns)))
	})
}

// registered takes note of a method. It fails if a pattern names a method that its service does not
// have, and makes no interceptor.
func (u *unmatched) registered(m *rpc.Method) (rpc.Interceptor, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	service := m.FullName()[:strings.LastIndexByte(m.FullName(), '/')+1]
	delete(u.patterns, m.FullName())
	delete(u.patterns, service)
	u.n.Store(int64(len(u.patterns)))
	d := m.Descriptor()
	if d == nil {
		return nil, nil
	}
	methods := d.Parent().(protoreflect.ServiceDescriptor).Methods()
	for pattern := range u.patterns {
		if name, ok := strings.CutPrefix(pattern, service); ok && methods.ByName(protoreflect.Name(name)) == nil {
			return nil, fmt.Errorf("rpcauth: the pattern %q matches no method of the service", pattern)
		}
	}
	return nil, nil
}

// check returns why no call may pass, or nil.
func (u *unmatched) check() error {
	if u.n.Load() == 0 {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	r := refuse(ReasonPattern, "the server's rules are for methods that it does not have")
	r.code, r.cause = rpc.CodeFailedPrecondition, fmt.Errorf("no method matches %s", strings.Join(slices.Sorted(maps.Keys(u.patterns)), ", "))
	return r
}
