// Package buckets sorts durations from a microsecond to an hour by their size, for histograms and
// quantiles.
package buckets

import (
	"math/bits"
	"time"
)

const (
	perOctave = 8  // of each power of two, so a bucket is at most an eighth of its value wide
	octaves   = 32 // 2^32 microseconds are more than an hour

	// Count is how many buckets there are. The last one also has what is longer.
	Count = perOctave * octaves
)

// Of returns the bucket of a duration. Below perOctave microseconds they are a microsecond wide;
// above, each power of two has perOctave.
func Of(d time.Duration) int {
	us := uint64(max(0, d.Microseconds()))
	if us < perOctave {
		return int(us)
	}
	octave := bits.Len64(us) - bits.Len64(perOctave-1)
	return min(octave*perOctave+int(us>>(octave-1)-perOctave), Count-1)
}

// begin returns the first microsecond of a bucket.
func begin(bucket int) uint64 {
	if octave := bucket / perOctave; octave > 0 {
		return uint64(perOctave+bucket%perOctave) << (octave - 1)
	}
	return uint64(bucket)
}

// End returns the duration that is no longer in a bucket, nor in those before it.
func End(bucket int) time.Duration { return time.Duration(begin(bucket+1)) * time.Microsecond }

// Middle returns the duration in the middle of a bucket.
func Middle(bucket int) time.Duration {
	first := begin(bucket)
	return time.Duration(first+(begin(bucket+1)-first)/2) * time.Microsecond
}
