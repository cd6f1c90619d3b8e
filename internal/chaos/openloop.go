package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/natscall/natscall/rpc"
)

// openLoop calls at a rate that does not depend on the answers, as users do. Calls that are due
// have goroutines of their own, so none waits for another one, and times count from when a call was
// due: a generator that is late makes its figures worse and never better.
type openLoop struct {
	rate float64 // calls a second, at random
	time time.Duration
	call func() error
}

// callResult is what came of a call.
type callResult struct {
	due  time.Duration // since the loop began
	late time.Duration // until it was made
	took time.Duration // since it was due
	err  error
}

func (r callResult) refused() bool { return rpc.CodeOf(r.err) == rpc.CodeResourceExhausted }

// run returns when all calls have ended.
func (o openLoop) run(ctx context.Context) []callResult {
	random := rand.New(rand.NewPCG(1, 2))
	gap := float64(time.Second) / o.rate
	var due []time.Duration
	for at := 0.0; at < float64(o.time); at += gap * random.ExpFloat64() {
		due = append(due, time.Duration(at))
	}
	results := make([]callResult, len(due)) // each goroutine has its own
	var calls sync.WaitGroup
	begin := time.Now()
	for i, at := range due {
		if wait := at - time.Since(begin); wait > minPause && sleep(ctx, wait) != nil {
			return results[:i]
		}
		calls.Go(func() {
			made := time.Since(begin) // or a little before it was due
			r := callResult{due: min(at, made), late: max(0, made-at)}
			r.err = o.call()
			r.took = time.Since(begin) - r.due
			results[i] = r
		})
	}
	calls.Wait()
	return results
}

// minPause is what a pause is worth: timers are not more exact.
const minPause = 200 * time.Microsecond

// closedLoop makes so many callers call one after the other, and returns how many of their calls
// succeed, a second.
func closedLoop(ctx context.Context, callers int, d time.Duration, call func() error) float64 {
	var good atomic.Int64
	begin := time.Now()
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for time.Since(begin) < d && ctx.Err() == nil {
				if call() == nil {
					good.Add(1)
				}
			}
		})
	}
	all.Wait()
	return float64(good.Load()) / time.Since(begin).Seconds()
}
