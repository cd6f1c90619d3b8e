package rpc

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/nats-io/nats.go"
)

// A connection has one error handler and many who want to know: the user,
// and each client and server on it. hooks chains them: the first listener on
// a connection puts a handler in front of the user's, the last takes it away,
// unless the user has meanwhile set another one.
var hooks = connHooks{conns: map[*nats.Conn]*connHook{}}

type connHooks struct {
	mu    sync.Mutex
	conns map[*nats.Conn]*connHook
}

type connHook struct {
	previous nats.ErrHandler

	mu        sync.Mutex
	listeners []*asyncErrors
}

// asyncErrors is a listener: called for each asynchronous error of a
// connection, from a goroutine of nats.go.
type asyncErrors func(sub *nats.Subscription, err error)

func (h *connHooks) add(nc *nats.Conn, l *asyncErrors) {
	h.mu.Lock()
	defer h.mu.Unlock()
	hook := h.conns[nc]
	if hook == nil || !isHook(nc.ErrorHandler()) {
		next := &connHook{previous: nc.ErrorHandler()}
		if hook != nil { // the user has replaced our handler: go in front of the new one
			next.listeners = hook.take()
		}
		hook = next
		h.conns[nc] = hook
		nc.SetErrorHandler(newHookHandler(hook))
	}
	hook.mu.Lock()
	hook.listeners = append(hook.listeners, l)
	hook.mu.Unlock()
}

func (h *connHooks) remove(nc *nats.Conn, l *asyncErrors) {
	h.mu.Lock()
	defer h.mu.Unlock()
	hook := h.conns[nc]
	if hook == nil || !hook.drop(l) {
		return
	}
	delete(h.conns, nc)
	if isHook(nc.ErrorHandler()) {
		nc.SetErrorHandler(hook.previous)
	}
}

// take returns the listeners and leaves none.
func (h *connHook) take() []*asyncErrors {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.listeners
	h.listeners = nil
	return l
}

// drop removes a listener and tells whether none is left.
func (h *connHook) drop(l *asyncErrors) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listeners = slices.DeleteFunc(h.listeners, func(other *asyncErrors) bool { return other == l })
	return len(h.listeners) == 0
}

func newHookHandler(h *connHook) nats.ErrHandler {
	return func(nc *nats.Conn, sub *nats.Subscription, err error) {
		h.mu.Lock()
		listeners := slices.Clone(h.listeners)
		h.mu.Unlock()
		for _, l := range listeners {
			(*l)(sub, err)
		}
		if h.previous != nil {
			h.previous(nc, sub, err)
		}
	}
}

// isHook tells whether a handler is one of ours. Functions cannot be
// compared, but all closures of one function literal share its code.
func isHook(f nats.ErrHandler) bool {
	return f != nil && reflect.ValueOf(f).Pointer() == hookCode
}

var hookCode = reflect.ValueOf(newHookHandler(nil)).Pointer()

// violation reads the subject out of a permissions violation, whose text is
// `Permissions Violation for Publish to "a.b"`. verb is "Publish" or "Subscription".
func violation(err error, verb string) (subject string, ok bool) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return "", false
	}
	_, rest, ok := strings.Cut(err.Error(), verb+` to "`)
	if !ok {
		return "", false
	}
	subject, _, ok = strings.Cut(rest, `"`)
	return subject, ok
}

// connectionError tells why nothing can be sent now, or returns nil.
func connectionError(nc *nats.Conn) *Error {
	if nc == nil {
		return failf(CodeInvalidArgument, NotRun, "the NATS connection is nil")
	}
	if status := nc.Status(); status != nats.CONNECTED {
		return failf(CodeUnavailable, NotRun, "the NATS connection is %s", strings.ToLower(status.String()))
	}
	return nil
}
