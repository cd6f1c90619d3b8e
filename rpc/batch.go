package rpc

import (
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// maxAnswerBatch bounds the answers that share a NATS message, in bytes:
// about the read buffer of nats.go.
const maxAnswerBatch = 32 << 10

// sendBatch publishes the first message of the queue together with those
// behind it that may share its subject and fit.
func (p *publisher) sendBatch(queue []outgoing) {
	first := &queue[0]
	p.members = append(p.members[:0], first)
	if len(first.header) == 0 { // a header is of one call
		p.members = first.mates(p.members, queue[1:min(len(queue), wire.MaxItems)], p.batchLimit())
	}
	if len(p.members) == 1 && first.batch == batchMay {
		p.send(first)
		return
	}
	buf := buffer.Take()
	defer buf.PutBack()
	buf.B = wire.AppendBatch(buf.B)
	for _, o := range p.members {
		buf.B = wire.AppendItem(buf.B, o.tag, o.buf.B)
	}
	first = lead(p.members)
	err := publishMsg(p.nc, &nats.Msg{Subject: first.subject, Reply: first.reply, Header: first.header, Data: buf.B})
	for _, o := range p.members {
		o.sent(err)
	}
	clear(p.members)
}

// lead makes one the first of a batch on whose reply subject "no responders"
// is waited for; it may be none, where the callers of all have gone.
func lead(members []*outgoing) *outgoing {
	for i := range members {
		members[0], members[i] = members[i], members[0]
		if members[0].owner.leads(members) {
			break
		}
	}
	return members[0]
}

// batchLimit is how many bytes a batch may have.
func (p *publisher) batchLimit() int { return int(min(int64(p.maxBatch), p.nc.MaxPayload())) }

// mates appends those of the queue that go into a batch with o.
func (o *outgoing) mates(members []*outgoing, queue []outgoing, limit int) []*outgoing {
	size := wire.BatchOverhead + len(o.buf.B)
	for i := range queue {
		mate := &queue[i]
		if mate.buf == nil || mate.batch == batchNever || len(mate.header) > 0 || mate.subject != o.subject {
			continue
		}
		if more := wire.BatchOverhead + len(mate.buf.B); size+more <= limit {
			size += more
			members = append(members, mate)
		}
	}
	return members
}

// member is a call that travels in the batch of another one.
type member struct {
	waiter *waiter
	id     wire.ID
}

// followers are the members of a batch behind the first, which keeps them for as long as "no responders" may come.
type followers struct {
	subject string // of the replies to the first
	members []member
}

var followerLists = sync.Pool{New: func() any { return new(followers) }}

// leads remembers the members of a batch, since "no responders" names none of
// them: it comes to the reply subject of the first.
func (w *waiter) leads(batch []*outgoing) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.subject != batch[0].reply { // its caller has gone, and others may use it
		return false
	}
	if w.followers == nil {
		w.followers = followerLists.Get().(*followers)
	}
	f := w.followers
	f.subject, f.members = w.subject, f.members[:0]
	for _, o := range batch[1:] {
		f.members = append(f.members, member{o.owner.(*waiter), wire.IDOf(o.buf.B)})
	}
	return true
}

// takeFollowersLocked returns the followers of the last batch, if it went under subject, or nil. Who has taken them puts them back.
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

// receiveBatch takes requests that share a NATS message.
func (e *endpoint) receiveBatch(m *nats.Msg) {
	batch, err := wire.ParseBatch(m.Data)
	now := e.service.server.clock.now()
	if err != nil {
		e.take(e.newServerCall(), m, now) // which refuses it
		return
	}
	for tag, item := range batch.Items() {
		c := e.newServerCall()
		c.batched, c.tag, c.whole = true, tag, len(m.Data)
		e.take(c, &nats.Msg{Subject: m.Subject, Reply: m.Reply, Data: item}, now)
	}
}

// leads is for clients: a server's answers are not waited for.
func (c *serverCall) leads([]*outgoing) bool { return true }

// answerBody is the body of an answer: an item where the request was one.
func (c *serverCall) answerBody(data []byte) []byte {
	if !c.batched {
		return data
	}
	return wire.AppendItem(wire.AppendBatch(nil), c.tag, data)
}
