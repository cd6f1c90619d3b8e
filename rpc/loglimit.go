package rpc

import (
	"sync"
	"time"
)

// logLimit lets one record a second through. It is for events that may come with every message.
type logLimit struct {
	mu       sync.Mutex
	last     time.Time
	unlogged int // records since then
}

// next reports whether a record may be logged, and how many have been left out since the last one.
func (l *logLimit) next() (unlogged int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Sub(l.last) < time.Second && !l.last.IsZero() {
		l.unlogged++
		return 0, false
	}
	unlogged, l.unlogged, l.last = l.unlogged, 0, now
	return unlogged, true
}
