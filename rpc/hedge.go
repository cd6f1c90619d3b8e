package rpc

import (
	"cmp"
	"context"
	"fmt"
	"time"

	"github.com/natscall/natscall/rpc/internal/instances"
	"github.com/natscall/natscall/rpc/internal/reply"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// hedging says when a call is hedged: after a delay, or after the time that a part of the calls
// take. The zero value means never.
type hedging struct {
	delay    time.Duration
	quantile float64
}

// minHedgeDelay is the least time before a hedge, about a round trip.
const minHedgeDelay = time.Millisecond

// WithHedging sends a unary call to a second instance if the first one has not answered after
// delay, at least 1 ms, and to a third after as much again, and so on up to [WithMaxAttempts], 2
// unless it is set. The first answer counts; the other attempts are canceled. A hedge that comes to
// the instance that has the call already does not run there: it is sent to another one. If there
// is none, the call is not hedged. Each hedge takes a token of [WithRetryBudget].
//
// A hedged method runs more than once, also at the same time. So WithHedging is for methods of
// which the idempotency_level in the .proto file is IDEMPOTENT or NO_SIDE_EFFECTS: as a client's
// default it applies to those only, and given for another one ([WithMethodOptions], or on a call)
// it fails the call with CodeInvalidArgument. Streams, large requests, plain requests and those for
// one instance are not hedged.
func WithHedging(delay time.Duration) ClientCallOption {
	return forIdempotent("WithHedging", func(o *retryOptions) error {
		if delay <= 0 {
			return fmt.Errorf("WithHedging(%v): the delay must be greater than 0", delay)
		}
		o.hedging = hedging{delay: max(delay, minHedgeDelay)}
		return nil
	})
}

// WithHedgingQuantile is WithHedging with a delay that follows the method: the time that the
// fraction q of its last 1,000 to 2,000 calls of this client did not exceed, within an eighth. With
// 0.95 about one in twenty calls is hedged. Before a hundred calls have been answered none is.
func WithHedgingQuantile(q float64) ClientCallOption {
	return forIdempotent("WithHedgingQuantile", func(o *retryOptions) error {
		if !(q > 0 && q < 1) { // NaN is neither
			return fmt.Errorf("WithHedgingQuantile(%v): must be between 0 and 1", q)
		}
		o.hedging = hedging{quantile: q}
		return nil
	})
}

// hedged makes the request of an attempt, and hedges while it waits.
func hedged(ctx context.Context, a *attempt, first reply.Request) *Error {
	racing, cancel := context.WithCancel(ctx)
	defer cancel() // what has not ended
	h := hedges{attempt: *a, first: first.ID, ended: make(chan hedgeEnd), over: make(chan struct{})}
	defer close(h.over)
	a.call.sentRequest(nil)
	began := time.Now()
	if a.standIn != "" {
		h.leaveOut = []string{a.standIn}
	}
	h.send(racing, h.attempt, first)
	failed := h.wait(ctx, racing)
	a.hedges = h.made
	if a.call.options.retry.hedging.quantile > 0 && failed == nil {
		a.subjects.times.Add(time.Since(began))
	}
	return failed
}

// hedges is a round of attempts of a call that wait at the same time.
//
//	          delay                    refused: it has the call
//	waiting ---------> hedge is sent ---------------------------> asking for another instance
//	   |  ^                  |                                               |
//	   |  +------------------+------------------ it is sent there -----------+
//	   | an answer, or an error that is final; the last attempt has ended
//	   v
//	 over: the attempts that wait are canceled
//
// All of it runs on the caller's goroutine, but for the waits for replies.
type hedges struct {
	attempt  attempt // the first, which the others are made of
	first    wire.ID
	ended    chan hedgeEnd
	over     chan struct{} // closed when nobody takes what ended gets
	waiting  int           // attempts
	made     int           // hedges
	leaveOut []string      // instances that have refused one
	asking   *instances.Query
	last     *Error // of an attempt that has ended while another one waits
}

// hedgeEnd is the end of an attempt.
type hedgeEnd struct {
	attempt attempt
	request reply.Request
	ending
}

// send sends an attempt, in a goroutine that ends with its request or when all of them are over.
func (h *hedges) send(racing context.Context, a attempt, r reply.Request) {
	h.waiting++
	ended, over := h.ended, h.over
	go func() {
		end := a.client.do(racing, &r)
		select {
		case ended <- hedgeEnd{a, r, end}:
		case <-over:
		}
	}()
}

// wait waits for the end of the call. The attempts are made in racing, which ends with ctx or when
// all of them are over.
func (h *hedges) wait(ctx, racing context.Context) *Error {
	delay := h.delay()
	timer := time.NewTimer(delay)
	defer timer.Stop()
	for {
		var answered <-chan struct{}
		if h.asking != nil {
			answered = h.asking.Over()
		}
		select {
		case end := <-h.ended:
			h.waiting--
			if failed, over := h.settle(ctx, &end); over {
				return failed
			}
		case <-answered:
			found := h.asking.Found()
			h.asking = nil
			if other := h.attempt.pick(found.Instances, h.leaveOut...); other != "" {
				if failed := h.hedge(racing, other); failed != nil {
					return failed
				}
			}
		case <-timer.C:
			if h.made >= h.most() {
				continue // the last one
			}
			timer.Reset(delay)
			if h.asking != nil || h.attempt.client.link.Down() || !h.attempt.subjects.budget.Take() {
				continue
			}
			h.made++
			if failed := h.hedge(racing, ""); failed != nil {
				return failed
			}
		}
	}
}

// never is longer than any call waits.
const never = 24 * 365 * time.Hour

// delay returns the time until the first hedge, and between hedges.
func (h *hedges) delay() time.Duration {
	o := h.attempt.call.options.retry.hedging
	if o.quantile == 0 {
		return o.delay
	}
	if known := h.attempt.subjects.times.Quantile(o.quantile); known > 0 {
		return max(known, minHedgeDelay)
	}
	return never
}

// most returns how many hedges may be made.
func (h *hedges) most() int {
	if all := h.attempt.call.options.retry.attempts; all > 0 {
		return all - 1 - h.attempt.counted
	}
	return 1
}

// hedge makes one more attempt, at an instance or, if that is "", at any.
func (h *hedges) hedge(racing context.Context, instance string) *Error {
	a := h.attempt
	a.hedgeOf = h.first
	a.sendTo(instance)
	if a.left = a.timeLeft(); a.left <= 0 && !a.deadline.IsZero() {
		return nil // the first attempt ends at the same moment
	}
	r, large, failed := a.newRequest()
	switch {
	case failed != nil: // by a function of OnAttempt
		return failed.withExecution(ExecutionMayHaveRun)
	case large: // with the header of a hedge
		r.Buffer.PutBack()
		return nil
	}
	h.send(racing, a, r)
	return nil
}

// settle looks at the end of an attempt. over says that it is the end of all of them.
func (h *hedges) settle(ctx context.Context, end *hedgeEnd) (failed *Error, over bool) {
	a := &end.attempt
	a.call.forget()
	failed = a.settle(ctx, &end.request, end.ending)
	if failed == nil {
		return nil, true
	}
	refusedBy := cmp.Or(failed.instance, a.standIn)
	if a.hedgeOf != (wire.ID{}) || a.standIn != "" {
		failed = a.ended(failed)
	}
	again, refused := judge(a.call, failed, h.last, false).again, failed.refused
	if h.last == nil || !refused { // a refusal says less than what was before
		h.last = failed.after(h.last)
	}
	switch notRun := h.last.execution == ExecutionNotRun; {
	case h.waiting == 0:
		return h.last, true
	case !again && notRun:
		return h.last.withExecution(ExecutionMayHaveRun), true // as those that wait
	case !again:
		return h.last, true
	}
	if refused && refusedBy != "" {
		h.leaveOut = append(h.leaveOut, refusedBy)
		h.asking = a.client.known.Query(a.subjects.root, instances.JustNow)
	}
	return nil, false
}
