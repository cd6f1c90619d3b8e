package rpc_test

import (
	"context"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// askMany sends a plain request to a server stream and reads the answers as a
// client does that knows ADR-47: until a message that has no body and is not marked as one.
func askMany(t *testing.T, nc *nats.Conn, body []byte, header nats.Header) (messages []*nats.Msg, end *nats.Msg) {
	t.Helper()
	sub, err := nc.SubscribeSync(nc.NewInbox())
	must(t, err)
	defer func() { must(t, sub.Unsubscribe()) }()
	must(t, nc.PublishMsg(&nats.Msg{Subject: testRoot + ".Watch", Reply: sub.Subject, Data: body, Header: header}))
	for {
		m, err := sub.NextMsg(10 * time.Second)
		must(t, err)
		if m.Header.Get("Nats-Service-Error-Code") != "" {
			return messages, m
		}
		if len(m.Data) == 0 && m.Header.Get("Natscall-Message") != "1" {
			t.Fatalf("message %d has no body and no mark: %v", len(messages), m.Header)
		}
		messages = append(messages, m)
	}
}

func TestPlainStream(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{watch: func(ctx context.Context, req string, to *rpc.Sender[*text]) error {
		rpc.CallFromContext(ctx).ResponseTrailer().Set("rows", "3")
		must(t, to.Send(wrapperspb.String(""))) // nothing, in Protobuf
		return count(ctx, req, to)
	}})
	nc := srv.Connect()
	unmarshal := map[string]func([]byte, proto.Message) error{"application/protobuf": proto.Unmarshal, "application/json": protojson.Unmarshal}
	for kind, decode := range unmarshal {
		for _, req := range []string{"0", "3", "1000", "3 enough"} {
			t.Run(kind+" "+req, func(t *testing.T) {
				body := encode(t, wrapperspb.String(req))
				if kind == "application/json" {
					body = []byte(strconv.Quote(req))
				}
				messages, end := askMany(t, nc, body, contentType(kind))
				for i, m := range messages {
					var got text
					must(t, decode(m.Data, &got))
					if want := []string{"", strconv.Itoa(i - 1)}[min(i, 1)]; got.GetValue() != want {
						t.Fatalf("message %d is %q", i, got.GetValue())
					}
				}
				n, fail, _ := strings.Cut(req, " ")
				if want, _ := strconv.Atoi(n); len(messages) != 1+want {
					t.Errorf("%d messages came", len(messages))
				}
				if got := end.Header.Get("Natscall-Trailer-rows"); got != "3" {
					t.Errorf("the trailer of the end is %v", end.Header)
				}
				checkPlainEnd(t, end, fail)
			})
		}
	}
}

func checkPlainEnd(t *testing.T, end *nats.Msg, fail string) {
	t.Helper()
	if fail == "" {
		if code := end.Header.Get("Nats-Service-Error-Code"); code != "0" || len(end.Data) != 0 {
			t.Errorf("the end is %v, %d bytes", end.Header, len(end.Data))
		}
		return
	}
	if s := plainStatus(t, end, rpc.CodeAborted); s.GetMessage() != fail {
		t.Errorf("the status is %v", s)
	}
}

// TestPlainStreamErrors: what ends a plain stream with an error, before and after messages.
func TestPlainStreamErrors(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{watch: func(ctx context.Context, req string, to *rpc.Sender[*text]) error {
		switch req {
		case "large":
			return to.Send(wrapperspb.String(strings.Repeat("x", 2<<20)))
		case "panic":
			panic(req)
		case "wait":
			<-ctx.Done()
			return ctx.Err()
		}
		return to.Send(hello)
	}}, rpc.WithMaxMessageSize(8<<20))
	nc := srv.Connect()
	for _, test := range []struct {
		name, req string
		header    nats.Header
		want      rpc.Code
	}{
		{"larger than max_payload", "large", nil, rpc.CodeResourceExhausted},
		{"panic", "panic", nil, rpc.CodeInternal},
		{"timeout", "wait", nats.Header{"Natscall-Timeout": {"50"}}, rpc.CodeDeadlineExceeded},
		{"bad timeout", "x", nats.Header{"Natscall-Timeout": {"soon"}}, rpc.CodeInvalidArgument},
		{"bad codec", "x", contentType("text/xml"), rpc.CodeInvalidArgument},
	} {
		t.Run(test.name, func(t *testing.T) {
			messages, end := askMany(t, nc, encode(t, wrapperspb.String(test.req)), test.header)
			if len(messages) != 0 || rpc.Code(atoi(t, end.Header.Get("Nats-Service-Error-Code"))) != test.want {
				t.Errorf("%d messages, %v", len(messages), end.Header)
			}
		})
	}
	_, end := askMany(t, nc, []byte("\xff"), nil)
	plainStatus(t, end, rpc.CodeInvalidArgument)
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	must(t, err)
	return n
}

// TestPlainStreamToItself: one that has no reply subject is bounded, and one to the service itself
// is refused, as each of its messages would be the next request.
func TestPlainStreamToItself(t *testing.T) {
	srv := rpctest.NewServer(t)
	var ran atomic.Int32
	done := make(chan error, 1)
	serve(t, srv.Connect(), &funcs{watch: func(_ context.Context, _ string, to *rpc.Sender[*text]) error {
		ran.Add(1)
		for {
			if err := to.Send(hello); err != nil {
				done <- err
				return err
			}
		}
	}}, rpc.WithPlainStreamLimits(10_000, time.Minute))
	nc := srv.Connect()
	must(t, nc.Publish(testRoot+".Watch", nil))
	wantText(t, wantCode(t, <-done, rpc.CodeResourceExhausted, rpc.ExecutionDidRun), "WithPlainStreamLimits")
	for _, reply := range []string{".Watch", ".Do", "._all.alive", "._i.x.y"} {
		must(t, nc.PublishRequest(testRoot+".Watch", testRoot+reply, nil))
	}
	must(t, nc.Flush())
	_, err := nc.Request(testRoot+".Do", nil, 5*time.Second)
	must(t, err)
	if n := ran.Load(); n != 1 {
		t.Errorf("the handler ran %d times", n)
	}
}

// TestPlainStreamWithoutReply runs, for its effects.
func TestPlainStreamWithoutReply(t *testing.T) {
	srv := rpctest.NewServer(t)
	done := make(chan error, 1)
	serve(t, srv.Connect(), &funcs{watch: func(_ context.Context, _ string, to *rpc.Sender[*text]) error {
		err := to.Send(hello)
		done <- err
		return err
	}})
	must(t, srv.Connect().Publish(testRoot+".Watch", nil))
	must(t, wantEnd(t, done))
}
