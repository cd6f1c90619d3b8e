package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/rpc/internal/flow"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// stream is one side of a stream: the untyped core behind Sender, Receiver,
// ClientStream and BidiStream. docs/protocol.md, "Streams", is its source.
//
//	           accept            last end, both ways
//	opening ------------> open ------------------------> over
//	   |                    |        fail
//	   +--------------------+---------------------------> over
//
// A server's stream starts open. Only end changes to over; it does so once.
// The two halves are state machines of package flow; they live under mu, as everything
// that NATS callbacks, the user's goroutines and the flusher share.
type stream struct {
	id      wire.ID
	call    *Call
	nc      *nats.Conn
	table   *streamTable
	ctx     context.Context // what Send and Recv wait under: they have none of their own, like those of gRPC
	codec   Codec
	maxSize int

	compression Compression
	maxBody     int // of a frame; a stream does not outlive its connection, nor its max_payload

	mu       sync.Mutex
	send     flow.Sender
	recv     flow.Receiver
	to       string // subject for frames; "" while opening
	flushing bool
	over     bool
	err      *Error      // why it is over; nil after a clean end
	final    *Error      // server: the status of the end frame
	header   nats.Header // server: for the next frame
	trailer  nats.Header // server: for the end frame
	begun    bool        // server: header has been set
	beat     bool        // a heartbeat is due
	beatAt   time.Time   // of the last heartbeat
	heardAt  time.Time
	renewals int // client: reply subjects so far

	readable chan struct{} // holds one token when recv, over or to has changed
	writable chan struct{} // likewise for room in send
	ended    chan struct{} // closed when over

	onEnd    func(*Error) // what else has to end with the stream
	whenOver func(error)  // under mu; the hooks of the interceptors
}

// highWater is how many bytes a sender keeps before Send waits: enough to
// fill the next frames while one is written.
const highWater = 2 * flow.MaxBody

func newStream(id wire.ID, call *Call, nc *nats.Conn, table *streamTable, maxSize int) *stream {
	now := time.Now()
	return &stream{
		id: id, call: call, nc: nc, table: table, maxSize: maxSize, maxBody: maxBodyOf(nc), recv: flow.Receiver{MaxMessage: maxSize},
		beatAt: now, heardAt: now,
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1), ended: make(chan struct{}),
	}
}

// accepted tells whether the stream has been open.
func (s *stream) accepted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.to != ""
}

// signal leaves a token for who waits, or will.
func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// sendMessage queues a message; it waits while too much is queued.
func (s *stream) sendMessage(m proto.Message) error {
	if err := s.begin(); err != nil {
		return err
	}
	if hook := s.call.onSend; hook != nil {
		if err := hook(m); err != nil {
			return err
		}
	}
	buf := takeBuffer()
	defer buf.putBack()
	var err error
	if buf.b, err = s.codec.appendMessage(buf.b, m); err != nil {
		return failf(CodeInternal, MayHaveRun, "the message does not encode: %v", err).because(err)
	}
	return s.sendBuffer(buf)
}

func (s *stream) sendBuffer(buf *buffer) error {
	if !buf.packed && len(buf.b) > s.maxSize {
		return failf(CodeResourceExhausted, MayHaveRun, "the message has %d bytes, the limit is %d", len(buf.b), s.maxSize)
	}
	buf.pack(s.compression, 0)
	s.mu.Lock()
	for !s.over && !s.sendClosedLocked() && s.send.Buffered() > highWater {
		s.mu.Unlock()
		if err := s.await(s.writable); err != nil {
			return err
		}
		s.mu.Lock()
	}
	defer s.mu.Unlock()
	switch {
	case s.over:
		return s.sendErrorLocked()
	case s.sendClosedLocked() && s.final != nil: // a server's stream that fails while its handler runs
		return s.final
	case s.sendClosedLocked():
		return failf(CodeFailedPrecondition, MayHaveRun, "Send after the end of the sending half")
	}
	s.send.Push(append(s.send.Grow(), buf.b...), buf.packed)
	s.flushLocked()
	return nil
}

func (s *stream) sendClosedLocked() bool { return s.send.Closing() }

// sendErrorLocked is what Send returns on a stream that is over: io.EOF where the
// peer has ended it, and Recv tells how, like gRPC.
func (s *stream) sendErrorLocked() error {
	if s.err == nil || s.err.remote {
		return io.EOF
	}
	return s.err
}

// closeSend ends the sending half of a client. Again it does nothing.
func (s *stream) closeSend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.send.Close()
		s.flushLocked()
	}
}

// recvMessage receives the next message into m; io.EOF is the clean end.
func (s *stream) recvMessage(m proto.Message) error {
	b, err := s.recvBytes()
	if err != nil {
		return err
	}
	if err := s.codec.unmarshal(b, m); err != nil {
		e := s.peerError("the message is not a valid %s: %v", messageName(m), err)
		s.cancel(e)
		return e
	}
	// The request and the response of the shapes that have one are no messages of a
	// stream, but there is no other way to see the response of a client's stream.
	if hook := s.call.onReceive; hook != nil && (s.call.streamsIn() || s.call.method.kind == KindClientStream) {
		return hook(m)
	}
	return nil
}

// peerError is the error of a peer that sends what it may not.
func (s *stream) peerError(format string, args ...any) *Error {
	if s.call.onServer {
		return failf(CodeInvalidArgument, MayHaveRun, format, args...)
	}
	return failf(CodeInternal, DidRun, format, args...)
}

func (s *stream) recvBytes() ([]byte, error) {
	for {
		s.mu.Lock()
		b, packed, ok, err := s.recv.Message()
		ended, over, status := s.recv.Ended(), s.over, s.err
		credit, due := s.recv.Grant()
		grant := due && !over && s.to != ""
		s.mu.Unlock()
		switch {
		case err != nil:
			e := flowError(err)
			if !s.call.onServer { // there the handler's return says it
				s.cancel(e)
			}
			return nil, e
		case grant:
			s.publishCredit(credit)
		}
		switch {
		case ok && (!over || ended):
			return s.unpack(b, packed)
		case over && status != nil:
			s.finished()
			return nil, status
		case over, ended && s.call.onServer: // on a client the status is not there before over
			s.finished()
			return nil, io.EOF
		}
		if err := s.await(s.readable); err != nil {
			return nil, err
		}
	}
}

// await waits for a token, or the end of the stream, which the end of a
// client's context brings about. That of a server's handler is an end of its own.
func (s *stream) await(token <-chan struct{}) error {
	var done <-chan struct{}
	if s.call.onServer {
		done = s.ctx.Done()
	}
	select {
	case <-token:
		return nil
	case <-s.ended:
		return nil
	case <-done:
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over { // which says more
		return nil
	}
	return contextError(s.ctx.Err(), MayHaveRun)
}

// unpack decompresses a message that is compressed.
func (s *stream) unpack(b []byte, packed bool) ([]byte, error) {
	if !packed {
		return b, nil
	}
	b, failed := s.compression.unpack(b, s.maxSize)
	if failed == nil {
		return b, nil
	}
	if !s.call.onServer { // there the handler's return says it
		s.cancel(failed)
	}
	return nil, failed
}

// flowError says what an error of package flow means for the stream.
func flowError(err error) *Error {
	code := CodeInternal
	switch {
	case errors.Is(err, flow.ErrLost), errors.Is(err, flow.ErrPartial):
		code = CodeDataLoss
	case errors.Is(err, flow.ErrTooLarge):
		code = CodeResourceExhausted
	}
	return failf(code, MayHaveRun, "stream: %v", err).because(err)
}

// flushLocked starts the flusher if it has something to do. The flusher ends
// when it has not: an idle stream has no goroutine.
func (s *stream) flushLocked() {
	if s.flushing || s.to == "" || s.over || !s.send.CanSend(s.maxBody) && !s.beat {
		return
	}
	s.flushing = true
	go s.flush()
}

// flush publishes frames until there are none, or no credit for them. It
// takes all that is queued into a frame, up to the frame's size; while it
// publishes one, messages gather for the next.
func (s *stream) flush() {
	for {
		o, more := s.nextFrame()
		if !more {
			return
		}
		err := publishMsg(s.nc, &o.msg)
		o.buf.putBack()
		if err != nil {
			s.end(natsError(err, MayHaveRun))
			return
		}
		signal(s.writable)
		if o.last {
			s.endSent()
			return
		}
	}
}

type outgoingFrame struct {
	msg  nats.Msg
	buf  *buffer
	last bool // of a server's stream
}

// nextFrame takes the next frame. All that has a sequence goes through here,
// so that it is published in order: a heartbeat too, as it names the next.
func (s *stream) nextFrame() (o outgoingFrame, more bool) {
	buf := takeBuffer()
	s.mu.Lock()
	defer s.mu.Unlock()
	kind, ok := wire.KindData, false
	switch {
	case s.over:
	case s.beat: // also where there is more to send: it repeats the credit
		buf.b, kind, ok = wire.AppendHeartbeat(buf.b, s.send.Next(), s.recv.Granted()), wire.KindHeartbeat, true
	default:
		buf.b, kind, ok = s.send.AppendFrame(buf.b, s.maxBody)
	}
	s.beat = false
	if !ok {
		s.flushing = false
		buf.putBack()
		return o, false
	}
	o = outgoingFrame{msg: nats.Msg{Subject: s.to, Data: buf.b}, buf: buf}
	if s.call.onServer {
		s.decorateLocked(&o, kind)
	} else if kind == wire.KindHeartbeat {
		o.msg.Reply = s.renewReplyLocked()
	}
	return o, true
}

// decorateLocked adds what only servers send: the response header with the
// first frame, the status with the last.
func (s *stream) decorateLocked(o *outgoingFrame, kind wire.Kind) {
	if kind != wire.KindHeartbeat {
		o.msg.Header, s.header = s.header, nil
	}
	if kind != wire.KindEnd {
		return
	}
	o.last = true
	o.msg.Header = mergeHeader(o.msg.Header, s.trailer)
	if e := s.final; e != nil {
		if int64(proto.Size(e.status())) > s.nc.MaxPayload()/2 {
			e = e.shortened()
		}
		o.msg.Header = e.header(o.msg.Header)
		o.buf.b, _ = CodecProto.appendMessage(o.buf.b, e.status())
		if s.call.served.tellNotRun(e) {
			o.buf.b[wire.FlagsOffset] |= byte(wire.FlagNotRun)
		}
		o.msg.Data = o.buf.b
	}
}

// maxBodyOf keeps a frame, with headers, within max_payload.
func maxBodyOf(nc *nats.Conn) int {
	return int(max(1, min(flow.MaxBody, nc.MaxPayload()/2)))
}

func (s *stream) publishCredit(credit uint64) { s.publishControl(wire.KindCredit, credit) }

// publishControl publishes a credit or cancel, which have no place in the
// sequence. A client's credit carries a fresh reply subject. What cannot be published is noticed by the next heartbeat, which repeats a credit.
func (s *stream) publishControl(kind wire.Kind, number uint64) {
	s.mu.Lock()
	m := nats.Msg{Subject: s.to, Data: wire.AppendFrame(nil, kind, number)}
	if !s.call.onServer && kind == wire.KindCredit {
		m.Reply = s.renewReplyLocked()
	}
	s.mu.Unlock()
	if m.Subject != "" {
		_ = publishMsg(s.nc, &m)
	}
}

// renewReplyLocked returns a reply subject that nobody has used.
func (s *stream) renewReplyLocked() string {
	s.renewals++
	return fmt.Sprintf("%s%s%v-%d", s.table.inbox, streamToken, s.id, s.renewals)
}

// streamToken begins the last token of a stream's reply subjects.
const streamToken = "s"

// parseStreamToken reads the stream's id out of the token behind streamToken.
func parseStreamToken(token string) (wire.ID, bool) {
	text, _, _ := strings.Cut(token, "-")
	return wire.ParseID(text)
}

// end ends the stream on this side; err is nil for a clean end. Only the first end counts.
func (s *stream) end(err *Error) {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return
	}
	s.over, s.err = true, err
	close(s.ended)
	read := s.recv.Ended() // there may be messages to be read
	s.mu.Unlock()
	s.table.remove(s)
	s.onEnd(err)
	if !read {
		s.finished()
	}
}

// notify makes f run once when a client's stream is over for its reader too: when that has
// read the end, or closed the stream, or ctx has ended.
func (s *stream) notify(ctx context.Context, f func(error)) {
	s.mu.Lock()
	stop := context.AfterFunc(ctx, s.finished)
	s.whenOver = func(err error) { stop(); f(err) }
	read := s.recv.Ended()
	s.mu.Unlock()
	if !read {
		s.finished()
	}
}

// finished runs what notify was given, if the stream is over.
func (s *stream) finished() {
	s.mu.Lock()
	f, err := s.whenOver, s.err
	if f == nil || !s.over {
		s.mu.Unlock()
		return
	}
	s.whenOver = nil
	s.mu.Unlock()
	f(asNil(err))
}

// cancel ends a stream because of this side, and tells the peer: a server by
// its end frame, which the flusher sends, a client by a cancel, but at the
// deadline, which the server knows.
func (s *stream) cancel(err *Error) {
	if s.call.onServer {
		s.mu.Lock()
		s.finishLocked(err, true)
		s.mu.Unlock()
		return
	}
	s.mu.Lock()
	tell, opening := !s.over && err.code != CodeDeadlineExceeded, s.to == ""
	s.mu.Unlock()
	s.end(err)
	switch {
	case tell && opening: // who may accept it is told like who may have a unary call
		_ = s.nc.Publish(wire.Join(s.table.rootOf(s.call.method), wire.CancelToken), wire.AppendCancel(nil, s.id))
	case tell:
		s.publishControl(wire.KindStreamCancel, 0)
	}
}

// finishLocked queues a server's end frame: behind what is queued, or now and
// in its place. The first status counts.
func (s *stream) finishLocked(err *Error, now bool) {
	if !s.send.Closing() {
		s.final = err
	}
	s.send.Close()
	if now && !s.send.Ended() {
		s.final = err
		s.send.Discard()
	}
	s.flushLocked()
}

// receive takes a message of the peer. It is called by the goroutine of a
// subscription and does not block.
func (s *stream) receive(m *nats.Msg) {
	f, err := wire.ParseFrame(m.Data)
	if err != nil {
		s.cancel(failf(CodeInternal, MayHaveRun, "stream: %v", err))
		return
	}
	s.mu.Lock()
	if s.over || s.handlerDoneLocked() && (f.Kind == wire.KindData || f.Kind == wire.KindEnd) {
		s.mu.Unlock()
		return
	}
	s.heardAt = time.Now()
	if s.call.onServer && m.Reply != "" {
		s.to = m.Reply
	}
	done, status, err := s.takeLocked(&f, m)
	if err == nil {
		s.flushLocked()
	}
	s.mu.Unlock()
	signal(s.readable)
	switch {
	case err != nil:
		s.cancel(flowError(err))
	case done:
		s.end(status)
	}
}

// takeLocked changes the halves; done says that the peer has ended the stream, with a status.
func (s *stream) takeLocked(f *wire.Frame, m *nats.Msg) (done bool, status *Error, err error) {
	switch f.Kind {
	case wire.KindData:
		s.takeHeaderLocked(m)
		return false, nil, s.recv.Data(f.Number, f.Body)
	case wire.KindEnd:
		return s.takeEndLocked(f, m)
	case wire.KindCredit:
		s.send.Grant(f.Number)
	case wire.KindHeartbeat:
		return false, nil, s.takeHeartbeatLocked(f)
	case wire.KindStreamCancel:
		if s.call.onServer {
			return true, failf(CodeCanceled, MayHaveRun, "the caller has gone"), nil
		}
	}
	return false, nil, nil // a second accept, and what only the other side may send
}

// handlerDoneLocked tells whether nobody reads what the client still sends.
func (s *stream) handlerDoneLocked() bool { return s.call.onServer && s.send.Closing() }

func (s *stream) takeHeartbeatLocked(f *wire.Frame) error {
	credit, err := wire.ParseHeartbeat(f)
	if err != nil {
		return err
	}
	s.send.Grant(credit)
	if s.handlerDoneLocked() {
		return nil
	}
	return s.recv.Heartbeat(f.Number)
}

func (s *stream) takeEndLocked(f *wire.Frame, m *nats.Msg) (done bool, status *Error, err error) {
	if s.call.onServer {
		return false, nil, s.recv.End(f.Number) // half-close
	}
	if len(f.Body) > 0 {
		status = parseStatus(f.Body, f.Flags&wire.FlagNotRun != 0)
	}
	s.takeHeaderLocked(m)
	if f.Number == 0 && status != nil && status.code == CodeUnavailable {
		return true, status, nil // whatever is expected: the instance does not know the stream
	}
	err = s.recv.End(f.Number)
	return err == nil, status, err
}

// takeHeaderLocked takes the response header from the first frame and the trailer from the last.
func (s *stream) takeHeaderLocked(m *nats.Msg) {
	if s.call.onServer || len(m.Header) == 0 {
		return
	}
	header, trailer := splitHeader(m.Header)
	if s.call.responseHeader == nil {
		s.call.responseHeader = header
	}
	s.call.responseTrailer = trailer
}
