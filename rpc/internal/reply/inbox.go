// Package reply waits for the replies to a client's unary requests.
package reply

import (
	"context"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// Inbox has the calls of a client that wait for a reply. The client's one subscription delivers to
// it. A pending call has a slot of the table and a reply subject that ends with the slot's number.
// Both are used again and again: the broker caches the subject, and no call allocates or locks what
// another one uses.
//
// What makes it safe to use a reply subject again: a reply carries the id of its call, which is
// compared under the slot's lock; and a slot whose call ended without a reply gets a new subject,
// since a late "no responders" carries no id.
//
// All methods may be called concurrently.
type Inbox struct {
	prefix string // of the reply subjects, with the last dot
	out    *publish.Publisher
	refuse func() error
	slots  atomic.Pointer[[]*Pending]
	free   [FreeLists]freeList

	mu sync.Mutex // for growing slots
}

// FreeLists is how many lists free slots are spread over, so that callers seldom meet at a lock.
const FreeLists = 8

type freeList struct {
	mu    sync.Mutex
	slots []*Pending
	_     [32]byte // keeps neighbours off a cache line
}

// New returns an inbox. Replies come to subjects that begin with prefix, which ends with a dot;
// the caller subscribes, and calls Deliver and DeliverBatch. refuse returns why no request may be
// made, or nil; Do calls it when End would find the call.
func New(prefix string, out *publish.Publisher, refuse func() error) *Inbox {
	b := &Inbox{prefix: prefix, out: out, refuse: refuse}
	b.slots.Store(new([]*Pending))
	return b
}

// Do makes a request and waits for its reply, until ctx ends or, with r.Timer, until r.Deadline. It
// takes a slot for the call, starts the wait, and in the end stops it and releases the slot.
// The buffer of the request belongs to Do, which has it put back.
//
// The error is ErrContext, ErrDeadline, nats.ErrNoResponders, an *UnsentError, an *InvalidError,
// the result of refuse, or what Each's function has returned. It is in a *publish.UnpublishedError
// if the request never got to the connection. foreign counts what came and was no reply.
func (b *Inbox) Do(ctx context.Context, r *Request) (reply Reply, foreign Foreign, err error) {
	p := b.take(r.ID)
	m := publish.Message{Subject: r.Subject, Reply: p.start(r), Header: r.Header, Buffer: r.Buffer, Owner: p}
	if err := b.refuse(); err != nil {
		m.Buffer.PutBack()
		b.out.Omit()
		p.stop()
		p.release()
		return Reply{}, Foreign{}, err
	}
	if b.out.MaxBatch > 0 && !r.Plain {
		m.Batch, m.Tag = publish.BatchMay, uint64(p.slot)
	}
	b.out.Publish(m)
	reply, err = p.wait(ctx, r)
	foreign = p.foreign // nobody changes it any more
	p.release()
	return reply, foreign, err
}

// take returns a free slot.
func (b *Inbox) take(id wire.ID) *Pending {
	list := &b.free[id[0]%FreeLists] // of a random id
	list.mu.Lock()
	if n := len(list.slots); n > 0 {
		p := list.slots[n-1]
		list.slots = list.slots[:n-1]
		list.mu.Unlock()
		return p
	}
	list.mu.Unlock()
	return b.grow(list)
}

func (b *Inbox) grow(list *freeList) *Pending {
	b.mu.Lock()
	defer b.mu.Unlock()
	slots := *b.slots.Load()
	p := &Pending{ended: make(chan struct{}, 1), inbox: b, list: list, slot: len(slots)}
	p.renewLocked()
	grown := append(slots, p) // readers of the shorter slice never look at the new element
	b.slots.Store(&grown)
	return p
}

// Deliver takes a message that came to a reply subject.
func (b *Inbox) Deliver(m *nats.Msg) {
	p, generation := b.find(m.Subject)
	switch {
	case p == nil:
	case IsNoResponders(m):
		p.unanswered(m.Subject, generation)
	default:
		p.deliver(m, generation)
	}
}

// DeliverBatch takes replies that share a NATS message. Each names its slot by the tag.
func (b *Inbox) DeliverBatch(m *nats.Msg) {
	batch, _ := wire.ParseBatch(m.Data) // of one that is cut off, what is whole
	slots := *b.slots.Load()
	for tag, item := range batch.Items() {
		if tag < uint64(len(slots)) {
			slots[tag].deliverItem(m, item)
		}
	}
}

// find returns the slot that a reply subject names.
func (b *Inbox) find(subject string) (p *Pending, generation uint64) {
	token, ok := strings.CutPrefix(subject, b.prefix)
	if !ok {
		return nil, 0
	}
	slotText, generationText, _ := strings.Cut(token, "-")
	slot, err := strconv.Atoi(slotText)
	if err != nil || slot < 0 {
		return nil, 0
	}
	generation, err = strconv.ParseUint(generationText, 36, 64)
	slots := *b.slots.Load()
	if err != nil || slot >= len(slots) {
		return nil, 0
	}
	return slots[slot], generation
}

// Each runs f for every call that waits. It holds the call's lock meanwhile, and ends the call with
// the error that f returns.
func (b *Inbox) Each(f func(*Pending) error) {
	for _, p := range *b.slots.Load() {
		p.each(f)
	}
}

// End ends all calls that wait with err.
func (b *Inbox) End(err error) { b.Each(func(*Pending) error { return err }) }

// Slots returns how many slots there are, and how many of them are free. It is for tests.
func (b *Inbox) Slots() (all, free int) {
	for i := range b.free {
		list := &b.free[i]
		list.mu.Lock()
		free += len(list.slots)
		list.mu.Unlock()
	}
	return len(*b.slots.Load()), free
}

// IsNoResponders reports whether m is NATS's word that nobody has subscribed to the request's
// subject.
func IsNoResponders(m *nats.Msg) bool {
	return wire.IsNoResponders(m.Header, m.Data)
}
