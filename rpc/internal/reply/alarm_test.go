package reply

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestAlarm: an alarm delivers at its deadline or before, whatever it was set for by earlier calls.
func TestAlarm(t *testing.T) {
	for _, test := range []struct {
		name   string
		before []time.Duration // calls that had these timeouts and were answered at once
		pause  time.Duration   // until the call
		left   time.Duration
		wakes  []time.Duration // after the start of the call
	}{
		{name: "first", left: time.Second, wakes: []time.Duration{time.Second}},
		{name: "shorter", before: []time.Duration{time.Minute}, left: time.Second, wakes: []time.Duration{time.Second}},
		{name: "still running", before: []time.Duration{time.Second}, left: time.Minute,
			wakes: []time.Duration{time.Second, time.Minute}},
		{name: "has gone off", before: []time.Duration{time.Second}, pause: time.Hour, left: time.Minute,
			wakes: []time.Duration{time.Minute}},
		{name: "many", before: []time.Duration{time.Minute, time.Second, time.Hour}, pause: time.Second / 2, left: time.Second,
			wakes: []time.Duration{time.Second / 2, time.Second}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var a alarm
				for _, timeout := range test.before {
					a.at(time.Now().Add(timeout), timeout)
				}
				<-time.After(test.pause)
				start := time.Now()
				deadline := start.Add(test.left)
				wakes := a.at(deadline, test.left)
				for _, want := range test.wakes {
					if woken := (<-wakes).Sub(start); woken != want {
						t.Fatalf("woken after %v, want %v", woken, want)
					}
					a.reset(deadline, time.Until(deadline))
				}
			})
		})
	}
}

// TestAlarmRarelySet: calls with the same timeout set the timer once in that time.
func TestAlarmRarelySet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var a alarm
		set := 0
		for due := a.due; time.Since(a.due) < 0 || due.IsZero(); <-time.After(time.Millisecond) {
			a.at(time.Now().Add(time.Second), time.Second)
			if a.due != due {
				set++
			}
			due = a.due
		}
		if set != 1 {
			t.Errorf("1,000 calls within a second set the timer %d times", set)
		}
	})
}
