package publish

import (
	"math"
	"time"

	"github.com/natscall/natscall/rpc/internal/wire"
)

const (
	// maxQueued is how many messages are published at the latest: as many as share a batch.
	maxQueued = wire.MaxItems
	// minQueued is how many messages are worth publishing while more callers are about to come. It
	// is also after how many the clock is looked at, which has a price.
	minQueued = 16
	// maxWait bounds how long messages wait: on an overloaded machine somebody is always about to
	// come.
	maxWait = 500 * time.Microsecond
)

// manyCalls in flight have no third that is worth publishing.
const manyCalls = math.MaxInt32

// load is what decides when messages go.
type load struct {
	queued   int           // messages
	inFlight int           // calls of a client that had not ended when the first message came
	expected int           // callers that are about to run, and may call
	waited   time.Duration // of the first message in the queue; 0 where the clock was not looked at
}

// due reports whether a client's queue is published now. On a server the pool decides, and only the
// bounds count here.
//
// The queue waits for callers that are about to come, since one write to the socket for many
// messages is the largest saving there is, but not for all of them: a third of the calls in flight,
// if that is 16 or more, goes at once, so that one third is on its way and one is served while the
// next is made.
//
// What the parts buy, in calls a second relative to raw NATS, at 16, 64 and 256 callers, batched at
// 256 (interleaved rounds on two cores; docs/design.md says how): waiting for expected callers
// instead of yielding a few times, 0, 0 to 11, 0 and 6 to 10 %; the third, 0, 9, 7 and 21 %. The
// bounds buy no speed: they are for overload.
func (l load) due() bool {
	switch {
	case l.queued == 0:
		return false
	case l.queued >= maxQueued, l.waited > maxWait, l.expected == 0:
		return true
	}
	return l.queued >= minQueued && 3*l.queued >= l.inFlight
}

// yields reports whether the goroutine that publishes lets others run first: none is known to come,
// but others call too.
func (l load) yields() bool { return l.expected == 0 && l.inFlight > 1 }
