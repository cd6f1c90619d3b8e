package admission

import (
	"container/heap"
	"math/rand/v2"
	"time"
)

// simulation is a replica under an open load, in virtual time: requests come whether or not earlier
// ones have been answered.
type simulation struct {
	queue  *Queue
	random *rand.Rand
	now    time.Duration
	events events
	calls  []*simCall
}

// traffic is the requests of a method.
type traffic struct {
	method   *Method
	handler  func(*rand.Rand) time.Duration
	deadline time.Duration // of the caller; 0 is none
	gap      time.Duration // between requests
	regular  bool          // otherwise they come at random
	until    time.Duration // no more requests then
}

// simCall is a call of the simulation.
type simCall struct {
	ticket          Ticket
	traffic         *traffic
	sent, deadline  time.Duration // on the caller's and on the replica's side
	refused, ran    bool
	answered, began time.Duration // at the caller; at the replica
}

func (c *simCall) Run()            {}
func (c *simCall) Ticket() *Ticket { return &c.ticket }

// good reports whether the caller has got its answer in time.
func (c *simCall) good() bool {
	return c.ran && (c.traffic.deadline == 0 || c.answered <= c.sent+c.traffic.deadline)
}

type event struct {
	at time.Duration
	do func()
}

// events is a heap.
type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }

func (e *events) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	*e = (*e)[:last]
	return x
}

func newSimulation(limits Limits) *simulation {
	return &simulation{queue: NewQueue(limits), random: rand.New(rand.NewPCG(1, 2))}
}

func (s *simulation) after(d time.Duration, do func()) { heap.Push(&s.events, event{s.now + d, do}) }

func (s *simulation) run(until time.Duration) {
	for len(s.events) > 0 && s.events[0].at <= until {
		e := heap.Pop(&s.events).(event)
		s.now = e.at
		e.do()
	}
	s.now = until
}

// way is how long a message travels.
func (s *simulation) way() time.Duration {
	return 100*time.Microsecond + time.Duration(s.random.ExpFloat64()*float64(200*time.Microsecond))
}

func (s *simulation) load(t *traffic) {
	if s.now >= t.until {
		return
	}
	c := &simCall{traffic: t, sent: s.now}
	s.calls = append(s.calls, c)
	s.after(s.way(), func() { s.arrive(c) })
	gap := float64(t.gap)
	if !t.regular {
		gap *= s.random.ExpFloat64()
	}
	s.after(time.Duration(gap), func() { s.load(t) })
}

func (s *simulation) arrive(c *simCall) {
	c.ticket.Method = c.traffic.method
	if c.traffic.deadline != 0 {
		c.deadline = s.now + c.traffic.deadline
	}
	if !s.queue.Push(c, s.now, c.deadline) {
		c.refused, c.answered = true, s.now+s.way()
		return
	}
	s.work()
}

// work runs what may run.
func (s *simulation) work() {
	for t := s.queue.Pop(); t != nil; t = s.queue.Pop() {
		c := t.(*simCall)
		if !c.ticket.Begin(s.now, c.deadline) {
			c.refused, c.answered = true, s.now+s.way()
			s.queue.Done(c)
			continue
		}
		c.began = s.now
		s.after(c.traffic.handler(s.random), func() {
			c.ticket.Ran(s.now, s.now-c.began)
			c.ran, c.answered = true, s.now+s.way()
			s.queue.Done(c)
			s.work()
		})
	}
}

// constant is a handler that always takes the same time, as far as a machine does.
func constant(d time.Duration) func(*rand.Rand) time.Duration {
	return func(r *rand.Rand) time.Duration {
		return d + time.Duration(r.ExpFloat64()*float64(100*time.Microsecond))
	}
}

// upTo is a handler that takes any time.
func upTo(d time.Duration) func(*rand.Rand) time.Duration {
	return func(r *rand.Rand) time.Duration { return time.Duration(r.Int64N(int64(d))) }
}
