package admission

import "time"

// Method is a method of a service: its limits, its calls that wait, and what is known of those that
// run. It belongs to one Queue.
type Method struct {
	limits   Limits
	first    Task // of those that wait
	last     *Ticket
	waiting  int
	started  starts
	estimate Estimate
	next     *Method // in the queue's order of turns
}

// NewMethod returns a method without calls.
func NewMethod(limits Limits) *Method { return &Method{limits: limits} }

// Limits returns the limits of the method.
func (m *Method) Limits() Limits { return m.limits }

// Estimate returns how long calls of the method run.
func (m *Method) Estimate() Estimate { return m.estimate }

// mayStart reports whether a call waits that the method's own limit lets run.
func (m *Method) mayStart() bool { return m.waiting > 0 && m.started.len() < m.limits.Running }

// push adds a call to those that wait. It reports whether the method needs a turn because of it.
func (m *Method) push(t Task) bool {
	could := m.mayStart()
	if m.waiting == 0 {
		m.first = t
	} else {
		m.last.next = t
	}
	m.last = t.Ticket()
	m.waiting++
	return !could && m.mayStart()
}

// pop takes the call that waits for longest.
func (m *Method) pop(now time.Duration) Task {
	t := m.first
	k := t.Ticket()
	m.first, k.next = k.next, nil
	m.waiting--
	m.started.push(now)
	return t
}

// done takes account of a call that has run, or has not run after all.
func (m *Method) done(k *Ticket) {
	if !k.ran {
		m.started.dropLast()
		return
	}
	m.started.dropFirst()
	m.estimate.add(k.span)
}

// estimateWait estimates how long a call waits that has so many calls of its method before it,
// which wait too. Calls are taken to end in the order in which they have started: so the next one
// ends a mean after the oldest of those that run has started, and a call that starts then ends a
// mean later. With handlers that take the same time this is exact, also if all of them have started
// at once.
func (m *Method) estimateWait(before int, now time.Duration) time.Duration {
	running := m.started.len()
	if running == 0 { // calls of other methods have all slots, and the next one is for this method
		return 0
	}
	rounds := time.Duration(1 + before/running)
	return max(0, m.started.at(before%running)+rounds*m.estimate.Mean-now)
}

// starts are the times at which calls have started, in order.
type starts struct {
	times []time.Duration
	head  int
}

func (s *starts) len() int               { return len(s.times) - s.head }
func (s *starts) at(i int) time.Duration { return s.times[s.head+i] }
func (s *starts) dropLast()              { s.times = s.times[:len(s.times)-1] }

func (s *starts) dropFirst() {
	if s.head++; s.head == len(s.times) {
		s.times, s.head = s.times[:0], 0
	}
}

func (s *starts) push(t time.Duration) {
	if len(s.times) == cap(s.times) && s.head > len(s.times)/2 { // move instead of growing
		s.times, s.head = s.times[:copy(s.times, s.times[s.head:])], 0
	}
	s.times = append(s.times, t)
}
