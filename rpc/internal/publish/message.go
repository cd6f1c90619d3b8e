package publish

import (
	"fmt"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// Message is a message to be published.
type Message struct {
	Subject string
	Reply   string // subject, or ""
	Header  nats.Header
	Buffer  *buffer.Buffer // the data; from Publish, Post or Add on it belongs to the publisher
	Owner   Owner          // nil where nobody waits for an answer
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
	// Claim says that the message is about to be published. It returns false where nobody waits for
	// an answer any more. No message is published without a Claim that has returned true.
	Claim(m *Message) bool
}

// UnpublishedError is the error of a call that has ended before its message was published, which
// never will be.
type UnpublishedError struct{ Err error }

func (e *UnpublishedError) Error() string { return fmt.Sprintf("publish: not published: %v", e.Err) }

// Unwrap returns why the call has ended.
func (e *UnpublishedError) Unwrap() error { return e.Err }

// done ends the way of a message.
func (m *Message) done(err error) {
	if m.Owner != nil {
		m.Owner.Sent(m, err)
	}
	m.Buffer.PutBack()
	m.Buffer = nil
}

// claim reports whether the message is to be published. Otherwise its way ends here.
func (m *Message) claim() bool {
	if m.Owner == nil || m.Owner.Claim(m) {
		return true
	}
	m.done(nil)
	return false
}

// appendMates appends those of the queue that go into a batch with m.
func (m *Message) appendMates(members []*Message, queue []Message, limit int) []*Message {
	size := wire.BatchOverhead + len(m.Buffer.B)
	for i := range queue {
		mate := &queue[i]
		if mate.Buffer == nil || mate.Batch == BatchNever || len(mate.Header) > 0 || mate.Subject != m.Subject {
			continue
		}
		if more := wire.BatchOverhead + len(mate.Buffer.B); size+more <= limit && mate.claim() {
			size += more
			members = append(members, mate)
		}
	}
	return members
}
