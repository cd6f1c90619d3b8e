// Package connwatch says what a NATS connection is up to: its state, its asynchronous errors, and
// which subscriptions and publishes NATS refuses. What follows from a lost connection is decided in
// package rpc: by a client's watch and by Server.watchConnection.
package connwatch

import (
	"reflect"
	"slices"
	"sync"

	"github.com/nats-io/nats.go"
)

// hooks are those of all connections that have listeners. A connection has one error handler, and
// many want to hear of errors: the user, and each client and server. The first listener on a
// connection puts a handler in front of the user's, and the last one takes it away again, unless
// the user has set another one meanwhile.
var hooks = struct {
	mu    sync.Mutex
	conns map[*nats.Conn]*hooked
}{conns: map[*nats.Conn]*hooked{}}

// hooked is a connection with listeners.
type hooked struct {
	users int // listeners, and those that are about to be; under the lock of hooks

	mu   sync.Mutex // for the handler of the connection, for which nats.go has a lock too
	hook *hook      // nil while there are no listeners
}

// hook is the handler of a connection.
type hook struct {
	previous nats.ErrHandler

	mu        sync.Mutex
	listeners []*Listener
}

// Listener is called for each asynchronous error of a connection, by a goroutine of nats.go.
type Listener func(sub *nats.Subscription, err error)

// Listen makes l hear of the errors of a connection until Unlisten. Other handlers of the
// connection hear of them too.
func Listen(nc *nats.Conn, l *Listener) {
	hooks.mu.Lock()
	c := hooks.conns[nc]
	if c == nil {
		c = new(hooked)
		hooks.conns[nc] = c
	}
	c.users++
	hooks.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hook == nil || !isHook(nc.ErrorHandler()) {
		next := &hook{previous: nc.ErrorHandler()}
		if c.hook != nil { // the user has replaced our handler: go in front of the new one
			next.listeners = c.hook.takeAll()
		}
		c.hook = next
		nc.SetErrorHandler(newHandler(next))
	}
	c.hook.mu.Lock()
	c.hook.listeners = append(c.hook.listeners, l)
	c.hook.mu.Unlock()
}

// Unlisten ends what Listen began. A call of l may still be running when it returns.
func Unlisten(nc *nats.Conn, l *Listener) {
	hooks.mu.Lock()
	c := hooks.conns[nc]
	hooks.mu.Unlock()
	if c == nil || !c.remove(nc, l) {
		return
	}
	hooks.mu.Lock()
	defer hooks.mu.Unlock()
	if c.users--; c.users == 0 {
		delete(hooks.conns, nc)
	}
}

// remove removes a listener of a connection, and behind the last one the handler. It reports
// whether l was one.
func (c *hooked) remove(nc *nats.Conn, l *Listener) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hook == nil {
		return false
	}
	removed, none := c.hook.remove(l)
	if removed && none {
		if isHook(nc.ErrorHandler()) {
			nc.SetErrorHandler(c.hook.previous)
		}
		c.hook = nil
	}
	return removed
}

// takeAll returns the listeners and leaves none.
func (h *hook) takeAll() []*Listener {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.listeners
	h.listeners = nil
	return l
}

// remove removes a listener. It reports whether it was one, and whether none is left.
func (h *hook) remove(l *Listener) (removed, none bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before := len(h.listeners)
	h.listeners = slices.DeleteFunc(h.listeners, func(other *Listener) bool { return other == l })
	return len(h.listeners) < before, len(h.listeners) == 0
}

// newHandler returns the handler of a hook. It must not be inlined: isHook knows the handler by
// its code, of which an inlined function has a copy in each place.
//
//go:noinline
func newHandler(h *hook) nats.ErrHandler {
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

// isHook reports whether a handler is one of ours. Functions cannot be
// compared, but all closures of one function literal share its code.
func isHook(f nats.ErrHandler) bool {
	return f != nil && reflect.ValueOf(f).Pointer() == hookCode
}

var hookCode = reflect.ValueOf(newHandler(nil)).Pointer()
