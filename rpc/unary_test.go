package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

func TestUnary(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{do: func(_ context.Context, in string) (string, error) { return "hello " + in, nil }})
	for _, codec := range []rpc.Codec{rpc.CodecProto, rpc.CodecJSON} {
		for _, plain := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v plain=%v", codec, plain), func(t *testing.T) {
				opts := []rpc.ClientOption{rpc.WithCodec(codec)}
				if plain {
					opts = append(opts, rpc.WithPlainRequests())
				}
				got, err := do(testContext(t), dial(t, nc, opts...), "you")
				if err != nil || got != "hello you" {
					t.Fatalf("got %q, %v", got, err)
				}
			})
		}
	}
}

func TestMetadata(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{do: func(ctx context.Context, in string) (string, error) {
		call := rpc.CallFromContext(ctx)
		call.ResponseHeader().Set("echo", strings.Join(call.Header().Values("tenant"), ","))
		call.ResponseTrailer().Set("rows", "3")
		if in == "fail" {
			return "", rpc.Errorf(rpc.CodeNotFound, "nothing")
		}
		return call.Method(), nil
	}})
	for _, c := range []*rpc.Client{dial(t, nc, rpc.WithHeader("tenant", "all")), dial(t, nc, rpc.WithHeader("tenant", "all"), rpc.WithPlainRequests())} {
		for _, in := range []string{"ok", "fail"} {
			h, trailer := rpc.Header{"stale": {"x"}}, rpc.Header(nil)
			out, err := do(testContext(t), c, in, rpc.WithHeader("tenant", "äcme"), rpc.ResponseHeader(&h), rpc.ResponseTrailer(&trailer))
			if in == "ok" && out != "/test.v1.TestService/Do" || (in == "fail") != (err != nil) {
				t.Errorf("%s: got %q, %v", in, out, err)
			}
			if diff := cmp.Diff(rpc.Header{"echo": {"all,äcme"}}, h); diff != "" {
				t.Errorf("%s: response header: %s", in, diff)
			}
			if diff := cmp.Diff(rpc.Header{"rows": {"3"}}, trailer); diff != "" {
				t.Errorf("%s: trailer: %s", in, diff)
			}
		}
	}
}

func TestInvalidMetadata(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{do: func(ctx context.Context, in string) (string, error) {
		rpc.CallFromContext(ctx).ResponseHeader().Set("a b", "x")
		if in == "fail" {
			return "", rpc.Errorf(rpc.CodeNotFound, "nothing")
		}
		return in, nil
	}})
	c := dial(t, nc)
	for _, kv := range [][2]string{{"", "x"}, {"a b", "x"}, {"a:b", "x"}, {"Nats-Msg-Id", "x"}, {"status", "x"}, {"natscall-x", "x"}, {"k", "a\nb"}, {"k", " a"}, {"k", "\xff"}} {
		_, err := do(testContext(t), c, "x", rpc.WithHeader(kv[0], kv[1]))
		if e := wantCode(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun); !strings.Contains(e.Message(), "header") {
			t.Errorf("%q: %v does not name the header", kv, err)
		}
	}
	_, err := do(testContext(t), c, "ok")
	if e := wantCode(t, err, rpc.CodeInternal, rpc.ExecutionDidRun); !strings.Contains(e.Message(), `"a b"`) {
		t.Errorf("%v does not name the key", err)
	}
	_, err = do(testContext(t), c, "fail")
	wantCode(t, err, rpc.CodeNotFound, rpc.ExecutionDidRun)
}

func TestErrorsOfHandlers(t *testing.T) {
	detail := durationpb.New(3 * time.Second)
	inner := rpc.NewError(rpc.CodeFailedPrecondition, "out of stock", detail)
	tests := []struct {
		name    string
		err     error
		code    rpc.Code
		message string
		details []proto.Message
	}{
		{"coded", rpc.NewError(rpc.CodeNotFound, "no order 42"), rpc.CodeNotFound, "no order 42", nil},
		{"details", inner, rpc.CodeFailedPrecondition, "out of stock", []proto.Message{detail}},
		{"wrapped", fmt.Errorf("reserve: %w", inner), rpc.CodeFailedPrecondition, "reserve: out of stock", []proto.Message{detail}},
		{"stranger", errors.New("boom"), rpc.CodeUnknown, "boom", nil},
		{"empty", errors.New(""), rpc.CodeUnknown, "", nil},
		{"lines and quotes", errors.New("a\nb \"c\" ü \x00"), rpc.CodeUnknown, "a\nb \"c\" ü \x00", nil},
		{"not UTF-8", errors.New("a\xff"), rpc.CodeUnknown, "a\uFFFD", nil},
		{"cancelled", context.Canceled, rpc.CodeCanceled, "context canceled", nil},
		{"deadline", fmt.Errorf("db: %w", context.DeadlineExceeded), rpc.CodeDeadlineExceeded, "db: context deadline exceeded", nil},
		{"ok is no error", rpc.NewError(rpc.CodeOK, "x"), rpc.CodeInternal, "error with code ok: x", nil},
		{"no such code", rpc.NewError(99, "x"), rpc.CodeInternal, "error with code code_99: x", nil},
	}
	nc := rpctest.Connect(t)
	var fail error
	serve(t, nc, &funcs{do: func(context.Context, string) (string, error) { return "", fail }})
	clients := map[string]*rpc.Client{
		"envelope": dial(t, nc), "plain": dial(t, nc, rpc.WithPlainRequests()),
		"JSON": dial(t, nc, rpc.WithCodec(rpc.CodecJSON)), "plain JSON": dial(t, nc, rpc.WithPlainRequests(), rpc.WithCodec(rpc.CodecJSON)),
	}
	for _, test := range tests {
		for name, c := range clients {
			t.Run(test.name+"/"+name, func(t *testing.T) {
				fail = test.err
				_, err := do(testContext(t), c, "x")
				e := wantCode(t, err, test.code, rpc.ExecutionDidRun)
				if e.Message() != test.message || !e.Remote() {
					t.Errorf("message %q, remote %v; want %q", e.Message(), e.Remote(), test.message)
				}
				if diff := cmp.Diff(test.details, e.Details(), protocmp.Transform(), cmp.Transformer("len", emptyIsNil)); diff != "" {
					t.Errorf("details: %s", diff)
				}
				if errors.Is(err, context.Canceled) != (test.code == rpc.CodeCanceled) {
					t.Error("errors.Is(err, context.Canceled) does not agree with the code")
				}
			})
		}
	}
}

func emptyIsNil(m []proto.Message) int { return len(m) }

// TestBrokenHandlers: whatever a handler does, its caller gets a precise
// status at once, nothing of the server's inside, and the server goes on.
func TestBrokenHandlers(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{do: func(_ context.Context, in string) (string, error) {
		switch in {
		case "panic":
			panic("secret")
		case "panic(nil)":
			panic(nil) //nolint:govet // what it does is the question
		case "goexit":
			runtime.Goexit()
		}
		return in, nil // "nil" is a nil response
	}}, rpc.WithMaxConcurrency(2))
	c := dial(t, nc)
	for _, in := range []string{"panic", "panic(nil)", "goexit", "nil", "goexit", "goexit", "panic"} {
		_, err := do(testContext(t), c, in)
		if e := wantCode(t, err, rpc.CodeInternal, rpc.ExecutionDidRun); strings.Contains(e.Message(), "secret") {
			t.Errorf("%s: the panic's value crossed the wire: %v", in, e)
		}
	}
	if got, err := do(testContext(t), c, "still here"); err != nil || got != "still here" {
		t.Fatalf("after all that: %q, %v", got, err)
	}
}

func TestSizes(t *testing.T) {
	nc := rpctest.Connect(t)
	size := 0
	serve(t, nc, &funcs{blob: func(_ context.Context, b []byte) ([]byte, error) { return make([]byte, size), nil },
		do: func(_ context.Context, in string) (string, error) {
			return "", rpc.NewError(rpc.CodeAborted, strings.Repeat("x", 2<<20), wrapperspb.Bytes(make([]byte, 2<<20)))
		}}, rpc.WithMaxMessageSize(900<<10))
	c := dial(t, nc)
	small := dial(t, nc, rpc.WithMaxMessageSize(1000))
	ctx := testContext(t)
	for _, test := range []struct {
		name              string
		client            *rpc.Client
		request, response int
		execution         rpc.Execution
		text              string
	}{
		{"request over max_payload and the server's limit", c, 2 << 20, 0, rpc.ExecutionNotRun, "the limit is 921600"},
		{"response over the server's limit", c, 0, 2 << 20, rpc.ExecutionDidRun, "the limit is 921600"},
		{"request over the server's limit", c, 950 << 10, 0, rpc.ExecutionNotRun, "the limit is 921600"},
		{"request over the client's limit", small, 2000, 0, rpc.ExecutionNotRun, "the limit is 1000"},
		{"response over the client's limit", small, 0, 2000, rpc.ExecutionDidRun, "the limit is 1000"},
	} {
		t.Run(test.name, func(t *testing.T) {
			size = test.response
			_, err := testBlob.Call(ctx, test.client, wrapperspb.Bytes(make([]byte, test.request)))
			if e := wantCode(t, err, rpc.CodeResourceExhausted, test.execution); !strings.Contains(e.Message(), test.text) {
				t.Errorf("message %q lacks %q", e.Message(), test.text)
			}
		})
	}
	_, err := do(ctx, c, "an error over max_payload")
	if e := wantCode(t, err, rpc.CodeAborted, rpc.ExecutionDidRun); !strings.Contains(e.Message(), "shortened") || len(e.Details()) != 0 {
		t.Errorf("got %d bytes and %d details", len(e.Message()), len(e.Details()))
	}
}

// TestPlainOverMaxPayload is the case that plain NATS turns into a time-out.
func TestPlainOverMaxPayload(t *testing.T) {
	nc := rpctest.Connect(t)
	size := 2 << 20
	serve(t, nc, &funcs{blob: func(_ context.Context, b []byte) ([]byte, error) { return make([]byte, size), nil }})
	c := dial(t, nc, rpc.WithPlainRequests())
	_, err := testBlob.Call(testContext(t), c, wrapperspb.Bytes(nil))
	if e := wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionDidRun); !strings.Contains(e.Message(), "max_payload is 1048576") {
		t.Errorf("got %v", err)
	}
	_, err = testBlob.Call(testContext(t), c, wrapperspb.Bytes(make([]byte, size)))
	wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionNotRun)
}

// TestSlowHandlers: ten parallel calls of 100 ms take about 100 ms. That they
// all run at once is what is checked; clocks are not.
func TestSlowHandlers(t *testing.T) {
	nc := rpctest.Connect(t)
	var together sync.WaitGroup
	together.Add(10)
	serve(t, nc, &funcs{do: func(_ context.Context, in string) (string, error) {
		together.Done()
		together.Wait() // for the other nine
		return in, nil
	}})
	c := dial(t, nc)
	each(t, 10, func(int) error { _, err := do(testContext(t), c, "x"); return err })
}

// each runs f from n goroutines and reports the first error.
func each(t testing.TB, n int, f func(i int) error) {
	t.Helper()
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Go(func() { errs[i] = f(i) })
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("goroutine %d: %v", i, err)
		}
	}
}

// TestDeadline: the handler sees the caller's deadline minus the trip, from
// wherever the caller has it, and only relative time crosses the wire.
func TestDeadline(t *testing.T) {
	nc := rpctest.Connect(t)
	var left atomic.Int64
	seen := func(ctx context.Context) {
		d, _ := ctx.Deadline()
		left.Store(int64(time.Until(d)))
	}
	serve(t, nc, &funcs{do: func(ctx context.Context, in string) (string, error) { seen(ctx); return in, nil },
		object: nil})
	c := dial(t, nc, rpc.WithTimeout(40*time.Second))
	limited, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, test := range []struct {
		name string
		ctx  context.Context
		opts []rpc.CallOption
		want time.Duration
	}{
		{"the client's", context.Background(), nil, 40 * time.Second},
		{"the context's", limited, nil, 20 * time.Second},
		{"the call's", context.Background(), []rpc.CallOption{rpc.WithTimeout(5 * time.Second)}, 5 * time.Second},
		{"the earlier of context and call", limited, []rpc.CallOption{rpc.WithTimeout(time.Hour)}, 20 * time.Second},
	} {
		for _, plain := range []bool{false, true} {
			opts := test.opts
			if plain {
				opts = append(opts, rpc.WithPlainRequests())
			}
			if _, err := do(test.ctx, c, "x", opts...); err != nil {
				t.Fatalf("%s: %v", test.name, err)
			}
			if got := time.Duration(left.Load()); got > test.want || got < test.want/2 {
				t.Errorf("%s, plain %v: the handler had %v, want a little less than %v", test.name, plain, got, test.want)
			}
		}
	}
}

func TestDeadlineExceeded(t *testing.T) {
	nc := rpctest.Connect(t)
	ended := make(chan error, 10)
	serve(t, nc, &funcs{do: func(ctx context.Context, in string) (string, error) {
		<-ctx.Done()
		ended <- ctx.Err()
		return "", ctx.Err()
	}})
	c := dial(t, nc)
	calls := map[string]func() error{
		"by context": func() error {
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			_, err := do(ctx, c, "x")
			return err
		},
		"by option": func() error {
			_, err := do(context.Background(), c, "x", rpc.WithTimeout(50*time.Millisecond))
			return err
		},
	}
	for name, call := range calls {
		err := call()
		// The error is the caller's own, or the handler's, if that came first.
		if rpc.CodeOf(err) != rpc.CodeDeadlineExceeded {
			t.Errorf("%s: %v", name, err)
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: not a context.DeadlineExceeded", name)
		}
		if err := <-ended; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: the handler's context ended with %v", name, err)
		}
	}
	over, cancel := context.WithTimeout(context.Background(), -1)
	defer cancel()
	_, err := do(over, c, "x")
	wantCode(t, err, rpc.CodeDeadlineExceeded, rpc.ExecutionNotRun)
}

// TestCancel: the handler's context ends when the caller's does, on whichever replica runs it.
func TestCancel(t *testing.T) {
	srv := rpctest.NewServer(t)
	running, ended := make(chan struct{}), make(chan error)
	impl := &funcs{do: func(ctx context.Context, in string) (string, error) {
		running <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return "", ctx.Err()
	}}
	for range 3 {
		serve(t, srv.Connect(), impl)
	}
	c := dial(t, srv.Connect())
	for range 20 {
		ctx, cancel := context.WithCancel(testContext(t))
		result := make(chan error, 1)
		go func() { _, err := do(ctx, c, "x"); result <- err }()
		<-running
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Fatalf("the handler's context ended with %v", err)
		}
		err := <-result
		wantCode(t, err, rpc.CodeCanceled, rpc.ExecutionMayHaveRun)
	}
}

// TestCancelAtRandom: whatever the moment, no handler is left running, although
// a cancel and its request come through two subscriptions.
func TestCancelAtRandom(t *testing.T) {
	srv := rpctest.NewServer(t)
	var running atomic.Int64
	impl := &funcs{do: func(ctx context.Context, in string) (string, error) {
		running.Add(1)
		defer running.Add(-1)
		<-ctx.Done()
		return "", ctx.Err()
	}}
	servers := []*rpc.Server{newTestServer(t, srv.Connect(), impl), newTestServer(t, srv.Connect(), impl)}
	c := dial(t, srv.Connect())
	each(t, 500, func(i int) error {
		ctx, cancel := context.WithCancel(testContext(t))
		time.AfterFunc(time.Duration(i)*5*time.Microsecond, cancel)
		_, err := do(ctx, c, "x")
		if rpc.CodeOf(err) != rpc.CodeCanceled {
			return fmt.Errorf("error is %w, not cancelled", err)
		}
		return nil
	})
	for _, s := range servers { // waits for all handlers, whose deadline is a minute away
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Fatalf("%d handlers still run: %v", running.Load(), err)
		}
	}
}

func TestOneWay(t *testing.T) {
	nc := rpctest.Connect(t)
	got := make(chan string, 1)
	serve(t, nc, &funcs{note: noteID(got)})
	watcher, err := nc.SubscribeSync("notes.new")
	must(t, err)
	for name, c := range map[string]*rpc.Client{"protobuf": dial(t, nc), "json": dial(t, nc, rpc.WithCodec(rpc.CodecJSON))} {
		if err := testNote.Call(testContext(t), c, object("id", name)); err != nil {
			t.Fatal(err)
		}
		if id := <-got; id != name {
			t.Errorf("the handler got %q, want %q", id, name)
		}
		m, err := watcher.NextMsg(10 * time.Second)
		must(t, err)
		if name == "json" && string(m.Data) != `{"id":"json"}` {
			t.Errorf("subscribers read %s", m.Data)
		}
	}
	must(t, nc.Publish("notes.new", []byte(`{"id":"by hand"}`)))
	if id := <-got; id != "by hand" {
		t.Errorf("the handler got %q", id)
	}
}

func TestInvalidCalls(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{})
	ctx := testContext(t)
	ok := dial(t, nc)
	closed := rpc.NewClient(nc)
	_, err := do(ctx, closed, "x")
	must(t, err)
	must(t, closed.Close())
	must(t, closed.Close())
	for _, test := range []struct {
		name   string
		client *rpc.Client
		opts   []rpc.CallOption
		code   rpc.Code
		text   string
	}{
		{"client option", dial(t, nc, rpc.WithTimeout(-1)), nil, rpc.CodeInvalidArgument, "WithTimeout(-1ns)"},
		{"nil client option", dial(t, nc, nil), nil, rpc.CodeInvalidArgument, "option is nil"},
		{"prefix", dial(t, nc, rpc.WithSubjectPrefix("a..b")), nil, rpc.CodeInvalidArgument, `"a..b"`},
		{"limit", dial(t, nc, rpc.WithMaxMessageSize(0)), nil, rpc.CodeInvalidArgument, "WithMaxMessageSize(0)"},
		{"batch", dial(t, nc, rpc.WithBatching(0)), nil, rpc.CodeInvalidArgument, "WithBatching(0)"},
		{"interceptor", dial(t, nc, rpc.WithInterceptors(nil)), nil, rpc.CodeInvalidArgument, "WithInterceptors"},
		{"codec", ok, []rpc.CallOption{rpc.WithCodec(9)}, rpc.CodeInvalidArgument, "codec_9"},
		{"timeout", ok, []rpc.CallOption{rpc.WithTimeout(0)}, rpc.CodeInvalidArgument, "WithTimeout(0s)"},
		{"nil option", ok, []rpc.CallOption{nil}, rpc.CodeInvalidArgument, "option is nil"},
		{"nil connection", rpc.NewClient(nil), nil, rpc.CodeInvalidArgument, "connection is nil"},
		{"closed client", closed, nil, rpc.CodeCanceled, "closed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := do(ctx, test.client, "x", test.opts...)
			if e := wantCode(t, err, test.code, rpc.ExecutionNotRun); !strings.Contains(e.Message(), test.text) {
				t.Errorf("%v lacks %q", err, test.text)
			}
		})
	}
	_, err = testDo.Call(ctx, ok, nil)
	wantCode(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun)
}

// TestCloseEndsCalls: a closed client leaves nobody waiting.
func TestCloseEndsCalls(t *testing.T) {
	nc := rpctest.Connect(t)
	running := make(chan struct{}, 8)
	serve(t, nc, &funcs{do: func(ctx context.Context, in string) (string, error) {
		running <- struct{}{}
		<-ctx.Done()
		return "", ctx.Err()
	}}, rpc.WithTimeout(time.Second))
	c := rpc.NewClient(nc)
	results := make(chan error, 8)
	for range 8 {
		go func() { _, err := do(context.Background(), c, "x", rpc.WithTimeout(2*time.Second)); results <- err }()
	}
	for range 8 {
		<-running
	}
	must(t, c.Close())
	for range 8 {
		wantCode(t, <-results, rpc.CodeCanceled, rpc.ExecutionMayHaveRun)
	}
	if n := nc.NumSubscriptions(); n == 0 {
		t.Error("the server's subscriptions are gone with the client's")
	}
}

func TestCustomInboxPrefix(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{})
	nc := srv.Connect(nats.CustomInboxPrefix("_INBOX_alice"))
	conn := srv.Connect()
	watcher, err := conn.SubscribeSync("_INBOX_alice.>")
	must(t, err)
	must(t, watcher.SetPendingLimits(10, -1))
	must(t, conn.Flush())
	_, err = do(testContext(t), dial(t, nc), "x")
	must(t, err)
	if _, err := watcher.NextMsg(10 * time.Second); err != nil {
		t.Errorf("the reply did not come through the custom inbox: %v", err)
	}
}

// slowText is a message whose encoding takes long: longer than the timeout of other calls.
type slowText struct{ wrapperspb.StringValue }

func (*slowText) SizeVT() int {
	<-time.After(100 * time.Millisecond)
	return 0
}

func (*slowText) MarshalToSizedBufferVT([]byte) (int, error) { return 0, nil }

// TestTimeoutOfLateCall: a call that begins before others have timed out, and waits with what they
// have waited with, times out too.
func TestTimeoutOfLateCall(t *testing.T) {
	desc := testDesc
	slow := rpc.NewUnaryMethod[slowText, text](&desc, rpc.MethodDesc{Name: "Do"})
	goOn := make(chan struct{})
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{do: func(context.Context, string) (string, error) { <-goOn; return "", nil }})
	defer close(goOn)
	c := dial(t, nc)
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			_, err := do(context.Background(), c, "", rpc.WithTimeout(30*time.Millisecond), rpc.WithoutRetry())
			if code := rpc.CodeOf(err); code != rpc.CodeDeadlineExceeded {
				t.Errorf("the call ended with %v", err)
			}
		})
		all.Go(func() {
			_, err := slow.Call(context.Background(), c, &slowText{}, rpc.WithTimeout(300*time.Millisecond), rpc.WithoutRetry())
			if code := rpc.CodeOf(err); code != rpc.CodeDeadlineExceeded {
				t.Errorf("the call ended with %v", err)
			}
		})
	}
	ended := make(chan struct{})
	go func() { all.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		calls, _ := c.CallsInFlight()
		t.Errorf("%d calls have not timed out", calls)
	}
}
