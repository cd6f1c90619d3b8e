package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

// heldRequest is a request of Do that a test has got in place of a server, to
// answer as late and as often as it likes.
type heldRequest struct {
	nc      *nats.Conn
	reply   string
	id      wire.ID
	tag     uint64
	batched bool // an item of a batch
	plain   bool
	text    string
}

// requestsByHand calls f for each request of Do. The calls count as alive for as long as they wait.
func requestsByHand(t *testing.T, nc *nats.Conn, f func(*heldRequest)) {
	t.Helper()
	hold := func(r *heldRequest, body []byte) {
		if r.plain = !wire.IsEnvelope(body); !r.plain {
			e, err := wire.Parse(body)
			if err != nil {
				t.Error(err)
				return
			}
			r.id, body = e.ID, e.Body
		}
		var req text
		if err := proto.Unmarshal(body, &req); err != nil {
			t.Error(err)
			return
		}
		r.text = req.GetValue()
		f(r)
	}
	_, err := nc.Subscribe(doSubject, func(m *nats.Msg) {
		if !wire.IsBatch(m.Data) {
			hold(&heldRequest{nc: nc, reply: m.Reply}, m.Data)
			return
		}
		batch, err := wire.ParseBatch(m.Data)
		if err != nil {
			t.Error(err)
		}
		for tag, item := range batch.Items() {
			hold(&heldRequest{nc: nc, reply: m.Reply, tag: tag, batched: true}, item)
		}
	})
	must(t, err)
	_, err = nc.Subscribe(testRoot+"._all.alive", func(m *nats.Msg) {
		e, err := wire.Parse(m.Data)
		if err != nil || e.Kind != wire.KindAliveQuery {
			return
		}
		var ids []wire.ID
		for id := range e.IDs() {
			ids = append(ids, id)
		}
		// The connection may be closed.
		_ = m.Respond(wire.AppendAlive(nil, wire.KindAliveAnswer, ids...))
	})
	must(t, err)
	must(t, nc.Flush())
}

// answer answers the request, each time that it is called. After the end of
// the test it finds a closed connection, which is no matter.
func (r *heldRequest) answer() {
	var b []byte
	if !r.plain {
		b = wire.AppendResponse(b, r.id, wire.CodecProto, 0)
	}
	b, _ = proto.MarshalOptions{}.MarshalAppend(b, wrapperspb.String(answerTo(r.text)))
	if r.batched {
		b = wire.AppendItem(wire.AppendBatch(nil), r.tag, b)
	}
	_ = r.nc.Publish(r.reply, b)
}

// noResponders is what the NATS server answers where nobody listens.
func (r *heldRequest) noResponders() {
	_ = r.nc.PublishMsg(&nats.Msg{Subject: r.reply, Header: nats.Header{"Status": {"503"}}})
}

func answerTo(text string) string { return "answer to " + text }

// wantAnswer calls Do; the error is nil for the call's own answer, what the
// call ended with, or errForeign.
func wantAnswer(ctx context.Context, c *rpc.Client, text string, opts ...rpc.CallOption) error {
	got, err := do(ctx, c, text, opts...)
	if err == nil && got != answerTo(text) {
		err = fmt.Errorf("%w: %q got %q", errForeign, text, got)
	}
	return err
}

var errForeign = errors.New("the answer to another call")

// TestLateAnswers: callers give up, others take their place and wait on the
// same reply subjects; then the answers of those that were before come, once
// more, and none of them is taken for an answer of these.
func TestLateAnswers(t *testing.T) {
	plain := []rpc.CallOption{rpc.WithPlainRequests()}
	for name, options := range map[string][][]rpc.CallOption{"envelopes": {nil}, "plain": {plain}, "by turns": {nil, plain}} {
		t.Run(name, func(t *testing.T) {
			const calls = 50
			srv := rpctest.NewServer(t)
			got := make(chan *heldRequest, calls)
			requestsByHand(t, srv.Connect(), func(r *heldRequest) { got <- r })
			c := dial(t, srv.Connect())
			results := make(chan error, calls)
			start := func(ctx context.Context, round int, what string) (requests []*heldRequest) {
				opts := options[round%len(options)]
				for i := range calls {
					go func() { results <- wantAnswer(ctx, c, fmt.Sprint(what, round, ".", i), opts...) }()
				}
				for range calls {
					requests = append(requests, <-got)
				}
				return requests
			}
			var answered []*heldRequest
			for round := range 20 {
				waiting := start(testContext(t), round, "waiting")
				for _, r := range answered { // their reply subjects may be used again
					r.answer()
				}
				for _, r := range waiting { // behind them, on the same connection
					r.answer()
					r.answer()
				}
				for range calls {
					must(t, <-results)
				}
				ctx, cancel := context.WithCancel(testContext(t))
				cancelled := start(ctx, round, "cancelled")
				cancel()
				for range calls {
					wantCode(t, <-results, rpc.CodeCanceled, rpc.ExecutionMayHaveRun)
				}
				next := start(testContext(t), round+1, "next")
				for _, r := range cancelled {
					r.answer()
					r.answer()
					r.noResponders()
				}
				for _, r := range next {
					r.answer()
				}
				for range calls {
					must(t, <-results)
				}
				answered = append(append(answered, waiting...), next...)
			}
			if all, free := c.Waiters(); all != free || all > rpc.FreeLists*calls {
				t.Errorf("%d waiters, %d of them free, after %d calls at once", all, free, calls)
			}
		})
	}
}

// TestLateAnswersAtRandom: the answers and the ends of calls meet at random.
func TestLateAnswersAtRandom(t *testing.T) {
	const callers = 32
	srv := rpctest.NewServer(t)
	var answers sync.WaitGroup
	later := func(f func()) {
		answers.Add(1)
		time.AfterFunc(rand.N(3*time.Millisecond), func() {
			defer answers.Done()
			f()
		})
	}
	requestsByHand(t, srv.Connect(), func(r *heldRequest) {
		if strings.HasPrefix(r.text, "nobody") {
			if !r.batched { // it would concern the others in the batch
				later(r.noResponders)
			}
			return
		}
		later(r.answer)
		later(r.answer)
	})
	clients := []*rpc.Client{dial(t, srv.Connect()), dial(t, srv.Connect(), rpc.WithBatching(4<<10))}
	each(t, callers, func(caller int) error {
		rnd := rand.New(rand.NewPCG(uint64(caller), 6))
		for i := range soak(3000, 150) {
			if err := callAtRandom(testContext(t), rnd, clients[caller%2], fmt.Sprint(caller, ".", i)); err != nil {
				return err
			}
		}
		return nil
	})
	// This comes behind the requests of callers that have gone, so none of those comes later.
	for _, c := range clients {
		must(t, wantAnswer(testContext(t), c, "the last one"))
	}
	answers.Wait()
	for _, c := range clients {
		if all, free := c.Waiters(); all != free || all > rpc.FreeLists*callers {
			t.Errorf("%d waiters, %d of them free, after %d calls at once", all, free, callers)
		}
	}
}

// callAtRandom makes a call that may end before its answer comes, in one of
// the ways there are, and returns an error where it ends in another one.
func callAtRandom(ctx context.Context, rnd *rand.Rand, c *rpc.Client, text string) error {
	soon := time.Duration(rnd.IntN(3000)) * time.Microsecond
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	opts := []rpc.CallOption{rpc.WithoutRetry()}
	if rnd.IntN(3) == 0 {
		opts = append(opts, rpc.WithPlainRequests())
	}
	want := []rpc.Code{rpc.CodeOK}
	switch rnd.IntN(5) {
	case 0:
		ctx, cancel = context.WithTimeout(ctx, soon)
		defer cancel()
		want = append(want, rpc.CodeDeadlineExceeded)
	case 1:
		opts = append(opts, rpc.WithTimeout(soon+1))
		want = append(want, rpc.CodeDeadlineExceeded)
	case 2:
		time.AfterFunc(soon, cancel)
		want = append(want, rpc.CodeCanceled)
	case 3:
		text = "nobody " + text
		opts = append(opts, rpc.WithTimeout(soon+1))
		want = []rpc.Code{rpc.CodeUnavailable, rpc.CodeDeadlineExceeded}
	}
	err := wantAnswer(ctx, c, text, opts...)
	for _, code := range want {
		if !errors.Is(err, errForeign) && rpc.CodeOf(err) == code {
			return nil
		}
	}
	return fmt.Errorf("%q ended with %w, want one of %v", text, err, want)
}

// TestNoRespondersAfterABatch: calls share a batch, the first of them is
// answered, and its reply subject serves another call, to which nobody responds. That
// says nothing about the others of the batch, which a server has.
func TestNoRespondersAfterABatch(t *testing.T) {
	srv := rpctest.NewServer(t)
	got := make(chan *heldRequest, 2)
	requestsByHand(t, srv.Connect(), func(r *heldRequest) { got <- r })
	c := dial(t, srv.Connect(), rpc.WithBatching(4<<10))
	results := [2]chan error{make(chan error, 1), make(chan error, 1)}
	held, release := c.HoldRequests()
	for i, result := range results { // in this order: the first one leads
		go func() { result <- wantAnswer(testContext(t), c, fmt.Sprint(i), rpc.WithoutRetry()) }()
		until(t, "the request is held", func() bool { return held() > i })
	}
	release(2)
	first, second := <-got, <-got
	if !first.batched || first.reply != second.reply || first.text != "0" {
		t.Fatalf("%v and %v are no batch", first, second)
	}
	first.answer()
	must(t, <-results[0])
	for same := false; !same; { // a free waiter is found at random
		lone := make(chan error, 1)
		go func() { lone <- wantAnswer(testContext(t), c, "lone", rpc.WithoutRetry()) }()
		r := <-got
		if same = r.reply == first.reply; !same {
			r.answer()
			must(t, <-lone)
			continue
		}
		r.noResponders()
		wantCode(t, <-lone, rpc.CodeUnavailable, rpc.ExecutionNotRun)
	}
	second.answer()
	must(t, <-results[1])
}

// TestStrangeReplies: what comes to an inbox beside answers does no harm.
func TestStrangeReplies(t *testing.T) {
	nc := rpctest.Connect(t)
	requestsByHand(t, nc, func(r *heldRequest) {
		dot := strings.LastIndexByte(r.reply, '.') + 1
		prefix, slot := r.reply[:dot], r.reply[dot:]
		number, _, _ := strings.Cut(slot, "-")
		for _, token := range []string{"-", "-1", "--", "x", number, number + "-", number + "--1", number + "-zzzzzzzzzzzzzzzzzzzz", slot + "-1", slot + "x",
			"99-1", "99999999999999999999-1", "-1-1", "0x0-1", "s", "s-1", "sx", "s" + r.id.String(), "s" + r.id.String() + "-1", "alive", "aliv"} {
			for _, data := range [][]byte{nil, []byte("x"), {0}, wire.AppendResponse(nil, wire.NewID(), wire.CodecProto, 0), wire.AppendAccept(nil, wire.NewID(), 1, "ABC")} {
				_ = nc.Publish(prefix+token, data)
			}
			_ = nc.PublishMsg(&nats.Msg{Subject: prefix + token, Header: nats.Header{"Status": {"503"}}})
		}
		r.answer()
	})
	c := dial(t, nc)
	for i := range 20 {
		must(t, wantAnswer(testContext(t), c, fmt.Sprint(i)))
	}
}

// TestWaitersComeBack: however a call ends, the next one has its waiter.
func TestWaitersComeBack(t *testing.T) {
	srv := rpctest.NewServer(t)
	running := make(chan struct{}, 1)
	serve(t, srv.Connect(), &funcs{do: failOrWait(running)})
	ctx := longContext(t)
	over, end := context.WithCancel(ctx)
	end()
	call := func(text string, opts ...rpc.CallOption) func(*rpc.Client) error {
		return func(c *rpc.Client) error { _, err := do(ctx, c, text, opts...); return err }
	}
	for _, test := range []struct {
		name string
		call func(c *rpc.Client) error
		want rpc.Code
		opts []rpc.ClientOption
	}{
		{"answer", call("x"), rpc.CodeOK, nil},
		{"plain answer", call("x", rpc.WithPlainRequests()), rpc.CodeOK, nil},
		{"error", call("fail"), rpc.CodeAborted, nil},
		{"cancel", func(c *rpc.Client) error {
			ctx, cancel := context.WithCancel(ctx)
			go func() { <-running; cancel() }()
			_, err := do(ctx, c, "wait")
			return err
		}, rpc.CodeCanceled, nil},
		{"cancelled before", func(c *rpc.Client) error { _, err := do(over, c, "x"); return err }, rpc.CodeCanceled, nil},
		{"deadline", call("", rpc.WithTimeout(1)), rpc.CodeDeadlineExceeded, nil},
		{"no service", call("x", rpc.WithoutRetry()), rpc.CodeUnavailable, []rpc.ClientOption{rpc.WithSubjectPrefix("nobody")}},
		{"no service for a while", call("x", rpc.WithTimeout(20*time.Millisecond)), rpc.CodeUnavailable, []rpc.ClientOption{rpc.WithSubjectPrefix("nobody")}},
		{"request that does not encode", call("\xff"), rpc.CodeInvalidArgument, nil},
		{"request over the limit", call(strings.Repeat("x", 2000)), rpc.CodeResourceExhausted, []rpc.ClientOption{rpc.WithMaxMessageSize(1000)}},
		{"request that cannot be published", call(strings.Repeat("x", 2<<20), rpc.WithPlainRequests()), rpc.CodeResourceExhausted, nil},
		{"request that travels as a stream", call(strings.Repeat("x", 1<<20+1)), rpc.CodeOK, nil},
		{"closed client", func(c *rpc.Client) error { must(t, c.Close()); return call("x")(c) }, rpc.CodeCanceled, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := dial(t, srv.Connect(), test.opts...)
			_ = call("first", rpc.WithoutRetry())(c) // makes the inbox
			for range 30 {
				err := test.call(c)
				// The deadline may meet an attempt.
				late := test.want == rpc.CodeUnavailable && rpc.CodeOf(err) == rpc.CodeDeadlineExceeded
				if rpc.CodeOf(err) != test.want && !late {
					t.Fatalf("the call ended with %v, want %v", err, test.want)
				}
			}
			if all, free := c.Waiters(); all != free || all > rpc.FreeLists {
				t.Errorf("%d waiters, %d of them free, after one call at a time", all, free)
			}
		})
	}
}

// failOrWait does what the text says, or echoes.
func failOrWait(running chan<- struct{}) func(context.Context, string) (string, error) {
	return func(ctx context.Context, in string) (string, error) {
		switch in {
		case "fail":
			return "", rpc.Errorf(rpc.CodeAborted, "as asked")
		case "wait":
			running <- struct{}{}
			<-ctx.Done()
			return "", ctx.Err()
		}
		return in, nil
	}
}
