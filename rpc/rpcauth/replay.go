package rpcauth

import (
	"sync"
	"time"
)

// window remembers accepted signatures until they have expired. Those that expire in the same
// second are forgotten together.
type window struct {
	limit int

	mu        sync.Mutex
	size      int
	buckets   map[int64]map[signedID]struct{} // by the second after which they are forgotten
	forgotten int64                           // the last of these seconds that has passed
}

func newWindow(limit int) *window {
	return &window{limit: limit, buckets: map[int64]map[signedID]struct{}{}}
}

// add remembers an id until a time. first is false if it is there already, and full is true if
// there is no room: then it is not remembered.
func (w *window) add(id signedID, until, now time.Time) (first, full bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	second := until.Unix() + 1
	if second <= w.forgotten { // the clock was set back, and what was accepted is no longer known
		return false, false
	}
	bucket := w.buckets[second] // a replay has the same times, as they are signed
	if _, again := bucket[id]; again {
		return false, false
	}
	if w.size >= w.limit {
		w.forgetLocked(now)
	}
	if w.size >= w.limit {
		return false, true
	}
	if bucket == nil {
		w.forgetLocked(now) // at most once a second and lifetime
		bucket = map[signedID]struct{}{}
		w.buckets[second] = bucket
	}
	bucket[id] = struct{}{}
	w.size++
	return true, false
}

// forgetLocked drops what has expired.
func (w *window) forgetLocked(now time.Time) {
	w.forgotten = max(w.forgotten, now.Unix()-1)
	for second, bucket := range w.buckets {
		if second <= w.forgotten {
			w.size -= len(bucket)
			delete(w.buckets, second)
		}
	}
}

func (w *window) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.size
}
