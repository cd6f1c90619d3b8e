package liveness

import (
	"fmt"
	"slices"
	"testing"
)

// TestPatience: when a call is asked about, and when it is lost.
func TestPatience(t *testing.T) {
	ticks := func(p *Patience, n int) (asked []int, deadAt int) {
		for i := 1; i <= n; i++ {
			ask, dead := p.Tick()
			if dead {
				return asked, i
			}
			if ask {
				asked = append(asked, i)
			}
		}
		return asked, 0
	}
	for _, test := range []struct {
		name   string
		before func(p *Patience)
		asked  []int
		deadAt int
	}{
		{"never answered", func(*Patience) {}, []int{2, 4, 6, 8, 10, 12, 13}, 14},
		{"answered once", func(p *Patience) { ticks(p, 2); p.Found(false) }, []int{2, 4, 6, 8, 10, 12, 13}, 14},
		{"answered in doubt", func(p *Patience) { ticks(p, 13); p.Found(false) }, []int{1, 3, 5, 7, 9, 11, 12}, 13},
		{"known", func(p *Patience) { ticks(p, 2); p.Found(true) }, []int{25, 27, 29, 31, 33, 35, 36}, 37},
		{"not allowed to ask", func(p *Patience) { ticks(p, 13); p.Skip() }, []int{1, 3, 5, 7, 9, 11, 12}, 13},
		{"offline in doubt", func(p *Patience) { ticks(p, 13); p.Offline(); p.Reconnected() }, []int{1, 3, 5, 7, 9, 11, 12}, 13},
	} {
		var p Patience
		test.before(&p)
		if asked, deadAt := ticks(&p, 50); !slices.Equal(asked, test.asked) || deadAt != test.deadAt {
			t.Errorf("%s: asked at %v, dead at %d, want %v, %d", test.name, asked, deadAt, test.asked, test.deadAt)
		}
	}
}

// TestReconnect: a call is asked about more often after a reconnect, and lost after some time
// without a connection.
func TestReconnect(t *testing.T) {
	var p Patience
	var got []string
	step := func(name string, rule func() (bool, bool)) {
		ask, dead := rule()
		got = append(got, fmt.Sprint(name, ask, dead))
	}
	step("recheck", p.Recheck)
	step("reconnected", p.Reconnected)
	if !p.Asked() || p.AskedBefore() {
		t.Error("the query after a reconnect is not a first one")
	}
	for range 3 {
		step("recheck", p.Recheck)
	}
	if !p.AskedBefore() {
		t.Error("the next ones are")
	}
	p.Found(false)
	step("recheck", p.Recheck)
	want := []string{
		"recheckfalse false", "reconnectedtrue false",
		"rechecktrue false", "rechecktrue false", "recheckfalse true", "recheckfalse false",
	}
	if !slices.Equal(got, want) {
		t.Errorf("the steps are\n%q, want\n%q", got, want)
	}
	for tick, lost := 1, false; !lost; tick++ {
		if _, lost = p.Offline(); lost != (tick > maxOffline) {
			t.Fatalf("after %d ticks without a connection the call is lost: %v", tick, lost)
		}
	}
}

// TestOld: a call is old after half a second, also if it may not be asked about.
func TestOld(t *testing.T) {
	for name, rule := range map[string]func(*Patience){
		"tick": func(p *Patience) { p.Tick() }, "skip": (*Patience).Skip, "offline": func(p *Patience) { p.Offline() },
	} {
		var p Patience
		for age := 1; age <= 5; age++ {
			rule(&p)
			if p.Old() != (age >= 3) {
				t.Errorf("%s: after %d ticks it is old: %v", name, age, p.Old())
			}
		}
	}
}
