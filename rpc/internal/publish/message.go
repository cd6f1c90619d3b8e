package publish

import (
	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// Message is a message to be published.
type Message struct {
	Subject string
	Reply   string // subject, or ""
	Header  nats.Header
	Buffer  *buffer.Buffer // the data; from Publish or Add on it belongs to the publisher
	Owner   Owner
	Batch   Batching
	Tag     uint64 // in a batch
}

// Batching says whether a message may be an item of a batch.
type Batching uint8

const (
	BatchNever Batching = iota
	BatchMay            // of a client: alone it is sent as it is
	BatchMust           // of a server: the request was an item
)

// Owner is told, by any goroutine, what became of its message.
type Owner interface {
	// Sent says that it has been published, or could not be. The buffer is put back afterwards.
	Sent(m *Message, err error)
	// Leads says that m goes first in a batch, on its reply subject. It returns false where it
	// cannot, as nobody waits on that any more.
	Leads(batch []*Message) bool
}

// done ends the way of a message.
func (m *Message) done(err error) {
	m.Owner.Sent(m, err)
	m.Buffer.PutBack()
	m.Buffer = nil
}

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
