// Package stream has one side of a stream: it joins the halves of package flow with locks, the
// user's goroutines and NATS. It moves bytes. What they mean, messages and statuses, is its owner's
// business. docs/protocol.md, "Streams", specifies it.
package stream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/flow"
	"github.com/natscall/natscall/rpc/internal/liveness"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/wait"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// Config is what either side of a stream is made with.
type Config struct {
	ID         wire.ID
	Conn       publish.Conn
	Table      *Table
	MaxMessage int // bytes; of a message that is received
}

// Stream is what the two sides of a stream have in common. It is part of a [Client] or a [Server].
//
//	           accept            server's end
//	opening ------------> open ------------------------> over
//	   |                    |        Break, End
//	   +--------------------+---------------------------> over
//
// Only endLocked changes the state to over, and only once. A server's stream is open when its
// accept has been published, unless it carries a large response: that waits for the client's
// credit, which names the subject to send to.
//
// One goroutine may send while another one receives. All other methods may be called concurrently.
type Stream struct {
	Config
	side    side
	maxBody int           // of a frame; constant, as a stream does not outlive its connection
	ended   chan struct{} // closed when the stream is over

	// ctx is the context under which Send and Recv wait: like those of gRPC they have none of their
	// own. On a server it is another one while the handler runs, if an interceptor has derived one.
	// Another goroutine may wait when it changes.
	ctx atomic.Pointer[context.Context]

	mu     sync.Mutex
	open   bool
	to     string // subject of what is published; on a server "" until it is known
	over   bool
	err    error // why it is over; nil after a clean end
	byPeer bool  // the peer has ended it
	send   sending
	recv   receiving
	life   life
}

// side is what the two sides of a stream do differently.
type side interface {
	// deliver takes a message that came for the stream.
	deliver(m *nats.Msg)
	// takeLocked takes of a frame what only this side receives.
	takeLocked(f wire.Frame, m *nats.Msg) error
	// addLocked returns a frame with what only this side sends. It takes no pointer, since that
	// would make each frame escape to the heap.
	addLocked(o outgoing, kind wire.Kind) outgoing
	// control publishes a frame that has no sequence number.
	control(m *nats.Msg) error
	// checkContext returns the error of Send and Recv if their context has ended and that does not
	// end the stream.
	checkContext() error
	// End ends the stream for a reason of this side, and tells the peer.
	End(err error)
	// doneReading says that nothing more is read. An err other than nil is the reason, which ends
	// the stream of a client. A server's ends when its handler returns.
	doneReading(err error)
	// onOver runs once the stream is over.
	onOver()
}

// sending is the sending half.
type sending struct {
	flow.Sender
	closed   error         // what Send returns once the half is closed
	flushing bool          // a goroutine is publishing
	beat     bool          // a heartbeat is due
	changed  chan struct{} // holds one token when there may be room
}

// receiving is the receiving half.
type receiving struct {
	flow.Receiver
	err       error         // the first error of Recv; it stays
	ignoring  bool          // nobody reads any more
	answering bool          // the last message received has been read, and nothing sent since
	changed   chan struct{} // holds one token when there may be something to read
}

// life tells whether the peer is still there.
type life struct {
	liveness.Patience               // of a client, while the stream opens
	claimed           bool          // of a client: its open has been published, or is about to be
	known             bool          // of a client: the instance knows that the stream is its own
	beatAt            time.Time     // of the last heartbeat
	heardAt           time.Time     // of the last frame
	openTimeout       time.Duration // how long nothing may come until it is open; 0 is forever
}

// highWater is how many bytes a sender queues before Send waits: enough to fill the next frames
// while one is being written.
const highWater = 2 * flow.MaxBody

func (s *Stream) init(ctx context.Context, c Config, side side) {
	now := time.Now()
	s.Config, s.side, s.ended = c, side, make(chan struct{})
	s.maxBody = int(max(1, min(flow.MaxBody, c.Conn.MaxPayload()/2))) // leaves room for headers
	s.send.changed, s.recv.changed = make(chan struct{}, 1), make(chan struct{}, 1)
	s.recv.MaxMessage = c.MaxMessage
	s.life.beatAt, s.life.heardAt = now, now
	s.WaitUnder(ctx)
}

// WaitUnder makes Send and Recv wait under ctx. It returns the context from before.
func (s *Stream) WaitUnder(ctx context.Context) (before context.Context) {
	if old := s.ctx.Swap(&ctx); old != nil {
		return *old
	}
	return nil
}

// Ended is closed when the stream is over.
func (s *Stream) Ended() <-chan struct{} { return s.ended }

// Over reports whether the stream is over.
func (s *Stream) Over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.over
}

// Accepted reports whether the stream is, or has been, open.
func (s *Stream) Accepted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// To returns the subject to which the stream publishes. early reports whether it has published only
// its open, less than a tick of the client's watch ago.
func (s *Stream) To() (subject string, early bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.to, !s.open && !s.life.Old()
}

// Send queues the message that starts in a buffer at an offset. It waits while too much is queued.
// The buffer stays the caller's.
//
// The error is io.EOF if the peer has ended the stream; Recv returns how. It is a *ContextError if
// the context has ended, ErrClosed after the end of the sending half, or why the stream is over.
func (s *Stream) Send(buf *buffer.Buffer, from int) error {
	if err := s.side.checkContext(); err != nil {
		return err
	}
	s.mu.Lock()
	for !s.over && !s.send.Closing() && s.send.Buffered() > highWater {
		s.mu.Unlock()
		if err := s.wait(s.send.changed); err != nil {
			return err
		}
		s.mu.Lock()
	}
	if err := s.sendErrorLocked(); err != nil {
		s.mu.Unlock()
		return err
	}
	o, alone := s.frameAloneLocked(buf, from)
	if !alone {
		s.send.Push(append(s.send.Grow(), buf.B[from:]...), buf.Compressed)
		s.flushLocked()
	}
	s.mu.Unlock()
	if alone && s.publish(&o) {
		s.flush() // messages that have been queued meanwhile
	}
	return nil
}

// sendErrorLocked returns why nothing can be sent, or nil.
func (s *Stream) sendErrorLocked() error {
	switch {
	case s.over && s.byPeer:
		return io.EOF
	case s.over && s.err != nil:
		return s.err
	case s.send.Closing():
		return s.send.closed
	}
	return nil
}

// frameAloneLocked makes a frame of a single message, for its sender to publish, if there is
// nothing to share the frame with. It does so for a large message, to save copies, and for one that
// answers the last message received, to save the detour through the flusher's goroutine. Meanwhile
// the sender is the flusher.
func (s *Stream) frameAloneLocked(buf *buffer.Buffer, from int) (o outgoing, ok bool) {
	alone := s.recv.answering || len(buf.B)-from >= minAlone
	s.recv.answering = false
	if !alone || from != flow.FrameRoom || s.send.flushing || !s.open {
		return o, false
	}
	frame, ok := s.send.Frame(buf.B, buf.Compressed, s.maxBody)
	if !ok {
		return o, false
	}
	s.send.flushing = true
	return s.side.addLocked(outgoing{msg: nats.Msg{Subject: s.to, Data: frame}}, wire.KindData), true
}

// minAlone is the size from which a message gets a frame of its own: more frames then cost less
// than copying the message.
const minAlone = flow.MaxBody / 4

// wait waits for a token, the end of the stream, or that of the context.
func (s *Stream) wait(token <-chan struct{}) error {
	select {
	case <-token:
	case <-s.ended:
	case <-(*s.ctx.Load()).Done():
		return s.side.checkContext()
	}
	return nil
}

// flushLocked starts the flusher if there is something to send. The flusher ends when there is
// nothing more, so an idle stream has no goroutine.
func (s *Stream) flushLocked() {
	if s.send.flushing || !s.open || s.over || !s.send.CanSend(s.maxBody) && !s.send.beat {
		return
	}
	s.send.flushing = true
	go s.flush()
}

// flush publishes frames until nothing is queued or the credit is used up. A frame takes all that
// is queued, up to its size; while one is published, messages gather for the next.
func (s *Stream) flush() {
	for {
		o, more := s.next()
		if !more {
			return
		}
		sent := s.publish(&o)
		o.buf.PutBack()
		if !sent {
			return
		}
		wait.Signal(s.send.changed)
		if o.sent != nil {
			o.sent()
			return
		}
	}
}

// outgoing is a frame that is to be published.
type outgoing struct {
	msg  nats.Msg
	buf  *buffer.Buffer // has the data
	sent func()         // runs when the last frame has been published; else nil
}

// next returns the flusher's next frame. A heartbeat goes through here too, since it names the next
// sequence number. frameAloneLocked makes frames only while no flusher runs.
func (s *Stream) next() (o outgoing, more bool) {
	buf := buffer.Take()
	s.mu.Lock()
	defer s.mu.Unlock()
	kind, ok := wire.KindData, false
	switch {
	case s.over:
	case s.send.beat: // even if there is data to send, since it repeats the credit
		buf.B, kind, ok = wire.AppendHeartbeat(buf.B, s.send.Next(), s.recv.Granted()), wire.KindHeartbeat, true
	default:
		buf.B, kind, ok = s.send.AppendFrame(buf.B, s.maxBody)
	}
	s.send.beat = false
	if !ok {
		s.send.flushing = false
		buf.PutBack()
		return o, false
	}
	return s.side.addLocked(outgoing{msg: nats.Msg{Subject: s.to, Data: buf.B}, buf: buf}, kind), true
}

// publish publishes a frame. If that fails, it ends the stream and returns false.
func (s *Stream) publish(o *outgoing) bool {
	if err := publish.Send(s.Conn, &o.msg); err != nil {
		s.Break(&PublishError{err})
		return false
	}
	return true
}

// publishControl publishes a credit or cancel, which have no sequence number. An error is ignored:
// the next heartbeat, which repeats the credit, meets it too.
func (s *Stream) publishControl(kind wire.Kind, number uint64) {
	s.mu.Lock()
	o := s.side.addLocked(outgoing{msg: nats.Msg{Subject: s.to, Data: wire.AppendFrame(nil, kind, number)}}, kind)
	s.mu.Unlock()
	_ = s.side.control(&o.msg)
}

// receive takes a frame of the peer. It is called by the goroutine of a subscription and does not
// block.
func (s *Stream) receive(m *nats.Msg) {
	f, err := wire.ParseFrame(m.Data)
	if err != nil {
		s.side.End(err)
		return
	}
	s.mu.Lock()
	if s.over || s.recv.ignoring && (f.Kind == wire.KindData || f.Kind == wire.KindEnd) {
		s.mu.Unlock()
		return
	}
	s.life.heardAt = time.Now()
	if err = s.takeLocked(f, m); err == nil {
		s.flushLocked()
	}
	over := s.over
	s.mu.Unlock()
	wait.Signal(s.recv.changed)
	switch {
	case err != nil:
		s.side.End(err)
	case over:
		s.leave()
	}
}

// takeLocked applies a frame to the halves. The frame may end the stream.
func (s *Stream) takeLocked(f wire.Frame, m *nats.Msg) error {
	if err := s.side.takeLocked(f, m); err != nil || s.over {
		return err
	}
	switch f.Kind {
	case wire.KindData:
		err := s.recv.Data(f.Number, ownBody(m, f.Body))
		if f.Flags&wire.FlagWaited != 0 {
			s.recv.Waited()
		}
		return err
	case wire.KindCredit:
		s.send.Grant(f.Number)
	case wire.KindHeartbeat:
		credit, err := wire.ParseHeartbeat(&f)
		if err != nil {
			return err
		}
		s.send.Grant(credit)
		if !s.recv.ignoring {
			return s.recv.Heartbeat(f.Number)
		}
	}
	return nil // a second accept, what side.takeLocked has handled, what the peer may not send
}

// ownBody returns a body that may be kept. nats.go has the headers of a message in the same memory
// as its data, and headers cost the peer no credit, so then the body is copied.
func ownBody(m *nats.Msg, body []byte) []byte {
	if m.Size() > len(m.Subject)+len(m.Reply)+len(m.Data) {
		return bytes.Clone(body)
	}
	return body
}

// Message is a message as it was received.
type Message struct {
	Bytes      []byte // the receiver's
	Whole      int    // size of the memory that Bytes is part of
	Compressed bool
}

// Recv waits for the next message. The error is io.EOF at the clean end, else a *ContextError, why
// the stream is over, or what was wrong with the peer's frames.
func (s *Stream) Recv() (Message, error) {
	for {
		if err := s.side.checkContext(); err != nil {
			return Message{}, err
		}
		m, ok, end := s.read()
		switch {
		case ok:
			return m, nil
		case end != nil:
			s.side.doneReading(end)
			return Message{}, end
		}
		if err := s.wait(s.recv.changed); err != nil {
			return Message{}, err
		}
	}
}

// read returns the next message if it has come, or why none will come. If it is time to, it grants
// the peer more credit.
func (s *Stream) read() (m Message, ok bool, end error) {
	s.mu.Lock()
	b, compressed, ok, err := s.recv.Message()
	over, status, ended := s.over, s.err, s.recv.Ended()
	switch {
	case s.recv.err != nil:
		err = s.recv.err
	case over && status != nil && errors.Is(err, flow.ErrPartial):
		err = nil // the status says why the message is cut off
	}
	s.recv.err = err
	m = Message{b, s.recv.Largest(), compressed}
	s.recv.answering = ok && !s.recv.Unread()
	credit, due := s.recv.Grant()
	grant := due && !over && s.open && err == nil
	s.mu.Unlock()
	if grant {
		s.publishControl(wire.KindCredit, credit)
	}
	switch {
	case err != nil:
		return m, false, err
	case ok && (!over || ended):
		return m, true, nil
	case over && status != nil:
		return m, false, status
	case over, ended:
		return m, false, io.EOF
	}
	return m, false, nil
}

// Reject makes err the error of this and every further Recv, as what came is not valid. It returns
// the first one. On a client that ends the stream; on a server the handler ends it by returning.
func (s *Stream) Reject(err error) error {
	s.mu.Lock()
	if s.recv.err == nil {
		s.recv.err = err
	}
	err = s.recv.err
	s.mu.Unlock()
	s.side.doneReading(err)
	return err
}

// Break ends the stream without telling the peer, which knows or cannot be told.
func (s *Stream) Break(err error) { s.end(err, false) }

// end ends the stream. It reports whether this is the first end, and whether the stream was open.
func (s *Stream) end(err error, byPeer bool) (first, open bool) {
	s.mu.Lock()
	first, open = s.endLocked(err, byPeer), s.open
	s.mu.Unlock()
	if first {
		s.leave()
	}
	return first, open
}

// endLocked ends the stream; err is nil for a clean end. Only the first end counts, and returns
// true: then leave has to follow.
func (s *Stream) endLocked(err error, byPeer bool) (first bool) {
	if s.over {
		return false
	}
	s.over, s.err, s.byPeer = true, err, byPeer
	close(s.ended)
	return true
}

// leave ends what belongs to a stream that has just ended.
func (s *Stream) leave() {
	s.Table.remove(s)
	s.side.onOver()
}

// maxSilence is how many heartbeats may fail to come before a peer is taken for dead.
const maxSilence = 3

// keep sends a heartbeat when it is time to, and ends the stream if nothing has come for long.
func (s *Stream) keep(now time.Time, heartbeat time.Duration) {
	s.mu.Lock()
	limit := s.life.openTimeout
	if s.open {
		limit = maxSilence * heartbeat
	}
	dead := !s.over && limit > 0 && now.Sub(s.life.heardAt) > limit
	// A quarter early, as the next look would be late.
	due := s.open && !s.over && now.Sub(s.life.beatAt) >= heartbeat*3/4
	if due && !dead {
		s.send.beat, s.life.beatAt = true, now
		s.flushLocked()
	}
	s.mu.Unlock()
	if dead {
		s.side.End(&SilenceError{limit})
	}
}
