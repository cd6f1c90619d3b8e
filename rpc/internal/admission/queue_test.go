package admission

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

// call is a call of a test that says itself what happens.
type call struct {
	ticket            Ticket
	arrived, deadline time.Duration
}

func (c *call) Run()            {}
func (c *call) Ticket() *Ticket { return &c.ticket }

// queue is one of such calls.
type queue struct{ *Queue }

func newQueue(limits Limits) queue { return queue{NewQueue(limits)} }

func (q queue) push(c *call) bool { return q.Push(c, c.arrived, c.deadline) }

func newCall(m *Method, arrived, left time.Duration) *call {
	c := &call{ticket: Ticket{Method: m}, arrived: arrived}
	if left != 0 {
		c.deadline = arrived + left
	}
	return c
}

// known returns a method whose calls take so long.
func known(limits Limits, mean, deviation time.Duration) *Method {
	m := NewMethod(limits)
	m.estimate = Estimate{mean, deviation}
	return m
}

// TestAdmission: what becomes of a call that comes when others run and wait.
func TestAdmission(t *testing.T) {
	const mean, deviation = 100 * ms, 10 * ms
	// A call needs 126.25 ms to be taken.
	for name, test := range map[string]struct {
		limits, own      Limits
		running, waiting int
		ago              time.Duration // since the others came
		left             time.Duration // of its deadline, 0 for none
		refused          Reason
		wait             time.Duration
	}{
		"a free slot":                        {Limits{2, 2}, Limits{2, 2}, 1, 0, 0, 0, NotRefused, 0},
		"a free slot and no time":            {Limits{2, 2}, Limits{2, 2}, 1, 0, 0, ms, NotRefused, 0},
		"no deadline":                        {Limits{2, 2}, Limits{2, 2}, 2, 1, 0, 0, NotRefused, 100 * ms},
		"the service is full":                {Limits{2, 2}, Limits{2, 9}, 2, 2, 0, 0, QueueFull, 200 * ms},
		"the method is full":                 {Limits{4, 4}, Limits{2, 2}, 2, 2, 0, 0, MethodFull, 200 * ms},
		"no queue":                           {Limits{2, 0}, Limits{2, 0}, 2, 0, 0, 0, QueueFull, 100 * ms},
		"enough time":                        {Limits{2, 2}, Limits{2, 2}, 2, 1, 0, 227 * ms, NotRefused, 100 * ms},
		"not enough time":                    {Limits{2, 2}, Limits{2, 2}, 2, 1, 0, 226 * ms, Hopeless, 100 * ms},
		"those that run have begun long ago": {Limits{2, 2}, Limits{2, 2}, 2, 1, 80 * ms, 147 * ms, NotRefused, 20 * ms},
		"they are late themselves":           {Limits{2, 2}, Limits{2, 2}, 2, 1, 300 * ms, 127 * ms, NotRefused, 0},
		"a second round":                     {Limits{2, 4}, Limits{2, 4}, 2, 2, 40 * ms, 286 * ms, Hopeless, 160 * ms},
		"no limits":                          {Limits{math.MaxInt, math.MaxInt}, Limits{math.MaxInt, math.MaxInt}, 5, 0, 0, 0, NotRefused, 0},
		"a queue without a limit":            {Limits{1, math.MaxInt}, Limits{1, math.MaxInt}, 1, 5, 0, 0, NotRefused, 600 * ms},
	} {
		q, m := newQueue(test.limits), known(test.own, mean, deviation)
		for i := range test.running + test.waiting {
			if !q.push(newCall(m, 0, 0)) {
				t.Fatalf("%s: call %d is refused", name, i)
			}
			if i < test.running && q.Pop() == nil {
				t.Fatalf("%s: call %d does not run", name, i)
			}
		}
		c := newCall(m, test.ago, test.left)
		if taken := q.push(c); taken != (test.refused == NotRefused) || c.ticket.Refused() != test.refused || c.ticket.Wait() != test.wait {
			t.Errorf("%s: taken %v, refused %v, wait %v; want %v, %v", name, taken, c.ticket.Refused(), c.ticket.Wait(), test.refused, test.wait)
		}
		if waited := c.ticket.Waited(); waited != (test.running >= min(test.limits.Running, test.own.Running)) {
			t.Errorf("%s: it waited: %v", name, waited)
		}
	}
}

// TestLate: a call that has waited does not run if too little is left of its deadline, and tells
// nothing about how long calls run.
func TestLate(t *testing.T) {
	for _, test := range []struct {
		ends time.Duration // of the call before it
		runs bool
	}{{100 * ms, true}, {122 * ms, true}, {123 * ms, false}, {400 * ms, false}} {
		q, m := newQueue(Limits{1, 1}), known(Limits{1, 1}, 100*ms, 10*ms)
		first, second := newCall(m, 0, 0), newCall(m, 0, 231*ms)
		if !q.push(first) || q.Pop() != first || !q.push(second) || q.Pop() != nil {
			t.Fatal("the calls are not taken")
		}
		first.ticket.Ran(test.ends, 100*ms)
		q.Done(first)
		before := m.Estimate()
		if q.Pop() != second {
			t.Fatal("the second call does not get its turn")
		}
		if runs := second.ticket.Begin(test.ends, second.deadline); runs != test.runs || (second.ticket.Refused() == Late) == runs {
			t.Errorf("the one before it ends after %v: runs %v, refused %v", test.ends, runs, second.ticket.Refused())
		}
		q.Done(second)
		if m.Estimate() != before {
			t.Errorf("the estimate was %v and is %v", before, m.Estimate())
		}
		if q.Running() != 0 || q.Waiting() != 0 || q.Ready() || m.started.len() != 0 {
			t.Errorf("%d run, %d wait", q.Running(), q.Waiting())
		}
	}
}

// TestLateLeavesNoTrace: a call that did not run does not count as one of those that will end.
func TestLateLeavesNoTrace(t *testing.T) {
	q, m := newQueue(Limits{2, 2}), known(Limits{2, 2}, 100*ms, 0)
	calls := []*call{newCall(m, 0, 0), newCall(m, 60*ms, 0), newCall(m, 61*ms, 110*ms+39*ms)}
	for _, c := range calls {
		if !q.push(c) {
			t.Fatalf("a call is refused: %v", c.ticket.Refused())
		}
		q.Pop()
	}
	calls[0].ticket.Ran(120*ms, 100*ms)
	q.Done(calls[0])
	if q.Pop() != Task(calls[2]) || calls[2].ticket.Begin(120*ms, calls[2].deadline) {
		t.Fatal("the last call is not late")
	}
	q.Done(calls[2])
	if n := m.started.len(); n != 1 || m.started.at(0) != 60*ms {
		t.Errorf("%d calls run, since %v", n, m.started.times)
	}
}

// TestEstimate: after some calls the estimate is about what they took, and one of them changes it
// little.
func TestEstimate(t *testing.T) {
	var e Estimate
	e.add(100 * ms)
	if e != (Estimate{Mean: 100 * ms}) {
		t.Errorf("after one call it is %v", e)
	}
	if e.add(180 * ms); e.Mean != 110*ms || e.Deviation != 10*ms {
		t.Errorf("after a slow one it is %v", e)
	}
	for range 24 {
		e.add(10 * ms)
	}
	if e.Mean > 15*ms {
		t.Errorf("after 24 quick ones it is %v", e)
	}
	for range 40 {
		e.add(10 * ms)
	}
	if e.Deviation > ms {
		t.Errorf("after 64 quick ones it is %v", e)
	}
}

// TestNothingIsKnown: the first calls wait, as nothing is known of how long they take.
func TestNothingIsKnown(t *testing.T) {
	q, m := newQueue(Limits{1, 1}), NewMethod(Limits{1, 1})
	for range 2 {
		if c := newCall(m, 0, ms); !q.push(c) {
			t.Fatalf("refused: %v", c.ticket.Refused())
		}
		q.Pop()
	}
}

// TestTurns: methods take turns, calls of one method run in order, and one at its limit is passed
// over.
func TestTurns(t *testing.T) {
	q := newQueue(Limits{3, 100})
	a, b := NewMethod(Limits{2, 100}), NewMethod(Limits{3, 100})
	var all []*call
	for range 4 {
		all = append(all, newCall(a, 0, 0))
		q.push(all[len(all)-1])
	}
	for range 3 {
		all = append(all, newCall(b, 0, 0))
		q.push(all[len(all)-1])
	}
	pop := func(want *call) {
		t.Helper()
		if got := q.Pop(); got != Task(want) {
			t.Fatalf("another call runs than the one whose turn it is")
		}
	}
	done := func(c *call) { c.ticket.Ran(ms, ms); q.Done(c) }
	pop(all[0])
	pop(all[4])
	pop(all[1])
	if q.Pop() != nil || !q.Full() || q.Ready() {
		t.Fatal("more run than may")
	}
	done(all[4])
	pop(all[5]) // a is at its limit
	done(all[5])
	pop(all[6])
	done(all[6])
	if q.Pop() != nil || q.Ready() {
		t.Fatal("more of a method run than may")
	}
	done(all[0])
	pop(all[2])
	done(all[2])
	pop(all[3])
	done(all[3])
	done(all[1])
	if q.Running() != 0 || q.Waiting() != 0 || q.Pop() != nil {
		t.Errorf("%d run, %d wait", q.Running(), q.Waiting())
	}
}

// TestModel: whatever comes and goes, the queue keeps its limits, keeps no call from running that
// may, and loses none.
func TestModel(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		limits := Limits{1 + r.IntN(10), r.IntN(10)}
		q := newQueue(limits)
		methods := make([]*Method, 1+r.IntN(4))
		waiting, running := make([][]*call, len(methods)), make([][]*call, len(methods))
		for i := range methods {
			methods[i] = NewMethod(limits.Within(Limits{1 + r.IntN(10), r.IntN(10)}))
		}
		count := func(all [][]*call) (n int) {
			for _, some := range all {
				n += len(some)
			}
			return n
		}
		for range 1000 {
			i := r.IntN(len(methods))
			m := methods[i]
			switch r.IntN(3) {
			case 0:
				full := count(waiting)+count(running) >= limits.Running+limits.Waiting
				own := len(waiting[i])+len(running[i]) >= m.limits.Running+m.limits.Waiting
				c := newCall(m, 0, 0)
				switch taken := q.push(c); {
				case taken == (full || own):
					t.Fatalf("seed %d: taken %v, full %v %v", seed, taken, full, own)
				case taken:
					waiting[i] = append(waiting[i], c)
				case (c.ticket.Refused() == QueueFull) != full:
					t.Fatalf("seed %d: refused %v", seed, c.ticket.Refused())
				}
			case 1:
				may := false
				for j, m := range methods {
					may = may || len(waiting[j]) > 0 && len(running[j]) < m.limits.Running && count(running) < limits.Running
				}
				task := q.Pop()
				if (task != nil) != may {
					t.Fatalf("seed %d: a call runs: %v, may run: %v", seed, task != nil, may)
				}
				for j := range methods {
					if task != nil && len(waiting[j]) > 0 && task == Task(waiting[j][0]) {
						running[j], waiting[j] = append(running[j], waiting[j][0]), waiting[j][1:]
					}
				}
			case 2:
				if n := len(running[i]); n > 0 {
					k := r.IntN(n)
					c := running[i][k]
					if r.IntN(2) == 0 {
						c.ticket.Ran(0, ms)
					}
					q.Done(c)
					running[i] = append(running[i][:k:k], running[i][k+1:]...)
				}
			}
			if q.Running() != count(running) || q.Waiting() != count(waiting) {
				t.Fatalf("seed %d: %d run and %d wait, want %d and %d", seed, q.Running(), q.Waiting(), count(running), count(waiting))
			}
		}
	}
}

// TestShare: one method leaves room for the others, and always has some itself.
func TestShare(t *testing.T) {
	for _, test := range []struct{ of, want Limits }{
		{Limits{1, 0}, Limits{1, 0}},
		{Limits{1, 1}, Limits{1, 1}},
		{Limits{2, 2}, Limits{2, 1}},
		{Limits{7, 7}, Limits{7, 6}},
		{Limits{8, 8}, Limits{7, 7}},
		{Limits{16, 9}, Limits{14, 7}},
		{Limits{1024, 1024}, Limits{896, 896}},
		{Limits{10_000, 0}, Limits{8750, 0}},
		{Limits{math.MaxInt32, math.MaxInt32}, Limits{1879048192, 1879048191}},
	} {
		if got := test.of.Share(); got != test.want {
			t.Errorf("of %v a method has %v, want %v", test.of, got, test.want)
		}
	}
}

// TestMemory: times do not pile up in a method that is never idle, and no call is kept that is
// over.
func TestMemory(t *testing.T) {
	q, m := newQueue(Limits{10, 10}), NewMethod(Limits{10, 10})
	var last, lastButOne *call
	for range 10_000 {
		c, d := newCall(m, 0, 0), newCall(m, 0, 0)
		q.push(c)
		q.push(d)
		q.Pop()
		q.Pop()
		if last != nil {
			last.ticket.Ran(0, ms)
			q.Done(last)
			q.Done(lastButOne)
		}
		last, lastButOne = d, c
	}
	if n := cap(m.started.times); n > 64 {
		t.Errorf("there is room for the times of %d calls", n)
	}
	if m.first != nil || last.ticket.next != nil || lastButOne.ticket.next != nil {
		t.Error("a call is kept")
	}
}

// TestAllocations: a call that comes and goes allocates nothing.
func TestAllocations(t *testing.T) {
	q, m := newQueue(Limits{10, 10}), NewMethod(Limits{10, 10})
	c := newCall(m, 0, 0)
	if n := testing.AllocsPerRun(100, func() {
		q.push(c)
		q.Pop()
		q.Done(c)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
