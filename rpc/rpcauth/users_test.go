package rpcauth_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcauth"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestUsers: which users are believed.
func TestUsers(t *testing.T) {
	account, signing, foreign, foreignSigning := newAccount(t), newAccount(t), newAccount(t), newAccount(t)
	user, plain := newUser(t), newUser(t)
	now := time.Now()
	for _, test := range []struct {
		name   string
		user   keyPair
		token  string // "" for a user without a JWT
		opts   []rpcauth.VerifierOption
		reason rpcauth.Reason // or accepted
	}{
		{"of the account", user, user.token(t, account, nil), nil, accepted},
		{"of another account", user, user.token(t, foreign, nil), nil, rpcauth.ReasonIssuer},
		{"of another account that claims to be the first", user, user.token(t, foreign, func(c *jwt.UserClaims) { c.IssuerAccount = account.public }), nil, rpcauth.ReasonIssuer},
		{"by a signing key", user, user.token(t, signing, func(c *jwt.UserClaims) { c.IssuerAccount = account.public }), nil, accepted},
		{"by a signing key that names no account", user, user.token(t, signing, nil), nil, rpcauth.ReasonIssuer},
		{"by a signing key for another account", user, user.token(t, signing, func(c *jwt.UserClaims) { c.IssuerAccount = foreign.public }), nil, rpcauth.ReasonIssuer},
		{"by an unknown signing key", user, user.token(t, foreignSigning, func(c *jwt.UserClaims) { c.IssuerAccount = account.public }), nil, rpcauth.ReasonIssuer},
		{"without a JWT", plain, "", nil, accepted},
		{"without its JWT", user, "", nil, rpcauth.ReasonIssuer},
		{"unknown, without a JWT", newUser(t), "", nil, rpcauth.ReasonIssuer},
		{"a function knows the account", user, user.token(t, foreign, nil), trusting(foreign.public, foreign.public), accepted},
		{"a function knows the signing key", user, user.token(t, foreignSigning, func(c *jwt.UserClaims) { c.IssuerAccount = foreign.public }), trusting(foreign.public, foreignSigning.public), accepted},
		{"a function knows the user", user, "", trusting("", user.public), accepted},
		{"expired", user, user.token(t, account, func(c *jwt.UserClaims) { c.Expires = now.Add(-31 * time.Second).Unix() }), nil, rpcauth.ReasonUser},
		{"expired within the skew", user, user.token(t, account, func(c *jwt.UserClaims) { c.Expires = now.Add(-10 * time.Second).Unix() }), nil, accepted},
		{"not valid yet", user, user.token(t, account, func(c *jwt.UserClaims) { c.NotBefore = now.Add(time.Hour).Unix() }), nil, rpcauth.ReasonUser},
		{"valid soon", user, user.token(t, account, func(c *jwt.UserClaims) { c.NotBefore = now.Add(10 * time.Second).Unix() }), nil, accepted},
		{"revoked", user, user.token(t, account, nil), revoking(account.public, user.public, now.Add(time.Minute)), rpcauth.ReasonRevoked},
		{"issued after a revocation", user, user.token(t, account, nil), revoking(account.public, user.public, now.Add(-time.Hour)), accepted},
		{"revoked with all", user, user.token(t, account, nil), revoking(account.public, jwt.All, now.Add(time.Minute)), rpcauth.ReasonRevoked},
		{"another account has revoked all", user, user.token(t, account, nil), revoking(foreign.public, jwt.All, now.Add(time.Minute)), accepted},
		{"revoked without a JWT", plain, "", revoking("", plain.public, now.Add(-time.Hour)), rpcauth.ReasonRevoked},
		{"revoked by a function", user, user.token(t, account, nil), []rpcauth.VerifierOption{rpcauth.WithRevoked(func(a, u string, issued time.Time) bool {
			return a == account.public && u == user.public && now.Sub(issued).Abs() < time.Minute
		})}, rpcauth.ReasonRevoked},
		{"revoked by a function, without a JWT", plain, "", []rpcauth.VerifierOption{rpcauth.WithRevoked(func(a, u string, issued time.Time) bool {
			return a == "" && u == plain.public && issued.Unix() == 0
		})}, rpcauth.ReasonRevoked},
	} {
		t.Run(test.name, func(t *testing.T) {
			nc, h := rpctest.Connect(t), newHandlers()
			v := newVerifier(t, nc, append(test.opts, rpcauth.WithIssuers(account.public, plain.public), rpcauth.WithSigningKeys(account.public, signing.public))...)
			serve(t, nc, h, v)
			key := rpcauth.WithSeed(test.user.seed(t))
			if test.token != "" {
				key = rpcauth.WithCredentials(test.user.credentials(t, test.token))
			}
			c := dial(t, nc, signingWith(t, key))
			for range 2 { // the second time the JWT is known, if it was accepted
				before := v.Stats()
				if err := read(t, c); test.reason != accepted {
					wantRefused(t, err, rpc.CodeUnauthenticated, v, before, test.reason)
				} else if must(t, err); h.take(t, 1)[0].User != test.user.public {
					t.Error("it is another user")
				}
			}
		})
	}
}

const accepted rpcauth.Reason = 255

func trusting(account, key string) []rpcauth.VerifierOption {
	return []rpcauth.VerifierOption{rpcauth.WithIssuerFunc(func(a, k string) bool { return a == account && k == key })}
}

func revoking(account, user string, at time.Time) []rpcauth.VerifierOption {
	return []rpcauth.VerifierOption{rpcauth.WithRevocations(account, jwt.RevocationList{user: at.Unix()})}
}

func signingWith(t *testing.T, key rpcauth.SignerOption) rpc.ClientOption {
	return signing(t, nil, key)
}

// TestUserExpiresWhileItIsKnown: a JWT that was accepted is not accepted for longer than it is
// valid, or not revoked.
func TestUserExpiresWhileItIsKnown(t *testing.T) {
	account, user := newAccount(t), newUser(t)
	nc, h, now := rpctest.Connect(t), newHandlers(), newClock()
	revoked := false
	v := newVerifier(t, nc, rpcauth.WithIssuers(account.public), rpcauth.WithClock(now.Now),
		rpcauth.WithRevoked(func(string, string, time.Time) bool { return revoked }))
	serve(t, nc, h, v)
	token := user.token(t, account, func(c *jwt.UserClaims) { c.Expires = now.Now().Add(time.Minute).Unix() })
	c := dial(t, nc, signing(t, nil, rpcauth.WithCredentials(user.credentials(t, token)), rpcauth.WithClock(now.Now)))
	must(t, read(t, c))
	h.take(t, 1)
	revoked = true
	before := v.Stats()
	wantRefused(t, read(t, c), rpc.CodeUnauthenticated, v, before, rpcauth.ReasonRevoked)
	revoked = false
	now.add(2 * time.Minute)
	before = v.Stats()
	wantRefused(t, read(t, c), rpc.CodeUnauthenticated, v, before, rpcauth.ReasonUser)
}

// TestBearerToken: a JWT that is a secret is not sent.
func TestBearerToken(t *testing.T) {
	account, user := newAccount(t), newUser(t)
	token := user.token(t, account, func(c *jwt.UserClaims) { c.BearerToken = true })
	if _, err := rpcauth.NewSigner(nil, rpcauth.WithCredentials(user.credentials(t, token))); err == nil || !strings.Contains(err.Error(), "bearer token") {
		t.Errorf("the error is %v", err)
	}
	if _, err := rpcauth.NewSigner(rpctest.Connect(t, nats.UserJWTAndSeed(token, string(user.seed(t))))); err == nil || !strings.Contains(err.Error(), "bearer token") {
		t.Errorf("the error is %v", err)
	}
}

// TestSomebodyElsesJWT: the JWT of a trusted user does not make another key trusted.
func TestSomebodyElsesJWT(t *testing.T) {
	account, user, thief := newAccount(t), newUser(t), newUser(t)
	decorated, err := jwt.DecorateJWT(user.token(t, account, nil))
	must(t, err)
	seed, err := jwt.DecorateSeed(thief.seed(t))
	must(t, err)
	if _, err := rpcauth.NewSigner(nil, rpcauth.WithCredentials(write(t, "two.creds", append(decorated, seed...)))); err == nil || !strings.Contains(err.Error(), "two users") {
		t.Errorf("the error is %v", err)
	}
	nc, h := rpctest.Connect(t), newHandlers()
	v := newVerifier(t, nc, rpcauth.WithIssuers(account.public), rpcauth.RequireSignature("*"))
	serve(t, nc, h, v)
	before := v.Stats()
	err = read(t, dial(t, nc, signing(t, nil, rpcauth.WithSeed(thief.seed(t))), rpc.WithInterceptors(setJWT(user.token(t, account, nil)))))
	wantRefused(t, err, rpc.CodeUnauthenticated, v, before, rpcauth.ReasonMalformed)
}

// TestRememberedTokens: a JWT is remembered if its user has signed, and other texts that decode to
// the same JWT are refused.
func TestRememberedTokens(t *testing.T) {
	srv := rpctest.NewServer(t)
	account, user := newAccount(t), newUser(t)
	token := user.token(t, account, nil)
	nc, h := srv.Connect(), newHandlers()
	v := newVerifier(t, nc, rpcauth.WithIssuers(account.public), rpcauth.RequireSignature("*"))
	serve(t, nc, h, v)
	client := newRawClient(t, srv.NATS().Addr(), "")
	now := time.Now()
	for i, test := range []struct {
		token  string
		reason rpcauth.Reason
	}{
		{token, rpcauth.ReasonSignature},
		{token[:len(token)-1] + "\r\r" + token[len(token)-1:], rpcauth.ReasonMalformed},
		{token + "=", rpcauth.ReasonMalformed},
		{"." + token, rpcauth.ReasonMalformed},
	} {
		before := v.Stats()
		signature := strings.Join([]string{
			"1", user.public, rpcauth.Millis(now), rpcauth.Millis(now.Add(10 * time.Second)),
			base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, "%016d", i)), "", "", base64.RawURLEncoding.EncodeToString(make([]byte, 64)),
		}, ";")
		client.call(t, "test.v1.Test.Read", "NATS/1.0\r\nNatscall-Ext-Jwt: "+test.token+"\r\nNatscall-Ext-Signature: "+signature+"\r\n\r\n")
		wantCounted(t, v, before, test.reason)
		if n, size := v.Cached(); n != 0 || size != 0 {
			t.Errorf("%d JWTs of %d bytes are remembered", n, size)
		}
	}
	must(t, read(t, dial(t, srv.Connect(), signing(t, nil, rpcauth.WithCredentials(user.credentials(t, token))))))
	if n, size := v.Cached(); n != 1 || size != len(token) {
		t.Errorf("%d JWTs of %d bytes are remembered", n, size)
	}
}

// TestKeysOfTwoAccounts: a key is of one account, in whatever order the options stand.
func TestKeysOfTwoAccounts(t *testing.T) {
	a, b, nc := newAccount(t), newAccount(t), rpctest.Connect(t)
	own, signing := rpcauth.WithIssuers(b.public), rpcauth.WithSigningKeys(a.public, b.public)
	for _, opts := range [][]rpcauth.VerifierOption{{own, signing}, {signing, own}} {
		if _, err := rpcauth.NewVerifier(nc, opts...); err == nil || !strings.Contains(err.Error(), b.public) {
			t.Errorf("the error is %v", err)
		}
	}
	_, err := rpcauth.NewVerifier(nc, own, own, rpcauth.WithSigningKeys(b.public, b.public))
	must(t, err)
}
