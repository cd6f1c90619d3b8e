package rpc_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/micro"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// slow is a service of several instances, of which some take a while.
type slow struct {
	mu       sync.Mutex
	runs     []string // instances, in the order in which they have begun
	canceled atomic.Int32
}

// serve runs an instance whose handler takes as long as took returns.
func (s *slow) serve(t *testing.T, srv *rpctest.Server, took func(in string) time.Duration, opts ...rpc.ServerOption) {
	t.Helper()
	var instance string
	server := serve(t, srv.Connect(), &funcs{read: func(ctx context.Context, in string) (string, error) {
		s.mu.Lock()
		s.runs = append(s.runs, instance)
		s.mu.Unlock()
		if strings.HasPrefix(in, "fail") && took(in) == 0 {
			return "", rpc.NewError(rpc.CodeNotFound, in)
		}
		select {
		case <-time.After(took(in)):
			return instance, nil
		case <-ctx.Done():
			s.canceled.Add(1)
			return "", ctx.Err()
		}
	}}, opts...)
	s.mu.Lock()
	defer s.mu.Unlock()
	instance = server.Instance("test.v1.TestService")
}

// taken returns the instances at which the calls since the last time have run.
func (s *slow) taken() (runs []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	runs, s.runs = s.runs, nil
	return runs
}

func always(d time.Duration) func(string) time.Duration {
	return func(string) time.Duration { return d }
}

// TestVirtualHedge: a call whose instance is slow is answered by another one, at most two round
// trips after the delay, and the slow handler is canceled.
func TestVirtualHedge(t *testing.T) {
	const delay, calls = 50 * time.Millisecond, 30
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		var s slow
		s.serve(t, srv, always(10*time.Second))
		s.serve(t, srv, always(0))
		s.serve(t, srv, always(0))
		c := dial(t, srv.Connect(), rpc.WithHedging(delay))
		hedged := int32(0)
		for range calls {
			began := time.Now()
			_, err := readText(t.Context(), c, "x")
			must(t, err)
			took, runs := time.Since(began), s.taken()
			switch len(runs) {
			case 1:
				within(t, "a call at a fast instance", took, 0, time.Millisecond)
			case 2:
				hedged++
				// A hedge that comes to the slow one takes an instance query more.
				within(t, "a call at the slow one", took, delay, delay+50*time.Millisecond)
				if runs[0] == runs[1] {
					t.Error("a call has run twice at one instance")
				}
			default:
				t.Errorf("a call has run %d times", len(runs))
			}
		}
		if hedged == 0 || hedged == calls {
			t.Errorf("%d of %d calls were hedged", hedged, calls)
		}
		until(t, "the slow handlers are canceled", func() bool { return s.canceled.Load() == hedged })
	})
}

// TestVirtualHedgeAtOneInstance: an instance does not run a call twice that it has, and the call is
// answered.
func TestVirtualHedgeAtOneInstance(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		var s slow
		s.serve(t, srv, always(time.Second))
		var attempts, hedges atomic.Int32
		c := dial(t, srv.Connect(), rpc.WithHedging(10*time.Millisecond), rpc.WithMaxAttempts(10), rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
			call.OnAttempt(func(a *rpc.Attempt) error {
				if n := attempts.Add(1) - 1; int(n) != a.Number() || a.Hedge() != (n > 0) {
					t.Errorf("attempt %d is number %d, a hedge: %v", n, a.Number(), a.Hedge())
				}
				if a.Hedge() {
					hedges.Add(1)
				}
				return nil
			})
			return next(ctx, call)
		}))
		began := time.Now()
		_, err := readText(t.Context(), c, "x")
		must(t, err)
		within(t, "the call", time.Since(began), time.Second, time.Second+time.Millisecond)
		if runs := s.taken(); len(runs) != 1 || hedges.Load() == 0 {
			t.Errorf("it has run %d times, with %d hedges", len(runs), hedges.Load())
		}
	})
}

// TestVirtualHedges: as many hedges are made as WithMaxAttempts and the budget allow.
func TestVirtualHedges(t *testing.T) {
	const delay = 50 * time.Millisecond
	for _, test := range []struct {
		name string
		opts []rpc.ClientOption
		runs int
	}{
		{"default", nil, 2},
		{"three attempts", []rpc.ClientOption{rpc.WithMaxAttempts(3)}, 3},
		{"one attempt", []rpc.ClientOption{rpc.WithMaxAttempts(1)}, 1},
		{"two tokens", []rpc.ClientOption{rpc.WithMaxAttempts(5), rpc.WithRetryBudget(2, 0)}, 3},
		{"no token", []rpc.ClientOption{rpc.WithMaxAttempts(5), rpc.WithRetryBudget(0, 0)}, 1},
		{"without retry", []rpc.ClientOption{rpc.WithoutRetry()}, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
				var s slow
				for range 5 {
					s.serve(t, srv, always(time.Second))
				}
				c := dial(t, srv.Connect(), append([]rpc.ClientOption{rpc.WithHedging(delay)}, test.opts...)...)
				began := time.Now()
				_, err := readText(t.Context(), c, "x")
				must(t, err)
				within(t, "the call", time.Since(began), time.Second, time.Second+time.Millisecond)
				if runs := s.taken(); len(runs) != test.runs {
					t.Errorf("it has run %d times, want %d", len(runs), test.runs)
				}
			})
		})
	}
}

// TestVirtualHedgeFails: the error of a handler ends the call, whichever attempt it comes from.
func TestVirtualHedgeFails(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		var s slow
		s.serve(t, srv, always(time.Hour))
		s.serve(t, srv, always(0))
		c := dial(t, srv.Connect(), rpc.WithHedging(10*time.Millisecond))
		for range 10 {
			_, err := readText(t.Context(), c, "fail")
			wantCode(t, err, rpc.CodeNotFound, rpc.ExecutionDidRun)
		}
	})
}

// TestVirtualHedgedCallIsCanceled: when the caller has gone, or the deadline has passed, no attempt
// goes on.
func TestVirtualHedgedCallIsCanceled(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		var s slow
		for range 3 {
			s.serve(t, srv, always(time.Hour))
		}
		c := dial(t, srv.Connect(), rpc.WithHedging(time.Second), rpc.WithMaxAttempts(3))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(10*time.Second, cancel)
		_, err := readText(ctx, c, "x", rpc.WithTimeout(time.Minute))
		wantCode(t, err, rpc.CodeCanceled, rpc.ExecutionMayHaveRun)
		until(t, "all handlers have ended", func() bool { return s.canceled.Load() == 3 })
		_, err = readText(t.Context(), c, "x", rpc.WithTimeout(time.Minute))
		// It is the client's, or that of a handler at the same moment.
		if rpc.CodeOf(err) != rpc.CodeDeadlineExceeded {
			t.Errorf("got %v", err)
		}
		until(t, "all handlers have ended", func() bool { return s.canceled.Load() == 6 })
	})
}

// TestVirtualHedgeOfSilence: a hedge saves a call whose instance has died, before that is noticed.
func TestVirtualHedgeOfSilence(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		dead := placeAt(t, srv)
		silent := newTestServer(t, dead.nc, &funcs{})
		var s slow
		s.serve(t, srv, always(0))
		dead.BlackHole()
		c := dial(t, srv.Connect(), rpc.WithHedging(100*time.Millisecond), rpc.WithMaxAttempts(20))
		for range 10 {
			began := time.Now()
			_, err := readText(t.Context(), c, "x")
			must(t, err)
			within(t, "the call", time.Since(began), 0, 3*time.Second)
		}
		dead.Cut()
		shutdown(t, silent)
	})
}

// TestVirtualHedgingQuantile: the delay follows the method.
func TestVirtualHedgingQuantile(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		var s slow
		took := func(in string) time.Duration {
			if in == "late" {
				return time.Second
			}
			return 100 * time.Millisecond
		}
		s.serve(t, srv, took)
		s.serve(t, srv, took)
		c := dial(t, srv.Connect(), rpc.WithHedgingQuantile(0.9))
		call := func(in string) int {
			t.Helper()
			_, err := readText(t.Context(), c, in)
			must(t, err)
			return len(s.taken())
		}
		for i := range 100 {
			if n := call("late"); n != 1 {
				t.Fatalf("call %d was hedged, with nothing known", i)
			}
		}
		for range 2000 {
			if n := call("x"); n != 1 {
				t.Fatal("a call as long as the others was hedged")
			}
		}
		if n := call("late"); n != 2 {
			t.Errorf("a late call has run %d times, want 2", n)
		}
	})
}

// TestUnhedged: what may not be sent twice is not hedged, and says so where it was asked for.
func TestUnhedged(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		var runs atomic.Int32
		handler := func(_ context.Context, in string) (string, error) {
			runs.Add(1)
			time.Sleep(time.Second) // virtual
			return in, nil
		}
		one := serve(t, srv.Connect(), &funcs{do: handler, read: handler})
		serve(t, srv.Connect(), &funcs{do: handler, read: handler})
		c := dial(t, srv.Connect(), rpc.WithHedging(10*time.Millisecond))
		for name, call := range map[string]func() error{
			"not idempotent": func() error { _, err := do(t.Context(), c, "x"); return err },
			"plain":          func() error { _, err := readText(t.Context(), c, "x", rpc.WithPlainRequests()); return err },
			"for one instance": func() error {
				_, err := readText(t.Context(), c, "x", rpc.WithInstance(one.Instance("test.v1.TestService")))
				return err
			},
			"large": func() error { _, err := readText(t.Context(), c, strings.Repeat("x", 2<<20)); return err },
		} {
			runs.Store(0)
			if err := call(); err != nil || runs.Load() != 1 {
				t.Errorf("%s: it has run %d times: %v", name, runs.Load(), err)
			}
		}
		_, err := do(t.Context(), c, "x", rpc.WithHedging(time.Second))
		wantText(t, wantCode(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun), "/test.v1.TestService/Do: WithHedging is for methods that may run twice")
	})
}

// TestHedgedLoad: under load, with answers of all sizes, each call gets its own answer, once.
func TestHedgedLoad(t *testing.T) {
	srv := rpctest.NewServer(t)
	for range 3 {
		serve(t, srv.Connect(), &funcs{read: func(ctx context.Context, in string) (string, error) {
			if len(in)%7 == 0 {
				select {
				case <-ctx.Done():
					return "", ctx.Err()
				case <-time.After(20 * time.Millisecond):
				}
			}
			if len(in)%50 == 49 {
				return in + strings.Repeat("x", 2<<20), nil
			}
			return in, nil
		}})
	}
	c := dial(t, srv.Connect(), rpc.WithHedging(2*time.Millisecond), rpc.WithRetryBudget(10_000, 1))
	var callers sync.WaitGroup
	for caller := range 8 {
		callers.Go(func() {
			for i := range 100 {
				in := strings.Repeat("y", caller+i)
				out := new(wrapperspb.StringValue)
				res, err := testRead.Call(testContext(t), c, wrapperspb.String(in))
				if out = res; err != nil || !strings.HasPrefix(out.GetValue(), in) || strings.Contains(strings.TrimPrefix(out.GetValue(), in), "y") {
					t.Errorf("a call with %d bytes got %d: %v", len(in), len(out.GetValue()), err)
				}
			}
		})
	}
	callers.Wait()
}

// TestHedgeWithoutPermission: a client that may not choose an instance is answered by the one that
// has the call, or by the one that NATS has chosen for the hedge.
func TestHedgeWithoutPermission(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(withoutDirect))
	for range 2 {
		serve(t, srv.Connect(as("service")...), &funcs{read: func(ctx context.Context, in string) (string, error) {
			select {
			case <-time.After(50 * time.Millisecond):
			case <-ctx.Done():
				return "", ctx.Err()
			}
			return in, nil
		}})
	}
	c := dial(t, srv.Connect(as("app")...), rpc.WithHedging(5*time.Millisecond))
	for range 20 {
		_, err := readText(testContext(t), c, "x")
		must(t, err)
	}
}

// TestVirtualHedgesGoOn: all hedges are made, also if the time for one comes while the client asks
// for an instance for another one.
func TestVirtualHedgesGoOn(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		var s slow
		for range 3 {
			s.serve(t, srv, always(time.Second))
		}
		c := dial(t, srv.Connect(), rpc.WithHedging(5*time.Millisecond), rpc.WithMaxAttempts(3))
		for range 20 {
			_, err := readText(t.Context(), c, "x")
			must(t, err)
			if runs := len(s.taken()); runs != 3 {
				t.Errorf("it has run %d times, want 3", runs)
			}
			time.Sleep(2 * time.Second) // the last ones have been canceled
		}
	})
}

// TestVirtualHedgeIsNotCounted: a hedge that its instance refuses since it has the call is no call
// of its own in the statistics.
func TestVirtualHedgeIsNotCounted(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		var s slow
		s.serve(t, srv, always(time.Second))
		nc := srv.Connect()
		c := dial(t, nc, rpc.WithHedging(10*time.Millisecond))
		const calls = 5
		for range calls {
			_, err := readText(t.Context(), c, "x")
			must(t, err)
		}
		m, err := nc.Request("$SRV.STATS.TestService", nil, time.Second)
		must(t, err)
		var stats micro.Stats
		must(t, json.Unmarshal(m.Data, &stats))
		for _, e := range stats.Endpoints {
			if e.Name == "Read" && (e.NumRequests != calls || e.NumErrors != 0) {
				t.Errorf("%d requests and %d errors are counted, want %d and 0", e.NumRequests, e.NumErrors, calls)
			}
		}
	})
}

// BenchmarkHedged is what hedging costs a call that is answered before the delay.
func BenchmarkHedged(b *testing.B) {
	for _, test := range []struct {
		name string
		opts []rpc.ClientOption
	}{
		{"without", nil},
		{"delay", []rpc.ClientOption{rpc.WithHedging(time.Second)}},
		{"quantile", []rpc.ClientOption{rpc.WithHedgingQuantile(0.99), rpc.WithRetryBudget(0, 0)}},
	} {
		b.Run(test.name, func(b *testing.B) {
			srv := rpctest.NewServer(b)
			serve(b, srv.Connect(), &funcs{})
			c := dial(b, srv.Connect(), test.opts...)
			for _, callers := range []int{1, 64} {
				b.Run(fmt.Sprintf("%d callers", callers), func(b *testing.B) {
					benchCall(b, callers, func(ctx context.Context) error { _, err := readText(ctx, c, "x"); return err })
				})
			}
		})
	}
}
