package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// hookLog has a line for each function of an interceptor that ran, in order, of one call at a time.
type hookLog struct {
	mu    sync.Mutex
	lines []string
	ended chan error
}

func newHookLog() *hookLog { return &hookLog{ended: make(chan error, 10)} }

func (l *hookLog) add(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, fmt.Sprintf(format, args...))
}

// take waits for the end of a call and returns its lines and its error.
func (l *hookLog) take(t *testing.T) (string, error) {
	t.Helper()
	var err error
	select {
	case err = <-l.ended:
	case <-testContext(t).Done():
		t.Error("the call has not ended")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines
	l.lines = nil
	return strings.Join(lines, "\n"), err
}

// intercept is an interceptor that sets every hook.
func (l *hookLog) intercept(ctx context.Context, call *rpc.Call, next rpc.Next) error {
	call.OnAttempt(func(a *rpc.Attempt) error {
		l.add("attempt %d: %d bytes", a.Number(), len(a.Data()))
		return nil
	})
	call.OnSend(func(m *rpc.Message) error {
		if m.Size()+m.WireSize() != 0 {
			l.add("a size before the message is encoded")
		}
		l.add("send %d", m.Number())
		return nil
	})
	call.OnSent(func(m *rpc.Message, err error) {
		l.add("sent %d: %d bytes, %s on the wire, %v", m.Number(), m.Size(), wireSize(m), rpc.CodeOf(err))
	})
	call.OnReceive(func(m *rpc.Message) error {
		l.add("received %d: %d bytes, %s on the wire", m.Number(), m.Size(), wireSize(m))
		return nil
	})
	call.OnEnd(func(err error) {
		l.add("end: %v", rpc.CodeOf(err))
		l.ended <- err
	})
	return next(ctx, call)
}

// wireSize describes the size of a message on the wire beside its own.
func wireSize(m *rpc.Message) string {
	switch {
	case m.WireSize() == m.Size():
		return "all"
	case m.WireSize() > 0 && m.WireSize() < m.Size()/2:
		return "few"
	}
	return fmt.Sprint(m.WireSize())
}

// TestHooksOfUnaryCalls: each hook runs once for each message, in the same order on either side,
// and knows the sizes, in whatever form the call goes.
func TestHooksOfUnaryCalls(t *testing.T) {
	srv := rpctest.NewServer(t)
	client, server := newHookLog(), newHookLog()
	serve(t, srv.Connect(), &funcs{do: func(_ context.Context, in string) (string, error) {
		if n := len(in); n < 10 {
			in = strings.Repeat("b", 2<<20)
		}
		return in, nil
	}}, rpc.WithInterceptors(server.intercept))
	small, medium, large := strings.Repeat("a", 20), strings.Repeat("a", 10_000), strings.Repeat("a", 2<<20)
	for _, test := range []struct {
		name, in, out, wire string
		opts                []rpc.CallOption
		client              []rpc.ClientOption
	}{
		{name: "small", in: small},
		{name: "medium", in: medium},
		{name: "large", in: large},
		{name: "large response", in: "a", out: strings.Repeat("b", 2<<20)},
		{name: "JSON", in: medium, opts: []rpc.CallOption{rpc.WithCodec(rpc.CodecJSON)}},
		{name: "plain", in: medium, opts: []rpc.CallOption{rpc.WithPlainRequests()}},
		{name: "plain JSON", in: medium, opts: []rpc.CallOption{rpc.WithPlainRequests(), rpc.WithCodec(rpc.CodecJSON)}},
		{name: "gzip", in: medium, wire: "few", opts: []rpc.CallOption{rpc.WithCompression(rpc.CompressionGzip)}},
		{name: "zstd", in: medium, wire: "few", opts: []rpc.CallOption{rpc.WithCompression(rpc.CompressionZstd)}},
		{name: "large gzip JSON", in: large, wire: "few", opts: []rpc.CallOption{rpc.WithCompression(rpc.CompressionGzip), rpc.WithCodec(rpc.CodecJSON)}},
		{name: "batching", in: small, client: []rpc.ClientOption{rpc.WithBatching(4096)}},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := dial(t, srv.Connect(), append(test.client, rpc.WithInterceptors(client.intercept))...)
			if test.out == "" {
				test.out = test.in
			}
			if test.wire == "" {
				test.wire = "all"
			}
			got, err := do(testContext(t), c, test.in, test.opts...)
			if err != nil || got != test.out {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			size := func(s string) int {
				if strings.Contains(test.name, "JSON") {
					data, _ := protojson.Marshal(wrapperspb.String(s))
					return len(data)
				}
				return proto.Size(wrapperspb.String(s))
			}
			in, out := size(test.in), size(test.out)
			lines, _ := client.take(t)
			want := fmt.Sprintf("send 0\nattempt 0: %d bytes\nsent 0: %[1]d bytes, %s on the wire, ok\nreceived 0: %d bytes, %[2]s on the wire\nend: ok", in, test.wire, out)
			if lines != want {
				t.Errorf("the client saw\n%s\nwant\n%s", lines, want)
			}
			lines, _ = server.take(t)
			want = fmt.Sprintf("received 0: %d bytes, %s on the wire\nsend 0\nsent 0: %d bytes, %[2]s on the wire, ok\nend: ok", in, test.wire, out)
			if lines != want {
				t.Errorf("the server saw\n%s\nwant\n%s", lines, want)
			}
		})
	}
}

// TestHooksOfStreams: messages are counted in each direction, and have the sizes of their own.
func TestHooksOfStreams(t *testing.T) {
	srv := rpctest.NewServer(t)
	client, server := newHookLog(), newHookLog()
	long := strings.Repeat("a", 10_000)
	serve(t, srv.Connect(), &funcs{watch: func(_ context.Context, in string, to *rpc.Sender[*text]) error {
		return errors.Join(to.Send(wrapperspb.String(in)), to.Send(wrapperspb.String(long)), to.Send(hello))
	}}, rpc.WithInterceptors(server.intercept))
	c := dial(t, srv.Connect(), rpc.WithInterceptors(client.intercept))
	for _, test := range []struct {
		compression rpc.Compression
		wire        string
	}{{rpc.CompressionNone, "all"}, {rpc.CompressionGzip, "few"}} {
		r, err := watch(testContext(t), c, long, rpc.WithCompression(test.compression))
		must(t, err)
		if n, err := recvAll(r.Recv); n != 3 || err != nil {
			t.Errorf("%d messages, %v", n, err)
		}
		want := fmt.Sprintf("send 0\nattempt 0: 10003 bytes\nsent 0: 10003 bytes, %s on the wire, ok\n"+
			"received 0: 10003 bytes, %[1]s on the wire\nreceived 1: 10003 bytes, %[1]s on the wire\nreceived 2: 7 bytes, all on the wire\nend: ok", test.wire)
		if got, _ := client.take(t); got != want {
			t.Errorf("the client saw\n%s\nwant\n%s", got, want)
		}
		want = fmt.Sprintf("received 0: 10003 bytes, %s on the wire\nsend 0\nsent 0: 10003 bytes, %[1]s on the wire, ok\n"+
			"send 1\nsent 1: 10003 bytes, %[1]s on the wire, ok\nsend 2\nsent 2: 7 bytes, all on the wire, ok\nend: ok", test.wire)
		if got, _ := server.take(t); got != want {
			t.Errorf("the server saw\n%s\nwant\n%s", got, want)
		}
	}
}

// TestHooksDecodeOnce: a message that a hook has looked at is not decoded into twice.
func TestHooksDecodeOnce(t *testing.T) {
	type list = structpb.ListValue
	desc := rpc.ServiceDesc{Name: "x.v1.X", MicroName: "X", Version: "1.0.0"}
	unary := rpc.NewUnaryMethod[list, list](&desc, rpc.MethodDesc{Name: "Do"})
	bidi := rpc.NewBidiMethod[list, list](&desc, rpc.MethodDesc{Name: "Chat"})
	look := rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		for range 2 {
			call.OnReceive(func(m *rpc.Message) error {
				p, err := m.Proto()
				if again, _ := m.Proto(); err != nil || again != p || len(p.(*list).GetValues()) != 1 {
					t.Errorf("a hook saw %v, %v", p, err)
				}
				return nil
			})
		}
		return next(ctx, call)
	})
	srv := rpctest.NewServer(t)
	s := rpc.NewServer(srv.Connect(), look)
	must(t, rpc.Register(s, &desc, 0, nil,
		rpc.HandleUnary(unary, func(_ int, _ context.Context, m *list) (*list, error) { return m, nil }),
		rpc.HandleBidi(bidi, func(_ int, _ context.Context, with *rpc.BidiStream[*list, *list]) error {
			m, err := with.Recv()
			return errors.Join(err, with.Send(m))
		})))
	startServer(t, s)
	c, ctx := dial(t, srv.Connect(), look), testContext(t)
	one := &list{Values: []*structpb.Value{structpb.NewStringValue("x")}}
	res, err := unary.Call(ctx, c, one)
	if err != nil || len(res.GetValues()) != 1 {
		t.Errorf("%v, %v", res, err)
	}
	chat, err := bidi.Call(ctx, c)
	must(t, err)
	defer chat.Close()
	must(t, chat.Send(one))
	if res, err = chat.Recv(); err != nil || len(res.GetValues()) != 1 {
		t.Errorf("%v, %v", res, err)
	}
}

// TestKeptMessages: a message that a hook keeps, although it may not, says nothing and harms
// nobody.
func TestKeptMessages(t *testing.T) {
	nc := rpctest.Connect(t)
	var kept []*rpc.Message
	keep := rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.OnSent(func(m *rpc.Message, _ error) { kept = append(kept, m) })
		call.OnReceive(func(m *rpc.Message) error { kept = append(kept, m); return nil })
		return next(ctx, call)
	})
	serve(t, nc, &funcs{}, keep)
	must(t, callOnce(t, dial(t, nc, keep)))
	if len(kept) != 4 {
		t.Fatalf("the hooks have seen %d messages", len(kept))
	}
	for _, m := range kept {
		if p, err := m.Proto(); p != nil || rpc.CodeOf(err) != rpc.CodeInternal || m.Size() != 0 {
			t.Errorf("%v, %v, %d bytes", p, err, m.Size())
		}
	}
}

// TestSentAfterSend: a request for which OnSend has run gets OnSent too, once, whatever ends the
// call before it is on its way; and OnSent comes after OnAttempt.
func TestSentAfterSend(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{})
	gone, cancel := context.WithCancel(testContext(t))
	cancel()
	refuse := func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.OnAttempt(func(*rpc.Attempt) error { return rpc.NewError(rpc.CodeAborted, "no") })
		return next(ctx, call)
	}
	for name, test := range map[string]struct {
		ctx     context.Context
		opts    []rpc.CallOption
		attempt bool
		code    string
	}{
		"ctx has ended":   {gone, nil, false, "canceled"},
		"too large":       {nil, []rpc.CallOption{rpc.WithMaxSendSize(1)}, false, "resource_exhausted"},
		"header":          {nil, []rpc.CallOption{rpc.WithInterceptors(badHeader)}, false, "invalid_argument"},
		"OnAttempt":       {nil, []rpc.CallOption{rpc.WithInterceptors(refuse)}, true, "aborted"},
		"OnSend":          {nil, []rpc.CallOption{rpc.WithInterceptors(refuseSend)}, false, "aborted"},
		"no such replica": {nil, []rpc.CallOption{rpc.WithInstance("nobody")}, true, "unavailable"},
	} {
		log := newHookLog()
		c := dial(t, srv.Connect(), rpc.WithInterceptors(log.intercept))
		if test.ctx == nil {
			test.ctx = testContext(t)
		}
		for shape, call := range everyShape(test.ctx, c, test.opts...) {
			if shape == "one-way" && (name == "no such replica" || name == "too large") {
				continue // nobody says that it is not there; its message has no bytes
			}
			if shape == "client stream" || shape == "bidirectional stream" {
				continue // no single request
			}
			err := call()
			lines, end := log.take(t)
			if err == nil || rpc.CodeOf(err) != rpc.CodeOf(end) || rpc.CodeOf(err).String() != test.code {
				t.Errorf("%s, %s: the call ended with %v, OnEnd got %v", name, shape, err, end)
			}
			var e *rpc.Error
			if !errors.As(err, &e) || e.Execution() != rpc.ExecutionNotRun {
				t.Errorf("%s, %s: %v has not run", name, shape, err)
			}
			if name == "OnSend" {
				if strings.Contains(lines, "sent 0") {
					t.Errorf("%s, %s: OnSent ran:\n%s", name, shape, lines)
				}
				continue
			}
			if n := strings.Count(lines, "sent 0: "); n != 1 {
				t.Errorf("%s, %s: OnSent ran %d times:\n%s", name, shape, n, lines)
			}
			sentFailed := strings.Contains(lines, "on the wire, "+test.code) || strings.HasSuffix(lines, "wire, "+test.code)
			if name != "no such replica" && !sentFailed {
				t.Errorf("%s, %s: OnSent did not get the error:\n%s", name, shape, lines)
			}
			at, sent := strings.Index(lines, "attempt 0"), strings.Index(lines, "sent 0")
			if at >= 0 != test.attempt || at > sent {
				t.Errorf("%s, %s: the attempt is out of place:\n%s", name, shape, lines)
			}
		}
	}
}

func refuseSend(ctx context.Context, call *rpc.Call, next rpc.Next) error {
	call.OnSend(func(*rpc.Message) error { return rpc.NewError(rpc.CodeAborted, "no") })
	return next(ctx, call)
}

func badHeader(ctx context.Context, call *rpc.Call, next rpc.Next) error {
	call.Header().Set("a b", "")
	return next(ctx, call)
}

// TestRetriedHooks: a request that is sent again is one message and several attempts, each with its
// own id and headers.
func TestRetriedHooks(t *testing.T) {
	nc := rpctest.Connect(t)
	var refusals int
	var ids, numbers []string
	serve(t, nc, &funcs{read: func(ctx context.Context, in string) (string, error) {
		call := rpc.CallFromContext(ctx)
		ids, numbers = append(ids, call.ID()), append(numbers, call.Header().Get(rpc.ExtensionPrefix+"Number"))
		return in, nil
	}}, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		if refusals++; refusals < 3 {
			return rpc.NewError(rpc.CodeUnavailable, "not yet", retryInfo(t, 0))
		}
		return next(ctx, call)
	}))
	log := newHookLog()
	var attempts []string
	c := dial(t, nc, rpc.WithInterceptors(log.intercept, func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.OnAttempt(func(a *rpc.Attempt) error {
			attempts = append(attempts, a.ID())
			return a.SetHeader(rpc.ExtensionPrefix+"Number", fmt.Sprint(a.Number()))
		})
		return next(ctx, call)
	}))
	_, err := testRead.Call(testContext(t), c, wrapperspb.String("x"))
	must(t, err)
	lines, _ := log.take(t)
	want := "send 0\nattempt 0: 3 bytes\nsent 0: 3 bytes, all on the wire, ok\nattempt 1: 3 bytes\nattempt 2: 3 bytes\nreceived 0: 3 bytes, all on the wire\nend: ok"
	if lines != want {
		t.Errorf("got\n%s\nwant\n%s", lines, want)
	}
	if len(attempts) != 3 || attempts[0] == attempts[1] || len(ids) != 1 || ids[0] != attempts[2] || numbers[0] != "2" {
		t.Errorf("attempts %q came as %q, %q", attempts, ids, numbers)
	}
}

// TestAttemptIDs: the server knows an attempt by its id, but for plain requests and one-way
// messages, which have none on either side.
func TestAttemptIDs(t *testing.T) {
	srv := rpctest.NewServer(t)
	sent, came := make(chan string, 1), make(chan string, 1)
	serve(t, srv.Connect(), &funcs{}, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		came <- fmt.Sprint(call.ID(), call.Peer().Plain)
		return next(ctx, call)
	}))
	c := dial(t, srv.Connect(), rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.OnAttempt(func(a *rpc.Attempt) error { sent <- fmt.Sprint(a.ID(), call.Peer().Plain); return nil })
		return next(ctx, call)
	}))
	calls := everyShape(testContext(t), c)
	calls["plain"] = func() error { _, err := do(testContext(t), c, "x", rpc.WithPlainRequests()); return err }
	for shape, call := range calls {
		must(t, call())
		a, b := <-sent, <-came
		if plain := shape == "plain" || shape == "one-way"; a != b || plain != (a == "true") || !plain && len(a) != 32+len("false") {
			t.Errorf("%s: attempt %q came as %q", shape, a, b)
		}
	}
}

// TestCallsOfInterceptors: what an interceptor does to a call is not seen by the next one, and a
// response not after an error.
func TestCallsOfInterceptors(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{do: func(ctx context.Context, in string) (string, error) {
		return in, fail(rpc.CallFromContext(ctx).Header().Get("mode"))
	}})
	c := dial(t, nc, rpc.WithHeader("tenant", "acme"), rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		if call.Header().Get("mode") != "" {
			t.Errorf("the header is %v", call.Header())
		}
		call.Header().Set("mode", "ok")
		if err := next(ctx, call); err != nil || call.Kind() != rpc.KindUnary {
			return err
		}
		if call.Response() == nil {
			t.Error("no response")
		}
		call.Header().Set("mode", "fail")
		err := next(ctx, call)
		if call.Response() != nil {
			t.Errorf("after an error the response is %v", call.Response())
		}
		return err
	}))
	for range 2 {
		wantCode(t, callOnce(t, c), rpc.CodeNotFound, rpc.ExecutionDidRun)
		_, err := testChat.Call(testContext(t), c)
		must(t, err)
	}
}

// TestQueueTime: a request waits from its arrival on.
func TestQueueTime(t *testing.T) {
	nc := rpctest.Connect(t)
	var waited time.Duration
	began := time.Now()
	serve(t, nc, &funcs{do: func(ctx context.Context, in string) (string, error) {
		waited = rpc.CallFromContext(ctx).QueueTime()
		return in, nil
	}})
	c := dial(t, nc)
	until(t, "the server is older than a call takes", func() bool {
		sent := time.Now()
		must(t, callOnce(t, c))
		if took := time.Since(sent); waited <= 0 || waited > took {
			t.Errorf("a call of %v has waited for %v", took, waited)
		}
		return time.Since(began) > 100*time.Millisecond
	})
}

// TestExtensionsNearMaxPayload: a request that fits only without the headers that OnAttempt adds
// goes as a stream, and is one attempt.
func TestExtensionsNearMaxPayload(t *testing.T) {
	nc := rpctest.Connect(t)
	var seen []string
	serve(t, nc, &funcs{blob: func(ctx context.Context, b []byte) ([]byte, error) {
		call := rpc.CallFromContext(ctx)
		seen = append(seen, fmt.Sprint(call.ID(), len(call.Header().Get(rpc.ExtensionPrefix+"Token"))))
		return b, nil
	}})
	var attempts []string
	c := dial(t, nc, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.OnAttempt(func(a *rpc.Attempt) error {
			attempts = append(attempts, fmt.Sprint(a.ID(), 2000))
			return a.SetHeader(rpc.ExtensionPrefix+"Token", strings.Repeat("t", 2000))
		})
		return next(ctx, call)
	}))
	for missing := range 5 {
		size := int(nc.MaxPayload()) - 1000*missing - 50
		res, err := testBlob.Call(testContext(t), c, wrapperspb.Bytes(make([]byte, size)))
		if err != nil || len(res.GetValue()) != size {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if len(seen) != 5 || !slices.Equal(seen, attempts) {
		t.Errorf("%v attempts came as %v", attempts, seen)
	}
}

// TestEndHooksOfTheServer: OnEnd runs once, with what the caller is told, whatever a hook before it
// does.
func TestEndHooksOfTheServer(t *testing.T) {
	for _, test := range []struct {
		name string
		set  func(*rpc.Call)
		code rpc.Code
	}{
		{"Goexit in OnSent", func(call *rpc.Call) { call.OnSent(func(*rpc.Message, error) { runtime.Goexit() }) }, rpc.CodeOK},
		{"Goexit in OnEnd", func(call *rpc.Call) { call.OnEnd(func(error) { runtime.Goexit() }) }, rpc.CodeOK},
		{"Goexit in OnSend", func(call *rpc.Call) { call.OnSend(func(*rpc.Message) error { runtime.Goexit(); return nil }) }, rpc.CodeInternal},
		{"bad header", func(call *rpc.Call) { call.ResponseHeader().Set("a b", "x") }, rpc.CodeInternal},
		{"bad trailer", func(call *rpc.Call) { call.ResponseTrailer().Set("a", "\n") }, rpc.CodeInternal},
	} {
		log := newHookLog()
		srv := rpctest.NewServer(t)
		opt, _ := newLog()
		serve(t, srv.Connect(), &funcs{}, opt, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
			call.OnEnd(func(err error) { log.ended <- err })
			test.set(call)
			call.OnEnd(func(err error) { log.ended <- err })
			return next(ctx, call)
		}))
		for form, c := range everyForm(t, srv.Connect()) {
			if err := callOnce(t, c); rpc.CodeOf(err) != test.code {
				t.Errorf("%s, %s: the call ended with %v", test.name, form, err)
			}
			for range 2 {
				if _, err := log.take(t); rpc.CodeOf(err) != test.code {
					t.Errorf("%s, %s: OnEnd got %v", test.name, form, err)
				}
			}
		}
		s, err := testGather.Call(testContext(t), dial(t, srv.Connect()))
		must(t, err)
		if _, err := s.CloseAndRecv(); rpc.CodeOf(err) != test.code {
			t.Errorf("%s, client stream: the call ended with %v", test.name, err)
		}
		for range 2 {
			if _, err := log.take(t); rpc.CodeOf(err) != test.code {
				t.Errorf("%s, client stream: OnEnd got %v", test.name, err)
			}
		}
		select {
		case err := <-log.ended:
			t.Errorf("%s: OnEnd ran once more, with %v", test.name, err)
		default:
		}
	}
}

// TestHooksOfAbandonedCalls: a call that a shutdown has answered ends with what its caller was
// told, though its handler has returned a response.
func TestHooksOfAbandonedCalls(t *testing.T) {
	srv := rpctest.NewServer(t)
	log := newHookLog()
	running, finish := make(chan struct{}), make(chan struct{})
	s := newTestServer(t, srv.Connect(), &funcs{do: func(_ context.Context, in string) (string, error) {
		close(running)
		<-finish
		return in, nil
	}}, rpc.WithInterceptors(log.intercept))
	c := dial(t, srv.Connect())
	answered := make(chan error, 1)
	go func() { answered <- callOnceNoRetry(t, c) }()
	<-running
	soon, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if err := s.Shutdown(soon); err == nil {
		t.Error("the shutdown has waited")
	}
	wantCode(t, <-answered, rpc.CodeUnavailable, rpc.ExecutionDidRun)
	close(finish)
	lines, err := log.take(t)
	wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionDidRun)
	if !strings.Contains(lines, "send 0\nsent 0: 0 bytes, all on the wire, unavailable\nend") {
		t.Errorf("got\n%s", lines)
	}
}

// TestClientInterceptorPanics: the call ends, also for the hooks and the server.
func TestClientInterceptorPanics(t *testing.T) {
	large := strings.Repeat("a", 2<<20)
	srv := rpctest.NewServer(t)
	ended := make(chan error, 1)
	serve(t, srv.Connect(), &funcs{
		read: func(context.Context, string) (string, error) { return large, nil },
		watch: func(ctx context.Context, _ string, to *rpc.Sender[*text]) error {
			<-ctx.Done()
			return ctx.Err()
		},
	}, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		if call.Kind() == rpc.KindServerStream { // a cancel may come before its handler is called
			call.OnEnd(func(err error) { ended <- err })
		}
		return next(ctx, call)
	}))
	log := newHookLog()
	for how, end := range map[string]func(){"panic": func() { panic("user code") }, "Goexit": runtime.Goexit} {
		for place, set := range map[string]func(call *rpc.Call){
			"after next": nil,
			"OnSend":     func(call *rpc.Call) { call.OnSend(func(*rpc.Message) error { end(); return nil }) },
			"OnAttempt":  func(call *rpc.Call) { call.OnAttempt(func(*rpc.Attempt) error { end(); return nil }) },
			"OnReceive":  func(call *rpc.Call) { call.OnReceive(func(*rpc.Message) error { end(); return nil }) },
		} {
			c := dial(t, srv.Connect(), rpc.WithInterceptors(log.intercept, func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
				if set != nil {
					set(call)
				}
				err := next(ctx, call)
				if err == nil && set == nil {
					end()
				}
				return err
			}))
			calls := map[string]func() error{
				"unary":          func() error { return callOnce(t, c) },
				"large request":  func() error { _, err := do(testContext(t), c, large); return err },
				"large response": func() error { _, err := testRead.Call(testContext(t), c, hello); return err },
				"server stream":  func() error { _, err := watch(testContext(t), c, "x"); return err },
			}
			for shape, call := range calls {
				if shape == "server stream" && place == "OnReceive" {
					continue // runs in Recv
				}
				if returned := survives(call); returned {
					t.Errorf("%s in %s, %s: the call returned", how, place, shape)
				}
				lines, err := log.take(t)
				if rpc.CodeOf(err) != rpc.CodeInternal {
					t.Errorf("%s in %s, %s: OnEnd got %v", how, place, shape, err)
				}
				if a, b := strings.Count(lines, "send 0"), strings.Count(lines, "sent 0"); a != b && place != "OnSend" {
					t.Errorf("%s in %s, %s: OnSent ran %d times:\n%s", how, place, shape, b, lines)
				}
				if shape == "server stream" && place == "after next" {
					if err := <-ended; rpc.CodeOf(err) != rpc.CodeCanceled {
						t.Errorf("%s in %s, %s: the server's call ended with %v", how, place, shape, err)
					}
				}
				until(t, "the stream has ended: "+how+" in "+place+", "+shape, func() bool { return c.OpenStreams() == 0 })
			}
		}
	}
}

// survives reports whether f returns, on a goroutine of its own, which may panic or exit.
func survives(f func() error) (returned bool) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { _ = recover() }()
		_ = f()
		returned = true
	}()
	<-done
	return returned
}

// TestRefusedResponses: an error of OnReceive is that of the call, which has run: it is not sent
// again, whatever size the response has.
func TestRefusedResponses(t *testing.T) {
	nc := rpctest.Connect(t)
	runs := 0
	size := 0
	serve(t, nc, &funcs{read: func(context.Context, string) (string, error) {
		runs++
		return strings.Repeat("a", size), nil
	}})
	c := dial(t, nc, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.OnReceive(func(*rpc.Message) error { return rpc.NewError(rpc.CodeUnavailable, "no") })
		return next(ctx, call)
	}))
	for _, size = range []int{10, 2 << 20} {
		runs = 0
		_, err := testRead.Call(testContext(t), c, hello)
		wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionDidRun)
		if runs != 1 {
			t.Errorf("%d bytes: the handler ran %d times", size, runs)
		}
		until(t, "the stream has ended", func() bool { return c.OpenStreams() == 0 })
	}
}

// TestOnSendSetsHeader: the response header may be set until the first message is sent, by OnSend
// too, in every shape.
func TestOnSendSetsHeader(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{}, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.OnSend(func(m *rpc.Message) error {
			if m.Number() == 0 {
				call.ResponseHeader().Set("first", fmt.Sprint(m.Number()))
			}
			return nil
		})
		return next(ctx, call)
	}))
	c := dial(t, nc)
	var h rpc.Header
	_, err := do(testContext(t), c, "x", rpc.ResponseHeader(&h))
	must(t, err)
	r, err := watch(testContext(t), c, "x")
	must(t, err)
	streamed, err := r.Header(testContext(t))
	must(t, err)
	if h.Get("first") != "0" || streamed.Get("first") != "0" {
		t.Errorf("unary %v, stream %v", h, streamed)
	}
}

// TestSendErrorsOfHooks: a message that OnSend refuses is not sent and does not count; one whose
// header cannot be sent, or that does not encode, counts.
func TestSendErrorsOfHooks(t *testing.T) {
	nc := rpctest.Connect(t)
	errs := make(chan error, 4)
	serve(t, nc, &funcs{watch: func(ctx context.Context, _ string, to *rpc.Sender[*text]) error {
		rpc.CallFromContext(ctx).ResponseHeader().Set("a b", "x")
		errs <- to.Send(wrapperspb.String("no"))
		errs <- to.Send(wrapperspb.String("a"))
		delete(rpc.CallFromContext(ctx).ResponseHeader(), "a b")
		errs <- to.Send(wrapperspb.String("\xff"))
		errs <- to.Send(wrapperspb.String("b"))
		return nil
	}}, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.OnSend(func(m *rpc.Message) error {
			if p, _ := m.Proto(); p.(*text).GetValue() == "no" {
				return errors.New("no")
			}
			return nil
		})
		var sent []string
		call.OnSent(func(m *rpc.Message, err error) { sent = append(sent, fmt.Sprint(m.Number(), rpc.CodeOf(err))) })
		err := next(ctx, call)
		if got := fmt.Sprint(sent); got != "[0 internal 1 internal 2 ok]" {
			t.Errorf("OnSent saw %s", got)
		}
		return err
	}))
	r, err := watch(testContext(t), dial(t, nc), "x")
	must(t, err)
	if m, err := r.Recv(); err != nil || m.GetValue() != "b" {
		t.Errorf("%v, %v", m, err)
	}
	wantText(t, wantCode(t, <-errs, rpc.CodeUnknown, rpc.ExecutionMayHaveRun), "no")
	wantCode(t, <-errs, rpc.CodeInternal, rpc.ExecutionDidRun)
	wantText(t, <-errs, "the message does not encode")
	must(t, <-errs)
}
