package rpc

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

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

// newHookHandler returns the handler of a hook. It must not be inlined: isHook knows
// the handler by its code, of which an inlined function has a copy in each place.
//
//go:noinline
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

// isHook reports whether a handler is one of ours. Functions cannot be
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

// refusals are the permissions violations of a connection while a service starts.
type refusals struct {
	mu   sync.Mutex
	errs []error
	came chan struct{} // holds a token when there are more; nil while nothing starts
}

func (r *refusals) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs, r.came = nil, make(chan struct{}, 1)
}

func (r *refusals) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs, r.came = nil, nil
}

func (r *refusals) add(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.came != nil {
		r.errs = append(r.errs, err)
		signal(r.came)
	}
}

// refusalWait bounds the wait for nats.go's error handler, which may run late, and does
// not run for us where the user has just set another one.
const refusalWait = time.Second

// of returns one error that names every one of subs that was refused, nil if none was. last is the
// last violation of the connection, which may be somebody else's and have come behind them: the
// handler is called for each of them, in order.
func (r *refusals) of(ctx context.Context, subs []*nats.Subscription, last error) error {
	ctx, cancel := context.WithTimeout(ctx, refusalWait)
	defer cancel()
	for {
		r.mu.Lock()
		errs, came := r.errs, r.came
		r.mu.Unlock()
		if ctx.Err() != nil && !slices.Contains(errs, last) {
			errs = append(slices.Clone(errs), last)
		}
		if slices.Contains(errs, last) {
			return refusedError(subs, errs)
		}
		select {
		case <-came:
		case <-ctx.Done():
		}
	}
}

func refusedError(subs []*nats.Subscription, errs []error) error {
	var subjects []string
	for _, err := range errs {
		subject, ok := violation(err, "Subscription")
		ours := func(sub *nats.Subscription) bool { return sub.Subject == subject }
		if ok && slices.ContainsFunc(subs, ours) {
			subjects = append(subjects, strconv.Quote(subject))
		}
	}
	if len(subjects) == 0 {
		return nil
	}
	return fmt.Errorf("the NATS user may not subscribe to %s: %w", strings.Join(subjects, ", "), nats.ErrPermissionViolation)
}

// connectionError says why nothing can be sent now; it is nil where something can.
func connectionError(nc *nats.Conn) *Error {
	if nc == nil {
		return failf(CodeInvalidArgument, NotRun, "the NATS connection is nil")
	}
	switch status := nc.Status(); status {
	case nats.CONNECTED:
		return nil
	case nats.CLOSED:
		err := closedError(nc)
		return failf(CodeUnavailable, NotRun, "%v", err).because(err)
	default:
		return failf(CodeUnavailable, NotRun, "the NATS connection is %s%s", strings.ToLower(status.String()), lastError(nc))
	}
}

// closedError is the error of a connection that has been closed for good, with the reason if
// nats.go has one, such as an authorization that was refused.
func closedError(nc *nats.Conn) error {
	if last := nc.LastError(); last != nil && !errors.Is(last, nats.ErrConnectionClosed) {
		return fmt.Errorf("the NATS connection is closed: %w (%w)", last, nats.ErrConnectionClosed)
	}
	return fmt.Errorf("the NATS connection is closed: %w", nats.ErrConnectionClosed)
}

// lastError is the last error of a connection as it stands behind another text.
func lastError(nc *nats.Conn) string {
	if last := nc.LastError(); last != nil {
		return fmt.Sprintf(" (last error: %v)", last)
	}
	return ""
}

// awaitConnection returns when the connection is up.
func awaitConnection(ctx context.Context, nc *nats.Conn) error {
	changes := nc.StatusChanged(nats.CONNECTED, nats.CLOSED, nats.DRAINING_SUBS)
	defer nc.RemoveStatusListener(changes)
	for {
		switch status := nc.Status(); {
		case status == nats.CONNECTED:
			return nil
		case status == nats.CLOSED:
			return closedError(nc)
		case nc.IsDraining():
			return nats.ErrConnectionDraining
		}
		select {
		case <-changes:
		case <-ctx.Done():
			return fmt.Errorf("the NATS connection is %s%s: %w", strings.ToLower(nc.Status().String()), lastError(nc), endOf(ctx))
		}
	}
}
