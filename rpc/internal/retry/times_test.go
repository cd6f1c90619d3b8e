package retry

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestQuantile(t *testing.T) {
	var times Times
	var all []time.Duration
	for i := range 1000 {
		d := time.Duration(rand.ExpFloat64() * float64(10*time.Millisecond))
		times.Add(d)
		all = append(all, d)
		if i < fewest-1 && times.Quantile(0.5) != 0 {
			t.Fatalf("a quantile of %d durations", i+1)
		}
	}
	slices.Sort(all)
	for _, q := range []float64{0.01, 0.5, 0.9, 0.99, 1} {
		exact := all[max(0, int(q*1000)-1)]
		if got := times.Quantile(q); got < exact || got > exact+exact/7+time.Microsecond {
			t.Errorf("quantile %v is %v, want about %v", q, got, exact)
		}
	}
}

// TestQuantileFollows: what was long ago does not count.
func TestQuantileFollows(t *testing.T) {
	var times Times
	for range 5000 {
		times.Add(time.Millisecond)
	}
	if got := times.Quantile(0.99); got < time.Millisecond || got > 2*time.Millisecond {
		t.Errorf("got %v, want a millisecond", got)
	}
	for range 2 * half {
		times.Add(time.Second)
	}
	if got := times.Quantile(0.01); got < time.Second {
		t.Errorf("got %v, want a second", got)
	}
}
