package rpc

import (
	"hash/maphash"
	"sync"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// callTable has the calls of a service that are queued or running, by id:
// for cancels, alive queries, statistics and the end of the server. Its parts keep calls
// from meeting at one lock. The calls themselves are the links of its
// chains: adding one allocates nothing.
type callTable struct {
	parts [16]callTablePart
	seed  maphash.Seed // that no caller knows, so that none can fill one chain
}

// maxCancelled is how many cancels of unknown calls a part remembers: a
// cancel may overtake its request, by microseconds.
const maxCancelled = 64

type callTablePart struct {
	mu        sync.Mutex
	chains    []*serverCall // as many as a power of two, at least one for two calls
	calls     int
	cancelled map[wire.ID]struct{}
	order     []wire.ID // of cancelled, oldest at next
	next      int
}

// part returns where a call belongs, and its hash.
func (t *callTable) part(id wire.ID) (*callTablePart, uint64) {
	hash := maphash.Comparable(t.seed, id)
	return t.partOf(hash), hash
}

func (t *callTable) partOf(hash uint64) *callTablePart { return &t.parts[hash>>60] }

// find returns the link that points to the call, or to where it would be added.
func (p *callTablePart) find(id wire.ID, hash uint64) **serverCall {
	link := &p.chains[hash&uint64(len(p.chains)-1)]
	for *link != nil && (*link).id != id {
		link = &(*link).chained
	}
	return link
}

// get returns the call, or nil.
func (p *callTablePart) get(id wire.ID, hash uint64) *serverCall {
	if p.calls == 0 {
		return nil
	}
	return *p.find(id, hash)
}

// grow makes twice as many chains.
func (p *callTablePart) grow() {
	old := p.chains
	p.chains = make([]*serverCall, max(8, 2*len(old)))
	for _, c := range old {
		for c != nil {
			next := c.chained
			c.chained = nil
			*p.find(c.id, c.hash) = c
			c = next
		}
	}
}

// added is what add found out about a call.
type added uint8

const (
	addedNew       added = iota
	addedDuplicate       // a call with that id is there: the network doubled the request
	addedCancelled       // its caller has gone already
)

func (t *callTable) add(c *serverCall) added {
	p, hash := t.part(c.id)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.cancelled) > 0 {
		if _, ok := p.cancelled[c.id]; ok {
			return addedCancelled
		}
	}
	if p.calls >= 2*len(p.chains) {
		p.grow()
	}
	link := p.find(c.id, hash)
	if *link != nil {
		return addedDuplicate
	}
	*link, c.hash = c, hash
	p.calls++
	return addedNew
}

// remove takes out a call that has been added.
func (t *callTable) remove(c *serverCall) {
	p := t.partOf(c.hash)
	p.mu.Lock()
	defer p.mu.Unlock()
	*p.find(c.id, c.hash), c.chained = c.chained, nil
	p.calls--
}

// context returns that of a call, or nil.
func (t *callTable) context(id wire.ID) *callContext {
	p, hash := t.part(id)
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.get(id, hash); c != nil {
		return c.ctx
	}
	return nil
}

// cancelled returns the context of the call whose caller has gone, or nil.
func (t *callTable) cancelled(id wire.ID) *callContext {
	p, hash := t.part(id)
	p.mu.Lock()
	defer p.mu.Unlock()
	if c := p.get(id, hash); c != nil {
		return c.ctx
	}
	if p.cancelled == nil {
		p.cancelled = map[wire.ID]struct{}{}
		p.order = make([]wire.ID, maxCancelled) // 1 KiB that most services do without
	}
	delete(p.cancelled, p.order[p.next])
	p.order[p.next] = id
	p.cancelled[id] = struct{}{}
	p.next = (p.next + 1) % maxCancelled
	return nil
}

// each runs f for each call that is there now, which it holds meanwhile, outside of the locks.
func (t *callTable) each(f func(*serverCall)) {
	var calls []*serverCall
	for i := range t.parts {
		p := &t.parts[i]
		p.mu.Lock()
		for _, c := range p.chains {
			for ; c != nil; c = c.chained {
				c.held.Add(1) // who runs it holds it too, as it is in the table
				calls = append(calls, c)
			}
		}
		p.mu.Unlock()
	}
	for _, c := range calls {
		f(c)
		c.release()
	}
}
