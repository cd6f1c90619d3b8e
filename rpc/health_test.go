package rpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcschema"
	"github.com/natscall/natscall/rpc/rpctest"
)

// patient is an instance that can be made ill.
type patient struct {
	*rpc.Server
	ill   atomic.Bool
	calls atomic.Int64 // that have begun
}

var errIll = errors.New("the database is away")

// newPatient starts one. Its calls take a while, and answer its name.
func newPatient(t testing.TB, nc *nats.Conn, name string, opts ...rpc.ServerOption) *patient {
	p := &patient{}
	check := rpc.WithHealthCheck(func(context.Context) error {
		if p.ill.Load() {
			return errIll
		}
		return nil
	})
	answer := func(ctx context.Context, _ string) (string, error) {
		p.calls.Add(1)
		select {
		case <-time.After(30 * time.Millisecond):
			return name, nil
		case <-ctx.Done():
			return "", ctx.Err()
		}
	}
	p.Server = serve(t, nc, &funcs{do: answer, read: answer}, append([]rpc.ServerOption{check}, opts...)...)
	return p
}

// health is what the instance says of itself.
func (p *patient) health() rpc.Health { return p.Server.Health()[0] }

// callers call until they are stopped, and report every call that fails.
func callers(t testing.TB, c *rpc.Client) (stop func()) {
	var ended atomic.Bool
	var running sync.WaitGroup
	for range 10 {
		running.Go(func() {
			for !ended.Load() {
				if _, err := do(testContext(t), c, "x"); err != nil {
					t.Errorf("a call is lost: %v", err)
				}
			}
		})
	}
	return func() {
		ended.Store(true)
		running.Wait()
	}
}

// TestUnhealthyUnderLoad: an instance whose check fails gets no new call after five seconds, no
// call is lost, it stays in discovery, and comes back when it is healthy again.
func TestUnhealthyUnderLoad(t *testing.T) {
	for name, opts := range map[string][]rpc.ServerOption{"queue group": nil, "fail closed": {rpc.WithFailClosed()}} {
		t.Run(name, func(t *testing.T) {
			rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
				a, b := newPatient(t, srv.Connect(), "a", opts...), newPatient(t, srv.Connect(), "b", opts...)
				nc := srv.Connect()
				stop := callers(t, dial(t, nc, rpc.WithoutRetry()))
				time.Sleep(5 * time.Second)
				if a.calls.Load() == 0 || b.calls.Load() == 0 {
					t.Fatal("one of the instances gets no calls")
				}
				a.ill.Store(true)
				time.Sleep(5 * time.Second)
				before, others := a.calls.Load(), b.calls.Load()
				time.Sleep(10 * time.Second)
				if now := a.calls.Load(); now != before || b.calls.Load() == others {
					t.Errorf("%d calls have come to the unhealthy instance", now-before)
				}
				if h := a.health(); h.Serving || h.TakesCalls || h.Reason != errIll.Error() || time.Since(h.Since) > 15*time.Second {
					t.Errorf("it says %+v", h)
				}
				if found := names(t, nc, 2); len(found) != 2 {
					t.Errorf("discovery finds %q", found)
				}
				got, err := do(testContext(t), dial(t, nc), "x", rpc.WithInstance(a.Instance(testDesc.Name)))
				if got != "a" || err != nil {
					t.Errorf("a call to the instance itself: %q, %v", got, err)
				}
				a.ill.Store(false)
				time.Sleep(5 * time.Second)
				before = a.calls.Load()
				time.Sleep(time.Second)
				if a.calls.Load() == before || !a.health().TakesCalls {
					t.Error("the instance does not come back")
				}
				stop()
			})
		})
	}
}

// TestAllUnhealthy: if all instances are unhealthy they go on, and say so.
func TestAllUnhealthy(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		a, b := newPatient(t, srv.Connect(), "a"), newPatient(t, srv.Connect(), "b")
		c := dial(t, srv.Connect(), rpc.WithoutRetry())
		stop := callers(t, c)
		a.ill.Store(true)
		b.ill.Store(true)
		time.Sleep(10 * time.Second)
		before := a.calls.Load() + b.calls.Load()
		time.Sleep(time.Second)
		if a.calls.Load()+b.calls.Load() == before {
			t.Error("nobody serves")
		}
		stop()
		said := 0
		for answer := range rpc.HealthMethod(&testDesc).Gather(testContext(t), c, new(natscallv1.GetHealthRequest)).All() {
			h := answer.Response
			if answer.Err != nil || h.GetStatus() != natscallv1.HealthStatus_HEALTH_STATUS_NOT_SERVING || h.GetReason() != errIll.Error() ||
				!h.GetTakesCalls() || h.GetInstance() != answer.Instance || h.GetService() != testDesc.Name {
				t.Errorf("got %v", answer)
			}
			said++
		}
		if said != 2 {
			t.Errorf("%d instances answer", said)
		}
		a.ill.Store(false)
		time.Sleep(10 * time.Second)
		if a, b := a.health(), b.health(); !a.TakesCalls || b.TakesCalls {
			t.Errorf("one is healthy again: %+v, %+v", a, b)
		}
	})
}

// TestOneByOne: instances that become unhealthy one after the other leave, but for the last one;
// when that dies, one of the others comes back.
func TestOneByOne(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		var all []*patient
		last := placeAt(t, srv)
		for i, nc := range []*nats.Conn{srv.Connect(), srv.Connect(), last.nc} {
			all = append(all, newPatient(t, nc, fmt.Sprint(i)))
		}
		in := func() (in []int) {
			for i, p := range all {
				if p.health().TakesCalls {
					in = append(in, i)
				}
			}
			return in
		}
		all[0].ill.Store(true)
		time.Sleep(10 * time.Second)
		all[1].ill.Store(true)
		time.Sleep(10 * time.Second)
		if got := fmt.Sprint(in()); got != "[2]" {
			t.Errorf("in the group are %s", got)
		}
		last.leave()
		time.Sleep(10 * time.Second)
		if got := in(); len(got) == 0 || got[0] == 2 {
			t.Errorf("in the group are %v", got)
		}
		_, err := do(testContext(t), dial(t, srv.Connect()), "x")
		must(t, err)
	})
}

// TestFailClosed: with the option nobody is left.
func TestFailClosed(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		p := newPatient(t, srv.Connect(), "a", rpc.WithFailClosed())
		must(t, p.SetHealth(testDesc.Name, errIll))
		synctest.Wait()
		time.Sleep(time.Second)
		_, err := do(testContext(t), dial(t, srv.Connect(), rpc.WithTimeout(time.Second)), "x")
		var e *rpc.Error
		if !errors.As(err, &e) || e.Code() != rpc.CodeUnavailable || e.Execution() != rpc.ExecutionNotRun {
			t.Errorf("got %v", err)
		}
	})
}

// TestNoSubstitute: an instance stays if the healthy one cannot take its calls.
func TestNoSubstitute(t *testing.T) {
	for name, other := range map[string]func(testing.TB, *nats.Conn){
		"other group": func(t testing.TB, nc *nats.Conn) { newPatient(t, nc, "b", rpc.WithQueueGroup("audit")) },
		"no group":    func(t testing.TB, nc *nats.Conn) { serveOlder(t, nc, &funcs{}) },
	} {
		t.Run(name, func(t *testing.T) {
			rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
				a := newPatient(t, srv.Connect(), "a")
				other(t, srv.Connect())
				must(t, a.SetHealth("", errIll))
				time.Sleep(10 * time.Second)
				if h := a.health(); h.Serving || !h.TakesCalls {
					t.Errorf("it says %+v", h)
				}
			})
		})
	}
}

// TestHealthWithoutGroup: an instance without a queue group still gets every call, as the others
// cannot have it in its stead, unless it is to fail closed.
func TestHealthWithoutGroup(t *testing.T) {
	for name, test := range map[string]struct {
		opts []rpc.ServerOption
		want int64
	}{
		"stays": {nil, 2}, "fail closed": {[]rpc.ServerOption{rpc.WithFailClosed()}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
				var notes atomic.Int64
				impl := &funcs{note: func(context.Context, *structpb.Struct) error { notes.Add(1); return nil }}
				opts := append([]rpc.ServerOption{rpc.WithoutQueueGroup()}, test.opts...)
				a := serve(t, srv.Connect(), impl, opts...)
				serve(t, srv.Connect(), impl, opts...)
				must(t, a.SetHealth("", errIll))
				time.Sleep(10 * time.Second)
				must(t, testNote.Call(testContext(t), dial(t, srv.Connect()), new(structpb.Struct)))
				time.Sleep(time.Second)
				if notes.Load() != test.want || a.Health()[0].Serving || a.Health()[0].TakesCalls != (test.want == 2) {
					t.Errorf("%d instances have got the note, and one says %+v", notes.Load(), a.Health()[0])
				}
			})
		})
	}
}

// TestHealthWhileOut: an instance that has left its groups can lose its connection, be shut down
// and be unregistered like any other.
func TestHealthWhileOut(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		at := placeAt(t, srv)
		a, b := newPatient(t, at.nc, "a"), newPatient(t, srv.Connect(), "b")
		must(t, a.SetHealth(testDesc.Name, errIll))
		time.Sleep(time.Second)
		at.Cut()
		time.Sleep(10 * time.Second)
		if !at.nc.IsConnected() || a.health().TakesCalls {
			t.Errorf("after a reconnect it says %+v", a.health())
		}
		c := dial(t, srv.Connect())
		for range 20 {
			got, err := do(testContext(t), c, "x")
			if got != "b" || err != nil {
				t.Errorf("%q has answered, %v", got, err)
			}
		}
		must(t, a.Unregister(testContext(t), testDesc.Name))
		if len(a.Server.Health()) != 0 {
			t.Errorf("it says %+v", a.Server.Health())
		}
		must(t, b.SetHealth(testDesc.Name, errIll)) // and is asking when it is shut down
		shutdown(t, b.Server)
		if h := b.health(); h.Serving || h.TakesCalls || h.Reason != "the instance is shutting down" {
			t.Errorf("it says %+v", h)
		}
	})
}

// TestToolsWhileDraining: an instance that finishes its last calls answers tools until it is done,
// whoever asks and how.
func TestToolsWhileDraining(t *testing.T) {
	srv := rpctest.NewServer(t)
	nc := srv.Connect()
	began, proceed := make(chan struct{}), make(chan struct{})
	var calls atomic.Int64
	s := newTestServer(t, srv.Connect(), &funcs{do: func(_ context.Context, in string) (string, error) {
		if calls.Add(1) == 1 { // others may come before it drains
			close(began)
			<-proceed
		}
		return in, nil
	}})
	c := dial(t, nc, rpc.WithoutRetry())
	ended, stopped := make(chan error, 1), make(chan error, 1)
	go func() { ended <- callOnce(t, c) }()
	<-began
	go func() { stopped <- s.Shutdown(testContext(t)) }()
	until(t, "nobody takes calls any more", func() bool {
		_, err := do(testContext(t), c, "x")
		return rpc.CodeOf(err) == rpc.CodeUnavailable
	})
	to := rpc.WithInstance(s.Instance(testDesc.Name))
	for name, opts := range map[string][]rpc.CallOption{
		"group": nil, "instance": {to}, "plain": {rpc.WithPlainRequests()}, "plain to the instance": {rpc.WithPlainRequests(), to},
	} {
		h, err := rpc.HealthMethod(&testDesc).Call(testContext(t), c, new(natscallv1.GetHealthRequest), opts...)
		if err != nil || h.GetStatus() != natscallv1.HealthStatus_HEALTH_STATUS_NOT_SERVING || h.GetTakesCalls() || h.GetReason() != "the instance is shutting down" {
			t.Errorf("health, %s: %v, %v", name, h, err)
		}
		_, err = rpcschema.Fetch(testContext(t), c, &testDesc, opts...)
		if err != nil {
			t.Errorf("schema, %s: %v", name, err)
		}
	}
	close(proceed)
	must(t, <-ended)
	must(t, <-stopped)
}

// TestCheckOutlivesShutdown: a check that ignores its context does not hold up a shutdown for
// longer than the caller of Shutdown waits.
func TestCheckOutlivesShutdown(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		end := make(chan struct{})
		s := newTestServer(t, srv.Connect(), &funcs{}, rpc.WithHealthCheck(func(context.Context) error { <-end; return nil }))
		time.Sleep(10 * time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		_ = s.Shutdown(ctx)
		if d := time.Since(began); d > time.Second {
			t.Errorf("the shutdown has taken %v", d)
		}
		close(end)
	})
}

// TestHealthAnswers: what each kind of client sees.
func TestHealthAnswers(t *testing.T) {
	srv := rpctest.NewServer(t)
	nc := srv.Connect()
	s := serve(t, srv.Connect(), &funcs{}, rpc.WithSubjectPrefix("eu"))
	c := dial(t, nc, rpc.WithSubjectPrefix("eu"))
	ask := func() *natscallv1.GetHealthResponse {
		t.Helper()
		m, err := nc.RequestWithContext(testContext(t), "eu."+testRoot+"._health", []byte("{}"))
		must(t, err)
		plain := new(natscallv1.GetHealthResponse)
		must(t, protojson.Unmarshal(m.Data, plain))
		if m.Header.Get("Natscall-Instance") != plain.GetInstance() {
			t.Errorf("the header is %v, of %v", m.Header, plain)
		}
		res, err := rpc.HealthMethod(&testDesc).Call(testContext(t), c, new(natscallv1.GetHealthRequest))
		must(t, err)
		if plain.String() != res.String() {
			t.Errorf("plain %v, in an envelope %v", plain, res)
		}
		return res
	}
	if h := ask(); h.GetStatus() != natscallv1.HealthStatus_HEALTH_STATUS_SERVING || h.GetReason() != "" || !h.GetTakesCalls() ||
		h.GetInstance() != s.Instance(testDesc.Name) || time.Since(h.GetSince().AsTime()) > time.Minute {
		t.Errorf("got %v", h)
	}
	must(t, s.SetHealth("", errors.New("too\nhot "+strings.Repeat("x", 5000))))
	h := ask()
	if h.GetStatus() != natscallv1.HealthStatus_HEALTH_STATUS_NOT_SERVING || !strings.HasPrefix(h.GetReason(), "too hot xx") || len(h.GetReason()) > 2000 {
		t.Errorf("got %v", h)
	}
	info := discover[micro.Info](t, nc, "$SRV.INFO", 1)[0]
	if info.Metadata["natscall.not_serving"] != h.GetReason() || len(info.Endpoints) != 8 {
		t.Errorf("INFO: %v", info)
	}
	var data struct {
		Health string `json:"health"`
		Reason string `json:"health_reason"`
	}
	must(t, json.Unmarshal(discover[micro.Stats](t, nc, "$SRV.STATS", 1)[0].Endpoints[0].Data, &data))
	if data.Health != "NOT_SERVING" || data.Reason != h.GetReason() {
		t.Errorf("STATS: %v", data)
	}
	must(t, s.SetHealth(testDesc.Name, nil))
	if h := ask(); h.GetStatus() != natscallv1.HealthStatus_HEALTH_STATUS_SERVING {
		t.Errorf("got %v", h)
	}
	if err := s.SetHealth("order.v1.None", nil); err == nil || !strings.Contains(err.Error(), "order.v1.None") {
		t.Errorf("got %v", err)
	}
}

// TestHealthOfServers: what a server says before it starts, and of what is not a server.
func TestHealthOfServers(t *testing.T) {
	nc := rpctest.Connect(t)
	s := rpc.NewServer(nc)
	must(t, registerTest(s, &funcs{}))
	if h := s.Health(); len(h) != 1 || h[0].Serving || h[0].Reason != "the instance has not started" || s.Connected() || s.Stopped() {
		t.Errorf("before it starts: %+v", h)
	}
	must(t, s.SetHealth(testDesc.Name, errIll))
	must(t, s.Start(testContext(t)))
	if h := s.Health(); h[0].Reason != errIll.Error() || !s.Connected() {
		t.Errorf("got %+v", h)
	}
	shutdown(t, s)
	if s.Connected() || !s.Stopped() {
		t.Error("a server that was shut down runs")
	}
	var none *rpc.Server
	if none.Health() != nil || none.SetHealth("", nil) == nil || none.Connected() || none.Stopped() {
		t.Error("a nil server is healthy")
	}
	if err := rpc.NewServer(nc, rpc.WithHealthCheck(nil)).Start(testContext(t)); err == nil || !strings.Contains(err.Error(), "WithHealthCheck(nil)") {
		t.Errorf("got %v", err)
	}
}

// TestHealthSkipsInterceptors: those of the server do not see the own methods.
func TestHealthSkipsInterceptors(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{}, rpc.WithInterceptors(func(_ context.Context, call *rpc.Call, _ rpc.Next) error {
		return rpc.Errorf(rpc.CodePermissionDenied, "%s", call.Method())
	}))
	c := dial(t, nc)
	_, err := rpc.HealthMethod(&testDesc).Call(testContext(t), c, new(natscallv1.GetHealthRequest))
	must(t, err)
	if _, err := do(testContext(t), c, "x"); rpc.CodeOf(err) != rpc.CodePermissionDenied {
		t.Errorf("got %v", err)
	}
}

// TestNotBackYet: an instance that is healthy again covers for another one only when it is back in
// its queue group. Else there would be nobody until it is.
func TestNotBackYet(t *testing.T) {
	for _, healed := range []time.Duration{100, 700, 900, 1100, 1700} { // ms after b has failed
		t.Run(fmt.Sprint(int(healed)), func(t *testing.T) {
			rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
				a, b := newPatient(t, srv.Connect(), "a"), newPatient(t, srv.Connect(), "b")
				must(t, a.SetHealth("", errIll))
				time.Sleep(10*time.Second + 300*time.Millisecond)
				must(t, b.SetHealth("", errIll))
				time.Sleep(healed * time.Millisecond)
				must(t, a.SetHealth("", nil))
				for range 300 {
					synctest.Wait()
					if !a.health().TakesCalls && !b.health().TakesCalls {
						t.Fatalf("nobody takes calls: %+v, %+v", a.health(), b.health())
					}
					time.Sleep(10 * time.Millisecond)
				}
				if a, b := a.health(), b.health(); !a.TakesCalls || b.TakesCalls {
					t.Errorf("in the end: %+v, %+v", a, b)
				}
			})
		})
	}
}

// TestOverlap: an instance that has just come back takes calls for a while before another one
// leaves because of it, as nodes of a NATS cluster learn of both one after the other.
func TestOverlap(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		a, b := newPatient(t, srv.Connect(), "a"), newPatient(t, srv.Connect(), "b")
		must(t, a.SetHealth("", errIll))
		time.Sleep(10 * time.Second)
		must(t, a.SetHealth("", nil))
		synctest.Wait()
		must(t, b.SetHealth("", errIll))
		both := 0
		for a.health().TakesCalls && b.health().TakesCalls {
			synctest.Wait()
			time.Sleep(10 * time.Millisecond)
			both++
		}
		if a, b := a.health(), b.health(); !a.TakesCalls || b.TakesCalls || both < 30 || both > 50 {
			t.Errorf("after %d ms: %+v, %+v", both*10, a, b)
		}
		must(t, b.SetHealth("", nil))
		time.Sleep(10 * time.Second)
		must(t, b.SetHealth("", errIll))
		time.Sleep(100 * time.Millisecond)
		must(t, b.SetHealth("", nil)) // before it has left
		for range 100 {
			time.Sleep(10 * time.Millisecond)
			if !b.health().TakesCalls {
				t.Fatal("an instance leaves that is healthy")
			}
		}
	})
}

// TestLongReason: an instance stays in discovery also if its reason does not fit into a message.
func TestLongReason(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) { o.MaxPayload = 5 << 10 }))
	nc := srv.Connect()
	s := serve(t, srv.Connect(), &funcs{})
	must(t, s.SetHealth("", errors.New(strings.Repeat("<", 1000)))) // six bytes each in JSON
	for verb, got := range map[string]micro.ServiceIdentity{
		"PING":  discover[micro.Ping](t, nc, "$SRV.PING", 1)[0].ServiceIdentity,
		"INFO":  discover[micro.Info](t, nc, "$SRV.INFO", 1)[0].ServiceIdentity,
		"STATS": discover[micro.Stats](t, nc, "$SRV.STATS", 1)[0].ServiceIdentity,
	} {
		if got.ID != s.Instance(testDesc.Name) || got.Metadata["natscall.not_serving"] != "the reason is long: ask _health for it" {
			t.Errorf("%s: %+v", verb, got)
		}
	}
	must(t, s.SetHealth("", errIll))
	if got := discover[micro.Info](t, nc, "$SRV.INFO", 1)[0].Metadata["natscall.not_serving"]; got != errIll.Error() {
		t.Errorf("the reason is %q", got)
	}
}

// TestHealthFlood: all of very many questions are answered, some by the limit that they meet: no
// option of the server's.
func TestHealthFlood(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{})
	nc := srv.Connect()
	inbox := nats.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	must(t, err)
	const questions = 20_000
	for range questions {
		must(t, nc.PublishRequest(testRoot+"._health", inbox, []byte("{}")))
	}
	const busy = "resource_exhausted: /test.v1.TestService/_health is busy: 4 calls of tools run and 256 wait, which is the limit"
	for range questions {
		m, err := sub.NextMsgWithContext(testContext(t))
		must(t, err)
		if text := m.Header.Get("Nats-Service-Error"); text != "" && text != busy {
			t.Fatalf("got %q", text)
		}
	}
}

// TestHandOver: the only healthy instance can be shut down or unregistered without a lost call: it
// goes when those that have left their groups are back. Nobody waits for anything else.
func TestHandOver(t *testing.T) {
	shut := func(ctx context.Context, p *patient) error { return p.Shutdown(ctx) }
	for name, test := range map[string]struct {
		ill, well int // instances beside the one that goes
		end       func(context.Context, *patient) error
		time      time.Duration // that the caller has
		took      time.Duration
	}{
		"shut down":        {1, 0, shut, time.Minute, 3500 * time.Millisecond},
		"unregistered":     {1, 0, func(ctx context.Context, p *patient) error { return p.Unregister(ctx, testDesc.Name) }, time.Minute, 3500 * time.Millisecond},
		"two rely on it":   {2, 0, shut, time.Minute, 3500 * time.Millisecond},
		"little time":      {1, 0, shut, 4 * time.Second, 2 * time.Second},
		"another one":      {1, 1, shut, time.Minute, 0},
		"nobody relies":    {0, 1, shut, time.Minute, 0},
		"the last of all":  {0, 0, shut, time.Minute, 0},
		"the ill one goes": {0, 1, func(ctx context.Context, p *patient) error { return errors.Join(p.SetHealth("", errIll), shut(ctx, p)) }, time.Minute, 0},
	} {
		t.Run(name, func(t *testing.T) {
			rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
				goes := newPatient(t, srv.Connect(), "goes")
				var ill []*patient
				for range test.ill {
					p := newPatient(t, srv.Connect(), "ill")
					p.ill.Store(true)
					ill = append(ill, p)
				}
				for range test.well {
					newPatient(t, srv.Connect(), "well")
				}
				time.Sleep(10 * time.Second)
				var stop func()
				if lost := test.time < time.Minute || test.ill+test.well == 0; !lost {
					stop = callers(t, dial(t, srv.Connect(), rpc.WithoutRetry()))
				}
				for _, p := range ill {
					if h := p.health(); h.TakesCalls {
						t.Errorf("before: %+v", h)
					}
				}
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), test.time)
				defer cancel()
				must(t, test.end(ctx, goes))
				within(t, "the end", time.Since(began), test.took, test.took+100*time.Millisecond)
				if stop != nil {
					stop()
				}
				for _, p := range ill {
					if h := p.health(); test.time == time.Minute && h.TakesCalls != (test.well == 0) {
						t.Errorf("afterwards: %+v", h)
					}
				}
			})
		})
	}
}

// badError is an error whose text cannot be had: that of a nil pointer panics.
type badError struct{ text string }

func (e *badError) Error() string { return e.text }

// TestReasons: whatever error a program gives, an instance has a reason that can be shown.
func TestReasons(t *testing.T) {
	nc := rpctest.Connect(t)
	s := serve(t, nc, &funcs{})
	c := dial(t, nc)
	for name, test := range map[string]struct {
		err  error
		want string
	}{
		"nil pointer": {(*badError)(nil), "an error without a text (*rpc_test.badError)"},
		"no text":     {errors.New(""), "an error without a text (*errors.errorString)"},
		"blank":       {errors.New("\n\t "), "an error without a text (*errors.errorString)"},
		"lines":       {errors.New("the disk\nis full"), "the disk is full"},
		"no UTF-8":    {errors.New("\xff disk"), "\ufffd disk"},
	} {
		t.Run(name, func(t *testing.T) {
			must(t, s.SetHealth("", test.err))
			if h := s.Health()[0]; h.Serving || h.Reason != test.want {
				t.Errorf("it says %+v", h)
			}
			res, err := rpc.HealthMethod(&testDesc).Call(testContext(t), c, new(natscallv1.GetHealthRequest))
			must(t, err)
			info := discover[micro.Info](t, nc, "$SRV.INFO", 1)[0]
			if res.GetReason() != test.want || info.Metadata["natscall.not_serving"] != test.want {
				t.Errorf("got %v, INFO has %q", res, info.Metadata["natscall.not_serving"])
			}
		})
	}
	changing := &badError{"first"}
	must(t, s.SetHealth("", changing))
	changing.text = "second"
	if h := s.Health()[0]; h.Reason != "first" {
		t.Errorf("the reason has become %q", h.Reason)
	}
}
