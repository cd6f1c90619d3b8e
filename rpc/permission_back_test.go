package rpc_test

import (
	"context"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// changingUsers starts a NATS server with the users "service" and "caller", and returns a function
// that changes what they may do.
func changingUsers(t *testing.T, service, caller *server.Permissions) (srv *rpctest.Server, change func(service, caller *server.Permissions)) {
	t.Helper()
	users := func(service, caller *server.Permissions) []*server.User {
		return []*server.User{{Username: "service", Password: "x", Permissions: service}, {Username: "caller", Password: "x", Permissions: caller}}
	}
	var options server.Options
	srv = rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
		o.Users = users(service, caller)
		options = *o
	}))
	return srv, func(service, caller *server.Permissions) {
		t.Helper()
		options.Users = users(service, caller)
		must(t, srv.NATS().ReloadOptions(&options))
	}
}

func deny(subjects ...string) *server.SubjectPermission {
	return &server.SubjectPermission{Deny: subjects}
}

// TestServiceMayAgain: a service that NATS no longer lets subscribe is listed as not serving, and
// serves again when it may again.
func TestServiceMayAgain(t *testing.T) {
	t.Parallel()
	srv, change := changingUsers(t, nil, nil)
	var logged records
	serve(t, srv.Connect(nats.UserInfo("service", "x"), quiet), &funcs{}, rpc.WithLogger(logged.logger()))
	nc := srv.Connect(nats.UserInfo("caller", "x"))
	c := dial(t, nc)
	must(t, callOnce(t, c))
	change(&server.Permissions{Subscribe: deny(testRoot + ".Do")}, nil)
	until(t, "the log says that it does not serve", func() bool {
		return strings.Contains(logged.String(), "may not subscribe to a subject any more")
	})
	_, err := do(testContext(t), c, "x", rpc.WithoutRetry())
	wantText(t, err, "no service answers")
	info := discover[micro.Info](t, nc, "$SRV.INFO.TestService", 1)[0]
	if why := info.Metadata["natscall.not_serving"]; !strings.Contains(why, testRoot+".Do") {
		t.Errorf("discovery says %q", why)
	}
	change(nil, nil)
	must(t, callOnce(t, c)) // it is sent again until then
	until(t, "the log says that it serves", func() bool {
		return strings.Contains(logged.String(), "may subscribe to a subject again")
	})
	info = discover[micro.Info](t, nc, "$SRV.INFO.TestService", 1)[0]
	if why, ok := info.Metadata["natscall.not_serving"]; ok {
		t.Errorf("discovery still says %q", why)
	}
	if n := strings.Count(logged.String(), "any more"); n != 1 {
		t.Errorf("the log says %d times that it does not serve:\n%s", n, logged.String())
	}
}

// TestClientMayAgain: a client that NATS did not let subscribe to its inbox makes calls when it
// may.
func TestClientMayAgain(t *testing.T) {
	t.Parallel()
	inbox := &server.Permissions{Subscribe: deny("_INBOX.>")}
	srv, change := changingUsers(t, nil, inbox)
	serve(t, srv.Connect(nats.UserInfo("service", "x")), &funcs{})
	var logged records
	c := dial(t, srv.Connect(nats.UserInfo("caller", "x"), quiet), rpc.WithLogger(logged.logger()))
	wantText(t, callOnce(t, c), "may not subscribe to its inbox")
	for range 2 { // the second time it is taken away from a client that had it
		change(nil, nil)
		until(t, "calls are possible", func() bool { return callOnce(t, c) == nil })
		change(nil, inbox)
		until(t, "calls are not possible", func() bool { return rpc.CodeOf(callOnce(t, c)) == rpc.CodePermissionDenied })
	}
	if said, again := strings.Count(logged.String(), "no call is possible"), strings.Count(logged.String(), "calls are possible"); said != 3 || again != 2 {
		t.Errorf("the log:\n%s", logged.String())
	}
}

// TestLivenessMayAgain: a client that was not permitted to ask about its calls asks when it may.
func TestLivenessMayAgain(t *testing.T) {
	t.Parallel()
	mute := &server.Permissions{Publish: deny(testRoot + "._all.alive")}
	srv, change := changingUsers(t, nil, mute)
	running, refused := make(chan struct{}), make(chan struct{}, 64)
	service := srv.Connect(nats.UserInfo("service", "x"))
	serve(t, service, &funcs{do: func(ctx context.Context, in string) (string, error) {
		close(running)
		<-ctx.Done()
		return in, nil
	}})
	c := dial(t, srv.Connect(nats.UserInfo("caller", "x"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {
		select {
		case refused <- struct{}{}:
		default:
		}
	})))
	ended := make(chan error, 1)
	go func() { _, err := do(testContext(t), c, "x"); ended <- err }()
	<-running
	<-refused
	change(nil, nil)
	service.Close()
	wantText(t, wantCode(t, <-ended, rpc.CodeUnavailable, rpc.ExecutionMayHaveRun), "no replica works on the call any more")
}

// TestRefusedSubjectsAndHealth: an instance is serving while NATS refuses it only subjects of
// tools, and takes no calls when NATS refuses it those of all methods.
func TestRefusedSubjectsAndHealth(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		denied, logged     []string
		serving, takeCalls bool
	}{
		"tools": {
			denied: []string{testRoot + "._schema", testRoot + "._health", "$SRV.>"},
			logged: []string{testRoot + "._schema", testRoot + "._health", "$SRV.*"}, serving: true, takeCalls: true,
		},
		"a method":    {denied: []string{testRoot + ".Do"}, logged: []string{testRoot + ".Do"}, takeCalls: true},
		"all methods": {denied: []string{testRoot + ".*", "notes.new"}, logged: []string{testRoot + ".Do", "notes.new"}},
		"control":     {denied: []string{testRoot + "._all.>"}, logged: []string{testRoot + "._all.>"}, takeCalls: true},
	} {
		t.Run(name, func(t *testing.T) {
			srv, change := changingUsers(t, nil, nil)
			var logged records
			s := serve(t, srv.Connect(nats.UserInfo("service", "x"), quiet), &funcs{}, rpc.WithLogger(logged.logger()))
			change(&server.Permissions{Subscribe: deny(test.denied...)}, nil)
			for _, subject := range test.logged {
				until(t, "the log says that it does not serve "+subject, func() bool { return strings.Contains(logged.String(), subject) })
			}
			until(t, "it says so", func() bool { // the others are refused in any order
				h := s.Health()[0]
				return h.Serving == test.serving && h.TakesCalls == test.takeCalls && (h.Reason == "") == test.serving
			})
			change(nil, nil)
			until(t, "it is serving again", func() bool { h := s.Health()[0]; return h.Serving && h.TakesCalls })
		})
	}
}
