package rpcdedup_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcdedup"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestOnce: of many calls with a key, at two instances, one runs, and all get its result.
func TestOnce(t *testing.T) {
	stores(t, func(t *testing.T, srv *rpctest.Server, store rpcdedup.Store) {
		a := &accounts{handle: func(ctx context.Context, run int, _ string) (string, error) {
			call := rpc.CallFromContext(ctx)
			call.ResponseHeader().Set("bank", "b1")
			call.ResponseTrailer().Add("fee", "1")
			call.ResponseTrailer().Add("fee", "2")
			return fmt.Sprint("run ", run), nil
		}}
		for range 2 {
			serve(t, srv.Connect(), a, rpcdedup.Server(store))
		}
		c := dial(t, srv.Connect())
		paying := func(opts ...rpc.CallOption) {
			var header, trailer rpc.Header
			res, err := pay.Call(t.Context(), c, order(t, 7), append(opts, rpc.WithIdempotencyKey("k"), rpc.ResponseHeader(&header), rpc.ResponseTrailer(&trailer))...)
			if err != nil || res.GetValue() != "run 1" || header.Get("bank") != "b1" || len(trailer.Values("fee")) != 2 {
				t.Errorf("got %q with %v and %v: %v", res.GetValue(), header, trailer, err)
			}
		}
		var callers sync.WaitGroup
		for range 20 {
			callers.Go(func() { paying() })
		}
		callers.Wait()
		paying()
		paying(rpc.WithCodec(rpc.CodecJSON)) // which is the same request
		paying(rpc.WithPlainRequests())
		if n := a.of("k"); n != 1 {
			t.Errorf("it has run %d times", n)
		}
		res, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("another"))
		want(t, res, err, "run 1")
		// The same key of another method is another key.
		res, err = set.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"))
		want(t, res, err, "run 2")
		for range 2 {
			_, err = pay.Call(t.Context(), c, order(t, 7)) // without a key
			must(t, err)
		}
		if n := a.of(""); n != 2 {
			t.Errorf("without a key it has run %d times", n)
		}
	})
}

// TestOneWayOnce: a one-way message is taken once.
func TestOneWayOnce(t *testing.T) {
	stores(t, func(t *testing.T, srv *rpctest.Server, store rpcdedup.Store) {
		done := make(chan struct{}, 10)
		a := &accounts{handle: func(context.Context, int, string) (string, error) {
			done <- struct{}{}
			return "", nil
		}}
		server := serve(t, srv.Connect(), a, rpcdedup.Server(store))
		c := dial(t, srv.Connect())
		for range 5 {
			must(t, note.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k")))
		}
		must(t, note.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("last")))
		<-done
		<-done
		must(t, server.Shutdown(t.Context())) // all have been taken
		if n := a.of("k"); n != 1 || a.of("last") != 1 {
			t.Errorf("it has run %d times", n)
		}
	})
}

// TestErrorsAreKept: an error is a result too, unless its code says that the call may run again.
func TestErrorsAreKept(t *testing.T) {
	stores(t, func(t *testing.T, srv *rpctest.Server, store rpcdedup.Store) {
		a := &accounts{handle: func(_ context.Context, run int, key string) (string, error) {
			code := rpc.CodeFailedPrecondition
			if key == "again" {
				code = rpc.CodeAborted
			}
			return "", fmt.Errorf("run %d: %w", run, rpc.NewError(code, "no money", durationpb.New(time.Minute)))
		}}
		serve(t, srv.Connect(), a, rpcdedup.Server(store, rpcdedup.RunAgainAfter(rpc.CodeAborted)))
		c := dial(t, srv.Connect())
		for range 3 {
			_, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"))
			e := wantError(t, err, rpc.CodeFailedPrecondition, rpc.ExecutionDidRun)
			if d, ok := rpc.Detail[*durationpb.Duration](err); !ok || d.AsDuration() != time.Minute || e.Message() != "run 1: no money" {
				t.Errorf("got %v with %v", e, e.Details())
			}
		}
		for i := range 3 {
			_, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("again"))
			if e := wantError(t, err, rpc.CodeAborted, rpc.ExecutionDidRun); e.Message() != fmt.Sprintf("run %d: no money", i+1) {
				t.Errorf("got %v", e)
			}
		}
	})
}

// TestPanicIsKept: the call of a handler that has panicked has run.
func TestPanicIsKept(t *testing.T) {
	srv := rpctest.NewServer(t)
	a := &accounts{handle: func(context.Context, int, string) (string, error) { panic("no") }}
	serve(t, srv.Connect(), a, rpcdedup.Server(rpcdedup.NewMemory(time.Hour)))
	c := dial(t, srv.Connect())
	for range 2 {
		_, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"))
		wantError(t, err, rpc.CodeInternal, rpc.ExecutionDidRun)
	}
	if n := a.of("k"); n != 1 {
		t.Errorf("it has run %d times", n)
	}
}

// TestRefused: what is refused has not run, and says why.
func TestRefused(t *testing.T) {
	srv := rpctest.NewServer(t)
	a := new(accounts)
	tenant := func(_ context.Context, call *rpc.Call) (string, error) {
		if tenant := call.Header().Get("tenant"); tenant != "nobody" {
			return tenant, nil
		}
		return "", rpc.NewError(rpc.CodeUnauthenticated, "who are you?")
	}
	serve(t, srv.Connect(), a, rpcdedup.Server(rpcdedup.NewMemory(time.Hour), rpcdedup.Require(pay.FullName()), rpcdedup.WithScope(tenant)))
	c := dial(t, srv.Connect())
	res, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"))
	want(t, res, err, "run 1")
	for _, test := range []struct {
		name   string
		amount int
		opts   []rpc.CallOption
		code   rpc.Code
		text   string
	}{
		{"no key", 7, nil, rpc.CodeInvalidArgument, "/test.v1.Accounts/Pay needs an idempotency key (rpc.WithIdempotencyKey)"},
		{"another request", 8, []rpc.CallOption{rpc.WithIdempotencyKey("k")}, rpc.CodeInvalidArgument, "the idempotency key was used for another request"},
		{"a long key", 7, []rpc.CallOption{rpc.WithIdempotencyKey(strings.Repeat("k", 1025))}, rpc.CodeInvalidArgument, "the idempotency key has 1025 bytes, the limit is 1024"},
		{"an empty key", 7, []rpc.CallOption{rpc.WithIdempotencyKey("")}, rpc.CodeInvalidArgument, "WithIdempotencyKey: the key is empty"},
		{"no scope", 7, []rpc.CallOption{rpc.WithIdempotencyKey("k"), rpc.WithHeader("tenant", "nobody")}, rpc.CodeUnauthenticated, "who are you?"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := pay.Call(t.Context(), c, order(t, test.amount), test.opts...)
			if e := wantError(t, err, test.code, rpc.ExecutionNotRun); e.Message() != test.text {
				t.Errorf("got %q", e.Message())
			}
		})
	}
	res, err = pay.Call(t.Context(), c, order(t, 8), rpc.WithIdempotencyKey("k"), rpc.WithHeader("tenant", "t2"))
	want(t, res, err, "run 2") // the key of another tenant
	for i := range 2 {
		res, err = set.Call(t.Context(), c, order(t, 8), rpc.WithIdempotencyKey("k"))
		want(t, res, err, fmt.Sprint("run ", i+3)) // not named
	}
}

// TestBadOptions: each fails Register and says why.
func TestBadOptions(t *testing.T) {
	nc := rpctest.Connect(t)
	memory := rpcdedup.NewMemory(time.Hour)
	for text, opt := range map[string]rpc.ServiceOption{
		"the store is nil":              rpcdedup.Server(nil),
		"for 5s, which is less than":    rpcdedup.Server(rpcdedup.NewMemory(5 * time.Second)),
		"an option is nil":              rpcdedup.Server(memory, nil),
		"WithLease(1ms)":                rpcdedup.Server(memory, rpcdedup.WithLease(time.Millisecond)),
		"WithScope: the function is":    rpcdedup.Server(memory, rpcdedup.WithScope(nil)),
		"WithLogger: the logger is nil": rpcdedup.Server(memory, rpcdedup.WithLogger(nil)),
		"RunAgainAfter(ok)":             rpcdedup.Server(memory, rpcdedup.RunAgainAfter(rpc.CodeOK)),
		"Follow: rpcdedup: only unary":  rpcdedup.Server(memory, rpcdedup.Accept(follow.FullName())),
	} {
		err := register(rpc.NewServer(nc), new(accounts), opt)
		if err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("Register: %v, want %q", err, text)
		}
	}
}

// TestCallerLeaves: the handler goes on, and the caller gets its result when it is back.
func TestCallerLeaves(t *testing.T) {
	stores(t, func(t *testing.T, srv *rpctest.Server, store rpcdedup.Store) {
		running, proceed := make(chan struct{}), make(chan struct{})
		a := &accounts{handle: func(ctx context.Context, run int, _ string) (string, error) {
			close(running)
			<-proceed
			return fmt.Sprint("run ", run), ctx.Err()
		}}
		serve(t, srv.Connect(), a, rpcdedup.Server(store, rpcdedup.WithLease(200*time.Millisecond)))
		c := dial(t, srv.Connect())
		ctx, leave := context.WithCancel(t.Context())
		left := make(chan error, 1)
		go func() {
			_, err := pay.Call(ctx, c, order(t, 7), rpc.WithIdempotencyKey("k"))
			left <- err
		}()
		<-running
		leave()
		wantError(t, <-left, rpc.CodeCanceled, rpc.ExecutionMayHaveRun)
		// It waits for as long as it may, also beyond a lease.
		_, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(500*time.Millisecond))
		wantError(t, err, rpc.CodeDeadlineExceeded, rpc.ExecutionMayHaveRun)
		back := make(chan error, 1)
		go func() {
			res, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"))
			if err == nil && res.GetValue() != "run 1" {
				err = errors.New(res.GetValue())
			}
			back <- err
		}()
		close(proceed)
		must(t, <-back)
	})
}

// TestLargeResult: a result that does not fit into a message of NATS has happened all the same.
func TestLargeResult(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithJetStream())
	a := &accounts{handle: func(context.Context, int, string) (string, error) { return strings.Repeat("x", 2<<20), nil }}
	serve(t, srv.Connect(), a, rpcdedup.Server(bucket(t, srv.Connect())))
	c := dial(t, srv.Connect())
	res, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"))
	want(t, res, err, strings.Repeat("x", 2<<20))
	_, err = pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"))
	wantError(t, err, rpc.CodeDataLoss, rpc.ExecutionDidRun)
	if n := a.of("k"); n != 1 {
		t.Errorf("it has run %d times", n)
	}
}

// flaky is a store that sometimes does not answer.
type flaky struct {
	rpcdedup.Store
	fail func(op string) (before, after bool)
}

var errSilent = errors.New("no answer")

func (f *flaky) try(op string, do func() error) error {
	before, after := f.fail(op)
	if before {
		return errSilent
	}
	if err := do(); err != nil || !after {
		return err
	}
	return errSilent
}

func (f *flaky) Create(ctx context.Context, key string, value []byte) (revision uint64, err error) {
	err = f.try("create", func() (err error) { revision, err = f.Store.Create(ctx, key, value); return err })
	return revision, err
}

func (f *flaky) Get(ctx context.Context, key string) (value []byte, revision uint64, err error) {
	err = f.try("get", func() (err error) { value, revision, err = f.Store.Get(ctx, key); return err })
	return value, revision, err
}

func (f *flaky) Update(ctx context.Context, key string, value []byte, revision uint64) (next uint64, err error) {
	err = f.try("update", func() (err error) { next, err = f.Store.Update(ctx, key, value, revision); return err })
	return next, err
}

func (f *flaky) Delete(ctx context.Context, key string, revision uint64) error {
	return f.try("delete", func() error { return f.Store.Delete(ctx, key, revision) })
}

// TestFlakyStore: whatever a store does not answer, no call runs twice, all get the same result,
// and one that says "not run" has not run.
func TestFlakyStore(t *testing.T) {
	srv := rpctest.NewServer(t)
	store := &flaky{Store: rpcdedup.NewMemory(time.Hour), fail: func(string) (before, after bool) {
		return rand.IntN(4) == 0, rand.IntN(4) == 0
	}}
	a := new(accounts)
	for range 2 {
		serve(t, srv.Connect(), a, rpcdedup.Server(store, rpcdedup.WithLease(100*time.Millisecond)))
	}
	c := dial(t, srv.Connect(), rpc.WithRetryBudget(1_000_000, 1))
	var callers sync.WaitGroup
	for i := range 100 {
		key := fmt.Sprint(i)
		for range 3 {
			callers.Go(func() {
				res, err := pay.Call(t.Context(), c, order(t, i), rpc.WithIdempotencyKey(key), rpc.WithTimeout(30*time.Second))
				switch {
				case err == nil && res.GetValue() == "run 1":
				case rpc.CodeOf(err) == rpc.CodeFailedPrecondition: // it was not renewed
				default:
					t.Errorf("key %s: %q, %v", key, res.GetValue(), err)
				}
			})
		}
	}
	callers.Wait()
	for i := range 100 {
		if n := a.of(fmt.Sprint(i)); n > 1 {
			t.Errorf("key %d has run %d times", i, n)
		}
	}
}

// TestVirtualStoreIsDown: calls with a key wait for the store, and have not run.
func TestVirtualStoreIsDown(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		began := time.Now()
		store := &flaky{Store: rpcdedup.NewMemory(time.Hour), fail: func(string) (before, after bool) {
			return time.Since(began) < 10*time.Second, false
		}}
		a := new(accounts)
		serve(t, srv.Connect(), a, rpcdedup.Server(store))
		c := dial(t, srv.Connect())
		_, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithoutRetry(), rpc.WithTimeout(8*time.Second))
		wantError(t, err, rpc.CodeUnavailable, rpc.ExecutionNotRun)
		res, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithTimeout(time.Minute))
		want(t, res, err, "run 1")
	})
}

// TestVirtualInstanceDies: a call whose instance has died is run again after the lease if its
// method may run twice, and is lost otherwise; until then callers wait.
func TestVirtualInstanceDies(t *testing.T) {
	const lease = 3 * time.Second
	for _, test := range []struct {
		name   string
		method *rpc.UnaryMethod[*document, *text]
	}{{"may run once", pay}, {"may run twice", set}} {
		t.Run(test.name, func(t *testing.T) {
			rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
				shared := rpcdedup.NewMemory(time.Hour)
				dead := make(chan struct{})
				first := &flaky{Store: shared, fail: func(string) (before, after bool) {
					select {
					case <-dead:
						return true, true
					default:
						return false, false
					}
				}}
				running, revived := make(chan struct{}), make(chan struct{})
				a := &accounts{handle: func(ctx context.Context, run int, _ string) (string, error) {
					if run == 1 {
						close(running)
						<-revived
					}
					return fmt.Sprint("run ", run), nil
				}}
				proxy := rpctest.NewProxy(t, srv)
				s := rpc.NewServer(proxy.Connect())
				must(t, register(s, a, rpcdedup.Server(first)))
				must(t, s.Start(t.Context()))
				c := dial(t, srv.Connect())
				type result struct {
					res  *text
					err  error
					took time.Duration
				}
				results := make(chan result, 1)
				call := func(opts ...rpc.CallOption) {
					began := time.Now()
					res, err := test.method.Call(t.Context(), c, order(t, 7), append(opts, rpc.WithIdempotencyKey("k"), rpc.WithTimeout(time.Minute))...)
					results <- result{res, err, time.Since(began)}
				}
				go call()
				<-running
				close(dead)
				proxy.BlackHole()
				second := serve(t, srv.Connect(), a, rpcdedup.Server(shared))
				got := <-results // it was sent again after silence
				if got.took < lease || got.took > 2*lease+time.Second {
					t.Errorf("it took %v, with a lease of %v", got.took, lease)
				}
				go call(rpc.WithInstance(second.Instance(desc.Name)))
				later := <-results
				if test.method == set {
					want(t, got.res, got.err, "run 2")
					want(t, later.res, later.err, "run 2")
				} else {
					wantError(t, got.err, rpc.CodeFailedPrecondition, rpc.ExecutionMayHaveRun)
					wantError(t, later.err, rpc.CodeFailedPrecondition, rpc.ExecutionMayHaveRun)
				}
				if later.took > 10*time.Millisecond {
					t.Errorf("later it took %v", later.took)
				}
				close(revived)
				proxy.Cut()
				_ = s.Shutdown(context.Background()) // its connection is closed
			})
		})
	}
}

// TestVirtualSlowInstance: one that was taken for dead, and has ended its call later, makes the
// result known; where another one has run the call meanwhile, its result counts, and the slow
// handler is canceled.
func TestVirtualSlowInstance(t *testing.T) {
	for _, test := range []struct {
		name   string
		method *rpc.UnaryMethod[*document, *text]
		want   string
	}{{"may run once", pay, "run 1"}, {"may run twice", set, "run 2"}} {
		t.Run(test.name, func(t *testing.T) {
			rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
				shared := rpcdedup.NewMemory(time.Hour)
				began := time.Now()
				slow := &flaky{Store: shared, fail: func(string) (before, after bool) {
					since := time.Since(began)
					return since > time.Second && since < 10*time.Second, false
				}}
				a := &accounts{handle: func(ctx context.Context, run int, _ string) (string, error) {
					if run == 1 {
						select {
						case <-time.After(20 * time.Second):
						case <-ctx.Done():
							if test.method != set || time.Since(began) < 10*time.Second {
								t.Errorf("the handler was canceled after %v", time.Since(began))
							}
							return "", ctx.Err()
						}
					}
					return fmt.Sprint("run ", run), nil
				}}
				one := serve(t, srv.Connect(), a, rpcdedup.Server(slow))
				c := dial(t, srv.Connect(), rpc.WithTimeout(time.Minute))
				var first sync.WaitGroup
				first.Go(func() {
					res, err := test.method.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithInstance(one.Instance(desc.Name)))
					if err != nil || res.GetValue() != test.want {
						t.Errorf("the slow instance answers %q, %v, want %s", res.GetValue(), err, test.want)
					}
				})
				time.Sleep(500 * time.Millisecond) // virtual
				two := serve(t, srv.Connect(), a, rpcdedup.Server(shared))
				time.Sleep(time.Second)
				res, err := test.method.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"), rpc.WithInstance(two.Instance(desc.Name)))
				if test.method == set {
					want(t, res, err, "run 2")
				} else {
					wantError(t, err, rpc.CodeFailedPrecondition, rpc.ExecutionMayHaveRun)
				}
				first.Wait()
				res, err = test.method.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"))
				want(t, res, err, test.want)
			})
		})
	}
}

// TestMemoryForgets: a record is kept for its time, and takes no memory afterwards.
func TestMemoryForgets(t *testing.T) {
	rpctest.Bubble(t, func(t *testing.T, srv *rpctest.Server) {
		a := new(accounts)
		serve(t, srv.Connect(), a, rpcdedup.Server(rpcdedup.NewMemory(time.Minute)))
		c := dial(t, srv.Connect())
		call := func(run string) {
			t.Helper()
			res, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey("k"))
			want(t, res, err, run)
		}
		call("run 1")
		time.Sleep(59 * time.Second)
		call("run 1")
		for i := range 2000 { // which is enough for the store to look for what is too old
			_, err := pay.Call(t.Context(), c, order(t, 7), rpc.WithIdempotencyKey(fmt.Sprint(i)))
			must(t, err)
		}
		time.Sleep(2 * time.Second)
		call("run 2")
	})
}
