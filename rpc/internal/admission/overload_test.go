package admission

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

const ms = time.Millisecond

// work is a handler and the deadlines of its callers.
type work struct {
	name      string
	handler   func(*rand.Rand) time.Duration
	mean      time.Duration
	deadlines []time.Duration
}

var works = []work{
	{"5ms", constant(5 * ms), 5 * ms, []time.Duration{20 * ms, 60 * ms, 2000 * ms}},
	{"50ms", constant(50 * ms), 50 * ms, []time.Duration{60 * ms, 100 * ms, 400 * ms}},
	{"500ms", constant(500 * ms), 500 * ms, []time.Duration{600 * ms, 1000 * ms, 4000 * ms}},
	{"up to 100ms", upTo(100 * ms), 50 * ms, []time.Duration{400 * ms, 2000 * ms}},
}

// overloads calls f for each handler, deadline, overload and number of slots. The requests come
// regularly or at random.
func overloads(t *testing.T, f func(t *testing.T, w work, slots int, load *traffic)) {
	for _, w := range works {
		for _, deadline := range w.deadlines {
			for _, times := range []float64{1.5, 3, 10} {
				for _, slots := range []int{8, 16, 100, 1024} {
					for _, regular := range []bool{false, true} {
						name := fmt.Sprintf("%s/%v/%vx/%d/regular=%v", w.name, deadline, times, slots, regular)
						gap := time.Duration(float64(w.mean) / float64(slots) / times)
						t.Run(name, func(t *testing.T) {
							f(t, w, slots, &traffic{handler: w.handler, deadline: deadline, gap: gap, regular: regular})
						})
					}
				}
			}
		}
	}
}

// TestGoodputUnderOverload: the calls that are answered in time are at least 90 % of what the slots
// can do, which no closed loop exceeds. None runs for nobody, and whoever is refused learns it at
// once.
func TestGoodputUnderOverload(t *testing.T) {
	overloads(t, func(t *testing.T, w work, slots int, load *traffic) {
		s := newSimulation(Limits{slots, slots})
		load.method = NewMethod(Limits{slots, slots})
		begin := 2 * w.mean // nothing is known before the first handler has returned
		end := begin + time.Duration(max(8, 400/slots))*w.mean
		load.until = end
		s.load(load)
		s.run(end + 10*w.mean)
		good, wasted, refused, slow := 0, 0, 0, 0
		for _, c := range s.calls {
			if c.good() && c.answered >= begin && c.answered < end {
				good++
			}
			switch {
			case c.sent < begin, c.good():
			case c.ran:
				wasted++
			default:
				refused++
				if c.answered-c.sent > 5*ms {
					slow++
				}
			}
		}
		capacity := float64(slots) * float64(end-begin) / float64(w.mean)
		if float64(good) < 0.9*capacity {
			t.Errorf("%d are good, of %.0f", good, capacity)
		}
		if float64(wasted) > 0.01*capacity {
			t.Errorf("%d ran for nobody, %d are good", wasted, good)
		}
		if float64(slow) > 0.01*float64(refused) {
			t.Errorf("%d of %d refusals took more than 5 ms", slow, refused)
		}
	})
}

// TestSlowForAWhile: a method whose handlers hang for some seconds, and end at their deadlines, is
// back at its peak within a second after they do not hang any more.
func TestSlowForAWhile(t *testing.T) {
	for _, times := range []float64{0.9, 3} {
		const slots = 100
		s := newSimulation(Limits{slots, slots})
		m := NewMethod(Limits{slots, slots})
		healthy, hang, healed, end := constant(20*ms), 1000*ms, 4000*ms, 6000*ms
		s.load(&traffic{method: m, deadline: 500 * ms, gap: time.Duration(float64(20*ms) / slots / times), until: end, handler: func(r *rand.Rand) time.Duration {
			if s.now > hang && s.now < healed {
				return 500 * ms
			}
			return healthy(r)
		}})
		s.run(end)
		good := 0
		for _, c := range s.calls {
			if c.good() && c.answered >= healed+1000*ms {
				good++
			}
		}
		if want := 0.9 * min(times, 1) * slots * 1000 / 20; float64(good) < want {
			t.Errorf("%v times the capacity: %d are good in a second, want %.0f", times, good, want)
		}
	}
}

// TestTooShortDeadlines: where the deadlines are shorter than the handler takes, calls that find a
// free slot run nevertheless: so the estimate heals when the handler becomes faster.
func TestTooShortDeadlines(t *testing.T) {
	s := newSimulation(Limits{10, 10})
	m := NewMethod(Limits{10, 10})
	slow := true
	s.load(&traffic{method: m, deadline: 50 * ms, gap: ms, until: 3000 * ms, handler: func(*rand.Rand) time.Duration {
		if slow {
			return 100 * ms
		}
		return 5 * ms
	}})
	s.after(1000*ms, func() { slow = false })
	s.run(3000 * ms)
	for _, c := range s.calls {
		if c.sent > 2000*ms && c.sent < 2900*ms && !c.good() {
			t.Fatalf("a call at %v is not answered: %+v", c.sent, c.ticket)
		}
	}
}

// TestOtherMethods: whatever is asked of one method, calls of another one are answered at once.
func TestOtherMethods(t *testing.T) {
	for _, slots := range []int{8, 16, 1024} {
		for _, times := range []float64{3, 10} {
			limits := Limits{slots, slots}
			s := newSimulation(limits)
			hot, other := NewMethod(limits.Share()), NewMethod(limits.Share())
			s.load(&traffic{method: hot, deadline: 2000 * ms, gap: time.Duration(float64(200*ms) / float64(slots) / times), until: 4000 * ms, handler: constant(200 * ms)})
			s.load(&traffic{method: other, deadline: 300 * ms, gap: 40 * ms, regular: true, until: 4000 * ms, handler: constant(20 * ms)})
			s.run(10_000 * ms)
			var took []time.Duration
			for _, c := range s.calls {
				switch {
				case c.traffic.method == hot:
				case !c.good():
					t.Fatalf("%d slots, %v times: a call of the other method was not answered: %+v", slots, times, c.ticket)
				default:
					took = append(took, c.answered-c.sent)
				}
			}
			slices.Sort(took)
			if p99 := took[len(took)*99/100]; p99 > 70*ms {
				t.Errorf("%d slots, %v times: the other method takes %v", slots, times, p99)
			}
		}
	}
}

// TestFewSlots: where there are fewer than eight slots none is kept, but other methods still take
// turns with the one that is overloaded.
func TestFewSlots(t *testing.T) {
	for slots := 1; slots < 8; slots++ {
		limits := Limits{slots, slots + 1}
		s := newSimulation(limits)
		hot, other := NewMethod(limits.Share()), NewMethod(limits.Share())
		s.load(&traffic{method: hot, gap: 2 * ms, until: 4000 * ms, handler: constant(50 * ms)})
		s.load(&traffic{method: other, gap: 100 * ms, regular: true, until: 4000 * ms, handler: constant(5 * ms)})
		s.run(10_000 * ms)
		for _, c := range s.calls {
			if c.traffic.method == other && (!c.ran || c.answered-c.sent > 60*ms) {
				t.Fatalf("%d slots: a call of the other method took %v: %+v", slots, c.answered-c.sent, c.ticket)
			}
		}
	}
}
