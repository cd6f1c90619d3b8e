package rpctest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/rpctest"
)

// through publishes texts to a subscriber; one of the two is behind a proxy
// that does a to every message whose text begins with "x". It returns what comes before "end".
func through(t *testing.T, to rpctest.Direction, a rpctest.Action, texts ...string) string {
	t.Helper()
	srv := rpctest.NewServer(t)
	proxy := rpctest.NewProxy(t, srv)
	from, dst := srv.Connect(), proxy.Connect()
	if to == rpctest.ToServer {
		from, dst = dst, from
	}
	proxy.Fault(func(m rpctest.Message) rpctest.Action {
		if m.To == to && m.Subject == "a.b" && m.Reply == "r" && strings.HasPrefix(string(m.Data), "x") {
			return a
		}
		return rpctest.Pass
	})
	sub, err := dst.SubscribeSync("a.b")
	must(t, err)
	must(t, dst.Flush())
	for _, text := range append(texts, "end") {
		m := &nats.Msg{Subject: "a.b", Reply: "r", Data: []byte(text)}
		if strings.HasSuffix(text, "h") {
			m.Header = nats.Header{"K": {"v"}}
		}
		must(t, from.PublishMsg(m))
	}
	var got []string
	for {
		m, err := sub.NextMsg(10 * time.Second)
		must(t, err)
		if string(m.Data) == "end" {
			return strings.Join(got, " ")
		}
		got = append(got, string(m.Data)+m.Header.Get("K"))
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestProxyActions(t *testing.T) {
	for name, test := range map[string]struct {
		action rpctest.Action
		want   string
	}{
		"pass":      {rpctest.Pass, "a x1 b x2hv ch" + "v"},
		"lose":      {rpctest.Lose, "a b chv"},
		"duplicate": {rpctest.Duplicate, "a x1 x1 b x2hv x2hv chv"},
		"swap":      {rpctest.Swap, "a b x1 chv x2hv"},
		"delay":     {rpctest.Delay(time.Millisecond), "a x1 b x2hv chv"},
	} {
		for _, to := range []rpctest.Direction{rpctest.ToServer, rpctest.ToClient} {
			t.Run(name+" "+to.String(), func(t *testing.T) {
				if got := through(t, to, test.action, "a", "x1", "b", "x2h", "ch"); got != test.want {
					t.Errorf("%q came, want %q", got, test.want)
				}
			})
		}
	}
}

// TestProxyHeader: the fault function sees headers and directions.
func TestProxyHeader(t *testing.T) {
	srv := rpctest.NewServer(t)
	proxy := rpctest.NewProxy(t, srv)
	nc := proxy.Connect()
	seen := make(chan string, 2)
	proxy.Fault(func(m rpctest.Message) rpctest.Action {
		seen <- m.To.String() + " " + m.Header.Get("K") + " " + string(m.Data)
		return rpctest.Pass
	})
	_, err := nc.SubscribeSync("a")
	must(t, err)
	must(t, nc.PublishMsg(&nats.Msg{Subject: "a", Header: nats.Header{"K": {"v"}}, Data: []byte("text")}))
	for _, want := range []string{"to server v text", "to client v text"} {
		if got := <-seen; got != want {
			t.Errorf("seen: %q, want %q", got, want)
		}
	}
}

// TestProxyCut: a cut connection comes back through the same proxy, and does not after Close.
func TestProxyCut(t *testing.T) {
	srv := rpctest.NewServer(t)
	proxy := rpctest.NewProxy(t, srv)
	down, up := make(chan struct{}, 10), make(chan struct{}, 10)
	nc := proxy.Connect(
		nats.DisconnectErrHandler(func(*nats.Conn, error) { down <- struct{}{} }),
		nats.ReconnectHandler(func(*nats.Conn) { up <- struct{}{} }))
	for name, cut := range map[string]func(){
		"Cut":        proxy.Cut,
		"the action": func() { must(t, nc.Publish("cut", nil)) },
	} {
		proxy.Fault(func(m rpctest.Message) rpctest.Action {
			if m.Subject == "cut" {
				return rpctest.Cut
			}
			return rpctest.Pass
		})
		cut()
		<-down
		<-up
		if err := nc.Flush(); err != nil {
			t.Errorf("after %s: %v", name, err)
		}
	}
	proxy.Close()
	proxy.Close()
	<-down
	if nc.IsConnected() {
		t.Error("connected through a closed proxy")
	}
}

// TestProxyEndsWithHeldMessages: nothing hangs at the end.
func TestProxyEndsWithHeldMessages(t *testing.T) {
	srv := rpctest.NewServer(t)
	for _, a := range []rpctest.Action{rpctest.Swap, rpctest.Delay(time.Hour)} {
		proxy := rpctest.NewProxy(t, srv)
		held := make(chan struct{})
		proxy.Fault(func(rpctest.Message) rpctest.Action { close(held); return a })
		must(t, proxy.Connect().Publish("a", nil))
		<-held
	}
}
