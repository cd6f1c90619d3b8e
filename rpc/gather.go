package rpc

import (
	"fmt"
	"iter"
	"time"
)

// Gathering is a request to all instances of a service. One goroutine may use it.
type Gathering[Res any] struct {
	gathering *gathering
	run       func(yield func(gatherRow) bool)
}

// Gathered is the answer of an instance.
type Gathered[Res any] struct {
	// Instance is its token, which [WithInstance] takes.
	Instance string
	// Response is the zero value if there is an error.
	Response Res
	// Err is nil, or an *Error of this instance: that of its handler; CodeUnavailable if the
	// instance is draining, or has gone before it had answered; CodeUnimplemented if it does not
	// have the method; or why its response cannot be read.
	Err error
}

// All sends the request, and iterates over the answers in the order in which they come. There is at
// most one of each instance. It can be used once. Leaving the loop early ends the gathering, and
// the contexts of handlers that still run.
func (g *Gathering[Res]) All() iter.Seq[Gathered[Res]] {
	return func(yield func(Gathered[Res]) bool) {
		g.run(func(row gatherRow) bool {
			out := Gathered[Res]{Instance: row.instance, Err: asNil(row.err)}
			if row.err == nil {
				out.Response = row.response.(Res)
			}
			return yield(out)
		})
	}
}

// Result returns how the gathering has ended, after the loop over All.
func (g *Gathering[Res]) Result() GatherResult { return g.gathering.result }

// GatherResult says how a gathering has ended. The lists have tokens of instances, in order.
type GatherResult struct {
	Ended GatherEnd
	// Answered are the instances whose answers All has yielded, errors included.
	Answered []string
	// Expected are the instances that were known, and those that have answered.
	Expected []string
	// Missing are those of Expected that have not answered.
	Missing []string
	// Err is an *Error if Ended is GatherEndNobody, GatherEndDeadline, GatherEndCanceled or
	// GatherEndFailed, else nil. The errors of instances are in the rows.
	Err error
}

// GatherEnd is why a gathering has ended.
type GatherEnd uint8

const (
	// GatherEndNone means that it has not ended.
	GatherEndNone GatherEnd = iota
	// GatherEndAll means that all instances have answered that are known.
	GatherEndAll
	// GatherEndFirst means that so many have answered as [UntilFirst] asks for.
	GatherEndFirst
	// GatherEndQuorum means that so many have answered as [UntilQuorum] asks for.
	GatherEndQuorum
	// GatherEndStall means that no answer has come for as long as [UntilStall] says.
	GatherEndStall
	// GatherEndLeft means that the loop over All was left.
	GatherEndLeft
	// GatherEndNobody means that no instance is there.
	GatherEndNobody
	// GatherEndDeadline means that the deadline has passed.
	GatherEndDeadline
	// GatherEndCanceled means that the caller's context was canceled.
	GatherEndCanceled
	// GatherEndFailed means that the request could not be sent, or no answer can come any more.
	GatherEndFailed
)

// String returns the reason in a word, as in "quorum".
func (e GatherEnd) String() string {
	return [...]string{
		"none", "all", "first", "quorum", "stall", "left", "nobody", "deadline", "canceled", "failed", "unknown",
	}[min(e, GatherEndFailed+1)]
}

// GatherOption is an option of [UnaryMethod.Gather]: [UntilFirst], [UntilQuorum], [UntilStall] and
// [WithCallOptions]. Whatever is given, a gathering also ends when all known instances have
// answered.
type GatherOption interface{ applyGather(*gatherOptions) error }

type gatherOptions struct {
	call   []CallOption
	first  int // 0 is no bound
	quorum bool
	stall  time.Duration // 0 is no bound
}

type gatherOption func(*gatherOptions) error

func (f gatherOption) applyGather(o *gatherOptions) error { return f(o) }

// UntilFirst ends a gathering when n instances have answered without an error.
func UntilFirst(n int) GatherOption {
	return gatherOption(func(o *gatherOptions) error { return setCount(&o.first, "UntilFirst", n, 1) })
}

// UntilQuorum ends a gathering when more than half of the instances that are known have answered
// without an error.
func UntilQuorum() GatherOption {
	return gatherOption(func(o *gatherOptions) error { o.quorum = true; return nil })
}

// UntilStall ends a gathering when no answer has come for d. The time begins with the first answer,
// and stands still while the loop over All works on one.
func UntilStall(d time.Duration) GatherOption {
	return gatherOption(func(o *gatherOptions) error {
		if d <= 0 {
			return fmt.Errorf("UntilStall(%v): must be greater than 0", d)
		}
		o.stall = d
		return nil
	})
}

// WithCallOptions makes the options of a call options of a gathering, such as [WithTimeout] and
// [WithHeader]. Those that are about one response or one instance ([ResponseHeader],
// [ResponseTrailer], [ResponseInstance], [WithInstance]) and [WithPlainRequests] fail the
// gathering; [WithoutRetry] changes nothing.
func WithCallOptions(opts ...CallOption) GatherOption {
	return gatherOption(func(o *gatherOptions) error {
		o.call = append(o.call, opts...)
		return nil
	})
}
