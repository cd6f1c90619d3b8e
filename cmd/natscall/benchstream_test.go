package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// talkFile is a service with streams from the client.
const talkFile = `
	message Word { bytes text = 1; }
	service Talk {
		rpc Collect(stream Word) returns (Word);
		rpc Echo(stream Word) returns (stream Word);
		rpc Fail(stream Word) returns (stream Word);
		rpc Stop(stream Word) returns (stream Word);
		rpc Wait(stream Word) returns (stream Word);
	}`

// talk serves the methods: Collect and Echo read all, Fail and Stop end after three messages, and
// Wait reads nothing until its call ends.
func talk(t *testing.T) *console {
	t.Helper()
	server := rpctest.NewServer(t)
	srv := rpc.NewServer(server.Connect(), rpc.WithLogger(slog.New(slog.DiscardHandler)))
	three := func(end error) func(context.Context, *rpc.Stream) error {
		return func(_ context.Context, s *rpc.Stream) error {
			for range 3 {
				if err := s.Recv(new(rpc.Raw)); err != nil {
					return err
				}
			}
			return end
		}
	}
	serveSource(t, srv, "talk.v1", "1.0.0", talkFile, handlers{
		"Collect": func(_ context.Context, s *rpc.Stream) error {
			if err := echo(s, false); err != nil {
				return err
			}
			return s.Send(&rpc.Raw{Data: []byte("\x0a\x03end")})
		},
		"Echo": func(_ context.Context, s *rpc.Stream) error { return echo(s, true) },
		"Fail": three(rpc.NewError(rpc.CodeAborted, "three are enough")),
		"Stop": three(nil),
		"Wait": func(ctx context.Context, _ *rpc.Stream) error {
			<-ctx.Done()
			return ctx.Err()
		},
	})
	startServer(t, srv)
	return &console{t, nil, server.URL()}
}

// echo reads to the end, and sends what it has read.
func echo(s *rpc.Stream, back bool) error {
	for {
		m := new(rpc.Raw)
		if err := s.Recv(m); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if !back {
			continue
		}
		if err := s.Send(m); err != nil {
			return err
		}
	}
}

// TestBenchStreams: of a stream that the client sends the messages of both directions are counted,
// and it leaves nothing behind however it ends. The large messages are more than a window, so that
// what sends has to wait for what receives.
func TestBenchStreams(t *testing.T) {
	t.Parallel()
	c := talk(t)
	word, long := `{"text": "AAAA"}`, `{"text": "`+strings.Repeat("AAAA", 32<<10)+`"}`
	const wordSize, longSize = 5, 4 + 3*32<<10 // in Protobuf
	for _, test := range []struct {
		name           string
		args           []string
		calls, failed  int64
		sent, received int64 // messages; -1 for any number
		bytesSent      int64
		code           string
	}{
		{"each request once", []string{"Collect", word, word, "-n", "4"}, 4, 0, 8, 4, 8 * wordSize, ""},
		{"so many", []string{"Collect", word, "-n", "3", "--messages", "50", "-c", "2"}, 3, 0, 150, 3, 150 * wordSize, ""},
		{"both directions", []string{"Echo", word, long, "-n", "2", "--messages", "100", "--connections", "2"}, 2, 0, 200, 200, 100 * (wordSize + longSize), ""},
		{"open loop", []string{"Echo", word, "-n", "20", "--messages", "5", "-r", "1000"}, 20, 0, 100, 100, 100 * wordSize, ""},
		{"fails midway", []string{"Fail", long, "-n", "3", "--messages", "100"}, 3, 3, -1, 0, -1, "aborted"},
		{"ends midway", []string{"Stop", long, "-n", "3", "--messages", "100"}, 3, 0, -1, 0, -1, ""},
		{"deadline", []string{"Wait", long, "-n", "2", "--messages", "1000", "--timeout", "300ms"}, 2, 2, -1, 0, -1, "deadline_exceeded"},
		{"too large", []string{"Echo", `{"text": "` + strings.Repeat("AAAA", 6<<20) + `"}`, "-n", "1"}, 1, 1, 0, 0, 0, "resource_exhausted"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := c.run(append([]string{"bench", "--json"}, test.args...)...)
			want := problem.StatusOK
			if test.failed > 0 {
				want = problem.StatusFailure
			}
			if got.status != want || got.stderr != "" {
				t.Fatalf("exit status %d: %s%s", got.status, got.stdout, got.stderr)
			}
			var r benchResult
			must(t, json.Unmarshal([]byte(got.stdout), &r))
			if r.Calls != test.calls || r.Failed != test.failed || r.Messages != test.received || r.Cut_off != 0 {
				t.Errorf("got %s", got.stdout)
			}
			if test.sent >= 0 && (r.Messages_sent != test.sent || r.Bytes_sent != test.bytesSent) {
				t.Errorf("%d messages and %d bytes were sent", r.Messages_sent, r.Bytes_sent)
			}
			if test.code != "" && (len(r.Errors) != 1 || r.Errors[0].Code != test.code) {
				t.Errorf("the errors are %+v", r.Errors)
			}
		})
	}
}

// TestBenchStreamText: the end of the measurement cuts off streams that wait, and people see both
// directions.
func TestBenchStreamText(t *testing.T) {
	t.Parallel()
	c := talk(t)
	r := c.run("bench", "Wait", "-d", "1ms", "-c", "1", "--warmup", "1ms")
	if r.status != problem.StatusFailure || !strings.Contains(r.stdout, "1 at a time, each sending 1, for 1ms, after a warm-up of 1ms\n") {
		t.Errorf("exit status %d:\n%s%s", r.status, r.stdout, r.stderr)
	}
	text := c.ok("bench", "Echo", `{"text": "AAAA"}`, "--messages", "3", "-n", "10")
	for _, want := range []string{
		"talk.v1.Talk/Echo, 16 at a time, each sending 3, 10 calls\n", "  streams                10   ", "  messages out           30   ",
		"  bytes out             150   ", "  messages in            30   ", "  bytes in              150   ", "Latency of the streams that succeeded, to their end, in",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %q in\n%s", want, text)
		}
	}
}
