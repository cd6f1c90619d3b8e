package rpc

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/internal/names"
	"github.com/natscall/natscall/rpc/internal/flow"
	"github.com/natscall/natscall/rpc/internal/reply"
	"github.com/natscall/natscall/rpc/internal/wait"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// awaitOpen waits until the stream is open, or over.
func (s *stream) awaitOpen() *Error {
	for {
		s.mu.Lock()
		open, over, err := s.to != "", s.over, s.err
		s.mu.Unlock()
		switch {
		case open:
			return nil
		case over && err == nil:
			return failf(CodeInternal, MayHaveRun, "the stream ended before it was accepted")
		case over:
			return err
		}
		select {
		case <-s.readable:
		case <-s.ended:
		}
	}
}

// deliver takes a message that came on a reply subject of s.
func (s *stream) deliver(m *nats.Msg) {
	s.mu.Lock()
	opening := s.to == ""
	s.mu.Unlock()
	switch {
	case reply.IsNoResponders(m) && opening:
		s.end(noService(s.nc, s.request))
	case reply.IsNoResponders(m):
		s.end(failf(CodeUnavailable, MayHaveRun, "the instance has gone").because(nats.ErrNoResponders))
	case opening, len(m.Data) > 0 && !wire.IsFrame(m.Data):
		s.accept(m) // perhaps an error, or foreign, such as JetStream's acknowledgement
	case len(m.Data) > 0:
		s.receive(m)
	case len(m.Header) == 0: // it follows the end frame, which would have removed s
		s.cancel(flowError(fmt.Errorf("%w: the end", flow.ErrLost)))
	}
}

// accept takes the first answer. It ignores a foreign one, and one to another call.
func (s *stream) accept(m *nats.Msg) {
	switch mine, err := wire.Answers(m.Data, s.id); {
	case !mine:
		s.sawForeign(m)
	case err != nil:
		s.cancel(wrongAnswer(err))
	case wire.IsFrame(m.Data):
		f, _ := wire.ParseFrame(m.Data)
		_, instance, _ := wire.ParseAccept(&f)
		s.opened(instance, f.Number)
	default:
		s.refusedBy(m.Data)
	}
}

// sawForeign counts a message that came instead of the first answer.
func (s *stream) sawForeign(m *nats.Msg) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.foreign.Count(m)
}

// refusedBy ends the stream with the error that came instead of an accept.
func (s *stream) refusedBy(envelope []byte) {
	flags, body := wire.ResponseOf(envelope)
	if flags&wire.FlagError == 0 {
		s.cancel(wrongAnswer(errors.New("a response instead of an accept")))
		return
	}
	s.end(parseStatus(body, flags.Execution()))
}

// opened makes s send its frames to an instance.
func (s *stream) opened(instance string, credit uint64) {
	s.mu.Lock()
	s.to = names.Join(s.table.rootOf(s.call.method), wire.InstanceToken, instance, s.id.String())
	s.heardAt = time.Now()
	s.send.Grant(credit)
	s.flushLocked()
	s.mu.Unlock()
	wait.Signal(s.readable)
}

// recvOnly receives the message of a stream that has exactly one.
func (s *stream) recvOnly(m proto.Message) error {
	if err := s.recvMessage(m); err != nil {
		if errors.Is(err, io.EOF) {
			return s.peerError("%s: the stream ended without a message", s.call.Method())
		}
		return err
	}
	switch b, _, err := s.recvBytes(); {
	case err == nil:
		return s.failRecv(s.peerError("%s: a second message came, of %d bytes, where there is one", s.call.Method(), len(b)))
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

// Alive notes that somebody works on the stream.
func (s *stream) Alive(wire.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.patience.Found()
}
