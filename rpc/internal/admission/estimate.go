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

// need is the time that a call has to have left when its wait is over, or else it is not worth the
// wait: as long as almost all of them run, and something for the answer's way and for a wait that is
// longer than expected. When the wait is over, Mean is enough, since it is too late for a refusal to
// be of much use.
func (e *Estimate) need() time.Duration { return e.Mean + 2*e.Deviation + e.Mean/16 }
