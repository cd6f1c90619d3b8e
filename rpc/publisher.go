package rpc

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"
)

// publisher hands messages to the connection, many at a time where many
// goroutines have one: the first of them lets the others run for a moment and then
// publishes all that has come, under few locks and with one write to the
// socket. A lone message is published at once, by its own goroutine.
type publisher struct {
	nc       *nats.Conn
	maxBatch int  // bytes of messages that share one; 0 where none do
	online   bool // publish only while the connection is up: nats.go would keep the messages until it is
	_        [64]byte
	busy     atomic.Int64 // calls in flight: whether waiting for others makes sense
	_        [64]byte     // every call changes busy, and nothing else on its cache line

	mu      sync.Mutex
	leading bool // a goroutine publishes, or is about to
	queue   []outgoing
	spare   []outgoing // the queue before, to be used again

	members []*outgoing // of a batch; of the goroutine that leads
}

// outgoing is a message to be published. Its buffer, which has the data, belongs to the publisher
// until it is published, and then goes back to the pool.
type outgoing struct {
	subject string
	reply   string
	header  nats.Header
	buf     *buffer
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
	// unsent says that it could not be published.
	unsent(o *outgoing, err error)
	// leads says that it goes first in a batch, on its reply subject. It returns
	// false where it cannot, as nobody waits on that any more.
	leads(batch []*outgoing) bool
}

// publish publishes a message, or leaves it to the goroutine that is publishing.
func (p *publisher) publish(o outgoing) {
	p.mu.Lock()
	p.queue = append(p.queue, o)
	if p.leading {
		p.mu.Unlock()
		return
	}
	p.leading = true
	p.mu.Unlock()
	if p.busy.Load() > 1 {
		runtime.Gosched()
	}
	p.lead()
}

// lead publishes until nothing is left.
func (p *publisher) lead() {
	for {
		p.mu.Lock()
		batch := p.queue
		if len(batch) == 0 {
			p.leading = false
			p.mu.Unlock()
			return
		}
		p.queue, p.spare = p.spare, nil
		p.mu.Unlock()
		p.sendAll(batch)
		clear(batch)
		p.mu.Lock()
		p.spare = batch[:0]
		p.mu.Unlock()
	}
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
		o.sent(p.nc.PublishMsg(&nats.Msg{Subject: o.subject, Reply: o.reply, Header: o.header, Data: o.buf.b}))
		return
	}
	o.sent(publish(p.nc, o.subject, o.reply, o.buf.b))
}

// sent ends the way of a message.
func (o *outgoing) sent(err error) {
	if err != nil {
		o.owner.unsent(o, err)
	}
	o.buf.putBack()
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
