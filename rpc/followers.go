package rpc

import (
	"sync"

	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// member is a call that travels in the batch of another one.
type member struct {
	waiter *waiter
	id     wire.ID
}

// followers are the members of a batch behind the first, which keeps them for as long as
// "no responders" may come.
type followers struct {
	subject string // of the replies to the first
	members []member
}

var followerLists = sync.Pool{New: func() any { return new(followers) }}

// Leads implements publish.Owner. It remembers the members of a batch, since "no responders" names
// none of them: it comes to the reply subject of the first.
func (w *waiter) Leads(batch []*publish.Message) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.subject != batch[0].Reply { // its caller has gone, and others may use it
		return false
	}
	if w.followers == nil {
		w.followers = followerLists.Get().(*followers)
	}
	f := w.followers
	f.subject, f.members = w.subject, f.members[:0]
	for _, m := range batch[1:] {
		f.members = append(f.members, member{m.Owner.(*waiter), wire.IDOf(m.Buffer.B)})
	}
	return true
}

// takeFollowersLocked returns the followers of the last batch, if it went under subject, or nil.
// The caller puts them back.
func (w *waiter) takeFollowersLocked(subject string) *followers {
	f := w.followers
	if f == nil || f.subject != subject {
		return nil
	}
	w.followers = nil
	return f
}

// noResponders ends the call of a member, if it still waits.
func (m member) noResponders() {
	m.waiter.mu.Lock()
	defer m.waiter.mu.Unlock()
	if m.waiter.id == m.id {
		m.waiter.noRespondersLocked()
	}
}
