package rpc_test

import (
	"context"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// everyShape are calls of each shape of method with the same options; each runs to its end.
func everyShape(ctx context.Context, c *rpc.Client, opts ...rpc.CallOption) map[string]func() error {
	return map[string]func() error{
		"unary":   func() error { _, err := do(ctx, c, "x", opts...); return err },
		"one-way": func() error { return testNote.Call(ctx, c, &structpb.Struct{}, opts...) },
		"server stream": func() error {
			s, err := testWatch.Call(ctx, c, wrapperspb.String("x"), opts...)
			if err != nil {
				return err
			}
			defer s.Close()
			_, err = s.Recv()
			return err
		},
		"client stream": func() error {
			s, err := testGather.Call(ctx, c, opts...)
			if err != nil {
				return err
			}
			defer s.Close()
			_, err = s.CloseAndRecv()
			return err
		},
		"bidirectional stream": func() error {
			s, err := testChat.Call(ctx, c, opts...)
			if err != nil {
				return err
			}
			defer s.Close()
			s.CloseSend()
			if _, err = s.Recv(); err == io.EOF {
				return nil
			}
			return err
		},
	}
}

// TestLargestValues: an option takes every value of its type that is large enough, and what is
// more than there can be means "all". No sum or product of it overflows.
func TestLargestValues(t *testing.T) {
	const forEver = time.Duration(math.MaxInt64)
	sides := map[string]struct {
		client []rpc.ClientOption
		server []rpc.ServerOption
	}{
		"WithMaxMessageSize":    {[]rpc.ClientOption{rpc.WithMaxMessageSize(math.MaxInt)}, []rpc.ServerOption{rpc.WithMaxMessageSize(math.MaxInt)}},
		"WithHeartbeat":         {[]rpc.ClientOption{rpc.WithHeartbeat(forEver)}, []rpc.ServerOption{rpc.WithHeartbeat(forEver)}},
		"WithTimeout":           {[]rpc.ClientOption{rpc.WithTimeout(forEver)}, []rpc.ServerOption{rpc.WithTimeout(forEver)}},
		"WithBatching":          {[]rpc.ClientOption{rpc.WithBatching(math.MaxInt)}, nil},
		"WithMaxConcurrency":    {nil, []rpc.ServerOption{rpc.WithMaxConcurrency(math.MaxInt)}},
		"WithMaxQueue":          {nil, []rpc.ServerOption{rpc.WithMaxQueue(math.MaxInt)}},
		"WithMaxStreams":        {nil, []rpc.ServerOption{rpc.WithMaxStreams(math.MaxInt)}},
		"WithGracePeriod":       {nil, []rpc.ServerOption{rpc.WithGracePeriod(forEver)}},
		"WithPlainStreamLimits": {nil, []rpc.ServerOption{rpc.WithPlainStreamLimits(math.MaxInt, forEver)}},
	}
	all := sides["WithTimeout"]
	for _, side := range sides {
		all.client, all.server = append(all.client, side.client...), append(all.server, side.server...)
	}
	sides["all"] = all
	for name, side := range sides {
		t.Run(name, func(t *testing.T) {
			srv := rpctest.NewServer(t)
			serve(t, srv.Connect(), &funcs{}, side.server...)
			nc := srv.Connect()
			for _, compression := range []rpc.Compression{rpc.CompressionNone, rpc.CompressionGzip, rpc.CompressionZstd} {
				c := dial(t, nc, append(side.client, rpc.WithCompression(compression))...)
				for shape, call := range everyShape(testContext(t), c) {
					if err := call(); err != nil {
						t.Errorf("%v, %s: %v", compression, shape, err)
					}
				}
				for _, size := range []int{0, 4000, 1<<20 + 1} { // the last one is sent as a stream
					in := strings.Repeat("x", size)
					if out, err := do(context.Background(), c, in); err != nil || out != in {
						t.Errorf("%v: %d of %d bytes came back: %v", compression, len(out), size, err)
					}
				}
			}
			if m := ask(t, nc, doSubject, []byte(`"x"`), contentType("application/json")); string(m.Data) != `"x"` {
				t.Errorf("a plain request is answered %q %v", m.Data, m.Header)
			}
			if messages, end := askMany(t, nc, nil, nil); len(messages) != 1 {
				t.Errorf("a plain stream has %d messages and the end %v", len(messages), end.Header)
			}
		})
	}
}

// TestLargestTimeouts: a deadline that is centuries away arrives as one.
func TestLargestTimeouts(t *testing.T) {
	nc := rpctest.Connect(t)
	left := make(chan time.Duration, 1)
	serve(t, nc, &funcs{do: func(ctx context.Context, in string) (string, error) {
		deadline, _ := ctx.Deadline()
		left <- time.Until(deadline)
		return in, ctx.Err()
	}})
	const forEver, century = time.Duration(math.MaxInt64), 100 * 365 * 24 * time.Hour
	far, cancel := context.WithTimeout(context.Background(), forEver)
	defer cancel()
	for name, call := range map[string]func() error{
		"call": func() error {
			_, err := do(context.Background(), dial(t, nc), "x", rpc.WithTimeout(forEver))
			return err
		},
		"client": func() error {
			_, err := do(context.Background(), dial(t, nc, rpc.WithTimeout(forEver)), "x")
			return err
		},
		"context": func() error { _, err := do(far, dial(t, nc), "x"); return err },
	} {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		} else if got := <-left; got < century {
			t.Errorf("%s: the handler has %v", name, got)
		}
	}
	// A plain request is bounded; see TestPlainTimeout.
	if _, err := do(far, dial(t, nc, rpc.WithPlainRequests()), "x"); err != nil || <-left <= 0 {
		t.Errorf("plain: %v", err)
	}
}

// badClientOptions are the bad values of each option of a client, with what the error says.
var badClientOptions = []struct {
	text string
	bad  rpc.ClientOption
	good rpc.ClientOption
}{
	{"WithTimeout(0s)", rpc.WithTimeout(0), rpc.WithTimeout(time.Second)},
	{"WithTimeout(-1ns)", rpc.WithTimeout(-1), rpc.WithTimeout(time.Second)},
	{"WithSubjectPrefix", rpc.WithSubjectPrefix("a b"), rpc.WithSubjectPrefix("a")},
	{"WithSubjectPrefix", rpc.WithSubjectPrefix("a..b"), rpc.WithSubjectPrefix("")},
	{"WithSubjectPrefix", rpc.WithSubjectPrefix("a.>"), rpc.WithSubjectPrefix("a.b")},
	{`WithSubjectPrefix: prefix "{tenant}" has the token "{tenant}", but natscall has no placeholders`, rpc.WithSubjectPrefix("{tenant}"), rpc.WithSubjectPrefix("a.$b")},
	{"WithInterceptors: number 1", rpc.WithInterceptors(passOn, nil), rpc.WithInterceptors(passOn)},
	{"WithMaxMessageSize(0)", rpc.WithMaxMessageSize(0), rpc.WithMaxMessageSize(1000)},
	{"WithMaxMessageSize(-", rpc.WithMaxMessageSize(math.MinInt), rpc.WithMaxMessageSize(1000)},
	{"WithMaxSendSize(0)", rpc.WithMaxSendSize(0), rpc.WithMaxSendSize(1000)},
	{"WithMaxReceiveSize(0)", rpc.WithMaxReceiveSize(0), rpc.WithMaxReceiveSize(1000)},
	{"WithHeartbeat(0s)", rpc.WithHeartbeat(0), rpc.WithHeartbeat(time.Second)},
	{"WithHeartbeat(-2562047h", rpc.WithHeartbeat(math.MinInt64), rpc.WithHeartbeat(time.Second)},
	{"WithHeartbeat(999µs)", rpc.WithHeartbeat(999 * time.Microsecond), rpc.WithHeartbeat(time.Millisecond)},
	{"WithBatching(0)", rpc.WithBatching(0), rpc.WithBatching(1)},
	{"WithCodec(codec_2)", rpc.WithCodec(2), rpc.WithCodec(rpc.CodecJSON)},
	{"WithCompression(3)", rpc.WithCompression(3), rpc.WithCompression(rpc.CompressionGzip)},
	{"WithHeader: ", rpc.WithHeader("a b", "x"), rpc.WithHeader("a", "x")},
	{"WithHeader: ", rpc.WithHeader("a", "x\n"), rpc.WithHeader("a", "x")},
	{"an option is nil", nil, rpc.WithoutRetry()},
}

func passOn(ctx context.Context, call *rpc.Call, next rpc.Next) error { return next(ctx, call) }

// badCallOptions are the same for a call.
var badCallOptions = []struct {
	text string
	bad  rpc.CallOption
	good rpc.CallOption
}{
	{"WithTimeout(0s)", rpc.WithTimeout(0), rpc.WithTimeout(time.Second)},
	{"WithTimeout(-2562047h", rpc.WithTimeout(math.MinInt64), rpc.WithTimeout(time.Second)},
	{"WithCodec(codec_255)", rpc.WithCodec(255), rpc.WithCodec(rpc.CodecProto)},
	{"WithCompression(255)", rpc.WithCompression(255), rpc.WithCompression(rpc.CompressionNone)},
	{"WithHeader: ", rpc.WithHeader("", "x"), rpc.WithHeader("a", "x")},
	{"WithHeader: ", rpc.WithHeader("Nats-Msg-Id", "x"), rpc.WithHeader("a", "x")},
	{"an option is nil", nil, rpc.WithoutRetry()},
}

// TestBadOptionValues: a bad value is never used. It fails every call at once, also where
// nobody serves, with an error that names the option.
func TestBadOptionValues(t *testing.T) {
	nc := rpctest.Connect(t)
	check := func(t *testing.T, calls map[string]func() error, text string) {
		t.Helper()
		for shape, call := range calls {
			if e := wantCode(t, call(), rpc.CodeInvalidArgument, rpc.ExecutionNotRun); !strings.Contains(e.Message(), text) {
				t.Errorf("%s: %v does not say %q", shape, e, text)
			}
		}
	}
	ctx := testContext(t)
	for i, test := range badClientOptions {
		t.Run(fmt.Sprintf("client %d %s", i, test.text), func(t *testing.T) {
			for _, opts := range [][]rpc.ClientOption{{test.bad}, {test.bad, test.good}, {test.good, test.bad}, {test.bad, rpc.WithInterceptors(passOn)}} {
				check(t, everyShape(ctx, dial(t, nc, opts...)), test.text)
			}
		})
	}
	for i, test := range badCallOptions {
		t.Run(fmt.Sprintf("call %d %s", i, test.text), func(t *testing.T) {
			for _, c := range []*rpc.Client{dial(t, nc), dial(t, nc, rpc.WithInterceptors(passOn))} {
				for _, opts := range [][]rpc.CallOption{{test.bad}, {test.bad, test.good}, {test.good, test.bad}} {
					check(t, everyShape(ctx, c, opts...), test.text)
				}
			}
		})
	}
	t.Run("call, of unary calls only", func(t *testing.T) {
		c, h := dial(t, nc), rpc.Header{}
		for text, opt := range map[string]rpc.CallOption{"rpc.ResponseHeader": rpc.ResponseHeader(&h), "rpc.ResponseTrailer": rpc.ResponseTrailer(&h)} {
			calls := everyShape(ctx, c, opt)
			delete(calls, "unary")
			delete(calls, "one-way")
			check(t, calls, text)
		}
	})
}

// TestBadServerOptionValues: the same for servers and services.
func TestBadServerOptionValues(t *testing.T) {
	nc := rpctest.Connect(t)
	reserved := map[string]string{"natscall.service": "x"}
	for i, test := range []struct {
		text    string
		server  rpc.ServerOption
		service rpc.ServiceOption // likewise, where it is one
	}{
		{"WithTimeout(0s)", rpc.WithTimeout(0), nil},
		{`WithSubjectPrefix: prefix "a b" has`, rpc.WithSubjectPrefix("a b"), nil},
		{`WithSubjectPrefix: prefix "{tenant}" has the token`, rpc.WithSubjectPrefix("{tenant}"), nil},
		{"WithInterceptors: number 0", rpc.WithInterceptors(nil), nil},
		{"WithMaxMessageSize(0)", rpc.WithMaxMessageSize(0), nil},
		{"WithHeartbeat(0s)", rpc.WithHeartbeat(0), nil},
		{"WithLogger", rpc.WithLogger(nil), nil},
		{"WithGracePeriod(-1ns)", rpc.WithGracePeriod(-1), nil},
		{"WithPlainStreamLimits(-1)", rpc.WithPlainStreamLimits(-1, time.Second), nil},
		{"WithPlainStreamLimits(1, -1s)", rpc.WithPlainStreamLimits(1, -time.Second), nil},
		{"WithMaxConcurrency(0)", rpc.WithMaxConcurrency(0), rpc.WithMaxConcurrency(0)},
		{"WithMaxConcurrency(-", rpc.WithMaxConcurrency(math.MinInt), rpc.WithMaxConcurrency(math.MinInt)},
		{"WithMaxStreams(0)", rpc.WithMaxStreams(0), rpc.WithMaxStreams(0)},
		{"WithMaxQueue(-1)", rpc.WithMaxQueue(-1), rpc.WithMaxQueue(-1)},
		{"WithMethodInterceptors(nil)", rpc.WithMethodInterceptors(nil), rpc.WithMethodInterceptors(nil)},
		{"WithQueueGroup", rpc.WithQueueGroup(""), rpc.WithQueueGroup("")},
		{`WithQueueGroup: queue group "a b" has`, rpc.WithQueueGroup("a b"), rpc.WithQueueGroup("a b")},
		{`WithServiceMetadata: metadata key "natscall.service" starts`, rpc.WithServiceMetadata(reserved), rpc.WithServiceMetadata(reserved)},
	} {
		t.Run(fmt.Sprintf("%d %s", i, test.text), func(t *testing.T) {
			for _, opts := range [][]rpc.ServerOption{{test.server}, {test.server, rpc.WithMaxQueue(1)}, {rpc.WithMaxQueue(1), test.server}} {
				s := rpc.NewServer(nc, opts...)
				wantText(t, registerTest(s, &funcs{}), test.text)
				wantText(t, s.Start(testContext(t)), test.text)
				wantText(t, s.Run(testContext(t)), test.text)
				shutdown(t, s)
			}
			if test.service != nil {
				s := rpc.NewServer(nc)
				wantText(t, registerTest(s, &funcs{}, rpc.WithMaxQueue(1), test.service), test.text)
				wantText(t, registerTest(s, &funcs{}, test.service, rpc.WithMaxQueue(1)), test.text)
			}
		})
	}
}

// TestBadOptionsReachNobody: a client with a bad option does not even subscribe.
func TestBadOptionsReachNobody(t *testing.T) {
	srv := rpctest.NewServer(t)
	nc, watcher := srv.Connect(), srv.Connect()
	all, err := watcher.SubscribeSync(">")
	must(t, err)
	must(t, watcher.Flush())
	for _, test := range badClientOptions {
		c := rpc.NewClient(nc, test.bad)
		for _, call := range everyShape(testContext(t), c) {
			_ = call()
		}
		must(t, c.Close())
	}
	must(t, nc.Publish("last", nil))
	must(t, nc.Flush())
	m, err := all.NextMsgWithContext(testContext(t))
	if err != nil || m.Subject != "last" || nc.NumSubscriptions() != 0 {
		t.Errorf("%v came (%v), and there are %d subscriptions", m, err, nc.NumSubscriptions())
	}
}
