package rpcauth_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/rpcauth"
)

// accountOf is an account of the options.
func accountOf(o *server.Options, name string) *server.Account {
	return o.Accounts[slices.IndexFunc(o.Accounts, func(a *server.Account) bool { return a.Name == name })]
}

// answering makes BARE import a service "help" of an account, in which "eve" answers, and the
// service of SVC under a subject without prefix.
func answering(t *testing.T, account string) func(*server.Options) {
	return func(o *server.Options) {
		from, bare := accountOf(o, account), accountOf(o, "BARE")
		must(t, from.AddServiceExportWithResponse("help", server.Streamed, nil))
		must(t, bare.AddServiceImport(from, "help", "help"))
		must(t, bare.AddServiceImport(accountOf(o, "SVC"), "my.read", "test.v1.Test.Read"))
		o.Users = append(o.Users, &server.User{Username: "eve", Password: "x", Account: from})
	}
}

// TestAnswerInImporter: an answer that becomes a request, as its subject is one that is imported,
// has no identity, whatever its header is and from whatever account it comes. Of what the NATS
// server copies from the header nothing counts, in the rules, the context and the numbers.
func TestAnswerInImporter(t *testing.T) {
	key, victim := newAccount(t), newUser(t)
	withJWT := fmt.Sprintf(`{"acc":%q,"issuer_key":%[1]q,"jwt":%q,"name_tag":"alice","tags":["warehouse","eu"]}`, key.public, victim.token(t, key, nil))
	for _, account := range []string{"EVIL", "SVC"} {
		srv, _ := imported(t, answering(t, account))
		for _, ruled := range []bool{false, true} {
			opts := []rpcauth.VerifierOption{rpcauth.WithUserNames()}
			if ruled {
				opts = append(opts, rpcauth.Allow("*", rpcauth.Users("root", victim.public), rpcauth.Accounts("ROOT"), rpcauth.Tags("warehouse"), rpcauth.Anyone))
			}
			nc, h := srv.Connect(nats.UserInfo("svc", "x")), newHandlers()
			v := newVerifier(t, nc, opts...)
			s := serve(t, nc, h, v)
			eve, bob := srv.Connect(nats.UserInfo("eve", "x")), srv.Connect(nats.UserInfo("bob", "x"))
			for i, header := range []string{forged, withJWT, `{"acc":"ROOT","svc":""}`, `{"ACC":"ROOT","SVC":"x"}`} {
				sub, err := eve.Subscribe("help", func(m *nats.Msg) {
					_ = eve.PublishMsg(&nats.Msg{Subject: m.Reply, Reply: "any.thing", Header: nats.Header{infoHeader: {header}}})
				})
				must(t, err)
				must(t, eve.Flush())
				must(t, bob.PublishRequest("help", "my.read", nil))
				if id := h.take(t, 1)[0]; id.Kind != rpcauth.KindNone || id.Account != "" || id.User != "" || id.Tags != nil {
					t.Errorf("%s, rules %v: with %s the identity is %+v", account, ruled, header, id)
				}
				if n := v.Stats(); n.Doubtful != uint64(i+1) || n.Accepted[rpcauth.KindNone] != uint64(i+1) || n.Accepted[rpcauth.KindImported] != 0 {
					t.Errorf("%s, rules %v: the numbers are %+v", account, ruled, n)
				}
				must(t, sub.Unsubscribe())
				must(t, eve.Flush())
			}
			must(t, s.Shutdown(testContext(t)))
		}
	}
}

// TestTwoImports: a request that comes through two imports has no identity, also an honest one.
func TestTwoImports(t *testing.T) {
	srv, _ := imported(t, chained)
	nc, h, log := srv.Connect(nats.UserInfo("svc", "x")), newHandlers(), new(records)
	v := newVerifier(t, nc, rpcauth.WithLogger(log.logger()))
	serve(t, nc, h, v)
	must(t, read(t, dial(t, srv.Connect(nats.UserInfo("carol", "x")))))
	if id := h.take(t, 1)[0]; id.Kind != rpcauth.KindNone || id.Account != "" {
		t.Errorf("the identity is %+v", id)
	}
	if n, logged := v.Stats().Doubtful, log.take(); n != 1 || len(logged) != 1 || !strings.Contains(logged[0], "two imports") {
		t.Errorf("%d calls were counted, logged was %q", n, logged)
	}
}

// TestNotParsedByNATS: where the NATS server cannot parse a header it may leave it there, so that
// one is not parsed here either. Nor is one that was copied.
func TestNotParsedByNATS(t *testing.T) {
	for _, more := range []string{
		`"rtt":"x"`, `"rtt":1.5`, `"alts":"x"`, `"alts":[1]`, `"stop":1`, `"stop":"x"`, `"client_id":1`, `"nonce":{}`, `"reply":1`,
		`"svc":"x"`, `"SVC":"x"`, `"\u0073vc":"x"`, `"svc":1`,
	} {
		if id, err := rpcauth.ParseInfo(`{"acc":"ROOT",`+more+`}`, true); err == nil {
			t.Errorf("with %s the identity is %+v", more, id)
		}
	}
	id, err := rpcauth.ParseInfo(`{"acc":"A","rtt":1,"alts":["x"],"stop":"2026-11-28T00:00:00Z","client_id":"x","nonce":"x","reply":"x","name":"\"svc\":"}`, true)
	if err != nil || id.Account != "A" {
		t.Errorf("the identity is %+v, %v", id, err)
	}
}
