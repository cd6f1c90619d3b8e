package main

import (
	"context"
	"time"
)

const (
	// tick is how often a process looks whether it gets to run.
	tick = 10 * time.Millisecond
	// stall is by how much a tick is late when that is worth a record.
	stall = 20 * time.Millisecond
)

// watchStalls records, until ctx ends, whenever this process did not get to run: a call that
// ends late meanwhile is not late by its own fault.
func watchStalls(ctx context.Context, j *journal) {
	for {
		due := time.Now().Add(tick)
		select {
		case <-time.After(tick):
		case <-ctx.Done():
			return
		}
		if woke := time.Now(); woke.Sub(due) > stall {
			j.write(record{Kind: stalled, At: at(woke), Since: at(due)})
		}
	}
}
