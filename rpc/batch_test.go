package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

// together makes calls whose requests leave at once; a large one leaves at once anyway.
func together(t *testing.T, c *rpc.Client, large int, calls ...func() error) {
	t.Helper()
	_, release := c.HoldRequests()
	var wg sync.WaitGroup
	for _, call := range calls {
		wg.Go(func() {
			if err := call(); err != nil {
				t.Error(err)
			}
		})
	}
	release(len(calls) - large)
	wg.Wait()
}

// numbers are n calls with a text each.
func numbers(t *testing.T, c *rpc.Client, n int) (calls []func() error) {
	for i := range n {
		calls = append(calls, func() error { return echoes(t, c, strconv.Itoa(i)) })
	}
	return calls
}

func echoes(t *testing.T, c *rpc.Client, text string, opts ...rpc.CallOption) error {
	got, err := do(testContext(t), c, text, opts...)
	if err == nil && got != text {
		err = fmt.Errorf("%.20q is answered by %.20q", text, got)
	}
	return err
}

// sizesOf collects how large the messages to a subject are.
func sizesOf(t *testing.T, nc *nats.Conn, subject string) (sizes func() []int) {
	sub, err := nc.SubscribeSync(subject)
	must(t, err)
	must(t, nc.Flush())
	return func() (sizes []int) {
		must(t, nc.Flush())
		for {
			m, err := sub.NextMsg(time.Millisecond)
			if err != nil {
				return sizes
			}
			sizes = append(sizes, len(m.Data))
		}
	}
}

// TestBatch: calls that are made together share messages, up to the bound, and each gets its own
// answer.
func TestBatch(t *testing.T) {
	const bound = 2000
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{})
	sizes := sizesOf(t, srv.Connect(), doSubject)
	c := dial(t, srv.Connect(), rpc.WithBatching(bound))
	must(t, callOnce(t, c))
	alone := sizes()
	together(t, c, 0, numbers(t, c, 100)...)
	batches := sizes()
	if len(alone) != 1 || len(batches) > 5 {
		t.Errorf("a call took %d messages, 100 took %d", len(alone), len(batches))
	}
	large := func() error { return echoes(t, c, strings.Repeat("x", bound)) }
	together(t, c, 0, large, large, large)
	if got := sizes(); len(got) != 3 {
		t.Errorf("3 large calls took %d messages", len(got))
	}
	for _, n := range batches {
		if n > bound {
			t.Errorf("a batch has %d bytes", n)
		}
	}
}

// TestBatchOfEverything: what a call may be, it may be in a batch.
func TestBatchOfEverything(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) { o.MaxPayload = 8 << 10 }))
	running, ended := make(chan struct{}), make(chan struct{})
	serve(t, srv.Connect(), &funcs{do: func(ctx context.Context, in string) (string, error) {
		switch in {
		case "fail":
			return "", rpc.NewError(rpc.CodeNotFound, "no such thing", wrapperspb.String("detail"))
		case "panic":
			panic("on purpose")
		case "wait":
			close(running)
			<-ctx.Done()
			close(ended)
		case "header":
			rpc.CallFromContext(ctx).ResponseHeader().Set("k", "v")
			rpc.CallFromContext(ctx).ResponseTrailer().Set("t", "w")
		case "grow":
			return strings.Repeat("g", 100_000), nil
		}
		return in, nil
	}}, rpc.WithLogger(slog.New(slog.DiscardHandler)))
	c := dial(t, srv.Connect(), rpc.WithBatching(16<<10))
	ctx, cancel := context.WithCancel(testContext(t))
	go func() { <-running; cancel() }()
	text := strings.Repeat("text ", 500)
	must(t, callOnce(t, c))
	together(t, c, 1,
		func() error { return echoes(t, c, "x", rpc.WithPlainRequests()) },
		func() error { return echoes(t, c, "x", rpc.WithCodec(rpc.CodecJSON)) },
		func() error { return echoes(t, c, text, rpc.WithCompression(rpc.CompressionZstd)) },
		func() error { return echoes(t, c, "x", rpc.WithHeader("tenant", "acme")) },
		func() error { return echoes(t, c, strings.Repeat("l", 50_000)) },
		func() error {
			got, err := do(testContext(t), c, "grow")
			if err == nil && len(got) != 100_000 {
				err = fmt.Errorf("%d bytes", len(got))
			}
			return err
		},
		func() error {
			var h, trailer rpc.Header
			err := echoes(t, c, "header", rpc.ResponseHeader(&h), rpc.ResponseTrailer(&trailer))
			if h.Get("k") != "v" || trailer.Get("t") != "w" {
				err = errors.Join(err, fmt.Errorf("header %v, trailer %v", h, trailer))
			}
			return err
		},
		func() error {
			_, err := do(testContext(t), c, "fail")
			var e *rpc.Error
			if !errors.As(err, &e) || e.Code() != rpc.CodeNotFound || len(e.Details()) != 1 {
				return fmt.Errorf("not the error of the handler: %w", err)
			}
			return nil
		},
		func() error {
			if _, err := do(testContext(t), c, "panic"); rpc.CodeOf(err) != rpc.CodeInternal {
				return fmt.Errorf("not internal: %w", err)
			}
			return nil
		},
		func() error {
			_, err := do(ctx, c, "wait")
			<-ended // the cancel has found its call
			if rpc.CodeOf(err) != rpc.CodeCanceled {
				return fmt.Errorf("not cancelled: %w", err)
			}
			return nil
		})
}

// TestBatchWithoutResponders: "no responders" comes once for a batch and ends all its calls, also
// when the one on whose reply subject it comes has ended.
func TestBatchWithoutResponders(t *testing.T) {
	nc := rpctest.Connect(t)
	c := dial(t, nc, rpc.WithBatching(16<<10), rpc.WithoutRetry())
	_ = callOnce(t, c)
	for range 50 {
		ctx, cancel := context.WithCancel(testContext(t))
		held, release := c.HoldRequests()
		first := make(chan error)
		go func() { _, err := do(ctx, c, "first"); first <- err }()
		until(t, "the first is held", func() bool { return held() == 1 })
		cancel()
		if err := <-first; rpc.CodeOf(err) != rpc.CodeCanceled {
			t.Fatalf("the first is not cancelled: %v", err)
		}
		errs := make(chan error)
		for range 10 {
			go func() { _, err := do(testContext(t), c, "x"); errs <- err }()
		}
		release(11)
		for range 10 {
			err := <-errs
			if !errors.Is(err, nats.ErrNoResponders) {
				t.Fatal(err)
			}
			wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionNotRun)
		}
	}
}

// TestFollowersOfACancelledCall: their batch is led by one that still waits, also
// when the waiter of the cancelled one leads another batch at once.
func TestFollowersOfACancelledCall(t *testing.T) {
	c := dial(t, rpctest.Connect(t), rpc.WithBatching(110), rpc.WithoutRetry()) // of two
	_ = callOnce(t, c)
	const more = 20 // enough for one of them to get the free waiter
	for range 10 {
		ctx, cancel := context.WithCancel(testContext(t))
		held, release := c.HoldRequests()
		first, others := make(chan error), make(chan error)
		start := func(ctx context.Context, result chan error) {
			before := held()
			go func() { _, err := do(ctx, c, "x"); result <- err }()
			until(t, "another is held", func() bool { return held() == before+1 })
		}
		start(ctx, first)
		start(testContext(t), others)
		cancel()
		<-first
		for range more - 1 {
			start(testContext(t), others)
		}
		release(more + 1)
		for range more {
			wantCode(t, <-others, rpc.CodeUnavailable, rpc.ExecutionNotRun)
		}
	}
}

// TestBadBatches: a server answers them, or the items that are wrong, with what is wrong.
func TestBadBatches(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{})
	request := func(s string) []byte {
		b, err := proto.Marshal(wrapperspb.String(s))
		must(t, err)
		return append(wire.AppendRequest(nil, wire.NewID(), wire.CodecProto, time.Minute), b...)
	}
	batch := func(items ...[]byte) []byte {
		b := wire.AppendBatch(nil)
		for i, item := range items {
			b = wire.AppendItem(b, uint64(i), item)
		}
		return b
	}
	flagged, other := batch(request("x")), batch(request("x"))
	flagged[wire.FlagsOffset], other[1] = 1, 9
	for name, test := range map[string]struct {
		data []byte
		code rpc.Code
	}{
		"cut off":       {batch(request("a"), request("b"))[:40], rpc.CodeInvalidArgument},
		"absurd size":   {append(wire.AppendBatch(nil), 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f), rpc.CodeInvalidArgument},
		"too many":      {batch(make([][]byte, wire.MaxItems+1)...), rpc.CodeInvalidArgument},
		"flags":         {flagged, rpc.CodeUnimplemented},
		"other version": {other, rpc.CodeUnimplemented},
	} {
		e, err := wire.Parse(ask(t, nc, doSubject, test.data, nil).Data)
		if got := statusOf(t, e, err); got != test.code {
			t.Errorf("%s: answered %v, want %v", name, got, test.code)
		}
	}
	for name, test := range map[string]struct {
		item []byte
		code rpc.Code
	}{
		"good":      {request("x"), rpc.CodeOK},
		"batch":     {batch(request("x")), rpc.CodeInvalidArgument},
		"truncated": {request("x")[:10], rpc.CodeInvalidArgument},
		"response":  {wire.AppendResponse(nil, wire.NewID(), 0, 0), rpc.CodeInvalidArgument},
		"frame":     {wire.AppendFrame(nil, wire.KindData, 0), rpc.CodeInvalidArgument},
		"plain":     {[]byte("{}"), rpc.CodeInvalidArgument},
		"nothing":   {nil, rpc.CodeInvalidArgument},
		"open":      {wire.AppendOpen(nil, wire.NewID(), 0, time.Minute, wire.Open{Credit: 1 << 20, HalfClose: true}), rpc.CodeInvalidArgument},
	} {
		b, err := wire.ParseBatch(ask(t, nc, doSubject, wire.AppendItem(wire.AppendBatch(nil), 700, test.item), nil).Data)
		must(t, err)
		for tag, item := range b.Items() {
			e, err := wire.Parse(item)
			if got := statusOf(t, e, err); got != test.code || tag != 700 {
				t.Errorf("%s: answered %v with tag %d, want %v", name, got, tag, test.code)
			}
		}
	}
	must(t, nc.Publish(doSubject, batch())) // of nothing
	must(t, callOnce(t, dial(t, nc)))
}

func statusOf(t *testing.T, e wire.Envelope, err error) rpc.Code {
	t.Helper()
	must(t, err)
	if e.Flags&wire.FlagError == 0 {
		return rpc.CodeOK
	}
	s := new(natscallv1.Status)
	must(t, proto.Unmarshal(e.Body, s))
	return rpc.Code(s.GetCode())
}

// TestBadAnswersInBatches: what answers no call of the client is dropped, and the answer that
// comes then is taken.
func TestBadAnswersInBatches(t *testing.T) {
	srv := rpctest.NewServer(t)
	byHand := srv.Connect()
	_, err := byHand.Subscribe(doSubject, func(m *nats.Msg) {
		b, err := wire.ParseBatch(m.Data)
		if err != nil {
			_ = m.Respond(nil)
			return
		}
		for tag, item := range b.Items() {
			e, _ := wire.Parse(item)
			right := append(wire.AppendResponse(nil, e.ID, 0, 0), e.Body...)
			wrong := append(wire.AppendResponse(nil, wire.NewID(), 0, 0), e.Body...)
			bad := wire.AppendBatch(nil)
			for _, item := range [][]byte{wrong, nil, {0, 1, 2}, item, wire.AppendBatch(nil)} {
				bad = wire.AppendItem(bad, tag, item)
			}
			bad = wire.AppendItem(wire.AppendItem(bad, 1<<40, right), tag+1000, right)
			_ = m.Respond(bad)
			_ = m.Respond(bad[:len(bad)-1])
			_ = m.Respond(wire.AppendItem(wire.AppendBatch(nil), tag, right))
		}
	})
	must(t, err)
	must(t, byHand.Flush())
	c := dial(t, srv.Connect(), rpc.WithBatching(16<<10))
	for range 20 {
		together(t, c, 0, numbers(t, c, 10)...)
	}
}

// TestBatchesAcrossAccounts: with exports and permissions that allow several answers, as
// docs/protocol.md asks for.
func TestBatchesAcrossAccounts(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
		accounts(t, o)
		o.Users[0].Permissions = &server.Permissions{Response: &server.ResponsePermission{MaxMsgs: 256, Expires: time.Minute}}
	}))
	for range 2 {
		serve(t, srv.Connect(nats.UserInfo("svc", "x")), &funcs{})
	}
	c := dial(t, srv.Connect(nats.UserInfo("app", "x")), rpc.WithSubjectPrefix("ext"), rpc.WithBatching(16<<10))
	for range 10 {
		together(t, c, 0, numbers(t, c, 100)...)
	}
}

// TestBatchFlood: from many goroutines, as they come.
func TestBatchFlood(t *testing.T) {
	srv := rpctest.NewServer(t)
	for range 3 {
		serve(t, srv.Connect(), &funcs{})
	}
	c := dial(t, srv.Connect(), rpc.WithBatching(4<<10))
	each(t, 100, func(i int) error {
		for j := range 100 {
			if err := echoes(t, c, strings.Repeat("x", i*j)+strconv.Itoa(i*1000+j)); err != nil {
				return err
			}
		}
		return nil
	})
}
