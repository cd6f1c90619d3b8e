package rpcdedup

import (
	"context"
	"errors"
	"time"
)

const (
	// firstWait is about a round trip to a store, longestWait what a caller may be late by.
	firstWait   = 10 * time.Millisecond
	longestWait = 200 * time.Millisecond
	// renewals is how often a record is renewed in the time of a lease, so that two may be lost.
	renewals = 3
)

// errTaken is the cause of the end of a handler's context.
var errTaken = errors.New("rpcdedup: the lease has ended, and another instance runs the call")

// lease is held by a call while its handler runs.
type lease struct {
	cancel   context.CancelFunc // of the renewals
	done     chan struct{}
	revision uint64 // of the record; after done the holder's
}

// holdLease renews the record until release is called. If another call has claimed the key, it
// calls taken.
func (e *execution) holdLease(ctx context.Context, revision uint64, taken context.CancelCauseFunc) *lease {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx)) // beyond the call's deadline
	l := &lease{cancel: cancel, done: make(chan struct{}), revision: revision}
	go func() {
		defer close(l.done)
		for pause(ctx, e.config.lease/renewals) == nil {
			if !e.renew(ctx, l) {
				taken(errTaken)
				return
			}
		}
	}()
	return l
}

// renew writes the record again. It reports whether the call still has the key.
func (e *execution) renew(ctx context.Context, l *lease) bool {
	ctx, cancel := context.WithTimeout(ctx, e.config.lease/renewals)
	defer cancel()
	next, err := e.store.Update(ctx, e.key, encode(e.own), l.revision)
	switch {
	case err == nil:
		l.revision = next
	case errors.Is(err, ErrConflict):
		// This may be a renewal of ours whose answer was lost, or a caller's that took us for lost.
		record, now, err := e.get(ctx)
		if err == nil && record.GetOwner() != e.own.GetOwner() {
			return false
		}
		if err == nil {
			l.revision = now
		}
	}
	return true
}

// release ends the renewals. It returns the revision of the record, as far as it is known.
func (l *lease) release() uint64 {
	l.cancel()
	<-l.done
	return l.revision
}

// observation is how long a caller that waits has seen a record unchanged, by its own clock.
type observation struct {
	revision uint64
	since    time.Time
}

func (o *observation) unchanged(revision uint64) time.Duration {
	if o.since.IsZero() || o.revision != revision {
		*o = observation{revision, time.Now()}
	}
	return time.Since(o.since)
}

// pause waits for d, or for the end of ctx, which it returns.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
