// Package calls finds the calls of a service by their ids.
package calls

import (
	"sync"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// Table has the calls of a service that are queued or running: for cancels, alive queries,
// statistics and the end of the server. It also remembers cancels that overtook their requests,
// which happens by microseconds. The zero value is an empty table. All methods may be called
// concurrently; the shards keep calls from meeting at one lock.
type Table[C any] struct{ shards [shardCount]shard[C] }

const (
	shardCount = 64
	// maxCanceled is how many cancels of unknown calls a shard remembers. Every instance gets the
	// cancels of all, so calls that end together must not push out the few whose requests are still
	// to come. An instance that stood still has the cancels of all that was sent meanwhile at once.
	maxCanceled = 256
)

type shard[C any] struct {
	mu       sync.Mutex
	calls    map[wire.ID]C
	canceled map[wire.ID]struct{} // of unknown calls
	order    []wire.ID            // of canceled, the oldest at next
	next     int
}

func (t *Table[C]) shard(id wire.ID) *shard[C] { return &t.shards[id[0]%shardCount] }

// Added is what Add found.
type Added uint8

const (
	New       Added = iota
	Duplicate       // a call with that id is there: the network doubled the request
	Canceled        // its caller has gone already
)

// Add enters a call. It does so only if the result is New.
func (t *Table[C]) Add(id wire.ID, call C) Added {
	s := t.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.canceled) > 0 {
		if _, ok := s.canceled[id]; ok {
			return Canceled
		}
	}
	if _, ok := s.calls[id]; ok {
		return Duplicate
	}
	if s.calls == nil {
		s.calls = map[wire.ID]C{}
	}
	s.calls[id] = call
	return New
}

// Remove takes out a call that was added.
func (t *Table[C]) Remove(id wire.ID) {
	s := t.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, id)
}

// Get returns the call with an id, if it is there.
func (t *Table[C]) Get(id wire.ID) (call C, ok bool) {
	s := t.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	call, ok = s.calls[id]
	return call, ok
}

// Cancel returns the call whose caller has gone. If it is not there, its request is refused should
// it still come: Add returns Canceled then.
func (t *Table[C]) Cancel(id wire.ID) (call C, ok bool) {
	s := t.shard(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if call, ok = s.calls[id]; !ok {
		s.rememberLocked(id)
	}
	return call, ok
}

func (s *shard[C]) rememberLocked(id wire.ID) {
	if _, ok := s.canceled[id]; ok {
		return
	}
	if s.canceled == nil {
		s.canceled = map[wire.ID]struct{}{} // which most services never need
	}
	s.canceled[id] = struct{}{}
	if len(s.order) < maxCanceled {
		s.order = append(s.order, id)
		return
	}
	delete(s.canceled, s.order[s.next])
	s.order[s.next] = id
	s.next = (s.next + 1) % maxCanceled
}

// All returns the calls that are there now.
func (t *Table[C]) All() []C {
	var all []C
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for _, call := range s.calls {
			all = append(all, call)
		}
		s.mu.Unlock()
	}
	return all
}
