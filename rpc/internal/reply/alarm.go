package reply

import "time"

// alarm is a timer for one call after another. Most calls have an answer long before their
// deadline, so a call that ends leaves the timer running, and the next one sets it only where
// it would go off too late. It may go off too early: whoever it wakes looks at the deadline and
// sets it again.
type alarm struct {
	timer *time.Timer
	due   time.Time // when it goes off, or has gone off
}

// at returns a channel that delivers at the deadline, which is so far away, or before it.
func (a *alarm) at(deadline time.Time, left time.Duration) <-chan time.Time {
	switch now := deadline.Add(-left); {
	case a.timer == nil:
		a.timer, a.due = time.NewTimer(left), deadline
	case a.due.After(deadline), !a.due.After(now):
		a.reset(deadline, left)
	}
	return a.timer.C
}

func (a *alarm) reset(deadline time.Time, left time.Duration) {
	a.timer.Reset(left)
	a.due = deadline
}
