package publish

import (
	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// sendBatch publishes the first message of the queue together with those behind it that may share
// its subject and fit.
func (p *Publisher) sendBatch(queue []Message) {
	first := &queue[0]
	p.members = append(p.members[:0], first)
	if len(first.Header) == 0 { // a header is of one call
		p.members = first.appendMates(p.members, queue[1:min(len(queue), wire.MaxItems)], p.batchLimit())
	}
	if len(p.members) == 1 && first.Batch == BatchMay {
		p.send(first)
		return
	}
	buf := buffer.Take()
	defer buf.PutBack()
	buf.B = wire.AppendBatch(buf.B)
	for _, m := range p.members {
		buf.B = wire.AppendItem(buf.B, m.Tag, m.Buffer.B)
	}
	first = leader(p.members)
	err := p.publish(first.Subject, first.Reply, first.Header, buf.B)
	for _, m := range p.members {
		m.done(err)
	}
	clear(p.members)
}

// leader puts a message first on whose reply subject "no responders" is waited for. There may be
// none, where the callers of all have gone.
func leader(members []*Message) *Message {
	for i := range members {
		members[0], members[i] = members[i], members[0]
		if members[0].Owner.Leads(members) {
			break
		}
	}
	return members[0]
}

// batchLimit is how many bytes a batch may have.
func (p *Publisher) batchLimit() int { return int(min(int64(p.MaxBatch), p.conn.MaxPayload())) }

// appendMates appends those of the queue that go into a batch with m.
func (m *Message) appendMates(members []*Message, queue []Message, limit int) []*Message {
	size := wire.BatchOverhead + len(m.Buffer.B)
	for i := range queue {
		mate := &queue[i]
		if mate.Buffer == nil || mate.Batch == BatchNever || len(mate.Header) > 0 || mate.Subject != m.Subject {
			continue
		}
		if more := wire.BatchOverhead + len(mate.Buffer.B); size+more <= limit {
			size += more
			members = append(members, mate)
		}
	}
	return members
}
