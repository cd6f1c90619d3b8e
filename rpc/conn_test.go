package rpc_test

import (
	"errors"
	"reflect"
	"runtime"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestConnectOrders: a service and a client work on a connection as docs/operations.md makes it, of
// a user that has inboxes of its own.
func TestConnectOrders(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
		o.Users = []*server.User{{Username: "orders", Password: "x", Permissions: &server.Permissions{
			Subscribe: &server.SubjectPermission{Deny: []string{"_INBOX.>"}},
		}}}
	}))
	nc, err := connectOrders(srv.URL(), nats.UserInfo("orders", "x"))
	must(t, err)
	defer nc.Close()
	newTestServer(t, nc, &funcs{})
	must(t, callOnce(t, dial(t, nc)))
	if nc.Opts.Name == "" || !nc.Opts.RetryOnFailedConnect || nc.Opts.MaxReconnect >= 0 {
		t.Errorf("name %q, waits for NATS: %v, reconnects %d times", nc.Opts.Name, nc.Opts.RetryOnFailedConnect, nc.Opts.MaxReconnect)
	}
}

// TestErrorHandlerIsGivenBack: after the last client and server of a connection has gone its
// error handler is the user's own, and however many come and go it is called directly.
func TestErrorHandlerIsGivenBack(t *testing.T) {
	depth := 0
	var user nats.ErrHandler = func(*nats.Conn, *nats.Subscription, error) {
		depth = runtime.Callers(0, make([]uintptr, 1000))
	}
	code := func(f nats.ErrHandler) uintptr { return reflect.ValueOf(f).Pointer() }
	nc := rpctest.Connect(t, nats.ErrorHandler(user))
	fire := func() int { nc.ErrorHandler()(nc, nil, errors.New("something")); return depth }
	alone := fire()
	live := func() (stop func()) {
		s, c := newTestServer(t, nc, &funcs{}), rpc.NewClient(nc)
		must(t, callOnce(t, c))
		return func() { shutdown(t, s); must(t, c.Close()) }
	}
	stop := live()
	one := fire()
	if one <= alone {
		t.Fatalf("the user's handler is called at depth %d, and at %d behind ours", alone, one)
	}
	for range 5 {
		live()() // beside the first
		if got := fire(); got != one {
			t.Fatalf("the user's handler is called at depth %d, want %d", got, one)
		}
	}
	stop()
	for range 5 {
		if code(nc.ErrorHandler()) != code(user) || fire() != alone {
			t.Fatal("the user's handler has not been given back")
		}
		live()()
	}
}

// TestErrorHandlerOfTheUser: one that the user sets later stays, and is given back.
func TestErrorHandlerOfTheUser(t *testing.T) {
	calls := map[string]int{}
	handler := func(name string) nats.ErrHandler {
		return func(*nats.Conn, *nats.Subscription, error) { calls[name]++ }
	}
	nc := rpctest.Connect(t, nats.ErrorHandler(handler("first")))
	first, second := rpc.NewClient(nc), rpc.NewClient(nc)
	_ = callOnceNoRetry(t, first)
	ours := nc.ErrorHandler()
	nc.SetErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
		// It wraps ours.
		calls["wrapper"]++
		ours(nc, sub, err)
	})
	_ = callOnceNoRetry(t, second)
	nc.ErrorHandler()(nc, nil, errors.New("something"))
	must(t, first.Close())
	must(t, second.Close())
	nc.ErrorHandler()(nc, nil, errors.New("something"))
	if calls["wrapper"] != 2 || calls["first"] != 2 {
		t.Errorf("calls: %v", calls)
	}
}
