package rpc

import (
	"sync"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// callTable has the calls of a service that are queued or running, by id:
// for cancels, alive queries and the end of the server. Its parts keep calls
// from meeting at one lock.
type callTable struct {
	parts [16]callTablePart
}

// maxCancelled is how many cancels of unknown calls a part remembers: a
// cancel may overtake its request, by microseconds.
const maxCancelled = 64

type callTablePart struct {
	mu        sync.Mutex
	calls     map[wire.ID]*serverCall
	cancelled map[wire.ID]struct{}
	order     [maxCancelled]wire.ID // of cancelled, oldest at next
	next      int
}

func (t *callTable) part(id wire.ID) *callTablePart { return &t.parts[id[0]%16] }

// added is what add found out about a call.
type added uint8

const (
	addedNew       added = iota
	addedDuplicate       // a call with that id is there: the network doubled the request
	addedCancelled       // its caller has gone already
)

func (t *callTable) add(c *serverCall) added {
	p := t.part(c.id)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.cancelled) > 0 {
		if _, ok := p.cancelled[c.id]; ok {
			return addedCancelled
		}
	}
	if _, ok := p.calls[c.id]; ok {
		return addedDuplicate
	}
	if p.calls == nil {
		p.calls = map[wire.ID]*serverCall{}
	}
	p.calls[c.id] = c
	return addedNew
}

func (t *callTable) remove(id wire.ID) {
	p := t.part(id)
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.calls, id)
}

// cancelled returns the call whose caller has gone, or nil.
func (t *callTable) cancelled(id wire.ID) *serverCall {
	p := t.part(id)
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.calls[id]; c != nil {
		return c
	}
	if p.cancelled == nil {
		p.cancelled = map[wire.ID]struct{}{}
	}
	delete(p.cancelled, p.order[p.next])
	p.order[p.next] = id
	p.cancelled[id] = struct{}{}
	p.next = (p.next + 1) % maxCancelled
	return nil
}

func (t *callTable) has(id wire.ID) bool {
	p := t.part(id)
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.calls[id] != nil
}

// all returns the calls that are there now.
func (t *callTable) all() (calls []*serverCall) {
	for i := range t.parts {
		p := &t.parts[i]
		p.mu.Lock()
		for _, c := range p.calls {
			calls = append(calls, c)
		}
		p.mu.Unlock()
	}
	return calls
}
