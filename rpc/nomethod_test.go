package rpc_test

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

// serveOlder runs a server of the test service as it was before most of its methods were written:
// it has Do and Note only.
func serveOlder(t testing.TB, nc *nats.Conn, impl testServer) *rpc.Server {
	t.Helper()
	s := rpc.NewServer(nc, rpc.WithLogger(slog.New(slog.DiscardHandler)))
	must(t, rpc.Register(s, &testDesc, impl, nil, rpc.HandleUnary(testDo, testServer.Do), rpc.HandleOneWay(testNote, testServer.Note)))
	must(t, s.Start(testContext(t)))
	t.Cleanup(func() { shutdown(t, s) })
	return s
}

// listen returns a function that returns what has come to a subject since it was last called.
func listen(t testing.TB, nc *nats.Conn, subject string) func() []*nats.Msg {
	t.Helper()
	messages := make(chan *nats.Msg, 1000)
	_, err := nc.ChanSubscribe(subject, messages)
	must(t, err)
	must(t, nc.Flush())
	return func() (all []*nats.Msg) {
		must(t, nc.Flush())
		for len(messages) > 0 {
			all = append(all, <-messages)
		}
		return all
	}
}

// listenToQueries is listen for the instance queries about the test service.
func listenToQueries(t testing.TB, nc *nats.Conn) func() []*nats.Msg {
	t.Helper()
	return listen(t, nc, testRoot+"._all.instances")
}

func read(ctx context.Context, c *rpc.Client, opts ...rpc.CallOption) error {
	_, err := testRead.Call(ctx, c, wrapperspb.String("x"), opts...)
	return err
}

// TestNoSuchMethod: a client that is newer than all servers learns it at once, by one query.
func TestNoSuchMethod(t *testing.T) {
	srv := rpctest.NewServer(t)
	for range 3 {
		serveOlder(t, srv.Connect(), &funcs{})
	}
	queries := listenToQueries(t, srv.Connect())
	for name, test := range map[string]struct {
		call func(context.Context, *rpc.Client) error
		opts []rpc.ClientOption
	}{
		"unary":         {call: func(ctx context.Context, c *rpc.Client) error { return read(ctx, c) }},
		"plain":         {func(ctx context.Context, c *rpc.Client) error { return read(ctx, c) }, []rpc.ClientOption{rpc.WithPlainRequests()}},
		"without retry": {func(ctx context.Context, c *rpc.Client) error { return read(ctx, c) }, []rpc.ClientOption{rpc.WithoutRetry()}},
		"batched":       {func(ctx context.Context, c *rpc.Client) error { return read(ctx, c) }, []rpc.ClientOption{rpc.WithBatching(1 << 14)}},
		"without timeout": {func(_ context.Context, c *rpc.Client) error {
			return read(context.Background(), c, rpc.WithoutTimeout())
		}, nil},
		"large": {call: func(ctx context.Context, c *rpc.Client) error {
			_, err := testBlob.Call(ctx, c, wrapperspb.Bytes(make([]byte, 2<<20)))
			return err
		}},
		"server stream": {call: func(ctx context.Context, c *rpc.Client) error { _, err := watch(ctx, c, "x"); return err }},
		"client stream": {call: func(ctx context.Context, c *rpc.Client) error { _, err := testGather.Call(ctx, c); return err }},
		"bidi":          {call: func(ctx context.Context, c *rpc.Client) error { _, err := testChat.Call(ctx, c); return err }},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
			defer cancel()
			e := wantCode(t, test.call(ctx, dial(t, srv.Connect(), test.opts...)), rpc.CodeUnimplemented, rpc.ExecutionNotRun)
			wantText(t, e, "the service test.v1.TestService has no method ")
			wantText(t, e, "; it has Do, Note")
			if n := len(queries()); n != 1 {
				t.Errorf("%d queries were sent", n)
			}
		})
	}
}

// TestNearMethods: the error names the method that may have been meant.
func TestNearMethods(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{})
	c := dial(t, srv.Connect())
	for name, want := range map[string]string{
		"read": "did you mean Read?", "Raed": "", "Objekt": "did you mean Object?", "Gathers": "did you mean Gather?", "PlaceOrder": "",
	} {
		m := rpc.NewUnaryMethod[text, text](&testDesc, rpc.MethodDesc{Name: name})
		_, err := m.Call(testContext(t), c, wrapperspb.String("x"))
		e := wantCode(t, err, rpc.CodeUnimplemented, rpc.ExecutionNotRun)
		wantText(t, e, want)
		if strings.Contains(e.Message(), "did you mean") != (want != "") {
			t.Errorf("%s: %v", name, e)
		}
		wantText(t, e, "it has Blob, Chat, Do, Gather, Note, Object, Read, Watch")
	}
}

// TestManyCallersAsk: callers that miss a method at the same time ask once.
func TestManyCallersAsk(t *testing.T) {
	const callers = 256
	srv := rpctest.NewServer(t)
	serveOlder(t, srv.Connect(), &funcs{})
	queries := listenToQueries(t, srv.Connect())
	c := dial(t, srv.Connect())
	must(t, callOnce(t, c))
	_, release := c.HoldRequests()
	go release(callers)
	each(t, callers, func(int) error {
		if err := read(testContext(t), c); rpc.CodeOf(err) != rpc.CodeUnimplemented {
			return fmt.Errorf("the error is %w", err)
		}
		return nil
	})
	if n := len(queries()); n != 1 {
		t.Errorf("%d queries were sent", n)
	}
}

// TestMethodComesWithARestart: while the last server without the method drains, callers of the
// method wait for the next server.
func TestMethodComesWithARestart(t *testing.T) {
	srv := rpctest.NewServer(t)
	inside, proceed := make(chan struct{}), make(chan struct{})
	older := serveOlder(t, srv.Connect(), &funcs{do: func(_ context.Context, in string) (string, error) {
		close(inside)
		<-proceed
		return in, nil
	}})
	c := dial(t, srv.Connect())
	running := make(chan error, 1)
	go func() { running <- callOnce(t, c) }()
	<-inside
	stopped := make(chan error, 1)
	go func() { stopped <- older.Shutdown(testContext(t)) }()
	for { // until it drains
		err := read(testContext(t), c, rpc.WithoutRetry())
		if rpc.CodeOf(err) == rpc.CodeUnavailable {
			wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionNotRun)
			break
		}
		wantCode(t, err, rpc.CodeUnimplemented, rpc.ExecutionNotRun)
	}
	waiting := make(chan error, 2)
	go func() { waiting <- read(testContext(t), c) }()
	go func() { _, err := watch(testContext(t), c, "x"); waiting <- err }()
	serve(t, srv.Connect(), &funcs{})
	must(t, <-waiting)
	must(t, <-waiting)
	close(proceed)
	must(t, <-running)
	must(t, <-stopped)
}

// TestStatesOfInstances: a method does not exist only if all instances run without it.
func TestStatesOfInstances(t *testing.T) {
	const serving = natscallv1.State_STATE_SERVING
	srv := rpctest.NewServer(t)
	for _, test := range []struct {
		name   string
		states []natscallv1.State
		has    []string // of the first one
		want   rpc.Code
	}{
		{"serving", []natscallv1.State{serving, serving}, []string{"Do"}, rpc.CodeUnimplemented},
		{"no methods", []natscallv1.State{serving}, nil, rpc.CodeUnimplemented},
		{"starting", []natscallv1.State{serving, natscallv1.State_STATE_STARTING}, []string{"Do"}, rpc.CodeUnavailable},
		{"draining", []natscallv1.State{natscallv1.State_STATE_DRAINING}, []string{"Do"}, rpc.CodeUnavailable},
		{"unhealthy", []natscallv1.State{serving, natscallv1.State_STATE_UNHEALTHY}, []string{"Do"}, rpc.CodeUnimplemented},
		{"not known", []natscallv1.State{99}, []string{"Do"}, rpc.CodeUnavailable},
		{"none", []natscallv1.State{natscallv1.State_STATE_UNSPECIFIED}, []string{"Do"}, rpc.CodeUnavailable},
		{"has it", []natscallv1.State{serving, serving}, []string{"Do", "Read"}, rpc.CodeUnavailable},
	} {
		t.Run(test.name, func(t *testing.T) {
			nc := srv.Connect()
			for i, state := range test.states {
				answer := &natscallv1.Instance{Instance: fmt.Sprint("I", i), State: state, Methods: []string{"Do"}}
				if i == 0 {
					answer.Methods = test.has
				}
				answerInstances(t, nc, testRoot, answer)
			}
			err := read(testContext(t), dial(t, srv.Connect()), rpc.WithoutRetry())
			wantCode(t, err, test.want, rpc.ExecutionNotRun)
			nc.Close()
		})
	}
}

// TestStateOfService: a service says what it does.
func TestStateOfService(t *testing.T) {
	nc := rpctest.Connect(t)
	finish := make(chan struct{})
	s := rpc.NewServer(nc)
	must(t, registerTest(s, &funcs{do: func(_ context.Context, in string) (string, error) { <-finish; return in, nil }}))
	state := func(want string) {
		t.Helper()
		if got := s.State(testDesc.Name); got != want {
			t.Errorf("it is %s, want %s", got, want)
		}
	}
	state("STATE_STARTING")
	must(t, s.Start(testContext(t)))
	state("STATE_SERVING")
	result, stopped := make(chan error, 1), make(chan error, 1)
	c := dial(t, nc)
	go func() { result <- callOnce(t, c) }()
	for s.Open() == 0 {
		runtime.Gosched()
	}
	go func() { stopped <- s.Shutdown(testContext(t)) }()
	for s.State(testDesc.Name) == "STATE_SERVING" {
		runtime.Gosched()
	}
	state("STATE_DRAINING")
	close(finish)
	must(t, <-result)
	must(t, <-stopped)
}

// answerInstances answers instance queries as an instance would.
func answerInstances(t testing.TB, nc *nats.Conn, root string, answer *natscallv1.Instance) {
	t.Helper()
	_, err := nc.Subscribe(root+"._all.instances", func(m *nats.Msg) {
		b, err := proto.MarshalOptions{}.MarshalAppend(wire.AppendInstanceAnswer(nil, wire.IDOf(m.Data)), answer)
		if err == nil {
			err = m.Respond(b)
		}
		if err != nil {
			t.Error(err)
		}
	})
	must(t, err)
	must(t, nc.Flush())
}

// TestForbiddenQuery: a client that may not ask is told what it was told before there were queries,
// and does not ask with every call.
func TestForbiddenQuery(t *testing.T) {
	srv := newServerWithUsers(t, &server.User{Username: "service", Password: "x"},
		&server.User{Username: "caller", Password: "x", Permissions: &server.Permissions{Publish: allow(testRoot + ".*")}})
	serveOlder(t, srv.Connect(nats.UserInfo("service", "x")), &funcs{})
	refused := make(chan error, 100)
	nc := srv.Connect(nats.UserInfo("caller", "x"), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { refused <- err }))
	c := dial(t, nc)
	for range 10 {
		wantCode(t, read(testContext(t), c, rpc.WithoutRetry()), rpc.CodeUnavailable, rpc.ExecutionNotRun)
	}
	_, err := watch(testContext(t), c, "x", rpc.WithoutRetry())
	wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionNotRun)
	must(t, nc.Flush())
	wantText(t, <-refused, testRoot+"._all.instances")
	if n := len(refused); n != 0 {
		t.Errorf("%d more queries were refused, such as %v", n, <-refused)
	}
}

// TestNoSuchMethodAcrossAccounts: an import that lets one answer pass is enough.
func TestNoSuchMethodAcrossAccounts(t *testing.T) {
	srv := importedService(t)
	for range 2 {
		serveOlder(t, srv.Connect(nats.UserInfo("svc", "x")), &funcs{})
	}
	c := dial(t, srv.Connect(nats.UserInfo("app", "x")), rpc.WithSubjectPrefix("ext"))
	e := wantCode(t, read(testContext(t), c), rpc.CodeUnimplemented, rpc.ExecutionNotRun)
	wantText(t, e, "it has Do, Note")
}

// TestStrangersAreNotWaitedFor: a service that has never answered is waited for during two seconds,
// one that has answered until the deadline.
func TestStrangersAreNotWaitedFor(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		nc := srv.Connect()
		c := rpc.NewClient(nc)
		absent := func(least, most time.Duration, opts ...rpc.CallOption) {
			t.Helper()
			began := time.Now()
			_, err := do(context.Background(), c, "x", opts...)
			wantText(t, wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionNotRun), "no service answers on")
			if took := time.Since(began); took < least || took > most {
				t.Errorf("the call took %v, want %v to %v", took, least, most)
			}
			began = time.Now()
			_, err = watch(context.Background(), c, "x", opts...)
			wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionNotRun)
			if took := time.Since(began); took < least || took > most {
				t.Errorf("the stream took %v, want %v to %v", took, least, most)
			}
		}
		const stranger, backoff = 2 * time.Second, 500 * time.Millisecond
		absent(stranger-backoff, stranger, rpc.WithTimeout(time.Hour))
		absent(stranger-backoff, stranger, rpc.WithoutTimeout())
		absent(0, time.Second, rpc.WithTimeout(time.Second))
		absent(0, time.Second, rpc.WithoutRetry())
		s := rpc.NewServer(nc)
		must(t, registerTest(s, &funcs{}))
		must(t, s.Start(t.Context()))
		_, err := do(context.Background(), c, "x")
		must(t, err)
		must(t, s.Shutdown(context.Background()))
		absent(10*time.Minute-backoff, 10*time.Minute, rpc.WithTimeout(10*time.Minute))
		must(t, c.Close())
	})
}
