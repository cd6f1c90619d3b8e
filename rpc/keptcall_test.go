package rpc_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestRequestAfterTheEnd: what an interceptor keeps of a call that it has refused has the request.
func TestRequestAfterTheEnd(t *testing.T) {
	nc := rpctest.Connect(t)
	kept := make(chan *rpc.Call, 1)
	serve(t, nc, &funcs{}, rpc.WithInterceptors(func(_ context.Context, call *rpc.Call, _ rpc.Next) error {
		kept <- call
		return errors.New("refused")
	}))
	c := dial(t, nc)
	if _, err := do(testContext(t), c, "hello", rpc.WithoutRetry()); err == nil {
		t.Error("it was not refused")
	}
	req, err := (<-kept).Request()
	if err != nil || req.(*wrapperspb.StringValue).GetValue() != "hello" {
		t.Errorf("the request is %v, %v", req, err)
	}
}

// TestRequestInTheBackground is for the race detector: an interceptor that refuses looks at the
// request in the background, as an audit log does.
func TestRequestInTheBackground(t *testing.T) {
	nc := rpctest.Connect(t)
	var audits sync.WaitGroup
	serve(t, nc, &funcs{}, rpc.WithInterceptors(func(_ context.Context, call *rpc.Call, _ rpc.Next) error {
		audits.Go(func() {
			req, err := call.Request()
			if err != nil || req.(*wrapperspb.StringValue).GetValue() != "hello" {
				t.Errorf("the request is %v, %v", req, err)
			}
		})
		return errors.New("refused")
	}))
	c := dial(t, nc)
	for range 200 {
		_, _ = do(testContext(t), c, "hello", rpc.WithoutRetry())
	}
	audits.Wait()
}

// TestKeptContextsWeighLittle: a context that a handler keeps does not keep the messages.
func TestKeptContextsWeighLittle(t *testing.T) {
	const size, calls = 512 << 10, 100
	nc := rpctest.Connect(t)
	var mu sync.Mutex
	var kept []context.Context
	serve(t, nc, &funcs{blob: func(ctx context.Context, b []byte) ([]byte, error) {
		mu.Lock()
		defer mu.Unlock()
		kept = append(kept, context.WithoutCancel(ctx))
		return b, nil
	}})
	c := dial(t, nc)
	heap := func() uint64 {
		var m runtime.MemStats
		for range 3 {
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for range calls {
		_, err := testBlob.Call(testContext(t), c, wrapperspb.Bytes(make([]byte, size)))
		must(t, err)
	}
	if each := int64(heap()-before) / calls; each > size/4 {
		t.Errorf("each of %d contexts keeps %d bytes, of requests of %d", len(kept), each, size)
	}
	runtime.KeepAlive(kept)
}
