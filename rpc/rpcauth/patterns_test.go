package rpcauth_test

import (
	"context"
	"strings"
	"testing"

	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcauth"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestMisspeltMethod: Register refuses a pattern for a method that the service does not have.
func TestMisspeltMethod(t *testing.T) {
	nc := rpctest.Connect(t)
	for pattern, ok := range map[string]bool{
		inventoryv1nats.InventoryServiceAddStockMethod: true,
		"/inventory.v1.InventoryService/*":             true,
		"*":                                            true,
		"/other.v1.Service/*":                          true, // may be registered later
		inventoryv1nats.InventoryServiceAddStockMethod + "s": false,
	} {
		for _, opt := range []rpcauth.VerifierOption{rpcauth.Allow(pattern, rpcauth.Signed), rpcauth.RequireSignature(pattern)} {
			v := newVerifier(t, nc, opt, rpcauth.WithIssuers(newUser(t).public))
			err := inventoryv1nats.RegisterInventoryServiceServer(rpc.NewServer(nc, v.Server()), product{})
			if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), pattern) {
				t.Errorf("%s: %v", pattern, err)
			}
		}
	}
}

// TestUnmatchedPattern: while a pattern matches no method, no call passes.
func TestUnmatchedPattern(t *testing.T) {
	for _, pattern := range []string{"/test.v1.Tests/*", "/test.v1.Test/read", "/test.v1.Tests/Read"} {
		nc, log := rpctest.Connect(t), new(records)
		v := newVerifier(t, nc, rpcauth.WithLogger(log.logger()), rpcauth.Allow("*", rpcauth.Anyone), rpcauth.Allow(pattern, rpcauth.Signed))
		h := newHandlers()
		register := func(opt rpc.ServerServiceOption, desc *rpc.ServiceDesc, name string) {
			s := rpc.NewServer(nc, rpc.WithLogger(quiet), opt)
			method := rpc.NewUnaryMethod[text, text](desc, rpc.MethodDesc{Name: name})
			must(t, rpc.Register(s, desc, h, nil, rpc.HandleUnary(method, (*handlers).Read)))
			must(t, s.Start(t.Context()))
			t.Cleanup(func() { _ = s.Shutdown(context.Background()) })
		}
		register(v.Server(), &testDesc, "Read")
		c := dial(t, nc)
		before := v.Stats()
		err := read(t, c)
		if rpc.CodeOf(err) != rpc.CodeFailedPrecondition || v.Stats().Refused[rpcauth.ReasonPattern] == before.Refused[rpcauth.ReasonPattern] {
			t.Errorf("%s: %v", pattern, err)
		}
		key := strings.TrimSuffix(pattern, "*")
		if logged := strings.Join(log.take(), ""); strings.Contains(err.Error(), key) || !strings.Contains(logged, key) {
			t.Errorf("the error is %v, logged was %q", err, logged)
		}
		other := testDesc
		service, method, _ := strings.Cut(pattern[1:], "/")
		other.Name, other.MicroName = service, "Other"
		register(v.Server(), &other, strings.Replace(method, "*", "Any", 1))
		must(t, read(t, c))
	}
}
