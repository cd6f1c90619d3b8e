package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/natscall/natscall/rpc/internal/instances"
	"github.com/natscall/natscall/rpc/internal/wait"
)

const (
	// minBackoff is about a round trip within a data centre, maxBackoff what a
	// rolling restart takes: a caller is at most that late.
	minBackoff = 5 * time.Millisecond
	maxBackoff = 500 * time.Millisecond
	// strangerTime is how long a call waits for a service that this client has never heard of: time
	// to start beside it, while a name that is wrong is noticed soon.
	strangerTime = 2 * time.Second

	// defaultRetryBurst is what one instance works on at once by default, all of which may have to
	// be sent again when it dies.
	defaultRetryBurst = defaultConcurrency
	// defaultRetryShare is what a service with room for its calls can carry beside them.
	defaultRetryShare = 0.1
)

// retryOptions are how a call is sent again. The zero value is the default.
type retryOptions struct {
	once     bool
	attempts int // at most, if it is not 0
	minPause time.Duration
	maxPause time.Duration
	codes    uint32 // a bit for each code that is tried again
	hedging  hedging
	keyed    bool // the service runs a call with its key once
	// twice names an option that was given for this call or method, and not for all of a client,
	// and is for methods that may run twice.
	twice string
}

// retryBudget is what the budgets of a client are made with.
type retryBudget struct {
	burst int
	share float64
}

// forIdempotent makes an option that is for methods that may run twice. Where it is the default of
// a client, other methods ignore it.
func forIdempotent(name string, set func(*retryOptions) error) option {
	return option{
		client: func(o *clientOptions) error { return set(&o.retry) },
		call:   func(o *callOptions) error { o.retry.twice = name; return set(&o.retry) },
	}
}

// WithoutRetry sends a request once, and makes no hedges. By default a call is sent again until its
// deadline where that is safe, for instance because no service was there for a moment: see
// [Error.Execution].
func WithoutRetry() ClientCallOption {
	return forCalls(func(o *callOptions) error { o.retry.once = true; return nil })
}

// WithMaxAttempts bounds how often a call is sent, hedges included. Attempts that no instance has
// worked on do not count: those that have met no responders, or that an instance about to stop has
// refused. The default is no limit but the deadline and the budget ([WithRetryBudget]).
func WithMaxAttempts(n int) ClientCallOption {
	return forCalls(func(o *callOptions) error { return setCount(&o.retry.attempts, "WithMaxAttempts", n, 1) })
}

// WithBackoff sets the pauses before a call is sent again: the first one, which doubles with each
// attempt, and the longest one. Each pause is shortened at random, by up to a half. The defaults
// are 5 ms and 500 ms. A google.rpc.RetryInfo in the error makes a pause longer.
func WithBackoff(first, longest time.Duration) ClientCallOption {
	return forCalls(func(o *callOptions) error {
		if first <= 0 || longest < first {
			return fmt.Errorf("WithBackoff(%v, %v): the first pause must be greater than 0, the longest at least as long", first, longest)
		}
		o.retry.minPause, o.retry.maxPause = first, longest
		return nil
	})
}

// WithRetryCodes sends a call again whose error from an instance has one of the codes, also if its
// handler has run. It is for methods that may run twice, of which the idempotency_level in the
// .proto file is IDEMPOTENT or NO_SIDE_EFFECTS: as a client's default it applies to those only, and
// given for another one ([WithMethodOptions], or on a call) it fails the call with
// CodeInvalidArgument. The default is none: a call that is unavailable and may have run is sent
// again in any case. A call with an idempotency key is not sent again for its code, since it would
// get the same error. Of several such options the last one counts.
func WithRetryCodes(codes ...Code) ClientCallOption {
	return forIdempotent("WithRetryCodes", func(o *retryOptions) error {
		o.codes = 0
		for _, code := range codes {
			if !code.isError() || code == CodeCanceled {
				return fmt.Errorf("WithRetryCodes(%v): calls with this code cannot be sent again", code)
			}
			o.codes |= 1 << code
		}
		return nil
	})
}

// IdempotencyKeyHeader is the header that WithIdempotencyKey sets, as
// draft-ietf-httpapi-idempotency-key-header names it.
const IdempotencyKeyHeader = "Idempotency-Key"

// WithIdempotencyKey gives a call a key by which its service runs it once, however often it is sent
// (rpc/rpcdedup). So the call is sent again where it may have run, whatever the idempotency_level
// of its method is. A caller that makes the call again after an error, or after a restart of its
// own, uses the same key. The key is any text that no other call has, such as the id of an order or
// crypto/rand.Text.
//
// A service that does not look at keys runs the call each time.
func WithIdempotencyKey(key string) CallOption {
	header := WithHeader(IdempotencyKeyHeader, key)
	return option{call: func(o *callOptions) error {
		if key == "" {
			return errors.New("WithIdempotencyKey: the key is empty")
		}
		o.retry.keyed = true
		return header.applyCall(o)
	}}
}

// WithRetryBudget bounds how often the calls of a client to a service are sent again. Each service
// has a budget that begins with burst tokens, which is also the most that it holds. An answer of a
// handler adds share of a token, between 0 and 1, unless it is an error that is tried again; a
// further attempt takes one, if an instance may have to work on it, and so does a hedge.
// docs/protocol.md, Errors, says which attempts are free. If there is no token the call ends with
// the error of its last attempt.
//
// So a service that fails, or is too slow, gets at most burst further attempts of a client, and
// then share of what it answers. The defaults are 1024 and 0.1.
func WithRetryBudget(burst int, share float64) ClientOption {
	return option{client: func(o *clientOptions) error {
		if !(share >= 0 && share <= 1) { // NaN is neither
			return fmt.Errorf("WithRetryBudget(%d, %v): the share must be between 0 and 1", burst, share)
		}
		o.budget.share = share
		return setCount(&o.budget.burst, "WithRetryBudget", burst, 0)
	}}
}

// verdict is what is to be done about the error of an attempt.
type verdict struct {
	again     bool
	free      bool          // it takes no token
	elsewhere bool          // at another instance than the one that answered, at once
	delay     time.Duration // the least that the server asks for
}

// judge is the rule of docs/protocol.md for the error of an attempt. last is what the attempts
// before it have ended with, or nil, and busy says that the call has left a busy instance before.
func judge(c *clientCall, err, last *Error, busy bool) verdict {
	o, twice := c.options, c.method.mayRunTwice()
	delay, advised := retryDelay(err)
	unavailable, notRun := err.code == CodeUnavailable, err.execution == ExecutionNotRun
	switch {
	case o.retry.once:
		return verdict{}
	case unavailable && notRun && err.refused:
		return verdict{again: o.instance == "", free: true} // which another one cannot stand in for
	case delay < 0:
		return verdict{}
	case unavailable && notRun && !err.remote && last != nil && last.execution == ExecutionMayHaveRun:
		return verdict{again: true, free: true} // a connection that is down is waited for
	case unavailable && notRun && advised,
		unavailable && err.execution == ExecutionMayHaveRun && (twice || o.retry.keyed):
		return verdict{again: true, delay: delay}
	case err.code == CodeResourceExhausted && notRun && advised && err.instance != "" && !busy && c.forAnyInstance():
		return verdict{again: true, elsewhere: true}
	case err.remote && twice && !o.retry.keyed && o.retry.codes&(1<<err.code) != 0:
		return verdict{again: true, delay: delay}
	}
	return verdict{}
}

// retries sends a call until the result is final, or its deadline has come.
type retries struct {
	attempt   attempt
	until     time.Time // of further attempts
	unbounded bool      // the call has no deadline; until bounds the search for a server
	backoff   time.Duration
	busy      *Error // of a busy instance that has been left
	stoodIn   bool   // an instance has stood in for a silent one
	// last is the error of the attempt before. It says more than the deadline that ends the
	// attempts.
	last *Error
}

// run makes attempts.
func (r *retries) run(ctx context.Context) *Error {
	for {
		err := r.try(ctx)
		if err == nil {
			r.attempt.subjects.budget.Answered()
			return nil
		}
		if final := r.prepare(ctx, err); final != nil {
			return final
		}
		r.attempt.call.forget()
	}
}

// try makes one attempt.
func (r *retries) try(ctx context.Context) *Error {
	var began time.Time
	if r.unbounded {
		began = time.Now()
	}
	err := r.attempt.run(ctx)
	if err != nil && err.offline {
		err = r.attempt.awaitConnection(ctx, err)
	}
	if err == nil {
		return nil
	}
	if r.unbounded {
		r.until = r.until.Add(time.Since(began))
	}
	return r.attempt.ended(err)
}

// prepare prepares another attempt after the error of one, or returns the error of the call.
func (r *retries) prepare(ctx context.Context, err *Error) (final *Error) {
	a := &r.attempt
	switch notRun := err.execution == ExecutionNotRun; {
	case r.last != nil && notRun && errors.Is(err, context.DeadlineExceeded):
		return r.last
	case r.busy != nil && r.last == r.busy && notRun && a.subjects.direct.refused():
		return r.busy
	}
	giveUp := r.until
	if err.isAbsence() {
		var lack *Error
		if lack, giveUp = a.explainAbsence(ctx, r.until); lack != nil {
			return lack.after(r.last)
		}
	}
	v := judge(a.call, err, r.last, r.busy != nil)
	err = err.after(r.last).withCauseOf(ctx)
	switch {
	case !v.again && err.execution == ExecutionDidRun:
		a.subjects.budget.Answered()
		return err
	case !v.again, a.client.closed.Load():
		return err
	}
	if !v.free {
		a.counted += 1 + a.hedges
		if most := a.call.options.retry.attempts; most > 0 && a.counted >= most {
			return err
		}
	}
	r.last = err
	if v.elsewhere {
		return r.leave(ctx, err)
	}
	asks := a.silence && !r.stoodIn // whether a token is taken depends on the answer
	if !v.free && !asks && !r.take() {
		return err.unbudgeted()
	}
	if end := pause(ctx, giveUp, max(v.delay, r.nextPause())); errors.Is(end, context.DeadlineExceeded) {
		return err
	} else if end != nil {
		return contextError(ctx, err.execution)
	}
	a.address(ctx)
	if !v.free && asks {
		if r.stoodIn = a.standIn != ""; !r.stoodIn && !r.take() {
			return err.unbudgeted()
		}
	}
	return nil
}

// take takes a token for an attempt. While the connection is down none is needed: no instance has
// done anything wrong.
func (r *retries) take() bool {
	a := &r.attempt
	return a.client.opened.Load() && a.client.link.Down() || a.subjects.budget.Take()
}

// leave addresses another instance than the busy one that err comes from. Without one, err is
// final, and so it is if NATS does not let this client choose one.
func (r *retries) leave(ctx context.Context, err *Error) (final *Error) {
	a := &r.attempt
	r.busy = err
	other := a.choose(ctx, instances.RecentTime, err.instance)
	switch {
	case other == "":
		return err
	case !a.subjects.budget.Take():
		return err.unbudgeted()
	}
	a.sendTo(other)
	return nil
}

// nextPause returns the pause before the next attempt.
func (r *retries) nextPause() time.Duration {
	o := &r.attempt.call.options.retry
	first, longest := cmp.Or(o.minPause, minBackoff), cmp.Or(o.maxPause, maxBackoff)
	r.backoff = min(max(2*r.backoff, first), longest)
	return r.backoff - rand.N(r.backoff/2+1)
}

// pause waits for d; it returns an error when ctx or the deadline ends first.
func pause(ctx context.Context, deadline time.Time, d time.Duration) error {
	if time.Until(deadline) <= d {
		return context.DeadlineExceeded
	}
	return wait.Pause(ctx, d)
}
