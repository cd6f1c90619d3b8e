package instances

import (
	"errors"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// TestMailbox: letters reach the mailbox of their request, in order, with whom they were sent to.
func TestMailbox(t *testing.T) {
	b := New(new(conn), nil, "inbox.").Mail
	id, other := wire.NewID(), wire.NewID()
	m := b.Open(id, "a")
	defer m.Close()
	b.Open(other, "b").Close()
	token := func(subject string) string { return subject[len("inbox."):] }
	for i, to := range []string{"", "I-1", ""} {
		b.Deliver(token(m.Reply(to)), &nats.Msg{Subject: string(rune('a' + i))})
	}
	b.Deliver("g", new(nats.Msg))
	b.Deliver("g-"+id.String(), new(nats.Msg))
	b.Deliver(MailPrefix+other.String(), new(nats.Msg))
	<-m.Changed
	letters, err := m.Take()
	if err != nil || len(letters) != 3 || letters[0].To != "" || letters[1].To != "I-1" || letters[2].Msg.Subject != "c" {
		t.Errorf("the letters are %v, %v", letters, err)
	}
	if letters, err = m.Take(); len(letters) != 0 || err != nil {
		t.Errorf("the letters are %v, %v", letters, err)
	}
	if b.Len() != 1 {
		t.Errorf("%d mailboxes are open", b.Len())
	}
}

// TestMailboxEnds: the first error counts, also for mailboxes that are opened later.
func TestMailboxEnds(t *testing.T) {
	first, second := errors.New("first"), errors.New("second")
	b := newMailboxes("inbox.")
	a, c := b.Open(wire.NewID(), "a"), b.Open(wire.NewID(), "c")
	b.Refused("a", first)
	b.End(second)
	b.End(errors.New("third"))
	for m, want := range map[*Mailbox]error{a: first, c: second, b.Open(wire.NewID(), "a"): second} {
		<-m.Changed
		if _, err := m.Take(); err != want {
			t.Errorf("the error is %v, want %v", err, want)
		}
		m.Close()
	}
	if b.Len() != 0 {
		t.Errorf("%d mailboxes are open", b.Len())
	}
}
