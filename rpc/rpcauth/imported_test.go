package rpcauth_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcauth"
	"github.com/natscall/natscall/rpc/rpctest"
)

const infoHeader = "Nats-Request-Info"

// forged is a header that no NATS server has written.
const forged = `{"acc":"ROOT","user":"root","host":"10.0.0.1","id":1}`

// imported is a NATS server on which the accounts SHARE and BARE import the service of SVC, the
// former with share: true, and SVC imports one of EVIL.
func imported(t *testing.T, more ...func(*server.Options)) (srv *rpctest.Server, users map[string]nats.Option) {
	t.Helper()
	user := newUser(t)
	srv = rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
		svc, share, bare, evil := server.NewAccount("SVC"), server.NewAccount("SHARE"), server.NewAccount("BARE"), server.NewAccount("EVIL")
		for _, subject := range []string{"test.v1.Test.>", "notes.new"} {
			must(t, svc.AddServiceExportWithResponse(subject, server.Streamed, nil))
			must(t, share.AddServiceImport(svc, subject, subject))
			must(t, share.SetServiceImportSharing(svc, subject, true))
			must(t, bare.AddServiceImport(svc, subject, subject))
		}
		must(t, evil.AddServiceExportWithResponse("evil.>", server.Streamed, nil))
		must(t, svc.AddServiceImport(evil, "evil.>", "evil.>"))
		o.Accounts = []*server.Account{svc, share, bare, evil}
		for name, account := range map[string]*server.Account{"svc": svc, "alice": share, "bob": bare, "mallory": evil} {
			o.Users = append(o.Users, &server.User{Username: name, Password: "x", Account: account})
		}
		o.Nkeys = []*server.NkeyUser{{Nkey: user.public, Account: share}}
		for _, f := range more {
			f(o)
		}
	}))
	seed, err := nats.NkeyOptionFromSeed(write(t, "user.nk", user.seed(t)))
	must(t, err)
	return srv, map[string]nats.Option{user.public: seed}
}

// TestImported: what the NATS server says of callers in other accounts, for calls of every shape.
func TestImported(t *testing.T) {
	srv, nkey := imported(t)
	nc, h := srv.Connect(nats.UserInfo("svc", "x")), newHandlers()
	v := newVerifier(t, nc, rpcauth.WithUserNames(), rpcauth.Allow("/test.v1.Test/Do", rpcauth.Imported))
	serve(t, nc, h, v)
	for user, login := range nkey {
		test := func(account, user, name string, login nats.Option) {
			conn := srv.Connect(login, nats.Name(name))
			c := dial(t, conn)
			for shape, call := range shapes {
				if err := call(testContext(t), c); err != nil {
					t.Fatalf("%s: %v", shape, err)
				}
				id := h.take(t, 1)[0]
				if shape == "one-way" { // without a reply subject there is no proof
					if id.Kind != rpcauth.KindNone || id.Account != "" {
						t.Errorf("%s: the identity is %+v", shape, id)
					}
					continue
				}
				if id.Kind != rpcauth.KindImported || id.Account != account || id.User != user || id.Connection == nil {
					t.Errorf("%s: the identity is %+v", shape, id)
				} else if c := id.Connection; account == "SHARE" && (c.Name != name || c.Host == "" || c.Kind != "Client" || c.Lang != "go" || c.ClientType != "nats" || time.Since(c.Started) > time.Hour) ||
					account == "BARE" && *c != (rpcauth.Connection{}) {
					t.Errorf("%s: the connection is %+v", shape, c)
				}
				if cid, err := conn.GetClientID(); account == "SHARE" && (err != nil || cid != id.Connection.ID) {
					t.Errorf("%s: the connection has the id %d, want %d: %v", shape, id.Connection.ID, cid, err)
				}
			}
		}
		test("SHARE", "alice", "one", nats.UserInfo("alice", "x"))
		test("SHARE", user, "two", login)
		test("BARE", "", "three", nats.UserInfo("bob", "x"))
	}
	if s := v.Stats(); s.Accepted[rpcauth.KindImported] != uint64(3*(len(shapes)-1)) || s.Accepted[rpcauth.KindNone] != 3 {
		t.Errorf("the numbers are %+v", s)
	}
}

// TestBatchOfImported: calls that share a NATS message share what the server says of its sender.
func TestBatchOfImported(t *testing.T) {
	srv, _ := imported(t)
	nc, h := srv.Connect(nats.UserInfo("svc", "x")), newHandlers()
	serve(t, nc, h, newVerifier(t, nc, rpcauth.Allow("*", rpcauth.Accounts("SHARE"))))
	c := dial(t, srv.Connect(nats.UserInfo("alice", "x")), rpc.WithBatching(16<<10))
	errs := make(chan error)
	for range 200 {
		go func() { errs <- read(t, c) }()
	}
	for range 200 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	for _, id := range h.take(t, 200) {
		if id.Account != "SHARE" {
			t.Errorf("the identity is %+v", id)
		}
	}
}

// TestForgedHeader: a client cannot forge who it is, in the service's account or in another one.
func TestForgedHeader(t *testing.T) {
	srv, _ := imported(t)
	nc, h := srv.Connect(nats.UserInfo("svc", "x")), newHandlers()
	v := newVerifier(t, nc, rpcauth.WithUserNames())
	serve(t, nc, h, v)
	for _, test := range []struct {
		user, account string
	}{{"svc", ""}, {"alice", "SHARE"}, {"bob", "BARE"}} {
		refused := make(chan error, 1)
		conn := srv.Connect(nats.UserInfo(test.user, "x"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
		for _, header := range []nats.Header{
			{infoHeader: {forged}},
			{infoHeader: {forged, forged}},
			{strings.ToLower(infoHeader): {forged}},
			{infoHeader: {forged}, strings.ToUpper(infoHeader): {forged}},
		} {
			_, err := conn.RequestMsg(&nats.Msg{Subject: "test.v1.Test.Read", Header: header}, 30*time.Second)
			must(t, err)
			if id := h.take(t, 1)[0]; id.Account != test.account || id.User == "root" || (id.Kind == rpcauth.KindNone) != (test.account == "") {
				t.Errorf("%s with %v: the identity is %+v", test.user, header, id)
			}
		}
		// NATS refuses the reply subject of an import.
		must(t, conn.PublishMsg(&nats.Msg{Subject: "test.v1.Test.Read", Reply: "_R_.aaaaaa.bbbbbb", Header: nats.Header{infoHeader: {forged}}}))
		select {
		case err := <-refused:
			if !strings.Contains(err.Error(), "Permissions Violation for Publish with Reply") {
				t.Errorf("the error is %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("the NATS server has not refused the reply subject")
		}
		h.take(t, 0)
	}
}

// TestAnswerOfAnImportedService shows what docs/identity.md warns of: a service from which the
// account of ours imports can forge identities, with the help of a client in that account.
func TestAnswerOfAnImportedService(t *testing.T) {
	srv, _ := imported(t)
	nc, h := srv.Connect(nats.UserInfo("svc", "x")), newHandlers()
	serve(t, nc, h, newVerifier(t, nc, rpcauth.WithUserNames()))
	evil := srv.Connect(nats.UserInfo("mallory", "x"))
	_, err := evil.Subscribe("evil.help", func(m *nats.Msg) {
		_ = evil.PublishMsg(&nats.Msg{Subject: m.Reply, Reply: "any.thing", Header: nats.Header{infoHeader: {forged}}})
	})
	must(t, err)
	must(t, evil.Flush())
	must(t, srv.Connect(nats.UserInfo("svc", "x")).PublishRequest("evil.help", "test.v1.Test.Read", nil))
	if id := h.take(t, 1)[0]; id.User != "root" {
		t.Errorf("the identity is %+v: NATS refuses this now, and the warning can go", id)
	}
}

// TestVulnerableServer: on a NATS server with CVE-2026-33223 nobody has an identity, unless a
// setting says so, and it is logged.
func TestVulnerableServer(t *testing.T) {
	srv, _ := imported(t)
	var version string
	for _, warn := range []bool{false, true} {
		action := rpcauth.Refuse
		if warn {
			action = rpcauth.Warn
		}
		nc, h, log, now := srv.Connect(nats.UserInfo("svc", "x")), newHandlers(), new(records), newClock()
		v := newVerifier(t, nc, rpcauth.WithServerVersion(func() string { return version }), rpcauth.WithVulnerableServers(action),
			rpcauth.WithLogger(log.logger()), rpcauth.WithClock(now.Now), rpcauth.Allow("/test.v1.Test/Do", rpcauth.Accounts("SHARE")))
		s := serve(t, nc, h, v)
		c := dial(t, srv.Connect(nats.UserInfo("alice", "x")))
		counted, suspect := uint64(0), true
		for _, test := range []struct {
			version string
			trusted bool
		}{{"2.11.14", false}, {"2.12.6", true}, {"", true}, {"2.12.5", false}, {"", false}, {"2.11.15", true}} {
			version = test.version // as if the connection had moved to another server
			now.add(2 * time.Minute)
			must(t, read(t, c)) // perhaps it has waited since the connection has moved
			if id := h.take(t, 1)[0]; id.Kind == rpcauth.KindImported != (warn || test.trusted && !suspect) {
				t.Errorf("%s, from a vulnerable server %v: the identity is %+v", version, suspect, id)
			}
			if !test.trusted || suspect {
				counted++
			}
			log.take()
			suspect = !test.trusted
			now.add(2 * time.Minute)
			believed := test.trusted || warn
			want := rpcauth.KindNone
			if believed {
				want = rpcauth.KindImported
			}
			must(t, read(t, c))
			if id := h.take(t, 1)[0]; id.Kind != want {
				t.Errorf("%s: the identity is %+v", version, id)
			}
			if !test.trusted {
				counted += 2
			}
			before := v.Stats()
			err := shapes["unary"](testContext(t), c)
			if believed {
				must(t, err)
				h.take(t, 1)
			} else {
				wantRefused(t, err, rpc.CodeUnauthenticated, v, before, rpcauth.ReasonNoIdentity)
			}
			logged := slices.DeleteFunc(log.take(), func(r string) bool { return !strings.Contains(r, "CVE-2026-33223") })
			if want := map[bool]int{true: 0, false: 1}[test.trusted]; len(logged) != want || want > 0 && !strings.Contains(logged[0], fmt.Sprint("believed=", warn)) {
				t.Errorf("%s: logged %v", version, logged)
			}
		}
		if n := v.Stats().Vulnerable; n != counted {
			t.Errorf("%d calls were counted, want %d", n, counted)
		}
		must(t, s.Shutdown(testContext(t)))
	}
}

// TestWithoutConnection: a call that is judged while the connection is lost, or draining, came by
// the server before.
func TestWithoutConnection(t *testing.T) {
	srv, _ := imported(t)
	for version, want := range map[string]rpcauth.Kind{"2.15.2": rpcauth.KindImported, "2.12.5": rpcauth.KindNone, "": rpcauth.KindNone} {
		nc, h := srv.Connect(nats.UserInfo("svc", "x")), newHandlers()
		now := version
		v := newVerifier(t, nc, rpcauth.WithServerVersion(func() string { return now }))
		s := serve(t, nc, h, v)
		now = ""
		must(t, read(t, dial(t, srv.Connect(nats.UserInfo("alice", "x")))))
		if id := h.take(t, 1)[0]; id.Kind != want {
			t.Errorf("%q: the identity is %+v", version, id)
		}
		must(t, s.Shutdown(testContext(t)))
	}
}

func TestIsVulnerable(t *testing.T) {
	for version, want := range map[string]bool{
		"2.15.2": false, "2.12.6": false, "2.12.7": false, "2.11.15": false, "2.11.16": false, "2.13.0": false, "v2.12.6": false,
		"2.15.0-RC.1": false, "2.12.8-RC.1": false, "2.11.17-RC.1": false, "2.14.1-RC.2": true, "2.14.2-RC.1": false, "3.0.0": false,
		"2.13.0-beta.1": true, "2.14.0-RC.1": true, "2.12.7-RC.1": true, "2.11.16-RC.1": true,
		"2.12.5": true, "2.12.0": true, "2.11.14": true, "2.11.0": true, "2.10.29": true, "2.9.0": true, "1.4.1": true,
		"2.12.6-RC.1": true, "2.11.15-preview.2": true, "": true, "2.12": true, "x": true, "2.x.6": true, "2.12.6.1": true, "2.12.-6": true, "2.13.0-": true,
	} {
		if got := rpcauth.IsVulnerable(version); got != want {
			t.Errorf("%q is vulnerable: %v, want %v", version, got, want)
		}
	}
}

// TestOperatorMode: accounts and users with JWTs, an import that shares, and a client that signs
// with the credentials of its connection, which it shows to the NATS server too.
func TestOperatorMode(t *testing.T) {
	operator := newKey(t, nkeys.CreateOperator)
	system, svc, app := newAccount(t), newAccount(t), newAccount(t)
	resolver := &server.MemAccResolver{}
	account := func(a keyPair, change func(*jwt.AccountClaims)) {
		claims := jwt.NewAccountClaims(a.public)
		change(claims)
		token, err := claims.Encode(operator)
		must(t, err)
		must(t, resolver.Store(a.public, token))
	}
	account(system, func(*jwt.AccountClaims) {})
	account(svc, func(c *jwt.AccountClaims) {
		c.Exports.Add(&jwt.Export{Subject: "test.v1.Test.>", Type: jwt.Service, ResponseType: jwt.ResponseTypeStream})
	})
	account(app, func(c *jwt.AccountClaims) {
		c.Imports.Add(&jwt.Import{Account: svc.public, Subject: "test.v1.Test.>", LocalSubject: "ext.test.v1.Test.>", Type: jwt.Service, Share: true})
	})
	trusted := jwt.NewOperatorClaims(operator.public)
	trusted.SystemAccount = system.public
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
		o.TrustedOperators = []*jwt.OperatorClaims{trusted}
		o.AccountResolver, o.SystemAccount = resolver, system.public
	}))
	alice, inside := newUser(t), newUser(t)
	token := alice.token(t, app, nil)
	login := nats.UserCredentials(alice.credentials(t, token))
	nc, h := srv.Connect(nats.UserCredentials(inside.credentials(t, inside.token(t, svc, nil)))), newHandlers()
	serve(t, nc, h, newVerifier(t, nc, rpcauth.WithIssuers(svc.public, app.public), rpcauth.WithSubject(func(call *rpc.Call) string {
		if strings.HasPrefix(call.Peer().Reply, "_R_.") {
			return "ext." + call.Subject()
		}
		return call.Subject()
	})))

	for claimed, conn := range map[string]*nats.Conn{alice.public: srv.Connect(login), "root": srv.Connect(login, nats.UserInfo("root", "x"))} {
		must(t, read(t, dial(t, conn, rpc.WithSubjectPrefix("ext"))))
		id := h.take(t, 1)[0]
		if id.Kind != rpcauth.KindImported || id.Account != app.public || id.User != alice.public || id.Name != "alice" || id.Issuer != app.public ||
			!slices.Equal(id.Tags, []string{"warehouse", "eu"}) || id.Connection.User != claimed {
			t.Errorf("the identity of an imported call is %+v, %+v", id, id.Connection)
		}
	}
	conn := srv.Connect(login)
	must(t, read(t, dial(t, conn, rpc.WithSubjectPrefix("ext"), signing(t, conn))))
	if id := h.take(t, 1)[0]; id.Kind != rpcauth.KindSigned || id.Account != app.public || id.User != alice.public || id.Claims.Name != "alice" {
		t.Errorf("the identity of a signed call from another account is %+v", id)
	}
	must(t, read(t, dial(t, nc, signing(t, nc))))
	if id := h.take(t, 1)[0]; id.Kind != rpcauth.KindSigned || id.Account != svc.public || id.User != inside.public {
		t.Errorf("the identity of a signed call is %+v", id)
	}
}

// TestClaimedUser: a client that logs in as one user and sends the NKey of another makes the NATS
// server name the latter, so nobody is believed to be a user for that. With an NKey among the users
// of the server such a client does not get in.
func TestClaimedUser(t *testing.T) {
	for _, withNkeys := range []bool{false, true} {
		srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
			svc, share := server.NewAccount("SVC"), server.NewAccount("SHARE")
			must(t, svc.AddServiceExport("test.v1.Test.>", nil))
			must(t, share.AddServiceImport(svc, "test.v1.Test.>", "test.v1.Test.>"))
			must(t, share.SetServiceImportSharing(svc, "test.v1.Test.>", true))
			o.Accounts = []*server.Account{svc, share}
			o.Users = []*server.User{{Username: "svc", Password: "x", Account: svc}, {Username: "alice", Password: "x", Account: share}}
			if withNkeys {
				o.Nkeys = []*server.NkeyUser{{Nkey: newUser(t).public, Account: share}}
			}
		}))
		nc, h := srv.Connect(nats.UserInfo("svc", "x")), newHandlers()
		serve(t, nc, h, newVerifier(t, nc))
		conn, err := net.Dial("tcp", srv.NATS().Addr().String())
		must(t, err)
		defer conn.Close()
		_, err = fmt.Fprint(conn, `CONNECT {"verbose":false,"user":"alice","pass":"x","nkey":"root","jwt":"x","headers":true}`+"\r\n",
			"PUB test.v1.Test.Read _INBOX.x 0\r\n\r\n")
		must(t, err)
		if withNkeys {
			answer, err := io.ReadAll(conn)
			if err != nil || !strings.Contains(string(answer), "-ERR 'Authorization Violation'") {
				t.Errorf("%q, %v", answer, err)
			}
			h.take(t, 0)
		} else if id := h.take(t, 1)[0]; id.Account != "SHARE" || id.User != "" || id.Connection.User != "root" {
			t.Errorf("the identity is %+v, %+v", id, id.Connection)
		}
	}
}

// TestToken: a user with a token is none.
func TestToken(t *testing.T) {
	id, err := rpcauth.ParseInfo(`{"acc":"APP","user":"[REDACTED]","host":"127.0.0.1"}`, true)
	if err != nil || id.User != "" || id.Account != "APP" || id.Connection.User != "" {
		t.Errorf("%+v, %v", id, err)
	}
	for _, wrong := range []string{"", "{", "null", "{}", `{"user":"x"}`, `{"acc":1}`, `{"acc":"A","tags":"x"}`, `{"acc":"` + strings.Repeat("x", 300<<10) + `"}`} {
		if id, err := rpcauth.ParseInfo(wrong, true); err == nil {
			t.Errorf("%.100s is %+v", wrong, id)
		}
	}
}

// TestJWTOfAnother: the JWT in the header counts only if it is what the rest of the header says.
func TestJWTOfAnother(t *testing.T) {
	account, signing, foreign, user := newAccount(t), newAccount(t), newAccount(t), newUser(t)
	own := user.token(t, account, nil)
	bySigning := user.token(t, signing, func(c *jwt.UserClaims) { c.IssuerAccount = account.public })
	for _, test := range []struct {
		token, account, issuer string
		ok                     bool
	}{
		{own, account.public, account.public, true},
		{bySigning, account.public, signing.public, true},
		{bySigning, account.public, account.public, false},
		{own, foreign.public, account.public, false},
		{own, account.public, foreign.public, false},
		{own, account.public, "", false},
		{own[:len(own)-4] + "AAAA", account.public, account.public, false},
		{"x", account.public, account.public, false},
	} {
		header, err := json.Marshal(map[string]any{"acc": test.account, "issuer_key": test.issuer, "jwt": test.token, "user": "root", "name_tag": "alice", "tags": [2]string{"warehouse", "eu"}})
		must(t, err)
		for _, userNames := range []bool{false, true} {
			if id, err := rpcauth.ParseInfo(string(header), userNames); err != nil || (id.User == user.public) != test.ok || id.User == "root" ||
				(id.Name == "alice") != test.ok || (len(id.Tags) == 2) != test.ok || (id.Issuer == test.issuer && id.Issuer != "") != test.ok {
				t.Errorf("%s: the identity is %+v, %v", header, id, err)
			}
		}
	}
}

// TestNameOfAnother: a header that gives the user of a JWT another name or other tags says nothing
// of the user.
func TestNameOfAnother(t *testing.T) {
	account, user := newAccount(t), newUser(t)
	token := user.token(t, account, nil)
	for _, about := range []string{`"tags":["warehouse","eu"]`, `"name_tag":"root","tags":["warehouse","eu"]`, `"name_tag":"alice","tags":["warehouse","eu","admin"]`, `"name_tag":"alice"`} {
		id, err := rpcauth.ParseInfo(fmt.Sprintf(`{"acc":%q,"issuer_key":%[1]q,"jwt":%q,%s}`, account.public, token, about), true)
		if err != nil || id.Account != account.public || id.User != "" || id.Name != "" || id.Tags != nil {
			t.Errorf("%s: the identity is %+v, %v", about, id, err)
		}
	}
}

// FuzzRequestInfo: what is parsed has an account, and is what the JSON says.
func FuzzRequestInfo(f *testing.F) {
	for _, seed := range []string{
		forged, `{"acc":"APP","rtt":183192}`, `{"acc":"A","user":"[REDACTED]","tags":["a","b"],"start":"2026-11-28T00:00:00Z"}`,
		`{"ACC":"x","acc":"y"}`, `{"acc":"A","id":-1}`, `[]`, `{"acc":"A","start":1}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, header string) {
		id, err := rpcauth.ParseInfo(header, true)
		if err != nil {
			if id.Kind != rpcauth.KindNone || id.Account != "" {
				t.Errorf("with an error the identity is %+v", id)
			}
			return
		}
		var info struct{ Acc, User string }
		if err := json.Unmarshal([]byte(header), &info); err != nil {
			t.Fatal(err)
		}
		if id.Kind != rpcauth.KindImported || id.Account == "" || id.Account != info.Acc || id.User != "" && id.User != info.User || id.User == "[REDACTED]" || id.Connection == nil {
			t.Errorf("the identity is %+v", id)
		}
	})
}
