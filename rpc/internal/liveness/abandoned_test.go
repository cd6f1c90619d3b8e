package liveness

import (
	"slices"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// sent are published messages.
type sent []*nats.Msg

func (s *sent) PublishMsg(m *nats.Msg) error {
	*s = append(*s, m)
	return nil
}

// TestAbandoned: a tick sends one message for each service, whatever number of calls there are.
func TestAbandoned(t *testing.T) {
	var a Abandoned
	var out sent
	a.Cancel(&out)
	if len(out) > 0 {
		t.Errorf("%d messages about nothing", len(out))
	}
	var first []wire.ID
	for range 3 {
		first = append(first, wire.NewID())
		a.Add("few", first[len(first)-1])
	}
	for range 2 * maxAbandoned {
		a.Add("many", wire.NewID())
	}
	a.Cancel(&out)
	a.Cancel(&out)
	got := map[string][]wire.ID{}
	for _, m := range out {
		e, err := wire.Parse(m.Data)
		if err != nil || e.Kind != wire.KindCancel || m.Reply != "" {
			t.Errorf("%s gets kind %d, %v", m.Subject, e.Kind, err)
		}
		got[m.Subject] = slices.Collect(e.IDs())
	}
	if len(out) != 2 || !slices.Equal(got["few._all.cancel"], first) || len(got["many._all.cancel"]) != maxAbandoned {
		t.Errorf("%d messages: %d and %d calls", len(out), len(got["few._all.cancel"]), len(got["many._all.cancel"]))
	}
}
