// Package liveness decides when a peer is dead: for a client the instance that works on a call or
// has accepted a stream, for a server the client that waits for a call or has opened a stream.
// docs/protocol.md, "Liveness", has the rule.
//
// It counts ticks of its owner's clock, not time. A process that was stopped, or a machine that is
// too busy, makes no ticks, so that it does not take its own sleep for another one's silence.
package liveness

import "time"

// Tick is the time between two looks of a client at what it waits for.
const Tick = 200 * time.Millisecond

// When to ask, in ticks. An instance that is killed just after an answer is dead to its clients
// after 2.8 s, which is one interval and one limit. An instance whose connection is cut is back
// after 2.1 s, if nats.go has waited once between two attempts (nats.ReconnectWait and its jitter).
// Its calls go on then, so the last query that counts for them comes 2.2 s after the first that is
// not answered. Streams end with their connection and need not wait that long.
const (
	// firstAt is the age at the first query.
	firstAt = 2
	// askEvery is the interval of queries about calls, streamsEvery that of queries to an instance
	// with streams only.
	askEvery, streamsEvery = 2, 5
	// knownEvery is the interval of queries about a call whose instance has said that it works on
	// it, and is asked whether it is there itself: the answer to the call may be lost.
	knownEvery = 25
	// doubtEvery is the interval of queries in a row that are not answered.
	doubtEvery = 2
	// callLimit is how long after the first query that is not answered a call is dead, streamLimit
	// a stream.
	callLimit, streamLimit = 12, 9
	// maxOffline is how many ticks a call waits for a client's own connection: 3.8 s.
	maxOffline = 19
	// maxRechecks is how many queries may find nobody after a reconnect.
	maxRechecks = 3
	// settled is the age from which NATS would have refused the request already: half a second.
	settled = 3
)

// Patience is how long a call, or a peer, has been waited for, and since when queries about it are
// not answered. The zero value is that of a call that begins.
type Patience struct {
	age     int // in ticks
	next    int // age at the next query; 0 before the first
	silent  int // ticks since the first of the queries in a row without an answer, and one more
	offline int // ticks in a row without a connection
	// rechecks is how many queries, the latest one included, nobody has answered since the
	// connection was re-established while the call waited: its answer may be lost. 0 means that
	// there is no such doubt.
	rechecks int
}

// A Rule counts for one call. It says whether to ask about the call, and whether it is lost.
type Rule func(p *Patience) (ask, dead bool)

// Tick is the Rule of a call for each tick of a clock.
func (p *Patience) Tick() (ask, dead bool) {
	return p.tick(askEvery), p.waited() >= callLimit
}

func (p *Patience) tick(every int) (ask bool) {
	p.age++
	p.offline = 0
	if p.silent > 0 {
		p.silent++
		waited := p.waited()
		return waited%doubtEvery == 0 && waited < callLimit || waited == callLimit-1
	}
	if p.age < max(p.next, firstAt) {
		return false
	}
	p.asked(every)
	return true
}

// waited returns how many ticks ago the first query was that nobody has answered.
func (p *Patience) waited() int { return max(0, p.silent-1) }

// asked notes that a query is on its way. Another one follows after so many ticks.
func (p *Patience) asked(every int) {
	p.next = p.age + every
	p.silent = max(p.silent, 1)
}

// soon makes the next query follow after at most so many ticks.
func (p *Patience) soon(every int) { p.next = min(p.next, p.age+every) }

// Offline is the Rule for each tick while the client has no connection.
func (p *Patience) Offline() (ask, dead bool) {
	p.age++
	p.offline++
	return false, p.offline > maxOffline
}

// Reconnected is the Rule when the connection has been re-established.
func (p *Patience) Reconnected() (ask, dead bool) {
	p.silent, p.offline, p.rechecks = 0, 0, 1
	return true, false
}

// Recheck is the Rule after that, more often than Tick.
func (p *Patience) Recheck() (ask, dead bool) {
	switch p.rechecks {
	case 0:
		return false, false
	case maxRechecks:
		return false, true
	}
	p.rechecks++
	return true, false
}

// Skip is for a look at a call that may not be asked about. It only makes the call older.
func (p *Patience) Skip() { p.age, p.silent = p.age+1, 0 }

// Found notes that somebody works on the call. known says that it is known who.
func (p *Patience) Found(known bool) {
	p.silent, p.rechecks = 0, 0
	if known {
		p.next = p.age + knownEvery
	}
}

// Asked reports whether an answer may be about the call.
func (p *Patience) Asked() bool { return p.next > 0 || p.rechecks > 0 }

// AskedBefore reports whether an earlier query about the call was not answered.
func (p *Patience) AskedBefore() bool { return p.silent > 1 || p.rechecks > 1 }

// Old reports whether the call has waited for so long that NATS has taken its request.
func (p *Patience) Old() bool { return p.age >= settled }
