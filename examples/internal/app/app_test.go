package app

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/examples/internal/ports"
	"github.com/natscall/natscall/rpc/rpctest"
)

// execute runs a command that serves until ctx ends.
func execute(ctx context.Context, run func(context.Context, *nats.Conn, Settings) error, args ...string) (code int, stdout, stderr string) {
	var out, err strings.Builder
	c := Command{
		Name: "thing", About: "thing serves things.",
		Flags: func(fs *flag.FlagSet) { fs.Bool("own", false, "a flag of its own") },
		Run:   run,
	}
	code = c.Execute(ctx, args, &out, &err)
	return code, out.String(), err.String()
}

func TestHelp(t *testing.T) {
	t.Setenv("NATS_URL", "nats://user:secret@host")
	code, stdout, stderr := execute(t.Context(), nil, "-h")
	if strings.Contains(stdout, "secret") {
		t.Errorf("help shows the password of NATS_URL:\n%s", stdout)
	}
	if code != ExitOK || stderr != "" {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
	for _, want := range []string{"thing serves things.", "-server URLs", "-creds file", "-nkey file", "-tlsca", "-prefix", "-own"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("help does not say %q:\n%s", want, stdout)
		}
	}
}

func TestWrongFlags(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"-sever", "x"}, "-sever"},
		{[]string{"-replicas", "many"}, `"many" for flag -replicas`},
		{[]string{"-replicas", "6"}, "-replicas 6: must be 1 to 5"},
		{[]string{"-grace", "0s"}, "-grace 0s: must be positive"},
		{[]string{"-grace", "25"}, `"25" for flag -grace`},
		{[]string{"-prefix", "a b"}, `-prefix "a b"`},
		{[]string{"-prefix", "a..b"}, `-prefix "a..b"`},
		{[]string{"-creds", "/no/such"}, "-creds: stat /no/such"},
		{[]string{"-nkey", "/no/such"}, "-nkey: stat /no/such"},
		{[]string{"-nkey", file, "-creds", file}, "-creds and -nkey"},
		{[]string{"-tlsca", "/no/such"}, "-tlsca: stat /no/such"},
		{[]string{"-tlscert", file}, "-tlscert needs -tlskey"},
		{[]string{"-tlskey", file}, "-tlskey needs -tlscert"},
		{[]string{"more"}, `unexpected argument "more"`},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			code, stdout, stderr := execute(t.Context(), nil, tt.args...)
			if code != ExitUsage || stdout != "" || !strings.Contains(stderr, tt.want) || !strings.Contains(stderr, "thing -h") {
				t.Errorf("exit code %d, stdout %q, stderr %q, want %q", code, stdout, stderr, tt.want)
			}
		})
	}
}

func TestServe(t *testing.T) {
	srv := rpctest.NewServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	var conn *nats.Conn
	code, _, stderr := execute(ctx, func(ctx context.Context, nc *nats.Conn, s Settings) error {
		conn = nc
		if !nc.IsConnected() || s.Prefix != "eu.shop" || s.Replicas != 3 {
			t.Errorf("connected %v, settings %+v", nc.IsConnected(), s)
		}
		cancel() // as a signal does
		<-ctx.Done()
		return nil
	}, "-server", srv.URL(), "-prefix", "eu.shop", "-replicas", "3")
	if code != ExitOK || !conn.IsClosed() {
		t.Errorf("exit code %d, connection closed %v, stderr %s", code, conn.IsClosed(), stderr)
	}
}

func TestStoppedWhileStarting(t *testing.T) {
	srv := rpctest.NewServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	code, _, stderr := execute(ctx, func(ctx context.Context, _ *nats.Conn, _ Settings) error {
		cancel()
		return fmt.Errorf("cannot start: %w", ctx.Err())
	}, "-server", srv.URL())
	if code != ExitOK {
		t.Errorf("exit code %d, stderr %s", code, stderr)
	}
}

func TestFailures(t *testing.T) {
	srv := rpctest.NewServer(t)
	fails := func(context.Context, *nats.Conn, Settings) error { return errors.New("things are broken") }
	if code, _, stderr := execute(t.Context(), fails, "-server", srv.URL()); code != ExitFailed || !strings.Contains(stderr, "thing: things are broken") {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("no credentials"), 0o600); err != nil {
		t.Fatal(err)
	}
	guarded := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) { o.Authorization = "token" }))
	for name, args := range map[string][]string{
		"refused login":   {"-server", guarded.URL()},
		"no credentials":  {"-server", guarded.URL(), "-creds", file},
		"no authorities":  {"-server", srv.URL(), "-tlsca", file},
		"no certificates": {"-server", srv.URL(), "-tlscert", file, "-tlskey", file},
	} {
		if code, _, stderr := execute(t.Context(), fails, args...); code != ExitFailed || !strings.Contains(stderr, "cannot connect to "+args[1]) {
			t.Errorf("%s: exit code %d, stderr %q", name, code, stderr)
		}
	}
}

// TestWaitsForNATS: a process that starts before NATS is alive and not ready, and serves when NATS
// has come.
func TestWaitsForNATS(t *testing.T) {
	port := ports.Free(t, 1)[0]
	start := func() {
		rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) { o.Port = port }))
	}
	connected := false
	run := func(_ context.Context, nc *nats.Conn, _ Settings) error {
		connected = nc.IsConnected()
		return nil
	}
	args := []string{"-server", fmt.Sprintf("nats://127.0.0.1:%d", port), "-health", "127.0.0.1:0", "-logs"}
	if code := executeWaiting(t.Context(), t, run, start, args...); code != ExitOK || !connected {
		t.Errorf("exit code %d, connected %v", code, connected)
	}
}

// TestStoppedWhileWaiting: waiting for NATS ends with the process.
func TestStoppedWhileWaiting(t *testing.T) {
	for name, args := range map[string][]string{"": nil, "for its log": {"-logs"}} {
		ctx, cancel := context.WithCancel(t.Context())
		run := func(context.Context, *nats.Conn, Settings) error { return errors.New("it runs without NATS") }
		args = append(args, "-server", "nats://127.0.0.1:1", "-health", "127.0.0.1:0")
		if code := executeWaiting(ctx, t, run, cancel, args...); code != ExitOK {
			t.Errorf("waiting %s: exit code %d", name, code)
		}
	}
}

// TestAbsent: only what may come is waited for.
func TestAbsent(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want bool
	}{
		"nobody listens":       {&net.OpError{Op: "dial", Err: errors.New("connection refused")}, true},
		"none of several":      {nats.ErrNoServers, true},
		"unknown host":         {&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host"}}, true},
		"no answer":            {nats.ErrTimeout, true},
		"nothing behind it":    {io.EOF, true},
		"reset":                {&net.OpError{Op: "read", Err: errors.New("connection reset")}, true},
		"refused certificate":  {&net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")}, false},
		"refused login":        {nats.ErrAuthorization, false},
		"TLS is required":      {nats.ErrSecureConnRequired, false},
		"no file":              {os.ErrNotExist, false},
		"wrapped, as it comes": {fmt.Errorf("cannot connect: %w", nats.ErrNoServers), true},
	} {
		if got := absent(tt.err); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// executeWaiting runs a command with -health that finds no NATS server, looks at its health, and
// calls then.
func executeWaiting(ctx context.Context, t *testing.T, run func(context.Context, *nats.Conn, Settings) error, then func(), args ...string) (code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute) // which is an error, if it comes to that
	defer cancel()
	read, write := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- Command{Name: "thing", Run: run}.Execute(ctx, args, io.Discard, write)
		_ = write.Close()
	}()
	var url string
	for lines := bufio.NewScanner(read); lines.Scan(); {
		t.Log(lines.Text())
		if _, found, ok := strings.Cut(lines.Text(), `msg="health is served" url=`); ok {
			url = found
		}
		if strings.Contains(lines.Text(), "NATS is not there yet") && then != nil {
			checkStatus(t, url+"/healthz", http.StatusOK)
			checkStatus(t, url+"/readyz", http.StatusServiceUnavailable)
			then()
			then = nil
		}
	}
	if then != nil {
		t.Error("it does not say that it waits")
	}
	return <-done
}

func checkStatus(t *testing.T, url string, want int) {
	t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Get(url)
	if err != nil {
		t.Error(err)
		return
	}
	defer res.Body.Close()
	if res.StatusCode != want {
		t.Errorf("%s answers %s, want %d", url, res.Status, want)
	}
}

// TestServerOfTheEnvironment: NATS_URL is the server, unless a flag names another one.
func TestServerOfTheEnvironment(t *testing.T) {
	srv := rpctest.NewServer(t)
	connected := func(_ context.Context, nc *nats.Conn, _ Settings) error {
		if nc.ConnectedUrl() != srv.URL() {
			t.Errorf("connected to %s, want %s", nc.ConnectedUrl(), srv.URL())
		}
		return nil
	}
	t.Setenv("NATS_URL", srv.URL())
	if code, _, stderr := execute(t.Context(), connected); code != ExitOK {
		t.Errorf("exit code %d, stderr %s", code, stderr)
	}
	t.Setenv("NATS_URL", "nats://127.0.0.1:1")
	if code, _, stderr := execute(t.Context(), connected, "-server", srv.URL()); code != ExitOK {
		t.Errorf("with a flag: exit code %d, stderr %s", code, stderr)
	}
}
