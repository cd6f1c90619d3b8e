package admission

import (
	"slices"
	"testing"
	"time"
)

// fuzzMethod is a method and a model of it: its calls in the order in which they came.
type fuzzMethod struct {
	*Method
	waiting []*call
	running int
}

// FuzzQueue compares a queue of two methods with lists. As many calls run and wait as may, calls of
// a method begin in the order in which they came, a call that finds a free slot is taken, a method
// that may start one gets its turn, and in the end nothing is left. The first bytes are the limits,
// the others steps with their times.
func FuzzQueue(f *testing.F) {
	f.Add([]byte("\x12\x12\x12\x00\x04\x08\x01\x01\x02\x02\x00\x00\x01"))
	f.Add([]byte("\x11\x11\x01\x00\x80\x01\xff\x02\x00\x40\x01\x06\x00\x02\x03"))
	f.Add([]byte("\x33\x21\x12\x00\x04\x00\x04\x00\x04\x01\x01\x01\x02\x02\x0a\x01\x01\x01"))
	f.Fuzz(func(t *testing.T, input []byte) {
		if len(input) < 3 {
			return
		}
		limits := func(b byte) Limits { return Limits{Running: 1 + int(b&7), Waiting: int(b >> 4)} }
		all := limits(input[0])
		q := newQueue(all)
		methods := []*fuzzMethod{{Method: NewMethod(all.Within(limits(input[1])))}, {Method: NewMethod(all.Within(limits(input[2])))}}
		running, waiting := map[*call]*fuzzMethod{}, 0
		now := time.Duration(1)
		mayStart := func(m *fuzzMethod) bool { return len(m.waiting) > 0 && m.running < m.limits.Running }
		pop := func() {
			ready := len(running) < all.Running && (mayStart(methods[0]) || mayStart(methods[1]))
			task := q.Pop()
			if ready != (task != nil) {
				t.Fatalf("a call begins: %v; %d run, %d wait", task != nil, len(running), waiting)
			}
			if task == nil {
				return
			}
			c := task.(*call)
			for _, m := range methods {
				if m.Method != c.ticket.Method {
					continue
				}
				if m.running >= m.limits.Running || len(m.waiting) == 0 || m.waiting[0] != c {
					t.Fatal("a call begins that may not, or out of order")
				}
				m.waiting = m.waiting[1:]
				m.running++
				running[c] = m
			}
			waiting--
		}
		end := func(c *call, late bool) {
			if begins := c.ticket.Begin(now, c.deadline); begins && !late {
				c.ticket.Ran(now, now-c.arrived)
			}
			q.Done(c)
			running[c].running--
			delete(running, c)
		}
		var order []*call // that run
		for _, step := range input[3:] {
			now += time.Duration(step>>3) * ms
			m := methods[step>>2&1]
			switch step & 3 {
			case 0: // a call comes
				c := newCall(m.Method, now, time.Duration(step>>5)*50*ms)
				free := len(running)+waiting < all.Running && m.running+len(m.waiting) < m.limits.Running
				taken := q.push(c)
				if free && !taken || taken != (c.ticket.Refused() == NotRefused) {
					t.Fatalf("taken %v with a free slot %v: %v", taken, free, c.ticket.Refused())
				}
				full := len(running)+waiting >= all.Running+all.Waiting || m.running+len(m.waiting) >= m.limits.Running+m.limits.Waiting
				if full == taken && c.ticket.Refused() != Hopeless || c.ticket.Wait() < 0 {
					t.Fatalf("taken %v, full %v: %v, wait %v", taken, full, c.ticket.Refused(), c.ticket.Wait())
				}
				if taken {
					m.waiting = append(m.waiting, c)
					waiting++
				}
			case 1:
				before := len(running)
				pop()
				if len(running) > before {
					for c := range running {
						if !slices.Contains(order, c) {
							order = append(order, c)
						}
					}
				}
			default:
				if len(order) > 0 {
					i := int(step>>3) % len(order)
					end(order[i], step&3 == 3)
					order = append(order[:i], order[i+1:]...)
				}
			}
			if q.Running() != len(running) || q.Waiting() != waiting || q.Running() > all.Running || q.Full() != (len(running) >= all.Running) {
				t.Fatalf("%d run, %d wait, want %d, %d", q.Running(), q.Waiting(), len(running), waiting)
			}
		}
		for len(running)+waiting > 0 {
			for c := range running {
				end(c, false)
			}
			pop()
		}
		if q.Ready() || q.first != nil || methods[0].started.len()+methods[1].started.len() > 0 {
			t.Error("something is left")
		}
	})
}
