package main

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// histogram counts durations in buckets that are at most 1/128 wide, relative to what is in
// them. It takes no memory while it counts, which a list would. Any number of goroutines record
// in it.
type histogram [buckets]atomic.Uint32

const (
	mantissaBits = 7
	maxShift     = 28 // more than a minute, longer than a call may take
	buckets      = (maxShift + 2) << mantissaBits
)

func bucket(d time.Duration) int {
	n := uint64(max(d, 0))
	shift := max(bits.Len64(n)-mantissaBits-1, 0)
	if shift > maxShift {
		return buckets - 1
	}
	return shift<<mantissaBits + int(n>>shift)
}

// lowest is the least duration in a bucket.
func lowest(bucket int) time.Duration {
	shift := max(bucket>>mantissaBits-1, 0)
	return time.Duration(bucket-shift<<mantissaBits) << shift
}

func (h *histogram) record(d time.Duration) { h[bucket(d)].Add(1) }

func (h *histogram) add(other *histogram) {
	for i := range other {
		h[i].Add(other[i].Load())
	}
}

// quantile returns the duration that the part q of all does not exceed, 0 for none.
func (h *histogram) quantile(q float64) time.Duration {
	total := uint64(0)
	for i := range h {
		total += uint64(h[i].Load())
	}
	rank, below := uint64(q*float64(total)), uint64(0)
	for i := range h {
		if below += uint64(h[i].Load()); below > rank {
			return lowest(i)
		}
	}
	return 0
}
