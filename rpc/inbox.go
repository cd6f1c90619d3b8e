package rpc

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/natscall/natscall/rpc/internal/publish"
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
	nc     *nats.Conn
	out    *publish.Publisher
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

func newInbox(prefix string, nc *nats.Conn, out *publish.Publisher) *inbox {
	b := &inbox{prefix: prefix, nc: nc, out: out}
	b.slots.Store(new([]*waiter))
	return b
}

// waiter waits for the reply of one call after another.
type waiter struct {
	ended chan struct{} // of one; filled at most once a call
	alarm alarm         // of the caller
	inbox *inbox
	list  *freeList
	slot  int

	mu         sync.Mutex
	waiting    bool
	reply      reply   // not under mu but the caller's from when ended says that it is there
	plain      bool    // replies have no envelope
	json       *method // of a plain call in JSON, whose response may have the form of an acknowledgement
	id         wire.ID
	subject    string // of the reply
	generation uint64 // changes with subject
	to         string // subject of the request
	root       string // where to ask whether the call is alive
	foreign    foreignReplies
	patience

	followers *followers // of the last batch that this waiter has led
}

// foreignReplies counts what came to a call and was not its reply.
type foreignReplies struct {
	acks   int // of JetStream streams
	others int // without natscall's mark
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
	w := &waiter{ended: make(chan struct{}, 1), inbox: b, list: list, slot: len(slots)}
	w.renewLocked()
	grown := append(slots, w) // readers of the shorter slice never look at the new element
	b.slots.Store(&grown)
	return w
}

// renewLocked gives the waiter a reply subject that nobody has used.
func (w *waiter) renewLocked() {
	w.generation++
	w.subject = w.inbox.prefix + strconv.Itoa(w.slot) + "-" + strconv.FormatUint(w.generation, 36)
}

// start makes w wait for the reply to a call; the result is the reply subject.
func (w *waiter) start(id wire.ID, s *subjects, call *Call) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.plain, w.json = call.options.plain, nil
	if w.plain && call.options.codec == CodecJSON {
		w.json = call.method
	}
	if w.plain { // its replies carry no id: a late one to the call before must not meet it
		w.renewLocked()
	}
	if f := w.takeFollowersLocked(w.subject); f != nil { // of a batch that was answered: "no responders" is about this call
		followerLists.Put(f)
	}
	w.waiting, w.id = true, id
	w.to, w.root = s.request, s.root
	w.patience, w.foreign = patience{}, foreignReplies{}
	return w.subject
}

// stop ends the waiting. It returns a reply that has come nevertheless.
func (w *waiter) stop() (r reply, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting {
		w.waiting = false
		w.renewLocked()
		w.inbox.out.GiveUp()
		return reply{}, false
	}
	<-w.ended
	return w.taken(), true
}

// taken returns the reply to the caller, which has been told that it is there.
func (w *waiter) taken() (r reply) {
	w.inbox.out.Return()
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
	ack := isPubAck(m)
	switch {
	case w.plain && (!ack || w.json != nil && w.json.mayAnswer(m)):
		w.endLocked(reply{msg: m, data: m.Data})
	case !w.plain && wire.IsEnvelope(m.Data):
		w.takeLocked(m, m.Data)
	case ack: // the answer may still come
		w.foreign.acks++
	default:
		w.foreign.others++
	}
}

// deliverBatch takes answers that share a NATS message. Each names its waiter by the tag.
func (b *inbox) deliverBatch(m *nats.Msg) {
	batch, _ := wire.ParseBatch(m.Data) // of one that is cut off, what is whole
	slots := *b.slots.Load()
	for tag, item := range batch.Items() {
		if tag < uint64(len(slots)) {
			slots[tag].deliverItem(m, item)
		}
	}
}

func (w *waiter) deliverItem(m *nats.Msg, item []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.waiting && !w.plain {
		w.takeLocked(m, item)
	}
}

// takeLocked ends the call with a message of natscall's if it is the call's. One that
// is, and is wrong, ends it too: nothing better will come.
func (w *waiter) takeLocked(m *nats.Msg, data []byte) {
	mine, err := answers(data, w.id)
	switch {
	case !mine: // a late answer to a call before, or another instance's
	case err != nil:
		w.endLocked(reply{err: wrongAnswer(err)})
	default:
		w.endLocked(reply{msg: m, data: data})
	}
}

// wrongAnswer is the error of a call whose answer cannot be read.
func wrongAnswer(err error) *Error {
	return failf(CodeInternal, MayHaveRun, "the server's answer is not valid: %v", err).because(err)
}

// endLocked ends the waiting of a call that waits.
func (w *waiter) endLocked(r reply) {
	w.waiting = false
	w.inbox.out.Answer()
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
		w.endLocked(reply{err: noService(w.inbox.nc, w.to)})
	}
}

// answers reports whether data is the response to the call id, or announces a large
// one; err says what is wrong with it.
func answers(data []byte, id wire.ID) (mine bool, err error) {
	if wire.IsFrame(data) {
		f, err := wire.ParseFrame(data)
		if f.Kind != wire.KindAccept || len(f.Body) < len(id) || wire.ID(f.Body[:len(id)]) != id {
			return false, nil
		}
		if err == nil {
			_, _, err = wire.ParseAccept(&f)
		}
		return true, err
	}
	env, err := wire.Parse(data)
	return env.Kind == wire.KindResponse && env.ID == id, err
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

// isPubAck reports whether a reply is the acknowledgement of a JetStream stream, which
// comes where one captures the subject of the request. It has no header.
func isPubAck(m *nats.Msg) bool { return len(m.Header) == 0 && looksLikePubAck(m.Data) }

// looksLikePubAck reports whether data has the form of an acknowledgement: that a stream has
// stored the request, or why not (as when it is full). It has no other fields than these.
func looksLikePubAck(data []byte) bool {
	if !bytes.HasPrefix(data, []byte("{")) || !bytes.Contains(data, []byte(`"stream":`)) {
		return false
	}
	var ack struct {
		Stream    string          `json:"stream"`
		Sequence  *uint64         `json:"seq"`
		Error     json.RawMessage `json:"error"`
		Domain    string          `json:"domain"`
		Duplicate bool            `json:"duplicate"`
		Value     string          `json:"val"`
		BatchID   string          `json:"batch"`
		BatchSize int             `json:"count"`
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(&ack) == nil && ack.Stream != "" && ack.Sequence != nil
}

// mayAnswer reports whether a reply of that form is a response of the method all the
// same: one whose type has those fields. A natscall server gives such a response a header.
func (m *method) mayAnswer(reply *nats.Msg) bool {
	return protojson.Unmarshal(reply.Data, m.newResponse()) == nil
}

func isNoResponders(m *nats.Msg) bool {
	return len(m.Data) == 0 && m.Header.Get("Status") == "503"
}
