package instances

import (
	"strings"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/wait"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// Mailboxes keep the replies to requests that get several. All methods may be called concurrently.
type Mailboxes struct {
	prefix string // of the reply subjects

	mu   sync.Mutex
	err  error // of End
	open map[wire.ID]*Mailbox
}

// Mailbox has the replies to one request, until the goroutine that waits for them takes them.
type Mailbox struct {
	Changed chan struct{} // has a token if Take has something

	all     *Mailboxes
	id      wire.ID
	subject string // of the request

	// Under all.mu.
	letters []Letter
	err     error
}

// Letter is a message in a mailbox.
type Letter struct {
	To  string // what the reply subject was made with
	Msg *nats.Msg
}

// MailPrefix begins the last token of the reply subjects of mailboxes.
const MailPrefix = "g"

func newMailboxes(prefix string) *Mailboxes {
	return &Mailboxes{prefix: prefix + MailPrefix, open: map[wire.ID]*Mailbox{}}
}

// Open opens a mailbox for a request to a subject. Close closes it.
func (b *Mailboxes) Open(id wire.ID, subject string) *Mailbox {
	m := &Mailbox{Changed: make(chan struct{}, 1), all: b, id: id, subject: subject}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open[id] = m
	if b.err != nil {
		m.endLocked(b.err)
	}
	return m
}

// Reply returns a reply subject. to, which may be empty, is what its letters are addressed to; it
// is part of a token.
func (m *Mailbox) Reply(to string) string {
	subject := m.all.prefix + m.id.String()
	if to != "" {
		subject += "-" + to
	}
	return subject
}

// Take returns the letters that have come, and why no more will come, if so.
func (m *Mailbox) Take() ([]Letter, error) {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	letters := m.letters
	m.letters = nil
	return letters, m.err
}

// Close closes the mailbox. What comes later is dropped.
func (m *Mailbox) Close() {
	m.all.mu.Lock()
	defer m.all.mu.Unlock()
	delete(m.all.open, m.id)
}

func (m *Mailbox) endLocked(err error) {
	if m.err == nil {
		m.err = err
	}
	wait.Signal(m.Changed)
}

// Deliver takes a message that came to a reply subject with the token.
func (b *Mailboxes) Deliver(token string, msg *nats.Msg) {
	text, to, _ := strings.Cut(strings.TrimPrefix(token, MailPrefix), "-")
	id, ok := wire.ParseID(text)
	if !ok {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if m := b.open[id]; m != nil {
		m.letters = append(m.letters, Letter{to, msg})
		wait.Signal(m.Changed)
	}
}

// Refused ends the mailboxes of requests to a subject that NATS does not let the client publish to.
func (b *Mailboxes) Refused(subject string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.open {
		if m.subject == subject {
			m.endLocked(err)
		}
	}
}

// Len returns how many mailboxes are open. It is for tests.
func (b *Mailboxes) Len() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.open)
}

// End ends all mailboxes, and those that are opened later.
func (b *Mailboxes) End(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.err == nil {
		b.err = err
	}
	for _, m := range b.open {
		m.endLocked(err)
	}
}
