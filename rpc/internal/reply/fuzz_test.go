package reply

import (
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/frozenwire"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// fuzzCall is a pending call and what may end it.
type fuzzCall struct {
	*Pending
	id    wire.ID
	plain bool
	ended bool // as the model says
}

// fuzzInbox is an inbox with calls that wait, and a model of it.
type fuzzInbox struct {
	*Inbox
	t     *testing.T
	calls []*fuzzCall
	count byte // of calls so far
}

// start makes a call that waits. Its id is one that an input can name.
func (b *fuzzInbox) start(plain bool) *fuzzCall {
	b.count++
	c := &fuzzCall{id: wire.ID{b.count % FreeLists, b.count}, plain: plain}
	c.Pending = b.take(c.id)
	c.Pending.start(&Request{ID: c.id, Subject: "service.Do", Plain: plain})
	return c
}

// deliver delivers a message to the reply subject of a call, or of one that its slot had before,
// and expects what the model says.
func (b *fuzzInbox) deliver(to *fuzzCall, late bool, header nats.Header, data []byte) {
	m := &nats.Msg{Subject: to.subject, Header: header, Data: data}
	if late {
		m.Subject = fmt.Sprintf("%s%d-%d", prefix, to.slot, to.generation-1)
	}
	none := IsNoResponders(m)
	switch {
	case wire.IsBatch(data) && strings.HasPrefix(string(data), "\x00\x01\x20"):
		batch, _ := wire.ParseBatch(data)
		for tag, item := range batch.Items() {
			for _, c := range b.calls {
				if tag == uint64(c.slot) && !c.plain {
					c.expect(item)
				}
			}
		}
		b.DeliverBatch(m)
	default:
		switch {
		case late:
		case none:
			to.ended = true
		case to.plain:
			to.ended = to.ended || !isPubAck(m)
		default:
			to.expect(data)
		}
		b.Deliver(m)
	}
	b.check(m)
}

// expect notes that an answer has come to a call, if it is the call's. The frozen parser says so.
func (c *fuzzCall) expect(data []byte) {
	if mine, _ := frozenwire.Answers(data, frozenwire.ID(c.id)); mine {
		c.ended = true
	}
}

// check compares the calls with the model, and begins another one for each that has ended.
func (b *fuzzInbox) check(m *nats.Msg) {
	for i, c := range b.calls {
		if ended := len(c.Pending.ended) == 1; ended != c.ended {
			b.t.Fatalf("call %d has ended: %v, want %v; %q, %v, %x", i, ended, c.ended, m.Subject, m.Header, m.Data)
		}
		if !c.ended {
			continue
		}
		<-c.Pending.ended
		reply, err := c.result()
		if mine, _ := wire.Answers(reply.Data, c.id); err == nil && !c.plain && !mine {
			b.t.Errorf("call %d has the answer %x", i, reply.Data)
		}
		c.release()
		b.calls[i] = b.start(c.plain)
	}
}

// FuzzInbox delivers any messages to an inbox with calls in envelopes and a plain one. A call ends
// only by its own answer, and what came for a call before, which had the same slot, ends none. The
// bytes are messages: which call and how, a size, and the data.
func FuzzInbox(f *testing.F) {
	respond := func(n byte) []byte { return wire.AppendResponse(nil, wire.ID{n % FreeLists, n}, 0, 0) }
	message := func(how byte, data []byte) []byte { return append([]byte{how, byte(len(data))}, data...) }
	join := func(all ...[]byte) (out []byte) {
		for _, b := range all {
			out = append(out, b...)
		}
		return out
	}
	f.Add(join(message(0, respond(1)), message(0, respond(1)), message(1, respond(2)), message(0, respond(4))))
	f.Add(join(message(2, []byte("plain")), message(2, []byte(`{"stream":"S","seq":1}`)), message(0x12, nil)))
	f.Add(join(message(0x10, nil), message(0x31, nil), message(0x20, respond(1)), message(0x21, []byte("x"))))
	f.Add(message(0, wire.AppendItem(wire.AppendItem(wire.AppendBatch(nil), 0, respond(1)), 1, respond(2))))
	f.Add(message(1, wire.AppendAccept(nil, wire.ID{2, 2}, 1<<20, "I")))
	other := respond(1)
	other[1] = 2
	f.Add(join(message(0, other), message(1, wire.AppendAccept(nil, wire.ID{2, 2}, 1, "a.b"))))
	f.Fuzz(func(t *testing.T, input []byte) {
		out := publish.New(&conn{}, publish.Config{MaxBatch: 1 << 10})
		b := &fuzzInbox{Inbox: New(prefix, out, func() error { return nil }), t: t}
		b.calls = []*fuzzCall{b.start(false), b.start(false), b.start(true)}
		for len(input) >= 2 {
			how, n := input[0], min(int(input[1]), len(input)-2)
			data := input[2 : 2+n]
			input = input[2+n:]
			var header nats.Header
			if how>>4&1 != 0 {
				header = noResponders
			}
			b.deliver(b.calls[int(how&0xf)%len(b.calls)], how>>5&1 != 0, header, data)
		}
		for _, c := range b.calls {
			if !c.stop() {
				t.Error("a call has ended meanwhile")
			}
			c.release()
		}
		if all, free := b.Slots(); all != free {
			t.Errorf("%d of %d slots are free", free, all)
		}
	})
}

// FuzzFind: whatever reply subject a message comes to, it meets the slot that has it, or none.
func FuzzFind(f *testing.F) {
	for _, token := range []string{"0-1", "1-1", "00-1", "-1-1", "0-", "0", "0-zzzzzzzzzzzzzzzzzz", "99999999999999999999-1", "+0-1"} {
		f.Add(prefix + token)
	}
	f.Fuzz(func(t *testing.T, subject string) {
		b := New(prefix, publish.New(&conn{}, publish.Config{}), func() error { return nil })
		slots := []*Pending{b.take(wire.ID{}), b.take(wire.ID{})}
		b.Deliver(&nats.Msg{Subject: subject, Header: noResponders})
		p, generation := b.find(subject)
		for _, slot := range slots {
			if slot.subject == subject && (p != slot || generation != slot.generation) {
				t.Errorf("%q is not found", subject)
			}
		}
		if p != nil && !strings.HasPrefix(subject, prefix) {
			t.Errorf("%q is found", subject)
		}
	})
}
