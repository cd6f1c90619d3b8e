package rpc

import (
	"math"
	"testing"
	"time"
)

func TestHistogramIsWithinTenPercent(t *testing.T) {
	previous := 0
	for us := 0; us < 3_000_000; us += 1 + us/1000 {
		d := time.Duration(us) * time.Microsecond
		bucket := bucketOf(d)
		if bucket < previous {
			t.Fatalf("%v is in bucket %d, less than %d before", d, bucket, previous)
		}
		previous = bucket
		middle := bucketMiddle(bucket).Microseconds()
		if math.Abs(float64(middle)-float64(us)) > 0.1*float64(us)+0.5 {
			t.Fatalf("%v is taken for %d µs", d, middle)
		}
	}
	for _, d := range []time.Duration{-1, 0, math.MaxInt64} {
		if b := bucketOf(d); b < 0 || b >= histogramSize {
			t.Errorf("%v is in bucket %d", d, b)
		}
	}
}

func TestQuantiles(t *testing.T) {
	var h histogram
	if h.quantile(0.5) != 0 {
		t.Error("an empty histogram has a median")
	}
	for ms := 1; ms <= 100; ms++ {
		h.add(time.Duration(ms) * time.Millisecond)
	}
	for q, want := range map[float64]float64{0.5: 51, 0.99: 100} {
		if got := milliseconds(h.quantile(q)); math.Abs(got-want) > 0.1*want {
			t.Errorf("quantile %v is %v ms, want %v", q, got, want)
		}
	}
}
