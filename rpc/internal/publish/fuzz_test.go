package publish

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// fuzzOwner is told about one message.
type fuzzOwner struct {
	sent  int
	leads bool
}

func (o *fuzzOwner) Sent(*Message, error)  { o.sent++ }
func (o *fuzzOwner) Leads([]*Message) bool { return o.leads }
func (o *fuzzOwner) Claim(*Message) bool   { return true }

// fuzzPublished is a message as it arrives.
type fuzzPublished struct {
	subject, data string
	tag           uint64
	batched       bool
}

// FuzzPublisher publishes messages of all kinds, while callers come and go and time passes. Each
// is published once, by itself or as an item of a batch with its subject; a batch has no more items
// and bytes than it may; a header is of one message; and what is due does not wait. Each two bytes
// are a step.
func FuzzPublisher(f *testing.F) {
	f.Add([]byte("\x00\x05\x10\x05\x00\x45\x30\x07"))
	f.Add([]byte("\x02\x00\x00\x05\x00\x05\x10\x09\x00\x09\x03\x00\x00\x01"))
	f.Add([]byte("\x01\x11\x01\x12\x01\x11\x05\x00\x01\xf1\x01\x92\x06\xff\x01\x01\x05\x00"))
	var many []byte
	for range 300 {
		many = append(many, 0x21, 0x01)
	}
	f.Add(many)
	f.Fuzz(func(t *testing.T, steps []byte) {
		const maxBatch = 200
		var now time.Duration
		c := &conn{}
		p := New(c, Config{Now: func() time.Duration { return now }, MaxBatch: maxBatch})
		var owners []*fuzzOwner
		want := map[fuzzPublished]int{}
		queued := 0 // that the model knows to wait at most
		make := func(step, n byte) Message {
			o := &fuzzOwner{leads: n&1 == 0}
			owners = append(owners, o)
			text := wire.AppendRequest(nil, wire.ID{byte(len(owners)), byte(len(owners) >> 8)}, 0, 0)
			m := message([]string{"a", "b"}[step>>4&1], string(append(text, string(text[:n%20])...)), o)
			if m.Batch = Batching(step >> 5 % 3); step>>7 != 0 {
				m.Header = nats.Header{"Key": {"x"}}
			}
			m.Tag = uint64(len(owners))
			out := fuzzPublished{subject: m.Subject, data: string(m.Buffer.B)}
			if m.Batch == BatchMust {
				out.tag, out.batched = m.Tag, true
			}
			want[out]++
			queued++
			return m
		}
		expected := 0
		for i := 0; i+1 < len(steps); i += 2 {
			switch step, n := steps[i], steps[i+1]; step & 7 {
			case 0:
				publish(p, make(step, n))
				if expected == 0 && p.Holds() {
					t.Fatal("a message waits for nobody")
				}
			case 1:
				if p.Add(make(step, n), time.Duration(n)*time.Millisecond/64) {
					p.Flush()
				}
			case 2:
				p.Omit()
				p.Expect()
				expected++
			case 3:
				if expected > 0 {
					expected--
					p.Return()
				}
				runOnce(p)
			case 4:
				p.Omit()
				p.GiveUp()
			case 5:
				p.Flush()
			default:
				now += time.Duration(n) * 10 * time.Microsecond
			}
			if len(p.queue) >= maxQueued {
				t.Fatalf("%d messages wait", len(p.queue))
			}
		}
		p.Flush()
		checkPublished(t, c.messages, want, maxBatch)
		for i, o := range owners {
			if o.sent != 1 {
				t.Errorf("message %d was sent %d times", i, o.sent)
			}
		}
		if p.Holds() || len(p.queue) > 0 {
			t.Errorf("%d messages are left", len(p.queue))
		}
	})
}

// checkPublished compares what was published with what is wanted. A message that may be an item has
// a tag only if it is one.
func checkPublished(t *testing.T, messages []*nats.Msg, want map[fuzzPublished]int, maxBatch int) {
	take := func(m fuzzPublished) {
		if may := (fuzzPublished{subject: m.subject, data: m.data}); want[m] == 0 {
			m = may
		}
		if want[m]--; want[m] < 0 {
			t.Errorf("%+v is published once too often, or in another way", m)
		}
	}
	for _, m := range messages {
		if !wire.IsBatch(m.Data) {
			take(fuzzPublished{subject: m.Subject, data: string(m.Data)})
			continue
		}
		batch, err := wire.ParseBatch(m.Data)
		items := 0
		for tag, item := range batch.Items() {
			items++
			take(fuzzPublished{m.Subject, string(item), tag, true})
		}
		if err != nil || items > wire.MaxItems || items > 1 && (len(m.Data) > maxBatch || len(m.Header) > 0) {
			t.Errorf("a batch of %d items and %d bytes, header %v: %v", items, len(m.Data), m.Header, err)
		}
	}
	for m, n := range want {
		if n > 0 {
			t.Errorf("%+v is not published", m)
		}
	}
}
