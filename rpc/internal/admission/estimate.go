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

// need is the time that a call is to have left when its wait is over, or else it is refused when it
// comes: as long as almost all calls run, and something for the answer's way and for a wait that is
// longer than expected.
func (e *Estimate) need() time.Duration { return e.least() + e.Deviation + e.Mean/16 }

// least is the time that a call has to have left when its wait is over. It is less than need, as a
// refusal is of little use by then.
func (e *Estimate) least() time.Duration { return e.Mean + e.Deviation }
