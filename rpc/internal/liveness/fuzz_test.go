package liveness

import (
	"slices"
	"strconv"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// fuzzCall is a call or a stream that is told that an instance works on it.
type fuzzCall struct {
	waits
	told []string
}

func (c *fuzzCall) Alive(id wire.ID, instance string) {
	if id == c.id {
		c.told = append(c.told, instance)
	}
	c.waits.Alive(id, instance)
}

// FuzzAsker delivers any answers to the queries about some calls and streams, between ticks. A call
// hears of an instance only from an alive answer that has its id, once it was asked about. An
// instance has gone only if nobody listens for a query to it.
func FuzzAsker(f *testing.F) {
	id := wire.ID{1}
	f.Add("a", "a", "", wire.AppendAlive(nil, wire.KindAliveAnswer, id, wire.ID{2}), uint8(3))
	f.Add("a1", "a", "503", []byte{}, uint8(5))
	f.Add("a1", "a", "", wire.AppendAlive(nil, wire.KindAliveAnswer, wire.ID{}), uint8(5))
	f.Add("a2", "b", "", wire.AppendFrame(nil, wire.KindEnd, 0), uint8(20))
	f.Add("a-1", "", "503", []byte("x"), uint8(2))
	f.Fuzz(func(t *testing.T, token, instance, status string, data []byte, ticks uint8) {
		w := newWorld(t)
		w.dead = map[string]bool{"a": true, "b": true, "c": true} // the fuzzer answers
		calls := []*fuzzCall{{waits: waits{id: id, root: "root"}}, {waits: waits{id: wire.ID{2}, root: "root", where: "a", stream: true}}}
		look := func() {
			l := w.asker.Look((*Patience).Tick, true, true)
			l.Call(calls[0])
			l.Stream(calls[1])
			l.End()
		}
		for range ticks % 32 {
			look()
		}
		asked := map[wire.ID]bool{}
		for id := range w.asker.asked {
			asked[id] = true
		}
		m := &nats.Msg{Header: nats.Header{wire.InstanceHeader: {instance}, "Status": {status}}, Data: data}
		place, gone := w.asker.Deliver(TokenPrefix+token, m)
		if none := len(data) == 0 && status == "503"; gone != (none && place != Place{}) {
			t.Errorf("gone is %v: %v", place, gone)
		}
		if n, err := strconv.Atoi(token); gone && (err != nil || n != w.asker.peers[place].number) {
			t.Errorf("the token %q says that %v has gone", token, place)
		}
		e, err := wire.Parse(data)
		alive := err == nil && e.Kind == wire.KindAliveAnswer
		named := instance
		if wire.CheckInstance(instance) != nil {
			named = "" // nobody can be asked there
		}
		for _, c := range calls {
			want := alive && asked[c.id] && slices.Contains(slices.Collect(e.IDs()), c.id)
			if want != (len(c.told) > 0) || len(c.told) > 0 && c.told[0] != named {
				t.Errorf("call %v is told %q", c.id, c.told)
			}
		}
		look() // what came does no harm
	})
}

// FuzzCallers compares Callers with a list of what each call was last told. The bytes are steps:
// who asks about which calls, ticks, calls that end, and a reconnect.
func FuzzCallers(f *testing.F) {
	f.Add([]byte("\x00\x09\x04\x04\x04\x11\x0b\x05"))
	f.Add(append([]byte("\x00\x3f\x08\x3f"), make([]byte, 64)...))
	f.Add(append([]byte("\x03\x00\x15\x02"), slices.Repeat([]byte{1}, 64)...))
	f.Fuzz(func(t *testing.T, steps []byte) {
		const calls, clients = 6, 4
		var (
			c      Callers
			of     [calls]int // client and one more; 0 where nobody has asked
			kinds  [calls]Kind
			silent [clients]int
		)
		for i := range kinds {
			kinds[i] = KindUnary + Kind(i%2)
		}
		id := func(i int) wire.ID { return wire.ID{byte(i + 1)} }
		tick := func() {
			var want []wire.ID
			for i := range silent {
				silent[i]++
			}
			for i := range of {
				limit := maxCallSilence
				if kinds[i] == KindStream {
					limit = maxStreamSilence
				}
				switch {
				case of[i] == 0:
				case kinds[i] == KindEnded:
					of[i] = 0
				case silent[of[i]-1] >= limit:
					of[i] = 0
					want = append(want, id(i))
				}
			}
			dead := c.Tick(func(id wire.ID) Kind { return kinds[id[0]-1] })
			slices.SortFunc(dead, func(a, b wire.ID) int { return int(a[0]) - int(b[0]) })
			if !slices.Equal(dead, want) {
				t.Fatalf("%v are dead, want %v", dead, want)
			}
		}
		for len(steps) > 0 {
			step, rest := steps[0], steps[1:]
			switch client := int(step >> 2 % clients); step % 4 {
			case 0: // a query about the calls of the next byte
				var about []wire.ID
				var set byte
				if len(rest) > 0 {
					set, rest = rest[0], rest[1:]
				}
				for i := range of {
					if set>>i&1 != 0 {
						about = append(about, id(i))
						of[i] = client + 1
					}
				}
				c.Heard(wire.ID{'c', byte(client)}, about)
				silent[client] = 0
			case 1:
				tick()
			case 2:
				kinds[int(step>>2)%calls] = KindEnded
			default:
				c.Reset()
				silent = [clients]int{}
			}
			steps = rest
		}
		for range maxCallSilence + 1 {
			tick()
		}
		if len(c.of) > 0 || len(c.byToken) > 0 {
			t.Errorf("%d calls and %d clients are left", len(c.of), len(c.byToken))
		}
	})
}
