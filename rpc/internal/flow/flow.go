// Package flow has the two halves of a stream as state machines without I/O,
// locks or clocks: what may be sent, what has been received, and what of it is
// an error. docs/protocol.md, "Streams", is its source.
//
// A Sender takes messages and gives frames, as far as there is credit; a
// Receiver takes frames, gives messages, and says when to grant more credit.
package flow

import (
	"errors"
	"fmt"

	"github.com/natscall/natscall/rpc/internal/wire"
)

const (
	// Window is how much a receiver lets a sender be ahead at first, in bytes of the
	// credit, and MaxWindow how much where the reader keeps up and the sender waits
	// for credit nevertheless: the way of the credit is long then, or busy.
	Window    = 1 << 20
	MaxWindow = 4 << 20
	// grants is in how many steps a window is granted: enough for the sender
	// to go on while a credit is on its way.
	grants = 8
	// MaxAhead bounds what is sent behind a credit, whatever that grants: a peer that has gone,
	// or means harm, does not get more. It is four of our own largest windows.
	MaxAhead = 16 << 20
	// MaxBody is the largest body of a frame: about the read buffer of nats.go
	// and nats-server, which copy what is larger once more; and small frames let
	// other calls in between.
	MaxBody = 32 << 10
)

// The errors of a Receiver. All end the stream.
var (
	ErrLost     = errors.New("a frame was lost, or came twice")
	ErrCredit   = errors.New("the peer has sent more than its credit")
	ErrTooLarge = errors.New("message is too large")
	ErrPrefix   = errors.New("malformed message prefix")
	ErrPartial  = errors.New("the stream ended within a message")
	ErrAfterEnd = errors.New("a frame came after the end")
	ErrEmpty    = errors.New("data frame without data")
)

// Sender is the sending half of a stream.
type Sender struct {
	buffer  []byte // the byte stream that is not framed yet, from start on
	start   int
	opening uint64 // the credit of the open, until the peer is heard again
	credit  uint64 // total that may be spent
	spent   uint64 // of it
	next    uint64 // sequence of the next data or end frame
	cut     int    // bytes that are left of a message whose first part has been framed
	waited  bool   // a frame has had to wait for credit
	closing bool   // nothing is pushed any more
	ended   bool   // the end frame has been taken
}

// Grow returns where to encode a message: append it to the result, which ends
// with room for its prefix, and hand that to Push.
func (s *Sender) Grow() []byte {
	if s.start > len(s.buffer)/2 { // what has been framed is the larger part
		n := copy(s.buffer, s.buffer[s.start:])
		s.buffer, s.start = s.buffer[:n], 0
	}
	return append(s.buffer, 0, 0, 0, 0, 0)
}

// Push takes the buffer of Grow with the message appended to it.
func (s *Sender) Push(b []byte, compressed bool) {
	wire.PutMessagePrefix(b[len(s.buffer):], compressed, len(b)-len(s.buffer)-wire.MessagePrefix)
	s.buffer = b
}

// Buffered is how many bytes wait to be framed.
func (s *Sender) Buffered() int { return len(s.buffer) - s.start }

// GrantInOpen takes the credit of an open. No more than a Window of it counts before the client
// is heard: the sender of an open may not listen at all.
func (s *Sender) GrantInOpen(total uint64) {
	s.opening = total
	s.credit = min(total, Window)
}

// Heard says that a frame of the client's came: the open's credit counts.
func (s *Sender) Heard() {
	if s.opening > 0 {
		s.Grant(s.opening)
		s.opening = 0
	}
}

// Grant raises the credit; credits may come late or twice. It counts for MaxAhead bytes
// from here, then the peer has to grant more, or to repeat it, as heartbeats do.
func (s *Sender) Grant(total uint64) {
	total = min(total, s.spent+MaxAhead)
	if total > s.credit {
		s.waited = s.waited || s.blocked()
		s.credit = total
	}
}

// blocked reports whether something is buffered that there is no credit for.
func (s *Sender) blocked() bool {
	if s.Buffered() == 0 {
		return false
	}
	n, _ := s.body(MaxBody)
	return n == 0
}

// Close says that nothing more is pushed: the end frame follows what is buffered.
func (s *Sender) Close() { s.closing = true }

// Discard is Close without what is buffered.
func (s *Sender) Discard() {
	s.closing = true
	s.buffer, s.start, s.cut = nil, 0, 0
}

// Closing reports whether the half is closed to messages.
func (s *Sender) Closing() bool { return s.closing }

// Ended reports whether the end frame has been taken.
func (s *Sender) Ended() bool { return s.ended }

// Next is the sequence of the next data or end frame, for heartbeats.
func (s *Sender) Next() uint64 { return s.next }

// AppendFrame appends the next frame to b: data, or the end. ok is false
// while there is nothing to send, or no credit for it.
func (s *Sender) AppendFrame(b []byte, maxBody int) (frame []byte, kind wire.Kind, ok bool) {
	n, cut := s.body(maxBody)
	switch {
	case n > 0:
		b = append(s.appendHeader(b), s.buffer[s.start:s.start+n]...)
		kind = wire.KindData
		s.start += n
		s.cut = cut
		s.spent += uint64(n + wire.FrameCost)
	case s.Buffered() == 0 && s.closing && !s.ended:
		b = wire.AppendFrame(b, wire.KindEnd, s.next)
		kind, s.ended = wire.KindEnd, true
		s.buffer, s.start = nil, 0
	default:
		s.waited = s.Buffered() > 0
		return b, 0, false
	}
	s.next++
	if s.start == len(s.buffer) && cap(s.buffer) > maxKept { // of a rare large message
		s.buffer, s.start = nil, 0
	}
	return b, kind, true
}

// appendHeader appends the header of the next data frame.
func (s *Sender) appendHeader(b []byte) []byte {
	at := len(b)
	b = wire.AppendFrame(b, wire.KindData, s.next)
	if s.waited {
		b[at+wire.FlagsOffset] |= byte(wire.FlagWaited)
		s.waited = false
	}
	return b
}

// FrameRoom is the room before a message that Frame needs.
const FrameRoom = wire.MaxFrameHeader + wire.MessagePrefix

// Frame makes a data frame of a message alone, without a copy: b has the message
// behind FrameRoom bytes, and the frame is the end of b. ok is false where other
// messages or credit have to come first, or the message does not fit: Push takes it then.
func (s *Sender) Frame(b []byte, compressed bool, maxBody int) (frame []byte, ok bool) {
	body := len(b) - wire.MaxFrameHeader
	if s.Buffered() > 0 || body > maxBody {
		return nil, false
	}
	if body > s.room() {
		s.waited = true
		return nil, false
	}
	wire.PutMessagePrefix(b[wire.MaxFrameHeader:], compressed, len(b)-FrameRoom)
	var room [wire.MaxFrameHeader]byte
	header := s.appendHeader(room[:0])
	frame = b[wire.MaxFrameHeader-len(header):]
	copy(frame, header)
	s.next++
	s.spent += uint64(body + wire.FrameCost)
	return frame, true
}

// maxKept is the buffer that a sender keeps between messages: some frames.
const maxKept = 4 * MaxBody

// CanSend reports whether AppendFrame has a frame.
func (s *Sender) CanSend(maxBody int) bool {
	if s.Buffered() > 0 {
		n, _ := s.body(maxBody)
		return n > 0
	}
	return s.closing && !s.ended
}

// body is the size of the next frame's body, and how much it leaves of a
// message that it cuts. A frame takes as many whole messages as fit, since a receiver has to put
// together what is cut; only a message that is larger than a body is. One
// that the credit is too small for waits: when the receiver has
// read what it has, it grants more than a body.
func (s *Sender) body(maxBody int) (n, cut int) {
	limit := min(maxBody, s.room())
	n = min(s.cut, limit)
	if s.cut > n {
		return n, s.cut - n
	}
	for s.start+n < len(s.buffer) {
		size := wire.MessagePrefix + wire.MessageSize(s.buffer[s.start+n:])
		if n+size > limit {
			if n == 0 && size > maxBody {
				return limit, size - limit
			}
			break
		}
		n += size
	}
	return n, 0
}

// Opening takes what is buffered, to travel in the open and for free, if all
// of it fits into limit bytes; else nothing. The bytes are valid until the next Grow.
func (s *Sender) Opening(limit int) []byte {
	if s.Buffered() > limit {
		return nil
	}
	b := s.buffer[s.start:]
	s.start = len(s.buffer)
	return b
}

// EndedInOpening says that the open has carried the half-close too.
func (s *Sender) EndedInOpening() { s.closing, s.ended = true, true }

func (s *Sender) room() int {
	if s.credit < s.spent+wire.FrameCost {
		return 0
	}
	return int(min(s.credit-s.spent-wire.FrameCost, MaxBody))
}

// Receiver is the receiving half of a stream.
type Receiver struct {
	// MaxMessage bounds a message in bytes. It must be set before the first frame.
	MaxMessage int

	frames  [][]byte // bodies that have not been read
	largest int      // of all bodies
	offset  int      // into the first of them
	next    uint64   // sequence of the next frame
	got     uint64   // cost of all frames
	read    uint64   // cost of those that have been read
	granted uint64
	window  uint64 // Window to MaxWindow; 0 is Window
	opening bool   // the first of frames came in the open: it is free
	ended   bool
	err     error // the first error of Message; it stays

	partial
}

// partial is the message that a receiver puts together.
type partial struct {
	prefix     [wire.MessagePrefix]byte
	havePre    int    // bytes of the prefix that have come
	message    []byte // that is being put together
	need       int    // its length, once the prefix is complete
	compressed bool   // it is compressed
}

// Data takes the body of a data frame, which it keeps.
func (r *Receiver) Data(sequence uint64, body []byte) error {
	if err := r.advance(sequence); err != nil {
		return err
	}
	if len(body) == 0 {
		return ErrEmpty
	}
	r.got += uint64(len(body) + wire.FrameCost)
	if r.got > r.granted {
		return fmt.Errorf("%w: %d of %d bytes", ErrCredit, r.got, r.granted)
	}
	r.frames = append(r.frames, body)
	r.largest = max(r.largest, len(body))
	return nil
}

// Opening takes what came in the open, which needs no credit.
func (r *Receiver) Opening(data []byte) {
	if len(data) == 0 {
		return
	}
	r.opening = true
	r.frames = append(r.frames, data)
}

// End takes the end frame.
func (r *Receiver) End(sequence uint64) error {
	if err := r.advance(sequence); err != nil {
		return err
	}
	r.ended = true
	return nil
}

// Heartbeat checks what a heartbeat says about frames before it.
func (r *Receiver) Heartbeat(next uint64) error {
	if next > r.next {
		return fmt.Errorf("%w: frame %d is expected, the peer is at %d", ErrLost, r.next, next)
	}
	return nil
}

func (r *Receiver) advance(sequence uint64) error {
	if sequence != r.next {
		return fmt.Errorf("%w: frame %d came instead of %d", ErrLost, sequence, r.next)
	}
	if r.ended {
		return ErrAfterEnd
	}
	r.next++
	return nil
}

// Ended reports whether the end frame has come; messages may be left to be read.
func (r *Receiver) Ended() bool { return r.ended }

// EndedInOpening says that the open has carried the half-close.
func (r *Receiver) EndedInOpening() { r.ended = true }

// Waited says that the last data frame had to wait for credit. If most of what
// came has been read by then, the window was too small for the way of the
// credit, and grows; if not, it is the reader that is slow.
func (r *Receiver) Waited() {
	switch unread, window := r.got-r.read, r.size(); {
	case unread < window/4:
		r.window = min(2*window, MaxWindow)
	case unread > window/2:
		r.window = max(window/2, Window)
	}
}

func (r *Receiver) size() uint64 { return max(r.window, Window) }

// Grant returns the credit to tell the sender, if it is time to: at the start
// and when some of the window has been read.
func (r *Receiver) Grant() (total uint64, due bool) {
	total = r.read + r.size()
	if r.ended || total < r.granted+r.size()/grants && r.granted > 0 {
		return r.granted, false
	}
	r.granted = max(r.granted, total)
	return r.granted, true
}

// Largest is what a message that has been read may be part of, in bytes.
func (r *Receiver) Largest() int { return max(r.largest, MaxBody) }

// Unread reports whether anything is left to be read.
func (r *Receiver) Unread() bool { return len(r.frames) > 0 }

// Granted is the credit that the sender has been told, for heartbeats.
func (r *Receiver) Granted() uint64 { return r.granted }

// Message returns the next message. ok is false where none is complete; then
// an ended stream has nothing more. The bytes are the caller's, as they came:
// compressed says how to read them. An error stays.
func (r *Receiver) Message() (message []byte, compressed, ok bool, err error) {
	if r.err == nil {
		message, ok, r.err = r.nextMessage()
	}
	return message, r.compressed, ok, r.err
}

func (r *Receiver) nextMessage() (message []byte, ok bool, err error) {
	for len(r.frames) > 0 {
		if r.havePre < len(r.prefix) {
			if err := r.readPrefix(); err != nil {
				return nil, false, err
			}
			continue
		}
		if whole := r.take(r.need - len(r.message)); len(r.message) == 0 && len(whole) == r.need {
			r.message = whole // not copied: nobody else has these bytes
		} else {
			r.message = append(r.message, whole...)
		}
		if len(r.message) == r.need {
			return r.complete(), true, nil
		}
	}
	if r.havePre == len(r.prefix) && r.need == 0 { // its prefix was the end of a frame
		return r.complete(), true, nil
	}
	if r.ended && r.havePre > 0 {
		return nil, false, ErrPartial
	}
	return nil, false, nil
}

// complete returns the message that has come together and starts the next.
func (r *Receiver) complete() []byte {
	m := r.message
	r.message, r.havePre, r.need = nil, 0, 0
	return m[:len(m):len(m)]
}

// readPrefix reads as much of a prefix as the first frame has.
func (r *Receiver) readPrefix() error {
	r.havePre += copy(r.prefix[r.havePre:], r.take(len(r.prefix)-r.havePre))
	if r.havePre < len(r.prefix) {
		return nil
	}
	n, compressed, err := wire.ParseMessagePrefix(r.prefix[:])
	if err != nil {
		return fmt.Errorf("%w: %w", ErrPrefix, err)
	}
	if n < 0 || n > r.MaxMessage { // below 0 where an int has 32 bits
		return fmt.Errorf("%w: it has %d bytes, the limit is %d (rpc.WithMaxMessageSize or WithMaxReceiveSize)", ErrTooLarge, uint32(n), r.MaxMessage)
	}
	r.need, r.compressed = n, compressed
	return nil
}

// take takes up to n bytes of the first frame.
func (r *Receiver) take(n int) []byte {
	f := r.frames[0][r.offset:]
	n = min(n, len(f))
	r.offset += n
	if !r.opening {
		r.read += uint64(n)
	}
	if n == len(f) {
		if !r.opening {
			r.read += wire.FrameCost
		}
		r.opening = false
		r.frames[0] = nil
		r.frames, r.offset = r.frames[1:], 0
	}
	return f[:n]
}
