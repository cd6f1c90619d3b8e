package connwatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/wait"
)

// What a permissions violation may be about.
const (
	ToPublish   = "Publish"
	ToSubscribe = "Subscription"
)

// Violation returns the subject of a permissions violation, whose text is
// `Permissions Violation for Publish to "a.b"`. what is ToPublish or ToSubscribe.
func Violation(err error, what string) (subject string, ok bool) {
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return "", false
	}
	_, rest, ok := strings.Cut(err.Error(), what+` to "`)
	if !ok {
		return "", false
	}
	subject, _, ok = strings.Cut(rest, `"`)
	return subject, ok
}

// Refusals collects the permissions violations of a connection while subscriptions are made. The
// zero value is ready for use. Its methods may be called concurrently, but Begin only after End.
type Refusals struct {
	mu   sync.Mutex
	errs []error
	came chan struct{} // holds a token when there are more; nil while nothing is collected
}

// Begin starts to collect.
func (r *Refusals) Begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs, r.came = nil, make(chan struct{}, 1)
}

// End stops it.
func (r *Refusals) End() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs, r.came = nil, nil
}

// Add takes an error that a listener has heard. It reports whether errors are collected.
func (r *Refusals) Add(err error) (collected bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.came == nil {
		return false
	}
	r.errs = append(r.errs, err)
	wait.Signal(r.came)
	return true
}

// refusalWait bounds the wait for nats.go's error handler, which may run late, and does not call
// us where the user has just set another one.
const refusalWait = time.Second

// Of returns one error that names every one of subs that was refused, nil if none was. last is the
// last violation of the connection. It may be another subscriber's and have come after those of
// subs: the handler is called for each of them, in order.
func (r *Refusals) Of(ctx context.Context, subs []*Subscription, last error) error {
	ctx, cancel := context.WithTimeout(ctx, refusalWait)
	defer cancel()
	for {
		errs, came := r.soFar()
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

func (r *Refusals) soFar() ([]error, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.errs, r.came
}

func refusedError(subs []*Subscription, errs []error) error {
	var subjects []string
	for _, err := range errs {
		subject, ok := Violation(err, ToSubscribe)
		ours := func(sub *Subscription) bool { return sub.Subject == subject }
		if ok && slices.ContainsFunc(subs, ours) {
			subjects = append(subjects, strconv.Quote(subject))
		}
	}
	if len(subjects) == 0 {
		return nil
	}
	return fmt.Errorf("the NATS user may not subscribe to %s: %w", strings.Join(subjects, ", "), nats.ErrPermissionViolation)
}
