package admission

import "time"

// Estimate is how long calls of a method run: moving averages, as TCP keeps them of round trips
// (RFC 6298). The zero value knows nothing, and expects calls to take no time.
type Estimate struct {
	Mean      time.Duration
	Deviation time.Duration // mean deviation from the mean
}

// weight is the part of a new value in the averages: about the last 16 calls count.
const weight = 8

func (e *Estimate) add(took time.Duration) {
	if e.Mean == 0 {
		e.Mean = took
		return
	}
	off := took - e.Mean
	e.Mean += off / weight
	e.Deviation += (max(off, -off) - e.Deviation) / weight
}

// need is the time that a call should have left when it begins, or else it is not worth the wait.
func (e *Estimate) need() time.Duration { return e.Mean + margin(e) }

// least is the time that a call has to have left when it begins.
func (e *Estimate) least() time.Duration { return e.Mean + margin(e)/2 }

func margin(e *Estimate) time.Duration { return 2*e.Deviation + e.Mean/16 }
