package rpcauth_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcauth"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestRules: who may call, by every rule there is.
func TestRules(t *testing.T) {
	none := rpcauth.Identity{}
	app := rpcauth.Identity{Kind: rpcauth.KindImported, Account: "APP", User: "alice", Tags: []string{"a", "b"}}
	bare := rpcauth.Identity{Kind: rpcauth.KindImported, Account: "APP"}
	user := rpcauth.Identity{Kind: rpcauth.KindSigned, User: "U1"}
	for name, test := range map[string]struct {
		rule rpcauth.Rule
		want [4]bool // none, app, bare, user
	}{
		"anyone":        {rpcauth.Anyone, [4]bool{true, true, true, true}},
		"authenticated": {rpcauth.Authenticated, [4]bool{false, true, true, true}},
		"imported":      {rpcauth.Imported, [4]bool{false, true, true, false}},
		"signed":        {rpcauth.Signed, [4]bool{false, false, false, true}},
		"accounts":      {rpcauth.Accounts("X", "APP"), [4]bool{false, true, true, false}},
		"no accounts":   {rpcauth.Accounts(""), [4]bool{}},
		"users":         {rpcauth.Users("alice", "U1", ""), [4]bool{false, true, false, true}},
		"tags":          {rpcauth.Tags("A", "b"), [4]bool{false, true, false, false}},
		"more tags":     {rpcauth.Tags("a", "c"), [4]bool{}},
		"no tags":       {rpcauth.Tags(), [4]bool{}},
	} {
		for i, id := range []rpcauth.Identity{none, app, bare, user} {
			if got := test.rule(t.Context(), nil, &id); got != test.want[i] {
				t.Errorf("%s of %v: %v", name, id, got)
			}
		}
	}
}

// TestAllow: the most specific pattern counts, rules see the call, and those who may not call are
// told so, counted and logged once a second.
func TestAllow(t *testing.T) {
	srv, _ := imported(t)
	nc, h, log, now := srv.Connect(nats.UserInfo("svc", "x")), newHandlers(), new(records), newClock()
	v := newVerifier(t, nc, rpcauth.WithLogger(log.logger()), rpcauth.WithClock(now.Now),
		rpcauth.Allow("*"), // nobody
		rpcauth.Allow("/test.v1.Test/*", rpcauth.Accounts("SHARE"), func(_ context.Context, call *rpc.Call, id *rpcauth.Identity) bool {
			return call.Header().Get("pass") == "word" && id.Kind == rpcauth.KindImported
		}),
		rpcauth.Allow("/test.v1.Test/Read", rpcauth.Anyone))
	serve(t, nc, h, v)
	alice, bob, inside := dial(t, srv.Connect(nats.UserInfo("alice", "x"))), dial(t, srv.Connect(nats.UserInfo("bob", "x"))), dial(t, nc)
	for _, c := range []*rpc.Client{alice, bob, inside} {
		must(t, read(t, c))
		h.take(t, 1)
	}
	do := func(c *rpc.Client, opts ...rpc.CallOption) error {
		_, err := testDo.Call(testContext(t), c, wrapperspb.String("x"), opts...)
		return err
	}
	must(t, do(alice))
	h.take(t, 1)
	must(t, do(bob, rpc.WithHeader("pass", "word")))
	h.take(t, 1)
	log.take()
	for range 3 {
		before := v.Stats()
		err := do(bob)
		wantRefused(t, err, rpc.CodePermissionDenied, v, before, rpcauth.ReasonDenied)
		if !strings.Contains(err.Error(), `account "BARE"`) {
			t.Errorf("the error is %v", err)
		}
		before = v.Stats()
		wantRefused(t, do(inside, rpc.WithHeader("pass", "word")), rpc.CodeUnauthenticated, v, before, rpcauth.ReasonNoIdentity)
	}
	all := strings.Join(log.take(), "")
	for _, want := range []string{"reason=denied", "reason=no_identity", "method=/test.v1.Test/Do", "level=WARN", "subject=test.v1.Test.Do"} {
		if !strings.Contains(all, want) {
			t.Errorf("the log has no %s: %s", want, all)
		}
	}
	if n := strings.Count(all, "\n"); n != 2 {
		t.Errorf("%d records: %s", n, all)
	}
	now.add(2e9)
	_ = do(bob)
	if all := strings.Join(log.take(), ""); !strings.Contains(all, "unlogged=2") {
		t.Errorf("the log is %s", all)
	}
}

// TestDeniedBeforeDecoding: what may not be called is not decoded, and a call that is denied does
// not spend its signature.
func TestDeniedBeforeDecoding(t *testing.T) {
	nc, h, user := rpctest.Connect(t), newHandlers(), newUser(t)
	v := newVerifier(t, nc, rpcauth.WithIssuers(user.public), rpcauth.Allow("*", rpcauth.Users("somebody else")))
	serve(t, nc, h, v)
	reply, err := nc.Request("test.v1.Test.Read", []byte("\xff\xff is no message"), 30e9)
	must(t, err)
	if code := reply.Header.Get("Nats-Service-Error-Code"); code != "16" || reply.Header.Get("Natscall-Not-Run") != "1" {
		t.Errorf("the answer is %v", reply.Header)
	}
	before := v.Stats()
	wantRefused(t, read(t, dial(t, nc, signing(t, nil, rpcauth.WithSeed(user.seed(t))))), rpc.CodePermissionDenied, v, before, rpcauth.ReasonDenied)
	if n := v.Stats().Remembered; n != 0 {
		t.Errorf("%d signatures are remembered", n)
	}
}

// TestWrongOptions: settings that make no sense are refused.
func TestWrongOptions(t *testing.T) {
	nc, user, account := rpctest.Connect(t), newUser(t), newAccount(t)
	for name, opts := range map[string][]rpcauth.VerifierOption{
		"is nil":                           {nil},
		"no public key of an account or":   {rpcauth.WithIssuers("x")},
		"WithSigningKeys":                  {rpcauth.WithSigningKeys("x")},
		"no public key of an account":      {rpcauth.WithSigningKeys(account.public, user.public)},
		"is a key of":                      {rpcauth.WithIssuers(account.public), rpcauth.WithSigningKeys(newAccount(t).public, account.public)},
		"WithIssuerFunc: nil":              {rpcauth.WithIssuerFunc(nil)},
		"WithRevoked: nil":                 {rpcauth.WithRevoked(nil)},
		"WithReplayStore: nil":             {rpcauth.WithReplayStore(nil)},
		"WithSubject: nil":                 {rpcauth.WithSubject(nil)},
		"WithLogger: nil":                  {rpcauth.WithLogger(nil)},
		"WithClockSkew(-1s)":               {rpcauth.WithClockSkew(-1e9)},
		"WithMaxLifetime(0s)":              {rpcauth.WithMaxLifetime(0)},
		"WithReplayWindow(-1)":             {rpcauth.WithReplayWindow(-1)},
		"WithVulnerableServers(7)":         {rpcauth.WithVulnerableServers(7)},
		`"a b" is no audience`:             {rpcauth.WithAudience("a b")},
		`"a b" is no name of a header`:     {rpcauth.WithCoveredHeaders("a b")},
		"is part of the signature":         {rpcauth.WithCoveredHeaders("natscall-ext-jwt")},
		`"test.v1.Test/Do" is no method`:   {rpcauth.Allow("test.v1.Test/Do")},
		`"/test.v1.Test/D*" is no method`:  {rpcauth.Allow("/test.v1.Test/D*")},
		`"/*" is no method`:                {rpcauth.Allow("/*")},
		`"" is no method`:                  {rpcauth.Allow("")},
		"a rule is nil":                    {rpcauth.Allow("*", nil)},
		`"*" is there twice`:               {rpcauth.Allow("*"), rpcauth.Allow("*")},
		"RequireSignature: ":               {rpcauth.WithIssuers(user.public), rpcauth.RequireSignature("x")},
		"RequireSignature needs issuers":   {rpcauth.RequireSignature("*")},
		"WithVulnerableServers(2)":         {rpcauth.WithVulnerableServers(rpcauth.Warn + 1)},
		"are too many":                     {rpcauth.WithCoveredHeaders(manyNames()...)},
		"WithMaxLifetime(25h0m0s)":         {rpcauth.WithMaxLifetime(25 * 3600e9)},
		"WithClockSkew(2h0m0s): it is fro": {rpcauth.WithClockSkew(2 * 3600e9)},
	} {
		if _, err := rpcauth.NewVerifier(nc, opts...); err == nil || !strings.Contains(err.Error(), name) || !strings.HasPrefix(err.Error(), "rpcauth: ") {
			t.Errorf("the error is %v, want %q in it", err, name)
		}
	}
	if _, err := rpcauth.NewVerifier(nil); err == nil {
		t.Error("there is no connection")
	}
	for name, opts := range map[string][]rpcauth.SignerOption{
		"does not log in with an NKey": {},
		"is nil":                       {nil},
		"WithSeed":                     {rpcauth.WithSeed([]byte("x"))},
		"not that of a user":           {rpcauth.WithSeed(account.seed(t))},
		"WithCredentials":              {rpcauth.WithCredentials("/nowhere/at/all")},
		"WithCredentials: ":            {rpcauth.WithCredentials(write(t, "x", []byte("x")))},
		"WithLifetime(0s)":             {rpcauth.WithLifetime(0)},
		"is no name of a header":       {rpcauth.WithSignedHeaders("")},
		"WithMethods":                  {rpcauth.WithMethods("Do")},
		"is no audience":               {rpcauth.WithAudience(strings.Repeat("x", 256))},
	} {
		if _, err := rpcauth.NewSigner(nc, opts...); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("the error is %v, want %q in it", err, name)
		}
	}
}

func manyNames() (names []string) {
	for i := range 65 {
		names = append(names, fmt.Sprint("h", i))
	}
	return names
}

// TestWithMethods: a client signs the calls of some methods only.
func TestWithMethods(t *testing.T) {
	nc, h, user := rpctest.Connect(t), newHandlers(), newUser(t)
	serve(t, nc, h, newVerifier(t, nc, rpcauth.WithIssuers(user.public)))
	c := dial(t, nc, signing(t, nil, rpcauth.WithSeed(user.seed(t)), rpcauth.WithMethods("/test.v1.Test/Do", "/other.Service/*")))
	must(t, read(t, c))
	must(t, shapes["unary"](testContext(t), c))
	if ids := h.take(t, 2); ids[0].Kind != rpcauth.KindNone || ids[1].Kind != rpcauth.KindSigned {
		t.Errorf("the identities are %+v", ids)
	}
}

// TestWrongSide: an interceptor on the wrong side is an error, and no hole.
func TestWrongSide(t *testing.T) {
	nc, h, user := rpctest.Connect(t), newHandlers(), newUser(t)
	v := newVerifier(t, nc)
	signer, err := rpcauth.NewSigner(nil, rpcauth.WithSeed(user.seed(t)))
	must(t, err)
	serve(t, nc, h, v, signer)
	for _, c := range []*rpc.Client{dial(t, nc), dial(t, nc, rpc.WithInterceptors(v.Intercept))} {
		if err := read(t, c); rpc.CodeOf(err) != rpc.CodeInternal {
			t.Errorf("the error is %v", err)
		}
	}
	h.take(t, 0)
}

// TestCombinedRules: All takes each rule, Of one of them and the account.
func TestCombinedRules(t *testing.T) {
	id := &rpcauth.Identity{Kind: rpcauth.KindImported, Account: "SHOP", User: "alice", Tags: []string{"eu"}}
	no := func(context.Context, *rpc.Call, *rpcauth.Identity) bool { return false }
	for name, test := range map[string]struct {
		rule rpcauth.Rule
		want bool
	}{
		"all":             {rpcauth.All(rpcauth.Users("alice"), rpcauth.Tags("eu")), true},
		"all but one":     {rpcauth.All(rpcauth.Users("alice"), no), false},
		"all of none":     {rpcauth.All(), false},
		"all with nil":    {rpcauth.All(rpcauth.Anyone, nil), false},
		"of":              {rpcauth.Of("SHOP", no, rpcauth.Tags("eu")), true},
		"of another":      {rpcauth.Of("OTHER", rpcauth.Tags("eu")), false},
		"of without":      {rpcauth.Of("SHOP"), false},
		"of, none":        {rpcauth.Of("SHOP", no, nil), false},
		"of no account":   {rpcauth.Of("", rpcauth.Anyone), false},
		"of all of these": {rpcauth.Of("SHOP", rpcauth.All(rpcauth.Users("alice"), no)), false},
	} {
		if got := test.rule(t.Context(), nil, id); got != test.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	if rpcauth.Of("SHOP", rpcauth.Anyone)(t.Context(), nil, &rpcauth.Identity{Account: "SHOP"}) {
		t.Error("an identity without proof is accepted")
	}
}

// TestTenants: an account that imports the service makes JWTs with any tag, and bearer JWTs for any
// user. Neither makes its users those of another account.
func TestTenants(t *testing.T) {
	operator := newKey(t, nkeys.CreateOperator)
	system, svc, tenant, evil := newAccount(t), newAccount(t), newAccount(t), newAccount(t)
	resolver := &server.MemAccResolver{}
	for _, a := range []keyPair{system, svc, tenant, evil} {
		claims := jwt.NewAccountClaims(a.public)
		switch a {
		case svc:
			claims.Exports.Add(&jwt.Export{Subject: "test.v1.Test.>", Type: jwt.Service, ResponseType: jwt.ResponseTypeStream})
		case tenant, evil:
			claims.Imports.Add(&jwt.Import{Account: svc.public, Subject: "test.v1.Test.>", LocalSubject: "test.v1.Test.>", Type: jwt.Service, Share: true})
		}
		token, err := claims.Encode(operator)
		must(t, err)
		must(t, resolver.Store(a.public, token))
	}
	trusted := jwt.NewOperatorClaims(operator.public)
	trusted.SystemAccount = system.public
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
		o.TrustedOperators = []*jwt.OperatorClaims{trusted}
		o.AccountResolver, o.SystemAccount = resolver, system.public
	}))
	alice, bob, inside := newUser(t), newUser(t), newUser(t)
	nc, h := srv.Connect(nats.UserCredentials(inside.credentials(t, inside.token(t, svc, nil)))), newHandlers()
	v := newVerifier(t, nc, rpcauth.Allow("/test.v1.Test/Read", rpcauth.Users(alice.public)),
		rpcauth.Allow("/test.v1.Test/Do", rpcauth.Of(tenant.public, rpcauth.Tags("warehouse"))))
	serve(t, nc, h, v)
	bearer := alice.token(t, evil, func(c *jwt.UserClaims) { c.BearerToken = true })
	for name, test := range map[string]struct {
		login      nats.Option
		read, does bool
	}{
		"alice":               {nats.UserCredentials(alice.credentials(t, alice.token(t, tenant, nil))), true, true},
		"bob":                 {nats.UserCredentials(bob.credentials(t, bob.token(t, tenant, nil))), false, true},
		"bob of evil":         {nats.UserCredentials(bob.credentials(t, bob.token(t, evil, nil))), false, false},
		"evil's bearer alice": {nats.UserJWT(func() (string, error) { return bearer, nil }, func([]byte) ([]byte, error) { return nil, nil }), false, false},
	} {
		c := dial(t, srv.Connect(test.login))
		for _, call := range []struct {
			err  error
			pass bool
		}{{read(t, c), test.read}, {shapes["unary"](testContext(t), c), test.does}} {
			if (call.err == nil) != call.pass || !call.pass && rpc.CodeOf(call.err) != rpc.CodePermissionDenied {
				t.Errorf("%s: %v", name, call.err)
			}
		}
	}
}
