// Package backoff spaces out repeated attempts.
package backoff

import (
	"context"
	"iter"
	"math/rand/v2"
	"time"
)

// Policy says how often and how fast to try again.
type Policy struct {
	First time.Duration // the longest first wait; it doubles with each attempt
	Limit time.Duration // the longest wait
	Max   int           // how many attempts; 0: until the context ends
}

// Attempts yields 0, 1, 2 and so on, and waits between them. It ends after
// Max attempts, or when ctx does.
//
// The waits are random between nothing and the policy's, so that those who
// got into each other's way do not do so again.
func (p Policy) Attempts(ctx context.Context) iter.Seq[int] {
	return func(yield func(int) bool) {
		for n := 0; p.Max == 0 || n < p.Max; n++ {
			if n > 0 && !sleep(ctx, rand.N(p.wait(n))) {
				return
			}
			if ctx.Err() != nil || !yield(n) {
				return
			}
		}
	}
}

// wait is the longest wait before the nth attempt.
func (p Policy) wait(n int) time.Duration {
	w := p.First
	for ; n > 1 && w < p.Limit; n-- {
		w *= 2
	}
	return max(min(w, p.Limit), 1) // rand.N wants more than 0
}

// sleep reports false where ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
