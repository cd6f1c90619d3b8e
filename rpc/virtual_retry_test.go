package rpc_test

import (
	"context"
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

// attemptTimes is an interceptor of a client that records when attempts of calls were made.
type attemptTimes struct {
	mu   sync.Mutex
	seen []time.Time
}

func (a *attemptTimes) intercept(ctx context.Context, call *rpc.Call, next rpc.Next) error {
	call.OnAttempt(func(*rpc.Attempt) error {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.seen = append(a.seen, time.Now())
		return nil
	})
	return next(ctx, call)
}

// gaps returns the times between the attempts.
func (a *attemptTimes) gaps() (all []time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := 1; i < len(a.seen); i++ {
		all = append(all, a.seen[i].Sub(a.seen[i-1]))
	}
	return all
}

// TestVirtualBackoff: a call that finds no instance is sent again with growing pauses until its
// deadline, and is answered at most one pause after an instance is there.
func TestVirtualBackoff(t *testing.T) {
	const timeout, back, maxPause = 10 * time.Minute, 5 * time.Minute, 500 * time.Millisecond
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		s := newTestServer(t, srv.Connect(), &funcs{})
		var times attemptTimes
		c := dial(t, srv.Connect(), rpc.WithInterceptors(times.intercept))
		must(t, callOnce(t, c)) // it is no stranger
		shutdown(t, s)
		times.seen = nil
		began := time.Now()
		_, err := do(t.Context(), c, "x", rpc.WithTimeout(timeout))
		wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionNotRun)
		within(t, "without an instance", time.Since(began), timeout-maxPause, timeout)
		for i, gap := range times.gaps() {
			most := min(5*time.Millisecond<<min(i, 10), maxPause)
			within(t, "pause", gap, most/2, most)
		}
		if n := len(times.gaps()); n < int(timeout/maxPause) || n > 2*int(timeout/maxPause)+20 {
			t.Errorf("%d attempts", n+1)
		}
		time.AfterFunc(back, func() { serve(t, srv.Connect(), &funcs{}) })
		began = time.Now()
		_, err = do(t.Context(), c, "x", rpc.WithTimeout(timeout))
		must(t, err)
		within(t, "with one after a while", time.Since(began), back, back+maxPause)
	})
}

// TestVirtualRetryInfo: what a server says about another try is done, to the moment.
func TestVirtualRetryInfo(t *testing.T) {
	const delay = 7 * time.Second
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		var calls atomic.Int32
		serve(t, srv.Connect(), &funcs{}, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
			if calls.Add(1) < 4 {
				return rpc.NewError(rpc.CodeUnavailable, "not now", retryInfo(t, delay))
			}
			return next(ctx, call)
		}))
		var times attemptTimes
		c := dial(t, srv.Connect(), rpc.WithInterceptors(times.intercept))
		began := time.Now()
		_, err := do(t.Context(), c, "x", rpc.WithTimeout(time.Minute))
		must(t, err)
		within(t, "the call", time.Since(began), 3*delay, 3*delay)
		for _, gap := range times.gaps() {
			within(t, "pause", gap, delay, delay)
		}
		calls.Store(0)
		began = time.Now()
		_, err = do(t.Context(), c, "x", rpc.WithTimeout(2*delay)) // no time for a third try
		wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionNotRun)
		within(t, "the short call", time.Since(began), delay, delay)
	})
}

// TestVirtualLatency: far away everything takes its round trips, and no more.
func TestVirtualLatency(t *testing.T) {
	const far = 150 * time.Millisecond
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		service, client := placeAt(t, srv), placeAt(t, srv)
		serve(t, service.nc, &funcs{watch: count})
		c := dial(t, client.nc)
		must(t, callOnce(t, c))
		service.Latency(far)
		client.Latency(far)
		began := time.Now()
		must(t, callOnce(t, c))
		within(t, "a call", time.Since(began), 4*far, 4*far)
		began = time.Now()
		r, err := watch(t.Context(), c, "100")
		must(t, err)
		must(t, wantCount(r, 100))
		within(t, "a stream", time.Since(began), 4*far, 8*far)
	})
}

// echoing is a handler that sends back what it receives.
func echoing(_ context.Context, s *rpc.BidiStream[*text, *text]) error {
	for {
		m, err := s.Recv()
		if err != nil {
			return nil
		}
		if err := s.Send(m); err != nil {
			return err
		}
	}
}

func chatOnce(t testing.TB, s *rpc.BidiStream[*text, *text]) {
	t.Helper()
	must(t, s.Send(wrapperspb.String("x")))
	m, err := s.Recv()
	must(t, err)
	if m.GetValue() != "x" {
		t.Errorf("got %q", m.GetValue())
	}
}

// TestVirtualIdleStream: a stream on which nothing is sent for an hour lives, also if two of three
// heartbeats of each side are lost.
func TestVirtualIdleStream(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		serve(t, srv.Connect(), &funcs{chat: echoing})
		client := placeAt(t, srv)
		c := dial(t, client.nc)
		s, err := testChat.Call(t.Context(), c)
		must(t, err)
		var seen, lost [2]atomic.Int64
		client.Fault(func(m rpctest.Message) rpctest.Action {
			if !wire.IsFrame(m.Data) || wire.Kind(m.Data[2]) != wire.KindHeartbeat {
				return rpctest.Pass
			}
			if seen[m.To].Add(1)%3 == 0 {
				return rpctest.Pass
			}
			lost[m.To].Add(1)
			return rpctest.Lose
		})
		chatOnce(t, s)
		time.Sleep(time.Hour)
		chatOnce(t, s)
		for i := range lost {
			if lost[i].Load() < 100 {
				t.Errorf("%v: %d heartbeats were lost", rpctest.Direction(i), lost[i].Load())
			}
		}
		s.CloseSend()
		s.Close()
	})
}

// TestVirtualSilentPeer: where NATS refuses queries, three heartbeats that do not come end a stream
// on both sides.
func TestVirtualSilentPeer(t *testing.T) {
	const heartbeat = 10 * time.Second
	users := rpctest.WithServerOptions(func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "service", Password: "x"},
			{Username: "caller", Password: "x", Permissions: &server.Permissions{Publish: deny(testRoot+"._all.alive", testRoot+"._i.*.alive")}},
		}
	})
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		ended := make(chan time.Time, 1)
		service := placeAt(t, srv, nats.UserInfo("service", "x"))
		serve(t, service.nc, &funcs{watch: func(ctx context.Context, _ string, _ *rpc.Sender[*text]) error {
			<-ctx.Done()
			ended <- time.Now()
			return nil
		}})
		c := dial(t, srv.Connect(nats.UserInfo("caller", "x"), quiet))
		r, err := watch(t.Context(), c, "x")
		must(t, err)
		time.Sleep(time.Hour + heartbeat/3)
		began := time.Now()
		service.Block()
		_, err = r.Recv()
		wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionMayHaveRun)
		within(t, "the client", time.Since(began), 2*heartbeat, 4*heartbeat)
		within(t, "the server", (<-ended).Sub(began), 2*heartbeat, 4*heartbeat)
		service.Unblock()
	}, users)
}
