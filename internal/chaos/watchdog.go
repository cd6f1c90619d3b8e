package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

const (
	// tick is how often a process looks whether it gets to run.
	tick = 10 * time.Millisecond
	// stall is by how much a tick is late when that is worth a record.
	stall = 20 * time.Millisecond
)

// watchStalls records, until ctx ends, whenever this process did not get to run, or one of its
// threads: a call that ends late meanwhile is not late by its own fault. longest returns how long a
// thread has waited since the last time.
func watchStalls(ctx context.Context, j *journal, longest func() time.Duration) {
	before := time.Now()
	for {
		select {
		case <-time.After(tick):
		case <-ctx.Done():
			return
		}
		woke := time.Now()
		// Since the last time, and not since the timer was set: the process may stop in between.
		if d := max(woke.Sub(before)-tick, longest()); d > stall {
			j.write(record{Kind: stalled, At: at(woke), Since: at(woke.Add(-d))})
		}
		before = woke
	}
}

// threadWaits is how long each thread of this process has waited for a CPU in all. On a busy
// machine one may wait for long, with a lock perhaps, while others run.
type threadWaits map[string]time.Duration

// longest is how long a thread has waited since the last time. Where Linux does not say so it is 0.
func (w threadWaits) longest() (longest time.Duration) {
	paths, _ := filepath.Glob("/proc/self/task/*/schedstat") // the pattern is a good one
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		var ran, waited time.Duration
		if _, err := fmt.Sscan(string(text), &ran, &waited); err != nil {
			continue
		}
		if before, known := w[path]; known {
			longest = max(longest, waited-before)
		}
		w[path] = waited
	}
	return longest
}
