package rpc_test

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

// attempts records where the attempts of calls go.
type attempts struct {
	mu   sync.Mutex
	seen [][]string // by call: the instance, "" for the queue group
}

func (a *attempts) intercept(ctx context.Context, call *rpc.Call, next rpc.Next) error {
	var mine []string
	call.OnAttempt(func(at *rpc.Attempt) error {
		mine = append(mine, at.Instance())
		return nil
	})
	err := next(ctx, call)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = append(a.seen, mine)
	return err
}

// loseFrom loses all that a connection publishes.
func loseFrom(m rpctest.Message) rpctest.Action {
	if m.To == rpctest.ToServer {
		return rpctest.Lose
	}
	return rpctest.Pass
}

// TestStandIn: a call that an instance has taken, and not answered, is sent to one that has just
// answered, and to no silent one again.
func TestStandIn(t *testing.T) { rpctest.Bubble(t, testStandIn) }

func testStandIn(t *testing.T, srv *rpctest.Server) {
	proxy := rpctest.NewProxy(t, srv)
	for _, nc := range []*nats.Conn{srv.Connect(), proxy.Connect(), proxy.Connect()} {
		serve(t, nc, &funcs{})
	}
	var seen attempts
	c := dial(t, srv.Connect(), rpc.WithInterceptors(seen.intercept))
	must(t, read(testContext(t), c))
	proxy.Fault(loseFrom)
	var calls sync.WaitGroup
	for range 30 {
		calls.Go(func() {
			if err := read(testContext(t), c); err != nil {
				t.Error(err)
			}
		})
	}
	calls.Wait()
	again := 0
	for _, instances := range seen.seen {
		switch {
		case len(instances) == 1 && instances[0] == "":
		case len(instances) == 2 && instances[0] == "" && instances[1] != "":
			again++
		default:
			t.Errorf("attempts: %q", instances)
		}
	}
	if again == 0 {
		t.Error("no silent instance has got a request")
	}
}

// TestStandInGoes: if the instance that is to stand in cannot take the call, another one does.
func TestStandInGoes(t *testing.T) {
	t.Parallel()
	for name, users := range map[string]*server.Permissions{
		"it has gone":                nil,
		"it may not be called alone": {Publish: deny(testRoot + "._i.*.call.>")},
	} {
		t.Run(name, func(t *testing.T) {
			srv, _ := changingUsers(t, nil, users)
			proxy := rpctest.NewProxy(t, srv)
			var gone sync.Once
			silent := serve(t, proxy.Connect(nats.UserInfo("service", "x")), &funcs{})
			other := srv.Connect(nats.UserInfo("service", "x"))
			var seen attempts
			c := dial(t, srv.Connect(nats.UserInfo("caller", "x")), rpc.WithInterceptors(seen.intercept,
				func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
					call.OnAttempt(func(at *rpc.Attempt) error {
						if at.Instance() != "" { // before the attempt is sent
							gone.Do(func() {
								proxy.Fault(nil)
								if users == nil {
									other.Close()
								}
							})
						}
						return nil
					})
					return next(ctx, call)
				}))
			must(t, read(testContext(t), c))
			proxy.Fault(loseFrom)
			result := make(chan error, 1)
			go func() { result <- read(testContext(t), c) }()
			until(t, "the silent instance has the call", func() bool { return silent.Requests("Read") == 2 })
			s := newTestServer(t, other, &funcs{})
			t.Cleanup(func() { shutdown(t, s) })
			must(t, <-result)
			last := seen.seen[len(seen.seen)-1]
			if len(last) < 3 || last[0] != "" || last[1] == "" {
				t.Errorf("attempts: %q", last)
			}
		})
	}
}

// TestNoStandInForInstance: a call to one instance is sent to that instance again, and nobody is
// asked which others there are.
func TestNoStandInForInstance(t *testing.T) { rpctest.Bubble(t, testNoStandInForInstance) }

func testNoStandInForInstance(t *testing.T, srv *rpctest.Server) {
	proxy := rpctest.NewProxy(t, srv)
	chosen := serve(t, proxy.Connect(), &funcs{}).Instance(testDesc.Name)
	serve(t, srv.Connect(), &funcs{})
	nc := srv.Connect()
	queries, err := nc.SubscribeSync(testRoot + "._all.instances")
	must(t, err)
	attempts := 0
	c := dial(t, srv.Connect(), rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.OnAttempt(func(*rpc.Attempt) error {
			if attempts++; attempts == 1 {
				proxy.Fault(loseFrom)
			} else {
				proxy.Fault(nil)
			}
			return nil
		})
		return next(ctx, call)
	}))
	must(t, read(testContext(t), c, rpc.WithInstance(chosen)))
	must(t, nc.Flush())
	if n, _, err := queries.Pending(); err != nil || n > 0 || attempts != 2 {
		t.Errorf("%d instance queries, %d attempts, %v", n, attempts, err)
	}
}

// TestAbandonedCalls: calls that meet their deadline without an answer are canceled together.
func TestAbandonedCalls(t *testing.T) {
	srv := rpctest.NewServer(t)
	nc := srv.Connect()
	requests, err := nc.SubscribeSync(doSubject) // it takes requests, and never answers
	must(t, err)
	cancels, err := nc.SubscribeSync(testRoot + "._all.cancel")
	must(t, err)
	must(t, nc.Flush())
	c := dial(t, srv.Connect())
	const calls = 100
	for range calls {
		go func() { _, _ = do(testContext(t), c, "x", rpc.WithTimeout(100*time.Millisecond)) }()
	}
	_, _ = do(testContext(t), c, "x", rpc.WithTimeout(100*time.Millisecond), rpc.WithPlainRequests())
	want := map[wire.ID]bool{}
	for len(want) < calls {
		m, err := requests.NextMsg(time.Minute)
		must(t, err)
		if wire.IsEnvelope(m.Data) {
			want[wire.IDOf(m.Data)] = true
		}
	}
	messages := 0
	for len(want) > 0 {
		m, err := cancels.NextMsg(time.Minute)
		must(t, err)
		messages++
		e, err := wire.Parse(m.Data)
		must(t, err)
		for id := range e.IDs() {
			if !want[id] {
				t.Error("a cancel of another call")
			}
			delete(want, id)
		}
	}
	if messages > calls/2 {
		t.Errorf("%d messages cancel %d calls", messages, calls)
	}
}

// TestStandStill: of the requests that came while a process stood still those whose callers have
// gone meanwhile do not run, although their cancels came behind all of them. The others do.
func TestStandStill(t *testing.T) { rpctest.Bubble(t, testStandStill) }

func testStandStill(t *testing.T, srv *rpctest.Server) {
	proxy := rpctest.NewProxy(t, srv)
	var ran atomic.Int64
	s := serve(t, proxy.Connect(), &funcs{do: func(_ context.Context, in string) (string, error) {
		ran.Add(1)
		return in, nil
	}})
	first := true
	proxy.Fault(func(m rpctest.Message) rpctest.Action {
		switch {
		case m.To == rpctest.ToServer:
		case m.Subject == testRoot+"._all.cancel" && len(m.Data) == 0: // what follows waits
			return rpctest.Delay(time.Second)
		case m.Subject == doSubject && first:
			first = false
			s.StandStill()
		}
		return rpctest.Pass
	})
	nc := srv.Connect()
	replies, err := nc.SubscribeSync(nc.NewInbox())
	must(t, err)
	const gone, waiting = 500, 20
	var ids []wire.ID
	must(t, nc.Publish(testRoot+"._all.cancel", nil))
	for i := range gone + waiting {
		id := wire.NewID()
		must(t, nc.PublishRequest(doSubject, replies.Subject, wire.AppendRequest(nil, id, wire.CodecProto, time.Minute)))
		if i < gone {
			ids = append(ids, id)
		}
	}
	for some := range slices.Chunk(ids, 100) {
		must(t, nc.Publish(testRoot+"._all.cancel", wire.AppendCancel(nil, some...)))
	}
	must(t, nc.Flush())
	for range gone + waiting {
		_, err := replies.NextMsg(time.Minute)
		must(t, err)
	}
	if got := ran.Load(); got != waiting {
		t.Errorf("%d calls ran, want %d", got, waiting)
	}
	must(t, callOnce(t, dial(t, srv.Connect())))
}

// TestStandStillQueued: neither does a call begin that was queued before the process stood still,
// if its caller has gone meanwhile.
func TestStandStillQueued(t *testing.T) { rpctest.Bubble(t, testStandStillQueued) }

func testStandStillQueued(t *testing.T, srv *rpctest.Server) {
	proxy := rpctest.NewProxy(t, srv)
	running, goOn := make(chan string, 2), make(chan struct{})
	s := serve(t, proxy.Connect(), &funcs{do: func(_ context.Context, in string) (string, error) {
		running <- in
		<-goOn
		return in, nil
	}}, rpc.WithMaxConcurrency(1))
	held := make(chan struct{})
	proxy.Fault(func(m rpctest.Message) rpctest.Action {
		if m.To == rpctest.ToClient && m.Subject == testRoot+"._all.cancel" && len(m.Data) == 0 {
			close(held)
			return rpctest.Delay(time.Second)
		}
		return rpctest.Pass
	})
	c := dial(t, srv.Connect())
	first := make(chan error, 1)
	go func() { _, err := do(testContext(t), c, "first"); first <- err }()
	<-running
	nc := srv.Connect()
	id := wire.NewID()
	must(t, nc.Publish(doSubject, wire.AppendRequest(nil, id, wire.CodecProto, time.Minute)))
	until(t, "it is queued", func() bool { return s.Open() == 2 })
	must(t, nc.Publish(testRoot+"._all.cancel", nil)) // what follows waits
	<-held
	must(t, nc.Publish(testRoot+"._all.cancel", wire.AppendCancel(nil, id)))
	must(t, nc.Flush())
	s.StandStill()
	close(goOn)
	must(t, <-first)
	until(t, "both have ended", func() bool { return s.Open() == 0 })
	select {
	case <-running:
		t.Error("a call has begun whose caller had gone")
	default:
	}
}

// TestStandStillShutdown: a server that is shut down while it holds requests answers them.
func TestStandStillShutdown(t *testing.T) {
	srv := rpctest.NewServer(t)
	for range 20 {
		s := newTestServer(t, srv.Connect(), &funcs{})
		c := dial(t, srv.Connect())
		must(t, callOnce(t, c))
		result := make(chan error, 1)
		s.StandStill()
		go func() { _, err := do(testContext(t), c, "x", rpc.WithoutRetry()); result <- err }()
		shutdown(t, s)
		if err := <-result; err != nil && rpc.CodeOf(err) != rpc.CodeUnavailable {
			t.Error(err)
		}
	}
}

// TestManyCancels: one message may cancel many calls.
func TestManyCancels(t *testing.T) {
	srv := rpctest.NewServer(t)
	running, ended := make(chan struct{}, 10), make(chan struct{}, 10)
	serve(t, srv.Connect(), &funcs{do: func(ctx context.Context, in string) (string, error) {
		running <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return in, nil
	}})
	nc := srv.Connect()
	var ids []wire.ID
	for range cap(running) {
		ids = append(ids, wire.NewID())
		must(t, nc.Publish(doSubject, wire.AppendRequest(nil, ids[len(ids)-1], wire.CodecProto, wire.NoTimeout)))
		<-running
	}
	must(t, nc.Publish(testRoot+"._all.cancel", wire.AppendCancel(nil, ids...)))
	for range ids {
		<-ended
	}
}

// TestDeadCaller: the handlers of a client that has gone without a word end, those of others go on.
func TestDeadCaller(t *testing.T) { rpctest.Bubble(t, testDeadCaller) }

func testDeadCaller(t *testing.T, srv *rpctest.Server) {
	proxy := rpctest.NewProxy(t, srv)
	running, ended := make(chan string, 3), make(chan string, 3)
	wait := func(ctx context.Context, in string) error {
		running <- in
		<-ctx.Done()
		ended <- in
		return ctx.Err()
	}
	serve(t, srv.Connect(), &funcs{
		do:    func(ctx context.Context, in string) (string, error) { return in, wait(ctx, in) },
		watch: func(ctx context.Context, in string, _ *rpc.Sender[*text]) error { return wait(ctx, in) },
	})
	dead, lives := dial(t, proxy.Connect()), dial(t, srv.Connect())
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	var calls sync.WaitGroup
	for name, c := range map[string]*rpc.Client{"dead": dead, "lives": lives} {
		calls.Go(func() { _, _ = do(ctx, c, name, rpc.WithoutTimeout()) })
		<-running
	}
	_, err := watch(ctx, dead, "stream")
	must(t, err)
	<-running
	asked := make(chan struct{}, 100)
	proxy.Fault(func(m rpctest.Message) rpctest.Action {
		if m.To == rpctest.ToClient && wire.IsEnvelope(m.Data) && wire.Kind(m.Data[2]) == wire.KindAliveAnswer {
			select {
			case asked <- struct{}{}:
			default:
			}
		}
		return rpctest.Pass
	})
	for range 3 { // the instance knows its caller
		<-asked
	}
	proxy.Close()
	if got := <-ended; got != "stream" {
		t.Errorf("%s ends first", got)
	}
	if got := <-ended; got != "dead" {
		t.Errorf("%s ends second", got)
	}
	cancel()
	if got := <-ended; got != "lives" {
		t.Errorf("%s ends third", got)
	}
	calls.Wait()
}
