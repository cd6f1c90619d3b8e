package rpcdedup

import (
	"context"
	"errors"
	"sync"
	"time"
)

const (
	// firstWait is about a round trip to a store, longestWait what a caller may be late by.
	firstWait   = 10 * time.Millisecond
	longestWait = 200 * time.Millisecond
	// tries is in how many parts a lease is divided: one passes before a renewal, and one is the
	// limit for it. So two renewals of three may be lost.
	tries = 6
)

// Why the context of a handler ends before its deadline.
var (
	errTaken   = errors.New("rpcdedup: the lease has ended, and another instance runs the call")
	errStopped = errors.New("rpcdedup: the server is being stopped")
)

// timed is a store that is asked also if the caller has gone, and not for longer than limit.
type timed struct {
	store Store
	limit time.Duration
}

func (t timed) context(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), t.limit)
}

func (t timed) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	ctx, cancel := t.context(ctx)
	defer cancel()
	return t.store.Create(ctx, key, value)
}

func (t timed) Get(ctx context.Context, key string) ([]byte, uint64, error) {
	ctx, cancel := t.context(ctx)
	defer cancel()
	return t.store.Get(ctx, key)
}

func (t timed) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	ctx, cancel := t.context(ctx)
	defer cancel()
	return t.store.Update(ctx, key, value, revision)
}

func (t timed) Delete(ctx context.Context, key string, revision uint64) error {
	ctx, cancel := t.context(ctx)
	defer cancel()
	return t.store.Delete(ctx, key, revision)
}

// lease is held by a call while its handler runs.
type lease struct {
	stop     context.CancelFunc
	done     chan struct{}
	revision uint64 // of the record; after done the holder's
}

// holdLease renews the record until release is called. If another call has claimed the key, or a
// shutdown does not wait any longer, it cancels the handler.
func (e *execution) holdLease(ctx context.Context, revision uint64, cancel context.CancelCauseFunc) *lease {
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx)) // beyond the call's deadline
	l := &lease{stop: stop, done: make(chan struct{}), revision: revision}
	go func() {
		defer close(l.done)
		timer := time.NewTimer(e.config.lease / tries)
		defer timer.Stop()
		for {
			select {
			case <-timer.C:
			case <-e.call.Stopped():
				cancel(errStopped)
				return
			case <-ctx.Done():
				return
			}
			switch held, renewed := e.renew(ctx, l); {
			case !held:
				cancel(errTaken)
				return
			case renewed:
				timer.Reset(e.config.lease / tries)
			default:
				timer.Reset(firstWait)
			}
		}
	}()
	return l
}

// renew writes the record again. held reports whether the call still has the key.
func (e *execution) renew(ctx context.Context, l *lease) (held, renewed bool) {
	next, err := e.store.Update(ctx, e.key, e.claimed, l.revision)
	if err == nil {
		l.revision = next
		return true, true
	}
	if !errors.Is(err, ErrConflict) {
		return true, false
	}
	// This may be a renewal of ours whose answer was lost, or a caller's that took us for lost.
	record, now, err := e.get(ctx)
	switch {
	case err != nil, now <= l.revision: // nothing is known, or only what was before
		return true, false
	case record.GetOwner() != e.own.GetOwner():
		return false, false
	}
	l.revision = now
	return true, false
}

// release ends the renewals. It returns the revision of the record, as far as it is known.
func (l *lease) release() uint64 {
	l.stop()
	<-l.done
	return l.revision
}

// observations are the records of calls that run elsewhere, as the callers that wait for them have
// seen them. They outlive a caller, whose deadline may be shorter than a lease.
type observations struct {
	mu    sync.Mutex
	byKey map[string]observation
}

// observation is since when a record has had a revision, by this instance's clock.
type observation struct {
	revision uint64
	since    time.Time
}

// maxObserved bounds the memory of observations. Beyond it they begin again.
const maxObserved = 10_000

// unchanged returns for how long the record of a key has been seen with a revision.
func (o *observations) unchanged(key string, revision uint64) time.Duration {
	o.mu.Lock()
	defer o.mu.Unlock()
	now, seen := time.Now(), o.byKey[key]
	if seen.since.IsZero() || seen.revision != revision {
		if o.byKey == nil || len(o.byKey) >= maxObserved {
			o.byKey = map[string]observation{}
		}
		o.byKey[key] = observation{revision, now}
		return 0
	}
	return now.Sub(seen.since)
}

// forget forgets a key that does not run elsewhere.
func (o *observations) forget(key string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.byKey, key)
}
