package rpc

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// publisher hands messages to the connection, many at a time where many
// goroutines have one: under few locks and with one write to the socket. A lone
// message is published at once, by its own goroutine. Others wait for those that
// are about to come: on a client for callers that have their answers and may call
// again, on a server for calls that are queued.
type publisher struct {
	nc       *nats.Conn
	clock    *clock
	maxBatch int           // bytes of messages that share one; 0 where none do
	online   bool          // publish only while the connection is up: nats.go would keep the messages until it is
	wake     chan struct{} // for run
	_        [64]byte
	callers  callers
	_        [64]byte // every call changes it, and nothing else on its cache line

	mu         sync.Mutex
	publishing bool // a goroutine publishes, or is about to
	again      bool // and is to look at the queue again
	queue      []outgoing
	holding    atomic.Bool  // there is a message in queue
	since      atomic.Int64 // time of the clock when the queue's first message came
	started    uint32       // calls of a client that have come here, modulo 2^32; each counts once as ended in callers
	calls      uint32       // of them that had not ended when the queue's first message came
	spare      []outgoing   // the queue before, to be used again

	members []*outgoing // of a batch; of the goroutine that publishes
}

// callers counts, in one word, the calls of a client whose callers have their answer and are
// about to run, and those that have ended since the client was made.
type callers struct{ counts atomic.Uint64 }

const (
	oneAnswered = 1
	oneEnded    = 1 << 32
)

// expected is how many callers are about to run.
func (c *callers) expected() uint32 { return uint32(c.counts.Load()) }

// ended is how many calls have ended, modulo 2^32.
func (c *callers) ended() uint32 { return uint32(c.counts.Load() >> 32) }

// answer notes that a caller has its answer.
func (c *callers) answer() { c.counts.Add(oneAnswered) }

// endAnswered notes that a caller has taken notice of its answer. It returns how many are expected still.
func (c *callers) endAnswered() (left uint32) { return uint32(c.counts.Add(oneEnded - oneAnswered)) }

// endUnanswered notes that a caller has gone without an answer.
func (c *callers) endUnanswered() { c.counts.Add(oneEnded) }

// outgoing is a message to be published. Its buffer, which has the data, belongs to the publisher
// from publish or add on, and goes back to the pool when the message is published.
type outgoing struct {
	subject string
	reply   string
	header  nats.Header
	buf     *buffer.Buffer
	owner   sender
	batch   batching
	tag     uint64 // in a batch
}

// batching says whether a message may be an item of a batch.
type batching uint8

const (
	batchNever batching = iota
	batchMay            // of a client: alone it travels without
	batchMust           // of a server: the request was an item
)

// sender is told, by any goroutine, what became of its message.
type sender interface {
	// sent says that it has been published, or could not be.
	sent(o *outgoing, err error)
	// leads says that it goes first in a batch, on its reply subject. It returns
	// false where it cannot, as nobody waits on that any more.
	leads(batch []*outgoing) bool
}

// Messages wait for those who may still come until they are as many as share a
// batch, or have waited for so long when a further one comes: on a machine that is overloaded somebody is always about to come.
const (
	maxQueued    = wire.MaxItems
	maxQueuedFor = 500 * time.Microsecond
	// stuckFor is when the watch publishes: whoever was to come has died, by a panic within a call.
	stuckFor = time.Second
)

// minQueued is how many messages go together where there are so many calls, and after how many the clock is looked at.
const minQueued = 16

// publish publishes a message of a client, or leaves it to another goroutine:
// to the one that is publishing, or to the last of the callers whose answers are there.
func (p *publisher) publish(o outgoing) {
	p.mu.Lock()
	p.started++
	if len(p.queue) == 0 {
		p.calls = p.started - p.callers.ended()
	}
	full := p.addLocked(o)
	expected := p.callers.expected() > 0
	// A third of the calls makes a message, so that one is on its way, and one is served, while the next is made.
	full = full || len(p.queue) >= max(minQueued, int(p.calls+2)/3)
	others := p.calls > 1
	leads := (full || !expected) && p.claimLocked()
	p.mu.Unlock()
	if !leads {
		return
	}
	if !expected && others {
		runtime.Gosched() // others may be about to call
	}
	p.lead()
}

// unpublished counts a call as started that is to end without having come to publish.
func (p *publisher) unpublished() {
	p.mu.Lock()
	p.started++
	p.mu.Unlock()
}

// claimLocked makes this goroutine the one that publishes. Where there is one already, that looks at the queue again.
func (p *publisher) claimLocked() bool {
	if p.publishing {
		p.again = true
		return false
	}
	p.publishing = true
	return true
}

// returns notes that a caller has taken notice of its answer. The last one has
// what waits published, by a goroutine that runs after it: it may call again.
func (p *publisher) returns() {
	if left := p.callers.endAnswered(); p.Holds() && (left == 0 || left%minQueued == 0 && p.Overdue()) {
		select {
		case p.wake <- struct{}{}:
		default: // it is on its way
		}
	}
}

// run publishes for the last of the callers that return, until done.
func (p *publisher) run(done <-chan struct{}) {
	for {
		select {
		case <-p.wake:
			p.Flush()
		case <-done:
			return
		}
	}
}

// add queues a message until flush. It tells whether that is due.
func (p *publisher) add(o outgoing) (full bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.addLocked(o)
}

func (p *publisher) addLocked(o outgoing) (full bool) {
	switch n := len(p.queue); { // a look at the clock has a price
	case n == 0:
		p.since.Store(int64(p.clock.now()))
		p.holding.Store(true)
	case n%minQueued == 0:
		full = p.Overdue()
	}
	p.queue = append(p.queue, o)
	return full || len(p.queue) >= maxQueued
}

// waited is how long the queue's first message has been there.
func (p *publisher) waited() time.Duration { return p.clock.now() - time.Duration(p.since.Load()) }

func (p *publisher) Overdue() bool { return p.waited() > maxQueuedFor }

// Holds reports whether messages are queued.
func (p *publisher) Holds() bool { return p.holding.Load() }

// Flush publishes what is queued, or leaves it to the goroutine that is publishing.
func (p *publisher) Flush() {
	p.mu.Lock()
	leads := p.claimLocked()
	p.mu.Unlock()
	if leads {
		p.lead()
	}
}

// lead publishes what is queued, and then what somebody else has left to it meanwhile.
func (p *publisher) lead() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.again = true; p.again; {
		p.again = false
		queue := p.queue
		p.queue, p.spare = p.spare, nil
		p.holding.Store(false)
		p.mu.Unlock()
		p.sendAll(queue)
		clear(queue)
		p.mu.Lock()
		p.spare = queue[:0]
	}
	p.publishing = false
}

func (p *publisher) sendAll(queue []outgoing) {
	var offline *Error
	if p.online {
		offline = connectionError(p.nc)
	}
	for i := range queue {
		switch o := &queue[i]; {
		case offline != nil:
			o.sent(offline)
		case o.buf == nil: // went with one before it
		case o.batch == batchNever, len(o.header) > 0 && o.batch == batchMay:
			p.send(o)
		default:
			p.sendBatch(queue[i:])
		}
	}
}

// send publishes a message as it is.
func (p *publisher) send(o *outgoing) {
	if len(o.header) > 0 {
		o.sent(p.nc.PublishMsg(&nats.Msg{Subject: o.subject, Reply: o.reply, Header: o.header, Data: o.buf.B}))
		return
	}
	o.sent(publish(p.nc, o.subject, o.reply, o.buf.B))
}

// sent ends the way of a message.
func (o *outgoing) sent(err error) {
	o.owner.sent(o, err)
	o.buf.PutBack()
	o.buf = nil
}

// publish publishes a message without a header; reply may be "".
func publish(nc *nats.Conn, subject, reply string, data []byte) error {
	if reply == "" {
		return nc.Publish(subject, data)
	}
	return nc.PublishRequest(subject, reply, data)
}

// publishMsg is nats.Conn.PublishMsg without the work for a header where there is none.
func publishMsg(nc *nats.Conn, m *nats.Msg) error {
	if len(m.Header) > 0 {
		return nc.PublishMsg(m)
	}
	return publish(nc, m.Subject, m.Reply, m.Data)
}
