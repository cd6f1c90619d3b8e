package rpc

import "sync"

// pool runs the calls of a service on goroutines that are parked between
// calls: a new goroutine a call would grow its stack anew each time. At most
// limit calls run at once, at most queueLimit wait; further ones are refused.
//
// Calls go through the queue, and at most one goroutine at a time is on its
// way to it. One that takes a call sends for the next before it runs the
// call, so that no call waits for the handler of another; but where handlers return at
// once, it is back before the other has started, and takes the next call
// itself. So calls that come together cost few wake-ups and warm few stacks.
//
// Answers wait in the publisher for those of the calls that are queued. A
// goroutine that has nobody on its way behind it publishes them before it does
// anything else, so that no answer waits for the handler of another call either; so
// does one that was long on its way, as where handlers take all of the CPUs.
type pool struct {
	limit, queueLimit int
	out               *publisher // of the answers

	mu       sync.Mutex
	idle     []chan struct{} // of parked goroutines, the last one parked on top
	running  int             // goroutines with a call
	flushing int             // goroutines without one that publish answers
	waking   bool            // a goroutine is on its way to the queue
	queue    []*serverCall
	head     int // of queue
	closing  bool
	over     bool          // ended is closed
	ended    chan struct{} // closed when closing and nothing is left
}

// maxParked bounds the goroutines that wait for work: enough for a steady load;
// those of a burst end with it.
const maxParked = 256

func newPool(limit, queueLimit int, out *publisher) *pool {
	return &pool{limit: limit, queueLimit: queueLimit, out: out, ended: make(chan struct{})}
}

// open makes a pool that was closed take calls again.
func (p *pool) open() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		p.closing, p.over, p.ended = false, false, make(chan struct{})
	}
}

// submit queues a call. It returns false where there are too many.
func (p *pool) submit(c *serverCall) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing || p.queuedLocked()-p.queueLimit >= p.limit-p.running { // no sum of limits, which may be large
		return false
	}
	p.enqueueLocked(c)
	p.wakeLocked()
	return true
}

func (p *pool) queuedLocked() int { return len(p.queue) - p.head }

func (p *pool) enqueueLocked(c *serverCall) {
	if len(p.queue) == cap(p.queue) && p.head > len(p.queue)/2 { // move instead of growing
		n := copy(p.queue, p.queue[p.head:])
		clear(p.queue[n:])
		p.queue, p.head = p.queue[:n], 0
	}
	p.queue = append(p.queue, c)
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

// wakeLocked sends a goroutine to the queue, if there is need of one, for a call or for answers, and none on its way.
func (p *pool) wakeLocked() {
	if p.waking || p.queuedLocked() == 0 && !p.out.holds() || p.running >= p.limit {
		return
	}
	p.waking = true
	if n := len(p.idle); n > 0 {
		p.idle[n-1] <- struct{}{} // has room for one
		p.idle = p.idle[:n-1]
		return
	}
	go p.work(false)
}

// work is the life of a goroutine: it has been woken, or has run a call.
func (p *pool) work(ran bool) {
	finished := false
	defer func() {
		if !finished { // a handler has called runtime.Goexit: another goroutine goes on
			go p.work(true)
		}
	}()
	mine := make(chan struct{}, 1)
	for c := p.next(mine, ran); c != nil; c = p.next(mine, true) {
		c.run()
	}
	finished = true
}

// next returns the next call, which it may wait for; nil ends the goroutine.
func (p *pool) next(mine chan struct{}, ran bool) *serverCall {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ran {
		p.running--
	} else {
		p.waking = false
	}
	for woken := !ran; ; woken = true {
		c := p.takeLocked()
		if p.out.holds() && (!p.waking || woken && p.out.overdue()) {
			p.flushLocked()
			if c == nil {
				c = p.takeLocked()
			}
		}
		switch {
		case c != nil:
			return c
		case p.closing || len(p.idle) >= maxParked:
			p.endLocked()
			return nil
		case !p.parkLocked(mine):
			return nil
		}
	}
}

// takeLocked returns the next call, which is the caller's to run, or nil.
func (p *pool) takeLocked() *serverCall {
	if p.running >= p.limit { // a goroutine that was flushing has been quicker
		return nil
	}
	c := p.dequeueLocked()
	if c != nil {
		p.running++
		p.wakeLocked()
	}
	return c
}

// flushLocked publishes the answers that wait. Those that come meanwhile are left to
// the goroutines that bring them.
func (p *pool) flushLocked() {
	p.flushing++
	p.mu.Unlock()
	p.out.flush()
	p.mu.Lock()
	p.flushing--
}

// parkLocked waits until the goroutine is sent to the queue. It returns false when the pool is closed.
func (p *pool) parkLocked(mine chan struct{}) bool {
	p.idle = append(p.idle, mine)
	p.mu.Unlock()
	_, woken := <-mine
	p.mu.Lock()
	if woken {
		p.waking = false
	}
	return woken
}

func (p *pool) endLocked() {
	if p.closing && !p.over && !p.waking && p.running+p.flushing+p.queuedLocked() == 0 {
		p.over = true
		close(p.ended)
	}
}

// close ends the parked goroutines now and the others after their calls; no
// call may be submitted until open. ended is closed when the last call is over.
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
