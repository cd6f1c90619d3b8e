package stream

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/flow"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// fuzzPeer is what a peer has sent to one side, as docs/protocol.md reads it.
type fuzzPeer struct {
	next     uint64   // sequence of the next frame
	messages []string // in the frames that came in order
	ended    bool     // by an end in order
	broken   bool     // by a frame out of order: what comes then means nothing
	credit   uint64
	heard    bool // a frame has come
}

// frame notes a frame that is valid.
func (p *fuzzPeer) frame(f wire.Frame, texts []string) {
	p.heard = true
	switch f.Kind {
	case wire.KindData, wire.KindEnd:
		if f.Number != p.next || p.ended {
			p.broken = true
		}
		if p.broken {
			return
		}
		p.next++
		p.ended = f.Kind == wire.KindEnd
		p.messages = append(p.messages, texts...)
	case wire.KindCredit:
		p.credit = max(p.credit, f.Number)
	}
}

// fuzzSide is one side of a stream whose peer is the fuzzer.
type fuzzSide struct {
	*Stream
	t     *testing.T
	peer  fuzzPeer
	got   []string
	end   error  // of Recv
	spent uint64 // of the credit
	next  uint64 // sequence of the next frame that it publishes
	done  bool   // it has published its end
	over  bool   // it is a server that has ended the stream, whatever the client still sends
}

// deliver delivers what the next bytes say: a frame of any kind and number, well-formed or not. It
// returns the rest.
func (s *fuzzSide) deliver(deliver func(*nats.Msg), message func([]byte) *nats.Msg, how byte, input []byte) (rest []byte) {
	n := 0
	if len(input) > 0 {
		n, input = int(input[0])%32, input[1:]
	}
	n = min(n, len(input))
	part, rest := input[:n], input[n:]
	number := s.peer.next
	if how>>6 == 3 { // another one
		number += uint64(how>>4&3) - 1
	}
	data, texts := []byte(nil), []string(nil)
	switch how >> 1 & 7 {
	case 0, 1, 2:
		texts = strings.Split(string(part), " ")
		data = dataFrame(number, texts...)
	case 3:
		data = endFrame(number, "")
	case 4:
		data = wire.AppendFrame(nil, wire.KindCredit, uint64(n)<<(how>>4))
	case 5:
		data = wire.AppendHeartbeat(nil, number, uint64(n)<<(how>>4))
	case 6:
		data = wire.AppendFrame(nil, wire.KindHeader, 0)
	default:
		data = part // anything
	}
	m := message(data)
	if how>>3&1 != 0 && how>>1&7 == 6 {
		m.Header = nats.Header{"Key": {string(part)}}
	}
	if f, err := wire.ParseFrame(data); err == nil && !isOver(s.Stream) {
		if f.Kind == wire.KindHeartbeat {
			if credit, err := wire.ParseHeartbeat(&f); err == nil {
				s.peer.frame(wire.Frame{Kind: wire.KindCredit, Number: credit}, nil)
			}
			s.peer.broken = s.peer.broken || f.Number > s.peer.next
		} else if texts == nil && f.Kind == wire.KindData {
			s.peer.broken = true // the model does not read it
		}
		s.peer.frame(f, texts)
	}
	deliver(m)
	return rest
}

// read reads all that is there, and compares it with what came.
func (s *fuzzSide) read() {
	for s.end == nil {
		m, ok, end := s.Stream.read()
		if !ok {
			if s.end = end; end == nil {
				return
			}
			break
		}
		s.got = append(s.got, string(m.Bytes))
	}
	if n := len(s.got); n > len(s.peer.messages) || !slices.Equal(s.got, s.peer.messages[:n]) {
		s.t.Fatalf("%q is read, and %q came", s.got, s.peer.messages)
	}
	if s.over {
		return
	}
	if s.end == io.EOF && !s.peer.broken && (!s.peer.ended || len(s.got) != len(s.peer.messages)) {
		s.t.Fatalf("a clean end after %q; %q came, and the end: %v", s.got, s.peer.messages, s.peer.ended)
	}
	if s.end == io.EOF && s.peer.broken && !s.peer.ended {
		s.t.Fatal("a clean end behind a gap")
	}
}

// published looks at what the side has published: its frames are in order, and within the credit.
func (s *fuzzSide) published(messages []*nats.Msg, free uint64) {
	for _, m := range messages {
		f, err := wire.ParseFrame(m.Data)
		if err != nil || f.Kind != wire.KindData && f.Kind != wire.KindEnd {
			continue
		}
		if s.done {
			s.t.Fatalf("%s is published behind the end", what(m))
		}
		if s.done = f.Kind == wire.KindEnd; f.Number != s.next && !(s.done && f.Number == 0) {
			s.t.Fatalf("frame %d is published instead of %d", f.Number, s.next)
		}
		s.next++
		if f.Kind == wire.KindData {
			s.spent += uint64(len(f.Body) + wire.FrameCost)
		}
		if credit := max(free, s.peer.credit); s.spent > credit {
			s.t.Fatalf("%d bytes are sent with a credit of %d", s.spent, credit)
		}
	}
}

// fuzzStreams are inputs: two bytes say what comes, and how many bytes belong to it.
func fuzzStreams(f *testing.F) {
	step := func(how byte, text string) string { return string([]byte{how, byte(len(text))}) + text }
	words := "the quick brown"
	f.Add([]byte(step(0, words) + step(6, "") + step(1, "") + step(0, words)))
	f.Add([]byte(step(0x79, "xxxxxxxxxxxxxxx") + step(0x11, words) + step(0x38, words) + step(0x11, "")))
	f.Add([]byte(step(0, words) + step(0xe0, words) + step(6, "") + step(1, "")))
	f.Add([]byte(step(0, words) + step(0xc6, "") + step(0xca, "x")))
	f.Add([]byte(step(0x0c, words) + step(0x1c, "") + step(0x21, "") + step(0x31, words)))
	for _, kind := range []wire.Kind{wire.KindAccept, wire.KindData, wire.KindEnd, wire.KindHeartbeat, wire.KindStreamCancel, 24} {
		f.Add([]byte(step(0x0e, string(append(wire.AppendFrame(nil, kind, 0), unknown...))) + step(0, words)))
	}
	f.Add([]byte(step(0x0e, "") + step(0, words)))
}

// act does what the bits say on this side: it reads, sends, ends, or lets time pass.
func (s *fuzzSide) act(how byte, end func()) {
	switch how >> 1 & 7 {
	case 0, 1, 2:
		s.read()
	case 3, 4:
		s.mu.Lock()
		waits := s.send.Buffered() > highWater && !s.over && !s.send.Closing()
		s.mu.Unlock()
		if !waits {
			_ = sendText(s.Stream, strings.Repeat("x", int(how>>4)*3000))
		}
	case 5:
		end()
	default:
		<-time.After(time.Duration(how>>4) * time.Second)
	}
}

// FuzzClient gives a client any frames, in any order, while it sends and reads. Messages are read
// in order, no end is clean behind a gap, and no more is sent than there is credit for.
func FuzzClient(f *testing.F) {
	fuzzStreams(f)
	f.Fuzz(func(t *testing.T, input []byte) {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, nil)
			opening := begin(func() error { return p.client.Open(Open{}) })
			p.toClient(p.answer(wire.AppendAccept(nil, p.id, 0, instance)))
			p.up.take()
			s := &fuzzSide{Stream: &p.client.Stream, t: t}
			deliver := func(m *nats.Msg) { p.clients.Deliver(p.id, m) }
			for len(input) > 0 && len(input) < 1000 {
				how := input[0]
				if input = input[1:]; how&1 == 0 {
					input = s.deliver(deliver, p.answer, how, input)
				} else {
					s.act(how, p.client.CloseSend)
				}
				synctest.Wait()
				s.published(p.up.take(), 0)
			}
			s.read()
			if opening.state() != "nil" {
				t.Error("Open:", opening.state())
			}
		})
	})
}

// FuzzServer does the same to a server, whose client sends an open of any size before.
func FuzzServer(f *testing.F) {
	fuzzStreams(f)
	f.Fuzz(func(t *testing.T, input []byte) {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, nil)
			open := wire.Open{}
			if len(input) > 0 {
				open.Credit = uint64(input[0]) << 10
			}
			s := &fuzzSide{t: t, peer: fuzzPeer{credit: open.Credit}}
			p.server = NewServer(p.handler, p.serverConfig(), &p.owner, open)
			s.Stream = &p.server.Stream
			if err := p.server.Accept(inbox+"x", func(uint64) error { return nil }); err != nil {
				t.Fatal(err)
			}
			frame := func(data []byte) *nats.Msg {
				m := p.frame(data)
				m.Reply = fmt.Sprint(inbox, len(data))
				return m
			}
			deliver := func(m *nats.Msg) { p.servers.Deliver(p.id, m) }
			for len(input) > 0 && len(input) < 1000 {
				how := input[0]
				if input = input[1:]; how&1 == 0 {
					input = s.deliver(deliver, frame, how, input)
				} else {
					s.act(how, func() {
						s.over = true
						p.server.Finish(nil, nil)
					})
				}
				synctest.Wait()
				s.published(p.down.take(), 0)
			}
			s.read()
			if credit := s.peer.credit; !s.peer.heard && s.spent > min(credit, flow.Window) {
				t.Errorf("%d bytes are sent to a client that was not heard", s.spent)
			}
		})
	})
}
