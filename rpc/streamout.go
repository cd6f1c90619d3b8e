package rpc

import (
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/flow"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/wait"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// flushLocked starts the flusher if there is something to send. The flusher ends when there is
// nothing more, so an idle stream has no goroutine.
func (s *stream) flushLocked() {
	if s.flushing || s.to == "" || s.over || !s.send.CanSend(s.maxBody) && !s.beat {
		return
	}
	s.flushing = true
	go s.flush()
}

// flush publishes frames until nothing is queued or the credit is used up. A frame takes all that
// is queued, up to its size; while one is published, messages gather for the next.
func (s *stream) flush() {
	for {
		o, more := s.nextFrame()
		if !more {
			return
		}
		sent := s.publishFrame(&o)
		o.buf.PutBack()
		if !sent {
			return
		}
		wait.Signal(s.writable)
		if o.last {
			s.endSent()
			return
		}
	}
}

// publishFrame publishes a frame. If that fails, it ends the stream and returns false.
func (s *stream) publishFrame(o *outgoingFrame) bool {
	if err := publish.Send(s.nc, &o.msg); err != nil {
		s.end(natsError(err, MayHaveRun))
		return false
	}
	return true
}

type outgoingFrame struct {
	msg  nats.Msg
	buf  *buffer.Buffer
	last bool // of a server's stream
}

// nextFrame returns the next frame. Everything with a sequence number goes through here, so that it
// is published in order; a heartbeat too, as it names the next number.
func (s *stream) nextFrame() (o outgoingFrame, more bool) {
	buf := buffer.Take()
	s.mu.Lock()
	defer s.mu.Unlock()
	kind, ok := wire.KindData, false
	switch {
	case s.over:
	case s.beat: // even if there is data to send, since it repeats the credit
		buf.B, kind, ok = wire.AppendHeartbeat(buf.B, s.send.Next(), s.recv.Granted()), wire.KindHeartbeat, true
	default:
		buf.B, kind, ok = s.send.AppendFrame(buf.B, s.maxBody)
	}
	s.beat = false
	if !ok {
		s.flushing = false
		buf.PutBack()
		return o, false
	}
	o = outgoingFrame{msg: nats.Msg{Subject: s.to, Data: buf.B}, buf: buf}
	if s.call.onServer {
		s.decorateLocked(&o, kind)
	} else if kind == wire.KindHeartbeat {
		o.msg.Reply = s.renewReplyLocked()
	}
	return o, true
}

// decorateLocked adds what only servers send: the response header to the first frame, and the
// status and the trailer to the last.
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
		o.buf.B, _ = appendProto(o.buf.B, e.status())
		o.buf.B[wire.FlagsOffset] |= byte(s.call.served.execution(e).Flags())
		o.msg.Data = o.buf.B
	}
}

// maxBodyOf keeps a frame, with headers, within max_payload.
func maxBodyOf(nc *nats.Conn) int {
	return int(max(1, min(flow.MaxBody, nc.MaxPayload()/2)))
}

func (s *stream) publishCredit(credit uint64) { s.publishControl(wire.KindCredit, credit) }

// publishControl publishes a credit or cancel, which have no sequence number. A client's credit has
// a fresh reply subject. An error is ignored: the next heartbeat, which repeats the credit, meets
// it too.
func (s *stream) publishControl(kind wire.Kind, number uint64) {
	s.mu.Lock()
	m := nats.Msg{Subject: s.to, Data: wire.AppendFrame(nil, kind, number)}
	if !s.call.onServer && kind == wire.KindCredit {
		m.Reply = s.renewReplyLocked()
	}
	s.mu.Unlock()
	if m.Subject != "" {
		_ = publish.Send(s.nc, &m)
	}
}

// renewReplyLocked returns a reply subject that nobody has used.
func (s *stream) renewReplyLocked() string {
	s.renewals++
	return fmt.Sprintf("%s%s%v-%d", s.table.inbox, streamToken, s.id, s.renewals)
}

// streamToken begins the last token of a stream's reply subjects.
const streamToken = "s"

// parseStreamToken reads the stream's id from what follows streamToken.
func parseStreamToken(token string) (wire.ID, bool) {
	text, _, _ := strings.Cut(token, "-")
	return wire.ParseID(text)
}
