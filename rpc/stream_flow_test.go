package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/flow"
	"github.com/natscall/natscall/rpc/rpctest"
)

// soak makes tests that repeat themselves do so as often as their issue asks for.
func soak(often, always int) int {
	if os.Getenv("NATSCALL_SOAK") != "" {
		return often
	}
	return always
}

// TestManyStreams: 200 concurrent streams of 50 messages, again and again: 10,000
// of 10,000 arrive, in order, and then the status. On virtual time, as the tests
// below: there a busy machine is never late with what says that a peer lives.
func TestManyStreams(t *testing.T) { rpctest.Bubble(t, testManyStreams) }

func testManyStreams(t *testing.T, srv *rpctest.Server) {
	for range 3 {
		serve(t, srv.Connect(), &funcs{watch: count})
	}
	c := dial(t, srv.Connect())
	for range soak(200, 20) {
		each(t, 200, func(int) error {
			r, err := watch(testContext(t), c, "50 done")
			if err != nil {
				return err
			}
			if err := wantCount(r, 50); rpc.CodeOf(err) != rpc.CodeAborted {
				return fmt.Errorf("the end is %v", err)
			}
			return nil
		})
	}
}

// until waits for a condition that another goroutine makes true.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.Now().Add(30 * time.Second)
	for n := 0; !ok(); n++ {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		if n < 100 { // mostly it is a matter of microseconds
			runtime.Gosched()
		} else {
			<-tick.C
		}
	}
}

// heap is how much memory is in use.
func heap() int {
	runtime.GC()
	runtime.GC() // what pools held
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}

// TestStalledReader: a million messages through a stream whose reader stalls:
// the writer waits, within a few windows of memory, other calls on the same
// connections do not, and nothing is lost.
func TestStalledReader(t *testing.T) { rpctest.Bubble(t, testStalledReader) }

func testStalledReader(t *testing.T, srv *rpctest.Server) {
	const messages, size = 1_000_000, 5 + 2 + 2 // prefix, field, at least two digits
	var sent atomic.Int64
	serve(t, srv.Connect(), &funcs{watch: func(_ context.Context, _ string, to *rpc.Sender[*text]) error {
		for i := range messages {
			if err := to.Send(wrapperspb.String(strconv.Itoa(i))); err != nil {
				return err
			}
			sent.Add(1)
		}
		return nil
	}})
	c := dial(t, srv.Connect())
	must(t, callOnce(t, c))
	before := heap()
	r, err := watch(testContext(t), c, "x")
	must(t, err)
	<-time.After(time.Second) // virtual: nothing moves any more
	if n := sent.Load(); n*(size+4) < flow.Window/2 {
		t.Errorf("only %d messages were sent ahead of the reader", n)
	}
	for range 200 {
		must(t, callOnce(t, c))
	}
	if grown := heap() - before; grown > 8*flow.Window {
		t.Errorf("%d bytes are kept for the stalled stream", grown)
	}
	if n := sent.Load(); n*size > 2*flow.Window {
		t.Errorf("%d messages were sent ahead of the reader", n)
	}
	must(t, wantCount(r, messages))
	if grown := heap() - before; grown > 8*flow.Window {
		t.Errorf("%d bytes are left of the stream", grown)
	}
}

// TestStalledHandler: likewise the other way.
func TestStalledHandler(t *testing.T) { rpctest.Bubble(t, testStalledHandler) }

func testStalledHandler(t *testing.T, srv *rpctest.Server) {
	goOn := make(chan struct{})
	serve(t, srv.Connect(), &funcs{gather: func(_ context.Context, from *rpc.Receiver[*text]) (string, error) {
		<-goOn
		return "", wantCount(from, 300_000)
	}})
	c := dial(t, srv.Connect())
	s, err := testGather.Call(testContext(t), c)
	must(t, err)
	var sent atomic.Int64
	done := make(chan error, 1)
	go func() {
		for i := range 300_000 {
			if err := s.Send(wrapperspb.String(strconv.Itoa(i))); err != nil {
				done <- err
				return
			}
			sent.Add(1)
		}
		done <- nil
	}()
	<-time.After(time.Second) // virtual: nothing moves any more
	if n := sent.Load(); n*13 < flow.Window/2 {
		t.Errorf("only %d messages were sent ahead of the handler", n)
	}
	for range 200 {
		must(t, callOnce(t, c))
	}
	if n := sent.Load(); n*9 > 2*flow.Window {
		t.Errorf("%d messages were sent ahead of the handler", n)
	}
	close(goOn)
	must(t, <-done)
	_, err = s.CloseAndRecv()
	must(t, err)
}

// TestStalledReaderSlowsItsWriterOnly: of three streams on one connection one is not read.
func TestStalledReaderSlowsItsWriterOnly(t *testing.T) {
	rpctest.Bubble(t, testStalledReaderSlowsItsWriterOnly)
}

func testStalledReaderSlowsItsWriterOnly(t *testing.T, srv *rpctest.Server) {
	serve(t, srv.Connect(), &funcs{watch: count})
	c := dial(t, srv.Connect())
	const messages = 200_000 // more than a window
	var streams [3]*rpc.Receiver[*text]
	for i := range streams {
		r, err := watch(testContext(t), c, strconv.Itoa(messages))
		must(t, err)
		streams[i] = r
	}
	each(t, 2, func(i int) error { return wantCount(streams[1+i], messages) })
	must(t, wantCount(streams[0], messages))
}

// TestStreamedSizes: messages of every size, in every direction and shape.
func TestStreamedSizes(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{watch: func(_ context.Context, size string, to *rpc.Sender[*text]) error {
		n, err := strconv.Atoi(size)
		must(t, err)
		must(t, to.Send(wrapperspb.String("")))
		return to.Send(wrapperspb.String(strings.Repeat("x", n)))
	}})
	c := dial(t, srv.Connect())
	chat, err := testChat.Call(longContext(t), c)
	must(t, err)
	for _, size := range []int{0, 1, flow.MaxBody - 9, flow.MaxBody, 1<<20 - 1, 1 << 20, 1<<20 + 1, 16<<20 - 8} {
		value := strings.Repeat("x", size)
		must(t, chat.Send(wrapperspb.String(value)))
		m, err := chat.Recv()
		if err != nil || m.GetValue() != value {
			t.Fatalf("chat, %d bytes: %d came, %v", size, len(m.GetValue()), err)
		}
		gather, err := testGather.Call(testContext(t), c)
		must(t, err)
		must(t, gather.Send(wrapperspb.String(value)))
		if m, err = gather.CloseAndRecv(); err != nil || m.GetValue() != value {
			t.Fatalf("gather, %d bytes: %d came, %v", size, len(m.GetValue()), err)
		}
		r, err := watch(testContext(t), c, strconv.Itoa(size))
		must(t, err)
		_, err = r.Recv()
		must(t, err)
		if m, err = r.Recv(); err != nil || m.GetValue() != value {
			t.Fatalf("watch, %d bytes: %d came, %v", size, len(m.GetValue()), err)
		}
	}
	r, err := watch(testContext(t), c, strings.Repeat("0", 1<<20)+"3") // a large request
	must(t, err)
	if n, err := recvAll(r.Recv); n != 2 || err != nil {
		t.Errorf("after a large request: %d, %v", n, err)
	}
}

// TestSendLimit: a message over the sender's limit is refused, and the stream goes on.
func TestSendLimit(t *testing.T) {
	srv := rpctest.NewServer(t)
	large := wrapperspb.String(strings.Repeat("x", 2000))
	limit := rpc.WithMaxMessageSize(1000)
	serve(t, srv.Connect(), &funcs{chat: func(_ context.Context, with *rpc.BidiStream[*text, *text]) error {
		m, err := with.Recv()
		must(t, err)
		wantCode(t, with.Send(large), rpc.CodeResourceExhausted, rpc.ExecutionMayHaveRun)
		return with.Send(m)
	}}, limit)
	s, err := testChat.Call(testContext(t), dial(t, srv.Connect(), limit))
	must(t, err)
	wantCode(t, s.Send(large), rpc.CodeResourceExhausted, rpc.ExecutionMayHaveRun)
	must(t, s.Send(wrapperspb.String("small")))
	if m, err := s.Recv(); err != nil || m.GetValue() != "small" {
		t.Errorf("got %v, %v", m, err)
	}
	if _, err := s.Recv(); err != io.EOF {
		t.Errorf("the end is %v", err)
	}
}

// TestReceiveLimit: a message over the receiver's limit ends the stream, on both sides.
func TestReceiveLimit(t *testing.T) {
	srv := rpctest.NewServer(t)
	limit := rpc.WithMaxMessageSize(1000)
	large := wrapperspb.String(strings.Repeat("x", 2000))
	ended := make(chan error, 1)
	watching := func(ctx context.Context, _ string, to *rpc.Sender[*text]) error {
		must(t, to.Send(large))
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}
	stop := newTestServer(t, srv.Connect(), &funcs{watch: watching})
	r, err := watch(testContext(t), dial(t, srv.Connect(), limit), "x")
	must(t, err)
	for range 2 {
		_, err = r.Recv()
		wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionMayHaveRun)
	}
	if err := wantEnd(t, ended); !errors.Is(err, context.Canceled) {
		t.Errorf("the handler's context ends with %v", err)
	}
	shutdown(t, stop)
	serve(t, srv.Connect(), &funcs{}, limit)
	s, err := testGather.Call(testContext(t), dial(t, srv.Connect()))
	must(t, err)
	must(t, s.Send(large))
	_, err = s.CloseAndRecv()
	wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionDidRun)
}
