package publish

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/wire"
)

func TestDue(t *testing.T) {
	for _, test := range []struct {
		name        string
		load        load
		due, yields bool
	}{
		{"nothing", load{}, false, false},
		{"a lone call", load{queued: 1, inFlight: 1}, true, false},
		{"nobody is expected, others call too", load{queued: 1, inFlight: 2}, true, true},
		{"somebody is expected", load{queued: 1, inFlight: 2, expected: 1}, false, false},
		{"as many as are worth it", load{queued: minQueued, inFlight: minQueued, expected: 1}, true, false},
		{"less than a third", load{queued: 33, inFlight: 100, expected: 1}, false, false},
		{"a third", load{queued: 34, inFlight: 100, expected: 1}, true, false},
		{"a third of many is too many", load{queued: maxQueued, inFlight: 10 * maxQueued, expected: 1}, true, false},
		{"one less", load{queued: maxQueued - 1, inFlight: 10 * maxQueued, expected: 1}, false, false},
		{"long enough", load{queued: 1, inFlight: 100, expected: 1, waited: maxWait}, false, false},
		{"too long", load{queued: 1, inFlight: 100, expected: 1, waited: maxWait + 1}, true, false},
	} {
		if due, yields := test.load.due(), test.load.yields(); due != test.due || yields != test.yields {
			t.Errorf("%s: due is %v, yields is %v", test.name, due, yields)
		}
	}
}

// conn records what is published.
type conn struct {
	mu       sync.Mutex
	messages []*nats.Msg
	block    chan struct{} // receives before each message, if not nil
	err      error
	limit    int64
}

func (c *conn) Publish(subject string, data []byte) error {
	return c.PublishMsg(&nats.Msg{Subject: subject, Data: data})
}

func (c *conn) PublishRequest(subject, reply string, data []byte) error {
	return c.PublishMsg(&nats.Msg{Subject: subject, Reply: reply, Data: data})
}

func (c *conn) PublishMsg(m *nats.Msg) error {
	if c.block != nil {
		<-c.block
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	own := *m
	own.Data = slices.Clone(m.Data) // like nats.go, which copies it
	c.messages = append(c.messages, &own)
	return c.err
}

func (c *conn) MaxPayload() int64 {
	if c.limit == 0 {
		return 1 << 20
	}
	return c.limit
}

// published returns how many messages have been.
func (c *conn) published() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.messages)
}

// owner counts what it is told.
type owner struct {
	sent, failed atomic.Int64
	follows      bool // it does not lead batches
	gone         bool // it does not wait
	led          int
}

func (o *owner) Sent(_ *Message, err error) {
	o.sent.Add(1)
	if err != nil {
		o.failed.Add(1)
	}
}

func (o *owner) Claim(*Message) bool { return !o.gone }

func (o *owner) Leads(batch []*Message) bool {
	if !o.follows {
		o.led = len(batch)
	}
	return !o.follows
}

func message(subject, text string, o Owner) Message {
	buf := buffer.Take()
	buf.B = append(buf.B, text...)
	return Message{Subject: subject, Reply: "reply", Buffer: buf, Owner: o}
}

// clocked returns a publisher whose clock is that of the test's bubble.
func clocked(c *conn, config Config) *Publisher {
	start := time.Now()
	config.Now = func() time.Duration { return time.Since(start) }
	return New(c, config)
}

// publish publishes a request and does what Run then does.
func publish(p *Publisher, m Message) {
	p.Publish(m)
	runOnce(p)
}

func runOnce(p *Publisher) {
	select {
	case <-p.runner.wake:
		p.Flush()
	default:
	}
}

// run makes p publish for callers that return, until stop.
func run(p *Publisher) (stop func()) {
	go p.Run()
	return p.End
}

// TestPublishWaitsForCallers: a request waits for a caller that is about to run, which Run notices,
// and for no other.
func TestPublishWaitsForCallers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, o := &conn{}, &owner{}
		p := clocked(c, Config{})
		defer run(p)()
		p.Omit() // a call whose caller has its answer
		p.Expect()
		p.Publish(message("a", "1", o))
		if synctest.Wait(); c.published() != 0 || !p.Holds() {
			t.Fatal("the request did not wait")
		}
		p.Return()
		if synctest.Wait(); c.published() != 1 || o.sent.Load() != 1 || p.Holds() {
			t.Fatal("the request waits for nobody")
		}
		p.GiveUp()
		p.Publish(message("a", "2", o))
		if synctest.Wait(); c.published() != 2 {
			t.Error("a lone request has waited")
		}
	})
}

// TestPublishBounds: where somebody is always about to come, requests go by their number or, if
// that is a small part of the calls, after a while.
func TestPublishBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, o := &conn{}, &owner{}
		p := clocked(c, Config{})
		p.Omit()
		p.Expect()
		for i := range minQueued {
			if c.published() != 0 {
				t.Fatalf("%d requests did not wait", i)
			}
			publish(p, message("a", "x", o))
		}
		if c.published() != minQueued {
			t.Fatalf("%d are published", c.published())
		}
		for range 10 * minQueued {
			p.Omit()
		}
		for i := range minQueued + 1 {
			if n := c.published() - minQueued; n != 0 {
				t.Fatalf("after %d requests %d did not wait", i, n)
			}
			if publish(p, message("a", "x", o)); i == 0 {
				<-time.After(2 * maxWait)
			}
		}
		if n := c.published() - minQueued; n != minQueued+1 {
			t.Errorf("%d are published", n)
		}
		if calls, expected := p.InFlight(); calls != 13*minQueued+2-minQueued || expected != 1 {
			t.Errorf("%d calls are in flight, %d callers are expected", calls, expected)
		}
	})
}

// TestAdd: answers wait for Flush, which is due when they are many or have waited for long.
func TestAdd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, o := &conn{}, &owner{}
		p := clocked(c, Config{})
		if p.Add(message("a", "x", o), 0) || p.Overdue() {
			t.Error("it is due at once")
		}
		if !p.Add(message("a", "x", o), 2*maxWait) {
			t.Error("it is not due though the goroutine was away for long")
		}
		if <-time.After(2 * maxWait); !p.Overdue() {
			t.Error("it is not overdue")
		}
		p.Flush()
		for i := range maxQueued {
			if due := p.Add(message("a", "x", o), 0); due != (i == maxQueued-1) {
				t.Errorf("%d answers are due: %v", i+1, due)
			}
		}
		p.Flush()
		if c.published() != maxQueued+2 || o.sent.Load() != maxQueued+2 {
			t.Errorf("%d are published", c.published())
		}
	})
}

// TestFlushMeanwhile: what comes while a goroutine publishes is published by it, in order.
func TestFlushMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, o := &conn{block: make(chan struct{})}, &owner{}
		p := clocked(c, Config{})
		defer run(p)()
		p.Publish(message("a", "0", o))
		synctest.Wait() // it is in the connection
		for i := range 5 {
			p.Publish(message("a", fmt.Sprint(i+1), o)) // and returns
		}
		close(c.block)
		synctest.Wait()
		for i, m := range c.messages {
			if string(m.Data) != fmt.Sprint(i) {
				t.Errorf("message %d is %q", i, m.Data)
			}
		}
		if len(c.messages) != 6 {
			t.Errorf("%d are published", len(c.messages))
		}
	})
}

// TestRefuse: while the connection is down owners are told, and nothing is published.
func TestRefuse(t *testing.T) {
	c, o := &conn{}, &owner{}
	p := clocked(c, Config{Refuse: func() error { return errors.New("down") }})
	publish(p, message("a", "x", o))
	if c.published() != 0 || o.failed.Load() != 1 {
		t.Errorf("%d are published, %d have failed", c.published(), o.failed.Load())
	}
}

// TestCallersWrap: the counts of calls may pass 2^32.
func TestCallersWrap(t *testing.T) {
	p := New(&conn{}, Config{Now: func() time.Duration { return 0 }})
	p.started = math.MaxUint32 - 1
	p.callers.counts.Store((math.MaxUint32 - 1) * oneEnded)
	for i := range 5 {
		p.Omit()
		p.Expect()
		if calls, expected := p.InFlight(); calls != 1 || expected != 1 {
			t.Errorf("call %d: %d are in flight, %d callers are expected", i, calls, expected)
		}
		if i%2 == 0 {
			p.Return()
			continue
		}
		p.Return()
		p.Omit()
		p.GiveUp()
	}
	if calls, expected := p.InFlight(); calls != 0 || expected != 0 {
		t.Errorf("%d are in flight, %d callers are expected", calls, expected)
	}
}

// TestBatches: messages share one where subject, header and size allow, and the first of those that
// can claim it.
func TestBatches(t *testing.T) {
	c := &conn{}
	p := New(c, Config{Now: func() time.Duration { return 0 }, MaxBatch: 200})
	o, gone := &owner{}, &owner{follows: true}
	queued, release := p.Hold()
	add := func(subject string, size int, batch Batching, h nats.Header, by Owner) {
		m := message(subject, string(make([]byte, size)), by)
		m.Batch, m.Header, m.Tag, m.Reply = batch, h, uint64(queued()), fmt.Sprint(queued())
		p.Publish(m)
	}
	add("a", 50, BatchMay, nil, gone)                           // 0, first, but led by 1
	add("a", 50, BatchMay, nil, o)                              // 1
	add("b", 50, BatchMay, nil, o)                              // 2, alone on its subject
	add("a", 50, BatchMay, nats.Header{"k": []string{"v"}}, o)  // 3, has a header
	add("a", 50, BatchNever, nil, o)                            // 4
	add("a", 150, BatchMay, nil, o)                             // 5, does not fit
	add("a", 30, BatchMay, nil, o)                              // 6, fits
	add("c", 10, BatchMust, nil, o)                             // 7, alone, but an item
	add("d", 10, BatchMust, nats.Header{"k": []string{"v"}}, o) // 8, likewise, with a header
	add("d", 10, BatchMust, nil, o)                             // 9
	release()
	var got []string
	for _, m := range c.messages {
		text := m.Subject + m.Reply
		if wire.IsBatch(m.Data) {
			b, err := wire.ParseBatch(m.Data)
			if err != nil {
				t.Fatal(err)
			}
			for tag := range b.Items() {
				text += fmt.Sprint("-", tag)
			}
		}
		got = append(got, text)
	}
	want := []string{"a1-0-1-6", "b2", "a3", "a4", "a5", "c7-7", "d8-8", "d9-9"}
	if !slices.Equal(got, want) {
		t.Errorf("published are %v, want %v", got, want)
	}
	if o.led == 0 || o.sent.Load()+gone.sent.Load() != 10 {
		t.Errorf("%d have been told", o.sent.Load()+gone.sent.Load())
	}
}

// TestConcurrentCalls: many callers in a closed loop; each message is published once.
func TestConcurrentCalls(t *testing.T) {
	const callers, calls = 32, 500
	c := &conn{}
	start := time.Now()
	p := New(c, Config{Now: func() time.Duration { return time.Since(start) }, MaxBatch: 1000})
	var running, publishing sync.WaitGroup
	publishing.Go(p.Run)
	for range callers {
		running.Go(func() {
			for range calls {
				sent := make(chan error, 1)
				m := message("a", "x", ownerFunc(func(err error) {
					p.Expect()
					sent <- err
				}))
				m.Batch = BatchMay
				p.Publish(m)
				if err := <-sent; err != nil {
					t.Error(err)
				}
				p.Return()
			}
		})
	}
	running.Wait()
	p.End()
	publishing.Wait()
	if inFlight, expected := p.InFlight(); inFlight != 0 || expected != 0 || p.Holds() {
		t.Errorf("%d calls are in flight, %d callers are expected", inFlight, expected)
	}
}

// ownerFunc is called when its message has been published.
type ownerFunc func(error)

func (f ownerFunc) Sent(_ *Message, err error) { f(err) }
func (f ownerFunc) Leads([]*Message) bool      { return true }
func (f ownerFunc) Claim(*Message) bool        { return true }

// TestLastCallerReturnsMeanwhile: the last expected caller returns just before the message that
// waits for it can be seen. Whichever of the two notices the other, the message is published.
func TestLastCallerReturnsMeanwhile(t *testing.T) {
	c, o := &conn{}, &owner{}
	var p *Publisher
	meanwhile := func() {}
	p = New(c, Config{Now: func() time.Duration { meanwhile(); return 0 }})
	p.Omit() // a call whose caller has its answer
	p.Expect()
	meanwhile = func() {
		meanwhile = func() {}
		p.Return() // sees no message
	}
	publish(p, message("a", "x", o))
	if n := c.published(); n != 1 && len(p.runner.wake) == 0 {
		t.Errorf("nobody publishes the message")
	}
}

// TestReturnOverdue: where callers return all the time, and more are expected, those that return
// look at the clock now and then.
func TestReturnOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, o := &conn{}, &owner{}
		p := clocked(c, Config{})
		defer run(p)()
		for range 3*minQueued + 2 {
			p.Omit()
			p.Expect()
		}
		p.Publish(message("a", "x", o))
		for range minQueued + 2 { // past one look at the clock
			p.Return()
		}
		if synctest.Wait(); c.published() != 0 {
			t.Fatal("the request did not wait")
		}
		<-time.After(2 * maxWait)
		for range minQueued {
			p.Return()
		}
		if synctest.Wait(); c.published() != 1 {
			t.Error("the request waits for long")
		}
	})
}

// TestThirdOfThen: a third is one of the calls that were in flight when the first request of the
// queue came, though they end meanwhile.
func TestThirdOfThen(t *testing.T) {
	c, o := &conn{}, &owner{}
	p := New(c, Config{Now: func() time.Duration { return 0 }})
	for range 6 * minQueued {
		p.Omit()
	}
	p.Expect()
	publish(p, message("a", "x", o))
	for range 5 * minQueued {
		p.GiveUp()
	}
	for range minQueued {
		publish(p, message("a", "x", o))
	}
	if n := c.published(); n != 0 {
		t.Errorf("%d are published", n)
	}
}

// TestYields: a goroutine that publishes while other calls are in flight lets those run first that
// are about to call.
func TestYields(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	c, o := &conn{}, &owner{}
	p := New(c, Config{Now: func() time.Duration { return 0 }, MaxBatch: 1000})
	p.Omit()
	defer run(p)()
	publish := func() {
		m := message("a", "x", o)
		m.Batch = BatchMay
		p.Publish(m)
	}
	go publish()
	publish()
	for o.sent.Load() < 2 {
		runtime.Gosched()
	}
	if n := c.published(); n != 1 {
		t.Errorf("%d messages for two requests", n)
	}
}

// TestNothingKept: the publisher keeps neither messages that it has published nor what belongs to
// them, and uses its queues again.
func TestNothingKept(t *testing.T) {
	c, o := &conn{}, &owner{}
	p := New(c, Config{Now: func() time.Duration { return 0 }, MaxBatch: 1000})
	for range 3 {
		for range 5 {
			m := message("a", "x", o)
			m.Batch = BatchMust
			p.Add(m, 0)
		}
		p.Flush()
	}
	for _, queue := range [][]Message{p.queue, p.spare} {
		if cap(queue) == 0 {
			t.Error("a queue is not used again")
		}
		for i, m := range queue[:cap(queue)] {
			if m.Owner != nil || m.Buffer != nil || m.Subject != "" {
				t.Errorf("message %d is kept", i)
			}
		}
	}
	for i, m := range p.members[:cap(p.members)] {
		if m != nil {
			t.Errorf("member %d is kept", i)
		}
	}
}

// TestBatchMates: which requests share a message, and up to which size.
func TestBatchMates(t *testing.T) {
	const size, bytes = 50, wire.BatchOverhead + 50 // of a request, and of its item
	header := nats.Header{"k": []string{"v"}}
	for _, test := range []struct {
		name     string
		maxBatch int
		payload  int64
		second   Message // of three on one subject
		want     []int   // items in each message, 0 for one that is no batch
	}{
		{"all fit", 3 * bytes, 0, Message{Batch: BatchMay}, []int{3}},
		{"two fit", 3*bytes - 1, 0, Message{Batch: BatchMay}, []int{2, 0}},
		{"one fits", 2*bytes - 1, 0, Message{Batch: BatchMay}, []int{0, 0, 0}},
		{"two fit into max_payload", 10 * bytes, 3*bytes - 1, Message{Batch: BatchMay}, []int{2, 0}},
		{"one has a header", 10 * bytes, 0, Message{Batch: BatchMay, Header: header}, []int{2, 0}},
		{"one is for none", 10 * bytes, 0, Message{Batch: BatchNever}, []int{2, 0}},
		{"an item with a header", 10 * bytes, 0, Message{Batch: BatchMust, Header: header}, []int{2, 1}},
	} {
		c, o := &conn{limit: test.payload}, &owner{}
		p := New(c, Config{Now: func() time.Duration { return 0 }, MaxBatch: test.maxBatch})
		_, release := p.Hold()
		for i := range 3 {
			m := message("a", string(make([]byte, size)), o)
			m.Batch = BatchMay
			if i == 1 {
				m.Batch, m.Header = test.second.Batch, test.second.Header
			}
			p.Publish(m)
		}
		release()
		var got []int
		for _, m := range c.messages {
			items := 0
			if b, err := wire.ParseBatch(m.Data); err == nil {
				for range b.Items() {
					items++
				}
			}
			got = append(got, items)
			if items == 1 && m.Header.Get("k") != "v" {
				t.Errorf("%s: the item has lost its header", test.name)
			}
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%s: messages with %v items, want %v", test.name, got, test.want)
		}
	}
}

// TestBatchItems: a batch has no more items than a receiver takes.
func TestBatchItems(t *testing.T) {
	c, o := &conn{}, &owner{}
	p := New(c, Config{Now: func() time.Duration { return 0 }, MaxBatch: 1 << 20})
	_, release := p.Hold()
	for range wire.MaxItems + 2 {
		m := message("a", "x", o)
		m.Batch = BatchMay
		p.Publish(m)
	}
	if release(); c.published() != 2 {
		t.Errorf("%d messages", c.published())
	}
}

// TestOverdueBound: messages may wait for as long as maxWait.
func TestOverdueBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := clocked(&conn{}, Config{})
		p.Add(message("a", "x", &owner{}), 0)
		if <-time.After(maxWait); p.Overdue() {
			t.Error("it is overdue")
		}
		if <-time.After(1); !p.Overdue() {
			t.Error("it is not overdue")
		}
	})
}

// TestAddLooksAtTheClock: answers of goroutines that were away for no time are due when the first
// one has waited for long, which the sixteenth after it sees.
func TestAddLooksAtTheClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := clocked(&conn{}, Config{})
		for i := range minQueued + 1 {
			if i == 1 {
				<-time.After(2 * maxWait)
			}
			if due := p.Add(message("a", "x", &owner{}), 0); due != (i == minQueued) {
				t.Errorf("with %d answers it is due: %v", i+1, due)
			}
		}
	})
}

// TestUnsent: all whose messages share one that cannot be published are told, and why.
func TestUnsent(t *testing.T) {
	c, o := &conn{err: nats.ErrMaxPayload}, &owner{}
	p := New(c, Config{Now: func() time.Duration { return 0 }, MaxBatch: 1000})
	_, release := p.Hold()
	for _, batch := range []Batching{BatchMay, BatchMay, BatchNever} {
		m := message("a", "x", o)
		m.Batch = batch
		p.Publish(m)
	}
	if release(); o.failed.Load() != 3 {
		t.Errorf("%d of 3 are told", o.failed.Load())
	}
}

// TestClaim: a message whose owner has gone is not published, alone or in a batch, and its owner is
// told once.
func TestClaim(t *testing.T) {
	c, o, gone := &conn{}, &owner{}, &owner{gone: true}
	p := New(c, Config{Now: func() time.Duration { return 0 }, MaxBatch: 1000})
	_, release := p.Hold()
	for i, by := range []*owner{gone, o, gone, o, gone} {
		m := message("a", fmt.Sprint(i), by)
		m.Batch = []Batching{BatchNever, BatchMay, BatchMay, BatchMay, BatchNever}[i]
		p.Post(m)
	}
	release()
	if c.published() != 1 || !wire.IsBatch(c.messages[0].Data) || o.sent.Load() != 2 || gone.sent.Load() != 3 || gone.failed.Load() != 0 {
		t.Errorf("%d are published; told: %d, %d", c.published(), o.sent.Load(), gone.sent.Load())
	}
}

// TestPost: what nobody waits for is published also while requests are refused, and nothing of it
// is the caller's afterwards.
func TestPost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, o := &conn{}, &owner{}
		p := clocked(c, Config{Refuse: func() error { return errors.New("down") }})
		defer run(p)()
		data := []byte("cancel")
		if err := p.PublishMsg(&nats.Msg{Subject: "a", Reply: "b", Data: data}); err != nil {
			t.Error(err)
		}
		clear(data)
		p.Post(message("a", "x", o))
		synctest.Wait()
		if c.published() != 1 || string(c.messages[0].Data) != "cancel" || c.messages[0].Reply != "b" || o.failed.Load() != 1 {
			t.Errorf("published are %v", c.messages)
		}
	})
}

// TestPostAndWait: whoever posts a message waits until it has been published, and for no longer
// than its context and deadline say. Then it knows whether the message may have gone.
func TestPostAndWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &conn{err: errors.New("no")}
		p := clocked(c, Config{})
		defer run(p)()
		if err := p.PostAndWait(t.Context(), time.Now().Add(time.Second), message("a", "1", nil)); err != c.err {
			t.Error(err)
		}
		c.err, c.block = nil, make(chan struct{})
		results := make(chan error)
		wait := func(ctx context.Context, text string) {
			go func() { results <- p.PostAndWait(ctx, time.Time{}, message("a", text, nil)) }()
			synctest.Wait()
		}
		ctx, cancel := context.WithCancel(t.Context())
		wait(ctx, "2") // is in the connection
		wait(ctx, "3")
		cancel()
		var unpublished *UnpublishedError
		first, second := <-results, <-results
		if (first == context.Canceled) == (second == context.Canceled) || !errors.As(errors.Join(first, second), &unpublished) || !errors.Is(unpublished, context.Canceled) {
			t.Errorf("%v, %v", first, second)
		}
		if err := p.PostAndWait(t.Context(), time.Now().Add(time.Second), message("a", "4", nil)); !errors.As(err, &unpublished) || !errors.Is(err, context.DeadlineExceeded) {
			t.Error(err)
		}
		wait(t.Context(), "5")
		close(c.block)
		if err := <-results; err != nil || c.published() != 3 || string(c.messages[2].Data) != "5" {
			t.Errorf("%v; published are %v", err, c.messages)
		}
	})
}
