package rpcdedup_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcdedup"
	"github.com/natscall/natscall/rpc/rpctest"
)

// slowAck is a store whose first Create is applied; its answer comes too late for its caller's ctx.
type slowAck struct {
	rpcdedup.Store
	created chan struct{}
	release chan struct{} // nil: waits for ctx
	n       atomic.Int32
}

func (s *slowAck) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	revision, err := s.Store.Create(ctx, key, value)
	if s.n.Add(1) > 1 {
		return revision, err
	}
	close(s.created)
	if s.release != nil {
		<-s.release
		return revision, err
	}
	<-ctx.Done()
	return 0, ctx.Err()
}

// TestVirtualCallerLeavesWhileClaiming: a caller that goes away while its key is claimed leaves
// nothing behind, as nothing has run.
func TestVirtualCallerLeavesWhileClaiming(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		store := &slowAck{Store: rpcdedup.NewMemory(time.Hour), created: make(chan struct{})}
		a := new(accounts)
		serve(t, srv.Connect(), a, rpcdedup.Server(store))
		c := dial(t, srv.Connect())
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-store.created; cancel() }()
		_, err := pay.Call(ctx, c, order(t, 7), rpc.WithIdempotencyKey("k"))
		wantError(t, err, rpc.CodeCanceled, rpc.ExecutionMayHaveRun)
		res, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(time.Minute))
		want(t, res, err, "run 1")
	})
}

// TestShutdownWhileClaiming: a forced shutdown meets a call that claims its key. It has not run,
// and another instance runs it.
func TestShutdownWhileClaiming(t *testing.T) {
	srv := rpctest.NewServer(t)
	shared := rpcdedup.NewMemory(time.Hour)
	store := &slowAck{Store: shared, created: make(chan struct{}), release: make(chan struct{})}
	a := new(accounts)
	s := rpc.NewServer(srv.Connect())
	must(t, register(s, a, rpcdedup.Server(store)))
	must(t, s.Start(t.Context()))
	c := dial(t, srv.Connect())
	called := make(chan error, 1)
	go func() {
		_, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(20*time.Second))
		called <- err
	}()
	<-store.created
	serve(t, srv.Connect(), a, rpcdedup.Server(shared))
	now, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Shutdown(now); !errors.Is(err, context.Canceled) {
		t.Errorf("Shutdown: %v", err)
	}
	close(store.release)
	must(t, <-called)
	if n := a.of("k"); n != 1 {
		t.Errorf("it has run %d times", n)
	}
}

// TestInnerRefusal: what an interceptor behind this one refuses has not run, and is not kept.
func TestInnerRefusal(t *testing.T) {
	srv := rpctest.NewServer(t)
	a := new(accounts)
	var n atomic.Int32
	inner := rpc.WithMethodInterceptors(func(*rpc.Method) (rpc.Interceptor, error) {
		return func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
			if n.Add(1) == 1 {
				return rpc.RetryAfter(rpc.NewError(rpc.CodeUnavailable, "not yet"), time.Millisecond)
			}
			return next(ctx, call)
		}, nil
	})
	serve(t, srv.Connect(), a, rpcdedup.Server(rpcdedup.NewMemory(time.Hour)), inner)
	c := dial(t, srv.Connect())
	res, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"))
	want(t, res, err, "run 1")
}

// TestVirtualShortDeadlines: callers whose deadlines are shorter than a lease find out together
// that an instance has died.
func TestVirtualShortDeadlines(t *testing.T) {
	for name, method := range map[string]*rpc.UnaryMethod[*document, *text]{"once": pay, "twice": set} {
		t.Run(name, func(t *testing.T) {
			rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
				shared := rpcdedup.NewMemory(time.Hour)
				var dead atomic.Bool
				first := &flaky{Store: shared, fail: func(string) (bool, bool) { return dead.Load(), false }}
				running, revived := make(chan struct{}), make(chan struct{})
				a := &accounts{handle: func(ctx context.Context, run int, _ string) (string, error) {
					if run == 1 {
						close(running)
						<-revived
					}
					return "x", nil
				}}
				one := serve(t, srv.Connect(), a, rpcdedup.Server(first))
				c := dial(t, srv.Connect())
				go func() {
					_, _ = method.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(time.Second), rpc.WithInstance(one.Instance(desc.Name)))
				}()
				<-running
				dead.Store(true)
				two := serve(t, srv.Connect(), a, rpcdedup.Server(shared))
				var err error
				for range 3 {
					_, err = method.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(2*time.Second), rpc.WithInstance(two.Instance(desc.Name)))
				}
				if want := map[string]rpc.Code{"once": rpc.CodeFailedPrecondition, "twice": rpc.CodeOK}[name]; rpc.CodeOf(err) != want {
					t.Errorf("the third call ends with %v, want %v", err, want)
				}
				close(revived)
			})
		})
	}
}

// hanging is a store that does not answer.
type hanging struct{ rpcdedup.Store }

func (hanging) Create(ctx context.Context, key string, value []byte) (uint64, error) {
	<-ctx.Done()
	return 0, ctx.Err()
}

// TestVirtualHangingStore: a store that says nothing is waited for during a lease.
func TestVirtualHangingStore(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		serve(t, srv.Connect(), new(accounts), rpcdedup.Server(hanging{rpcdedup.NewMemory(time.Hour)}))
		c := dial(t, srv.Connect())
		began := time.Now()
		_, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(time.Minute), rpc.WithoutRetry())
		wantError(t, err, rpc.CodeUnavailable, rpc.ExecutionNotRun)
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// TestMaxValueSize: a bucket may take smaller values than NATS.
func TestMaxValueSize(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithJetStream())
	js, err := jetstream.New(srv.Connect())
	must(t, err)
	kv, err := js.CreateOrUpdateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "calls", TTL: time.Hour, Storage: jetstream.MemoryStorage, MaxValueSize: 1024})
	must(t, err)
	a := &accounts{handle: func(context.Context, int, string) (string, error) { return strings.Repeat("x", 4096), nil }}
	store, err := rpcdedup.NewBucket(t.Context(), kv)
	must(t, err)
	serve(t, srv.Connect(), a, rpcdedup.Server(store))
	c := dial(t, srv.Connect())
	_, err = pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(20*time.Second))
	must(t, err)
	_, err = pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(20*time.Second))
	wantError(t, err, rpc.CodeDataLoss, rpc.ExecutionDidRun)
}

// TestVirtualBadHeader: a result with a header that is not valid is an error each time.
func TestVirtualBadHeader(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		a := &accounts{handle: func(ctx context.Context, _ int, _ string) (string, error) {
			rpc.CallFromContext(ctx).ResponseHeader().Set("k", "\xff")
			return "x", nil
		}}
		serve(t, srv.Connect(), a, rpcdedup.Server(rpcdedup.NewMemory(time.Hour)))
		c := dial(t, srv.Connect())
		for range 2 {
			_, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(20*time.Second))
			wantError(t, err, rpc.CodeInternal, rpc.ExecutionDidRun)
		}
	})
}

// TestVirtualForcedShutdown: it cancels the handler of a call with a key as any other one.
func TestVirtualForcedShutdown(t *testing.T) {
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
				opts := []rpc.CallOption{rpc.WithTimeout(30 * time.Second), rpc.WithoutRetry()}
				if key != "" {
					opts = append(opts, rpc.WithIdempotencyKey(key))
				}
				called := make(chan error, 1)
				go func() { _, err := pay.Call(t.Context(), c, order(t, 7), opts...); called <- err }()
				<-running
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				began := time.Now()
				if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("Shutdown: %v", err)
				}
				wantError(t, <-called, rpc.CodeUnavailable, rpc.ExecutionDidRun)
				<-ended
				if took := time.Since(began); took > 2*time.Second {
					t.Errorf("the handler has ended %v after the forced shutdown", took)
				}
			})
		})
	}
}

// stuck is a store that loses Updates: it neither does it nor answers.
type stuck struct {
	rpcdedup.Store
	lose int32 // the first one, from 1
	lost int32 // how many; 0 for 1
	n    atomic.Int32
}

func (s *stuck) Update(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	if n := s.n.Add(1); n >= s.lose && n < s.lose+max(1, s.lost) {
		<-ctx.Done()
		return 0, ctx.Err()
	}
	return s.Store.Update(ctx, key, value, revision)
}

// TestVirtualLostRenewals: two renewals of three may be lost.
func TestVirtualLostRenewals(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		a := &accounts{handle: func(ctx context.Context, _ int, _ string) (string, error) {
			time.Sleep(10 * time.Second)
			return "x", nil
		}}
		shared := rpcdedup.NewMemory(time.Hour)
		serve(t, srv.Connect(), a, rpcdedup.Server(&stuck{Store: shared, lose: 1, lost: 2}))
		c := dial(t, srv.Connect())
		ended := make(chan error, 2)
		for range 2 {
			go func() {
				_, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(20*time.Second))
				ended <- err
			}()
		}
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	})
}

// TestVirtualLostResult: a result whose way to the store is lost is sent again.
func TestVirtualLostResult(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		a := new(accounts)
		serve(t, srv.Connect(), a, rpcdedup.Server(&stuck{Store: rpcdedup.NewMemory(time.Hour), lose: 1}))
		c := dial(t, srv.Connect())
		for range 2 {
			res, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(20*time.Second))
			want(t, res, err, "run 1")
		}
	})
}

// TestVirtualLateResult: that a handler was too late is a result, unless the method may run twice.
func TestVirtualLateResult(t *testing.T) {
	for _, method := range []*rpc.UnaryMethod[*document, *text]{pay, set} {
		rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
			a := &accounts{handle: func(ctx context.Context, run int, _ string) (string, error) {
				if run == 1 {
					<-ctx.Done()
					return "", ctx.Err()
				}
				return fmt.Sprint("run ", run), nil
			}}
			serve(t, srv.Connect(), a, rpcdedup.Server(rpcdedup.NewMemory(time.Hour)))
			c := dial(t, srv.Connect())
			_, err := method.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(time.Second))
			// It is the client's, or that of the handler at the same moment.
			if rpc.CodeOf(err) != rpc.CodeDeadlineExceeded {
				t.Errorf("got %v", err)
			}
			res, err := method.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(time.Minute))
			if method == set {
				want(t, res, err, "run 2")
			} else {
				wantError(t, err, rpc.CodeDeadlineExceeded, rpc.ExecutionDidRun)
			}
		})
	}
}
