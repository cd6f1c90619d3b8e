package rpcauth_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcauth"
	"github.com/natscall/natscall/rpc/rpctest"
)

// rawClient is a client that writes what it likes.
type rawClient struct {
	net.Conn
	r *bufio.Reader
}

func newRawClient(t testing.TB, srv fmt.Stringer, user string) *rawClient {
	t.Helper()
	conn, err := net.Dial("tcp", srv.String())
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	c := &rawClient{conn, bufio.NewReader(conn)}
	_, err = fmt.Fprintf(conn, "CONNECT {\"verbose\":false,\"headers\":true,\"no_responders\":true,\"user\":%q,\"pass\":\"x\"}\r\nSUB back 1\r\n", user)
	must(t, err)
	return c
}

// call sends a plain request with a header, and returns what the NATS server sends back first: the
// answer, or an error.
func (c *rawClient) call(t testing.TB, subject, header string) string {
	t.Helper()
	_, err := fmt.Fprintf(c, "HPUB %s back %d %d\r\n%s\r\n", subject, len(header), len(header), header)
	must(t, err)
	must(t, c.SetReadDeadline(time.Now().Add(time.Minute)))
	for {
		line, err := c.r.ReadString('\n')
		must(t, err)
		if strings.HasPrefix(line, "HMSG") || strings.HasPrefix(line, "MSG") || strings.HasPrefix(line, "-ERR") {
			return line
		}
	}
}

// unlogged keeps nats.go from logging headers that are not valid.
var unlogged = nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})

// traced makes NATS trace requests beyond the import.
func traced(t testing.TB, srv *server.Server) {
	t.Helper()
	svc, err := srv.LookupAccount("SVC")
	must(t, err)
	must(t, svc.SetServiceExportAllowTrace("test.v1.Test.>", true))
}

// TestForgedByLineEnds: a client in an importing account cannot keep nats.go from reading what the
// NATS server says, and have its own header taken for that.
func TestForgedByLineEnds(t *testing.T) {
	for _, allowTrace := range []bool{false, true} {
		srv, _ := imported(t)
		if allowTrace {
			traced(t, srv.NATS())
		}
		testForgedByLineEnds(t, srv)
	}
}

func testForgedByLineEnds(t *testing.T, srv *rpctest.Server) {
	nc, h := srv.Connect(nats.UserInfo("svc", "x"), unlogged), newHandlers()
	v := newVerifier(t, nc, rpcauth.WithUserNames())
	serve(t, nc, h, v)
	lie := "Nats-Request-Info: " + forged
	for i, header := range []string{
		"NATS/1.0\n" + lie + "\n\nX: y\r\n\r\n",
		"NATS/1.0\r\nA: b\n" + lie + "\n\nX: y\r\n\r\n",
		"NATS/1.0\r\nA: b\n" + lie + "\r\n\r\nX: y\r\n\r\n",
		"NATS/1.0\r\nA: b\n" + lie + "\nX: y??",
		"NATS/1.0\r\nA: b\n" + lie + "\n:??",
		"NATS/1.0\r\nA: b\n" + lie + "\nX??",
		"NATS/1.0\r\nA: Nats-Request-Info\n" + lie + "\n\n\r\n\r\n",
		"NATS/1.0\n" + strings.Repeat("a:\n", 40) + lie + "\n\n\r\n\r\n",
		// Here NATS takes its own line out again, with the key that it stands behind.
		"NATS/1.0\r\nNats-Trace-Dest: t\r\nX: y\n" + lie + "\r\nNats-Trace-Dest:x??",
		"NATS/1.0\r\nNats-Trace-Dest: t\r\nX: y\n" + lie + "\n\r\nNats-Trace-Dest:x??",
		"NATS/1.0\r\nNats-Trace-Dest: t\r\nX: y\n" + lie + "\n\r\nNats-Trace-Dest:x\r\nNats-Trace-Hop:??",
		"NATS/1.0 503\r\nA: b\r\n\r\n",
		"NATS/1.0 503 x\n" + lie + "\n\n\r\n\r\n",
	} {
		for _, user := range []string{"alice", "bob"} {
			before := v.Stats().Doubtful
			answer := newRawClient(t, srv.NATS().Addr(), user).call(t, "test.v1.Test.Read", header)
			if strings.HasPrefix(answer, "-ERR") {
				t.Fatalf("%d: %s", i, answer)
			}
			for _, id := range h.all() {
				if id.Kind != rpcauth.KindNone || id.Account != "" || v.Stats().Doubtful == before {
					t.Errorf("%d: %s has the identity %+v", i, user, id)
				}
			}
		}
	}
}

// TestManyHeaderLines: up to eight lines of a caller leave no room to hide in.
func TestManyHeaderLines(t *testing.T) {
	srv, _ := imported(t)
	nc, h, log := srv.Connect(nats.UserInfo("svc", "x")), newHandlers(), new(records)
	v := newVerifier(t, nc, rpcauth.WithLogger(log.logger()))
	serve(t, nc, h, v)
	c := dial(t, srv.Connect(nats.UserInfo("alice", "x")))
	for n := range 12 {
		var header []rpc.CallOption
		for i := range n {
			header = append(header, rpc.WithHeader(fmt.Sprint("key-", i), "value"))
		}
		must(t, read(t, c, header...))
		if id := h.take(t, 1)[0]; (id.Account == "SHARE") != (n <= 8) || (id.Kind == rpcauth.KindNone) != (n > 8) {
			t.Errorf("with %d lines the identity is %+v", n, id)
		}
	}
	if n, logged := v.Stats().Doubtful, log.take(); n != 3 || len(logged) != 1 || !strings.Contains(logged[0], "eight lines") {
		t.Errorf("%d calls were counted, logged was %q", n, logged)
	}
}

// fragments are what forged headers are made of.
var fragments = []string{
	"\r\n", "\n", "\r", "\n\n", "\r\n\r\n", ":", " ", "\t", "a:", "a:b", "X: y", "a:\n", "a: b\r\n", "\x00", "é",
	"Nats-Request-Info: " + forged, "Nats-Request-Info:" + forged + "\n", "Nats-Request-Info: " + forged + "\r\n", "Nats-Request-Info", "Nats-Request-Info:",
	"nats-request-info: " + forged + "\r\n", "Nats-Request-Info :" + forged, `{"acc":"ROOT","x":"`, "Nats-Request-InfoNats-Request-Info",
	"Nats-Trace-Dest: trace\r\nX: y\nNats-Request-Info: " + forged + "\r\nNats-Trace-Dest:", "Nats-Trace-Dest: trace\r\n", "Nats-Trace-Dest:x", "\r\nNats-Trace-Dest:", "Nats-Trace-Hop: 1\r\n", "\r\nNats-Trace-Hop:", "Nats-Trace-Only: 0\r\n",
	"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n", "Nats-Trace-Origin-Account: x\r\n", "Status: 503\r\n", " 503 x",
	"Nats-Trace-Dest: Nats-Request-InfoNats-Request-Info\r\n",
}

// TestForgedAtRandom: whatever a client in an importing account writes as its header, its identity
// is its own or none. Most headers that are in order give it one.
func TestForgedAtRandom(t *testing.T) {
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 0))
	srv, _ := imported(t, chained)
	traced(t, srv.NATS())
	nc, h := srv.Connect(nats.UserInfo("svc", "x"), unlogged), newHandlers()
	serve(t, nc, h, newVerifier(t, nc, rpcauth.WithUserNames()))
	clients := map[string]*rawClient{}
	proved := 0
	const rounds = 3000
	for range rounds {
		header := randomHeader(random)
		user := []string{"alice", "bob", "carol"}[random.IntN(3)]
		if clients[user] == nil {
			clients[user] = newRawClient(t, srv.NATS().Addr(), user)
		}
		if strings.HasPrefix(clients[user].call(t, "test.v1.Test.Read", header), "-ERR") {
			delete(clients, user) // the NATS server may have closed the connection
		}
		for _, id := range h.all() {
			account := map[string]string{"alice": "SHARE", "bob": "BARE", "carol": "CHAIN"}[user]
			name := map[string]string{"alice": "alice"}[user]
			if id.Kind == rpcauth.KindImported {
				proved++
			}
			if id.Kind != rpcauth.KindNone && (id.Account != account || id.User != name) || id.Kind == rpcauth.KindNone && (id.Account != "" || id.User != "") {
				t.Fatalf("seed %d: %s with %q is taken for %+v", seed, user, header, id)
			}
		}
	}
	if proved < rounds/100 {
		t.Errorf("seed %d: only %d of %d calls have an identity", seed, proved, rounds)
	}
}

// randomHeader begins as a header does, and mostly ends as one.
func randomHeader(random *rand.Rand) string {
	header := "NATS/1.0" + []string{"\r\n", "\n"}[random.IntN(2)]
	for range random.IntN(8) {
		header += fragments[random.IntN(len(fragments))]
	}
	return header + []string{"\r\n\r\n", "\r\n\r\n", "\r\n", "??", "\n\n", "\n\n\r\n\r\n"}[random.IntN(6)]
}

// chained adds the account CHAIN, which imports what SHARE imports and exports again.
func chained(o *server.Options) {
	chain := server.NewAccount("CHAIN")
	o.Accounts = append(o.Accounts, chain)
	o.Users = append(o.Users, &server.User{Username: "carol", Password: "x", Account: chain})
	i := slices.IndexFunc(o.Accounts, func(a *server.Account) bool { return a.Name == "SHARE" })
	share := o.Accounts[i]
	if err := share.AddServiceExportWithResponse("test.v1.Test.>", server.Streamed, nil); err != nil {
		panic(err)
	}
	if err := chain.AddServiceImport(share, "test.v1.Test.>", "test.v1.Test.>"); err != nil {
		panic(err)
	}
}
