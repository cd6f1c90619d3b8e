package rpc_test

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

// allow makes permissions, to publish or to subscribe, of subjects.
func allow(subjects ...string) *server.SubjectPermission {
	return &server.SubjectPermission{Allow: subjects}
}

// everyCall are calls of each shape and size.
func everyCall(t *testing.T, c *rpc.Client) map[string]func() error {
	return map[string]func() error{
		"unary": func() error { return callOnce(t, c) },
		"plain": func() error { _, err := do(testContext(t), c, "x", rpc.WithPlainRequests()); return err },
		"large": func() error {
			_, err := testBlob.Call(testContext(t), c, wrapperspb.Bytes(make([]byte, 2<<20)))
			return err
		},
		"server stream": func() error {
			r, err := watch(testContext(t), c, "x")
			if err == nil {
				_, err = recvAll(r.Recv)
			}
			return err
		},
		"client stream": func() error {
			s, err := testGather.Call(testContext(t), c)
			if err == nil {
				_, err = s.CloseAndRecv()
			}
			return err
		},
		"bidi": func() error {
			s, err := testChat.Call(testContext(t), c)
			if err == nil {
				s.CloseSend()
				_, err = recvAll(s.Recv)
			}
			return err
		},
	}
}

// TestForbiddenRequests: what NATS does not let the caller publish ends a call
// of any shape at once, and so does an inbox that it may not subscribe to.
func TestForbiddenRequests(t *testing.T) {
	srv := newServerWithUsers(t,
		&server.User{Username: "service", Password: "x"},
		&server.User{Username: "publisher", Password: "x", Permissions: &server.Permissions{Publish: allow("other.>")}},
		&server.User{Username: "opener", Password: "x", Permissions: &server.Permissions{Publish: allow(testRoot + ".*")}},
		&server.User{Username: "subscriber", Password: "x", Permissions: &server.Permissions{Subscribe: allow("other.>")}},
	)
	serve(t, srv.Connect(nats.UserInfo("service", "x")), &funcs{}, rpc.WithHeartbeat(beat))
	user := func(name string) *rpc.Client {
		return dial(t, srv.Connect(nats.UserInfo(name, "x"), quiet), rpc.WithHeartbeat(beat))
	}
	for name, call := range everyCall(t, user("publisher")) {
		t.Run("publish "+name, func(t *testing.T) {
			e := wantCode(t, call(), rpc.CodePermissionDenied, rpc.ExecutionNotRun)
			wantText(t, e, `may not publish to "test.v1.TestService.`)
		})
	}
	for name, call := range everyCall(t, user("opener")) {
		if name == "unary" || name == "plain" || name == "server stream" {
			// These need no frames of the client's.
			must(t, call())
			continue
		}
		t.Run("frames "+name, func(t *testing.T) {
			e := wantCode(t, call(), rpc.CodePermissionDenied, rpc.ExecutionMayHaveRun)
			wantText(t, e, "may not publish to")
		})
	}
	for name := range everyCall(t, nil) {
		t.Run("subscribe "+name, func(t *testing.T) { // each with a client of its own
			err := everyCall(t, user("subscriber"))[name]()
			if rpc.CodeOf(err) != rpc.CodePermissionDenied || !strings.Contains(err.Error(), "inbox") {
				t.Errorf("error is %v", err)
			}
		})
	}
}

// TestForbiddenFramesOfServer: a stream whose frames NATS refuses ends on the server too, and
// the log says once in a while what is missing.
func TestForbiddenFramesOfServer(t *testing.T) {
	srv := newServerWithUsers(t,
		&server.User{Username: "caller", Password: "x"},
		&server.User{Username: "service", Password: "x", Permissions: &server.Permissions{
			Subscribe: allow(testRoot+".>", "notes.new", "$SRV.>"), Publish: &server.SubjectPermission{Deny: []string{">"}},
			Response: &server.ResponsePermission{MaxMsgs: 1, Expires: server.DEFAULT_ALLOW_RESPONSE_EXPIRATION},
		}})
	logger, log := newLog()
	ended := make(chan error, 1)
	serve(t, srv.Connect(nats.UserInfo("service", "x"), quiet), &funcs{watch: func(ctx context.Context, _ string, to *rpc.Sender[*text]) error {
		var err error
		for err == nil {
			err = to.Send(wrapperspb.String(frameFiller))
		}
		ended <- err
		return err
	}}, logger)
	r, err := watch(testContext(t), dial(t, srv.Connect(nats.UserInfo("caller", "x"))), "x")
	must(t, err)
	defer r.Close()
	e := wantCode(t, <-ended, rpc.CodePermissionDenied, rpc.ExecutionMayHaveRun)
	wantText(t, e, "may not publish to")
	until(t, "the log says so", func() bool { return strings.Contains(log.String(), "{ max: -1, expires:") })
	if n := strings.Count(log.String(), "its caller gets none"); n != 1 {
		t.Errorf("%d lines:\n%s", n, log)
	}
	until(t, "STATS says so", func() bool {
		return dataOf(t, statsOf(t, srv.Connect(nats.UserInfo("caller", "x")), 1)[0].Endpoints[0]).AnswersRefused > 0
	})
}

// TestMayNotAnswer: a service that may not answer says in the log which permission is missing,
// once, whatever number of answers NATS refuses.
func TestMayNotAnswer(t *testing.T) {
	srv := newServerWithUsers(t,
		&server.User{Username: "caller", Password: "x"},
		&server.User{Username: "service", Password: "x", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{">"}}}})
	logger, log := newLog()
	var ran atomic.Int64
	serve(t, srv.Connect(nats.UserInfo("service", "x"), quiet), &funcs{
		do: func(_ context.Context, in string) (string, error) {
			ran.Add(1)
			return in, nil
		},
	}, logger)
	nc := srv.Connect(nats.UserInfo("caller", "x"), nats.CustomInboxPrefix("_INBOX_caller"))
	c := dial(t, nc)
	for range 5 {
		_, err := do(testContext(t), c, "x", rpc.WithTimeout(50*time.Millisecond))
		wantCode(t, err, rpc.CodeDeadlineExceeded, rpc.ExecutionMayHaveRun)
	}
	const line = `allow_responses: true, or publish: { allow: [\"_INBOX_caller.>\"] }`
	until(t, "the log says so", func() bool { return strings.Contains(log.String(), line) })
	if n := strings.Count(log.String(), "its caller gets none"); n != 1 || ran.Load() == 0 {
		t.Errorf("%d lines:\n%s", n, log)
	}
}

// TestManyCallsOneResponse: of a service that may send one answer to each request, which is what
// unary calls need, none of many calls that take long is taken for lost.
func TestManyCallsOneResponse(t *testing.T) {
	t.Parallel()
	srv := newServerWithUsers(t,
		&server.User{Username: "caller", Password: "x"},
		&server.User{Username: "service", Password: "x", Permissions: &server.Permissions{
			Publish: deny(">"), Response: &server.ResponsePermission{MaxMsgs: 1, Expires: time.Minute}}})
	logger, log := newLog()
	finish := make(chan struct{})
	serve(t, srv.Connect(nats.UserInfo("service", "x"), quiet), &funcs{
		do: func(_ context.Context, in string) (string, error) {
			<-finish
			return in, nil
		},
	}, logger)
	queries, err := srv.Connect(nats.UserInfo("caller", "x")).SubscribeSync(testRoot + "._i.*.alive")
	must(t, err)
	c := dial(t, srv.Connect(nats.UserInfo("caller", "x")))
	var calls sync.WaitGroup
	for range 200 { // more than share a query
		calls.Go(func() {
			if _, err := do(testContext(t), c, "x"); err != nil {
				t.Error(err)
			}
		})
	}
	for range 8 { // one each 400 ms, and a call is lost after 2.4 s
		_, err := queries.NextMsg(time.Minute)
		must(t, err)
	}
	close(finish)
	calls.Wait()
	if strings.Contains(log.String(), "its caller gets none") {
		t.Error(log)
	}
}

// TestPermissionTakenAway: where a service has answered, nobody can know which of
// the calls in flight were refused, so none of them claims not to have run.
func TestPermissionTakenAway(t *testing.T) {
	var options server.Options
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
		o.Users = []*server.User{{Username: "service", Password: "x"}, {Username: "caller", Password: "x"}}
		options = *o
	}))
	var ran atomic.Int32
	finish := make(chan struct{})
	serve(t, srv.Connect(nats.UserInfo("service", "x")), &funcs{
		do: func(_ context.Context, in string) (string, error) {
			if in == "wait" {
				ran.Add(1)
				<-finish
			}
			return in, nil
		}})
	defer close(finish)
	nc := srv.Connect(nats.UserInfo("caller", "x"), quiet)
	c := dial(t, nc)
	must(t, callOnce(t, c))
	results := make(chan error)
	for range 4 {
		go func() { _, err := do(testContext(t), c, "wait"); results <- err }()
	}
	until(t, "the calls run", func() bool { return ran.Load() == 4 })
	options.Users = []*server.User{{Username: "service", Password: "x"}, {Username: "caller", Password: "x",
		Permissions: &server.Permissions{Publish: allow(testRoot + "._all.>")}}}
	must(t, srv.NATS().ReloadOptions(&options))
	wantCode(t, callOnce(t, c), rpc.CodePermissionDenied, rpc.ExecutionMayHaveRun)
	for range 4 {
		wantCode(t, <-results, rpc.CodePermissionDenied, rpc.ExecutionMayHaveRun)
	}
	_, err := testRead.Call(testContext(t), c, wrapperspb.String("x"))
	wantCode(t, err, rpc.CodePermissionDenied, rpc.ExecutionNotRun) // it has never been answered
}

// TestPermissionTakenAwayBeforeAnAnswer: nor do the first calls of a client, of which some run when
// the permission for others is taken away.
func TestPermissionTakenAwayBeforeAnAnswer(t *testing.T) {
	srv, change := changingUsers(t, nil, nil)
	finish, running := make(chan struct{}), make(chan struct{}, 4)
	serve(t, srv.Connect(nats.UserInfo("service", "x")), &funcs{
		do: func(_ context.Context, in string) (string, error) {
			running <- struct{}{}
			<-finish
			return in, nil
		}})
	defer close(finish)
	c := dial(t, srv.Connect(nats.UserInfo("caller", "x"), quiet))
	results := make(chan error, 4)
	for range cap(results) {
		go func() { _, err := do(testContext(t), c, "wait"); results <- err }()
	}
	for range cap(results) {
		<-running
	}
	change(nil, &server.Permissions{Publish: deny(testRoot + ".Do")})
	wantCode(t, callOnce(t, c), rpc.CodePermissionDenied, rpc.ExecutionMayHaveRun)
	for range cap(results) {
		wantCode(t, <-results, rpc.CodePermissionDenied, rpc.ExecutionMayHaveRun)
	}
	// The permission has been missing since: a call that is alone has not run.
	wantCode(t, callOnce(t, c), rpc.CodePermissionDenied, rpc.ExecutionNotRun)
}

// TestPermissionTakenAwayWhileOpening: nor does a stream whose accept has not come, where an
// instance has refused an open before.
func TestPermissionTakenAwayWhileOpening(t *testing.T) {
	t.Parallel()
	var options server.Options
	deny := func(subjects ...string) []*server.User {
		return []*server.User{{Username: "service", Password: "x"}, {Username: "caller", Password: "x",
			Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: subjects}}}}
	}
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
		o.Users = deny("nothing")
		options = *o
	}))
	running := make(chan struct{})
	serve(t, srv.Connect(nats.UserInfo("service", "x")), &funcs{
		watch: func(ctx context.Context, _ string, _ *rpc.Sender[*text]) error {
			running <- struct{}{}
			<-ctx.Done()
			return ctx.Err()
		},
	}, rpc.WithMaxStreams(1), rpc.WithHeartbeat(beat))
	proxy := rpctest.NewProxy(t, srv)
	c := dial(t, proxy.Connect(nats.UserInfo("caller", "x"), quiet))
	full, err := watch(testContext(t), dial(t, srv.Connect(nats.UserInfo("service", "x"))), "x")
	must(t, err)
	<-running
	_, err = watch(testContext(t), c, "refuse")
	wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionNotRun)
	full.Close()
	proxy.Fault(func(m rpctest.Message) rpctest.Action {
		if f, err := wire.ParseFrame(m.Data); m.To == rpctest.ToClient && err == nil && f.Kind == wire.KindAccept {
			return rpctest.Lose
		}
		return rpctest.Pass
	})
	opened := make(chan error)
	go func() {
		for {
			_, err := watch(testContext(t), c, "x")
			if rpc.CodeOf(err) != rpc.CodeResourceExhausted { // the other one has not left yet
				opened <- err
				return
			}
		}
	}()
	<-running
	options.Users = deny("nothing", testRoot+".Watch")
	must(t, srv.NATS().ReloadOptions(&options))
	_, err = watch(testContext(t), c, "x")
	if rpc.CodeOf(err) != rpc.CodePermissionDenied {
		t.Errorf("an open that NATS refuses returns %v", err)
	}
	wantCode(t, <-opened, rpc.CodePermissionDenied, rpc.ExecutionMayHaveRun)
}
