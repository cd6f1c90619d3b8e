// Package retry bounds how often calls are sent again, and knows when one is late. It does not know
// what calls are.
package retry

import "sync/atomic"

// Budget bounds the attempts of calls beyond their first ones. It holds tokens: an attempt takes
// one, and each answer adds a part of one. So a service that answers nothing is hit by no more
// attempts than the budget held, and one that answers by a share of the answers. All methods may be
// called concurrently.
type Budget struct {
	limit, share int64 // in units
	units        atomic.Int64
}

// unit is how many of what a Budget counts make a token.
const unit = 1 << 16

// NewBudget returns a budget that begins with burst tokens, which is also the most that it holds.
// Each answer adds share of a token, which is between 0 and 1.
func NewBudget(burst int, share float64) *Budget {
	b := &Budget{limit: int64(burst) * unit, share: int64(share * unit)}
	b.units.Store(b.limit)
	return b
}

// Take takes a token. It reports whether there was one.
func (b *Budget) Take() bool {
	for {
		have := b.units.Load()
		if have < unit {
			return false
		}
		if b.units.CompareAndSwap(have, have-unit) {
			return true
		}
	}
}

// Answered adds the share of an answer. Where nothing is missing, it only reads.
func (b *Budget) Answered() {
	for {
		have := b.units.Load()
		if have == b.limit || b.share == 0 {
			return
		}
		if b.units.CompareAndSwap(have, min(have+b.share, b.limit)) {
			return
		}
	}
}
