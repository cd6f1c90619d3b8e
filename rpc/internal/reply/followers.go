package reply

import (
	"sync"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// followers are the calls behind the first one of a batch, which keeps them for as long as "no
// responders" may come: that names none of them, and comes to the reply subject of the first.
type followers struct {
	subject string // of the replies to the first
	members []member
}

// member is a call that travels in the batch of another one.
type member struct {
	pending *Pending
	id      wire.ID
}

var followerLists = sync.Pool{New: func() any { return new(followers) }}

// noResponders ends the call of a member, if it still waits.
func (m member) noResponders() {
	m.pending.mu.Lock()
	defer m.pending.mu.Unlock()
	if m.pending.id == m.id {
		m.pending.noRespondersLocked()
	}
}
