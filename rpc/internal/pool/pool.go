// Package pool runs tasks on goroutines that are parked between tasks.
package pool

import (
	"sync"
	"time"

	"github.com/natscall/natscall/rpc/internal/admission"
)

// Task is something to run. It may end its goroutine (runtime.Goexit) but may not panic.
type Task = admission.Task

// Answers are what tasks leave behind to be published together.
type Answers interface {
	Holds() bool   // there are some
	Overdue() bool // they have waited for too long
	Flush()        // publish them
}

// Pool runs tasks. Its queue decides which of them, and when. Its goroutines are parked between
// tasks, as a new one would have to grow its stack first.
//
// A goroutine:
//
//	            wake             take
//	parked ------------> waking ------> running
//	   ^                   |             |   ^
//	   |   nothing to do   |             +---+ take
//	   +-------------------+-------------+
//
// Tasks go through the queue, and at most one goroutine at a time is waking: on its way there. One
// that takes a task wakes the next before it runs the task, so no task waits for another to
// return. But where tasks return at once, the goroutine is back before the next one has started,
// and takes the next task itself. So tasks that come together cost few wake-ups and warm few
// stacks.
//
// Answers wait for those of the tasks that are queued. A goroutine that takes a task while answers
// wait wakes another one, which publishes them if it finds nothing to do, or leaves them to the one
// that it wakes in turn. A goroutine that finds none waking behind it publishes them before it does
// anything else. So no answer waits for another task to return. A goroutine that took long to wake,
// as where tasks take all of the CPUs, publishes them too.
//
// All methods may be called concurrently.
type Pool struct {
	answers Answers

	mu       sync.Mutex
	queue    *admission.Queue
	parked   []chan struct{} // of parked goroutines, the last one parked on top
	flushing int             // goroutines without a task that publish answers
	waking   bool            // a goroutine is on its way to the queue
	closing  bool
	over     bool          // ended is closed
	ended    chan struct{} // closed when closing and nothing is left
}

// maxParked bounds the parked goroutines: enough for a steady load; those of a burst end with it.
const maxParked = 256

// New returns a pool that is open. The queue and its methods are the pool's.
func New(queue *admission.Queue, answers Answers) *Pool {
	return &Pool{queue: queue, answers: answers, ended: make(chan struct{})}
}

// Open makes a pool that was closed take tasks again.
func (p *Pool) Open() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		p.closing, p.over, p.ended = false, false, make(chan struct{})
	}
}

// Submit queues a task. It returns false if the queue refuses it, and its ticket says why, or if
// the pool is closed. The times are those of a clock, and 0 is no deadline.
func (p *Pool) Submit(t Task, arrived, deadline time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing || !p.queue.Push(t, arrived, deadline) {
		return false
	}
	p.wakeLocked()
	return true
}

// Estimate returns how long tasks of a method run.
func (p *Pool) Estimate(m *admission.Method) admission.Estimate {
	p.mu.Lock()
	defer p.mu.Unlock()
	return m.Estimate()
}

// wakeLocked wakes a goroutine if one is needed, for a task or for answers, and none is waking.
func (p *Pool) wakeLocked() {
	if p.waking || p.queue.Full() || !p.queue.Ready() && !p.answers.Holds() {
		return
	}
	p.waking = true
	if n := len(p.parked); n > 0 {
		p.parked[n-1] <- struct{}{} // has room for one
		p.parked = p.parked[:n-1]
		return
	}
	go p.work(nil)
}

// work is the life of a goroutine. It begins where another one has ended while it ran a task, or
// as one that is waking.
func (p *Pool) work(ran Task) {
	finished := false
	defer func() {
		if !finished { // a task has called runtime.Goexit: another goroutine goes on
			go p.work(ran)
		}
	}()
	mine := make(chan struct{}, 1)
	for before := ran; ; before = ran {
		ran = nil // which a parked goroutine does not keep
		if ran = p.next(mine, before); ran == nil {
			break
		}
		ran.Run()
	}
	finished = true
}

// next returns the next task, which it may wait for; nil ends the goroutine. ran is the one that
// the goroutine has run, nil for one that is waking.
func (p *Pool) next(mine chan struct{}, ran Task) Task {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ran != nil {
		p.queue.Done(ran)
	} else {
		p.waking = false
	}
	for woken := ran == nil; ; woken = true {
		t := p.takeLocked()
		if p.answers.Holds() && (!p.waking || woken && p.answers.Overdue()) {
			p.flushLocked()
			if t == nil {
				t = p.takeLocked()
			}
		}
		switch {
		case t != nil:
			return t
		case p.closing || len(p.parked) >= maxParked:
			p.endLocked()
			return nil
		case !p.parkLocked(mine):
			return nil
		}
	}
}

// takeLocked returns the next task, which the caller has to run, or nil.
func (p *Pool) takeLocked() Task {
	t := p.queue.Pop()
	if t != nil {
		p.wakeLocked()
	}
	return t
}

// flushLocked publishes the answers that wait. It leaves those that come meanwhile to the
// goroutines that bring them.
func (p *Pool) flushLocked() {
	p.flushing++
	p.mu.Unlock()
	p.answers.Flush()
	p.mu.Lock()
	p.flushing--
}

// parkLocked waits until the goroutine is woken. It returns false when the pool is closed.
func (p *Pool) parkLocked(mine chan struct{}) bool {
	p.parked = append(p.parked, mine)
	p.mu.Unlock()
	_, woken := <-mine
	p.mu.Lock()
	if woken {
		p.waking = false
	}
	return woken
}

func (p *Pool) endLocked() {
	if p.closing && !p.over && !p.waking && p.queue.Running()+p.flushing+p.queue.Waiting() == 0 {
		p.over = true
		close(p.ended)
	}
}

// Close ends the parked goroutines now and the others after their tasks; no task may be submitted
// until Open. ended is closed when the last task has returned. Again it does nothing.
func (p *Pool) Close() (ended <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closing {
		p.closing = true
		for _, parked := range p.parked {
			close(parked)
		}
		p.parked = nil
		p.endLocked()
	}
	return p.ended
}
