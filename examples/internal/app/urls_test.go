package app

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/examples/internal/ports"
	"github.com/natscall/natscall/rpc/rpctest"
)

func TestRedacted(t *testing.T) {
	for in, want := range map[string]string{
		"nats://h:4222":                         "nats://h:4222",
		"h":                                     "h",
		"nats://token@h":                        "nats://h",
		"u:p@h":                                 "h",
		"nats://u:p@h1, tls://u:p@h2,ws://h3/x": "nats://h1, tls://h2,ws://h3/x",
		"nats://u:p@ss@h":                       "nats://h",
		`parse "nats://u:p@h": it is wrong`:     `parse "nats://h": it is wrong`,
	} {
		if got := redacted(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

// listener keeps what is written, and calls then when a text is.
type listener struct {
	strings.Builder
	text string
	then func()
}

func (l *listener) Write(p []byte) (int, error) {
	if strings.Contains(string(p), l.text) {
		l.then()
	}
	return l.Builder.Write(p)
}

// TestSecrets: whatever a command prints, the secret of a URL is not in it.
func TestSecrets(t *testing.T) {
	const secret = "hunter2"
	withUser := rpctest.NewServer(t, rpctest.WithoutLeakCheck(), rpctest.WithServerOptions(func(o *server.Options) { o.Username, o.Password = "shop", secret }))
	withToken := rpctest.NewServer(t, rpctest.WithoutLeakCheck(), rpctest.WithServerOptions(func(o *server.Options) { o.Authorization = secret }))
	host := func(s *rpctest.Server) string { return strings.TrimPrefix(s.URL(), "nats://") }
	gone := fmt.Sprint("127.0.0.1:", ports.Free(t, 1)[0])
	for name, args := range map[string][]string{
		"connected by password":   {"-server", "nats://shop:" + secret + "@" + host(withUser)},
		"connected by token":      {"-server", "nats://" + secret + "@" + host(withToken)},
		"the second of two":       {"-server", "nats://shop:" + secret + "@" + gone + ",nats://shop:" + secret + "@" + host(withUser)},
		"refused":                 {"-server", "nats://other:" + secret + "@" + host(withUser)},
		"nobody there":            {"-server", "nats://shop:" + secret + "@" + gone},
		"nobody there, token":     {"-server", secret + "@" + gone},
		"malformed escape":        {"-server", "nats://shop:%zz" + secret + "@h"},
		"slash in the password":   {"-server", "nats://shop:" + secret + "/x@h"},
		"comma in the password":   {"-server", "nats://shop:" + secret + ",x@h"},
		"blank in the password":   {"-server", "nats://shop:" + secret + " x@h"},
		"control character":       {"-server", "nats://shop:" + secret + "\x7f@h"},
		"malformed port":          {"-server", "nats://shop:" + secret + "@h:port"},
		"without the flag":        {"nats://shop:" + secret + "@h"},
		"behind the wrong flag":   {"-prefix", "nats://shop:" + secret + "@h"},
		"behind one for a number": {"-replicas", "nats://shop:" + secret + "@h"},
		"for a file":              {"-creds", "nats://shop:" + secret + "@h"},
	} {
		t.Run(name, func(t *testing.T) {
			reconnect := func(_ context.Context, nc *nats.Conn, s Settings) error {
				again := make(chan bool, 1)
				logged := nc.Opts.ReconnectedCB
				nc.SetReconnectHandler(func(nc *nats.Conn) { logged(nc); again <- true })
				if err := nc.ForceReconnect(); err != nil {
					return err
				}
				<-again
				return fmt.Errorf("after %s", nc.Opts.Url)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var out strings.Builder
			said := &listener{text: "NATS is not there yet", then: cancel} // which would not end
			code := Command{Name: "thing", Run: reconnect}.Execute(ctx, args, &out, said)
			stderr, waited := said.String(), ctx.Err() != nil
			if (code == ExitOK) != waited || out.Len() > 0 || stderr == "" || strings.Contains(stderr, secret) {
				t.Errorf("exit code %d, waited %v, stdout %q, stderr:\n%s", code, waited, &out, stderr)
			}
			if waited != strings.HasPrefix(name, "nobody there") {
				t.Errorf("waited %v, stderr:\n%s", waited, stderr)
			}
			if strings.HasPrefix(name, "connected") && !strings.Contains(stderr, `msg="connected to NATS again" server=nats://127.0.0.1`) {
				t.Errorf("stderr does not name the server:\n%s", stderr)
			}
		})
	}
}
