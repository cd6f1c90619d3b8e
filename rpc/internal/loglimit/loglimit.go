// Package loglimit bounds the records of a log for what may happen with every message.
package loglimit

import (
	"cmp"
	"sync"
	"time"
)

// Limit lets one record a second through, or one in another interval. The zero value is ready for
// use; Next may be called concurrently.
type Limit struct {
	Every time.Duration // the interval; 0 is a second

	mu       sync.Mutex
	last     time.Time // of the record that was let through last
	unlogged int       // records since then
}

// Next reports whether a record may be logged, and how many before it were not.
func (l *Limit) Next() (unlogged int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.last) < cmp.Or(l.Every, time.Second) && !l.last.IsZero() {
		l.unlogged++
		return 0, false
	}
	unlogged, l.unlogged, l.last = l.unlogged, 0, now
	return unlogged, true
}
