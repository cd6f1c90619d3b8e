package rpctest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/natscall/natscall/rpc/rpctest"
)

// recorder is a test that the tests of this file can look at.
type recorder struct {
	testing.TB
	cleanups []func()
	errors   []string
}

func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}
func (r *recorder) Failed() bool { return len(r.errors) > 0 }

func (r *recorder) end() {
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
}

func echo(t *testing.T, nc *nats.Conn) {
	t.Helper()
	if _, err := nc.Subscribe("echo", func(m *nats.Msg) { _ = m.Respond(m.Data) }); err != nil {
		t.Fatal(err)
	}
	if m, err := nc.Request("echo", []byte("x"), 10*time.Second); err != nil || string(m.Data) != "x" {
		t.Fatalf("%v, %v", m, err)
	}
}

// TestServers: what they start works, and ends with the test.
func TestServers(t *testing.T) {
	for name, connect := range map[string]func(testing.TB) *nats.Conn{
		"in process": func(t testing.TB) *nats.Conn { return rpctest.Connect(t) },
		"listening":  func(t testing.TB) *nats.Conn { return rpctest.NewServer(t).Connect() },
	} {
		t.Run(name, func(t *testing.T) {
			r := &recorder{TB: t}
			nc := connect(r)
			echo(t, nc)
			r.end()
			if !nc.IsClosed() || r.Failed() {
				t.Errorf("closed: %v, errors %q", nc.IsClosed(), r.errors)
			}
		})
	}
}

func TestJetStream(t *testing.T) {
	js, err := jetstream.New(rpctest.NewServer(t, rpctest.WithJetStream()).Connect())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "b"}); err != nil {
		t.Fatal(err)
	}
}

// TestLeakCheck: a goroutine that is left fails the test, unless it does not want to know.
func TestLeakCheck(t *testing.T) {
	for _, check := range []bool{true, false} {
		r := &recorder{TB: t}
		var opts []rpctest.Option
		if !check {
			opts = append(opts, rpctest.WithoutLeakCheck())
		}
		rpctest.NewServer(r, opts...)
		stop := make(chan struct{})
		go leak(stop)
		r.end()
		close(stop)
		if check != r.Failed() || check && !strings.Contains(r.errors[0], "rpctest_test.leak") {
			t.Errorf("check %v: errors %q", check, r.errors)
		}
	}
}

func leak(stop <-chan struct{}) { <-stop }
