package instances

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// conn is a connection that keeps what is published.
type conn struct {
	mu      sync.Mutex
	sent    []*nats.Msg
	offline atomic.Bool
}

func (c *conn) PublishMsg(m *nats.Msg) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = append(c.sent, m)
	return nil
}

func (c *conn) connected() bool { return !c.offline.Load() }

// query returns the only query since the last time.
func (c *conn) query(t *testing.T) *nats.Msg {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sent) != 1 {
		t.Fatalf("%d queries were sent, want 1", len(c.sent))
	}
	m := c.sent[0]
	c.sent = nil
	return m
}

var noResponders = nats.Header{"Status": {"503"}}

func answer(t *testing.T, query *nats.Msg, instance string) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{}.MarshalAppend(wire.AppendInstanceAnswer(nil, wire.IDOf(query.Data)),
		&natscallv1.Instance{Instance: instance, State: natscallv1.State_STATE_SERVING})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// ask asks in the background, as several callers.
func ask(ctx context.Context, d *Directory, callers int) <-chan Found {
	found := make(chan Found, callers)
	for range callers {
		go func() { found <- d.Ask(ctx, "root", JustNow) }()
	}
	synctest.Wait()
	return found
}

// TestQuery: how long a query waits, and what it finds.
func TestQuery(t *testing.T) {
	type event struct {
		after    time.Duration // the event before
		instance string        // that answers; "" is a 503
	}
	for _, test := range []struct {
		name   string
		events []event
		found  int
		nobody bool
		took   time.Duration
	}{
		{name: "nobody", events: []event{{5 * time.Millisecond, ""}}, nobody: true, took: 5 * time.Millisecond},
		{name: "one", events: []event{{5 * time.Millisecond, "A"}}, found: 1, took: 25 * time.Millisecond},
		{name: "several", events: []event{{0, "A"}, {19 * time.Millisecond, "B"}, {19 * time.Millisecond, "C"}}, found: 3, took: 76 * time.Millisecond},
		{name: "slow way", events: []event{{80 * time.Millisecond, "A"}, {70 * time.Millisecond, "B"}}, found: 2, took: queryTime},
		{name: "one twice", events: []event{{0, "A"}, {10 * time.Millisecond, "A"}}, found: 1, took: 20 * time.Millisecond},
		{name: "not valid", events: []event{{0, "A.B"}, {0, "*"}}, took: queryTime},
		{name: "silence", took: queryTime},
		{name: "just in time", events: []event{{queryTime - time.Millisecond, "A"}}, found: 1, took: queryTime},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := new(conn)
				d := New(c, c.connected, "inbox.")
				defer d.Close()
				began := time.Now()
				result := ask(t.Context(), d, 3)
				m := c.query(t)
				if m.Subject != "root._all.instances" {
					t.Errorf("the query goes to %q", m.Subject)
				}
				token := m.Reply[len("inbox."):]
				for _, e := range test.events {
					<-time.After(e.after)
					reply := &nats.Msg{Header: noResponders}
					if e.instance != "" {
						reply = &nats.Msg{Data: answer(t, m, e.instance)}
					}
					d.Deliver(token, reply)
				}
				for range cap(result) {
					if found := <-result; len(found.Instances) != test.found || found.Nobody != test.nobody {
						t.Errorf("found %v", &found)
					}
				}
				if took := time.Since(began); took != test.took {
					t.Errorf("it took %v, want %v", took, test.took)
				}
				if d.Heard("root") != (test.found > 0) {
					t.Errorf("the service was heard of: %v", d.Heard("root"))
				}
			})
		})
	}
}

// TestWhenToAskAgain: answers count for a moment, and a service that is silent is left alone,
// unless it answers after all or the connection was down.
func TestWhenToAskAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(conn)
		d := New(c, c.connected, "inbox.")
		silent := func(after time.Duration, want bool) {
			t.Helper()
			<-time.After(after)
			result := ask(t.Context(), d, 1)
			if asked := len(c.sent) > 0; asked == want {
				t.Errorf("the service is asked: %v", asked)
			}
			if !want {
				return
			}
			if found := <-result; found.Known() {
				t.Errorf("found %v", &found)
			}
		}
		<-ask(t.Context(), d, 1)
		first := c.query(t)
		silent(silentTime-time.Second, true)
		d.Deliver(first.Reply[len("inbox."):], &nats.Msg{Data: answer(t, first, "A")}) // late
		if !d.Heard("root") {
			t.Error("a late answer does not count")
		}
		silent(0, false)
		second := c.query(t)
		d.Deliver(first.Reply[len("inbox."):], &nats.Msg{Data: answer(t, first, "A")}) // forgotten
		d.Deliver(second.Reply[len("inbox."):], &nats.Msg{Header: noResponders})
		if found := <-ask(t.Context(), d, 1); !found.Nobody {
			t.Errorf("found %v shortly after", &found)
		}
		if len(c.sent) > 0 {
			t.Error("the service is asked twice in a moment")
		}
		<-time.After(JustNow)
		c.offline.Store(true)
		<-ask(t.Context(), d, 1)
		c.query(t)
		silent(0, false)
		c.query(t)
		<-time.After(queryTime)
		synctest.Wait()
		c.offline.Store(false)
		d.Refused("other")
		refused := ask(t.Context(), d, 1)
		c.query(t)
		d.Refused("root")
		if found := <-refused; found.Known() {
			t.Errorf("found %v", &found)
		}
		silent(silentTime-time.Millisecond, true)
		silent(time.Millisecond, false)
		d.Close()
		c.sent = nil
		silent(silentTime, true)
	})
}

// TestSeen: an instance is known for a while after its last answer, and a query that is begun is a
// new one unless one runs.
func TestSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(conn)
		d := New(c, c.connected, "inbox.")
		defer d.Close()
		if seen := d.Seen("root"); seen != nil {
			t.Errorf("seen: %v", seen)
		}
		d.Forget("root", "A")
		first := d.Query("root", 0)
		m := c.query(t)
		if d.Query("root", 0) != first {
			t.Error("a query that runs is not joined")
		}
		d.Deliver(m.Reply[len("inbox."):], &nats.Msg{Data: answer(t, m, "A")})
		<-first.Over()
		d.Deliver(m.Reply[len("inbox."):], &nats.Msg{Data: answer(t, m, "late")})
		if n := len(first.Found().Instances); n != 2 {
			t.Errorf("%d instances were found", n)
		}
		d.Forget("root", "late")
		if d.Query("root", 0) == first {
			t.Error("a query that is over is joined")
		}
		<-time.After(seenTime - quietTime)
		d.See("root", "B")
		if seen := d.Seen("root"); len(seen) != 2 {
			t.Errorf("seen: %v", seen)
		}
		<-time.After(time.Millisecond)
		if seen := d.Seen("root"); len(seen) != 1 || seen[0] != "B" {
			t.Errorf("seen: %v", seen)
		}
		d.Forget("root", "B")
		if seen := d.Seen("root"); seen != nil || !d.Heard("root") {
			t.Errorf("seen: %v", seen)
		}
		d.Close()
		<-d.Query("root", 0).Over() // which is none
	})
}

// TestAskEnds: a caller waits for no longer than its context.
func TestAskEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := new(conn)
		d := New(c, c.connected, "inbox.")
		defer d.Close()
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		<-ask(ctx, d, 1)
		if took := time.Since(began); took != time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}
