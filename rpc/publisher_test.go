package rpc_test

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestAnswersDoNotWaitForHandlers: answers are published together with those of calls that are
// queued, but none waits for a handler that takes its time, wherever its call is in the queue
// and however many may run.
func TestAnswersDoNotWaitForHandlers(t *testing.T) {
	const calls = 20
	for _, concurrency := range []int{2, 3, calls, 0} {
		for _, slow := range []int{0, 1, calls / 2, calls - 2, calls - 1} {
			t.Run(fmt.Sprintf("%d run, the slow one is %d", concurrency, slow), func(t *testing.T) {
				nc := rpctest.Connect(t)
				goOn := make(chan struct{})
				var opts []rpc.ServerOption
				if concurrency > 0 {
					opts = append(opts, rpc.WithMaxConcurrency(concurrency), rpc.WithMaxQueue(2*calls))
				}
				serve(t, nc, &funcs{do: func(_ context.Context, in string) (string, error) {
					if in == strconv.Itoa(slow) {
						<-goOn
					}
					return in, nil
				}}, opts...)
				c := dial(t, nc, rpc.WithBatching(16<<10))
				must(t, callOnce(t, c))
				held, release := c.HoldRequests() // so that they come at once, and in their order
				var quick, all sync.WaitGroup
				for i := range calls {
					if i != slow {
						quick.Add(1)
					}
					all.Go(func() {
						if err := echoes(t, c, strconv.Itoa(i)); err != nil {
							t.Error(err)
						}
						if i != slow {
							quick.Done()
						}
					})
					until(t, "the request is held", func() bool { return held() == i+1 })
				}
				release(calls)
				quick.Wait()
				close(goOn)
				all.Wait()
			})
		}
	}
}

// TestPanicWithinACall: a message that panics leaves nothing behind that others would wait for.
func TestPanicWithinACall(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{})
	c := dial(t, nc)
	must(t, callOnce(t, c))
	taken, free := c.Waiters()
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the message did not panic")
			}
		}()
		_, _ = testPanicking.Call(testContext(t), c, &panicking{})
	}()
	if nowTaken, nowFree := c.Waiters(); nowTaken != taken || nowFree != free {
		t.Errorf("%d waiters, %d of them free, were %d and %d", nowTaken, nowFree, taken, free)
	}
	if calls, expected := c.CallsInFlight(); calls != 0 || expected != 0 {
		t.Errorf("%d calls are in flight, %d callers are expected", calls, expected)
	}
	must(t, echoes(t, c, "x"))
}

// TestLostCaller: a caller that never comes holds nobody up for long.
func TestLostCaller(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{})
	c := dial(t, nc)
	must(t, callOnce(t, c))
	c.LoseCaller()
	must(t, echoes(t, c, "x"))
}

var testPanicking = rpc.NewUnaryMethod[panicking, wrapperspb.StringValue](&testDesc, rpc.MethodDesc{Name: "Panic"})

// panicking is a message that panics when it is encoded, as one may that is changed meanwhile.
type panicking struct{ wrapperspb.StringValue }

func (*panicking) SizeVT() int                                { panic("it is being changed") }
func (*panicking) MarshalToSizedBufferVT([]byte) (int, error) { return 0, nil }

// TestCallersAreCounted: each call that starts ends once, however it ends.
func TestCallersAreCounted(t *testing.T) {
	nc := rpctest.Connect(t)
	impl, goOn := answersOf(t), make(chan struct{})
	impl.blob = func(_ context.Context, b []byte) ([]byte, error) {
		<-goOn
		return b, nil
	}
	serve(t, nc, impl)
	c := dial(t, nc)
	must(t, callOnce(t, c))
	callsAtOnce(t, c)
	var waiting sync.WaitGroup
	for range 16 {
		waiting.Go(func() {
			for {
				_, err := testBlob.Call(testContext(t), c, wrapperspb.Bytes(nil))
				if rpc.CodeOf(err) != rpc.CodeCanceled {
					t.Error(err)
					return
				}
				if err.(*rpc.Error).Execution() == rpc.ExecutionNotRun {
					return // the client was closed before
				}
			}
		})
	}
	must(t, c.Close())
	waiting.Wait()
	close(goOn)
	if calls, expected := c.CallsInFlight(); calls != 0 || expected != 0 {
		t.Errorf("%d calls are in flight, %d callers are expected", calls, expected)
	}
}

// TestConcurrencyIsBounded: also where goroutines that publish come back to the queue.
func TestConcurrencyIsBounded(t *testing.T) {
	for _, limit := range []int32{1, 2} {
		nc := rpctest.Connect(t)
		var running atomic.Int32
		serve(t, nc, &funcs{do: func(_ context.Context, in string) (string, error) {
			defer running.Add(-1)
			if n := running.Add(1); n > limit {
				return "", fmt.Errorf("%d run, the limit is %d", n, limit)
			}
			runtime.Gosched()
			return in, nil
		}}, rpc.WithMaxConcurrency(int(limit)), rpc.WithMaxQueue(16))
		c := dial(t, nc, rpc.WithBatching(16<<10))
		each(t, 8, func(i int) error {
			for j := range 2000 {
				if err := echoes(t, c, fmt.Sprint(i, j)); err != nil {
					return err
				}
			}
			return nil
		})
	}
}
