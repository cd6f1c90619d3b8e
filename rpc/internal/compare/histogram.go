package main

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets that are at most 1/128 wide, relative to what is in them. It takes no memory
// while it counts, which a list would.
type histogram [(maxShift + 2) << mantissaBits]uint32

const (
	mantissaBits = 7
	maxShift     = 28 // more than a minute, longer than a call may take
)

func bucket(d time.Duration) int {
	n := uint64(max(d, 0))
	shift := max(bits.Len64(n)-mantissaBits-1, 0)
	if shift > maxShift {
		return len(histogram{}) - 1
	}
	return shift<<mantissaBits + int(n>>shift)
}

// lowest is the least duration in a bucket.
func lowest(bucket int) time.Duration {
	shift := max(bucket>>mantissaBits-1, 0)
	return time.Duration(bucket-shift<<mantissaBits) << shift
}

func (h *histogram) record(d time.Duration) { h[bucket(d)]++ }

func (h *histogram) add(other *histogram) {
	for i, n := range other {
		h[i] += n
	}
}

// quantile returns the duration that the part q of all does not exceed, 0 for none.
func (h *histogram) quantile(q float64) time.Duration {
	total := uint64(0)
	for _, n := range h {
		total += uint64(n)
	}
	rank, below := uint64(q*float64(total)), uint64(0)
	for i, n := range h {
		if below += uint64(n); below > rank {
			return lowest(i)
		}
	}
	return 0
}
