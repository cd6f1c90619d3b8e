package rpc

import "sync"

// pool runs the calls of a service on goroutines that are parked between
// calls: a new goroutine a call would grow its stack anew each time. At most
// limit calls run at once, at most queueLimit wait; further ones are refused.
type pool struct {
	limit, queueLimit int

	mu      sync.Mutex
	idle    []chan *serverCall // of parked goroutines, the last one parked on top
	running int                // goroutines with a call
	queue   []*serverCall
	head    int // of queue
	closing bool
	ended   chan struct{} // closed when closing and nothing is left
}

// maxParked bounds the goroutines that wait for work: enough for a steady load;
// those of a burst end with it.
const maxParked = 256

func newPool(limit, queueLimit int) *pool {
	return &pool{limit: limit, queueLimit: queueLimit, ended: make(chan struct{})}
}

// submit hands a call to a goroutine or the queue. It returns false where both are full.
func (p *pool) submit(c *serverCall) bool {
	p.mu.Lock()
	switch n := len(p.idle); {
	case p.closing:
		p.mu.Unlock()
		return false
	case p.running >= p.limit:
		defer p.mu.Unlock()
		return p.enqueueLocked(c)
	case n > 0:
		parked := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.running++
		p.mu.Unlock()
		parked <- c
	default:
		p.running++
		p.mu.Unlock()
		go p.work(c)
	}
	return true
}

func (p *pool) enqueueLocked(c *serverCall) bool {
	if len(p.queue)-p.head >= p.queueLimit {
		return false
	}
	if p.head > 0 && len(p.queue) == cap(p.queue) { // move instead of growing
		n := copy(p.queue, p.queue[p.head:])
		clear(p.queue[n:])
		p.queue, p.head = p.queue[:n], 0
	}
	p.queue = append(p.queue, c)
	return true
}

// work runs calls until there are enough parked goroutines, or the pool is closed.
func (p *pool) work(c *serverCall) {
	finished := false
	defer func() {
		if !finished { // a handler has called runtime.Goexit: another goroutine goes on
			go p.proceed(make(chan *serverCall, 1))
		}
	}()
	mine := make(chan *serverCall, 1)
	for ; c != nil; c = p.next(mine) {
		c.run()
	}
	finished = true
}

// proceed goes on with the queue in place of a goroutine that was ended.
func (p *pool) proceed(mine chan *serverCall) {
	if c := p.next(mine); c != nil {
		p.work(c)
	}
}

// next returns the next call for a goroutine that has finished one; nil ends the goroutine.
func (p *pool) next(mine chan *serverCall) *serverCall {
	p.mu.Lock()
	if c := p.dequeueLocked(); c != nil {
		p.mu.Unlock()
		return c
	}
	p.running--
	if p.closing || len(p.idle) >= maxParked {
		p.endLocked()
		p.mu.Unlock()
		return nil
	}
	p.idle = append(p.idle, mine)
	p.mu.Unlock()
	return <-mine // from submit, or nil from close
}

func (p *pool) dequeueLocked() *serverCall {
	if p.head == len(p.queue) {
		return nil
	}
	c := p.queue[p.head]
	p.queue[p.head] = nil
	if p.head++; p.head == len(p.queue) {
		p.queue, p.head = p.queue[:0], 0
	}
	return c
}

func (p *pool) endLocked() {
	if p.closing && p.running == 0 {
		close(p.ended)
	}
}

// close ends the parked goroutines now and the others after their calls; no
// call may be submitted any more. ended is closed when the last call is over.
func (p *pool) close() (ended <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closing {
		p.closing = true
		for _, parked := range p.idle {
			close(parked)
		}
		p.idle = nil
		p.endLocked()
	}
	return p.ended
}
