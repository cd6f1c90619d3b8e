package small

import (
	"sync"
	"sync/atomic"
)

// box has methods in two files.
type box[K comparable, V any] struct {
	sync.Mutex
	a, b  int
	items map[K]V
	inner struct {
		mu      sync.RWMutex
		c, d, e int
		f       [2]atomic.Int64
	}
	shared *sync.Mutex // counted where it stands
}

func (b *box[K, V]) get(k K) V {
	b.Lock()
	defer b.Unlock()
	return b.items[k]
}

type counter struct{ n atomic.Pointer[int] }

func (c counter) get() int { return *c.n.Load() }

var (
	pool    = sync.Pool{New: func() any { return new(int) }}
	x, y    sync.Mutex
	pending = []sync.Mutex{} // the elements are what is counted, so this is one
)

func start(mu *sync.Mutex) {
	go func() { mu.Lock() }()
	/* A comment of several lines, of which
	   the second one is too wide: ---------------------------------------------------------------------------
	*/
	go start(mu) // at the end of a line that is too wide ---------------------------------------------------------
}
