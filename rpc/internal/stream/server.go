package stream

import (
	"context"
	"maps"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/wait"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// ServerCall is the call that a server's stream belongs to.
type ServerCall interface {
	// EndStatus returns how the client is told about an error.
	EndStatus(err error) EndStatus
	// StreamEnded runs once when the stream is over; err is nil after a clean end.
	StreamEnded(err error)
	// ContextEnded is Err of the context that was given to NewServer, without a look at the clock.
	ContextEnded() error
}

// EndStatus is what a server's end frame says about an error.
type EndStatus struct {
	Header nats.Header
	Body   []byte // the status
	Flags  wire.Flags
}

// Server is the server's side of a stream.
type Server struct {
	Stream
	owner ServerCall
	own   context.Context // the call's context; ServerCall.ContextEnded is its Err

	// Under mu.
	header  nats.Header // for the next frame
	trailer nats.Header // for the end frame, like last
	last    EndStatus
	final   error // the status of the end frame

	// accepting says that the accept is being published. An end that comes meanwhile is sent behind
	// it.
	accepting bool
}

// fetchTimeout is how long a large response waits for the credit of its caller, which a client
// that waits for the response sends at once. It is as long as a client waits for one that has died.
const fetchTimeout = 4 * time.Second

// NewServer returns the server's side of a stream. Send and Recv wait under ctx. open is what the
// client's open says; it is zero if the stream is for a large response.
func NewServer(ctx context.Context, config Config, owner ServerCall, open wire.Open) *Server {
	s := &Server{owner: owner, own: ctx}
	s.init(ctx, config, s)
	s.life.openTimeout = fetchTimeout
	s.send.GrantInOpen(open.Credit)
	s.recv.Opening(open.Data)
	if open.HalfClose {
		s.recv.EndedInOpening()
	}
	return s
}

// Accept adds the stream to the table and opens it. announce publishes the accept, with the credit
// for the client. An error of announce ends the stream, and so does ErrDuplicate. If the connection
// is lost meanwhile, Accept returns why. to is the subject for the server's frames, or "" if the
// client is yet to send it.
func (s *Server) Accept(to string, announce func(credit uint64) error) error {
	s.mu.Lock()
	if s.over { // by Refuse
		defer s.mu.Unlock()
		return s.err
	}
	s.life.heardAt = time.Now() // while the call was queued, the client could not send anything
	s.accepting = to != ""
	credit, _ := s.recv.Grant()
	added := s.Table.add(&s.Stream)
	s.mu.Unlock()
	err := ErrDuplicate
	if added {
		err = announce(credit)
	}
	if err != nil {
		s.Break(err)
		return err
	}
	s.mu.Lock() // only now, so that nothing overtakes the accept
	defer s.mu.Unlock()
	s.accepting = false
	if s.over { // the connection was lost meanwhile
		return s.err
	}
	if to != "" && !s.open {
		s.to, s.open = to, true
	}
	s.flushLocked()
	return nil
}

// Refuse ends a stream whose accept has not been published, and is not being published. Accept then
// fails. It reports whether that is so: otherwise only a frame may tell the client.
func (s *Server) Refuse(err error) (refused bool) {
	s.mu.Lock()
	refused = !s.open && !s.accepting
	first := refused && s.endLocked(err, false)
	s.mu.Unlock()
	if first {
		s.leave()
	}
	return refused
}

// SendHeader publishes the response header before the first message, and sets it for the next frame
// too, in case the frame is lost.
func (s *Server) SendHeader(h nats.Header) {
	early := maps.Clone(h) // an end frame may add to h from here on
	s.SetHeader(h)
	to, _ := s.To()
	_ = publish.Send(s.Conn, &nats.Msg{Subject: to, Header: early, Data: wire.AppendFrame(nil, wire.KindHeader, 0)})
}

// SetHeader sets the header of the next frame. The header is the stream's from then on.
func (s *Server) SetHeader(h nats.Header) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.header = h
}

// Finish ends the stream behind what is queued, with a status that is nil for a clean end, and with
// a trailer. The first status counts, unless End replaces one that has not been sent.
func (s *Server) Finish(err error, trailer nats.Header) {
	last := s.lastOf(err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trailer = trailer
	s.closeLocked(err, last)
	s.flushLocked()
}

// End ends the stream with a status, instead of what is queued. If there is no subject to send the
// status to, it just ends the stream.
func (s *Server) End(err error) {
	last := s.lastOf(err)
	s.mu.Lock()
	s.closeLocked(err, last)
	if !s.send.Ended() {
		s.final, s.last, s.send.closed = err, last, err
		s.send.Discard()
	}
	s.flushLocked()
	nowhere := !s.open && !s.accepting
	s.mu.Unlock()
	if nowhere {
		s.Break(err)
	}
}

// EndAndWait is End, and waits until the stream is over.
func (s *Server) EndAndWait(err error) {
	s.End(err)
	<-s.ended // the flusher needs no credit for an end frame
}

func (s *Server) lastOf(err error) EndStatus {
	if err == nil {
		return EndStatus{}
	}
	return s.owner.EndStatus(err)
}

// closeLocked closes the sending half; what the client sends is ignored from now on.
func (s *Server) closeLocked(err error, last EndStatus) {
	if s.send.Closing() {
		return
	}
	s.final, s.last = err, last
	s.send.Close()
	if s.send.closed = err; err == nil {
		s.send.closed = ErrClosed
	}
	s.recv.ignoring = true
	wait.Signal(s.send.changed)
}

// control implements side.
func (s *Server) control(m *nats.Msg) error { return publish.Send(s.Conn, m) }

// doneReading implements side: the stream ends when the handler returns.
func (s *Server) doneReading(error) {}

// onOver implements side.
func (s *Server) onOver() {
	s.mu.Lock()
	err := s.err
	s.mu.Unlock()
	s.owner.StreamEnded(err)
}

// checkContext implements side. The handler's context, which may be shorter than the call's, ends
// Send and Recv, and not the stream.
func (s *Server) checkContext() error {
	ctx := *s.ctx.Load()
	if ctx == s.own {
		if s.owner.ContextEnded() == nil {
			return nil
		}
	} else if ctx.Err() == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over { // its own error says more
		return nil
	}
	return &ContextError{ctx}
}

// deliver implements side.
func (s *Server) deliver(m *nats.Msg) { s.receive(m) }

// takeLocked implements side: the subject for answers, the half-close, and the cancel.
func (s *Server) takeLocked(f wire.Frame, m *nats.Msg) error {
	s.send.Heard()
	if m.Reply != "" {
		s.to, s.open = m.Reply, true
	}
	switch f.Kind {
	case wire.KindEnd:
		return s.recv.End(f.Number)
	case wire.KindStreamCancel:
		s.endLocked(ErrCanceled, false)
	}
	return nil
}

// addLocked implements side: the response header in the first frame, the trailer and the status in
// the last.
func (s *Server) addLocked(o outgoing, kind wire.Kind) outgoing {
	if kind != wire.KindData && kind != wire.KindEnd {
		return o
	}
	o.msg.Header, s.header = s.header, nil
	if kind == wire.KindData {
		return o
	}
	for _, h := range []nats.Header{s.trailer, s.last.Header} {
		if o.msg.Header == nil {
			o.msg.Header = h
		} else {
			maps.Copy(o.msg.Header, h)
		}
	}
	o.buf.B = append(o.buf.B, s.last.Body...)
	o.buf.B[wire.FlagsOffset] |= byte(s.last.Flags)
	o.msg.Data = o.buf.B
	o.sent = s.lastSent
	return o
}

// lastSent ends the stream, whose end frame has been published.
func (s *Server) lastSent() {
	s.mu.Lock()
	to, final := s.to, s.final
	s.mu.Unlock()
	_ = s.Conn.Publish(to, nil) // tells accounts to free what they keep for the reply subject
	s.Break(final)
}
