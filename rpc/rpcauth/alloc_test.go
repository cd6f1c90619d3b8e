//go:build !race

package rpcauth_test

import (
	"context"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcauth"
)

// TestAllocations: a verifier costs a call no allocation where nobody asks for an identity, whether
// or not the NATS server has said who calls.
func TestAllocations(t *testing.T) {
	user := newUser(t)
	for name, opts := range map[string][]rpcauth.VerifierOption{
		"no options":         nil,
		"issuers":            {rpcauth.WithIssuers(user.public)},
		"a rule for another": {rpcauth.Allow("/test.v1.Test/Do", rpcauth.Signed), rpcauth.Allow("/other.Service/*", rpcauth.Signed)},
	} {
		srv, _ := imported(t)
		nc, h := srv.Connect(nats.UserInfo("svc", "x")), newHandlers()
		v := newVerifier(t, nc, opts...)
		allocations := make(chan float64, 1)
		serve(t, nc, h, v, func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
			pass := func(context.Context, *rpc.Call) error { return nil }
			allocations <- testing.AllocsPerRun(1000, func() {
				if err := v.Intercept(ctx, call, pass); err != nil {
					t.Error(err)
				}
			})
			return next(ctx, call)
		})
		for _, login := range []string{"svc", "alice", "bob"} {
			must(t, read(t, dial(t, srv.Connect(nats.UserInfo(login, "x")))))
			if n := <-allocations; n != 0 {
				t.Errorf("%s, a call of %s: %v allocations", name, login, n)
			}
			if id := h.take(t, 1)[0]; (id.Kind == rpcauth.KindImported) != (login != "svc") {
				t.Errorf("the identity is %+v", id)
			}
		}
	}
}
