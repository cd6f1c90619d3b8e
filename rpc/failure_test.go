package rpc_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestReplicaKilled: a call whose replica dies ends with UNAVAILABLE in
// seconds, not at its deadline; one on another replica goes on, as long as it takes.
func TestReplicaKilled(t *testing.T) { rpctest.Bubble(t, testReplicaKilled) }

func testReplicaKilled(t *testing.T, srv *rpctest.Server) {
	type visit struct {
		replica int
		call    string
	}
	running, finish := make(chan visit), make(chan struct{})
	replicas := make([]*nats.Conn, 3)
	for i := range replicas {
		replicas[i] = srv.Connect()
		serve(t, replicas[i], &funcs{do: func(ctx context.Context, in string) (string, error) {
			running <- visit{i, in}
			select {
			case <-finish:
			case <-ctx.Done():
			}
			return in, nil
		}})
	}
	c := dial(t, srv.Connect())
	type result struct {
		call string
		err  error
	}
	results := make(chan result)
	at := map[string]int{}
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		go func() { _, err := do(testContext(t), c, name); results <- result{name, err} }()
		v := <-running
		at[v.call] = v.replica
	}
	victim := at["a"]
	replicas[victim].Close()
	started := time.Now()
	var killed, alive int
	for _, replica := range at {
		if replica == victim {
			killed++
		} else {
			alive++
		}
	}
	for range killed {
		r := <-results
		if at[r.call] != victim {
			t.Fatalf("call %s on living replica %d ended with %v", r.call, at[r.call], r.err)
		}
		wantCode(t, r.err, rpc.CodeUnavailable, rpc.ExecutionMayHaveRun)
	}
	if took := time.Since(started); took > 30*time.Second {
		t.Errorf("the callers learned of it after %v", took)
	}
	close(finish)
	for range alive {
		if r := <-results; r.err != nil {
			t.Errorf("call %s: %v", r.call, r.err)
		}
	}
}

// TestLastReplicaRestarts: callers who come while nobody serves are served in
// the end, and none of them waits for its deadline.
func TestLastReplicaRestarts(t *testing.T) {
	srv := rpctest.NewServer(t)
	impl := &funcs{}
	s := newTestServer(t, srv.Connect(), impl)
	c := dial(t, srv.Connect())
	must(t, callOnce(t, c))
	for range 3 {
		shutdown(t, s)
		waiting := make(chan error, 16)
		for range 16 {
			go func() { waiting <- callOnce(t, c) }()
		}
		_, err := do(testContext(t), c, "x", rpc.WithoutRetry())
		if e := wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionNotRun); !errors.Is(e, nats.ErrNoResponders) || !strings.Contains(e.Message(), "test.v1.TestService.Do") {
			t.Errorf("got %v", err)
		}
		s = newTestServer(t, srv.Connect(), impl)
		for range 16 {
			must(t, <-waiting)
		}
	}
	shutdown(t, s)
}

func callOnce(t testing.TB, c *rpc.Client) error {
	_, err := do(testContext(t), c, "x")
	return err
}

func TestNoService(t *testing.T) {
	nc := rpctest.Connect(t)
	c := dial(t, nc)
	_, err := do(context.Background(), c, "x", rpc.WithTimeout(100*time.Millisecond))
	// The deadline may meet an attempt.
	if rpc.CodeOf(err) != rpc.CodeDeadlineExceeded {
		if e := wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionNotRun); !strings.Contains(e.Message(), "no service answers") {
			t.Errorf("got %v", err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err = do(ctx, c, "x")
	if rpc.CodeOf(err) != rpc.CodeCanceled { // between two attempts, or in one
		t.Errorf("got %v", err)
	}
}

// TestRollingRestart: no call is lost while replicas come and go.
func TestRollingRestart(t *testing.T) {
	srv := rpctest.NewServer(t)
	impl := &funcs{do: func(_ context.Context, in string) (string, error) {
		time.Sleep(2 * time.Millisecond) // work
		return in, nil
	}}
	replicas := []*rpc.Server{newTestServer(t, srv.Connect(), impl), newTestServer(t, srv.Connect(), impl)}
	c := dial(t, srv.Connect())
	stop := make(chan struct{})
	var calls atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := do(testContext(t), c, "x", rpc.WithoutRetry()); err != nil {
					t.Errorf("lost: %v", err)
					return
				}
				calls.Add(1)
			}
		})
	}
	for i := range 10 {
		fresh := newTestServer(t, srv.Connect(), impl)
		shutdown(t, replicas[i%2])
		replicas[i%2] = fresh
	}
	close(stop)
	wg.Wait()
	t.Logf("%d calls", calls.Load())
	for _, s := range replicas {
		shutdown(t, s)
	}
}

// TestClosedConnection: it is not the caller who has ended the calls that come after.
func TestClosedConnection(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{})
	nc := srv.Connect()
	c := dial(t, nc)
	must(t, callOnce(t, c))
	nc.Close()
	for range 1000 { // before and after the client has noticed
		wantCode(t, callOnce(t, c), rpc.CodeUnavailable, rpc.ExecutionNotRun)
		_, err := testChat.Call(testContext(t), c)
		wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionNotRun)
		runtime.Gosched()
	}
}

// TestFailedEncodingLeavesNothing: a message that does not encode, in the middle, does not spoil
// the buffer for the next one.
func TestFailedEncodingLeavesNothing(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{})
	c := dial(t, nc)
	s, err := testChat.Call(testContext(t), c)
	must(t, err)
	defer s.Close()
	bad := &structpb.Struct{Fields: map[string]*structpb.Value{"\xff": structpb.NewStringValue("x")}}
	for range 100 {
		_, err := testObject.Call(testContext(t), c, bad)
		wantCode(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun)
		must(t, s.Send(wrapperspb.String("x")))
		_, err = s.Recv()
		must(t, err)
	}
}

// TestDisconnected: a call fails at once while there is no connection, and
// does not run later from the reconnect buffer.
func TestDisconnected(t *testing.T) {
	t.Parallel()
	srv := rpctest.NewServer(t)
	lost := make(chan struct{})
	nc := srv.Connect(nats.ReconnectWait(time.Hour), nats.DisconnectErrHandler(func(*nats.Conn, error) { close(lost) }))
	c := dial(t, nc)
	_, err := do(testContext(t), c, "x", rpc.WithoutRetry())
	wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionNotRun)
	srv.Shutdown()
	<-lost
	_, err = do(testContext(t), c, "x")
	if e := wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionNotRun); !strings.Contains(e.Message(), "reconnecting") {
		t.Errorf("got %v", err)
	}
}

// TestConnectionLost: calls that wait when the client's connection is lost or closed end.
func TestConnectionLost(t *testing.T) {
	t.Parallel()
	for name, cut := range map[string]func(srv *rpctest.Server, client *nats.Conn){
		"closed": func(_ *rpctest.Server, nc *nats.Conn) { nc.Close() },
		"lost":   func(srv *rpctest.Server, _ *nats.Conn) { srv.Shutdown() },
	} {
		t.Run(name, func(t *testing.T) {
			srv := rpctest.NewServer(t)
			running, finish := make(chan struct{}), make(chan struct{})
			defer close(finish)
			newTestServer(t, srv.Connect(nats.ReconnectWait(time.Hour)), &funcs{do: func(ctx context.Context, in string) (string, error) {
				close(running)
				<-finish
				return in, nil
			}}) // ends with its connection
			nc := srv.Connect(nats.ReconnectWait(time.Hour))
			c := dial(t, nc)
			result := make(chan error)
			go func() { result <- callOnce(t, c) }()
			<-running
			cut(srv, nc)
			wantCode(t, <-result, rpc.CodeUnavailable, rpc.ExecutionMayHaveRun)
		})
	}
}

// TestReconnect: a call outlives a short loss of the caller's connection.
func TestReconnect(t *testing.T) {
	srv := rpctest.NewServer(t)
	running, finish := make(chan struct{}), make(chan struct{})
	serve(t, srv.Connect(), &funcs{do: func(ctx context.Context, in string) (string, error) {
		close(running)
		<-finish
		return in, nil
	}})
	back := make(chan struct{})
	nc := srv.Connect(nats.ReconnectHandler(func(*nats.Conn) { close(back) }))
	c := dial(t, nc)
	result := make(chan error)
	go func() { result <- callOnce(t, c) }()
	<-running
	must(t, nc.ForceReconnect())
	<-back
	must(t, nc.Flush())
	close(finish)
	must(t, <-result)
}

// TestForbiddenPublish: what the NATS server refuses ends the call at once.
func TestForbiddenPublish(t *testing.T) {
	srv := newServerWithUsers(t, &server.User{Username: "caller", Password: "x", Permissions: &server.Permissions{
		Publish: &server.SubjectPermission{Allow: []string{"other.>"}},
	}})
	nc := srv.Connect(nats.UserInfo("caller", "x"), quiet)
	_, err := do(testContext(t), dial(t, nc), "x")
	if e := wantCode(t, err, rpc.CodePermissionDenied, rpc.ExecutionNotRun); !strings.Contains(e.Message(), "test.v1.TestService.Do") {
		t.Errorf("got %v", err)
	}
}

// TestForbiddenSubscription: a server that may not subscribe does not start.
func TestForbiddenSubscription(t *testing.T) {
	srv := newServerWithUsers(t, &server.User{Username: "service", Password: "x", Permissions: &server.Permissions{
		Subscribe: &server.SubjectPermission{Deny: []string{"test.v1.TestService.Read"}},
	}})
	nc := srv.Connect(nats.UserInfo("service", "x"), quiet)
	s := rpc.NewServer(nc)
	must(t, registerTest(s, &funcs{}))
	err := s.Start(testContext(t))
	if err == nil || !strings.Contains(err.Error(), "test.v1.TestService.Read") {
		t.Fatalf("Start returned %v", err)
	}
	if n := nc.NumSubscriptions(); n != 0 {
		t.Errorf("%d subscriptions stayed behind", n)
	}
}

// TestLeastPrivilege: the permissions that docs/protocol.md asks for are enough.
func TestLeastPrivilege(t *testing.T) {
	allow := func(subjects ...string) *server.SubjectPermission {
		return &server.SubjectPermission{Allow: subjects}
	}
	srv := newServerWithUsers(t,
		&server.User{Username: "service", Password: "x", Permissions: &server.Permissions{
			Subscribe: allow("test.v1.TestService.>", "notes.new", "$SRV.>"),
			Publish:   &server.SubjectPermission{Deny: []string{">"}},
			Response:  &server.ResponsePermission{MaxMsgs: 1, Expires: 2 * time.Minute},
		}},
		&server.User{Username: "caller", Password: "x", Permissions: &server.Permissions{
			Publish: allow("test.v1.TestService.>"), Subscribe: allow("_INBOX_caller.>"),
		}})
	serve(t, srv.Connect(nats.UserInfo("service", "x"), quiet), &funcs{})
	c := dial(t, srv.Connect(nats.UserInfo("caller", "x"), nats.CustomInboxPrefix("_INBOX_caller"), quiet))
	for range 100 { // reply subjects are used again: each request is a new grant
		must(t, callOnce(t, c))
	}
}

// quiet keeps nats.go from printing the errors that a test provokes.
var quiet = nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {})

func newServerWithUsers(t *testing.T, users ...*server.User) *rpctest.Server {
	return rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) { o.Users = users }))
}

// TestAccounts: a call through an account import that renames the service.
func TestAccounts(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
		provider, consumer := server.NewAccount("SVC"), server.NewAccount("APP")
		must(t, provider.AddServiceExport("test.v1.TestService.>", nil))
		must(t, consumer.AddServiceImport(provider, "ext.test.v1.TestService.>", "test.v1.TestService.>"))
		o.Accounts = []*server.Account{provider, consumer}
		o.Users = []*server.User{{Username: "svc", Password: "x", Account: provider}, {Username: "app", Password: "x", Account: consumer}}
	}))
	running, ended := make(chan struct{}, 1), make(chan struct{})
	impl := &funcs{read: func(ctx context.Context, in string) (string, error) {
		running <- struct{}{}
		<-ctx.Done()
		close(ended)
		return in, nil
	}}
	for range 2 {
		serve(t, srv.Connect(nats.UserInfo("svc", "x")), impl)
	}
	c := dial(t, srv.Connect(nats.UserInfo("app", "x")), rpc.WithSubjectPrefix("ext"))
	for range 100 {
		must(t, callOnce(t, c))
	}
	_, err := testBlob.Call(testContext(t), c, nil)
	wantCode(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun)
	ctx, cancel := context.WithCancel(testContext(t))
	go func() { <-running; cancel() }()
	_, err = testRead.Call(ctx, c, &text{})
	wantCode(t, err, rpc.CodeCanceled, rpc.ExecutionMayHaveRun)
	<-ended
}
