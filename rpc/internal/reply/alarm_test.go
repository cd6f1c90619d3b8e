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
					if expired := a.heard(deadline); expired != (want == test.left) {
						t.Errorf("after %v the call has expired: %v", want, expired)
					}
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

// TestAlarmOfLateCall: a call has looked at the clock, and takes its time until it sets the alarm.
// Meanwhile another call has waited with the alarm.
func TestAlarmOfLateCall(t *testing.T) {
	for _, test := range []struct {
		name    string
		earlier func(a *alarm) // between the look at the clock and at
		timeout time.Duration
	}{
		{"it has gone off and was heard", func(a *alarm) {
			deadline := time.Now().Add(5 * time.Millisecond)
			<-a.at(deadline, 5*time.Millisecond)
			if !a.heard(deadline) {
				t.Error("it has gone off early")
			}
		}, time.Second},
		{"it has gone off and was not heard", func(a *alarm) {
			a.at(time.Now().Add(5*time.Millisecond), 5*time.Millisecond)
			<-time.After(10 * time.Millisecond)
		}, time.Second},
		{"it was first set late", func(a *alarm) {
			deadline := time.Now().Add(time.Second)
			<-time.After(500 * time.Millisecond) // as for a connection that takes nothing
			a.at(deadline, time.Second)
		}, 1100 * time.Millisecond},
		{"it was set again late", func(a *alarm) {
			a.at(time.Now().Add(time.Hour), time.Hour)
			deadline := time.Now().Add(time.Second)
			<-time.After(500 * time.Millisecond)
			a.at(deadline, time.Second)
		}, 1100 * time.Millisecond},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var a alarm
				deadline := time.Now().Add(test.timeout)
				left := time.Until(deadline)
				test.earlier(&a)
				alarm := a.at(deadline, left)
				giveUp := time.After(time.Hour)
				for expired := false; !expired; {
					select {
					case <-alarm:
						expired = a.heard(deadline)
					case <-giveUp:
						t.Fatal("it never goes off")
					}
				}
				if late := time.Since(deadline); late > 0 {
					t.Errorf("it goes off %v late", late)
				}
			})
		})
	}
}
