package main

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// load is a workload that runs: callers that work until they are stopped, and a window in which
// they are measured.
type load struct {
	count  int // messages of each caller; 0 is until stop
	open   atomic.Bool
	ended  atomic.Bool
	gauges []*gauge
	wg     sync.WaitGroup

	latencies [histograms]histogram
}

// histograms are shared by the callers: one for each of 100,000 would take more memory than the
// calls, and a single one would be fought for.
const histograms = 16

// startLoad starts the callers, which end by stop. Each has a context that ends after limit, for
// calls that hang; it has a deadline too, unless the workload is fresh.
func startLoad(p peer, w workload, count int, limit time.Duration) *load {
	l := &load{count: count}
	l.open.Store(count > 0) // the window is all of them
	for i := range w.Callers {
		g := &gauge{load: l, next: uint64(i) << 40, latency: &l.latencies[i%histograms]}
		l.gauges = append(l.gauges, g)
		l.wg.Go(func() {
			// A context for each caller: a shared one has a lock, which systems that derive
			// contexts from it would fight for.
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			if w.Shape == fresh {
				defer time.AfterFunc(limit, cancel).Stop()
			} else {
				var stop context.CancelFunc
				ctx, stop = context.WithTimeout(ctx, limit)
				defer stop()
			}
			if err := w.run(ctx, p, g); err != nil {
				g.fail(err)
			}
			if !l.ended.Load() && count == 0 && g.first == nil {
				g.fail(errors.New("it ended early"))
			}
		})
	}
	return l
}

// result is what the callers of a load have seen.
type result struct {
	Calls  uint64 // in the window
	Errors uint64 // from start to end
	Lost   uint64 // from start to end
	First  string // error
	P50    time.Duration
	P99    time.Duration
}

// stop waits for the callers, which end after their present call or, with a count, after so many.
func (l *load) stop() result {
	l.ended.Store(true)
	l.wg.Wait()
	var r result
	var all histogram
	for _, g := range l.gauges {
		r.Calls += g.calls
		r.Errors += g.errors
		r.Lost += g.lost
		if g.first != nil {
			r.First = cmp.Or(r.First, g.first.Error())
		}
	}
	for i := range l.latencies {
		all.add(&l.latencies[i])
	}
	r.P50, r.P99 = all.quantile(0.5), all.quantile(0.99)
	return r
}

// gauge counts what one caller does.
type gauge struct {
	load    *load
	next    uint64 // number, unlike that of any other caller
	begun   int
	calls   uint64 // in the window
	errors  uint64
	lost    uint64
	first   error
	latency *histogram
}

// more says whether to make another call.
func (g *gauge) more() bool {
	if g.load.count == 0 {
		return !g.load.ended.Load()
	}
	g.begun++
	return g.begun <= g.load.count
}

func (g *gauge) number() uint64 {
	g.next++
	return g.next
}

// done counts a call, if the window is open.
func (g *gauge) done(latency time.Duration) {
	if g.load.open.Load() {
		g.calls++
		g.latency.record(latency)
	}
}

func (g *gauge) fail(err error) {
	g.errors++
	if g.first == nil {
		g.first = err
	}
}
