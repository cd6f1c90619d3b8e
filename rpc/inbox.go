package rpc

import (
	"bytes"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// inbox is a client's one subscription for all replies and the table of the
// calls that wait for one. A waiter has a slot of the table and a reply
// subject which ends with the slot's number, and both are used again and
// again: the broker caches the subject, and no call allocates or locks what
// another one uses.
//
// What makes using a reply subject again safe: a reply carries the id of its
// call, which is compared under the waiter's lock; and a waiter whose call ended without
// a reply gets a new subject, since a late "no responders" carries no id.
type inbox struct {
	prefix string // of the reply subjects, with the last dot
	out    *publisher
	slots  atomic.Pointer[[]*waiter]
	free   [freeLists]freeList

	mu sync.Mutex // for growing slots
}

// freeLists spreads the callers, so that they seldom meet at a lock.
const freeLists = 8

type freeList struct {
	mu      sync.Mutex
	waiters []*waiter
	_       [32]byte // keeps neighbours off a cache line
}

func newInbox(prefix string, out *publisher) *inbox {
	b := &inbox{prefix: prefix, out: out}
	b.slots.Store(new([]*waiter))
	return b
}

// waiter waits for the reply of one call after another.
type waiter struct {
	ended  chan struct{} // of one; filled at most once a call
	timer  *time.Timer
	out    *publisher
	list   *freeList
	prefix string
	slot   int

	mu         sync.Mutex
	waiting    bool
	reply      reply // not under mu but the caller's from when ended says that it is there
	plain      bool  // replies have no envelope
	id         wire.ID
	subject    string // of the reply
	generation uint64 // changes with subject
	to         string // subject of the request
	root       string // where to ask whether the call is alive
	strangers  int    // replies that were not natscall's
	patience

	followers *followers // of the last batch that this waiter has led
}

// reply is what a call waits for: a message or a failure.
type reply struct {
	msg  *nats.Msg
	data []byte // of msg, or of the call's part of a batch
	err  *Error
}

// take returns a waiter that waits for the reply to a call.
func (b *inbox) take(id wire.ID) *waiter {
	list := &b.free[id[0]%freeLists] // of a random id
	list.mu.Lock()
	if n := len(list.waiters); n > 0 {
		w := list.waiters[n-1]
		list.waiters = list.waiters[:n-1]
		list.mu.Unlock()
		return w
	}
	list.mu.Unlock()
	return b.grow(list)
}

func (b *inbox) grow(list *freeList) *waiter {
	b.mu.Lock()
	defer b.mu.Unlock()
	slots := *b.slots.Load()
	w := &waiter{ended: make(chan struct{}, 1), out: b.out, list: list, prefix: b.prefix, slot: len(slots)}
	w.renewLocked()
	grown := append(slots, w) // readers of the shorter slice never look at the new element
	b.slots.Store(&grown)
	return w
}

// renewLocked gives the waiter a reply subject that nobody has used.
func (w *waiter) renewLocked() {
	w.generation++
	w.subject = w.prefix + strconv.Itoa(w.slot) + "-" + strconv.FormatUint(w.generation, 36)
}

// start makes w wait for the reply to a call; the result is the reply subject.
func (w *waiter) start(id wire.ID, to, root string, plain bool) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if plain { // its replies carry no id: a late one to the call before must not meet it
		w.renewLocked()
	}
	if f := w.takeFollowersLocked(w.subject); f != nil { // of a batch that was answered: "no responders" is about this call
		followerLists.Put(f)
	}
	w.waiting, w.plain, w.id = true, plain, id
	w.to, w.root = to, root
	w.age, w.misses, w.strangers = 0, 0, 0
	return w.subject
}

// stop ends the waiting. It returns a reply that has come nevertheless.
func (w *waiter) stop() (r reply, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting {
		w.waiting = false
		w.renewLocked()
		w.out.callers.endUnanswered()
		return reply{}, false
	}
	<-w.ended
	return w.taken(), true
}

// taken returns the reply to the caller, which has been told that it is there.
func (w *waiter) taken() (r reply) {
	w.out.returns()
	r, w.reply = w.reply, reply{}
	return r
}

// release makes w, which has stopped waiting, available to other calls.
func (w *waiter) release() {
	w.list.mu.Lock()
	w.list.waiters = append(w.list.waiters, w)
	w.list.mu.Unlock()
}

// deliver is the subscription's callback.
func (b *inbox) deliver(m *nats.Msg) {
	w, generation := b.find(m.Subject)
	if w == nil {
		return
	}
	if isNoResponders(m) {
		w.unanswered(m.Subject, generation)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.waiting || w.generation != generation {
		return // late, or not ours
	}
	if w.plain && isPubAck(m) || !w.plain && !answers(m.Data, w.id) {
		w.strangers++ // such as the acknowledgement of a stream that listens: the answer may still come
		return
	}
	w.endLocked(reply{msg: m, data: m.Data})
}

// endLocked ends the waiting of a call that waits.
func (w *waiter) endLocked(r reply) {
	w.waiting = false
	w.out.callers.answer()
	w.reply = r
	w.ended <- struct{}{}
}

// unanswered ends the calls to whose request "no responders" has come.
func (w *waiter) unanswered(subject string, generation uint64) {
	w.mu.Lock()
	followers := w.takeFollowersLocked(subject)
	if w.generation == generation {
		w.noRespondersLocked()
	}
	w.mu.Unlock()
	if followers != nil {
		for _, m := range followers.members {
			m.noResponders()
		}
		followerLists.Put(followers)
	}
}

func (w *waiter) noRespondersLocked() {
	if w.waiting {
		w.endLocked(reply{err: failf(CodeUnavailable, NotRun, "no service answers on %q", w.to).because(nats.ErrNoResponders)})
	}
}

// answers tells whether data is the response to the call id, or announces a large one.
func answers(data []byte, id wire.ID) bool {
	if wire.IsFrame(data) {
		f, err := wire.ParseFrame(data)
		got, _, acceptErr := wire.ParseAccept(&f)
		return err == nil && acceptErr == nil && f.Kind == wire.KindAccept && got == id
	}
	env, err := wire.Parse(data)
	return err == nil && env.Kind == wire.KindResponse && env.ID == id
}

// find returns the waiter that a reply subject names.
func (b *inbox) find(subject string) (w *waiter, generation uint64) {
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

// isPubAck tells whether a reply is a JetStream stream's acknowledgement of
// the request, which comes before the answer where a stream captures the subject.
func isPubAck(m *nats.Msg) bool {
	return len(m.Header) == 0 && bytes.HasPrefix(m.Data, []byte(`{"stream":"`)) && bytes.Contains(m.Data, []byte(`"seq":`))
}

func isNoResponders(m *nats.Msg) bool {
	return len(m.Data) == 0 && m.Header.Get("Status") == "503"
}
