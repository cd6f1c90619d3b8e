package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// trace is the interceptor that the type was made for: one function for both
// sides, which carries an id from the caller to the handler.
func trace(name string, record func(string)) rpc.Interceptor {
	return func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		if !call.OnServer() {
			call.Header().Set("traceparent", "id-1")
		}
		record(fmt.Sprintf("%s > %s %v %s", name, call.Method(), call.Kind(), call.Header().Get("traceparent")))
		err := next(ctx, call)
		record(fmt.Sprintf("%s < %v", name, rpc.CodeOf(err)))
		return err
	}
}

func TestInterceptors(t *testing.T) {
	var mu sync.Mutex
	var log []string
	record := func(s string) { mu.Lock(); defer mu.Unlock(); log = append(log, s) }
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{do: func(ctx context.Context, in string) (string, error) {
		record("handler " + in)
		if in == "fail" {
			return "", rpc.Errorf(rpc.CodeNotFound, "nothing")
		}
		return in, nil
	}}, rpc.WithInterceptors(trace("s1", record), trace("s2", record)))
	c := dial(t, nc, rpc.WithInterceptors(trace("c1", record)), rpc.WithInterceptors(trace("c2", record)))
	for in, code := range map[string]string{"ok": "ok", "fail": "not_found"} {
		log = nil
		_, err := do(testContext(t), c, in)
		if rpc.CodeOf(err).String() != code {
			t.Errorf("%s: %v", in, err)
		}
		const call = " > /test.v1.TestService/Do unary id-1\n"
		want := "c1" + call + "c2" + call + "s1" + call + "s2" + call + "handler " + in +
			"\ns2 < " + code + "\ns1 < " + code + "\nc2 < " + code + "\nc1 < " + code
		mu.Lock()
		if got := strings.Join(log, "\n"); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", in, got, want)
		}
		mu.Unlock()
	}
}

// TestRequestOfStream: an interceptor that looks at every request leaves alone the messages of
// calls whose clients stream.
func TestRequestOfStream(t *testing.T) {
	nc := rpctest.Connect(t)
	look := func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		req, err := call.Request()
		if streams := call.Kind() == rpc.KindClientStream || call.Kind() == rpc.KindBidi; err != nil || (req == nil) != streams {
			t.Errorf("%s on server %v: the request is %v, %v", call.Method(), call.OnServer(), req, err)
		}
		return next(ctx, call)
	}
	serve(t, nc, &funcs{
		gather: func(_ context.Context, from *rpc.Receiver[*text]) (string, error) {
			n := 0
			for _, err := range from.All() {
				if err != nil {
					return "", err
				}
				n++
			}
			return fmt.Sprint(n), nil
		},
		chat: func(_ context.Context, s *rpc.BidiStream[*text, *text]) error {
			m, err := s.Recv()
			if err != nil {
				return err
			}
			return s.Send(m)
		},
	}, rpc.WithInterceptors(look))
	c := dial(t, nc, rpc.WithInterceptors(look))
	must(t, callOnce(t, c))
	gather, err := testGather.Call(testContext(t), c)
	must(t, err)
	must(t, gather.Send(hello))
	must(t, gather.Send(hello))
	res, err := gather.CloseAndRecv()
	must(t, err)
	if res.GetValue() != "2" {
		t.Errorf("the handler received %s of 2 messages", res.GetValue())
	}
	chat, err := testChat.Call(testContext(t), c)
	must(t, err)
	defer chat.Close()
	must(t, chat.Send(hello)) // without an end
	_, err = chat.Recv()
	must(t, err)
}

// TestServerInterceptor: before and after decoding, and in place of the handler.
func TestServerInterceptor(t *testing.T) {
	nc := rpctest.Connect(t)
	guard := func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		switch call.Header().Get("mode") {
		case "deny": // before the request is decoded
			return rpc.Errorf(rpc.CodeUnauthenticated, "who are you?")
		case "cache":
			call.SetResponse(wrapperspb.String("cached"))
			return nil
		case "wrong type":
			call.SetResponse(wrapperspb.Bool(true))
			return nil
		case "nothing":
			return nil
		case "read":
			req, err := call.Request()
			if err != nil {
				return fmt.Errorf("guard: %w", err)
			}
			call.ResponseHeader().Set("length", fmt.Sprint(len(req.(*text).GetValue())))
		case "plain error":
			return errors.New("boom")
		case "panic":
			panic("boom")
		}
		err := next(ctx, call)
		if err == nil && call.Response().(*text).GetValue() == "bad" {
			return rpc.Errorf(rpc.CodeInternal, "bad response")
		}
		return err
	}
	serve(t, nc, &funcs{}, rpc.WithInterceptors(guard))
	c := dial(t, nc)
	for _, test := range []struct {
		mode, in, out string
		code          rpc.Code
		execution     rpc.Execution
	}{
		{mode: "", in: "x", out: "x"},
		{mode: "cache", in: "x", out: "cached"},
		{mode: "read", in: "four", out: "four"},
		{mode: "deny", code: rpc.CodeUnauthenticated, execution: rpc.ExecutionNotRun},
		{mode: "wrong type", code: rpc.CodeInternal, execution: rpc.ExecutionNotRun},
		{mode: "nothing", code: rpc.CodeInternal, execution: rpc.ExecutionNotRun},
		{mode: "plain error", code: rpc.CodeUnknown, execution: rpc.ExecutionNotRun},
		{mode: "panic", code: rpc.CodeInternal, execution: rpc.ExecutionNotRun},
		{mode: "", in: "bad", code: rpc.CodeInternal, execution: rpc.ExecutionDidRun},
	} {
		t.Run(test.mode+" "+test.in, func(t *testing.T) {
			var h rpc.Header
			out, err := do(testContext(t), c, test.in, rpc.WithHeader("mode", test.mode), rpc.ResponseHeader(&h))
			if test.code != rpc.CodeOK {
				wantCode(t, err, test.code, test.execution)
				return
			}
			if err != nil || out != test.out {
				t.Fatalf("got %q, %v", out, err)
			}
			if test.mode == "read" && h.Get("length") != "4" {
				t.Errorf("response header %v", h)
			}
		})
	}
	m, err := nc.RequestWithContext(testContext(t), "test.v1.TestService.Do", []byte{0xff, 0xff})
	must(t, err)
	if got := m.Header.Get("Nats-Service-Error"); !strings.HasPrefix(got, "invalid_argument: the request is not a valid google.protobuf.StringValue") {
		t.Errorf("an undecodable request: %q", got)
	}
}

// TestOneWayInterceptor: an interceptor of the server may end a one-way call without next, as one
// that knows doubled messages does. That acknowledges a message of JetStream, so it does not come
// again.
func TestOneWayInterceptor(t *testing.T) {
	nc := rpctest.Connect(t)
	logger, log := newLog()
	var responses []proto.Message
	serve(t, nc, &funcs{}, logger, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		if call.Header().Get("again") != "" {
			return nil
		}
		err := next(ctx, call)
		responses = append(responses, call.Response())
		return err
	}))
	for _, header := range []nats.Header{nil, {"again": {"1"}}} {
		m, err := nc.RequestMsgWithContext(testContext(t), &nats.Msg{Subject: "notes.new", Header: header})
		must(t, err)
		if len(m.Data)+len(m.Header) != 0 {
			t.Errorf("%v is answered with %q, %v", header, m.Data, m.Header)
		}
	}
	if len(responses) != 1 || responses[0] != nil {
		t.Errorf("the responses are %v", responses)
	}
	if log.String() != "" {
		t.Errorf("logged: %s", log)
	}
}

// TestClientInterceptor: what an interceptor returns is what the caller gets.
func TestClientInterceptor(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{})
	var act func(call *rpc.Call, next func() error) error
	c := dial(t, nc, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		return act(call, func() error { return next(ctx, call) })
	}))
	for _, test := range []struct {
		name string
		act  func(call *rpc.Call, next func() error) error
		out  string
		code rpc.Code
	}{
		{"again", func(_ *rpc.Call, next func() error) error { return errors.Join(next(), next()) }, "x", rpc.CodeOK},
		{"cache", func(call *rpc.Call, _ func() error) error { call.SetResponse(wrapperspb.String("c")); return nil }, "c", rpc.CodeOK},
		{"nothing", func(*rpc.Call, func() error) error { return nil }, "", rpc.CodeInternal},
		{"nil message", func(call *rpc.Call, _ func() error) error { call.SetResponse((*text)(nil)); return nil }, "", rpc.CodeInternal},
		{"stranger", func(*rpc.Call, func() error) error { return errors.New("boom") }, "", rpc.CodeUnknown},
		{"bad header", func(call *rpc.Call, next func() error) error { call.Header().Set("a b", ""); return next() }, "", rpc.CodeInvalidArgument},
	} {
		t.Run(test.name, func(t *testing.T) {
			act = test.act
			out, err := do(testContext(t), c, "x")
			var e *rpc.Error
			if rpc.CodeOf(err) != test.code || out != test.out || err != nil && !errors.As(err, &e) {
				t.Errorf("got %q, %v", out, err)
			}
		})
	}
}
