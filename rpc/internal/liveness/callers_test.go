package liveness

import (
	"slices"
	"testing"
	"time"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// TestCallers: the calls of a client that is silent end, streams before others, and nothing that
// nobody has asked about.
func TestCallers(t *testing.T) {
	var c Callers
	kinds := map[wire.ID]Kind{}
	lookup := func(id wire.ID) Kind { return kinds[id] }
	add := func(kind Kind) wire.ID {
		id := wire.NewID()
		kinds[id] = kind
		return id
	}
	silent, lively := wire.NewID(), wire.NewID()
	call, stream, other := add(KindUnary), add(KindStream), add(KindStream)
	add(KindUnary) // which nobody asks about
	if c.Tick(lookup) != nil {
		t.Error("an end before any query")
	}
	c.Heard(silent, []wire.ID{call, stream})
	c.Heard(lively, []wire.ID{other})
	c.Heard(wire.NewID(), nil)
	ended := map[wire.ID]time.Duration{}
	for tick := 1; tick <= 40; tick++ {
		for _, id := range c.Tick(lookup) {
			ended[id] = time.Duration(tick) * ServerTick
		}
		c.Heard(lively, nil)
	}
	if len(ended) != 2 || ended[stream] < 4*time.Second || ended[stream] > 5*time.Second || ended[call] <= 8*time.Second || ended[call] > 9*time.Second {
		t.Errorf("ended are %v", ended)
	}
	if len(c.byToken) != 1 || len(c.of) != 1 {
		t.Errorf("%d clients and %d calls are left", len(c.byToken), len(c.of))
	}
	c.Heard(silent, []wire.ID{call}) // it was paused
	for range maxCallSilence - 1 {
		c.Tick(lookup)
		c.Heard(lively, nil)
	}
	c.Reset() // the server's own connection was lost
	if dead := c.Tick(lookup); dead != nil {
		t.Errorf("dead after a reset are %v", dead)
	}
	kinds = nil
	if c.Tick(lookup); len(c.byToken) != 0 || len(c.of) != 0 {
		t.Errorf("%d clients and %d calls are left", len(c.byToken), len(c.of))
	}
}

// TestOtherClient: a call belongs to the client that has asked about it last.
func TestOtherClient(t *testing.T) {
	var c Callers
	id, first, second := wire.NewID(), wire.NewID(), wire.NewID()
	c.Heard(first, []wire.ID{id})
	c.Heard(second, []wire.ID{id})
	var dead []wire.ID
	for range maxCallSilence {
		c.Heard(first, nil)
		dead = append(dead, c.Tick(func(wire.ID) Kind { return KindUnary })...)
	}
	if !slices.Equal(dead, []wire.ID{id}) || len(c.byToken) != 0 {
		t.Errorf("dead are %v, %d clients are left", dead, len(c.byToken))
	}
}
