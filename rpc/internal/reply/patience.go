package reply

const (
	// askEvery is the number of ticks between two alive queries about a call.
	askEvery = 2
	// maxMisses is how many queries in a row may find nobody: one may be lost while a connection is
	// re-established, two while a machine is overloaded.
	maxMisses = 3
)

// Patience is how long a call has waited, and for how many alive queries in a row nobody has
// answered. docs/protocol.md, "Alive query and answer", has the rule.
type Patience struct {
	age    int // in ticks
	misses int // queries in a row without an answer, the latest one included
	// rechecks is how many queries, the latest one included, nobody has answered since the
	// connection was re-established while the call waited: its answer may be lost. 0 means that
	// there is no such doubt.
	rechecks int
}

// A Rule counts for one call. It says whether to ask about the call, and whether it is lost.
type Rule func(p *Patience) (ask, dead bool)

// Tick is the Rule for each tick of a clock.
func (p *Patience) Tick() (ask, dead bool) {
	if p.age++; p.age%askEvery != 0 {
		return false, false
	}
	if p.misses == maxMisses {
		return false, true
	}
	p.misses++
	return true, false
}

// Reconnected is the Rule when the connection has been re-established.
func (p *Patience) Reconnected() (ask, dead bool) {
	p.rechecks = 1
	return true, false
}

// Recheck is the Rule after that, more often than Tick.
func (p *Patience) Recheck() (ask, dead bool) {
	switch p.rechecks {
	case 0:
		return false, false
	case maxMisses:
		return false, true
	}
	p.rechecks++
	return true, false
}

// Skip is for a look at a call that may not be asked about. It only makes the call older.
func (p *Patience) Skip() { p.age, p.misses = p.age+1, 0 }

// Found notes that somebody works on the call.
func (p *Patience) Found() { p.misses, p.rechecks = 0, 0 }

// Asked reports whether an answer may be about the call.
func (p *Patience) Asked() bool { return p.age >= askEvery || p.rechecks > 0 }

// AskedBefore reports whether an earlier query about the call was not answered.
func (p *Patience) AskedBefore() bool { return p.misses > 1 || p.rechecks > 1 }

// Old reports whether the call has waited for a tick.
func (p *Patience) Old() bool { return p.age > 0 }
