package rpc

import (
	"bytes"
	"context"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/wait"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// receive takes a frame of the peer. It is called by the goroutine of a subscription and does not
// block.
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
	if s.call.onServer {
		s.send.Heard()
		if m.Reply != "" {
			s.to = m.Reply
		}
	}
	done, status, err := s.takeLocked(&f, m)
	if err == nil {
		s.flushLocked()
	}
	s.mu.Unlock()
	wait.Signal(s.readable)
	switch {
	case err != nil:
		s.cancel(flowError(err))
	case done:
		s.end(status)
	}
}

// takeLocked applies a frame to the halves. done reports that the peer has ended the stream, with a
// status that is nil after a clean end.
func (s *stream) takeLocked(f *wire.Frame, m *nats.Msg) (done bool, status *Error, err error) {
	switch f.Kind {
	case wire.KindData:
		s.takeHeaderLocked(m)
		err = s.recv.Data(f.Number, ownBody(m, f.Body))
		if f.Flags&wire.FlagWaited != 0 {
			s.recv.Waited()
		}
		return false, nil, err
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
	return false, nil, nil // a second accept, or a kind that only the other side may send
}

// ownBody returns a body that may be kept. nats.go has the headers of a message in the same memory
// as its data, and headers cost the peer no credit, so then the body is copied.
func ownBody(m *nats.Msg, body []byte) []byte {
	if m.Size() > len(m.Subject)+len(m.Reply)+len(m.Data) {
		return bytes.Clone(body)
	}
	return body
}

// handlerDoneLocked reports whether this is a server's stream whose handler no longer reads.
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
		status = parseStatus(f.Body, f.Flags.Execution())
	}
	s.takeHeaderLocked(m)
	if f.Number == 0 && status != nil && status.code == CodeUnavailable { // at any time
		return true, s.forgotten(status), nil
	}
	err = s.recv.End(f.Number)
	return err == nil, status, err
}

// forgotten returns the error of a stream that its instance does not know. If the deadline has
// passed, which the instance has too, that is why.
func (s *stream) forgotten(status *Error) *Error {
	deadline, ok := (*s.ctx.Load()).Deadline()
	if ok && status.execution == MayHaveRun && !time.Now().Before(deadline) {
		return endError(context.DeadlineExceeded, MayHaveRun)
	}
	return status
}

// takeHeaderLocked takes the response header from the first frame and the trailer from the last.
func (s *stream) takeHeaderLocked(m *nats.Msg) {
	if s.call.onServer || len(m.Header) == 0 {
		return
	}
	header, trailer := splitHeader(m.Header)
	if s.responseHeader == nil {
		s.responseHeader = header
	}
	s.responseTrailer = trailer
}
