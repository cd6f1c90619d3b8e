package rpcauth_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcauth"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestChangingCredentials: a client signs with the JWT that its connection has now, and asks for it
// every few seconds. Where there is none the call fails and is not sent.
func TestChangingCredentials(t *testing.T) {
	account, one, two := newAccount(t), newUser(t), newUser(t)
	type credentials struct {
		user  keyPair
		token string
		err   error
	}
	var current atomic.Pointer[credentials]
	var asked atomic.Int64
	current.Store(&credentials{one, one.token(t, account, nil), nil})
	nc, h, now := rpctest.Connect(t, nats.UserJWT(
		func() (string, error) { asked.Add(1); c := current.Load(); return c.token, c.err },
		func(b []byte) ([]byte, error) { return current.Load().user.Sign(b) })), newHandlers(), newClock()
	serve(t, nc, h, newVerifier(t, nc, rpcauth.WithIssuers(account.public), rpcauth.RequireSignature("*"), rpcauth.WithClock(now.Now)))
	c := dial(t, nc, signing(t, nc, rpcauth.WithClock(now.Now)))
	who := func(want keyPair) {
		t.Helper()
		must(t, read(t, c))
		if id := h.take(t, 1)[0]; id.User != want.public {
			t.Errorf("the user is %v", id)
		}
	}
	now.add(10 * time.Second)
	who(one)
	before := asked.Load()
	who(one)
	if n := asked.Load() - before; n != 0 {
		t.Errorf("the JWT was asked for %d times", n)
	}
	current.Store(&credentials{two, two.token(t, account, nil), nil})
	now.add(10 * time.Second)
	who(two)
	for _, broken := range []credentials{{two, "", errors.New("the file is gone")}, {two, "no JWT", nil}} {
		current.Store(&broken)
		now.add(10 * time.Second)
		var e *rpc.Error
		if err := read(t, c); !errors.As(err, &e) || e.Code() != rpc.CodeUnauthenticated || e.Execution() != rpc.ExecutionNotRun || broken.err != nil && !errors.Is(err, broken.err) {
			t.Errorf("the error is %v", err)
		}
	}
	h.take(t, 0)
}

// TestKeyThatDoesNotSign: then the call fails, and nothing is sent.
func TestKeyThatDoesNotSign(t *testing.T) {
	user, broken := newUser(t), false
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
		o.Nkeys = []*server.NkeyUser{{Nkey: user.public}}
	}))
	nc := srv.Connect(nats.Nkey(user.public, func(b []byte) ([]byte, error) {
		if broken {
			return nil, errors.New("the device is locked")
		}
		return user.Sign(b)
	}))
	c := dial(t, nc, signing(t, nc))
	broken = true
	if err := read(t, c); rpc.CodeOf(err) != rpc.CodeUnauthenticated {
		t.Errorf("the error is %v", err)
	}
}

// TestFromContext: without a call, or a verifier, there is no identity.
func TestFromContext(t *testing.T) {
	ctx, _ := rpctest.NewContext(context.Background(), rpc.Header{"Nats-Request-Info": {forged}})
	for _, ctx := range []context.Context{context.Background(), ctx} {
		if id := rpcauth.FromContext(ctx); id.Kind != rpcauth.KindNone || id.Account != "" || id.String() != "a caller without identity" {
			t.Errorf("the identity is %v", id)
		}
	}
	for kind, want := range map[rpcauth.Kind]string{rpcauth.KindNone: "none", rpcauth.KindImported: "imported", rpcauth.KindSigned: "signed", 9: "unknown"} {
		if kind.String() != want {
			t.Errorf("%d is %v", kind, kind)
		}
	}
	if s := (rpcauth.ReasonPattern + 1).String(); s != "unknown" {
		t.Error(s)
	}
}

// TestSlowUserJWT: while a connection's function for the JWT does not return, other calls go on
// with their own.
func TestSlowUserJWT(t *testing.T) {
	account, user := newAccount(t), newUser(t)
	token := user.token(t, account, nil)
	var slow atomic.Bool
	entered, release := make(chan struct{}), make(chan struct{})
	nc, h, now := rpctest.Connect(t, nats.UserJWT(func() (string, error) {
		if slow.CompareAndSwap(true, false) {
			close(entered)
			<-release
		}
		return token, nil
	}, func(b []byte) ([]byte, error) { return user.Sign(b) })), newHandlers(), newClock()
	serve(t, nc, h, newVerifier(t, nc, rpcauth.WithIssuers(account.public), rpcauth.WithClock(now.Now)))
	c := dial(t, nc, signing(t, nc, rpcauth.WithClock(now.Now)))
	now.add(10 * time.Second)
	slow.Store(true)
	err := make(chan error)
	go func() { err <- read(t, c) }()
	<-entered
	must(t, read(t, c))
	close(release)
	must(t, <-err)
	h.take(t, 2)
}
