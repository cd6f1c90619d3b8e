package rpcotel_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestMessageTracing: NATS traces a message by itself if its traceparent is sampled and the account
// says so, or if a header asks for it. Both go on beside our spans, and see our trace.
func TestMessageTracing(t *testing.T) {
	w := newWorld(t)
	w.Server = rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
		path := filepath.Join(t.TempDir(), "nats.conf")
		must(t, os.WriteFile(path, []byte(`
			accounts { A { users [{user: a, password: a}], msg_trace {dest: "traces", sampling: 100%} } }
			no_auth_user: a
		`), 0o600))
		from, err := server.ProcessConfigFile(path)
		must(t, err)
		o.Accounts, o.Users, o.NoAuthUser = from.Accounts, from.Users, from.NoAuthUser
	}))
	var seen rpc.Header
	serve(t, w.Connect(), &handlers{do: func(ctx context.Context, _ string) (string, error) {
		seen = rpc.CallFromContext(ctx).Header()
		return "", nil
	}}, w.interceptor())
	nc := w.Connect()
	traces, err := nc.SubscribeSync("traces")
	must(t, err)
	asked, err := nc.SubscribeSync("asked")
	must(t, err)
	must(t, nc.Flush())

	must(t, calls["Do"](t.Context(), dial(t, w.Connect(), w.interceptor())))
	all := w.spans.wait(t, 2)
	client, served := of(t, all, trace.SpanKindClient), of(t, all, trace.SpanKindServer)
	if served.Parent().SpanID() != client.SpanContext().SpanID() {
		t.Error("the server's span is not a child of the client's")
	}
	if got := tracedBy(t, traces); !strings.Contains(got, client.SpanContext().SpanID().String()) {
		t.Errorf("NATS has traced %q, want the span %v", got, client.SpanContext().SpanID())
	}

	header := nats.Header{"Nats-Trace-Dest": {"asked"}, "traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}}
	_, err = nc.RequestMsgWithContext(t.Context(), &nats.Msg{Subject: "test.v1.Test.Do", Header: header})
	must(t, err)
	if got := tracedBy(t, asked); got != header["traceparent"][0] {
		t.Errorf("NATS has traced %q", got)
	}
	if seen.Get("Nats-Trace-Dest") != "asked" || seen.Get("traceparent") != header["traceparent"][0] {
		t.Errorf("the handler sees the header %v", seen)
	}
}

// tracedBy returns the traceparent in the next event of NATS.
func tracedBy(t *testing.T, events *nats.Subscription) string {
	t.Helper()
	m, err := events.NextMsgWithContext(t.Context())
	must(t, err)
	var event struct {
		Request struct{ Header http.Header }
	}
	must(t, json.Unmarshal(m.Data, &event))
	for key, values := range event.Request.Header {
		if strings.EqualFold(key, "traceparent") {
			return values[0]
		}
	}
	return ""
}
