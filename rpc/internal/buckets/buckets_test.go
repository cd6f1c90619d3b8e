package buckets

import (
	"math"
	"testing"
	"time"
)

// TestBuckets: each duration is in a bucket that ends behind it, by at most an eighth.
func TestBuckets(t *testing.T) {
	for d := time.Duration(0); d < time.Hour; d = d + d/50 + 1 {
		end, begin := End(Of(d)), time.Duration(0)
		if b := Of(d); b > 0 {
			begin = End(b - 1)
		}
		if d < begin || d >= end || end-begin > max(time.Microsecond, begin/8) {
			t.Fatalf("%v is in the bucket from %v to %v", d, begin, end)
		}
	}
	if b := Of(1000 * time.Hour); b != Count-1 {
		t.Errorf("a long duration is in bucket %d", b)
	}
	if b := Of(-time.Second); b != 0 {
		t.Errorf("a negative duration is in bucket %d", b)
	}
}

func TestMiddleIsWithinTenPercent(t *testing.T) {
	previous := 0
	for us := 0; us < 3_000_000; us += 1 + us/1000 {
		d := time.Duration(us) * time.Microsecond
		bucket := Of(d)
		if bucket < previous {
			t.Fatalf("%v is in bucket %d, less than %d before", d, bucket, previous)
		}
		previous = bucket
		middle := Middle(bucket).Microseconds()
		if math.Abs(float64(middle)-float64(us)) > 0.1*float64(us)+0.5 {
			t.Fatalf("%v is taken for %d µs", d, middle)
		}
	}
	for _, d := range []time.Duration{-1, 0, math.MaxInt64} {
		if b := Of(d); b < 0 || b >= Count {
			t.Errorf("%v is in bucket %d", d, b)
		}
	}
}
