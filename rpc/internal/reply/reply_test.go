package reply

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// conn takes what is published.
type conn struct {
	mu   sync.Mutex
	sent []*nats.Msg
	err  error
}

func (c *conn) Publish(subject string, data []byte) error {
	return c.PublishMsg(&nats.Msg{Subject: subject, Data: data})
}

func (c *conn) PublishRequest(subject, reply string, data []byte) error {
	return c.PublishMsg(&nats.Msg{Subject: subject, Reply: reply, Data: data})
}

func (c *conn) PublishMsg(m *nats.Msg) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	own := *m
	own.Data = slices.Clone(m.Data)
	c.sent = append(c.sent, &own)
	return c.err
}

func (c *conn) MaxPayload() int64 { return 1 << 20 }

// takeSent returns the requests so far, and forgets them.
func (c *conn) takeSent() []*nats.Msg {
	c.mu.Lock()
	defer c.mu.Unlock()
	sent := c.sent
	c.sent = nil
	return sent
}

const prefix = "inbox."

// client is an inbox on a connection.
type client struct {
	conn
	*Inbox
	refused error
}

func newClient(t *testing.T, maxBatch int) *client {
	c := &client{}
	start := time.Now()
	out := publish.New(&c.conn, publish.Config{Now: func() time.Duration { return time.Since(start) }, MaxBatch: maxBatch})
	c.Inbox = New(prefix, out, func() error { return c.refused })
	t.Cleanup(out.End)
	go out.Run()
	return c
}

// outcome is what Do returns.
type outcome struct {
	Reply
	foreign Foreign
	err     error
}

// newRequest returns one, with its id as its data.
func newRequest() *Request {
	r := &Request{ID: wire.NewID(), Subject: "service.Do", Root: "service", Buffer: buffer.Take()}
	r.Buffer.B = wire.AppendRequest(r.Buffer.B, r.ID, 0, 0)
	return r
}

// start makes a call and returns its result, and its request when that is there.
func (c *client) start(ctx context.Context, r *Request) (<-chan outcome, *nats.Msg) {
	result := make(chan outcome, 1)
	go func() {
		reply, foreign, err := c.Do(ctx, r)
		result <- outcome{reply, foreign, err}
	}()
	synctest.Wait()
	if sent := c.takeSent(); len(sent) > 0 {
		return result, sent[0]
	}
	return result, nil
}

func response(id wire.ID) []byte { return append(wire.AppendResponse(nil, id, 0, 0), "answer"...) }

// unanswered reports whether a call still waits.
func unanswered(result <-chan outcome) bool {
	synctest.Wait()
	return len(result) == 0
}

var noResponders = nats.Header{"Status": []string{"503"}}

// TestOutcomes: what ends a call, and what does not.
func TestOutcomes(t *testing.T) {
	reason := errors.New("the connection is closed")
	ack := []byte(`{"stream":"S","seq":1}`)
	for _, test := range []struct {
		name    string
		plain   bool
		accepts bool // IsResponse
		happen  func(c *client, r *Request, reply string)
		data    string // of the reply
		err     error
		foreign Foreign
		waits   bool
	}{
		{name: "the answer", data: "answer", happen: func(c *client, r *Request, reply string) {
			c.Deliver(&nats.Msg{Subject: reply, Data: response(r.ID)})
		}},
		{name: "two answers", data: "answer", happen: func(c *client, r *Request, reply string) {
			c.Deliver(&nats.Msg{Subject: reply, Data: response(r.ID)})
			c.Deliver(&nats.Msg{Subject: reply, Data: append(response(r.ID), '2')})
		}},
		{name: "another call's answer", waits: true, happen: func(c *client, r *Request, reply string) {
			c.Deliver(&nats.Msg{Subject: reply, Data: response(wire.NewID())})
		}},
		{name: "no responders", err: nats.ErrNoResponders, happen: func(c *client, r *Request, reply string) {
			c.Deliver(&nats.Msg{Subject: reply, Header: noResponders})
		}},
		{name: "an acknowledgement, then the answer", data: "answer", foreign: Foreign{Acks: 1}, happen: func(c *client, r *Request, reply string) {
			c.Deliver(&nats.Msg{Subject: reply, Data: ack})
			c.Deliver(&nats.Msg{Subject: reply, Data: response(r.ID)})
		}},
		{name: "foreign replies, then the end", err: reason, foreign: Foreign{Acks: 2, Others: 1}, happen: func(c *client, r *Request, reply string) {
			c.Deliver(&nats.Msg{Subject: reply, Data: ack})
			c.Deliver(&nats.Msg{Subject: reply, Data: []byte("plain")})
			c.Deliver(&nats.Msg{Subject: reply, Data: ack})
			c.End(reason)
		}},
		{name: "plain", plain: true, data: "plain", happen: func(c *client, r *Request, reply string) {
			c.Deliver(&nats.Msg{Subject: reply, Data: []byte("plain")})
		}},
		{name: "plain, an acknowledgement", plain: true, waits: true, foreign: Foreign{Acks: 1}, happen: func(c *client, r *Request, reply string) {
			c.Deliver(&nats.Msg{Subject: reply, Data: ack})
		}},
		{name: "plain, a response like an acknowledgement", plain: true, accepts: true, data: string(ack), happen: func(c *client, r *Request, reply string) {
			c.Deliver(&nats.Msg{Subject: reply, Data: ack})
		}},
		{name: "strange subjects", waits: true, happen: func(c *client, r *Request, reply string) {
			for _, subject := range []string{"", prefix, "other.0-1", prefix + "x-1", prefix + "-1-1", prefix + "9-1", prefix + "0", prefix + "0-zz", prefix + "0-1-1"} {
				c.Deliver(&nats.Msg{Subject: subject, Data: response(r.ID)})
				c.Deliver(&nats.Msg{Subject: subject, Header: noResponders})
			}
		}},
		{name: "an item of a batch", data: "answer", happen: func(c *client, r *Request, reply string) {
			b := wire.AppendItem(wire.AppendBatch(nil), 7, response(r.ID)) // there is no such slot
			b = wire.AppendItem(b, 0, response(wire.NewID()))
			c.DeliverBatch(&nats.Msg{Subject: reply, Data: wire.AppendItem(b, 0, response(r.ID))})
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, r := newClient(t, 0), newRequest()
				r.Plain = test.plain
				if test.accepts {
					r.IsResponse = func(*nats.Msg) bool { return true }
				}
				result, m := c.start(t.Context(), r)
				test.happen(c, r, m.Reply)
				if unanswered(result) != test.waits {
					t.Fatalf("it waits: %v", !test.waits)
				}
				c.End(reason)
				got := <-result
				if test.waits {
					test.err = reason
				}
				if !errors.Is(got.err, test.err) || !strings.HasSuffix(string(got.Data), test.data) || got.foreign != test.foreign {
					t.Errorf("the outcome is %q, %v, %v", got.Data, got.foreign, got.err)
				}
				if all, free := c.Slots(); all != 1 || free != 1 {
					t.Errorf("%d slots, %d of them free", all, free)
				}
			})
		})
	}
}

// TestInvalidAnswer: an answer that cannot be read ends its call.
func TestInvalidAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := newClient(t, 0), newRequest()
		result, m := c.start(t.Context(), r)
		accept := wire.AppendAccept(nil, r.ID, 1, "not an instance")
		c.Deliver(&nats.Msg{Subject: m.Reply, Data: accept})
		var invalid *InvalidError
		if got := <-result; !errors.As(got.err, &invalid) {
			t.Errorf("the error is %v", got.err)
		}
	})
}

// TestEnds: a call ends with its context or at its deadline, also if a timer runs for a call
// before, and nothing that comes later reaches the next call of the slot.
func TestEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, 0)
		for i, timeout := range []time.Duration{time.Minute, time.Second, time.Hour, time.Minute} {
			r := newRequest()
			r.Timer, r.Deadline, r.Left = true, time.Now().Add(timeout), timeout
			start := time.Now()
			result, m := c.start(t.Context(), r)
			if i%2 == 0 { // the timer runs on
				c.Deliver(&nats.Msg{Subject: m.Reply, Data: response(r.ID)})
				if got := <-result; got.err != nil {
					t.Fatal(got.err)
				}
				continue
			}
			if got := <-result; got.err != ErrDeadline || time.Since(start) != timeout {
				t.Fatalf("after %v: %v", time.Since(start), got.err)
			}
			next, again := c.start(t.Context(), newRequest())
			c.Deliver(&nats.Msg{Subject: m.Reply, Data: response(r.ID)})
			c.Deliver(&nats.Msg{Subject: m.Reply, Header: noResponders})
			if !unanswered(next) || again.Reply == m.Reply {
				t.Fatal("a late reply ends the next call")
			}
			c.Deliver(&nats.Msg{Subject: again.Reply, Header: noResponders})
			<-next
		}
		ctx, cancel := context.WithCancel(t.Context())
		result, _ := c.start(ctx, newRequest())
		cancel()
		if got := <-result; got.err != ErrContext {
			t.Errorf("a canceled call ends with %v", got.err)
		}
		if all, free := c.Slots(); all != free || all > FreeLists {
			t.Errorf("%d slots, %d of them free", all, free)
		}
	})
}

// TestNotSent: a request that is refused, or not published, has its caller told.
func TestNotSent(t *testing.T) {
	reason := errors.New("no")
	c := newClient(t, 0)
	c.refused = reason
	if _, _, err := c.Do(t.Context(), newRequest()); err != reason {
		t.Errorf("a refused call ends with %v", err)
	}
	c.refused, c.err = nil, reason
	var unsent *UnsentError
	r := newRequest()
	size := len(r.Buffer.B)
	if _, _, err := c.Do(t.Context(), r); !errors.As(err, &unsent) || unsent.Err != reason || unsent.Size != size {
		t.Errorf("an unsent call ends with %v", err)
	}
	if calls, expected := c.out.InFlight(); calls != 0 || expected != 0 {
		t.Errorf("%d calls are in flight, %d callers are expected", calls, expected)
	}
}

// TestFollowers: "no responders" to a batch ends the calls that wait, and no later ones.
func TestFollowers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const calls = 5
		c := newClient(t, 1<<16)
		_, release := c.out.Hold()
		var results []<-chan outcome
		cancels := make([]context.CancelFunc, calls)
		for i := range calls {
			var ctx context.Context
			ctx, cancels[i] = context.WithCancel(t.Context())
			result, _ := c.start(ctx, newRequest())
			results = append(results, result)
		}
		cancels[0]() // which would have led
		<-results[0]
		release()
		sent := c.takeSent()
		if len(sent) != 1 || !wire.IsBatch(sent[0].Data) {
			t.Fatalf("%d messages are published", len(sent))
		}
		cancels[2]()
		<-results[2]
		later, _ := c.start(t.Context(), newRequest())
		c.Deliver(&nats.Msg{Subject: sent[0].Reply, Header: noResponders})
		for _, i := range []int{1, 3, 4} {
			if got := <-results[i]; got.err != nats.ErrNoResponders {
				t.Errorf("call %d ends with %v", i, got.err)
			}
			cancels[i]()
		}
		if !unanswered(later) {
			t.Error("a later call has ended")
		}
		c.End(errors.New("over"))
		<-later
	})
}

// TestEach: Each sees what waits, and Alive is about the call that it names.
func TestEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, r := newClient(t, 0), newRequest()
		result, _ := c.start(t.Context(), r)
		look := func() (asked bool, dead bool) {
			c.Each(func(p *Pending) error {
				if p.CallID() != r.ID || p.To() != r.Subject || p.Root() != r.Root || p.Waited() != &p.Patience {
					t.Error("it is another call")
				}
				asked, dead = p.Tick()
				return nil
			})
			return asked, dead
		}
		where := func() (instance string) {
			c.Each(func(p *Pending) error { instance = p.Where(); return nil })
			return instance
		}
		alive := func(id wire.ID) {
			c.Each(func(p *Pending) error { go p.Alive(id, "instance"); return nil })
			synctest.Wait()
		}
		for range 20 { // as long as answers come
			if _, dead := look(); dead {
				t.Error("a call that was answered for is lost")
			}
			alive(r.ID)
		}
		if where() != "instance" {
			t.Errorf("the call is at %q", where())
		}
		for dead := false; !dead; { // they are about another call
			_, dead = look()
			alive(wire.NewID())
		}
		c.End(errors.New("lost"))
		<-result
		c.Each(func(*Pending) error { t.Error("a call that has ended is looked at"); return nil })
	})
}

// TestConcurrentCalls: each of many callers in a closed loop gets the answers to its own calls,
// while others give up.
func TestConcurrentCalls(t *testing.T) {
	const callers, calls = 32, 300
	c := newClient(t, 1<<12)
	done := make(chan struct{})
	var run, running sync.WaitGroup
	run.Go(func() { // the server
		for {
			for _, m := range c.takeSent() {
				if b, err := wire.ParseBatch(m.Data); wire.IsBatch(m.Data) && err == nil {
					answers := wire.AppendBatch(nil)
					for tag, item := range b.Items() {
						answers = wire.AppendItem(answers, tag, response(wire.IDOf(item)))
					}
					c.DeliverBatch(&nats.Msg{Subject: m.Reply, Data: answers})
					continue
				}
				c.Deliver(&nats.Msg{Subject: m.Reply, Data: response(wire.IDOf(m.Data))})
			}
			select {
			case <-done:
				return
			case <-time.After(10 * time.Microsecond):
			}
		}
	})
	for i := range callers {
		running.Go(func() {
			for j := range calls {
				ctx, cancel := context.WithCancel(context.Background())
				r := newRequest()
				if (i+j)%5 == 0 {
					go cancel()
				}
				got, _, err := c.Do(ctx, r)
				if err == nil && wire.IDOf(got.Data) != r.ID {
					t.Error("it got another call's answer")
				}
				if err != nil && !errors.Is(err, ErrContext) {
					t.Error(err)
				}
				cancel()
			}
		})
	}
	running.Wait()
	close(done)
	run.Wait()
	if inFlight, expected := c.out.InFlight(); inFlight != 0 || expected != 0 {
		t.Errorf("%d calls are in flight, %d callers are expected", inFlight, expected)
	}
	if all, free := c.Slots(); all != free {
		t.Errorf("%d slots, %d of them free", all, free)
	}
}

// TestEndedBeforePublished: a call that ends before its request was published is not taken for the
// next call of its slot, and its request is never published.
func TestEndedBeforePublished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newClient(t, 0)
		_, release := c.out.Hold()
		a, b := newRequest(), newRequest()
		b.ID[0] = a.ID[0] // the same free list
		b.Buffer.B = wire.AppendRequest(b.Buffer.B[:0], b.ID, 0, 0)
		first, _ := c.start(t.Context(), a)
		c.End(errors.New("the end"))
		var unpublished *publish.UnpublishedError
		if got := <-first; !errors.As(got.err, &unpublished) {
			t.Fatalf("got %v", got.err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		second, _ := c.start(ctx, b)
		release()
		synctest.Wait()
		if sent := c.takeSent(); len(sent) != 1 || wire.IDOf(sent[0].Data) != b.ID {
			t.Errorf("%d requests are published, want that of the second call", len(sent))
		}
		cancel()
		if got := <-second; got.err != ErrContext {
			t.Errorf("got %v", got.err)
		}
	})
}
