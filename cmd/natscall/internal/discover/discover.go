// Package discover finds the services on a NATS server, by the discovery that every NATS micro
// service answers (ADR-32), and finds the one that somebody means.
package discover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
)

// Finder asks the services on a connection.
type Finder struct {
	NC    *nats.Conn
	Limit time.Duration // how long to wait for answers at most
	Trace io.Writer     // gets what is asked, or nil
	quiet time.Duration // how long no answer may come; 0 means as usual
}

// Answer is what an instance has answered, and how long after the question.
type Answer[T any] struct {
	Value T
	After time.Duration
	Size  int // of the answer, in bytes
}

// How long no further answer may come before those that have come are taken for all of them: a
// multiple of what the first one took, since instances may be far away, and at least quiet.
const (
	usuallyQuiet  = 250 * time.Millisecond
	longQuiet     = 4 * usuallyQuiet // before something is said not to be there
	quietMultiple = 4
)

// errNotThere is the cause of the error that a service or method is not there.
var errNotThere = errors.New("not there")

// IsPatient reports whether the finder waits longer than usual.
func (f *Finder) IsPatient() bool { return f.quiet >= longQuiet }

// Patiently runs a function that asks and chooses. If what it is to choose is not there, it runs it
// again with more patience: on a busy machine an instance may be late with its answer.
func Patiently[T any](f *Finder, choose func() (T, error)) (T, error) {
	chosen, err := choose()
	if errors.Is(err, errNotThere) && !f.IsPatient() {
		f.quiet = longQuiet
		return choose()
	}
	return chosen, err
}

// Pings asks all instances whether they are there, or those of the service with a micro name.
func (f *Finder) Pings(ctx context.Context, name string) ([]Answer[micro.Ping], error) {
	return ask[micro.Ping](ctx, f, micro.PingVerb, name)
}

// Infos asks all instances what they are, or those of the service with a micro name.
func (f *Finder) Infos(ctx context.Context, name string) ([]Answer[micro.Info], error) {
	return ask[micro.Info](ctx, f, micro.InfoVerb, name)
}

// Stats asks all instances for their numbers, or those of the service with a micro name.
func (f *Finder) Stats(ctx context.Context, name string) ([]Answer[micro.Stats], error) {
	return ask[micro.Stats](ctx, f, micro.StatsVerb, name)
}

// ask publishes a question and collects answers until they stop coming.
func ask[T any](ctx context.Context, f *Finder, verb micro.Verb, name string) ([]Answer[T], error) {
	subject, err := micro.ControlSubject(verb, name, "")
	if err != nil {
		return nil, problem.Usage("service %q: %w", name, err)
	}
	ctx, cancel := context.WithTimeout(ctx, f.Limit)
	defer cancel()
	replies, err := f.request(ctx, subject)
	if err != nil {
		return nil, f.explain(err)
	}
	defer replies.close()
	var out []Answer[T]
	patience := f.Limit
	for {
		m, err := replies.next(ctx, patience)
		if err != nil || m.msg == nil {
			f.trace("%d answers to %s", len(out), subject)
			return out, f.explain(err)
		}
		var value T
		if err := json.Unmarshal(m.msg.Data, &value); err != nil {
			continue // of something else that listens there
		}
		out = append(out, Answer[T]{value, m.after, len(m.msg.Data)})
		if len(out) == 1 {
			patience = max(usuallyQuiet, f.quiet, quietMultiple*m.after)
		}
	}
}

// request publishes a question. What NATS refuses it says before it answers the flush.
func (f *Finder) request(ctx context.Context, subject string) (*replies, error) {
	f.trace("asking %s", subject)
	r, err := listen(f.NC)
	if err != nil {
		return nil, err
	}
	err = f.NC.PublishRequest(subject, r.sub.Subject, nil)
	if err == nil {
		err = f.NC.FlushWithContext(ctx)
	}
	if err == nil {
		err = f.refusal(subject, r.sub.Subject)
	}
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// explain says why there was no time for a question.
func (f *Finder) explain(err error) error {
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return problem.Failure("check the connection, or give it more time with --timeout", "the NATS server does not answer within %v", f.Limit)
	case errors.Is(err, context.Canceled):
		return problem.Failure("", "interrupted while asking for services")
	}
	return err
}

// refusal returns what NATS has said against a question, or against the inbox of its answers.
func (f *Finder) refusal(question, inbox string) error {
	err := f.NC.LastError()
	if !errors.Is(err, nats.ErrPermissionViolation) {
		return nil
	}
	next := "`natscall permissions --discover` prints what the user of a tool has to be permitted"
	switch text := err.Error(); {
	case strings.Contains(text, strconv.Quote(question)):
	case strings.Contains(text, strconv.Quote(inbox)):
		next = "if the user has inboxes of its own, --inbox-prefix names them; " + next
	default:
		return nil
	}
	return problem.Failure(next, "NATS does not permit to ask for services: %w", err)
}

func (f *Finder) trace(format string, args ...any) {
	if f.Trace != nil {
		fmt.Fprintf(f.Trace, ">>> "+format+"\n", args...)
	}
}
