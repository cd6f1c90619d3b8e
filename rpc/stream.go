package rpc

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/internal/names"
	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/flow"
	"github.com/natscall/natscall/rpc/internal/reply"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// stream is one side of a stream: the untyped core behind Sender, Receiver, ClientStream and
// BidiStream. docs/protocol.md, "Streams", specifies it.
//
//	           accept            last end, both ways
//	opening ------------> open ------------------------> over
//	   |                    |        fail
//	   +--------------------+---------------------------> over
//
// Only end changes the state to over, and only once. A server's stream starts open, unless it
// carries a large response: that waits for the client's credit, which names the subject to send to.
// The two halves are state machines of package flow. mu protects them, like everything else that
// NATS callbacks, the user's goroutines and the flusher share.
type stream struct {
	id      wire.ID
	call    *Call
	nc      *nats.Conn
	table   *streamTable
	caller  context.Context // client: the call's, if ctx is derived from it; else nil
	request string          // client: the subject of the open
	coding  coding
	maxSize int

	// ctx is the context under which Send and Recv wait: like those of gRPC they have none of their
	// own. On a server it changes when the handler returns, while another goroutine may still wait.
	ctx atomic.Pointer[context.Context]

	compression Compression
	maxBody     int // of a frame; constant, as a stream does not outlive its connection

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
	begun    atomic.Bool // server: header has been set
	beat     bool        // a heartbeat is due
	beatAt   time.Time   // of the last heartbeat
	heardAt  time.Time
	renewals int // client: reply subjects so far

	answering bool // the last message received has been read, and nothing sent since

	readable chan struct{} // holds one token when recv, over or to has changed
	writable chan struct{} // likewise for room in send
	ended    chan struct{} // closed when over

	patience        reply.Patience // client, while the stream opens
	foreign         reply.Foreign
	recvErr         *Error // the first error of Recv; it stays
	responseHeader  Header // client: nil until it has come
	responseTrailer Header

	onEnd    func(*Error) // ends everything else that belongs to the stream
	whenOver func(error)  // runs the hooks of the interceptors; under mu
}

// highWater is how many bytes a sender queues before Send waits: enough to fill the next frames
// while one is being written.
const highWater = 2 * flow.MaxBody

func newStream(id wire.ID, call *Call, nc *nats.Conn, table *streamTable, maxSize int) *stream {
	now := time.Now()
	return &stream{
		id: id, call: call, nc: nc, table: table, maxSize: maxSize, maxBody: maxBodyOf(nc), recv: flow.Receiver{MaxMessage: maxSize},
		beatAt: now, heardAt: now,
		readable: make(chan struct{}, 1), writable: make(chan struct{}, 1), ended: make(chan struct{}),
	}
}

// waitUnder makes Send and Recv wait under ctx. It returns the context from before.
func (s *stream) waitUnder(ctx context.Context) (before *context.Context) { return s.ctx.Swap(&ctx) }

// accepted reports whether the stream is, or has been, open.
func (s *stream) accepted() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.to != ""
}

// sendMessage queues a message. It waits while too much is queued.
func (s *stream) sendMessage(m proto.Message) error {
	if err := s.call.checkSent(m); err != nil {
		return err
	}
	if err := s.begin(); err != nil {
		return err
	}
	if err := s.call.sending(m); err != nil {
		return err
	}
	buf := buffer.Take()
	defer buf.PutBack()
	var err error
	if buf.B, err = s.coding.appendMessage(buf.B[:flow.FrameRoom], m); err != nil {
		return failf(CodeInternal, MayHaveRun, "the message does not encode: %v", err).because(err)
	}
	return s.sendBuffer(buf, flow.FrameRoom)
}

// sendBuffer sends the message that starts in the buffer at an offset.
func (s *stream) sendBuffer(buf *buffer.Buffer, from int) error {
	if size := len(buf.B) - from; !buf.Compressed && size > s.maxSize {
		return overLimit("message", size, s.maxSize, MayHaveRun)
	}
	buf.Compress(wire.Compression(s.compression), from)
	if err := s.contextEnded(); err != nil {
		return err
	}
	s.mu.Lock()
	for !s.over && !s.sendClosedLocked() && s.send.Buffered() > highWater {
		s.mu.Unlock()
		if err := s.await(s.writable); err != nil {
			return err
		}
		s.mu.Lock()
	}
	err := s.sendableLocked()
	if err != nil {
		s.mu.Unlock()
		return err
	}
	o, alone := s.frameAloneLocked(buf, from)
	if !alone {
		s.send.Push(append(s.send.Grow(), buf.B[from:]...), buf.Compressed)
		s.flushLocked()
	}
	s.mu.Unlock()
	if alone && s.publishFrame(&o) {
		s.flush() // messages that have been queued meanwhile
	}
	return nil
}

// sendableLocked returns why nothing can be sent, or nil.
func (s *stream) sendableLocked() error {
	switch {
	case s.over:
		return s.sendErrorLocked()
	case s.sendClosedLocked() && s.final != nil: // a server's stream failed while its handler runs
		return s.final
	case s.sendClosedLocked():
		return failf(CodeFailedPrecondition, MayHaveRun, "Send after the end of the sending half")
	}
	return nil
}

// frameAloneLocked makes a frame of a single message, for its sender to publish, if there is
// nothing to share the frame with. It does so for a large message, to save copies, and for one that
// answers the last message received, to save the detour through the flusher's goroutine. Meanwhile
// the sender is the flusher.
func (s *stream) frameAloneLocked(buf *buffer.Buffer, from int) (o outgoingFrame, ok bool) {
	alone := s.answering || len(buf.B)-from >= minAlone
	s.answering = false
	if !alone || from != flow.FrameRoom || s.flushing || s.to == "" || s.beat {
		return o, false
	}
	frame, ok := s.send.Frame(buf.B, buf.Compressed, s.maxBody)
	if !ok {
		return o, false
	}
	o = outgoingFrame{msg: nats.Msg{Subject: s.to, Data: frame}}
	if s.call.onServer {
		s.decorateLocked(&o, wire.KindData)
	}
	s.flushing = true
	return o, true
}

// minAlone is the size from which a message gets a frame of its own: more frames then cost less
// than copying the message.
const minAlone = flow.MaxBody / 4

func (s *stream) sendClosedLocked() bool { return s.send.Closing() }

// sendErrorLocked returns the error of Send on a stream that is over. As in gRPC it is io.EOF if
// the peer has ended the stream; Recv returns how.
func (s *stream) sendErrorLocked() error {
	if s.err == nil || s.err.remote {
		return io.EOF
	}
	return s.err
}

// contextEnded ends a client's stream whose context has ended: the cancel comes from another
// goroutine, and neither a message nor the end may overtake it. On a server it only returns the
// error of Send and Recv, since an interceptor may have given the handler a shorter context.
func (s *stream) contextEnded() error {
	ctx := *s.ctx.Load()
	if c, ok := ctx.(*callContext); ok && s.call.onServer { // without a look at the clock
		if c.ended() == nil {
			return nil
		}
	} else if ctx.Err() == nil && (s.caller == nil || s.caller.Err() == nil) {
		return nil
	}
	if ctx.Err() == nil { // the caller's has ended, and ctx is about to
		ctx = s.caller
	}
	failed := contextError(ctx, MayHaveRun)
	if !s.call.onServer {
		s.cancel(failed)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.over { // its own error says more
		return nil
	}
	return failed
}

// closeSend ends the sending half of a client. The second time it does nothing.
func (s *stream) closeSend() {
	if s.contextEnded() != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.over {
		s.send.Close()
		s.flushLocked()
	}
}

// recvMessage receives the next message into m; io.EOF is the clean end.
func (s *stream) recvMessage(m proto.Message) error {
	b, whole, err := s.recvBytes()
	if err != nil {
		return err
	}
	if err := s.coding.unmarshal(b, m, whole); err != nil {
		return s.failRecv(s.peerError("the message is not a valid %s: %v", messageName(m), err))
	}
	// A single request or response is not a message of a stream, but interceptors have no other way
	// to see the response to a client's stream.
	if s.call.streamsIn() || s.call.method.kind == KindClientStream {
		return s.call.received(m)
	}
	return nil
}

// peerError returns the error of a peer that has sent something invalid.
func (s *stream) peerError(format string, args ...any) *Error {
	if s.call.onServer {
		return failf(CodeInvalidArgument, MayHaveRun, format, args...)
	}
	return failf(CodeInternal, DidRun, format, args...)
}

// recvBytes waits for the next message. It also returns the size of the memory that the message is
// part of.
func (s *stream) recvBytes() ([]byte, int, error) {
	for {
		if err := s.contextEnded(); err != nil {
			return nil, 0, err
		}
		s.mu.Lock()
		if failed := s.recvErr; failed != nil {
			s.mu.Unlock()
			return nil, 0, failed
		}
		b, compressed, ok, err := s.recv.Message()
		whole := s.recv.Largest()
		ended, over, status := s.recv.Ended(), s.over, s.err
		if over && status != nil && errors.Is(err, flow.ErrPartial) {
			err = nil // the status says why the message is cut off
		}
		s.answering = ok && !s.recv.Unread()
		credit, due := s.recv.Grant()
		grant := due && !over && s.to != ""
		s.mu.Unlock()
		switch {
		case err != nil:
			return nil, 0, s.failRecv(flowError(err))
		case grant:
			s.publishCredit(credit)
		}
		switch {
		case ok && (!over || ended):
			return s.decompress(b, whole, compressed)
		case over && status != nil:
			s.finished()
			return nil, 0, status
		case over, ended && s.call.onServer: // a client has to wait for the status
			s.finished()
			return nil, 0, io.EOF
		}
		if err := s.await(s.readable); err != nil {
			return nil, 0, err
		}
	}
}

// await waits for a token or the end of the stream. A client's stream ends with its context; on a
// server the handler's context ends the wait alone.
func (s *stream) await(token <-chan struct{}) error {
	var done <-chan struct{}
	if s.call.onServer {
		done = (*s.ctx.Load()).Done()
	}
	select {
	case <-token:
	case <-s.ended:
	case <-done:
		return s.contextEnded()
	}
	return nil
}

// decompress decompresses a message if it is compressed.
func (s *stream) decompress(b []byte, whole int, compressed bool) ([]byte, int, error) {
	if !compressed {
		return b, whole, nil
	}
	b, failed := s.compression.decompress(b, s.maxSize)
	if failed == nil {
		return b, cap(b), nil
	}
	if !s.call.onServer && failed.code == CodeInvalidArgument {
		failed.code = CodeInternal // it is the server's message
	}
	return nil, 0, s.failRecv(failed)
}

// failRecv makes e the error of this and every further Recv. On a client it cancels the stream; on
// a server the handler ends the stream by returning.
func (s *stream) failRecv(e *Error) error {
	s.mu.Lock()
	if s.recvErr == nil {
		s.recvErr = e
	}
	s.mu.Unlock()
	if !s.call.onServer {
		s.cancel(e)
		s.finished()
	}
	return e
}

// flowError turns an error of package flow into that of the stream.
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

// end ends the stream on this side; err is nil for a clean end. Only the first end counts.
func (s *stream) end(err *Error) {
	s.mu.Lock()
	if s.over {
		s.mu.Unlock()
		return
	}
	s.over, s.err = true, err
	close(s.ended)
	read := s.recv.Ended() // there may still be messages to read
	s.mu.Unlock()
	s.table.remove(s)
	s.onEnd(err)
	if !read {
		s.finished()
	}
}

// refused ends the stream if it sends to subject, to which the NATS user may not publish. x is what
// is known about the execution if the stream is still opening.
func (s *stream) refused(subject string, x Execution, err error) {
	s.mu.Lock()
	opening := s.to == ""
	mine := s.to == subject || opening && s.request == subject
	s.mu.Unlock()
	if !opening {
		x = MayHaveRun
	}
	if mine {
		s.end(failf(CodePermissionDenied, x, "the NATS user may not publish to %q", subject).because(err))
	}
}

// notify makes f run once when a client's stream is over for its reader too: when the reader has
// read the end or closed the stream, or ctx has ended.
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

// finished runs the function of notify if the stream is over.
func (s *stream) finished() {
	s.mu.Lock()
	f, err := s.whenOver, s.err
	if f == nil || !s.over {
		s.mu.Unlock()
		return
	}
	if s.recvErr != nil { // the reader's error is more precise
		err = s.recvErr
	}
	s.whenOver = nil
	s.call.responseHeader, s.call.responseTrailer = s.responseHeader, s.responseTrailer
	s.mu.Unlock()
	f(asNil(err))
}

// cancel ends a stream for a reason of this side, and tells the peer: a server with its end frame,
// which the flusher sends, and a client with a cancel. At the deadline a client sends none, as the
// server has the deadline too.
func (s *stream) cancel(err *Error) {
	if s.call.onServer {
		s.finishNow(err)
		return
	}
	s.mu.Lock()
	tell, opening := !s.over && err.code != CodeDeadlineExceeded, s.to == ""
	s.mu.Unlock()
	s.end(err)
	switch {
	case tell && opening: // any instance may accept it: tell all, as for a unary call
		_ = s.nc.Publish(names.Join(s.table.rootOf(s.call.method), wire.CancelToken), wire.AppendCancel(nil, s.id))
	case tell:
		s.publishControl(wire.KindStreamCancel, 0)
	}
}

// finishNow sends a server's status and drops what is still queued. If there is no subject to send
// to, it just ends the stream.
func (s *stream) finishNow(err *Error) {
	s.mu.Lock()
	s.finishLocked(err, true)
	nowhere := s.to == ""
	s.mu.Unlock()
	if nowhere {
		s.end(err)
	}
}

// finishLocked queues a server's end frame, behind the queued messages or, with now, instead of
// them. The first status counts, unless now replaces one that has not been sent.
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
