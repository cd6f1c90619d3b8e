package rpc_test

import (
	"context"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestUntoldErrorsAreLogged: what becomes of a message whose sender waits for no answer
// is in the log, of a flood of them a line now and then with the number of the others.
func TestUntoldErrorsAreLogged(t *testing.T) {
	for _, test := range []struct {
		name, subject, body, want string
		opts                      []rpc.ServerOption
	}{
		{"handler's error", "notes.new", `{"fail":true}`, "no such note", nil},
		{"panic", "notes.new", `{"panic":true}`, "the handler panicked", nil},
		{"not JSON", "notes.new", `{"id":`, "not a valid google.protobuf.Struct in json", nil},
		{"not Protobuf", "notes.new", "\x0a\x05ab", "not a valid google.protobuf.Struct in protobuf", nil},
		{"content type", "notes.new", "type", "text/plain", nil},
		{"too large", "notes.new", `{"id":"` + strings.Repeat("x", 100) + `"}`, "WithMaxMessageSize", []rpc.ServerOption{rpc.WithMaxMessageSize(100)}},
		{"interceptor", "notes.new", `{}`, "who are you?", []rpc.ServerOption{rpc.WithInterceptors(func(context.Context, *rpc.Call, rpc.Next) error {
			return rpc.Errorf(rpc.CodeUnauthenticated, "who are you?")
		})}},
		{"unary", doSubject, "\xff", "not a valid google.protobuf.StringValue", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			nc := rpctest.Connect(t)
			logger, log := newLog()
			s := serve(t, nc, &funcs{note: func(_ context.Context, n *structpb.Struct) error {
				switch {
				case n.GetFields()["fail"].GetBoolValue():
					return rpc.Errorf(rpc.CodeNotFound, "no such note")
				case n.GetFields()["panic"].GetBoolValue():
					panic("note")
				}
				return nil
			}}, append(test.opts, logger)...)
			const messages = 200
			for range messages {
				m := nats.NewMsg(test.subject)
				if m.Data = []byte(test.body); test.body == "type" {
					m.Header.Set("Content-Type", "text/plain")
				}
				must(t, nc.PublishMsg(m))
			}
			until(t, "all are served", func() bool {
				calls := 0
				for _, e := range statsOf(t, nc, 1)[0].Endpoints {
					calls += e.NumRequests
				}
				return calls == messages && s.Open() == 0
			})
			lines := untoldLines(log.String())
			if len(lines) == 0 || !strings.Contains(lines[0], test.want) || !strings.Contains(lines[0], "method=/test.v1.TestService/") {
				t.Fatalf("the log is %.2000s", log)
			}
			if all := strings.Count(log.String(), "\n"); all > messages/4 {
				t.Errorf("%d lines, %d about these messages", all, len(lines))
			}
		})
	}
}

// untoldLines are the lines of a log about messages that nobody is told of.
func untoldLines(log string) (lines []string) {
	for line := range strings.Lines(log) {
		if strings.Contains(line, "nobody waits for an answer") {
			lines = append(lines, line)
		}
	}
	return lines
}

// TestUnloggedAreCounted: the next line says how many were left out.
func TestUnloggedAreCounted(t *testing.T) {
	nc := rpctest.Connect(t)
	logger, log := newLog()
	serve(t, nc, &funcs{}, logger)
	sent, unlogged := 0, regexp.MustCompile(`unlogged=(\d+)`)
	until(t, "a second line", func() bool {
		sent++
		must(t, nc.Publish("notes.new", []byte("{")))
		must(t, nc.Flush())
		return len(untoldLines(log.String())) == 2
	})
	n, err := strconv.Atoi(unlogged.FindStringSubmatch(untoldLines(log.String())[1])[1])
	if err != nil || n == 0 || n > sent-2 {
		t.Errorf("%d of %d are said to be left out, %v", n, sent, err)
	}
}
