package instances

import (
	"testing"
	"testing/synctest"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// FuzzDirectory delivers any two messages while a query waits. It finds an instance only in an
// answer to this query, each instance once, and nobody only if nothing was found before.
func FuzzDirectory(f *testing.F) {
	answer := func(id wire.ID, instance string) []byte {
		return append(wire.AppendInstanceAnswer(nil, id), append([]byte{0x0a, byte(len(instance))}, instance...)...)
	}
	f.Add(answer(wire.ID{}, "A"), answer(wire.ID{}, "A"), "", "", true)
	f.Add(answer(wire.ID{}, "A"), answer(wire.ID{}, "B"), "", "503", true)
	f.Add([]byte{}, answer(wire.ID{}, "a.b"), "503", "", true)
	f.Add([]byte("x"), answer(wire.ID{1}, "A"), "503", "", false)
	f.Fuzz(func(t *testing.T, first, second []byte, firstStatus, secondStatus string, mine bool) {
		synctest.Test(t, func(t *testing.T) {
			c := new(conn)
			d := New(c, c.connected, "inbox.")
			defer d.Close()
			q := d.Query("root", 0)
			token := c.query(t).Reply[len("inbox."):]
			want, nobody := map[string]bool{}, false
			for i, data := range [][]byte{first, second} {
				if len(data) >= wire.HeaderSize && mine { // which nobody can guess
					data = append(append(append([]byte{}, data[:4]...), q.id[:]...), data[wire.HeaderSize:]...)
				}
				status := []string{firstStatus, secondStatus}[i]
				if none := len(data) == 0 && status == "503"; none {
					nobody = nobody || len(want) == 0
				} else if answer := Parse(data, q.id); answer != nil {
					want[answer.GetInstance()] = true
				}
				d.Deliver(token, &nats.Msg{Header: nats.Header{"Status": {status}}, Data: data})
				d.Deliver("i"+string(data), &nats.Msg{Data: data})
			}
			<-q.Over()
			found := q.Found()
			for _, instance := range found.Instances {
				if name := instance.GetInstance(); !want[name] || wire.CheckInstance(name) != nil {
					t.Errorf("found %q, want %v", name, want)
				}
			}
			if len(found.Instances) != len(want) || found.Nobody != nobody || d.Heard("root") != (len(want) > 0) || len(d.Seen("root")) != len(want) {
				t.Errorf("found %v, want %v, nobody %v", &found, want, nobody)
			}
		})
	})
}

// FuzzMailbox: a message is put into the mailbox that its token names, with whom it was addressed
// to, and into no other one.
func FuzzMailbox(f *testing.F) {
	f.Add("-a", "a", byte(0))
	f.Add("", "A-1", byte(1))
	f.Add("x", "", byte(2))
	f.Fuzz(func(t *testing.T, behind, to string, which byte) {
		b := newMailboxes("inbox.")
		all := []*Mailbox{b.Open(wire.ID{0}, "a"), b.Open(wire.ID{1}, "b")}
		b.Open(wire.ID{2}, "c").Close()
		id := wire.ID{which % 4}.String()
		b.Deliver(MailPrefix+id+behind, new(nats.Msg)) // as hostile as can be
		got := 0
		for _, m := range all {
			letters, err := m.Take()
			if got += len(letters); err != nil || len(letters) > 0 && (m.id != wire.ID{which % 4}) {
				t.Errorf("mailbox %v has %v, %v", m.id, letters, err)
			}
			b.Deliver(m.Reply(to)[len("inbox."):], new(nats.Msg))
			if letters, _ := m.Take(); len(letters) != 1 || letters[0].To != to {
				t.Errorf("%v is sent to %q", letters, to)
			}
		}
		if want := which%4 < 2 && (behind == "" || behind[0] == '-'); want != (got == 1) {
			t.Errorf("%d letters come for %s%s", got, id, behind)
		}
	})
}
