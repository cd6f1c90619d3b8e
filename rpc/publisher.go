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
	nc   *nats.Conn
	busy atomic.Int64 // calls in flight: whether waiting for others makes sense

	mu      sync.Mutex
	leading bool
	queue   []outgoing
	spare   []outgoing // the queue before, to be used again
}

// outgoing is a message to be published. Its buffer belongs to the publisher
// until it is published, and then goes back to the pool.
type outgoing struct {
	msg   nats.Msg
	buf   *buffer
	owner sender
}

// sender is told, by any goroutine, what became of a message that could not be published.
type sender interface{ unsent(m *nats.Msg, err error) }

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
		for i := range batch {
			p.send(&batch[i])
		}
		clear(batch)
		p.mu.Lock()
		p.spare = batch[:0]
		p.mu.Unlock()
	}
}

func (p *publisher) send(o *outgoing) {
	err := publishMsg(p.nc, &o.msg)
	if err != nil {
		o.owner.unsent(&o.msg, err)
	}
	o.buf.putBack()
}

// publishMsg is nats.Conn.PublishMsg without the work for a header where there is none.
func publishMsg(nc *nats.Conn, m *nats.Msg) error {
	switch {
	case len(m.Header) > 0:
		return nc.PublishMsg(m)
	case m.Reply != "":
		return nc.PublishRequest(m.Subject, m.Reply, m.Data)
	}
	return nc.Publish(m.Subject, m.Data)
}
