package rpc_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

// The promises of docs/protocol.md, "Liveness", on virtual time: each kind of death at many moments
// of a call, and what is said about seconds is measured.

// phases are ages of a call at which something happens to it: between any two ticks of client and
// server, and between any two queries.
func phases(yield func(time.Duration) bool) {
	for at := time.Duration(0); at <= 1500*time.Millisecond; at += 50 * time.Millisecond {
		if !yield(at) {
			return
		}
	}
}

// place is a service or a client with a network of its own.
type place struct {
	*rpctest.Proxy
	nc *nats.Conn
}

func placeAt(t testing.TB, srv *rpctest.Server, opts ...nats.Option) place {
	p := rpctest.NewProxy(t, srv)
	return place{p, p.Connect(opts...)}
}

// leave is how a test is done with a place before it ends. The connection of one that was killed
// would try to reconnect all the time. When it returns NATS knows that it has gone, so that no
// request goes there.
func (p place) leave() {
	p.nc.Close()
	p.Close()
	synctest.Wait()
}

// waitingService is an instance whose handlers run until they are told or canceled.
type waitingService struct {
	place
	server *rpc.Server
	began  chan string
	finish chan struct{}
	ended  chan error
}

// newWaitingService starts one. began is where it says its name for each handler that begins.
func newWaitingService(t testing.TB, srv *rpctest.Server, name string, began chan string, opts ...nats.Option) *waitingService {
	s := &waitingService{place: placeAt(t, srv, opts...), began: began, finish: make(chan struct{}), ended: make(chan error, 10)}
	wait := func(ctx context.Context) error {
		began <- name
		select {
		case <-s.finish:
		case <-ctx.Done():
		}
		s.ended <- ctx.Err()
		return ctx.Err()
	}
	s.server = newTestServer(t, s.nc, &funcs{
		do:    func(ctx context.Context, in string) (string, error) { return in, wait(ctx) },
		read:  func(ctx context.Context, in string) (string, error) { return in, wait(ctx) },
		watch: func(ctx context.Context, _ string, _ *rpc.Sender[*text]) error { return wait(ctx) },
	})
	return s
}

// stop ends the handlers and the server.
func (s *waitingService) stop(t testing.TB) {
	close(s.finish)
	s.leave() // first: one that is cut off cannot say goodbye
	shutdown(t, s.server)
}

// deaths are the ways in which a process can be gone.
var deaths = map[string]func(p place){
	"killed":  func(p place) { p.Close() },
	"cut off": func(p place) { p.Block() },
}

// outcome is how a call or stream ended, and when.
type outcome struct {
	err error
	at  time.Time
}

func goCall(call func() error) chan outcome {
	done := make(chan outcome, 1)
	go func() {
		err := call()
		done <- outcome{err, time.Now()}
	}()
	return done
}

// within checks how long something took, and that it is not always the same by accident.
func within(t testing.TB, what string, took, least, most time.Duration) {
	t.Helper()
	if took < least || took > most {
		t.Errorf("%s: after %v, want %v to %v", what, took, least, most)
	}
}

// TestVirtualDeadInstance: an instance dies while a call runs, or with an open stream.
func TestVirtualDeadInstance(t *testing.T) {
	for name, die := range deaths {
		rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
			for at := range phases {
				c := rpc.NewClient(srv.Connect())
				s := newWaitingService(t, srv, "only", make(chan string, 2))
				call := goCall(func() error { _, err := do(t.Context(), c, "x", rpc.WithoutTimeout()); return err })
				<-s.began
				stream := goCall(func() error {
					r, err := watch(t.Context(), c, "x")
					if err == nil {
						_, err = r.Recv()
					}
					return err
				})
				<-s.began
				time.Sleep(at)
				died := time.Now()
				die(s.place)
				what := fmt.Sprint(name, " at ", at)
				for kind, done := range map[string]chan outcome{"call": call, "stream": stream} {
					o := <-done
					wantCode(t, o.err, rpc.CodeUnavailable, rpc.ExecutionMayHaveRun)
					within(t, kind+" "+what, o.at.Sub(died), 0, 3*time.Second)
				}
				must(t, c.Close())
				s.stop(t)
			}
		})
	}
}

// TestVirtualStandIn: if the call may run twice, another instance answers it.
func TestVirtualStandIn(t *testing.T) {
	for name, die := range deaths {
		rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
			for at := range phases {
				var seen attempts
				c := rpc.NewClient(srv.Connect(), rpc.WithInterceptors(seen.intercept))
				began := make(chan string, 1)
				services := map[string]*waitingService{}
				for _, name := range []string{"a", "b"} {
					services[name] = newWaitingService(t, srv, name, began)
				}
				call := goCall(func() error { return read(t.Context(), c) })
				dead := services[<-began]
				time.Sleep(at)
				died := time.Now()
				die(dead.place)
				lives := services[<-began]
				lives.finish <- struct{}{}
				o := <-call
				what := fmt.Sprint(name, " at ", at)
				if o.err != nil {
					t.Errorf("%s: %v", what, o.err)
				}
				within(t, what, o.at.Sub(died), 0, 3500*time.Millisecond)
				if got := seen.seen[0]; lives == dead || len(got) != 2 || got[1] != lives.server.Instance(testDesc.Name) {
					t.Errorf("%s: attempts %q, want the second at %s", what, got, lives.server.Instance(testDesc.Name))
				}
				must(t, c.Close())
				for _, s := range services {
					s.stop(t)
				}
			}
		})
	}
}

// asked is the age at which the instance has been asked about each call.
const asked = 650 * time.Millisecond

// TestVirtualDeadClient: handlers whose client has died end, those of streams first; if nobody has
// ever asked about a call, its handler goes on.
func TestVirtualDeadClient(t *testing.T) {
	for name, die := range deaths {
		rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
			for at := range phases {
				var ended sync.WaitGroup
				var streamAt, callAt time.Time
				running := make(chan struct{}, 2)
				s := newTestServer(t, srv.Connect(), &funcs{
					do: func(ctx context.Context, in string) (string, error) {
						running <- struct{}{}
						<-ctx.Done()
						callAt = time.Now()
						ended.Done()
						return in, ctx.Err()
					},
					watch: func(ctx context.Context, _ string, _ *rpc.Sender[*text]) error {
						running <- struct{}{}
						<-ctx.Done()
						streamAt = time.Now()
						ended.Done()
						return ctx.Err()
					},
				})
				client := placeAt(t, srv)
				c := rpc.NewClient(client.nc)
				ended.Add(2)
				call := goCall(func() error { _, err := do(t.Context(), c, "x", rpc.WithTimeout(time.Minute)); return err })
				_, err := watch(t.Context(), c, "x")
				must(t, err)
				<-running
				<-running
				time.Sleep(at)
				died := time.Now()
				die(client)
				ended.Wait()
				what := fmt.Sprint(name, " at ", at)
				if at < asked { // perhaps nobody has asked
					within(t, "stream "+what, streamAt.Sub(died), 0, 35*time.Second)
					within(t, "call "+what, callAt.Sub(died), 8*time.Second, time.Minute)
				} else {
					within(t, "stream "+what, streamAt.Sub(died), 3*time.Second, 5*time.Second)
					within(t, "call "+what, callAt.Sub(died), 8*time.Second, 10*time.Second)
				}
				<-call
				must(t, c.Close())
				client.leave()
				shutdown(t, s)
			}
		})
	}
}

// TestVirtualCallerIsBack: a caller whose connection is gone for 5 s keeps its handler. It gets the
// answer if it was gone for no longer than it waits itself.
func TestVirtualCallerIsBack(t *testing.T) {
	for gone, answered := range map[time.Duration]bool{3500 * time.Millisecond: true, 5 * time.Second: false} {
		rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
			for at := range phases {
				s := newWaitingService(t, srv, "only", make(chan string, 1))
				client := placeAt(t, srv, nats.ReconnectWait(gone), nats.MaxReconnects(-1))
				c := rpc.NewClient(client.nc)
				call := goCall(func() error { _, err := do(t.Context(), c, "x", rpc.WithoutTimeout()); return err })
				<-s.began
				time.Sleep(at)
				client.Cut()
				time.Sleep(gone + time.Second)
				select {
				case err := <-s.ended:
					t.Errorf("gone for %v at %v: the handler has ended: %v", gone, at, err)
				default:
					s.finish <- struct{}{}
				}
				o := <-call
				if answered {
					must(t, o.err)
				} else {
					wantCode(t, o.err, rpc.CodeUnavailable, rpc.ExecutionMayHaveRun)
				}
				must(t, c.Close())
				client.leave()
				s.stop(t)
			}
		})
	}
}

// TestVirtualInstanceIsBack: the calls of an instance that connects again after 2.1 s go on.
func TestVirtualInstanceIsBack(t *testing.T) {
	const gone = 2100 * time.Millisecond
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		for at := range phases {
			c := rpc.NewClient(srv.Connect())
			s := newWaitingService(t, srv, "only", make(chan string, 1), nats.ReconnectWait(gone), nats.MaxReconnects(-1))
			call := goCall(func() error { _, err := do(t.Context(), c, "x", rpc.WithoutTimeout()); return err })
			<-s.began
			time.Sleep(at)
			s.Cut()
			time.Sleep(gone - time.Millisecond)
			if s.nc.IsConnected() {
				t.Fatal("it is back too early for this test")
			}
			time.Sleep(10 * time.Second)
			s.finish <- struct{}{}
			if o := <-call; o.err != nil {
				t.Errorf("at %v: %v", at, o.err)
			}
			must(t, c.Close())
			s.stop(t)
		}
	})
}

// TestVirtualPausedInstance: calls to an instance that is not reached for 5 s end at their
// deadlines, and those that it has still time for get their answers.
func TestVirtualPausedInstance(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		service := placeAt(t, srv)
		serve(t, service.nc, &funcs{})
		c := dial(t, srv.Connect())
		must(t, callOnce(t, c))
		service.Block()
		began := time.Now()
		var calls sync.WaitGroup
		for range 100 {
			calls.Go(func() {
				_, err := do(t.Context(), c, "x", rpc.WithTimeout(time.Second))
				wantCode(t, err, rpc.CodeDeadlineExceeded, rpc.ExecutionMayHaveRun)
				within(t, "call", time.Since(began), time.Second, time.Second)
			})
		}
		calls.Wait()
		time.Sleep(4*time.Second - 500*time.Millisecond)
		call := goCall(func() error { _, err := do(t.Context(), c, "x"); return err })
		time.Sleep(500 * time.Millisecond)
		service.Unblock()
		o := <-call
		must(t, o.err)
		within(t, "the last call", o.at.Sub(began), 5*time.Second, 5*time.Second)
	})
}

// TestVirtualBlackHole: a client that hears nothing any more says so, and makes another connection
// if it may.
func TestVirtualBlackHole(t *testing.T) {
	for forced, opts := range map[bool][]rpc.ClientOption{false: nil, true: {rpc.WithForcedReconnect()}} {
		rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
			serve(t, srv.Connect(), &funcs{})
			client := placeAt(t, srv)
			var logged records
			c := dial(t, client.nc, append(opts, rpc.WithLogger(logged.logger()))...)
			must(t, callOnce(t, c))
			client.BlackHole()
			began := time.Now()
			_, err := do(t.Context(), c, "x")
			wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionMayHaveRun)
			within(t, "the call", time.Since(began), 0, 3*time.Second)
			time.Sleep(time.Until(began.Add(6500 * time.Millisecond)))
			if got := strings.Count(logged.String(), "nothing comes from NATS any more"); got != 1 {
				t.Errorf("forced %v: logged %d times", forced, got)
			}
			_, err = do(t.Context(), c, "x")
			if forced != (err == nil) || forced != (client.nc.Stats().Reconnects == 1) {
				t.Errorf("forced %v: %v, %d reconnects", forced, err, client.nc.Stats().Reconnects)
			}
		})
	}
}

// livenessTraffic counts the messages of liveness on a connection.
type livenessTraffic struct {
	mu     sync.Mutex
	second [2]int64 // by direction: the one that is counted
	seen   [2]int   // in it
	most   [2]int   // in any
}

func (l *livenessTraffic) see(m rpctest.Message) rpctest.Action {
	if wire.IsFrame(m.Data) || !wire.IsEnvelope(m.Data) {
		return rpctest.Pass
	}
	if kind := wire.Kind(m.Data[2]); kind != wire.KindAliveQuery && kind != wire.KindAliveAnswer {
		return rpctest.Pass
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now().Unix(); l.second[m.To] != now {
		l.second[m.To], l.seen[m.To] = now, 0
	}
	l.seen[m.To]++
	l.most[m.To] = max(l.most[m.To], l.seen[m.To])
	return rpctest.Pass
}

// TestVirtualIdleStreams: a thousand idle streams of a client cost few messages, and nothing grows.
func TestVirtualIdleStreams(t *testing.T) { rpctest.Bubble(t, testIdleStreams) }

func testIdleStreams(t *testing.T, srv *rpctest.Server) {
	const streams = 1000
	serve(t, srv.Connect(), &funcs{watch: func(ctx context.Context, _ string, _ *rpc.Sender[*text]) error {
		<-ctx.Done()
		return nil
	}}, rpc.WithMaxStreams(2*streams))
	client := placeAt(t, srv)
	c := dial(t, client.nc)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var ended atomic.Int64
	for range streams {
		r, err := watch(ctx, c, "x")
		must(t, err)
		go func() {
			_, _ = r.Recv()
			ended.Add(1)
		}()
	}
	time.Sleep(30 * time.Second) // the instance knows them all, and buffers have grown
	var count livenessTraffic
	client.Fault(count.see)
	before, subscriptions := heap(), srv.NATS().NumSubscriptions()
	time.Sleep(idleTime)
	client.Fault(nil)
	grown := heap() - before
	for range 3 { // what is on its way differs by some MiB; what leaks stays
		time.Sleep(time.Second)
		grown = min(grown, heap()-before)
	}
	if grown > 4<<20 {
		t.Errorf("%d bytes more in use", grown)
	}
	if got := srv.NATS().NumSubscriptions(); got != subscriptions || ended.Load() > 0 {
		t.Errorf("%d subscriptions, there were %d; %d streams have ended", got, subscriptions, ended.Load())
	}
	for to, most := range count.most {
		if most < 1 || most > 4 {
			t.Errorf("%v: up to %d messages a second", rpctest.Direction(to), most)
		}
	}
}
