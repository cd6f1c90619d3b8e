package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/flow"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/reply"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// TestOpen: what ends the opening of a stream and what does not.
func TestOpen(t *testing.T) {
	noMembers := func(name string) []byte {
		return append(wire.AppendFrame(nil, wire.KindAccept, 0), name...)
	}
	for _, test := range []struct {
		name    string
		answer  func(p *pair) []byte // nil is "no responders"
		err     string               // of Open; waits if it waits on
		told    string
		foreign reply.Foreign
	}{
		{"an accept", func(p *pair) []byte { return wire.AppendAccept(nil, p.id, 7, instance) }, "nil", "", reply.Foreign{}},
		{"no responders", nil, nats.ErrNoResponders.Error(), "", reply.Foreign{}},
		{"a refusal", func(p *pair) []byte {
			return append(wire.AppendResponse(nil, p.id, 0, wire.FlagError|wire.Refused.Flags()), "theirs"...)
		}, "status theirs 3", "", reply.Foreign{}},
		{"an acknowledgement", func(*pair) []byte { return []byte(`{"stream":"S","seq":1}`) }, waits, "", reply.Foreign{Acks: 1}},
		{"a text", func(*pair) []byte { return []byte("text") }, waits, "", reply.Foreign{Others: 1}},
		{"nothing", func(*pair) []byte { return []byte{} }, waits, "", reply.Foreign{Others: 1}},
		{"an accept of another call", func(*pair) []byte { return wire.AppendAccept(nil, wire.NewID(), 7, instance) }, waits, "", reply.Foreign{}},
		{"a refusal of another call", func(*pair) []byte { return wire.AppendResponse(nil, wire.NewID(), 0, wire.FlagError) }, waits, "", reply.Foreign{}},
		{"data", func(*pair) []byte { return dataFrame(0, "x") }, waits, "", reply.Foreign{}},
		{"an end", func(*pair) []byte { return endFrame(0, unknown) }, waits, "", reply.Foreign{}},
		{"an accept without an instance", func(p *pair) []byte { return noMembers(string(p.id[:])) },
			"reply: the reply is not valid: invalid stream frame: accept without an instance", "cancel to all", reply.Foreign{}},
		{"an accept of an invalid instance", func(p *pair) []byte { return noMembers(string(p.id[:]) + "a.b") },
			`reply: the reply is not valid: invalid stream frame: instance "a.b"`, "cancel to all", reply.Foreign{}},
		{"a response", func(p *pair) []byte { return wire.AppendResponse(nil, p.id, 0, 0) },
			"reply: the reply is not valid: a response instead of an accept", "cancel to all", reply.Foreign{}},
		{"a response of another version", func(p *pair) []byte {
			b := wire.AppendResponse(nil, p.id, 0, wire.FlagError)
			b[1] = 2
			return b
		}, "reply: the reply is not valid: unsupported protocol version: 2; this side speaks 1", "cancel to all", reply.Foreign{}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, nil)
				opening := begin(func() error { return p.client.Open(Open{}) })
				p.up.take()
				if to, early := p.client.To(); to != subject || !early || p.client.Accepted() {
					t.Errorf("while it opens: To %q, %v", to, early)
				}
				if test.answer == nil {
					p.toClient(p.noResponders())
				} else {
					p.toClient(p.answer(test.answer(p)))
				}
				if got := opening.state(); got != test.err || p.client.Foreign() != test.foreign {
					t.Errorf("Open: %s, foreign: %v", got, p.client.Foreign())
				}
				if up := p.up.published(); up != test.told {
					t.Errorf("%q is published", up)
				}
				if over := test.err != "nil" && test.err != waits; over {
					if len(p.clients.All()) > 0 || p.notifications() != test.err || p.client.Accepted() {
						t.Error("Notify:", p.notifications())
					}
					send := test.err
					if test.name == "a refusal" { // the peer has ended the stream
						send = "EOF"
					}
					if got := states(&p.client.Stream); got != [2]string{send, test.err} {
						t.Errorf("then: %q", got)
					}
					return
				}
				p.toClient(p.answer(wire.AppendAccept(nil, p.id, 0, instance)))
				to, early := p.client.To()
				if opening.state() != "nil" || !p.client.Accepted() || to != p.frame(nil).Subject || early {
					t.Errorf("in the end: Open %s, To %q, %v", opening.state(), to, early)
				}
			})
		})
	}
}

// TestOpenErrors: the errors of Open are of the types that its owner looks at.
func TestOpenErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		p.mustSend(&p.client.Stream, "request")
		refused := errors.New("refused")
		p.up.fail(refused)
		err := p.client.Open(Open{})
		var unsent *reply.UnsentError
		if !errors.As(err, &unsent) || unsent.Err != refused || unsent.Size < wire.HeaderSize+len("request") {
			t.Error("Open:", err)
		}
		if len(p.clients.All()) > 0 || sendText(&p.client.Stream, "x") != err || p.up.published() != "" {
			t.Error("the stream is not over")
		}
	})
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		opening := begin(func() error { return p.client.Open(Open{}) })
		p.toClient(p.noResponders())
		if opening.state(); opening.err != nats.ErrNoResponders {
			t.Error("Open:", opening.err)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		opening := begin(func() error { return p.client.Open(Open{}) })
		p.toClient(p.answer(wire.AppendResponse(nil, p.id, 0, 0)))
		var invalid *reply.InvalidError
		if opening.state(); !errors.As(opening.err, &invalid) {
			t.Error("Open:", opening.err)
		}
	})
}

// TestUnopened: a stream that is over before Open publishes no open and leaves the table.
func TestUnopened(t *testing.T) {
	for _, test := range []struct {
		name   string
		before func(p *pair, c *ClientConfig) // NewClient
		after  func(p *pair)
		err    string
	}{
		{"the context has ended", func(p *pair, _ *ClientConfig) { p.cancel() }, nil, "stream: context canceled"},
		{"the deadline has passed", func(_ *pair, c *ClientConfig) { c.Deadline = time.Now() }, nil, "stream: context deadline exceeded"},
		{"the context ends", nil, func(p *pair) { p.cancel() }, "stream: context canceled"},
		{"the deadline passes", func(_ *pair, c *ClientConfig) { c.Deadline = time.Now().Add(1) }, func(*pair) { <-time.After(1) }, "stream: context deadline exceeded"},
		{"it is refused", func(_ *pair, c *ClientConfig) { c.Refuse = func() error { return errMine } }, nil, "mine"},
		{"the table is closed", func(p *pair, _ *ClientConfig) { p.clients.Close(errOther) }, nil, errText(ErrDuplicate)},
		{"it has been refused, and the table is closed", func(p *pair, c *ClientConfig) {
			p.clients.Close(errOther)
			c.Refuse = func() error { return errMine }
		}, nil, "mine"},
		{"the table is broken", nil, func(p *pair) { p.clients.Break(errMine) }, "mine"},
		{"it is broken", nil, func(p *pair) { p.client.Break(errMine) }, "mine"},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, test.before)
				if test.after != nil {
					test.after(p)
				}
				synctest.Wait()
				err := p.client.Open(Open{})
				var unopened *publish.UnpublishedError
				if !errors.As(err, &unopened) || errText(unopened.Err) != test.err || errText(err) != "publish: not published: "+test.err {
					t.Error("Open:", err)
				}
				if up := only(whats(p.up.take()), "open"); len(up) > 0 || len(p.clients.All()) > 0 || p.client.Accepted() {
					t.Errorf("%q is published, %d streams are in the table", up, len(p.clients.All()))
				}
				if got := states(&p.client.Stream); got != [2]string{test.err, test.err} || p.notifications() != test.err {
					t.Errorf("then: %q", got)
				}
			})
		})
	}
}

// TestRefuseIsLate: Refuse is asked when Table.Break would find the stream.
func TestRefuseIsLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, func(p *pair, c *ClientConfig) {
			c.Refuse = func() error {
				p.clients.Break(errMine)
				return nil
			}
		})
		if !isOver(&p.client.Stream) || p.notifications() != "mine" {
			t.Error("Break has not found it:", p.notifications())
		}
	})
}

// TestDuplicate: a second stream with an id is over at once, and the first one stays.
func TestDuplicate(t *testing.T) {
	inPair(t, func(p *pair) {
		second := NewClient(p.ctx, p.clientConfig())
		var unopened *publish.UnpublishedError
		if err := second.Open(Open{}); !errors.As(err, &unopened) || unopened.Err != ErrDuplicate {
			t.Error("Open:", err)
		}
		o := &owner{}
		s := NewServer(p.handler, p.serverConfig(), o, wire.Open{})
		if err := s.Accept("to", func(uint64) error { t.Error("it is announced"); return nil }); err != ErrDuplicate {
			t.Error("Accept:", err)
		}
		if o.told() != errText(ErrDuplicate) || len(p.clients.All()) != 1 || len(p.servers.All()) != 1 {
			t.Error("StreamEnded:", o.told())
		}
		p.mustSend(&p.client.Stream, "a")
		p.settle()
		p.mustRecv(&p.server.Stream, "a")
	})
}

// TestAcceptError: an accept that cannot be published ends the server's stream.
func TestAcceptError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		m := p.start()
		p.down.fail(errTheirs)
		if err := p.accept(m); err != errTheirs || p.owner.told() != "theirs" || len(p.servers.All()) > 0 || p.server.Accepted() {
			t.Errorf("Accept: %v, StreamEnded: %s", err, p.owner.told())
		}
	})
}

// TestAcceptIsFirst: nothing overtakes the accept, and what was sent before follows it.
func TestAcceptIsFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		m := p.start()
		p.server = NewServer(p.handler, p.serverConfig(), &p.owner, wire.Open{Credit: 1 << 20})
		p.mustSend(&p.server.Stream, strings.Repeat("x", minAlone), "early")
		err := p.server.Accept(m.Reply, func(credit uint64) error {
			p.mustSend(&p.server.Stream, "b")
			synctest.Wait()
			return p.down.Publish(m.Reply, wire.AppendAccept(nil, p.id, credit, instance))
		})
		if down := p.down.published(); err != nil || down != "accept, data 0" {
			t.Errorf("%q is published, %v", down, err)
		}
	})
}

// TestFramesBeforeAccepted: a client's frame that comes within Accept says where to send to.
func TestFramesBeforeAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		m := p.start()
		p.server = NewServer(p.handler, p.serverConfig(), &p.owner, wire.Open{Credit: flow.Window})
		credit := p.frame(wire.AppendFrame(nil, wire.KindCredit, flow.Window))
		credit.Reply = fmt.Sprintf("%ss%v-2", inbox, p.id)
		if err := p.server.Accept(m.Reply, func(uint64) error { p.toServer(credit); return nil }); err != nil {
			t.Error("Accept:", err)
		}
		p.mustSend(&p.server.Stream, "a")
		synctest.Wait()
		if sent := p.down.take(); len(sent) != 1 || sent[0].Subject != credit.Reply {
			t.Errorf("%q is published", whats(sent))
		}
	})
}

// TestRecvBeforeOpen: a stream that is not open grants nothing by a frame.
func TestRecvBeforeOpen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		receiving := begin(func() error { return recvErr(&p.client.Stream) })
		if up := p.up.published(); up != "" || receiving.state() != waits {
			t.Errorf("%q is published", up)
		}
		p.client.Break(errMine)
	})
}

// TestOpenFrame: what the open says, and what it takes along.
func TestOpenFrame(t *testing.T) {
	text := func(n int) string { return strings.Repeat("x", n-wire.MessagePrefix) }
	header := nats.Header{"Key": {"value"}}
	for _, test := range []struct {
		name       string
		messages   []string
		close      bool
		limit      int64
		headerSize int
		taken      bool
		last       bool
	}{
		{name: "nothing", taken: true},
		{name: "a message", messages: []string{"a"}, taken: true},
		{name: "the only message", messages: []string{"a"}, close: true, taken: true, last: true},
		{name: "messages", messages: []string{"a", "", "c"}, close: true, taken: true, last: true},
		{name: "only the half-close", close: true, taken: true, last: true},
		{name: "as much as fits", messages: []string{text(wire.MaxOpenData)}, close: true, taken: true, last: true},
		{name: "more than fits", messages: []string{text(wire.MaxOpenData + 1)}, close: true},
		{name: "more than fits together", messages: []string{"a", text(wire.MaxOpenData - wire.MessagePrefix)}},
		{name: "the whole payload", messages: []string{text(100)}, limit: 1000, headerSize: 1000 - wire.HeaderSize - 2*wire.MaxFrameHeader - 100, taken: true},
		{name: "more than the payload", messages: []string{text(101)}, close: true, limit: 1000, headerSize: 1000 - wire.HeaderSize - 2*wire.MaxFrameHeader - 100},
		{name: "no room, and nothing", limit: 10, close: true, taken: true, last: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPair(t, func(p *pair, _ *ClientConfig) {
					if test.limit > 0 {
						p.up.limit = test.limit
					}
				})
				p.mustSend(&p.client.Stream, test.messages...)
				if test.close {
					p.client.CloseSend()
				}
				opening := begin(func() error {
					return p.client.Open(Open{
						Header: header, HeaderSize: test.headerSize, Codec: wire.CodecJSON, Compression: wire.CompressionZstd, Timeout: time.Minute,
					})
				})
				sent := p.up.take()
				if len(sent) != 1 {
					t.Fatalf("%q is published", whats(sent))
				}
				m := sent[0]
				env, err := wire.Parse(m.Data)
				if err != nil || env.Kind != wire.KindOpen || env.ID != p.id || env.Timeout != time.Minute ||
					env.Flags.Codec() != wire.CodecJSON || env.Flags.Compression() != wire.CompressionZstd {
					t.Errorf("the open is %+v, %v", env, err)
				}
				if m.Subject != subject || m.Reply != fmt.Sprintf("%ss%v-1", inbox, p.id) || m.Header.Get("Key") != "value" {
					t.Errorf("it goes to %q, %q with %v", m.Subject, m.Reply, m.Header)
				}
				open, err := wire.ParseOpen(&env)
				if err != nil || open.Credit != flow.Window || open.HalfClose != test.last || (len(open.Data) > 0) != (test.taken && len(test.messages) > 0) {
					t.Errorf("it says %d, %d bytes, %v, %v", open.Credit, len(open.Data), open.HalfClose, err)
				}

				p.toServer(m)
				up, _ := p.settle()
				if opening.state() != "nil" {
					t.Error("Open:", opening.state())
				}
				if test.taken && len(up) > 0 || !test.taken && len(up) == 0 {
					t.Errorf("then %q is published", up)
				}
				p.mustRecv(&p.server.Stream, test.messages...)
				if test.close {
					if err := recvErr(&p.server.Stream); err != io.EOF {
						t.Error("Recv:", err)
					}
				} else if got := recvState(&p.server.Stream); got != waits {
					t.Error("Recv:", got)
				}
				p.mustSend(&p.server.Stream, "answer")
				p.settle()
				p.mustRecv(&p.client.Stream, "answer")
			})
		})
	}
}

// TestOpenCredit: a server believes a window of an open's credit, and all once it has heard more.
func TestOpenCredit(t *testing.T) {
	for _, heard := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			p := newPair(t, nil)
			m := p.start()
			p.server = NewServer(p.handler, p.serverConfig(), &p.owner, wire.Open{Credit: 3 * flow.Window})
			if err := p.server.Accept(m.Reply, func(uint64) error { return nil }); err != nil {
				t.Fatal(err)
			}
			if heard {
				p.toServer(p.frame(wire.AppendFrame(nil, wire.KindCredit, 0)))
			}
			sending := begin(func() error { return fill(&p.server.Stream) })
			synctest.Wait()
			bytes := 0
			for _, m := range p.down.take() {
				bytes += len(m.Data)
			}
			if sending.state() != waits || (bytes > flow.Window) != heard || bytes < flow.Window/2 || heard && bytes < 5*flow.Window/2 {
				t.Errorf("heard: %v: %d bytes are published", heard, bytes)
			}
		})
	}
}

// TestTable: a table has its streams until they are over, and a keeper while it has any.
func TestTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		table, up := NewTable(heartbeat), newLink()
		newClient := func(queued bool) *Client {
			return NewClient(context.Background(), ClientConfig{
				Config:   Config{ID: wire.NewID(), Conn: up, Table: table, MaxMessage: maxMessage},
				Statuses: statuses{}, Out: up, Subject: subject, Root: root, ReplyPrefix: inbox, Queued: queued, Refuse: func() error { return nil },
			})
		}
		for range 3 { // keepers end and begin
			a, b := newClient(true), newClient(true)
			all := table.All()
			if len(all) != 2 || !slices.Contains(all, &a.Stream) || !slices.Contains(all, &b.Stream) {
				t.Errorf("All: %v", all)
			}
			if table.Deliver(wire.NewID(), &nats.Msg{}) {
				t.Error("a message of no stream is delivered")
			}
			if !table.Deliver(a.ID, &nats.Msg{Header: nats.Header{"Status": {"503"}}}) {
				t.Error("a message is not delivered")
			}
			if all := table.All(); len(all) != 1 || all[0] != &b.Stream || isOver(&b.Stream) || a.err != nats.ErrNoResponders {
				t.Errorf("after a's end: %v", all)
			}
			table.Break(errMine)
			if len(table.All()) > 0 || b.err != errMine {
				t.Error("after Break:", b.err)
			}
			table.keepers.Wait() // though the table is not closed
		}
		a, b, unpublished := newClient(true), newClient(false), newClient(true)
		a.Claim(nil) // which are opening
		b.Claim(nil)
		table.Close(errMine)
		if len(table.All()) > 0 || a.err != errMine || b.err != errMine || unpublished.err != errMine || up.published() != "cancel to all, cancel to all" {
			t.Error("after Close:", a.err, b.err)
		}
		if c := newClient(true); c.err != ErrDuplicate || len(table.All()) > 0 {
			t.Error("a closed table takes a stream:", c.err)
		}
		table.Close(errOther)
	})
}

// TestTableCloseWaits: Close waits until the streams of a server have sent their ends.
func TestTableCloseWaits(t *testing.T) {
	inPair(t, func(p *pair) {
		p.down.block = make(chan struct{})
		closing := begin(func() error { p.servers.Close(errTheirs); return nil })
		if closing.state() != waits {
			t.Error("Close does not wait")
		}
		close(p.down.block)
		if closing.state() != "nil" || p.down.published() != "end 0 theirs, nothing" {
			t.Error("Close waits on")
		}
	})
}

// TestEachClient: EachClient sees the streams that wait for an answer and those that are open, and
// ends those it is told to.
func TestEachClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		p.start()
		asked, end := 0, error(nil)
		tick := func() {
			p.clients.EachClient(func(c *Client, open bool) error {
				if c != p.client || open || c.CallID() != p.id || c.Root() != root || c.Where() != "" || c.Known() {
					t.Error("it is another call:", c.CallID(), open, c.Root(), c.Where(), c.Known())
				}
				ask, dead := c.Waited().Tick()
				if ask {
					asked++
				}
				if dead {
					return end
				}
				return nil
			})
		}
		end = errMine
		for range 20 {
			tick()
			p.client.Alive(p.id, instance)
		}
		if _, early := p.client.To(); early || asked != 10 || isOver(&p.client.Stream) {
			t.Errorf("asked %d times; it is over: %v", asked, p.client.err)
		}
		for range 20 {
			tick()
		}
		if asked != 17 || p.client.err != errMine || <-p.opened != errMine || p.up.published() != "cancel to all" {
			t.Errorf("asked %d times; it is over: %v", asked, p.client.err)
		}
	})
	inPair(t, func(p *pair) {
		known := func() (is bool) {
			p.clients.EachClient(func(c *Client, open bool) error {
				if is = c.Known(); !open || c.Where() != instance {
					t.Errorf("open is %v, at %q", open, c.Where())
				}
				return nil
			})
			return is
		}
		before := known()
		p.client.Alive(p.id, "other")
		other := known()
		p.client.Alive(p.id, instance)
		if after := known(); before || other || !after {
			t.Errorf("the instance knows the stream: %v, %v, %v, want only the last", before, other, after)
		}
		if !p.clients.Has(p.id) || p.clients.Has(wire.NewID()) {
			t.Error("the table has other streams")
		}
		p.clients.EachClient(func(*Client, bool) error { return errMine })
		p.clients.EachClient(func(*Client, bool) error { return errors.New("a stream that is over") })
		if !isOver(&p.client.Stream) || p.client.err != errMine {
			t.Errorf("the stream has ended by %v", p.client.err)
		}
	})
}

// TestParseToken: the id is read from the tokens of reply subjects, and from nothing else.
func TestParseToken(t *testing.T) {
	id := wire.NewID()
	for _, test := range []struct {
		token string
		ok    bool
	}{
		{TokenPrefix + id.String() + "-1", true},
		{TokenPrefix + id.String() + "-123", true},
		{TokenPrefix + id.String(), true},
		{"", false}, {TokenPrefix, false}, {"-1", false}, {TokenPrefix + "-1", false},
		{TokenPrefix + id.String()[1:] + "-1", false},
		{TokenPrefix + id.String() + "0-1", false},
		{TokenPrefix + strings.Repeat("x", 32) + "-1", false},
	} {
		got, ok := ParseToken(test.token)
		if ok != test.ok || ok && got != id {
			t.Errorf("%q: %v, %v", test.token, got, ok)
		}
	}
}

// TestCloseAwaitsCancels: a table is closed once the servers of streams that end at that time have
// been told, also if something else has ended them.
func TestCloseAwaitsCancels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		p.open()
		p.up.take()
		p.up.block = make(chan struct{})
		ending := begin(func() error { p.client.End(errMine); return nil })
		if got := ending.state(); got != waits {
			t.Fatalf("End: %s", got)
		}
		closing := begin(func() error { p.clients.Close(errOther); return nil })
		if got := closing.state(); got != waits {
			t.Errorf("Close returns %s before the server has been told", got)
		}
		close(p.up.block)
		if closing.state() != "nil" || ending.state() != "nil" || p.up.published() != "cancel" {
			t.Error("the end and the close do not return")
		}
	})
}
