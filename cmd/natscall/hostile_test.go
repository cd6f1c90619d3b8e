package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unicode"

	"github.com/nats-io/nats.go/micro"
	"github.com/spf13/cobra"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// attack clears the screen, sets the title of the terminal, turns the text around and begins a line
// that looks like the tool's own.
const attack = "evil\x1b[2J\x1b]0;title\x07\u009b31m\u202e\r\nnatscall: all is well"

// hostileServices serves a NATS micro service and a natscall service that put control characters
// wherever they can.
func hostileServices(t *testing.T) *console {
	t.Helper()
	srv := rpctest.NewServer(t)
	nc := srv.Connect()
	shell := map[string]string{"natscall.service": "evil.v1.Shell", "natscall.root": "$(reboot).evil.v1.Shell"}
	_, err := micro.AddService(nc, micro.Config{Name: "Shell", Version: "1.0.0", Metadata: shell})
	must(t, err)
	metadata := map[string]string{"natscall.service": "evil.v1.Evil", "natscall.root": "evil.v1.Evil", "natscall.schema": "sha256:" + attack, "natscall.not_serving": attack}
	injection := map[string]string{"natscall.service": "evil.v1.$(reboot)", "natscall.root": "evil.v1.Injection"}
	_, err = micro.AddService(nc, micro.Config{Name: "Injection", Version: "1.0.0", Metadata: injection})
	must(t, err)
	evil, err := micro.AddService(nc, micro.Config{Name: "Evil", Version: "1.0.0", Description: attack, Metadata: metadata,
		StatsHandler: func(*micro.Endpoint) any {
			return json.RawMessage(`{"codes": {"` + strings.Trim(quoted(t, attack), `"`) + `": 3}}`)
		}})
	must(t, err)
	method := map[string]string{"natscall.kind": "unary", "natscall.request": attack, "natscall.response": attack, "natscall.description": attack}
	must(t, evil.AddEndpoint("Do", micro.HandlerFunc(func(r micro.Request) { _ = r.Error("500", attack, nil) }), micro.WithEndpointSubject("evil.v1.Evil.Do"), micro.WithEndpointMetadata(method)))
	desc := &rpc.ServiceDesc{Name: "loud.v1.Loud", MicroName: "Loud", Version: "1.0.0"}
	loud := rpc.NewServer(nc, rpc.WithLogger(slog.New(slog.DiscardHandler)))
	fail := rpc.HandleMethod(rpc.NewRawMethod(desc, rpc.MethodDesc{Name: "Fail"}, rpc.KindUnary), func(struct{}, context.Context, *rpc.Stream) error {
		return rpc.NewError(rpc.CodeAborted, attack)
	})
	say := rpc.HandleMethod(rpc.NewRawMethod(desc, rpc.MethodDesc{Name: "Say"}, rpc.KindUnary), func(_ struct{}, _ context.Context, s *rpc.Stream) error {
		return s.Send(&rpc.Raw{Codec: rpc.CodecJSON, Data: []byte(`{}`)})
	})
	must(t, rpc.Register(loud, desc, struct{}{}, nil, fail, say))
	must(t, loud.Start(t.Context()))
	t.Cleanup(func() { must(t, loud.Shutdown(context.WithoutCancel(t.Context()))) })
	must(t, loud.SetHealth(desc.Name, errors.New(attack)))
	return &console{t, nil, srv.URL()}
}

func quoted(t *testing.T, text string) string { return quotedJSON(t, text) }

func quotedJSON(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	must(t, err)
	return string(data)
}

// TestHostileCompletion: a name that a shell would run is not completed.
func TestHostileCompletion(t *testing.T) {
	t.Setenv("NATSCALL_COMPLETION_TIME", patience.String())
	c := hostileServices(t)
	var stdout bytes.Buffer
	run(testContext(t), []string{cobra.ShellCompRequestCmd, "--server", c.url, "ls", "evil."}, nil, &stdout, io.Discard)
	for _, flag := range []string{"--instance", "--prefix"} {
		var words bytes.Buffer
		run(testContext(t), []string{cobra.ShellCompNoDescRequestCmd, "--server", c.url, "call", flag, ""}, nil, &words, io.Discard)
		if text := words.String(); strings.ContainsAny(text, "$(\x1b") {
			t.Errorf("%s: it completes %q", flag, text)
		}
	}
	if text := stdout.String(); !strings.HasPrefix(text, "evil.v1.Evil\tevil\\x1b[2J") || strings.Contains(text, "reboot") {
		t.Errorf("it completes %q", text)
	}
}

// fullDisk is a file on one.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// TestOutputLost: a response that cannot be written is no success.
func TestOutputLost(t *testing.T) {
	c := hostileServices(t)
	var stderr bytes.Buffer
	got := run(testContext(t), []string{"call", "loud.v1.Loud/Say", "--no-schema", "{}", "--server", c.url}, nil, fullDisk{}, &stderr)
	if want := "natscall call: output: " + syscall.ENOSPC.Error() + "\n"; got != problem.StatusFailure || stderr.String() != want {
		t.Errorf("exit status %d: %s, want %s", got, &stderr, want)
	}
}

// TestHostileResponse: a response that is no JSON is cleaned on a terminal, and stays as it is
// elsewhere.
func TestHostileResponse(t *testing.T) {
	srv := rpctest.NewServer(t)
	nc := srv.Connect()
	text, err := micro.AddService(nc, micro.Config{Name: "Text", Version: "1.0.0"})
	must(t, err)
	must(t, text.AddEndpoint("Say", micro.HandlerFunc(func(r micro.Request) { _ = r.Respond([]byte(attack)) })))
	must(t, nc.Flush())
	c := &console{t, nil, srv.URL()}
	args := []string{"call", "Text/Say", "--plain", "--no-schema"}
	if got := c.ok(args...); got != attack+"\n" {
		t.Errorf("in a pipe: %q", got)
	}
	out := terminal{newScreen(), 80, 24}
	if status := run(testContext(t), append(args, "--server", c.url), nil, out, io.Discard); status != 0 || !strings.HasPrefix(out.String(), `evil\x1b[2J`) {
		t.Errorf("exit status %d: %q", status, out)
	}
}

// TestForeign: what a service of another kind cannot do has a next step.
func TestForeign(t *testing.T) {
	t.Parallel()
	srv := rpctest.NewServer(t)
	nc := srv.Connect()
	foreign, err := micro.AddService(nc, micro.Config{Name: "clock", Version: "1.0.0"})
	must(t, err)
	must(t, foreign.AddEndpoint("now", micro.HandlerFunc(func(r micro.Request) { _ = r.Respond([]byte("noon")) }), micro.WithEndpointSubject("time.now")))
	must(t, nc.Flush())
	c := &console{t, nil, srv.URL()}
	check(t, c.url, []mistake{
		{"call", []string{"call", "clock/now"}, "", 2, "service clock is not built with natscall", "--plain --no-schema"},
		{"call without a schema", []string{"call", "clock/now", "--no-schema"}, "", 2, "service clock is not built with natscall", "--plain --no-schema"},
		{"plain call", []string{"call", "clock/now", "--plain"}, "", 1, "service clock is not built with natscall, so it has no schema", "`natscall call ENDPOINT --plain --no-schema` calls one"},
		{"describe", []string{"describe", "clock"}, "", 1, "service clock is not built with natscall, so it has no schema", "`natscall ls clock` lists its endpoints"},
		{"bench", []string{"bench", "now"}, "", 1, "service clock is not built with natscall, so it has no schema", "natscall ls clock"},
		{"health", []string{"health", "clock"}, "", 1, "service clock is not built with natscall, so it does not say how it is", "`natscall ping clock`"},
	})
	for _, command := range []string{"ls", "ps", "ping", "stats"} {
		if text := c.ok(command, "clock"); !strings.Contains(text, "1.0.0") && !strings.Contains(text, "clock/now") {
			t.Errorf("%s prints\n%s", command, text)
		}
	}
	ctx := testContext(t)
	stdout, stderr := newScreen(), newScreen()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"tap", "clock", "--count", "2", "--server", c.url}, nil, stdout, stderr)
	}()
	stderr.await(ctx, t, "listening to time.now, _INBOX.>", 1)
	c.ok("call", "clock/now", "--plain", "--no-schema")
	if status := <-ended; status != 0 || !strings.Contains(stdout.String(), "clock/now") || !strings.Contains(stdout.String(), `: "noon"`) {
		t.Errorf("tap: exit status %d:\n%s%s", status, stdout, stderr)
	}
}

// TestHostileText: what services say cannot take over the terminal, nor begin a line of its own.
func TestHostileText(t *testing.T) {
	t.Parallel()
	c := hostileServices(t)
	for _, test := range []struct {
		args string
		want int
	}{
		{"ls", problem.StatusOK},
		{"ls --json", problem.StatusOK},
		{"ls Evil", problem.StatusOK},
		{"ps", problem.StatusOK},
		{"stats", problem.StatusOK},
		{"health", problem.StatusFailure},
		{"call Evil/Do --plain --no-schema {}", problem.StatusCall + int(rpc.CodeInternal)},
		{"call Loud/Fail --no-schema {}", problem.StatusCall + int(rpc.CodeAborted)},
	} {
		t.Run(test.args, func(t *testing.T) {
			r := c.run(strings.Fields(test.args)...)
			if r.status != test.want {
				t.Errorf("exit status %d, want %d", r.status, test.want)
			}
			text := r.stdout + r.stderr
			if !strings.Contains(text, "evil") {
				t.Errorf("it does not show what the service says: %s", text)
			}
			if i := strings.IndexFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
				t.Errorf("a control character at byte %d: %q", i, text)
			}
			if slices.Contains(strings.Split(text, "\n"), "natscall: all is well") {
				t.Errorf("a line of the service's own: %s", text)
			}
		})
	}
}
