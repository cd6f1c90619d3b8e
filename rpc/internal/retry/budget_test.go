package retry

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestBudget(t *testing.T) {
	for _, test := range []struct {
		name    string
		burst   int
		share   float64
		answers int // after the burst was spent
		want    int // attempts then
	}{
		{"nothing answers", 10, 0.1, 0, 0},
		{"an answer", 10, 0.1, 1, 0},
		{"ten answers", 10, 0.125, 8, 1},
		{"all answers", 10, 1, 3, 3},
		{"never more than the burst", 10, 1, 100, 10},
		{"no share", 10, 0, 100, 0},
		{"no burst", 0, 0.5, 100, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := NewBudget(test.burst, test.share)
			if n := spend(b); n != test.burst {
				t.Errorf("%d attempts of the burst, want %d", n, test.burst)
			}
			for range test.answers {
				b.Answered()
			}
			if n := spend(b); n != test.want {
				t.Errorf("%d attempts after %d answers, want %d", n, test.answers, test.want)
			}
		})
	}
}

// spend takes tokens until there is none.
func spend(b *Budget) (n int) {
	for b.Take() {
		n++
	}
	return n
}

// TestBudgetConcurrently: no token is taken twice or lost, whoever takes and answers meanwhile.
func TestBudgetConcurrently(t *testing.T) {
	const burst, callers, calls = 100, 8, 4000
	b := NewBudget(burst, 0.125)
	var taken atomic.Int64
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range calls {
				if b.Take() {
					taken.Add(1)
				}
				b.Answered()
			}
		})
	}
	all.Wait()
	left := int64(spend(b))
	if most := int64(burst + callers*calls/8); taken.Load()+left > most {
		t.Errorf("%d attempts, want at most %d", taken.Load()+left, most)
	}
	if taken.Load() < burst {
		t.Errorf("%d attempts, want at least %d", taken.Load(), burst)
	}
}
