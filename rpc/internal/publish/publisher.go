// Package publish hands messages to a NATS connection, many at a time where many goroutines have
// one.
package publish

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// Conn is what a publisher needs of a nats.Conn.
type Conn interface {
	Publish(subject string, data []byte) error
	PublishRequest(subject, reply string, data []byte) error
	PublishMsg(m *nats.Msg) error
	MaxPayload() int64
}

// Config is what a publisher is made with.
type Config struct {
	Now      func() time.Duration // a clock
	MaxBatch int                  // bytes of messages that share one; 0 where none do
	// Refuse returns why no message with an owner may be published now, or nil. Down reports
	// whether Refuse is to be asked for a message, beside the first of a queue; it takes no lock.
	// A client has both, since its caller can be told. A server has neither: its answers may wait
	// in nats.go while the connection is down, as their callers may still wait for them.
	Refuse func() error
	Down   func() bool
}

// Publisher hands messages to the connection: under few locks and with one write to the socket. A
// lone message is published at once. Others wait for those that are about to come: on a client for
// callers that have their answers and may call again, on a server for calls that are queued. On a
// client load.due decides how long, on a server the pool, within the bounds of load.due.
//
//	      Publish, Post, Add       due, or Flush
//	empty --------------> holding ---------------> publishing
//	  ^                      ^                      |   |
//	  |                      | others have come     |   | Flush meanwhile: again
//	  |                      +----------------------+<--+
//	  +---------------------------------------------+
//
// One goroutine at a time publishes. On a server it is whichever has found the queue due. On a
// client it is that of Run, so that no caller ever waits for nats.go: that holds its lock while it
// dials, and while it writes to a socket that takes nothing, for longer than a call may last.
//
// A client says for each of its calls first Publish or Omit, and later either GiveUp, or Expect
// and then Return. All methods may be called concurrently.
type Publisher struct {
	Config
	conn    Conn
	runner  runner
	_       [64]byte
	callers callers
	_       [64]byte // every call changes it, and nothing else on its cache line

	mu         sync.Mutex
	publishing bool // a goroutine publishes, or is about to
	again      bool // and is to look at the queue again
	queue      []Message
	spare      []Message // the queue before, to be used again
	started    uint32    // calls of a client, modulo 2^32
	inFlight   uint32    // of them that had not ended when the queue's first message came

	first first // message in the queue

	members []*Message // of a batch; belongs to the goroutine that publishes
}

// runner is what others tell Run.
type runner struct {
	wake   chan struct{} // holds a token when it is to publish
	yields atomic.Bool   // it lets callers run first
	end    sync.Once
	ended  chan struct{} // closed by End
	ran    chan struct{} // closed when Run has returned
}

// first is what others may know of the first message in the queue without the lock.
type first struct {
	there atomic.Bool
	since atomic.Int64 // time of the clock when it came
}

// New returns a publisher for a connection. A client runs Run too.
func New(conn Conn, c Config) *Publisher {
	p := &Publisher{Config: c, conn: conn}
	p.runner.wake, p.runner.ended, p.runner.ran = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	return p
}

// Publish queues the request of a client's call, for Run to publish when it is due.
func (p *Publisher) Publish(m Message) {
	p.mu.Lock()
	p.started++
	waited := p.enqueueLocked(m)
	// The message can be seen before the callers are counted. In Return it is the other way round.
	// So the last caller that returns sees the message, or is not expected here.
	l := load{queued: len(p.queue), expected: int(p.callers.expected()), inFlight: int(p.inFlight), waited: waited}
	due := l.due()
	p.mu.Unlock()
	if due {
		p.runner.yields.Store(l.yields())
		p.Wake()
	}
}

// Post publishes soon what is no call's request. Without an Owner nobody learns what became of it.
func (p *Publisher) Post(m Message) {
	p.mu.Lock()
	p.enqueueLocked(m)
	p.mu.Unlock()
	p.Wake()
}

// PublishMsg posts a message that nobody waits for. It keeps the header, but not the data. There is
// never an error.
func (p *Publisher) PublishMsg(m *nats.Msg) error {
	buf := buffer.Take()
	buf.B = append(buf.B, m.Data...)
	p.Post(Message{Subject: m.Subject, Reply: m.Reply, Header: m.Header, Buffer: buf})
	return nil
}

// PostAndWait posts a message and waits until it has been published. It returns the error of that.
// If ctx, the deadline unless it is zero, or the publisher ends first, it returns context.Canceled,
// context.DeadlineExceeded or ErrEnded, or an *UnpublishedError if the message never gets to the
// connection, which has the error of Refuse in place of ErrEnded. The message's Owner is
// PostAndWait's.
func (p *Publisher) PostAndWait(ctx context.Context, deadline time.Time, m Message) error {
	s := sendings.Get().(*sending)
	s.state.Store(0)
	m.Owner = s
	var alarm <-chan time.Time
	if !deadline.IsZero() {
		s.timer.Reset(time.Until(deadline))
		alarm = s.timer.C
	}
	p.Post(m)
	var end error
	select {
	case err := <-s.sent:
		s.timer.Stop()
		sendings.Put(s)
		return err
	case <-ctx.Done():
		end = ctx.Err()
	case <-alarm:
		end = context.DeadlineExceeded
	case <-p.runner.ended:
		end = ErrEnded
	}
	s.timer.Stop()
	// The publisher may still have s, so it is not used again.
	if !s.state.CompareAndSwap(0, sendingGone) {
		return end
	}
	if end == ErrEnded {
		end = p.Refuse()
	}
	return &UnpublishedError{end}
}

// Wake has Run publish what waits.
func (p *Publisher) Wake() {
	select {
	case p.runner.wake <- struct{}{}:
	default: // it is about to run
	}
}

// Omit counts a client's call as started that is to end without a request.
func (p *Publisher) Omit() {
	p.mu.Lock()
	p.started++
	p.mu.Unlock()
}

// Expect notes that a call has its answer: its caller is about to run, and may call again.
func (p *Publisher) Expect() { p.callers.answer() }

// GiveUp notes that a caller no longer waits for an answer.
func (p *Publisher) GiveUp() { p.callers.endUnanswered() }

// Return notes that a caller runs with its answer. The last one has what waits published. Run does
// so after it, as it may call again.
func (p *Publisher) Return() {
	// Here only the last caller and the time count, not how many messages wait.
	l := load{queued: 1, expected: int(p.callers.endAnswered()), inFlight: manyCalls}
	if !p.Holds() {
		return
	}
	if l.expected > 0 && l.expected%minQueued == 0 {
		l.waited = p.waited()
	}
	if l.due() {
		p.Wake()
	}
}

// Run publishes for a client until End.
func (p *Publisher) Run() {
	defer close(p.runner.ran)
	for {
		select {
		case <-p.runner.wake:
			if p.runner.yields.Swap(false) {
				runtime.Gosched()
			}
			p.Flush()
		case <-p.runner.ended:
			return
		}
	}
}

// End ends Run and every PostAndWait, with the error of Refuse. What calls have queued is not
// published any more: they have ended, or are about to.
func (p *Publisher) End() { p.runner.end.Do(func() { close(p.runner.ended) }) }

// Ended is closed by End.
func (p *Publisher) Ended() <-chan struct{} { return p.runner.ended }

// Drain publishes after End what nobody waits for, when Run has returned.
func (p *Publisher) Drain() {
	<-p.runner.ran
	p.Flush()
}

// Add queues a server's answer until Flush. It reports whether that is due: there are many, or they
// have waited for long, for which took is a hint: how long the goroutine was away until now.
func (p *Publisher) Add(m Message, took time.Duration) (due bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	waited := p.enqueueLocked(m)
	// Only the bounds count: the pool knows whether answers are expected.
	return load{queued: len(p.queue), waited: max(waited, took), expected: 1, inFlight: manyCalls}.due()
}

// enqueueLocked returns how long the first message of the queue has waited, or 0 where it did not
// look.
func (p *Publisher) enqueueLocked(m Message) (waited time.Duration) {
	switch n := len(p.queue); {
	case n == 0:
		p.inFlight = p.started - p.callers.ended()
		p.first.since.Store(int64(p.Now()))
		p.first.there.Store(true)
	case n%minQueued == 0:
		waited = p.waited()
	}
	p.queue = append(p.queue, m)
	return waited
}

// claimLocked makes this goroutine the one that publishes. Where there is one already, that one
// looks at the queue again.
func (p *Publisher) claimLocked() bool {
	if p.publishing {
		p.again = true
		return false
	}
	p.publishing = true
	return true
}

// waited is how long the queue's first message has been there.
func (p *Publisher) waited() time.Duration { return p.Now() - time.Duration(p.first.since.Load()) }

// Holds reports whether messages wait.
func (p *Publisher) Holds() bool { return p.first.there.Load() }

// Overdue reports whether those that wait have waited for too long.
func (p *Publisher) Overdue() bool { return p.waited() > maxWait }

// stalledTime is how long messages wait at most that Run has been woken for. If it takes longer,
// nats.go holds its lock.
const stalledTime = 100 * time.Millisecond

// Stalled reports whether nothing gets to the connection, though it may be up.
func (p *Publisher) Stalled() bool { return p.Holds() && p.waited() > stalledTime }

// Flush publishes what waits, or leaves it to the goroutine that is publishing.
func (p *Publisher) Flush() {
	p.mu.Lock()
	claimed := p.claimLocked()
	p.mu.Unlock()
	if claimed {
		p.publishQueue()
	}
}

// Hold makes an idle publisher keep all messages until release; queued returns how many there are.
// It is for tests that want messages to go together.
func (p *Publisher) Hold() (queued func() int, release func()) {
	p.mu.Lock()
	p.publishing = true
	p.mu.Unlock()
	return func() int {
		p.mu.Lock()
		defer p.mu.Unlock()
		return len(p.queue)
	}, p.publishQueue
}

// InFlight returns how many calls have not ended, and how many of their callers are expected. It is
// for tests.
func (p *Publisher) InFlight() (calls, expected int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return int(p.started - p.callers.ended()), int(p.callers.expected())
}

// publishQueue publishes what is queued, and then what others have left to it meanwhile.
func (p *Publisher) publishQueue() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.again = true; p.again; {
		p.again = false
		queue := p.queue
		p.queue, p.spare = p.spare, nil
		p.first.there.Store(false)
		p.mu.Unlock()
		p.sendAll(queue)
		clear(queue)
		p.mu.Lock()
		p.spare = queue[:0]
	}
	p.publishing = false
}

// sendAll publishes the messages of a queue.
func (p *Publisher) sendAll(queue []Message) {
	var refused error
	if p.Refuse != nil {
		refused = p.Refuse()
	}
	for i := range queue {
		if p.Down != nil && refused == nil && p.Down() { // since the one before
			refused = p.Refuse()
		}
		switch m := &queue[i]; {
		case m.Buffer == nil: // went with one before it, or was left out
		case refused != nil && m.Owner != nil:
			m.done(refused)
		case !m.claim():
		case m.Batch == BatchNever, len(m.Header) > 0 && m.Batch == BatchMay:
			p.send(m)
		default:
			p.sendBatch(queue[i:])
		}
	}
}

// sendBatch publishes the first message of the queue together with those behind it that may share
// its subject and fit.
func (p *Publisher) sendBatch(queue []Message) {
	first := &queue[0]
	p.members = append(p.members[:0], first)
	if len(first.Header) == 0 { // a header is of one call
		p.members = first.appendMates(p.members, queue[1:min(len(queue), wire.MaxItems)], p.batchLimit())
	}
	if len(p.members) == 1 && first.Batch == BatchMay {
		p.send(first)
		return
	}
	buf := buffer.Take()
	defer buf.PutBack()
	buf.B = wire.AppendBatch(buf.B)
	for _, m := range p.members {
		buf.B = wire.AppendItem(buf.B, m.Tag, m.Buffer.B)
	}
	first = leader(p.members)
	err := Send(p.conn, &nats.Msg{Subject: first.Subject, Reply: first.Reply, Header: first.Header, Data: buf.B})
	for _, m := range p.members {
		m.done(err)
	}
	clear(p.members)
}

// leader puts a message first on whose reply subject "no responders" is waited for. There may be
// none, where the callers of all have gone.
func leader(members []*Message) *Message {
	for i := range members {
		members[0], members[i] = members[i], members[0]
		if members[0].Owner.Leads(members) {
			break
		}
	}
	return members[0]
}

// batchLimit is how many bytes a batch may have.
func (p *Publisher) batchLimit() int { return int(min(int64(p.MaxBatch), p.conn.MaxPayload())) }

// send publishes a message as it is.
func (p *Publisher) send(m *Message) {
	m.done(Send(p.conn, &nats.Msg{Subject: m.Subject, Reply: m.Reply, Header: m.Header, Data: m.Buffer.B}))
}

// Send publishes a message at once. It is PublishMsg without the work for a header where there is
// none. m does not escape to the heap: only one with a header is copied there.
func Send(conn Conn, m *nats.Msg) error {
	switch {
	case len(m.Header) > 0:
		return conn.PublishMsg(&nats.Msg{Subject: m.Subject, Reply: m.Reply, Header: m.Header, Data: m.Data})
	case m.Reply == "":
		return conn.Publish(m.Subject, m.Data)
	}
	return conn.PublishRequest(m.Subject, m.Reply, m.Data)
}
