package bench

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Load is what is measured.
type Load struct {
	// Stream says that a call receives any number of messages, and may never end by itself.
	Stream bool
	// Sends says that a call of a stream sends messages, too: its latency is that of the whole
	// stream, as its first message may come before or after those that it sends.
	Sends bool
	// Call makes the call of a number, counted from 0, and reports its messages. It ends when ctx
	// does.
	Call func(ctx context.Context, number int64, messages Messages) error
}

// Messages are the functions to which a call reports each message of a stream that it has sent, and
// each message that it has received, with its size. Sent is for the goroutine that sends, and
// Received for the one that receives.
type Messages struct{ Sent, Received func(size int) }

// Run makes the calls of a plan and returns what was measured. If ctx ends it returns what there is
// by then. progress, which may be nil, is given what the measurement counts in before it begins.
func Run(ctx context.Context, p *Plan, load Load, progress func(*Recorder)) *Result {
	if p.Warmup > 0 {
		warm := &run{plan: p.warmup(), load: load, recorder: NewRecorder()}
		warm.do(ctx)
	}
	r := &run{plan: p, load: load, recorder: NewRecorder()}
	if progress != nil {
		progress(r.recorder)
	}
	took := r.do(ctx)
	result := r.recorder.Result(p, took)
	result.Interrupted = ctx.Err() != nil
	if p.Rate > 0 {
		result.NotBegun = r.notBegun(took)
	}
	return result
}

// run is one series of calls.
type run struct {
	plan     *Plan
	load     Load
	recorder *Recorder
	next     atomic.Int64 // number of the next call
	begun    atomic.Int64
	start    time.Time
}

// do makes the calls and returns how long that took. New calls begin until the time is up; those
// that run by then are waited for, but for streams, which would never end.
func (r *run) do(ctx context.Context) time.Duration {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r.start = time.Now()
	begin := ctx // until it ends calls begin
	if r.plan.Duration > 0 {
		timed, stop := context.WithDeadline(ctx, r.start.Add(r.plan.Duration))
		defer stop()
		begin = timed
	}
	var workers sync.WaitGroup
	for range r.workers() {
		workers.Go(func() { r.work(ctx, begin) })
	}
	workers.Wait()
	return time.Since(r.start)
}

// workers returns how many calls may run at a time.
func (r *run) workers() int {
	if n := r.plan.Requests; n > 0 {
		return min(n, r.plan.Concurrency)
	}
	return r.plan.Concurrency
}

// work makes one call after the other.
func (r *run) work(ctx, begin context.Context) {
	for {
		number := r.next.Add(1) - 1
		if n := r.plan.Requests; n > 0 && number >= int64(n) {
			return
		}
		intended, ok := r.wait(begin, number)
		if !ok {
			return
		}
		r.begun.Add(1)
		r.call(ctx, begin, number, intended)
	}
}

// wait waits until a call has to begin, and returns when that should have been. If all workers were
// busy then, the call begins late, and its time counts from when it should have begun: a user that
// came at that moment would have waited so long.
func (r *run) wait(begin context.Context, number int64) (intended time.Time, ok bool) {
	if r.plan.Rate == 0 {
		return time.Now(), begin.Err() == nil
	}
	intended = r.start.Add(r.plan.intended(number))
	if deadline, ok := begin.Deadline(); ok && !intended.Before(deadline) {
		return intended, false
	}
	early := time.Until(intended)
	if early <= 0 {
		return intended, begin.Err() == nil
	}
	timer := time.NewTimer(early)
	defer timer.Stop()
	select {
	case <-timer.C:
		return intended, begin.Err() == nil
	case <-begin.Done():
		return intended, false
	}
}

// call makes a call and records it. The latency of a stream that only receives is that of its first
// message. What the end of the measurement has cut off is no error.
func (r *run) call(ctx, begin context.Context, number int64, intended time.Time) {
	if r.load.Stream {
		ctx = begin
	}
	first := true
	received := func(size int) {
		if first && !r.load.Sends {
			first = false
			r.recorder.Latency(time.Since(intended))
		}
		r.recorder.Received(size)
	}
	err := r.load.Call(ctx, number, Messages{Sent: r.recorder.Sent, Received: received})
	if ctx.Err() != nil && err != nil {
		r.recorder.CutOff()
		return
	}
	if first && err == nil { // it has no response, or counts until its end
		r.recorder.Latency(time.Since(intended))
	}
	r.recorder.Call(err)
}

// notBegun returns how many calls should have begun in the time, and have not.
func (r *run) notBegun(took time.Duration) int64 {
	within := took
	if d := r.plan.Duration; d > 0 {
		within = min(d, took)
	}
	due := int64(within.Seconds() * r.plan.Rate)
	if n := r.plan.Requests; n > 0 {
		due = min(due, int64(n))
	}
	return max(0, due-r.begun.Load())
}
