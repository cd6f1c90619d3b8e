package liveness

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/wire"
)

const inbox = "inbox."

// world has a client with its calls and streams, and instances that answer.
type world struct {
	t     *testing.T
	asker *Asker
	dead  map[string]bool // instances that do not answer
	gone  map[string]bool // those whose subjects nobody listens to
	old   map[string]bool // those that do not know queries to one instance
	waits []*waits
	sent  []*nats.Msg // of the last look
	lost  []*waits    // in the last look
	ended []Place     // as Deliver says

	looks   int
	replies map[string]int // the last look whose queries have a reply subject
}

// waits is a call or a stream.
type waits struct {
	Patience
	id     wire.ID
	root   string
	at     string // the instance that it is at
	where  string // as the client knows
	stream bool
	known  bool
}

func (c *waits) CallID() wire.ID   { return c.id }
func (c *waits) Root() string      { return c.root }
func (c *waits) Waited() *Patience { return &c.Patience }
func (c *waits) Where() string     { return c.where }
func (c *waits) Known() bool       { return c.known }

func (c *waits) Alive(id wire.ID, instance string) {
	if id != c.id {
		return
	}
	c.Found(instance != "")
	c.where, c.known = instance, true
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, dead: map[string]bool{}, gone: map[string]bool{}, old: map[string]bool{}, replies: map[string]int{}}
	w.asker = NewAsker(w, inbox)
	return w
}

func (w *world) PublishMsg(m *nats.Msg) error {
	w.sent = append(w.sent, m)
	return nil
}

// call adds a call that is at an instance, which the client does not know.
func (w *world) call(at string) *waits {
	c := &waits{id: wire.NewID(), root: "root", at: at}
	w.waits = append(w.waits, c)
	return c
}

// stream adds a stream that an instance has accepted.
func (w *world) stream(at string) *waits {
	c := w.call(at)
	c.where, c.stream = at, true
	return c
}

// tick is a look, with the answers to its queries.
func (w *world) tick() {
	l := w.asker.Look((*Patience).Tick, true, true)
	w.sent, w.lost = nil, nil
	var left []*waits
	for _, c := range w.waits {
		dead := false
		if c.stream {
			dead = l.Stream(c)
		} else {
			dead = l.Call(c)
		}
		if dead {
			w.lost = append(w.lost, c)
		} else {
			left = append(left, c)
		}
	}
	w.waits = left
	if l.End() != (len(w.sent) > 0) {
		w.t.Error("End says something else about queries")
	}
	w.looks++
	for _, m := range w.sent {
		if last, ok := w.replies[m.Reply]; ok && w.looks-last < replyRounds {
			w.t.Errorf("the queries of looks %d and %d have one reply subject, %s", last, w.looks, m.Reply)
		}
		w.replies[m.Reply] = w.looks
		w.answer(m)
	}
}

func (w *world) answer(m *nats.Msg) {
	e, err := wire.Parse(m.Data)
	if err != nil || m.Header.Get(wire.ClientHeader) != w.asker.client.String() {
		w.t.Errorf("a query is wrong: %v, %v", err, m.Header)
	}
	var to string
	if _, err := fmt.Sscanf(m.Subject, "root._i.%1s.alive", &to); err != nil && m.Subject != "root._all.alive" {
		w.t.Errorf("a query to %s", m.Subject)
	}
	for _, instance := range []string{"a", "b", "c"} {
		if to != "" && to != instance || w.dead[instance] {
			continue
		}
		var mine []wire.ID
		for id := range e.IDs() {
			if slices.ContainsFunc(w.waits, func(c *waits) bool { return c.id == id && c.at == instance }) {
				mine = append(mine, id)
			}
		}
		if to != "" && len(mine) == 0 {
			mine = []wire.ID{{}}
		}
		answer := &nats.Msg{Data: wire.AppendFrame(nil, wire.KindEnd, 0)}
		switch {
		case to != "" && w.gone[instance]:
			answer = &nats.Msg{Header: nats.Header{"Status": {"503"}}}
		case to != "" && w.old[instance]:
		case len(mine) == 0:
			continue
		default:
			answer = &nats.Msg{Header: nats.Header{}, Data: wire.AppendAlive(nil, wire.KindAliveAnswer, mine...)}
			if !w.old[instance] {
				answer.Header.Set(wire.InstanceHeader, instance)
			}
		}
		if gone, ok := w.asker.Deliver(m.Reply[len(inbox):], answer); ok {
			w.ended = append(w.ended, gone)
		}
	}
}

// messages counts the queries of so many ticks.
func (w *world) messages(ticks int) (n int) {
	for range ticks {
		w.tick()
		n += len(w.sent)
	}
	return n
}

// TestIdleStreams: a thousand streams at an instance need a message a second, with one id.
func TestIdleStreams(t *testing.T) {
	w := newWorld(t)
	for range 1000 {
		w.stream("a")
	}
	w.messages(10)
	if n := w.messages(50); n != 10 { // ten seconds
		t.Errorf("%d messages in ten seconds", n)
	}
	if len(w.waits) != 1000 {
		t.Errorf("%d streams are left", len(w.waits))
	}
	for len(w.sent) == 0 {
		w.tick()
	}
	if len(w.sent[0].Data) != wire.HeaderSize {
		t.Errorf("a query has %d bytes", len(w.sent[0].Data))
	}
}

// TestStreamsOfTheDead: the streams of an instance that does not answer any more are lost, and no
// others.
func TestStreamsOfTheDead(t *testing.T) {
	w := newWorld(t)
	for range 10 {
		w.stream("a")
		w.stream("b")
	}
	w.messages(20)
	w.dead["a"] = true
	ticks := 0
	for len(w.lost) == 0 && ticks < 100 {
		w.tick()
		ticks++
	}
	if len(w.lost) != 10 || len(w.waits) != 10 || w.lost[0].at != "a" || w.waits[0].at != "b" {
		t.Errorf("%d streams are lost", len(w.lost))
	}
	if got := time.Duration(ticks) * Tick; got < time.Second || got >= 3*time.Second {
		t.Errorf("after %v", got)
	}
	w.dead["a"] = false // it was only paused: new streams live
	w.stream("a")
	if w.messages(50); len(w.waits) != 11 {
		t.Errorf("%d streams are left, want 11", len(w.waits))
	}
}

// TestYoungStreams: a stream whose instance dies before it has answered is lost too.
func TestYoungStreams(t *testing.T) {
	w := newWorld(t)
	w.dead["a"] = true
	w.stream("a")
	for ticks := 1; len(w.waits) > 0; ticks++ {
		if w.tick(); time.Duration(ticks)*Tick >= 3*time.Second {
			t.Fatal("it is not lost after 3 s")
		}
	}
}

// TestCalls: many calls at an instance are asked about one by one only until the instance is known;
// they are lost when it dies, not before, and likewise one that it does not have any more.
func TestCalls(t *testing.T) {
	w := newWorld(t)
	for range 100 {
		w.call("a")
	}
	if n := w.messages(2); n != 2 { // at most 64 share one
		t.Errorf("%d first queries", n)
	}
	if n := w.messages(10); n > 6 {
		t.Errorf("%d messages in two seconds", n)
	}
	forgotten := w.call("a")
	w.messages(10)
	forgotten.at = "" // its answer was lost
	for ticks := 0; len(w.lost) == 0; ticks++ {
		if w.tick(); time.Duration(ticks)*Tick > 8*time.Second {
			t.Fatal("a call whose answer was lost goes on")
		}
	}
	if len(w.lost) != 1 || w.lost[0] != forgotten {
		t.Errorf("%d calls are lost with one", len(w.lost))
	}
	w.dead["a"] = true
	for ticks := 0; len(w.lost) == 0 || ticks == 0; ticks++ {
		if w.tick(); time.Duration(ticks)*Tick >= 3*time.Second {
			t.Fatal("they are not lost after 3 s")
		}
	}
	if len(w.waits) != 0 {
		t.Errorf("%d calls are left", len(w.waits))
	}
}

// TestCallAfterStreams: a call to an instance that is asked once a second, as it had streams only,
// is not found dead later than others.
func TestCallAfterStreams(t *testing.T) {
	for at := range 2 * streamsEvery {
		w := newWorld(t)
		w.stream("a")
		w.messages(2 + at)
		call := w.call("a")
		w.messages(firstAt + 1)
		if call.where != "a" {
			t.Fatal("the instance has not answered")
		}
		w.dead["a"] = true
		for ticks := 1; !slices.Contains(w.lost, call); ticks++ {
			if w.tick(); time.Duration(ticks)*Tick >= 3*time.Second {
				t.Errorf("at tick %d: it is not lost after 3 s", at)
				break
			}
		}
	}
}

// TestReconnectingInstance: an instance that is away for 2.1 s keeps its calls, whenever that
// begins.
func TestReconnectingInstance(t *testing.T) {
	for begin := range 60 {
		w := newWorld(t)
		c := w.call("a")
		w.messages(begin)
		w.gone["a"], w.dead["b"] = true, true
		away := int(2100*time.Millisecond/Tick) + 1
		for range away {
			if c.where == "" {
				w.dead["a"] = true
			}
			w.tick()
		}
		w.gone["a"], w.dead["a"] = false, false
		if w.messages(100); len(w.waits) != 1 {
			t.Errorf("the call is lost if that begins after %d ticks", begin)
		}
	}
}

// TestGone: where nobody listens for the queries to an instance the streams there end at once.
func TestGone(t *testing.T) {
	w := newWorld(t)
	w.stream("a")
	w.messages(10)
	w.gone["a"] = true
	w.messages(streamsEvery)
	if len(w.ended) == 0 || w.ended[0] != (Place{"root", "a"}) {
		t.Errorf("gone are %v", w.ended)
	}
}

// TestOldInstance: an instance that does not know these queries is not taken for dead. Its calls
// are asked about one by one.
func TestOldInstance(t *testing.T) {
	w := newWorld(t)
	w.old["a"] = true
	w.stream("a")
	w.call("a")
	w.messages(200)
	if len(w.waits) != 2 {
		t.Errorf("%d are left", len(w.waits))
	}
	w.dead["a"] = true
	w.messages(20)
	if len(w.waits) != 1 || !w.waits[0].stream {
		t.Errorf("%d are left, want the stream", len(w.waits))
	}
}

// TestReplySubjects: where an instance may publish one answer to each subject, as in
// "allow_responses: true", NATS lets all of them pass, also those of many queries at once.
func TestReplySubjects(t *testing.T) {
	w := newWorld(t)
	for range 2 * maxShared {
		w.call("a")
	}
	w.dead["a"] = true
	w.messages(firstAt + 1) // then they are asked about one by one
	w.dead["a"] = false
	w.stream("b")
	w.messages(20 * replyRounds) // tick compares them
	if n := len(w.replies); len(w.waits) != 2*maxShared+1 || n < 2*maxShared || n > 2*maxShared+5*replyRounds {
		t.Errorf("%d are left, with %d reply subjects, which NATS keeps all", len(w.waits), n)
	}
	w = newWorld(t)
	for range maxNamed + 1 {
		w.stream("b")
	}
	if n := w.messages(firstAt + 1); n != 2 {
		t.Errorf("%d queries", n)
	}
}

// TestInvalidInstance: nobody is asked where an answer says, if that is no token of a subject.
func TestInvalidInstance(t *testing.T) {
	for _, instance := range []string{"x y", "a.b", "*", ">", "\u0085"} {
		w := newWorld(t)
		c := w.call("")
		w.messages(firstAt)
		w.asker.Deliver(w.sent[0].Reply[len(inbox):], &nats.Msg{
			Header: nats.Header{wire.InstanceHeader: {instance}}, Data: wire.AppendAlive(nil, wire.KindAliveAnswer, c.id),
		})
		if c.where != "" {
			t.Errorf("the call is at %q", c.where)
		}
	}
}

// TestMuted: where NATS refuses queries nobody is taken for dead, until it may have changed.
func TestMuted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.stream("a")
		w.call("")
		if !w.asker.Refused("root._all.alive") || !w.asker.Refused("root._i.a.alive") {
			t.Error("Refused takes the subject of a query for another one")
		}
		if w.asker.Refused("root._all.instances") || w.asker.Refused("root.Do") {
			t.Error("Refused takes another subject for that of a query")
		}
		w.dead["a"] = true
		if n := w.messages(100); n > 0 || len(w.waits) != 2 {
			t.Errorf("%d messages, %d are left", n, len(w.waits))
		}
		<-time.After(muteTime + time.Second)
		if w.messages(100); len(w.waits) > 0 {
			t.Errorf("%d are left", len(w.waits))
		}
	})
}

// TestMutedAll: where NATS refuses only the queries to all instances, single ones still hear from
// the client, which they would take for dead otherwise.
func TestMutedAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.stream("b")
		w.call("a")
		w.messages(10)
		w.call("") // nobody knows where
		w.asker.Refused("root._all.alive")
		if n := w.messages(50); n < 30 || len(w.waits) != 3 {
			t.Errorf("%d messages, %d are left", n, len(w.waits))
		}
		w.dead["a"] = true
		if w.messages(50); len(w.waits) != 2 {
			t.Errorf("%d are left, want the stream and the call that nobody can be asked about", len(w.waits))
		}
	})
}

// TestMutedOne: where NATS refuses only the queries to single instances, calls are asked about with
// a query to all.
func TestMutedOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.call("a")
		w.messages(10)
		w.asker.Refused("root._i.a.alive")
		for limit := int((maxCallSilence - 2) * ServerTick / Tick); len(w.sent) == 0 || w.sent[0].Subject != "root._all.alive"; limit-- {
			if w.tick(); limit == 0 {
				t.Fatal("an instance takes the client for dead")
			}
		}
		w.dead["a"] = true
		if w.messages(50); len(w.waits) > 0 {
			t.Error("the call is not lost")
		}
	})
}
