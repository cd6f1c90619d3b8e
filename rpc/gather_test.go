package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/wrapperspb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

// gatherDo gathers the answers of Do, and returns the texts and codes by instance.
func gatherDo(ctx context.Context, c *rpc.Client, in string, opts ...rpc.GatherOption) (map[string]string, rpc.GatherResult) {
	rows := map[string]string{}
	g := testDo.Gather(ctx, c, wrapperspb.String(in), opts...)
	for row := range g.All() {
		if row.Err != nil {
			rows[row.Instance] = rpc.CodeOf(row.Err).String()
		} else {
			rows[row.Instance] = row.Response.GetValue()
		}
	}
	return rows, g.Result()
}

// know gathers until a client knows n instances, as answers to its first query may be late.
func know(t testing.TB, c *rpc.Client, n int) {
	t.Helper()
	for ctx := testContext(t); ; must(t, ctx.Err()) {
		if _, r := gatherDo(ctx, c, "all"); len(r.Answered) == n {
			return
		}
	}
}

// ids are the tokens of replicas, in order.
func ids(replicas ...*replica) []string {
	var all []string
	for _, r := range replicas {
		all = append(all, r.id())
	}
	slices.Sort(all)
	return all
}

// wantResult checks how a gathering has ended.
func wantResult(t testing.TB, r rpc.GatherResult, ended rpc.GatherEnd, answered, missing []string) {
	t.Helper()
	if r.Ended != ended || !slices.Equal(r.Answered, answered) || !slices.Equal(r.Missing, missing) {
		t.Errorf("it has ended by %v (%v) with %v, missing %v; want %v with %v, missing %v",
			r.Ended, r.Err, r.Answered, r.Missing, ended, answered, missing)
	}
	expected := slices.Sorted(slices.Values(slices.Concat(answered, missing)))
	if !slices.Equal(r.Expected, expected) {
		t.Errorf("%v were expected, want %v", r.Expected, expected)
	}
}

// TestGather: every instance answers, in any form, with and without a queue group.
func TestGather(t *testing.T) {
	srv := rpctest.NewServer(t)
	for group, opts := range map[string][]rpc.ServerOption{"group": nil, "none": {rpc.WithoutQueueGroup()}} {
		replicas := serveReplicas(t, func() *nats.Conn { return srv.Connect() }, 5, append(opts, rpc.WithSubjectPrefix(group))...)
		for form, opts := range map[string][]rpc.CallOption{
			"protobuf": nil, "JSON": {rpc.WithCodec(rpc.CodecJSON)}, "compressed": {rpc.WithCompression(rpc.CompressionZstd)},
			"header": {rpc.WithHeader("a", "b"), rpc.WithTimeout(time.Hour)}, "no timeout": {rpc.WithoutTimeout(), rpc.WithoutRetry()},
		} {
			t.Run(group+" "+form, func(t *testing.T) {
				c := dial(t, srv.Connect(), rpc.WithSubjectPrefix(group), rpc.WithInterceptors(func(context.Context, *rpc.Call, rpc.Next) error {
					return errors.New("an interceptor ran")
				}))
				know(t, c, len(replicas))
				rows, result := gatherDo(testContext(t), c, strings.Repeat("x", 2000), rpc.WithCallOptions(opts...))
				for _, r := range replicas {
					if rows[r.id()] != r.name {
						t.Errorf("%s has answered %q", r.name, rows[r.id()])
					}
				}
				wantResult(t, result, rpc.GatherEndAll, ids(replicas...), nil)
				if result.Err != nil {
					t.Errorf("the error is %v", result.Err)
				}
			})
		}
	}
}

// TestGatherIsUsedOnce: and has no result before.
func TestGatherIsUsedOnce(t *testing.T) {
	nc := rpctest.Connect(t)
	serveReplicas(t, func() *nats.Conn { return nc }, 2)
	g := testDo.Gather(testContext(t), dial(t, nc), wrapperspb.String("x"))
	if r := g.Result(); r.Ended != rpc.GatherEndNone || r.Expected != nil {
		t.Errorf("it has ended: %v", r)
	}
	for range g.All() {
	}
	before := g.Result()
	for row := range g.All() {
		t.Errorf("another row: %v", row)
	}
	if after := g.Result(); after.Ended != before.Ended || len(before.Answered) != 2 {
		t.Errorf("the result is %v, and then %v", before, after)
	}
}

// unequal are five replicas that differ: one answers, one fails, one is slow, one drains and one
// is paused.
type unequal struct {
	client                                *rpc.Client
	good, failing, slow, draining, paused string
	release                               chan struct{} // what the slow one waits for
	slowServer                            *rpc.Server
	pause                                 func()
}

func newUnequal(t *testing.T) *unequal {
	t.Helper()
	srv := rpctest.NewServer(t)
	u := &unequal{client: dial(t, srv.Connect()), release: make(chan struct{})}
	start := func(nc *nats.Conn, f func(context.Context, string) (string, error)) (*rpc.Server, string) {
		s := newTestServer(t, nc, &funcs{do: f})
		t.Cleanup(func() { shutdown(t, s) })
		return s, s.Instance(testDesc.Name)
	}
	echo := func(_ context.Context, in string) (string, error) { return in, nil }
	_, u.good = start(srv.Connect(), echo)
	_, u.failing = start(srv.Connect(), func(context.Context, string) (string, error) { return "", rpc.Errorf(rpc.CodeAborted, "no") })
	u.slowServer, u.slow = start(srv.Connect(), func(ctx context.Context, in string) (string, error) {
		switch in {
		case "all":
			return in, nil
		case "deaf":
			<-u.release
			return in, nil
		}
		select {
		case <-u.release:
		case <-ctx.Done():
		}
		return in, ctx.Err()
	})
	proxy := rpctest.NewProxy(t, srv)
	_, u.paused = start(proxy.Connect(), echo)
	inside, proceed := make(chan struct{}), make(chan struct{})
	drains, id := start(srv.Connect(), func(_ context.Context, in string) (string, error) {
		if in == "hold" {
			close(inside)
			<-proceed
		}
		return in, nil
	})
	u.draining = id
	know(t, u.client, 5)
	held, stopped := make(chan error, 1), make(chan error, 1)
	go func() { _, err := do(testContext(t), u.client, "hold", rpc.WithInstance(id)); held <- err }()
	<-inside
	go func() { stopped <- drains.Shutdown(testContext(t)) }()
	for drains.State(testDesc.Name) != "STATE_DRAINING" {
		runtime.Gosched()
	}
	u.pause = func() {
		proxy.Fault(func(m rpctest.Message) rpctest.Action {
			if m.To == rpctest.ToClient {
				return rpctest.Lose
			}
			return rpctest.Pass
		})
	}
	t.Cleanup(func() {
		close(proceed)
		must(t, <-held)
		must(t, <-stopped)
	})
	return u
}

func sorted(ids ...string) []string { return slices.Sorted(slices.Values(ids)) }

// TestGatherUnequal: each instance has its row, and the one that is silent is missing.
func TestGatherUnequal(t *testing.T) {
	t.Parallel()
	u := newUnequal(t)
	u.pause()
	g := testDo.Gather(testContext(t), u.client, wrapperspb.String("x"), rpc.UntilStall(2*time.Second))
	var order []string
	for row := range g.All() {
		order = append(order, row.Instance)
		switch row.Instance {
		case u.good, u.slow:
			if row.Err != nil || row.Response.GetValue() != "x" {
				t.Errorf("the row is %v", row)
			}
		case u.failing:
			e := wantCode(t, row.Err, rpc.CodeAborted, rpc.ExecutionDidRun)
			if e.Instance() != u.failing {
				t.Errorf("the error is of %q", e.Instance())
			}
		case u.draining:
			wantText(t, wantCode(t, row.Err, rpc.CodeUnavailable, rpc.ExecutionNotRun), "draining")
		}
		if len(order) == 3 {
			close(u.release)
		}
	}
	if len(order) != 4 || order[3] != u.slow {
		t.Errorf("the order is %v, want the slow one last, %s", order, u.slow)
	}
	wantResult(t, g.Result(), rpc.GatherEndStall, sorted(u.good, u.failing, u.slow, u.draining), []string{u.paused})
}

// TestGatherDeadline: what has not answered at the deadline is missing.
func TestGatherDeadline(t *testing.T) {
	t.Parallel()
	u := newUnequal(t)
	u.pause()
	_, r := gatherDo(testContext(t), u.client, "deaf", rpc.WithCallOptions(rpc.WithTimeout(2*time.Second)))
	close(u.release)
	wantResult(t, r, rpc.GatherEndDeadline, sorted(u.good, u.failing, u.draining), sorted(u.slow, u.paused))
	wantCode(t, r.Err, rpc.CodeDeadlineExceeded, rpc.ExecutionMayHaveRun)
}

// TestGatherEndsEarly: the options that end a gathering, and the loop, end what still runs.
func TestGatherEndsEarly(t *testing.T) {
	for name, test := range map[string]struct {
		opts  []rpc.GatherOption
		ended rpc.GatherEnd
		leave func(ctx context.Context, cancel func(), rows int) bool
	}{
		"first": {[]rpc.GatherOption{rpc.UntilFirst(2)}, rpc.GatherEndFirst, nil},
		"left":  {nil, rpc.GatherEndLeft, func(_ context.Context, _ func(), rows int) bool { return rows == 4 }},
		"cancel": {nil, rpc.GatherEndCanceled, func(_ context.Context, cancel func(), rows int) bool {
			if rows == 4 {
				cancel()
			}
			return false
		}},
		"stall":  {[]rpc.GatherOption{rpc.UntilStall(200 * time.Millisecond)}, rpc.GatherEndStall, nil},
		"quorum": {[]rpc.GatherOption{rpc.UntilQuorum(), rpc.UntilStall(200 * time.Millisecond)}, rpc.GatherEndStall, nil},
		"panic": {nil, rpc.GatherEndLeft, func(_ context.Context, _ func(), rows int) bool {
			if rows == 4 {
				panic("of the loop")
			}
			return false
		}},
	} {
		t.Run(name, func(t *testing.T) {
			u := newUnequal(t)
			before := u.slowServer.Requests("Do")
			ctx, cancel := context.WithCancel(testContext(t))
			defer cancel()
			g := testDo.Gather(ctx, u.client, wrapperspb.String("x"), test.opts...)
			func() {
				defer func() {
					if r := recover(); (r != nil) != (name == "panic") {
						t.Errorf("a panic: %v", r)
					}
				}()
				rows := 0
				for range g.All() {
					if rows++; test.leave != nil && test.leave(ctx, cancel, rows) {
						break
					}
				}
			}()
			// The cancel may come before the handler runs, which then does not.
			until(t, "the slow call has ended", func() bool { return u.slowServer.Open() == 0 && u.slowServer.Requests("Do") > before })
			r := g.Result()
			if r.Ended != test.ended {
				t.Errorf("it has ended by %v, want %v", r.Ended, test.ended)
			}
			if slices.Contains(r.Answered, u.slow) || r.Err != nil != (name == "cancel") {
				t.Errorf("the result is %v", r)
			}
			if n := u.client.OpenStreams() + u.client.Mailboxes(); n != 0 {
				t.Errorf("%d streams and mailboxes are left", n)
			}
		})
	}
}

// TestGatherQuorum: more than half is enough.
func TestGatherQuorum(t *testing.T) {
	srv := rpctest.NewServer(t)
	blocked := make(chan struct{}, 2)
	for i := range 5 {
		serve(t, srv.Connect(), &funcs{do: func(ctx context.Context, in string) (string, error) {
			if i >= 3 && in != "all" {
				<-ctx.Done()
				blocked <- struct{}{}
			}
			return in, ctx.Err()
		}})
	}
	c := dial(t, srv.Connect())
	know(t, c, 5)
	_, r := gatherDo(testContext(t), c, "x", rpc.UntilQuorum())
	if r.Ended != rpc.GatherEndQuorum || len(r.Answered) != 3 || len(r.Missing) != 2 || len(r.Expected) != 5 || r.Err != nil {
		t.Errorf("the result is %v", r)
	}
	<-blocked
	<-blocked
}

// TestGatherInstancesThatGo: an instance that has gone is not waited for.
func TestGatherInstancesThatGo(t *testing.T) { rpctest.Bubble(t, testGatherInstancesThatGo) }

func testGatherInstancesThatGo(t *testing.T, srv *rpctest.Server) {
	inside := make(chan struct{}, 1)
	replicas := serveReplicas(t, func() *nats.Conn { return srv.Connect() }, 2)
	dying := srv.Connect()
	s := newTestServer(t, dying, &funcs{do: func(ctx context.Context, in string) (string, error) {
		if in == "wait" {
			inside <- struct{}{}
			<-ctx.Done()
		}
		return in, nil
	}})
	third := s.Instance(testDesc.Name)
	c := dial(t, srv.Connect())
	know(t, c, 3)
	go func() {
		<-inside
		dying.Close()
	}()
	hour, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	rows, r := gatherDo(hour, c, "wait")
	wantResult(t, r, rpc.GatherEndAll, sorted(append(ids(replicas...), third)...), nil)
	if rows[third] != "unavailable" {
		t.Errorf("the rows are %v", rows)
	}
	_, r = gatherDo(hour, c, "x") // known from before, and has gone
	wantResult(t, r, rpc.GatherEndAll, ids(replicas...), nil)
	shutdown(t, replicas[1].Server)
	_, r = gatherDo(hour, c, "x") // likewise, without the client having noticed
	wantResult(t, r, rpc.GatherEndAll, ids(replicas[0]), nil)
	shutdown(t, s)
	shutdown(t, replicas[0].Server)
	_, r = gatherDo(hour, c, "x")
	wantResult(t, r, rpc.GatherEndNobody, nil, r.Missing)
	wantText(t, wantCode(t, r.Err, rpc.CodeUnavailable, rpc.ExecutionNotRun), "no service answers on")
}

// TestGatherLarge: responses that do not fit into NATS messages, all of the same call.
func TestGatherLarge(t *testing.T) {
	srv := rpctest.NewServer(t)
	replicas := serveReplicas(t, func() *nats.Conn { return srv.Connect() }, 4)
	c := dial(t, srv.Connect())
	know(t, c, len(replicas))
	gatherLarge(t, c, replicas)
	g := testBlob.Gather(testContext(t), c, wrapperspb.Bytes([]byte("x")))
	for range g.All() {
		break
	}
	if n := c.Mailboxes(); n != 0 || g.Result().Ended != rpc.GatherEndLeft {
		t.Errorf("%d mailboxes are left: %v", n, g.Result())
	}
	until(t, "all streams have left", func() bool { return c.OpenStreams() == 0 })
	for _, r := range replicas {
		for r.Open() > 0 {
			runtime.Gosched()
		}
	}
	large := testBlob.Gather(testContext(t), c, wrapperspb.Bytes(make([]byte, 2<<20)))
	for row := range large.All() {
		t.Errorf("a row: %v", row)
	}
	wantResult(t, large.Result(), rpc.GatherEndFailed, nil, nil)
	wantText(t, wantCode(t, large.Result().Err, rpc.CodeResourceExhausted, rpc.ExecutionNotRun), "max_payload")
	g = testBlob.Gather(testContext(t), c, wrapperspb.Bytes([]byte("x")), rpc.WithCallOptions(rpc.WithMaxReceiveSize(100)))
	for row := range g.All() {
		if e := wantCode(t, row.Err, rpc.CodeResourceExhausted, rpc.ExecutionMayHaveRun); e.Instance() != row.Instance {
			t.Errorf("the error of %s is of %s", row.Instance, e.Instance())
		}
	}
	wantResult(t, g.Result(), rpc.GatherEndAll, ids(replicas...), nil)
}

func gatherLarge(t *testing.T, c *rpc.Client, replicas []*replica) {
	t.Helper()
	names := map[string]string{}
	for _, r := range replicas {
		names[r.id()] = r.name
	}
	g := testBlob.Gather(testContext(t), c, wrapperspb.Bytes([]byte("x")))
	for row := range g.All() {
		must(t, row.Err)
		if b := row.Response.GetValue(); len(b) != 2<<20+1 || string(b[:1]) != names[row.Instance] {
			t.Errorf("%s has sent %d bytes", row.Instance, len(b))
		}
	}
	wantResult(t, g.Result(), rpc.GatherEndAll, ids(replicas...), nil)
}

// TestGatherWithoutMethod: an instance without the method says so, and nobody else does.
func TestGatherWithoutMethod(t *testing.T) {
	srv := rpctest.NewServer(t)
	older := serveOlder(t, srv.Connect(), &funcs{}).Instance(testDesc.Name)
	newer := serve(t, srv.Connect(), &funcs{}).Instance(testDesc.Name)
	c := dial(t, srv.Connect())
	know(t, c, 2)
	g := testRead.Gather(testContext(t), c, wrapperspb.String("x"))
	for row := range g.All() {
		if row.Instance == older {
			wantText(t, wantCode(t, row.Err, rpc.CodeUnimplemented, rpc.ExecutionNotRun), "it has Do, Note")
		} else if row.Err != nil || row.Instance != newer {
			t.Errorf("the row is %v", row)
		}
	}
	wantResult(t, g.Result(), rpc.GatherEndAll, sorted(older, newer), nil)
}

// TestGatherAcrossAccounts: an export of the type stream lets all answers pass, one of the type
// singleton one.
func TestGatherAcrossAccounts(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) { accounts(t, o) }))
	replicas := serveReplicas(t, func() *nats.Conn { return srv.Connect(nats.UserInfo("svc", "x")) }, 3)
	c := dial(t, srv.Connect(nats.UserInfo("app", "x")), rpc.WithSubjectPrefix("ext"))
	know(t, c, len(replicas))
	for range 3 {
		_, r := gatherDo(testContext(t), c, "x")
		wantResult(t, r, rpc.GatherEndAll, ids(replicas...), nil)
		gatherLarge(t, c, replicas)
	}
	single := importedService(t)
	serveReplicas(t, func() *nats.Conn { return single.Connect(nats.UserInfo("svc", "x")) }, 3)
	c = dial(t, single.Connect(nats.UserInfo("app", "x")), rpc.WithSubjectPrefix("ext"))
	_, r := gatherDo(testContext(t), c, "x", rpc.UntilFirst(1))
	if len(r.Answered) != 1 {
		t.Errorf("the result is %v", r)
	}
}

// TestGatherFails: what keeps a request from being sent ends the gathering.
func TestGatherFails(t *testing.T) {
	srv := newServerWithUsers(t, &server.User{Username: "service", Password: "x"},
		&server.User{Username: "caller", Password: "x", Permissions: &server.Permissions{Publish: allow(testRoot+".*", testRoot+"._all.instances")}})
	serve(t, srv.Connect(nats.UserInfo("service", "x")), &funcs{})
	connect := func() *nats.Conn { return srv.Connect(nats.UserInfo("service", "x")) }
	closed := dial(t, connect())
	must(t, closed.Close())
	over, cancel := context.WithCancel(context.Background())
	cancel()
	late, cancel := context.WithTimeout(context.Background(), 0)
	defer cancel()
	for _, test := range []struct {
		name  string
		ctx   context.Context
		c     *rpc.Client
		opts  []rpc.GatherOption
		ended rpc.GatherEnd
		code  rpc.Code
		text  string
	}{
		{"nil option", nil, nil, []rpc.GatherOption{nil}, rpc.GatherEndFailed, rpc.CodeInvalidArgument, "an option is nil"},
		{"first", nil, nil, []rpc.GatherOption{rpc.UntilFirst(0)}, rpc.GatherEndFailed, rpc.CodeInvalidArgument, "UntilFirst(0)"},
		{"stall", nil, nil, []rpc.GatherOption{rpc.UntilStall(0)}, rpc.GatherEndFailed, rpc.CodeInvalidArgument, "UntilStall(0s)"},
		{"nil client", nil, nil, nil, rpc.GatherEndFailed, rpc.CodeInvalidArgument, "*rpc.Client is nil"},
		{"plain", nil, dial(t, connect(), rpc.WithPlainRequests()), nil, rpc.GatherEndFailed, rpc.CodeUnimplemented, "WithPlainRequests"},
		{"instance", nil, dial(t, connect()), []rpc.GatherOption{rpc.WithCallOptions(rpc.WithInstance("x"))}, rpc.GatherEndFailed, rpc.CodeInvalidArgument, "WithInstance"},
		{"header", nil, dial(t, connect()), []rpc.GatherOption{rpc.WithCallOptions(rpc.ResponseHeader(new(rpc.Header)))}, rpc.GatherEndFailed, rpc.CodeInvalidArgument, "several responses"},
		{"closed", nil, closed, nil, rpc.GatherEndFailed, rpc.CodeCanceled, "the client was closed"},
		{"size", nil, dial(t, connect(), rpc.WithMaxMessageSize(1)), nil, rpc.GatherEndFailed, rpc.CodeResourceExhausted, "the limit is 1"},
		{"canceled", over, dial(t, connect()), nil, rpc.GatherEndCanceled, rpc.CodeCanceled, ""},
		{"late", late, dial(t, connect()), nil, rpc.GatherEndDeadline, rpc.CodeDeadlineExceeded, ""},
		{"forbidden", nil, dial(t, srv.Connect(nats.UserInfo("caller", "x"), quiet)), nil, rpc.GatherEndFailed, rpc.CodePermissionDenied, "may not publish to"},
	} {
		t.Run(test.name, func(t *testing.T) {
			ctx := test.ctx
			if ctx == nil {
				ctx = testContext(t)
			}
			rows, r := gatherDo(ctx, test.c, "x", test.opts...)
			if r.Ended != test.ended || len(rows) != 0 {
				t.Errorf("it has ended by %v with %v", r.Ended, rows)
			}
			wantText(t, wantCode(t, r.Err, test.code, rpc.ExecutionNotRun), test.text)
		})
	}
	g := testDo.Gather(testContext(t), dial(t, connect()), nil)
	for range g.All() {
	}
	wantText(t, wantCode(t, g.Result().Err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun), "the request is nil")
}

// TestGatherMeetsClose: a gathering ends with its client and with its connection.
func TestGatherMeetsClose(t *testing.T) {
	t.Parallel()
	srv := rpctest.NewServer(t)
	inside := make(chan struct{}, 1)
	serve(t, srv.Connect(), &funcs{do: func(ctx context.Context, in string) (string, error) {
		inside <- struct{}{}
		<-ctx.Done()
		return in, nil
	}})
	for name, test := range map[string]struct {
		end  func(*rpc.Client, *nats.Conn)
		code rpc.Code
	}{
		"client":     {func(c *rpc.Client, _ *nats.Conn) { must(t, c.Close()) }, rpc.CodeCanceled},
		"connection": {func(_ *rpc.Client, nc *nats.Conn) { nc.Close() }, rpc.CodeUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			nc := srv.Connect()
			c := dial(t, nc)
			go func() {
				<-inside
				test.end(c, nc)
			}()
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			_, r := gatherDo(ctx, c, "x", rpc.WithCallOptions(rpc.WithTimeout(3*time.Second)))
			if r.Ended != rpc.GatherEndFailed {
				t.Errorf("it has ended by %v", r.Ended)
			}
			wantCode(t, r.Err, test.code, rpc.ExecutionMayHaveRun)
		})
	}
}

// TestGatherWithoutDiscovery: a client that may not ask what there is waits until its deadline, or
// for as many answers as it wants.
func TestGatherWithoutDiscovery(t *testing.T) {
	t.Parallel()
	srv := newServerWithUsers(t, &server.User{Username: "service", Password: "x"},
		&server.User{Username: "caller", Password: "x", Permissions: &server.Permissions{Publish: allow(testRoot + "._all.call.*")}})
	replicas := serveReplicas(t, func() *nats.Conn { return srv.Connect(nats.UserInfo("service", "x")) }, 3)
	c := dial(t, srv.Connect(nats.UserInfo("caller", "x"), quiet))
	_, r := gatherDo(testContext(t), c, "x", rpc.WithCallOptions(rpc.WithTimeout(2*time.Second)))
	wantResult(t, r, rpc.GatherEndDeadline, ids(replicas...), nil)
	c = dial(t, srv.Connect(nats.UserInfo("caller", "x"), quiet))
	_, r = gatherDo(testContext(t), c, "x", rpc.UntilFirst(3))
	wantResult(t, r, rpc.GatherEndFirst, ids(replicas...), nil)
	_, r = gatherDo(testContext(t), dial(t, srv.Connect(nats.UserInfo("caller", "x"), quiet)), "x", rpc.UntilStall(2*time.Second))
	wantResult(t, r, rpc.GatherEndStall, ids(replicas...), nil)
}

// TestGatherStrangeAnswers: of an instance one answer counts, and nothing that is none.
func TestGatherStrangeAnswers(t *testing.T) {
	nc := rpctest.Connect(t)
	answerInstances(t, nc, testRoot, &natscallv1.Instance{Instance: "A", State: natscallv1.State_STATE_SERVING, Methods: []string{"Do"}})
	answerInstances(t, nc, testRoot, &natscallv1.Instance{Instance: "B", State: natscallv1.State_STATE_SERVING})
	var asked atomic.Value
	_, err := nc.Subscribe(testRoot+"._all.call.Do", func(m *nats.Msg) {
		asked.Store(m.Data)
		id := wire.IDOf(m.Data)
		text := func(id wire.ID, s string) []byte {
			return append(wire.AppendResponse(nil, id, wire.CodecProto, 0), encode(t, wrapperspb.String(s))...)
		}
		for _, answer := range []struct {
			instance string
			data     []byte
		}{
			{"A", []byte("no envelope")}, {"A", nil}, {"A", text(wire.NewID(), "another call")}, {"", text(id, "nobody")},
			{"A.B", text(id, "two tokens")}, {"*", text(id, "all")}, {"A", text(id, "first")}, {"A", text(id, "second")},
			{"B", changedByte(text(id, "x"), 1, 9)}, {"B", text(id, "after the error")},
		} {
			out := nats.NewMsg(m.Reply)
			out.Data = answer.data
			if answer.instance != "" {
				out.Header.Set("Natscall-Instance", answer.instance)
			}
			if err := nc.PublishMsg(out); err != nil {
				t.Error(err)
			}
		}
	})
	must(t, err)
	rows, r := gatherDo(testContext(t), dial(t, nc), "x")
	wantResult(t, r, rpc.GatherEndAll, []string{"A", "B"}, nil)
	if want := map[string]string{"A": "first", "B": "internal"}; fmt.Sprint(rows) != fmt.Sprint(want) {
		t.Errorf("the rows are %v, want %v", rows, want)
	}
	if b := asked.Load().([]byte); wire.Flags(b[wire.FlagsOffset])&wire.FlagNameInstance == 0 {
		t.Errorf("the request does not ask for the instance: % x", b)
	}
}

// changedByte returns b with another byte at an offset.
func changedByte(b []byte, at int, value byte) []byte {
	b[at] = value
	return b
}

// TestGatherGuide: the code of the guide reaches every instance.
func TestGatherGuide(t *testing.T) {
	nc := rpctest.Connect(t)
	var counters [3]orderCounter
	for i := range counters {
		s := rpc.NewServer(nc)
		must(t, orderv1nats.RegisterOrderServiceServer(s, &counters[i]))
		must(t, s.Start(testContext(t)))
		defer shutdown(t, s)
	}
	used := 0
	placeEverywhere(testContext(t), dial(t, nc), new(orderv1.PlaceOrderRequest), func(*orderv1.PlaceOrderResponse) { used++ })
	for i := range counters {
		if n := counters[i].taken.Load(); n != 1 {
			t.Errorf("instance %d has taken %d orders", i, n)
		}
	}
	if used != len(counters) {
		t.Errorf("%d responses were used", used)
	}
}

// TestOpenToAll: no stream goes to all instances.
func TestOpenToAll(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{})
	open := wire.AppendOpen(nil, wire.NewID(), wire.CodecProto, 0, wire.Open{HalfClose: true})
	m, err := nc.RequestWithContext(testContext(t), testRoot+"._all.call.Watch", open)
	must(t, err)
	if code := m.Header.Get("Nats-Service-Error-Code"); code != "12" {
		t.Errorf("the answer is %v", m.Header)
	}
}

func TestGatherEndNames(t *testing.T) {
	names := map[string]bool{}
	for e := rpc.GatherEndNone; e <= rpc.GatherEndFailed+1; e++ {
		names[e.String()] = true
	}
	if len(names) != int(rpc.GatherEndFailed)+2 || !names["all"] || !names["unknown"] {
		t.Errorf("the names are %v", names)
	}
}
