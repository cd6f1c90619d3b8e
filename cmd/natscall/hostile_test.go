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
	metadata := map[string]string{"natscall.service": "evil.v1.Evil", "natscall.root": "evil.v1.Evil", "natscall.schema": "sha256:" + attack, "natscall.not_serving": attack}
	injection := map[string]string{"natscall.service": "evil.v1.$(reboot)", "natscall.root": "evil.v1.Injection"}
	_, err := micro.AddService(nc, micro.Config{Name: "Injection", Version: "1.0.0", Metadata: injection})
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

// TestHostileText: what services say cannot take over the terminal, nor begin a line of its own.
func TestHostileText(t *testing.T) {
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
