package publish

import "sync/atomic"

// callers counts, in one word, the calls of a client whose callers have their answer and are about
// to run, and those that have ended since the client was made. Each call ends once: by endAnswered
// after an answer, or by endUnanswered.
type callers struct{ counts atomic.Uint64 }

const (
	oneAnswered = 1
	oneEnded    = 1 << 32
)

// expected is how many callers are about to run.
func (c *callers) expected() uint32 { return uint32(c.counts.Load()) }

// ended is how many calls have ended, modulo 2^32.
func (c *callers) ended() uint32 { return uint32(c.counts.Load() >> 32) }

// answer notes that a caller has its answer.
func (c *callers) answer() { c.counts.Add(oneAnswered) }

// endAnswered notes that a caller runs with its answer. It returns how many are still expected.
func (c *callers) endAnswered() (left uint32) {
	return uint32(c.counts.Add(oneEnded - oneAnswered))
}

// endUnanswered notes that a caller has given up.
func (c *callers) endUnanswered() { c.counts.Add(oneEnded) }
