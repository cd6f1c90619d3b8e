package main

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/natscall/natscall/rpc"
)

// TestOpenLoop: calls are made when they are due, whether or not earlier ones have ended.
func TestOpenLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate, lasts, takes = 1000, 2 * time.Second, 5 * time.Second
		calls := openLoop{rate, lasts, func() error { time.Sleep(takes); return nil }}.run(t.Context())
		if n := float64(len(calls)); n < 0.9*rate*lasts.Seconds() || n > 1.1*rate*lasts.Seconds() {
			t.Errorf("%v calls were made", n)
		}
		for i, c := range calls {
			if c.late < 0 || c.late > time.Millisecond || c.took != c.late+takes || i > 0 && c.due < calls[i-1].due {
				t.Fatalf("call %d: %+v", i, c)
			}
		}
	})
}

// TestClosedLoop: each caller makes one call after the other.
func TestClosedLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		got := closedLoop(t.Context(), 1, 4*time.Second, func() error {
			time.Sleep(100 * time.Millisecond)
			if n++; n%2 == 0 {
				return errors.New("no")
			}
			return nil
		})
		if n != 40 || got != 5 {
			t.Errorf("of %d calls %v a second were good", n, got)
		}
	})
}

// TestCount: a call is good in the time in which it ends, refused, or failed.
func TestCount(t *testing.T) {
	refused := rpc.NewError(rpc.CodeResourceExhausted, "busy")
	r := row{overload: overload{deadline: 100 * time.Millisecond}}
	r.count([]callResult{
		{due: 900 * time.Millisecond, took: 50 * time.Millisecond},   // too early
		{due: 950 * time.Millisecond, took: 80 * time.Millisecond},   // good
		{due: 1500 * time.Millisecond, took: 100 * time.Millisecond}, // good
		{due: 1500 * time.Millisecond, took: 101 * time.Millisecond}, // too late for its caller
		{due: 1500 * time.Millisecond, took: time.Millisecond, err: refused},
		{due: 1500 * time.Millisecond, took: time.Second, err: errors.New("who")},
		{due: 2950 * time.Millisecond, took: 80 * time.Millisecond, late: 1}, // too late
	}, time.Second, 3*time.Second)
	if r.open != 1 || r.failed != 2 || len(r.refused) != 1 || r.refused[0] != time.Millisecond {
		t.Errorf("%v a second are good, %d have failed, refused: %v", r.open, r.failed, r.refused)
	}
}

// TestPeakAfter: half a second in which nine of ten calls are good is the peak.
func TestPeakAfter(t *testing.T) {
	for _, test := range []struct {
		bad  time.Duration // calls that are due before have failed
		want time.Duration
	}{{0, 0}, {30 * time.Millisecond, 0}, {300 * time.Millisecond, 300 * time.Millisecond}, {recoveryTime, -1}} {
		var calls []callResult
		for due := time.Duration(0); due < recoveryTime; due += 10 * time.Millisecond {
			c := callResult{due: due}
			if due < test.bad {
				c.err = errors.New("busy")
			}
			calls = append(calls, c)
		}
		if got := peakAfter(calls); got != test.want {
			t.Errorf("calls fail for %v: the peak is after %v, want %v", test.bad, got, test.want)
		}
	}
}
