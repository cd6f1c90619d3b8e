package rpc

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/flow"
	"github.com/natscall/natscall/rpc/internal/stream"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// messageStream is one side of a stream of messages over NATS. It implements messages.Stream, on
// which Stream, Sender, Receiver, ClientStream and BidiStream stand. Package stream moves the
// bytes; messageStream encodes and decodes them, runs the hooks of interceptors, and turns errors
// into *Error.
type messageStream struct {
	*stream.Stream
	client *stream.Client // nil on a server
	server *stream.Server // nil on a client

	call        *Call
	coding      coding
	compression Compression
	sizes       sizeLimits
	begun       sync.Once // on a server: the response header has been set
}

// SendMessage queues a message. It waits while too much is queued.
func (s *messageStream) SendMessage(m any) error {
	if err := s.call.checkSent(m); err != nil {
		return err
	}
	hooked, err := s.call.hooks.sending(m)
	if err != nil {
		return hookError(err, ExecutionMayHaveRun)
	}
	if err := s.fixHeader(); err != nil {
		s.call.hooks.sentMessage(hooked, 0, 0, err)
		return err
	}
	buf := buffer.Take()
	defer buf.PutBack()
	if buf.B, err = s.coding.append(buf.B[:flow.FrameRoom], m); err != nil {
		err = failf(CodeInternal, ExecutionMayHaveRun, "the message does not encode: %v", err).because(err)
		s.call.hooks.sentMessage(hooked, 0, 0, err)
		return err
	}
	size := len(buf.B) - flow.FrameRoom
	err = s.sendBuffer(buf, flow.FrameRoom)
	if hooked != nil {
		s.call.hooks.sentMessage(hooked, size, len(buf.B)-flow.FrameRoom, err)
	}
	return err
}

// sendBuffer sends the message that starts in the buffer at an offset.
func (s *messageStream) sendBuffer(buf *buffer.Buffer, from int) error {
	if err := s.pack(buf, from); err != nil {
		return err
	}
	return s.failure(s.Send(buf, from))
}

// failure turns an error of package stream into an *Error which, on a client, names the instance
// that has accepted the stream.
func (s *messageStream) failure(err error) error {
	err = streamError(err)
	if e, ok := err.(*Error); ok && s.client != nil {
		return e.from(s.client.Instance())
	}
	return err
}

// pack checks the size of the message that starts in buf at an offset, and compresses it.
func (s *messageStream) pack(buf *buffer.Buffer, from int) error {
	if size := len(buf.B) - from; !buf.Compressed && size > s.sizes.send {
		return overSendLimit("message", size, s.sizes.send, ExecutionMayHaveRun)
	}
	buf.Compress(wire.Compression(s.compression), from)
	return nil
}

// fixHeader fixes the response header of a server's stream; it runs on the handler's goroutine. If
// the header cannot be sent, it returns an error, once: the first Send returns that.
func (s *messageStream) fixHeader() (err error) {
	if s.server != nil {
		s.begun.Do(func() { err = s.setHeader(s.server.SetHeader) })
	}
	return err
}

// sendHeader is fixHeader, and sends the header at once.
func (s *messageStream) sendHeader() error {
	err := error(failf(CodeFailedPrecondition, ExecutionDidRun, "%s: it is too late to send the response header", s.call.Method()))
	s.begun.Do(func() { err = s.setHeader(s.server.SendHeader) })
	return err
}

// setHeader gives the response header to set, if it is valid.
func (s *messageStream) setHeader(set func(nats.Header)) error {
	h, err := s.call.responseHeader.appendTo(nil, "")
	if err != nil {
		return failf(CodeInternal, ExecutionDidRun, "response: %v", err).because(err)
	}
	if failed := s.checkHeaderSize(h); failed != nil {
		return failed
	}
	set(h)
	return nil
}

// checkHeaderSize checks the size of a response header or trailer. Each may take an eighth of
// max_payload, and a status half: so all of them fit into one end frame.
func (s *messageStream) checkHeaderSize(h nats.Header) *Error {
	if size, limit := headerSize(h), int(s.Conn.MaxPayload()/8); size > limit {
		return failf(CodeResourceExhausted, ExecutionDidRun, "response: the header or trailer has %d bytes, the limit is %d, an eighth of the NATS server's max_payload", size, limit)
	}
	return nil
}

// RecvMessage receives the next message into m; io.EOF is the clean end.
func (s *messageStream) RecvMessage(m any) error {
	in, err := s.recvBytes()
	if err != nil {
		return err
	}
	return s.fill(in, m)
}

// recvInto is RecvMessage for an m that is not empty. It stays as it is until a message has come.
func (s *messageStream) recvInto(m any) error {
	in, err := s.recvBytes()
	if err != nil {
		return err
	}
	clearMessage(m)
	return s.fill(in, m)
}

// fill runs the functions of OnReceive and decodes the message into m, which is empty.
func (s *messageStream) fill(in encoded, m any) error {
	if s.call.hooks != nil {
		decoded, err := s.call.hooks.receive(in, m)
		switch {
		case err != nil && s.client != nil && s.call.Kind() == KindUnary: // a large response
			return hookError(err, ExecutionDidRun)
		case err != nil: // the message is lost, so the stream cannot go on
			return s.failure(s.Reject(hookError(err, ExecutionMayHaveRun)))
		case decoded:
			return nil
		}
	}
	return s.decode(in, m)
}

func (s *messageStream) decode(in encoded, m any) error {
	if err := in.coding.decode(in.data, m, in.whole); err != nil {
		return s.failure(s.Reject(s.peerError("the message is not a valid %s: %v", typeName(m), err)))
	}
	return nil
}

// RecvOnlyMessage receives the message of a stream that has exactly one.
func (s *messageStream) RecvOnlyMessage(m any) error {
	if err := s.RecvMessage(m); err != nil {
		return s.noMessage(err)
	}
	return s.recvEnd()
}

// recvOnlyInto is RecvOnlyMessage for an m that is not empty.
func (s *messageStream) recvOnlyInto(m any) error {
	if err := s.recvInto(m); err != nil {
		return s.noMessage(err)
	}
	return s.recvEnd()
}

// recvOnlyBytes is RecvOnlyMessage without decoding and without the functions of OnReceive.
func (s *messageStream) recvOnlyBytes() (encoded, error) {
	in, err := s.recvBytes()
	if err != nil {
		return in, s.noMessage(err)
	}
	return in, s.recvEnd()
}

// noMessage returns the error of a stream whose only message has not come.
func (s *messageStream) noMessage(err error) error {
	if errors.Is(err, io.EOF) {
		return s.peerError("%s: the stream ended without a message", s.call.Method())
	}
	return err
}

// recvEnd receives the end behind the only message.
func (s *messageStream) recvEnd() error {
	switch in, err := s.recvBytes(); {
	case err == nil:
		return s.failure(s.Reject(s.peerError("%s: a second message came, of %d bytes, where there is one", s.call.Method(), len(in.data))))
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

// recvBytes receives the next message, decompressed.
func (s *messageStream) recvBytes() (encoded, error) {
	m, err := s.Recv()
	in := encoded{s.coding, m.Bytes, m.Whole, len(m.Bytes)}
	if err != nil || !m.Compressed {
		return in, s.failure(err)
	}
	var failed *Error
	if in.data, failed = s.compression.decompress(m.Bytes, s.sizes.receive); failed == nil {
		in.whole = cap(in.data)
		return in, nil
	}
	if s.server == nil && failed.code == CodeInvalidArgument {
		failed.code = CodeInternal // it is the server's message
	}
	return in, s.failure(s.Reject(failed))
}

// peerError returns the error of a peer that has sent something invalid.
func (s *messageStream) peerError(format string, args ...any) *Error {
	if s.server != nil {
		return failf(CodeInvalidArgument, ExecutionMayHaveRun, format, args...)
	}
	return failf(CodeInternal, ExecutionDidRun, format, args...)
}

// Close ends a client's stream early. On a server it does nothing.
func (s *messageStream) Close() {
	if s.client != nil {
		s.client.Close(failf(CodeCanceled, ExecutionMayHaveRun, "the stream was closed"))
	}
}

// CloseSend ends the sending half of a client's stream. On a server it does nothing.
func (s *messageStream) CloseSend() {
	if s.client != nil {
		s.client.CloseSend()
	}
}

// Header returns the header of the peer; a client waits for it.
func (s *messageStream) Header(ctx context.Context) (map[string][]string, error) {
	if s.client == nil {
		return s.call.Header(), nil
	}
	h, err := s.client.Header(ctx)
	return h, s.failure(err)
}

// Instance returns the instance that has accepted a client's stream. On a server it is "".
func (s *messageStream) Instance() string {
	if s.client == nil {
		return ""
	}
	return s.client.Instance()
}

// Trailer returns the server's trailer. On a server it is nil.
func (s *messageStream) Trailer() map[string][]string {
	if s.client == nil {
		return nil
	}
	_, trailer := s.client.Headers()
	return trailer
}

// notify makes the hooks of OnEnd run once a client's stream is over and its reader has seen the
// end.
func (s *messageStream) notify(ctx context.Context) {
	s.client.Notify(ctx, func(err error) {
		s.call.responseHeader, s.call.responseTrailer = s.headers()
		s.call.hooks.ended(s.failure(err))
	})
}

// headers returns what has come of the response's header and trailer.
func (s *messageStream) headers() (header, trailer Header) {
	h, t := s.client.Headers()
	return h, t
}

// statuses implements stream.Statuses. deadline is zero if the call has none.
type statuses struct{ deadline time.Time }

// Status implements stream.Statuses.
func (statuses) Status(body []byte, x wire.Execution, instance string) error {
	return parseStatus(body, x).from(instance)
}

// Unknown implements stream.Statuses. The instance has the same deadline: if that has passed, it is
// why the instance has ended the stream.
func (s statuses) Unknown(status error) error {
	e := status.(*Error)
	switch {
	case e.code != CodeUnavailable:
		return nil
	case e.execution == ExecutionMayHaveRun && !s.deadline.IsZero() && !time.Now().Before(s.deadline):
		return endError(context.DeadlineExceeded, ExecutionMayHaveRun)
	}
	return e
}
