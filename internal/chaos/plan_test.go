package main

import (
	"reflect"
	"slices"
	"testing"
	"time"
)

// TestPlan: a seed draws one plan. Every kind of fault comes, each fault is over before the next
// one of its lane begins, and no plan is longer than it may be.
func TestPlan(t *testing.T) {
	kinds := map[faultKind]int{} // the lane of each
	for i, lane := range lanes {
		for _, f := range lane {
			kinds[f.kind] = i
		}
	}
	for _, test := range []struct {
		length time.Duration
		faults int
		all    bool // kinds of faults
	}{
		{20 * time.Second, faultsIn(20 * time.Second), false},
		{20 * time.Second, 1, false},
		{time.Minute, maxFaults(time.Minute), true},
		{10 * time.Minute, faultsIn(10 * time.Minute), true},
		{10 * time.Minute, maxFaults(10 * time.Minute), true},
	} {
		for seed := range uint64(20) {
			plan, err := makePlan(seed, test.length, test.faults)
			if err != nil {
				t.Fatal(err)
			}
			if again, _ := makePlan(seed, test.length, test.faults); !reflect.DeepEqual(plan, again) {
				t.Fatalf("seed %d: two plans", seed)
			}
			if len(plan) != test.faults {
				t.Fatalf("%d faults of %d", len(plan), test.faults)
			}
			over := make([]time.Duration, len(lanes))
			seen := map[faultKind]bool{}
			for _, p := range plan {
				lane := kinds[p.Kind]
				if p.At < warmUp || p.At < over[lane] || p.Lasts < 0 || p.At+p.Lasts > test.length-quiet {
					t.Fatalf("%v, and the one before is over at %v", p, over[lane])
				}
				over[lane], seen[p.Kind] = p.At+p.Lasts, true
			}
			if test.all && len(seen) != len(kinds) {
				t.Fatalf("seed %d: only %v", seed, seen)
			}
		}
	}
	if a, _ := makePlan(1, time.Minute, 20); a != nil {
		if b, _ := makePlan(2, time.Minute, 20); reflect.DeepEqual(a, b) {
			t.Error("two seeds draw the same plan")
		}
	}
}

// TestPlanLimits: a plan with too many faults would not let them heal.
func TestPlanLimits(t *testing.T) {
	for _, faults := range []int{-1, 0, maxFaults(20*time.Second) + 1} {
		if _, err := makePlan(1, 20*time.Second, faults); err == nil {
			t.Errorf("%d faults: no error", faults)
		}
	}
	if _, err := makePlan(1, time.Second, faultsIn(time.Second)); err == nil {
		t.Error("a second: no error")
	}
	if n := faultsIn(10 * time.Minute); n < 100 {
		t.Errorf("%d faults in ten minutes", n)
	}
}

// TestSteps: every fault begins before it ends, in the order of time.
func TestSteps(t *testing.T) {
	plan := []planned{{At: sec, Lasts: 3 * sec}, {At: 2 * sec}, {At: 3 * sec, Lasts: sec}}
	want := []step{{sec, 0, false}, {2 * sec, 1, false}, {2 * sec, 1, true}, {3 * sec, 2, false}, {4 * sec, 0, true}, {4 * sec, 2, true}}
	if got := steps(plan); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
