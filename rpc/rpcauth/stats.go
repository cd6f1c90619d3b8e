package rpcauth

import (
	"sync"
	"sync/atomic"
	"time"
)

// Reason says why a call was refused.
type Reason uint8

const (
	// ReasonUnsigned: the method requires a signature, and there is none.
	ReasonUnsigned Reason = iota
	// ReasonMalformed: the headers of the signature are not valid.
	ReasonMalformed
	// ReasonTime: the signature has expired, is from the future, or is valid for too long.
	ReasonTime
	// ReasonAudience: the signature is for another audience.
	ReasonAudience
	// ReasonHeaders: the signature does not cover a header that it has to.
	ReasonHeaders
	// ReasonIssuer: nobody who is trusted vouches for the user.
	ReasonIssuer
	// ReasonUser: the user's JWT has expired or is not valid yet.
	ReasonUser
	// ReasonRevoked: the user has been revoked.
	ReasonRevoked
	// ReasonSignature: the signature is of something else.
	ReasonSignature
	// ReasonReplay: the request has come before.
	ReasonReplay
	// ReasonWindow: too many signatures are to be remembered, or the store for them has failed.
	ReasonWindow
	// ReasonNoIdentity: no rule of the method accepts a caller without identity.
	ReasonNoIdentity
	// ReasonDenied: no rule of the method accepts this caller.
	ReasonDenied
	// ReasonPattern: a pattern of the Verifier matches no method ([Verifier.Server]).
	ReasonPattern

	reasons = iota
)

var reasonNames = [reasons]string{
	"unsigned", "malformed", "time", "audience", "headers", "issuer", "user", "revoked", "signature",
	"replay", "window", "no_identity", "denied", "pattern",
}

// String returns the name for logs and metrics, as in "replay".
func (r Reason) String() string {
	if int(r) < len(reasonNames) {
		return reasonNames[r]
	}
	return "unknown"
}

// Stats says what a [Verifier] has decided since it was made.
type Stats struct {
	// Accepted counts the calls that were let pass, by how their callers are known.
	Accepted map[Kind]uint64
	// Refused counts the calls that were refused. A reason without calls is left out.
	Refused map[Reason]uint64
	// Vulnerable counts the calls from other accounts that came by a NATS server on which their
	// identity could be forged.
	Vulnerable uint64
	// Doubtful counts the calls from other accounts whose header may hide what the NATS server says
	// of the caller, as a client can arrange it, and those that have come through two imports.
	Doubtful uint64
	// Remembered is how many signatures the replay window has now, of at most WithReplayWindow.
	Remembered int
}

// counters are the numbers of Stats.
type counters struct {
	accepted   [KindSigned + 1]atomic.Uint64
	refused    [reasons]atomic.Uint64
	vulnerable atomic.Uint64
	doubtful   atomic.Uint64
}

func (c *counters) stats() Stats {
	s := Stats{Accepted: map[Kind]uint64{}, Refused: map[Reason]uint64{}, Vulnerable: c.vulnerable.Load(), Doubtful: c.doubtful.Load()}
	for k := range c.accepted {
		if n := c.accepted[k].Load(); n > 0 {
			s.Accepted[Kind(k)] = n
		}
	}
	for r := range c.refused {
		if n := c.refused[r].Load(); n > 0 {
			s.Refused[Reason(r)] = n
		}
	}
	return s
}

// logLimit lets one record an interval through.
type logLimit struct {
	mu       sync.Mutex
	next     time.Time // when a record may be logged again
	unlogged int       // records since the last one
}

// take reports whether a record may be logged now, and how many before it were not.
func (l *logLimit) take(now time.Time, every time.Duration) (unlogged int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if now.Before(l.next) && l.next.Sub(now) <= every { // more if the clock was set back
		l.unlogged++
		return 0, false
	}
	unlogged, l.unlogged, l.next = l.unlogged, 0, now.Add(every)
	return unlogged, true
}
