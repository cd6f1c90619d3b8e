package rpcdedup_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcdedup"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestVirtualUnconfirmedClaim: a claim that the store has taken without saying so, before it was
// silent for longer than a lease, is given back: the call runs when the store is there again.
func TestVirtualUnconfirmedClaim(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		began := time.Now()
		var n atomic.Int32
		store := &flaky{Store: rpcdedup.NewMemory(time.Hour), fail: func(op string) (before, after bool) {
			if n.Add(1) == 1 {
				return false, true // applied, no ack
			}
			return time.Since(began) < 5*time.Second, false
		}}
		a := new(accounts)
		serve(t, srv.Connect(), a, rpcdedup.Server(store))
		c := dial(t, srv.Connect())
		res, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(time.Minute))
		want(t, res, err, "run 1")
	})
}

// TestShutdownBeforeTheHandler: a call that a forced shutdown meets in an interceptor has not run,
// and runs elsewhere.
func TestShutdownBeforeTheHandler(t *testing.T) {
	srv := rpctest.NewServer(t)
	shared := rpcdedup.NewMemory(time.Hour)
	a := new(accounts)
	waiting := make(chan struct{})
	inner := rpc.WithMethodInterceptors(func(*rpc.Method) (rpc.Interceptor, error) {
		return func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
			close(waiting)
			<-ctx.Done()
			return ctx.Err()
		}, nil
	})
	s := rpc.NewServer(srv.Connect())
	must(t, register(s, a, rpcdedup.Server(shared), inner))
	must(t, s.Start(t.Context()))
	c := dial(t, srv.Connect())
	called := make(chan error, 1)
	go func() {
		_, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(20*time.Second))
		called <- err
	}()
	<-waiting
	serve(t, srv.Connect(), a, rpcdedup.Server(shared))
	now, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(now); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	must(t, <-called)
}

// TestVirtualShutdownAfterTheCaller: a forced shutdown ends a handler whose caller had left before.
func TestVirtualShutdownAfterTheCaller(t *testing.T) {
	for _, key := range []string{"", "k"} {
		t.Run("key "+key, func(t *testing.T) {
			rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
				running, ended := make(chan struct{}), make(chan struct{})
				a := &accounts{handle: func(ctx context.Context, _ int, _ string) (string, error) {
					close(running)
					<-ctx.Done()
					close(ended)
					return "", ctx.Err()
				}}
				s := rpc.NewServer(srv.Connect())
				must(t, register(s, a, rpcdedup.Server(rpcdedup.NewMemory(time.Hour))))
				must(t, s.Start(t.Context()))
				c := dial(t, srv.Connect())
				opts := []rpc.CallOption{rpc.WithTimeout(10 * time.Minute), rpc.WithoutRetry()}
				if key != "" {
					opts = append(opts, rpc.WithIdempotencyKey(key))
				}
				ctx, leave := context.WithCancel(t.Context())
				called := make(chan error, 1)
				go func() { _, err := pay.Call(ctx, c, order(t, 7), opts...); called <- err }()
				<-running
				leave()
				<-called
				time.Sleep(time.Second)
				sctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				began := time.Now()
				_ = s.Shutdown(sctx) // without a key the call has ended before
				<-ended
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("the handler has ended %v after the forced shutdown", took)
				}
			})
		})
	}
}

// TestVirtualSilentStoreOfAWaiter: a caller that has seen that the call runs elsewhere is not told
// that it has not run, if the store is silent then.
func TestVirtualSilentStoreOfAWaiter(t *testing.T) {
	for _, timeout := range []time.Duration{time.Minute, 3 * time.Second} {
		t.Run(timeout.String(), func(t *testing.T) {
			rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
				shared := rpcdedup.NewMemory(time.Hour)
				var down atomic.Bool
				second := &flaky{Store: shared, fail: func(string) (bool, bool) { return down.Load(), false }}
				running, proceed := make(chan struct{}), make(chan struct{})
				a := &accounts{handle: func(context.Context, int, string) (string, error) {
					close(running)
					<-proceed
					return "x", nil
				}}
				one := serve(t, srv.Connect(), a, rpcdedup.Server(shared))
				two := serve(t, srv.Connect(), a, rpcdedup.Server(second))
				c := dial(t, srv.Connect())
				var first sync.WaitGroup
				first.Go(func() {
					_, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(time.Minute), rpc.WithInstance(one.Instance(desc.Name)))
					must(t, err)
				})
				<-running
				go func() { time.Sleep(time.Second); down.Store(true) }()
				_, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(timeout), rpc.WithoutRetry(), rpc.WithInstance(two.Instance(desc.Name)))
				var e *rpc.Error
				errors.As(err, &e)
				if e.Execution() == rpc.ExecutionNotRun {
					t.Errorf("says it has not run, while it runs and was seen: %v", err)
				}
				close(proceed)
				first.Wait()
			})
		})
	}
}

// stale is a store that does not confirm an Update, and then shows in one Get what was before.
type stale struct {
	rpcdedup.Store
	mu      sync.Mutex
	old     []byte
	oldRev  uint64
	armed   bool
	loseAck func(n int) bool
	n       int
}

func (s *stale) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	rev, err := s.Store.Create(ctx, key, value)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.old == nil {
		s.old, s.oldRev = value, rev
	}
	return rev, err
}

func (s *stale) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	rev, err := s.Store.Update(ctx, key, value, revision)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.n++
		if s.loseAck(s.n) {
			s.armed = true
			return 0, errSilent
		}
	}
	return rev, err
}

func (s *stale) Get(ctx context.Context, key string) ([]byte, uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.armed {
		s.armed = false
		return s.old, s.oldRev, nil
	}
	return s.Store.Get(ctx, key)
}

// TestVirtualOldRecordOfAResult: what a key was before it was free does not make a call run again
// whose result the store has not confirmed.
func TestVirtualOldRecordOfAResult(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		store := &stale{Store: rpcdedup.NewMemory(time.Hour), loseAck: func(n int) bool { return n == 1 }}
		a := &accounts{handle: func(_ context.Context, run int, _ string) (string, error) {
			if run == 1 {
				return "", rpc.NewError(rpc.CodeAborted, "nothing changed")
			}
			return fmt.Sprint("run ", run), nil
		}}
		serve(t, srv.Connect(), a, rpcdedup.Server(store, rpcdedup.RunAgainAfter(rpc.CodeAborted)))
		c := dial(t, srv.Connect())
		_, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(time.Minute))
		wantError(t, err, rpc.CodeAborted, rpc.ExecutionDidRun)
		res, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(time.Minute))
		if n := a.of("k"); n != 2 {
			t.Errorf("run %d times: %v %v", n, res, err)
		}
	})
}

// TestVirtualOldRecordOfARenewal: nor does it cancel a handler whose renewal the store has not
// confirmed.
func TestVirtualOldRecordOfARenewal(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		store := &stale{Store: rpcdedup.NewMemory(time.Hour), loseAck: func(n int) bool { return n == 1 }}
		a := &accounts{handle: func(ctx context.Context, run int, _ string) (string, error) {
			if run == 1 {
				return "", rpc.NewError(rpc.CodeAborted, "nothing changed")
			}
			select {
			case <-time.After(5 * time.Second):
			case <-ctx.Done():
				return "", fmt.Errorf("canceled: %w", context.Cause(ctx))
			}
			return "x", nil
		}}
		serve(t, srv.Connect(), a, rpcdedup.Server(store, rpcdedup.RunAgainAfter(rpc.CodeAborted)))
		c := dial(t, srv.Connect())
		_, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(time.Minute))
		wantError(t, err, rpc.CodeAborted, rpc.ExecutionDidRun)
		_, err = pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(time.Minute))
		must(t, err)
	})
}

// TestVirtualOutage: a store that answers nobody for about a lease makes nobody take a healthy
// instance for dead.
func TestVirtualOutage(t *testing.T) {
	for _, outage := range []time.Duration{2600 * time.Millisecond, 2900 * time.Millisecond, 3200 * time.Millisecond} {
		for _, method := range []*rpc.UnaryMethod[*document, *text]{pay, set} {
			t.Run(fmt.Sprint(outage, method.FullName()), func(t *testing.T) {
				rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
					began := time.Now()
					store := &flaky{Store: rpcdedup.NewMemory(time.Hour), fail: func(string) (bool, bool) {
						since := time.Since(began)
						return since > 2*time.Second && since < 2*time.Second+outage, false
					}}
					a := &accounts{handle: func(ctx context.Context, run int, _ string) (string, error) {
						time.Sleep(10 * time.Second)
						return fmt.Sprint("run ", run), ctx.Err()
					}}
					for range 2 {
						serve(t, srv.Connect(), a, rpcdedup.Server(store))
					}
					c := dial(t, srv.Connect())
					var all sync.WaitGroup
					for i := range 6 {
						all.Go(func() {
							time.Sleep(time.Duration(i) * 130 * time.Millisecond)
							res, err := method.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(time.Minute))
							if err != nil {
								t.Errorf("%d: %v %v", i, res.GetValue(), err)
							}
						})
					}
					all.Wait()
					if n := a.of("k"); n != 1 {
						t.Errorf("runs %d", n)
					}
				})
			})
		}
	}
}

// TestVirtualLateClaim: a claim that the store takes after its caller has gone is given back.
func TestVirtualLateClaim(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		store := &lateCreate{Store: rpcdedup.NewMemory(time.Hour), begun: make(chan struct{})}
		a := new(accounts)
		serve(t, srv.Connect(), a, rpcdedup.Server(store))
		c := dial(t, srv.Connect())
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-store.begun; cancel() }()
		_, err := pay.Call(ctx, c, order(t, 7), rpc.WithIdempotencyKey("k"))
		wantError(t, err, rpc.CodeCanceled, rpc.ExecutionMayHaveRun)
		time.Sleep(3 * time.Second)
		res, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(time.Minute))
		want(t, res, err, "run 1")
	})
}

type lateCreate struct {
	rpcdedup.Store
	begun chan struct{}
	n     atomic.Int32
}

func (s *lateCreate) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	if s.n.Add(1) > 1 {
		return s.Store.Create(ctx, key, value)
	}
	close(s.begun)
	<-ctx.Done()
	go func() {
		time.Sleep(100 * time.Millisecond)
		_, _ = s.Store.Create(context.Background(), key, value)
	}()
	return 0, ctx.Err()
}
