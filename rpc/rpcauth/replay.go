package rpcauth

import (
	"crypto/sha256"
	"slices"
	"sync"
	"time"

	"github.com/natscall/natscall/rpc"
)

// scoped returns the id of a signature for those among whom it counts once: the instances of a
// queue group, or else one instance, since each of them gets the request.
func scoped(id signedID, call *rpc.Call) signedID {
	scope := append(id[:], 'g')
	scope = append(scope, call.QueueGroup()...)
	if call.QueueGroup() == "" {
		scope = append(append(scope, 'i'), call.Instance()...)
	}
	sum := sha256.Sum256(scope)
	return signedID(sum[:len(id)])
}

// window remembers accepted signatures until they have expired. Those that expire in the same
// second are forgotten together.
type window struct {
	limit int

	mu        sync.Mutex
	size      int
	buckets   map[int64]map[signedID]struct{} // by the second after which they are forgotten
	forgotten []seconds                       // buckets that have been forgotten, in order
}

// seconds are those from first to last.
type seconds struct{ first, last int64 }

const (
	// maxGap is how many seconds may be between two that are joined. What is between them is
	// unknown too, so they are few.
	maxGap = 10
	// maxForgotten is how many parts of what is forgotten are kept. If there are more, the earliest
	// are joined.
	maxForgotten = 64
)

func newWindow(limit int) *window {
	return &window{limit: limit, buckets: map[int64]map[signedID]struct{}{}}
}

// seen says whether a signature has come before.
type seen uint8

const (
	seenFirst   seen = iota
	seenBefore       // it is there already
	seenUnknown      // those of this time have been forgotten: the clock was set back
	seenFull         // there is no room for it
)

// add remembers an id until a time, if it is the first.
func (w *window) add(id signedID, until, now time.Time) seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	second := until.Unix() + 1
	if w.isForgottenLocked(second) {
		return seenUnknown
	}
	bucket := w.buckets[second] // a replay has the same times, as they are signed
	if _, again := bucket[id]; again {
		return seenBefore
	}
	if w.size >= w.limit {
		w.forgetLocked(now)
	}
	if w.size >= w.limit {
		return seenFull
	}
	if bucket == nil {
		w.forgetLocked(now) // at most once a second and lifetime
		bucket = map[signedID]struct{}{}
		w.buckets[second] = bucket
	}
	bucket[id] = struct{}{}
	w.size++
	return seenFirst
}

// forgetLocked drops what has expired.
func (w *window) forgetLocked(now time.Time) {
	for second, bucket := range w.buckets {
		if second < now.Unix() { // by a clock that may be wrong
			w.size -= len(bucket)
			delete(w.buckets, second)
			w.noteLocked(second)
		}
	}
}

// noteLocked adds a second to those that have been forgotten. They are a few parts: one for each
// time at which the clock was, so that a clock that was wrong for a moment does not make all the
// time until then unknown.
func (w *window) noteLocked(second int64) {
	i, _ := slices.BinarySearchFunc(w.forgotten, second, func(s seconds, second int64) int {
		if s.last+maxGap < second {
			return -1
		}
		return 1
	})
	if i < len(w.forgotten) && w.forgotten[i].first-maxGap <= second {
		s := &w.forgotten[i]
		s.first, s.last = min(s.first, second), max(s.last, second)
	} else {
		w.forgotten = slices.Insert(w.forgotten, i, seconds{second, second})
	}
	if len(w.forgotten) > maxForgotten {
		w.forgotten[1].first = w.forgotten[0].first
		w.forgotten = slices.Delete(w.forgotten, 0, 1)
	}
}

func (w *window) isForgottenLocked(second int64) bool {
	return slices.ContainsFunc(w.forgotten, func(s seconds) bool { return s.first <= second && second <= s.last })
}

func (w *window) len() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.size
}
