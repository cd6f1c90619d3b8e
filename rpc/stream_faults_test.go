package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

// beat is the heartbeat of the tests that wait for one.
const beat = 400 * time.Millisecond

// each message of a faulty stream fills a frame, so that their numbers agree.
const faultyMessages = 10

var frameFiller = strings.Repeat("x", 20<<10)

// badNetwork is a service and a client of it behind proxies of their own.
type badNetwork struct {
	server, client *rpctest.Proxy
	c              *rpc.Client
	serverNC       *nats.Conn
	plain          *nats.Conn // a good connection
}

func newBadNetwork(t *testing.T, impl testServer) *badNetwork {
	return badNetworkOf(t, rpctest.NewServer(t), impl)
}

func badNetworkOf(t *testing.T, srv *rpctest.Server, impl testServer) *badNetwork {
	n := &badNetwork{server: rpctest.NewProxy(t, srv), client: rpctest.NewProxy(t, srv), plain: srv.Connect()}
	n.serverNC = n.server.Connect()
	serve(t, n.serverNC, impl, rpc.WithHeartbeat(beat))
	n.c = dial(t, n.client.Connect(), rpc.WithHeartbeat(beat))
	return n
}

// frameIs reports whether a message is a frame of a kind with a number.
func frameIs(m rpctest.Message, to rpctest.Direction, kind wire.Kind, number uint64) bool {
	f, err := wire.ParseFrame(m.Data)
	return err == nil && m.To == to && f.Kind == kind && f.Number == number
}

// once makes a fault happen to the first message that matches.
func once(a rpctest.Action, matches func(rpctest.Message) bool) func(rpctest.Message) rpctest.Action {
	var done atomic.Bool
	return func(m rpctest.Message) rpctest.Action {
		if matches(m) && done.CompareAndSwap(false, true) {
			return a
		}
		return rpctest.Pass
	}
}

// ofNewStream matches messages of the stream that is opened next: others may be on their way.
func ofNewStream(matches func(rpctest.Message) bool) func(rpctest.Message) bool {
	var id atomic.Pointer[string]
	return func(m rpctest.Message) bool {
		if e, err := wire.Parse(m.Data); err == nil && e.Kind == wire.KindOpen {
			text := e.ID.String()
			id.CompareAndSwap(nil, &text)
		}
		mine := id.Load()
		return mine != nil && strings.Contains(m.Subject, *mine) && matches(m)
	}
}

// sendFaulty sends the messages of a faulty stream.
func sendFaulty(send func(*text) error) error {
	for i := range faultyMessages {
		if err := send(wrapperspb.String(strconv.Itoa(i) + frameFiller)); err != nil {
			return err
		}
	}
	return nil
}

// recvFaulty receives until the stream ends; what comes before that must be in order.
func recvFaulty(recv func() (*text, error)) error {
	for i := 0; ; i++ {
		m, err := recv()
		if err == io.EOF && i < faultyMessages {
			return fmt.Errorf("a clean end after %d messages", i)
		}
		if err != nil {
			return err
		}
		if m.GetValue() != strconv.Itoa(i)+frameFiller {
			return fmt.Errorf("message %d is %.10q...", i, m.GetValue())
		}
	}
}

var faults = map[string]rpctest.Action{"lost": rpctest.Lose, "twice": rpctest.Duplicate, "swapped": rpctest.Swap}

// faultyFrames runs f for each fault of the first, a middle, the last data frame and the end.
func faultyFrames(t *testing.T, to rpctest.Direction, f func(t *testing.T, fault func(rpctest.Message) rpctest.Action, harmless bool)) {
	for name, action := range faults {
		for _, number := range []uint64{0, 4, faultyMessages - 1, faultyMessages} {
			kind := wire.KindData
			if number == faultyMessages {
				kind = wire.KindEnd
			}
			t.Run(fmt.Sprintf("frame %d %s", number, name), func(t *testing.T) {
				matches := ofNewStream(func(m rpctest.Message) bool { return frameIs(m, to, kind, number) })
				f(t, once(action, matches), kind == wire.KindEnd && action != rpctest.Lose)
			})
		}
	}
}

// TestFaultsToClient: whatever happens to a frame of a server is DATA_LOSS on
// the client; a second end is ignored, as the stream has ended, and so may be one that comes behind
// a message that is no frame.
func TestFaultsToClient(t *testing.T) {
	n := newBadNetwork(t, &funcs{watch: func(_ context.Context, _ string, to *rpc.Sender[*text]) error { return sendFaulty(to.Send) }})
	faultyFrames(t, rpctest.ToClient, func(t *testing.T, fault func(rpctest.Message) rpctest.Action, harmless bool) {
		n.client.Fault(fault)
		r, err := watch(testContext(t), n.c, "x")
		must(t, err)
		err = recvFaulty(r.Recv)
		if harmless && err == io.EOF {
			return
		}
		wantCode(t, err, rpc.CodeDataLoss, rpc.ExecutionMayHaveRun)
	})
}

// TestFaultsToServer: likewise the other way; the caller is told.
func TestFaultsToServer(t *testing.T) {
	received := make(chan error, 1)
	n := newBadNetwork(t, &funcs{gather: func(_ context.Context, from *rpc.Receiver[*text]) (string, error) {
		err := recvFaulty(from.Recv)
		received <- err
		if err == io.EOF {
			return "all", nil
		}
		return "", err
	}})
	faultyFrames(t, rpctest.ToServer, func(t *testing.T, fault func(rpctest.Message) rpctest.Action, harmless bool) {
		n.client.Fault(fault)
		s, err := testGather.Call(testContext(t), n.c)
		must(t, err)
		if err := sendFaulty(s.Send); err != nil && err != io.EOF {
			t.Fatal(err)
		}
		_, err = s.CloseAndRecv()
		if seen := <-received; harmless && seen == io.EOF { // the handler had returned, or not yet
			if err != nil {
				wantCode(t, err, rpc.CodeDataLoss, rpc.ExecutionDidRun)
			}
			return
		} else {
			wantCode(t, seen, rpc.CodeDataLoss, rpc.ExecutionMayHaveRun)
		}
		wantCode(t, err, rpc.CodeDataLoss, rpc.ExecutionDidRun)
	})
}

// TestLostTail: frames that nothing comes after are missed by the next heartbeat, in both
// directions.
func TestLostTail(t *testing.T) { rpctest.Bubble(t, testLostTail) }

func testLostTail(t *testing.T, srv *rpctest.Server) {
	received := make(chan error, 1)
	n := badNetworkOf(t, srv, &funcs{chat: func(ctx context.Context, with *rpc.BidiStream[*text, *text]) error {
		must(t, sendFaulty(with.Send))
		_, err := with.Recv()
		received <- err
		return err
	}})
	for name, to := range map[string]rpctest.Direction{"to client": rpctest.ToClient, "to server": rpctest.ToServer} {
		n.client.Fault(func(m rpctest.Message) rpctest.Action {
			last := uint64(faultyMessages - 1)
			if to == rpctest.ToServer {
				last = 0
			}
			if frameIs(m, to, wire.KindData, last) {
				return rpctest.Lose
			}
			return rpctest.Pass
		})
		s, err := testChat.Call(testContext(t), n.c)
		must(t, err)
		if to == rpctest.ToServer {
			must(t, s.Send(wrapperspb.String("lost")))
		}
		err, seen := recvFaulty(s.Recv), <-received
		if rpc.CodeOf(err) != rpc.CodeDataLoss {
			t.Errorf("%s: the client gets %v", name, err)
		}
		if want := map[bool]rpc.Code{true: rpc.CodeDataLoss, false: rpc.CodeCanceled}[to == rpctest.ToServer]; rpc.CodeOf(seen) != want {
			t.Errorf("%s: the handler gets %v", name, seen)
		}
	}
}

// TestLostEnd: a client that has lost all of the end learns at its next
// heartbeat that the instance has forgotten the stream, and so what the end said of the handler.
func TestLostEnd(t *testing.T) {
	n := newBadNetwork(t, &funcs{watch: count})
	n.client.Fault(func(m rpctest.Message) rpctest.Action {
		if m.To == rpctest.ToClient && (frameIs(m, m.To, wire.KindEnd, 1) || len(m.Data) == 0) {
			return rpctest.Lose
		}
		return rpctest.Pass
	})
	r, err := watch(testContext(t), n.c, "1")
	must(t, err)
	wantCode(t, errors.Unwrap(fmt.Errorf("%w", wantCount(r, 1))), rpc.CodeUnavailable, rpc.ExecutionMayHaveRun)
}

// TestLostCredits: heartbeats repeat what lost credits said; nothing else is missed. On virtual
// time a busy machine is not late with heartbeats.
func TestLostCredits(t *testing.T) { rpctest.Bubble(t, testLostCredits) }

func testLostCredits(t *testing.T, srv *rpctest.Server) {
	n := badNetworkOf(t, srv, &funcs{watch: count})
	n.client.Fault(func(m rpctest.Message) rpctest.Action {
		if f, err := wire.ParseFrame(m.Data); err == nil && f.Kind == wire.KindCredit {
			return rpctest.Lose
		}
		return rpctest.Pass
	})
	const messages = 250_000 // several windows
	r, err := watch(testContext(t), n.c, strconv.Itoa(messages))
	must(t, err)
	must(t, wantCount(r, messages))
	s, err := testGather.Call(testContext(t), n.c)
	must(t, err)
	for range 200 {
		must(t, s.Send(wrapperspb.String(frameFiller)))
	}
	res, err := s.CloseAndRecv()
	if err != nil || len(res.GetValue()) != 200*len(frameFiller) {
		t.Errorf("client stream: %d bytes came, %v", len(res.GetValue()), err)
	}
}

// TestLostOpening: a client does not wait forever for an accept, and a
// handler whose accept was lost is told.
func TestLostOpening(t *testing.T) { rpctest.Bubble(t, testLostOpening) }

func testLostOpening(t *testing.T, srv *rpctest.Server) {
	ended := make(chan error, 1)
	n := badNetworkOf(t, srv, &funcs{watch: waitForEnd(ended)})
	for name, lost := range map[string]func(m rpctest.Message) bool{
		"open":   func(m rpctest.Message) bool { return m.Subject == "test.v1.TestService.Watch" },
		"accept": func(m rpctest.Message) bool { return frameKind(m) == wire.KindAccept },
	} {
		n.client.Fault(once(rpctest.Lose, lost))
		_, err := watch(testContext(t), n.c, "x", rpc.WithoutRetry())
		wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionMayHaveRun)
		if name == "accept" {
			wantEnd(t, ended)
		}
	}
}

func frameKind(m rpctest.Message) wire.Kind {
	f, _ := wire.ParseFrame(m.Data)
	return f.Kind
}

// TestLostCancel: a handler whose caller has silently gone is ended by the silence.
func TestLostCancel(t *testing.T) { rpctest.Bubble(t, testLostCancel) }

func testLostCancel(t *testing.T, srv *rpctest.Server) {
	ended := make(chan error, 1)
	n := badNetworkOf(t, srv, &funcs{watch: waitForEnd(ended)})
	n.client.Fault(once(rpctest.Lose, func(m rpctest.Message) bool { return frameKind(m) == wire.KindStreamCancel }))
	openWaiting(t, n.c).Close()
	wantEnd(t, ended)
}

// TestRepeatedOpening: an open or accept that comes twice counts once.
func TestRepeatedOpening(t *testing.T) { rpctest.Bubble(t, testRepeatedOpening) }

func testRepeatedOpening(t *testing.T, srv *rpctest.Server) {
	var handled atomic.Int64
	n := badNetworkOf(t, srv, &funcs{watch: func(ctx context.Context, in string, to *rpc.Sender[*text]) error {
		handled.Add(1)
		return count(ctx, in, to)
	}})
	n.client.Fault(func(m rpctest.Message) rpctest.Action {
		if m.Subject == "test.v1.TestService.Watch" || frameKind(m) == wire.KindAccept {
			return rpctest.Duplicate
		}
		return rpctest.Pass
	})
	r, err := watch(testContext(t), n.c, "50000")
	must(t, err)
	must(t, wantCount(r, 50_000))
	if n := handled.Load(); n != 1 {
		t.Errorf("the handler ran %d times", n)
	}
}
