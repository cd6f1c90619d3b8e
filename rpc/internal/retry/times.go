package retry

import (
	"sync"
	"time"

	"github.com/natscall/natscall/rpc/internal/buckets"
)

const (
	// half is how many durations a Times collects before it forgets older ones: enough for a 99th
	// percentile, and few enough to follow a service that becomes slower.
	half = 1000
	// fewest is how many durations Quantile needs.
	fewest = 100
	// renewal is for how many durations a quantile counts.
	renewal = 50
)

// Times knows how long the last calls of a method have taken: at least the last 1,000 of them, at
// most 2,000. The zero value knows none. All methods may be called concurrently.
type Times struct {
	mu     sync.Mutex
	counts [2][buckets.Count]uint32 // of the durations since the last half, and of that
	fresh  int                      // since the last half
	total  int

	asked float64 // the last quantile
	found time.Duration
	valid int // for so many more durations
}

// Add adds a duration.
func (t *Times) Add(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fresh == half {
		t.counts[1], t.counts[0] = t.counts[0], [buckets.Count]uint32{}
		t.fresh, t.total = 0, half
	}
	t.counts[0][buckets.Of(d)]++
	t.fresh, t.total, t.valid = t.fresh+1, t.total+1, t.valid-1
}

// Quantile returns the duration that the fraction q of the durations do not exceed, at most an
// eighth more, or 0 if fewer than a hundred are known.
func (t *Times) Quantile(q float64) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.total < fewest {
		return 0
	}
	if t.valid <= 0 || t.asked != q {
		t.asked, t.found, t.valid = q, t.quantileLocked(q), renewal
	}
	return t.found
}

func (t *Times) quantileLocked(q float64) time.Duration {
	within, want := 0, q*float64(t.total)
	for i := range buckets.Count - 1 {
		if within += int(t.counts[0][i] + t.counts[1][i]); float64(within) >= want {
			return buckets.End(i)
		}
	}
	return buckets.End(buckets.Count - 1)
}
