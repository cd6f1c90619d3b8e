// Package admission decides which calls of a service run, which wait, and which are refused. It is
// pure: no locks, no clocks, no goroutines.
//
// A call that finds a free slot runs. Any other one waits if there is room and if it can still be
// answered in time: its wait and how long its method usually runs must fit into what is left of its
// deadline. So under overload the slots work for callers that are still there, and the others learn
// at once that they have to go elsewhere. As a call that finds a free slot is never refused, a
// method that was slow for a while gets new estimates, and no other state has to heal.
//
//	          Push             Pop              Done
//	arrived ---------> waiting ------> running ------> over
//	   |                                 |   Late: refused before its handler is called
//	   +---> refused                     +-----------> over
//
// Methods take turns, so a call of one waits for at most one call of each other method for every
// call of its own that is ahead of it. A method at its own limit is passed over.
package admission

import "time"

// Limits bound the calls of a service or a method.
type Limits struct {
	Running int // at once
	Waiting int // for a slot
}

// Share returns what one method may have of the limits of a service of several methods, unless it
// has limits of its own: seven eighths, so that no method takes everything from the others. A place
// to wait costs nothing, so at least one is left to the others; a slot is left where there are
// eight or more.
func (l Limits) Share() Limits {
	return Limits{Running: l.Running - l.Running/8, Waiting: max(min(l.Waiting, 1), l.Waiting-(l.Waiting+7)/8)}
}

// Within returns what a method may have that has limits of its own.
func (l Limits) Within(own Limits) Limits {
	return Limits{Running: min(l.Running, own.Running), Waiting: min(l.Waiting, own.Waiting)}
}

// Task is a call.
type Task interface {
	Run()
	Ticket() *Ticket
}

// Queue has the calls of a service that wait, and counts those that run. Its owner's lock protects
// it together with its methods.
type Queue struct {
	limits  Limits
	running int
	waiting int
	first   *Method // of those whose turn it is in this order: they have calls that may run
	last    *Method
	now     time.Duration // the latest time that it has been told
}

// NewQueue returns an empty queue.
func NewQueue(limits Limits) *Queue { return &Queue{limits: limits} }

// Waiting returns how many calls wait.
func (q *Queue) Waiting() int { return q.waiting }

// Running returns how many calls run.
func (q *Queue) Running() int { return q.running }

// Ready reports whether Pop returns a call.
func (q *Queue) Ready() bool { return q.first != nil && q.running < q.limits.Running }

// Full reports whether as many calls run as may.
func (q *Queue) Full() bool { return q.running >= q.limits.Running }

// Push takes a call or refuses it: its ticket then says why. The times are those of one clock, for
// all methods of Queue and Ticket. A deadline of 0 is none.
func (q *Queue) Push(t Task, arrived, deadline time.Duration) bool {
	k := t.Ticket()
	m := k.Method
	q.now = max(q.now, arrived)
	// The slots that are free for the method, less the calls of it that are about to take them.
	free := min(q.limits.Running-q.running, m.limits.Running-m.started.len()) - m.waiting
	if free <= 0 {
		k.waits, k.span = true, m.estimateWait(-free, q.now)
	}
	switch {
	case q.running-q.limits.Running+q.waiting >= q.limits.Waiting:
		k.refused = QueueFull
	case m.started.len()-m.limits.Running+m.waiting >= m.limits.Waiting:
		k.refused = MethodFull
	case k.waits && deadline != 0 && deadline-arrived < k.span+m.estimate.need():
		k.refused = Hopeless
	default:
		q.waiting++
		if m.push(t) {
			q.enqueue(m)
		}
		return true
	}
	k.need = m.estimate.need()
	return false
}

// Pop returns the next call that may run, or nil. From now on it runs.
func (q *Queue) Pop() Task {
	if !q.Ready() {
		return nil
	}
	m := q.dequeue()
	t := m.pop(q.now)
	q.waiting--
	q.running++
	if m.mayStart() {
		q.enqueue(m)
	}
	if k := t.Ticket(); k.waits {
		k.need = m.estimate.least()
	}
	return t
}

// Done ends a call that runs.
func (q *Queue) Done(t Task) {
	k := t.Ticket()
	m := k.Method
	could := m.mayStart()
	q.now = max(q.now, k.ended)
	q.running--
	m.done(k)
	if !could && m.mayStart() {
		q.enqueue(m)
	}
}

func (q *Queue) enqueue(m *Method) {
	if q.first == nil {
		q.first = m
	} else {
		q.last.next = m
	}
	q.last = m
}

func (q *Queue) dequeue() *Method {
	m := q.first
	q.first, m.next = m.next, nil
	return m
}
