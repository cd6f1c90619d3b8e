package rpc

import (
	"sync"
	"time"
)

// logLimit lets one record in a second through, for what may happen with every message.
type logLimit struct {
	mu       sync.Mutex
	last     time.Time
	unlogged int // records since then
}

// next reports whether a record may be logged, and how many before it were not.
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
