package rpctest_test

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/rpctest"
)

// took returns how long f takes.
func took(f func()) time.Duration {
	began := time.Now()
	f()
	return time.Since(began)
}

// request makes one request, and a flush that leaves a timer in the pool of nats.go.
func request(t *testing.T, nc *nats.Conn) {
	t.Helper()
	m, err := nc.Request("echo", []byte("x"), 24*time.Hour)
	must(t, err)
	if string(m.Data) != "x" {
		t.Errorf("got %q", m.Data)
	}
	must(t, nc.FlushTimeout(24*time.Hour))
}

// TestBubbles: bubbles and other tests take turns, although nats.go keeps timers for the next
// connection.
func TestBubbles(t *testing.T) {
	for range 3 {
		t.Run("real", func(t *testing.T) {
			nc := rpctest.Connect(t)
			echo(t, nc)
			request(t, nc)
		})
		t.Run("virtual", func(t *testing.T) {
			rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
				service, nc := srv.Connect(), srv.Connect()
				_, err := service.Subscribe("echo", func(m *nats.Msg) {
					time.Sleep(time.Hour)
					_ = m.Respond(m.Data)
				})
				must(t, err)
				must(t, service.Flush())
				if d := took(func() { request(t, nc) }); d != time.Hour {
					t.Errorf("took %v", d)
				}
			})
		})
	}
}

// pair connects a service, which echoes, and a caller, each through a proxy of its own.
func pair(t *testing.T, srv *rpctest.Server) (service, caller *rpctest.Proxy, nc *nats.Conn) {
	t.Helper()
	service, caller = rpctest.NewProxy(t, srv), rpctest.NewProxy(t, srv)
	echo(t, service.Connect())
	nc = caller.Connect()
	request(t, nc)
	return service, caller, nc
}

// modes runs a test with a server that listens, and in a bubble.
func modes(t *testing.T, f func(t *testing.T, srv *rpctest.Server)) {
	t.Run("sockets", func(t *testing.T) { f(t, rpctest.NewServer(t)) })
	t.Run("bubble", func(t *testing.T) { rpctest.Bubble(t, f) })
}

// TestLatency: it counts in each direction, once for all that is on its way together.
func TestLatency(t *testing.T) {
	const far = 50 * time.Millisecond
	modes(t, func(t *testing.T, srv *rpctest.Server) {
		_, caller, nc := pair(t, srv)
		caller.Latency(far)
		d := took(func() { request(t, nc) })
		if d < 4*far || srv.URL() == "" && d != 4*far { // a request, and a ping
			t.Errorf("took %v", d)
		}
		caller.Latency(0)
		request(t, nc)
	})
}

// TestBlock: what is sent to a process that stands still arrives afterwards, in order.
func TestBlock(t *testing.T) {
	for name, to := range map[string][]rpctest.Direction{
		"both": nil, "to server": {rpctest.ToServer}, "to client": {rpctest.ToClient},
	} {
		t.Run(name, func(t *testing.T) {
			modes(t, func(t *testing.T, srv *rpctest.Server) {
				service, _, nc := pair(t, srv)
				replies, err := nc.SubscribeSync("replies")
				must(t, err)
				service.Block(to...)
				for _, text := range []string{"a", "b", "c"} {
					must(t, nc.PublishRequest("echo", "replies", []byte(text)))
				}
				if _, err := replies.NextMsg(100 * time.Millisecond); !errors.Is(err, nats.ErrTimeout) {
					t.Errorf("before: %v", err)
				}
				service.Block(to...) // again, which is no other block
				service.Unblock()
				for _, want := range []string{"a", "b", "c"} {
					m, err := replies.NextMsg(10 * time.Second)
					must(t, err)
					if string(m.Data) != want {
						t.Errorf("%q, want %q", m.Data, want)
					}
				}
				service.Unblock()
				request(t, nc)
			})
		})
	}
}

// TestBlockedEnd: the end of a connection waits for the end of the block too, and so do new ones.
func TestBlockedEnd(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		service, _, _ := pair(t, srv)
		clients := srv.NATS().NumClients()
		other := service.Connect()
		service.Block()
		other.Close()
		time.Sleep(10 * time.Second)
		if got := srv.NATS().NumClients(); got != clients+1 {
			t.Errorf("%d clients while it is blocked, want %d", got, clients+1)
		}
		if _, err := nats.Connect("", nats.InProcessServer(service), nats.Timeout(time.Second)); err == nil {
			t.Error("connected through a block")
		}
		service.Unblock()
		synctest.Wait()
		if got := srv.NATS().NumClients(); got != clients {
			t.Errorf("%d clients after it, want %d", got, clients)
		}
	})
}

// TestBlackHole: nothing comes of a connection, which is not closed, until it is made again.
func TestBlackHole(t *testing.T) {
	modes(t, func(t *testing.T, srv *rpctest.Server) {
		_, caller, nc := pair(t, srv)
		up := make(chan struct{})
		nc.SetReconnectHandler(func(*nats.Conn) { close(up) })
		caller.BlackHole()
		if _, err := nc.Request("echo", []byte("x"), 100*time.Millisecond); !errors.Is(err, nats.ErrTimeout) {
			t.Errorf("request: %v", err)
		}
		if !nc.IsConnected() {
			t.Error("it is told")
		}
		request(t, caller.Connect())
		must(t, nc.ForceReconnect())
		<-up
		request(t, nc)
	})
}

// TestKilled: what is behind a closed proxy is gone for NATS at once.
func TestKilled(t *testing.T) {
	modes(t, func(t *testing.T, srv *rpctest.Server) {
		service, _, nc := pair(t, srv)
		service.Close()
		for { // with sockets NATS learns of it a moment later
			_, err := nc.Request("echo", nil, 100*time.Millisecond)
			if errors.Is(err, nats.ErrNoResponders) {
				return
			}
			if !errors.Is(err, nats.ErrTimeout) {
				t.Fatal(err)
			}
		}
	})
}

// TestBlockedFlood: a sender of more than fits waits, as with TCP. In a bubble, where a wait for a
// lock would stop the clock, everything fits.
func TestBlockedFlood(t *testing.T) {
	modes(t, func(t *testing.T, srv *rpctest.Server) {
		proxy := rpctest.NewProxy(t, srv)
		nc := proxy.Connect()
		proxy.Block()
		time.AfterFunc(100*time.Millisecond, proxy.Unblock)
		for range 24 {
			must(t, nc.Publish("a", make([]byte, 1<<20)))
		}
		must(t, nc.Flush())
		if got := nc.Stats().OutMsgs; got != 24 {
			t.Errorf("%d messages", got)
		}
	})
}

// TestBubbleRefuses: what does not work in a bubble fails the test, and says why. A test that fails
// is one of another process.
func TestBubbleRefuses(t *testing.T) {
	const refuse = "NATSCALL_REFUSE"
	nothing := func(*testing.T, *rpctest.Server) {}
	tests := map[string]struct {
		run  func(t *testing.T)
		want string
	}{
		"connection": {func(t *testing.T) {
			rpctest.SetCloseTimeout(10 * time.Millisecond)
			rpctest.Connect(t)
			rpctest.Bubble(t, nothing)
		}, "one is open:"},
		"parallel":  {func(t *testing.T) { t.Parallel(); rpctest.Bubble(t, nothing) }, "beside other tests (t.Parallel)"},
		"jetstream": {func(t *testing.T) { rpctest.Bubble(t, nothing, rpctest.WithJetStream()) }, "JetStream does not work in a Bubble"},
	}
	if test, ok := tests[os.Getenv(refuse)]; ok {
		test.run(t)
		return
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			own := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestBubbleRefuses$")
			own.Env = append(os.Environ(), refuse+"="+name)
			out, err := own.CombinedOutput()
			if err == nil || !strings.Contains(string(out), test.want) {
				t.Errorf("%v:\n%s", err, out)
			}
		})
	}
}
