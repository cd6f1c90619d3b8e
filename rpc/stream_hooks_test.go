package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// spans collects what a tracer has seen: one line for each call and side.
type spans struct {
	mu    sync.Mutex
	lines []string
	open  int
}

// tracer is an interceptor for calls of every shape, on both sides: its logic stands here once.
func (s *spans) tracer() rpc.Interceptor {
	return func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		side := "client"
		if call.OnServer() {
			side = "server"
		} else {
			call.Header().Set("traceparent", "id-1")
		}
		name := fmt.Sprintf("%s %s %s", side, call.Method()[strings.LastIndexByte(call.Method(), '/')+1:], call.Header().Get("traceparent"))
		var mu sync.Mutex
		sent, received := 0, 0
		counting := func(n *int) func(*rpc.Message) error {
			return func(*rpc.Message) error { mu.Lock(); defer mu.Unlock(); *n++; return nil }
		}
		call.OnSend(counting(&sent))
		call.OnReceive(counting(&received))
		call.OnEnd(func(err error) {
			mu.Lock()
			defer mu.Unlock()
			s.end(fmt.Sprintf("%s: %d sent, %d received, %v", name, sent, received, rpc.CodeOf(err)))
		})
		s.mu.Lock()
		s.open++
		s.mu.Unlock()
		return next(ctx, call)
	}
}

func (s *spans) end(line string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, line)
	s.open--
}

// take waits for the end of all calls.
func (s *spans) take(t *testing.T, n int) string {
	t.Helper()
	var lines []string
	until(t, "all calls have ended", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		lines = s.lines
		return s.open == 0 && len(lines) >= n
	})
	s.lines = nil
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestTracedStreams(t *testing.T) {
	srv := rpctest.NewServer(t)
	var s spans
	serve(t, srv.Connect(), &funcs{watch: count}, rpc.WithInterceptors(s.tracer()))
	c := dial(t, srv.Connect(), rpc.WithInterceptors(s.tracer()))
	tests := []struct {
		name           string
		call           func(t *testing.T)
		client, server string
	}{
		{"unary", func(t *testing.T) { must(t, callOnce(t, c)) },
			"Do id-1: 1 sent, 1 received, ok", "Do id-1: 1 sent, 1 received, ok"},
		{"large unary", func(t *testing.T) { blob(t, c, 2<<20) },
			"Blob id-1: 1 sent, 1 received, ok", "Blob id-1: 1 sent, 1 received, ok"},
		{"server stream", func(t *testing.T) { watchAll(t, c, "3") },
			"Watch id-1: 1 sent, 3 received, ok", "Watch id-1: 3 sent, 1 received, ok"},
		{"error after messages", func(t *testing.T) { watchAll(t, c, "3 enough") },
			"Watch id-1: 1 sent, 3 received, aborted", "Watch id-1: 3 sent, 1 received, aborted"},
		{"client stream", func(t *testing.T) { gatherTwo(t, c) },
			"Gather id-1: 2 sent, 1 received, ok", "Gather id-1: 1 sent, 2 received, ok"},
		{"bidirectional", func(t *testing.T) { chatTwo(t, c) },
			"Chat id-1: 2 sent, 2 received, ok", "Chat id-1: 2 sent, 2 received, ok"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.call(t)
			if got, want := s.take(t, 2), "client "+test.client+"\nserver "+test.server; got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func blob(t *testing.T, c *rpc.Client, size int) {
	_, err := testBlob.Call(testContext(t), c, wrapperspb.Bytes(make([]byte, size)))
	must(t, err)
}

func watchAll(t *testing.T, c *rpc.Client, req string) {
	r, err := watch(testContext(t), c, req)
	must(t, err)
	for range r.All() {
	}
}

func gatherTwo(t *testing.T, c *rpc.Client) {
	s, err := testGather.Call(testContext(t), c)
	must(t, err)
	must(t, s.Send(hello))
	must(t, s.Send(hello))
	_, err = s.CloseAndRecv()
	must(t, err)
}

func chatTwo(t *testing.T, c *rpc.Client) {
	s, err := testChat.Call(testContext(t), c)
	must(t, err)
	must(t, s.Send(hello))
	must(t, s.Send(hello))
	s.CloseSend()
	if n, err := recvAll(s.Recv); n != 2 || err != nil {
		t.Errorf("%d messages, %v", n, err)
	}
}

// TestStreamsThatDoNotOpen end once for an interceptor, whatever was tried.
func TestStreamsThatDoNotOpen(t *testing.T) {
	srv := rpctest.NewServer(t)
	var s spans
	c := dial(t, srv.Connect(), rpc.WithInterceptors(s.tracer()))
	_, err := watch(testContext(t), c, "x", rpc.WithTimeout(beat)) // tried again and again
	wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionNotRun)
	ctx, cancel := context.WithCancel(testContext(t))
	cancel()
	_, err = watch(ctx, c, "x")
	wantCode(t, err, rpc.CodeCanceled, rpc.ExecutionNotRun)
	want := "client Watch id-1: 1 sent, 0 received, canceled\nclient Watch id-1: 1 sent, 0 received, unavailable"
	if got := s.take(t, 2); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestInterceptorsOfStreams that refuse: before the stream opens, after that, on the server, and
// single messages.
func TestInterceptorsOfStreams(t *testing.T) {
	srv := rpctest.NewServer(t)
	refused := rpc.NewError(rpc.CodePermissionDenied, "no")
	refuse := func(_ context.Context, call *rpc.Call, _ rpc.Next) error { return refused }
	late := func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		must(t, next(ctx, call))
		return refused
	}
	hook := func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.OnSend(func(*rpc.Message) error { return refused })
		call.OnReceive(func(*rpc.Message) error { return refused })
		return next(ctx, call)
	}
	serve(t, srv.Connect(), &funcs{})
	_, err := testChat.Call(testContext(t), dial(t, srv.Connect(), rpc.WithInterceptors(refuse)))
	wantCode(t, err, rpc.CodePermissionDenied, rpc.ExecutionNotRun)
	_, err = testChat.Call(testContext(t), dial(t, srv.Connect(), rpc.WithInterceptors(late)))
	wantCode(t, err, rpc.CodePermissionDenied, rpc.ExecutionMayHaveRun)
	s, err := testChat.Call(testContext(t), dial(t, srv.Connect(), rpc.WithInterceptors(hook)))
	must(t, err)
	wantCode(t, s.Send(hello), rpc.CodePermissionDenied, rpc.ExecutionMayHaveRun)
	s.CloseSend()
	if _, err := s.Recv(); err != io.EOF {
		t.Errorf("the end is %v", err)
	}
}

// TestRefusedMessages: a message that OnReceive refuses ends the stream on its side, as the next
// one would come after a gap. One that OnSend refuses was not sent, and the stream goes on.
func TestRefusedMessages(t *testing.T) {
	srv := rpctest.NewServer(t)
	second := func(m *rpc.Message) error {
		if m.Number() == 1 {
			return errors.New("not this one")
		}
		return nil
	}
	hook := func(set func(*rpc.Call)) rpc.Interceptor {
		return func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
			set(call)
			return next(ctx, call)
		}
	}
	serve(t, srv.Connect(), &funcs{watch: count})
	receiving := dial(t, srv.Connect(), rpc.WithInterceptors(hook(func(call *rpc.Call) { call.OnReceive(second) })))
	r, err := watch(testContext(t), receiving, "3")
	must(t, err)
	_, err = r.Recv()
	must(t, err)
	for range 2 {
		_, err = r.Recv()
		wantText(t, wantCode(t, err, rpc.CodeUnknown, rpc.ExecutionMayHaveRun), "not this one")
	}
	asked := 0
	sending := dial(t, srv.Connect(), rpc.WithInterceptors(hook(func(call *rpc.Call) {
		call.OnSend(func(*rpc.Message) error {
			if asked++; asked == 2 {
				return errors.New("not this one")
			}
			return nil
		})
	})))
	s, err := testGather.Call(testContext(t), sending)
	must(t, err)
	must(t, s.Send(wrapperspb.String("a")))
	wantText(t, wantCode(t, s.Send(wrapperspb.String("b")), rpc.CodeUnknown, rpc.ExecutionMayHaveRun), "not this one")
	must(t, s.Send(wrapperspb.String("c")))
	res, err := s.CloseAndRecv()
	if err != nil || res.GetValue() != "ac" {
		t.Errorf("%v, %v", res, err)
	}
}

// TestServerInterceptorRefusesStream: the caller is told that the handler did not run.
func TestServerInterceptorRefusesStream(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{watch: count}, rpc.WithInterceptors(func(context.Context, *rpc.Call, rpc.Next) error {
		return rpc.NewError(rpc.CodeUnauthenticated, "who are you?")
	}))
	r, err := watch(testContext(t), dial(t, srv.Connect()), "3")
	must(t, err)
	_, err = r.Recv()
	wantCode(t, err, rpc.CodeUnauthenticated, rpc.ExecutionNotRun)
}
