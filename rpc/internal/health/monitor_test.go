package health_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natscall/natscall/rpc/internal/health"
)

// group is a queue group of instances, as they hear each other.
type group struct {
	mu      sync.Mutex
	members []*member
	deaf    bool // nobody hears anybody
	unknown bool // there is no connection
}

// member is an instance of a group.
type member struct {
	group   *group
	monitor *health.Monitor
	moves   []string
	dead    bool
}

func (m *member) Connected() bool {
	m.group.mu.Lock()
	defer m.group.mu.Unlock()
	return !m.group.unknown
}

func (m *member) Covered(context.Context) bool {
	m.group.mu.Lock()
	defer m.group.mu.Unlock()
	return !m.group.deaf && slices.ContainsFunc(m.group.members, func(other *member) bool {
		status := other.monitor.Status()
		return other != m && !other.dead && status.Err == nil && !status.Out
	})
}

func (m *member) Leave(context.Context) bool { return m.moved("leave") }
func (m *member) Join() bool                 { return m.moved("join") }

func (m *member) moved(what string) bool {
	m.group.mu.Lock()
	defer m.group.mu.Unlock()
	m.moves = append(m.moves, what)
	return true
}

func (m *member) have(t *testing.T, want ...string) {
	t.Helper()
	m.group.mu.Lock()
	defer m.group.mu.Unlock()
	if !slices.Equal(m.moves, want) {
		t.Errorf("the instance has done %q, want %q", m.moves, want)
	}
}

// in reports whether the member is in the group.
func (m *member) in() bool {
	m.group.mu.Lock()
	defer m.group.mu.Unlock()
	return len(m.moves) == 0 || m.moves[len(m.moves)-1] == "join"
}

// newGroup runs monitors until the test ends.
func newGroup(t *testing.T, configs ...health.Config) *group {
	g := &group{}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	for _, c := range configs {
		if c.Changed == nil {
			c.Changed = func(_, _ health.Status) {}
		}
		g.members = append(g.members, &member{group: g, monitor: health.New(c)})
	}
	for _, m := range g.members {
		running.Go(func() { <-m.monitor.Run(ctx, m) })
	}
	t.Cleanup(func() { cancel(); running.Wait() })
	return g
}

var errBad = errors.New("bad")

// TestSet: what is set counts at once, and the other instance takes the calls.
func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, health.Config{}, health.Config{})
		m := g.members[0]
		time.Sleep(time.Minute)
		began := time.Now()
		m.monitor.Set(errBad)
		if s := m.monitor.Status(); s.Err != errBad || !s.Since.Equal(began) {
			t.Errorf("the status is %+v", s)
		}
		synctest.Wait()
		m.have(t, "leave")
		m.monitor.Set(errors.New("worse"))
		if s := m.monitor.Status(); s.Err.Error() != "worse" || !s.Since.Equal(began) || !s.Out {
			t.Errorf("the status is %+v", s)
		}
		time.Sleep(time.Hour)
		m.monitor.Set(nil)
		synctest.Wait()
		m.have(t, "leave", "join")
		if s := m.monitor.Status(); s.Err != nil || s.Out || time.Since(s.Since) != 0 {
			t.Errorf("the status is %+v", s)
		}
	})
}

// TestAlone: the last healthy instance stays in its group, says that it is not healthy, and leaves
// when there is another one.
func TestAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, health.Config{}, health.Config{})
		a, b := g.members[0], g.members[1]
		a.monitor.Set(errBad)
		synctest.Wait()
		b.monitor.Set(errBad)
		time.Sleep(10 * time.Second)
		a.have(t, "leave", "join") // as b is not healthy any more
		b.have(t)
		if s := b.monitor.Status(); s.Err == nil || s.Out {
			t.Errorf("the status is %+v", s)
		}
		a.monitor.Set(nil)
		time.Sleep(2 * time.Second)
		a.have(t, "leave", "join")
		b.have(t, "leave")
	})
}

// TestFailClosed: with the option an instance leaves though it is alone.
func TestFailClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, health.Config{FailClosed: true})
		g.members[0].monitor.Set(errBad)
		time.Sleep(time.Minute)
		g.members[0].have(t, "leave")
	})
}

// TestUnknown: without a connection nothing is known of the others, and nothing changes.
func TestUnknown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, health.Config{}, health.Config{})
		out := g.members[0]
		out.monitor.Set(errBad)
		synctest.Wait()
		g.mu.Lock()
		g.unknown = true
		g.mu.Unlock()
		g.members[1].monitor.Set(errBad)
		time.Sleep(time.Minute)
		out.have(t, "leave")
		g.members[1].have(t)
	})
}

// TestLostAnswer: one look that finds nobody is not enough to join again.
func TestLostAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGroup(t, health.Config{}, health.Config{})
		m := g.members[0]
		m.monitor.Set(errBad)
		synctest.Wait()
		deaf := func(now bool) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.deaf = now
		}
		deaf(true)
		time.Sleep(health.Interval)
		synctest.Wait()
		deaf(false)
		time.Sleep(time.Minute)
		m.have(t, "leave")
		deaf(true)
		time.Sleep(2 * health.Interval)
		synctest.Wait()
		m.have(t, "leave", "join")
	})
}

// TestCheck: three results in a row have to agree.
func TestCheck(t *testing.T) {
	panics, exits := func(context.Context) error { panic("x") }, func(context.Context) error { runtime.Goexit(); return nil }
	slow := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	stuck := make(chan struct{})
	hangs := func(context.Context) error { <-stuck; return nil }
	ok, bad := func(context.Context) error { return nil }, func(context.Context) error { return errBad }
	type check = func(context.Context) error
	for name, test := range map[string]struct {
		checks  []check // one after the other; the last one is repeated
		healthy bool
		moves   []string
	}{
		"healthy":     {[]check{ok}, true, nil},
		"once":        {[]check{ok, bad, ok}, true, nil},
		"twice":       {[]check{bad, bad, ok}, true, nil},
		"three times": {[]check{bad, bad, bad}, false, []string{"leave"}},
		"flapping":    {[]check{bad, ok, bad, ok, bad, bad, ok}, true, nil},
		"back":        {[]check{bad, bad, bad, ok, ok, ok}, true, []string{"leave", "join"}},
		"nearly back": {[]check{bad, bad, bad, ok, ok, bad}, false, []string{"leave"}},
		"panics":      {[]check{panics}, false, []string{"leave"}},
		"exits":       {[]check{exits}, false, []string{"leave"}},
		"slow":        {[]check{slow}, false, []string{"leave"}},
		"hangs":       {[]check{hangs}, false, []string{"leave"}},
	} {
		t.Run(name, func(t *testing.T) {
			stuck = make(chan struct{})
			synctest.Test(t, func(t *testing.T) {
				hung := make(chan struct{})
				stuck = hung
				calls := 0
				at := []time.Time{}
				g := newGroup(t, health.Config{Check: func(ctx context.Context) error {
					f := test.checks[min(calls, len(test.checks)-1)]
					calls++
					at = append(at, time.Now())
					return f(ctx)
				}}, health.Config{})
				time.Sleep(30 * time.Second)
				synctest.Wait()
				if got := g.members[0].monitor.Status().Err == nil; got != test.healthy {
					t.Errorf("healthy is %v", got)
				}
				g.members[0].have(t, test.moves...)
				for i := range at[1:] {
					if d := at[i+1].Sub(at[i]); d < health.Interval {
						t.Errorf("checks are %v apart", d)
					}
				}
				close(hung)
			})
		})
	}
}

// TestLatency: an instance whose check begins to fail has left within five seconds, however it
// fails.
func TestLatency(t *testing.T) {
	for name, fail := range map[string]func(context.Context, <-chan struct{}) error{
		"error":   func(context.Context, <-chan struct{}) error { return errBad },
		"timeout": func(ctx context.Context, _ <-chan struct{}) error { <-ctx.Done(); return ctx.Err() },
		"hang":    func(_ context.Context, end <-chan struct{}) error { <-end; return nil },
		"almost":  func(context.Context, <-chan struct{}) error { time.Sleep(950 * time.Millisecond); return errBad },
		"late":    func(context.Context, <-chan struct{}) error { time.Sleep(1100 * time.Millisecond); return errBad },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				end, failing := make(chan struct{}), new(atomic.Bool)
				g := newGroup(t, health.Config{Check: func(ctx context.Context) error {
					if failing.Load() {
						return fail(ctx, end)
					}
					return nil
				}}, health.Config{})
				time.Sleep(10*time.Second + time.Nanosecond) // just after a check
				synctest.Wait()
				failing.Store(true)
				time.Sleep(5 * time.Second)
				g.members[0].have(t, "leave")
				close(end)
			})
		})
	}
}

// TestResultsAreApart: a check that does not return in time has no two results at once.
func TestResultsAreApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var began time.Time
		g := newGroup(t, health.Config{Check: func(context.Context) error {
			if began.IsZero() {
				began = time.Now()
				time.Sleep(health.Interval + health.Interval/10)
			}
			return errBad
		}})
		time.Sleep(10 * time.Second)
		if d := g.members[0].monitor.Status().Since.Sub(began); d < 3*health.Interval {
			t.Errorf("three results have taken %v", d)
		}
	})
}

// TestBoth: the check and what is set have to agree that the instance is healthy.
func TestBoth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var bad atomic.Bool
		g := newGroup(t, health.Config{Check: func(context.Context) error {
			if bad.Load() {
				return errBad
			}
			return nil
		}}, health.Config{})
		m := g.members[0].monitor
		told := errors.New("told")
		m.Set(told)
		time.Sleep(10 * time.Second)
		if err := m.Status().Err; err != told {
			t.Errorf("got %v", err)
		}
		bad.Store(true)
		m.Set(nil)
		time.Sleep(10 * time.Second)
		if err := m.Status().Err; err != errBad {
			t.Errorf("got %v", err)
		}
	})
}

// TestGroupIsNeverEmpty changes the health of several instances at random, and kills some. While
// one lives the group has a member, a few seconds after the last change, and if one of them is
// healthy then only healthy ones.
func TestGroupIsNeverEmpty(t *testing.T) {
	for seed := range uint64(50) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := rand.New(rand.NewPCG(seed, 1))
				g := newGroup(t, make([]health.Config, 2+r.IntN(3))...)
				for range 30 {
					for range 1 + r.IntN(len(g.members)) {
						m := g.members[r.IntN(len(g.members))]
						m.monitor.Set([]error{nil, errBad}[r.IntN(2)])
					}
					if r.IntN(20) == 0 {
						g.mu.Lock()
						g.members[r.IntN(len(g.members)-1)].dead = true
						g.mu.Unlock()
					}
					time.Sleep(time.Duration(r.IntN(3000)) * time.Millisecond)
					g.checkMembers(t, false)
				}
				time.Sleep(5 * health.Interval)
				g.checkMembers(t, true)
			})
		})
	}
}

// checkMembers checks who is in the group. settled says that nothing has changed for long.
func (g *group) checkMembers(t *testing.T, settled bool) {
	t.Helper()
	var in, healthy, wrong, dead int
	for _, m := range g.members {
		good := m.monitor.Status().Err == nil
		switch {
		case m.dead:
			dead++
		case m.in():
			in++
			if !good {
				wrong++
			}
		}
		if good && !m.dead {
			healthy++
		}
	}
	switch {
	case in == 0 && dead == 0 && healthy > 0, in == 0 && settled:
		t.Errorf("the group is empty, %d are healthy and %d dead", healthy, dead)
	case settled && healthy > 0 && wrong > 0:
		t.Errorf("%d in the group are not healthy, though %d are", wrong, healthy)
	}
}
