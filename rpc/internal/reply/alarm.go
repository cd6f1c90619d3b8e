package reply

import "time"

// alarm is a timer for one call after another. Most calls have an answer long before their
// deadline, so a call that ends leaves the timer running, and the next one sets it only where
// it would go off too late. It may go off too early: a call that it wakes calls heard.
type alarm struct {
	timer *time.Timer
	due   time.Time // not before it goes off, or went off unheard; zero where it has been heard
}

// at returns a channel that delivers at the deadline or before it. The caller saw so much time left
// until the deadline when it last looked at the clock.
func (a *alarm) at(deadline time.Time, left time.Duration) <-chan time.Time {
	switch then := deadline.Add(-left); {
	case a.timer == nil:
		a.timer, a.due = time.NewTimer(time.Until(deadline)), deadline
	case a.due.After(deadline), !a.due.After(then):
		a.reset(deadline, time.Until(deadline))
	}
	return a.timer.C
}

// heard reports whether the deadline of the call that the alarm has woken has come. If not, the
// alarm is set again.
func (a *alarm) heard(deadline time.Time) (expired bool) {
	left := time.Until(deadline)
	if left <= 0 {
		a.due = time.Time{} // later calls have to set it, even one that looked at the clock before
		return true
	}
	a.reset(deadline, left)
	return false
}

func (a *alarm) reset(deadline time.Time, left time.Duration) {
	a.timer.Reset(left)
	a.due = deadline
}
