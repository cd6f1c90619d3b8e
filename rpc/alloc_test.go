//go:build !race

package rpc_test

import (
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc/rpctest"
)

// TestUnaryAllocations fails when a call allocates more than it does now: in
// client, server, nats.go on both sides and the NATS server, together. The
// race detector changes the count, so `make test` runs this without it.
func TestUnaryAllocations(t *testing.T) {
	const limit = 18
	srv := rpctest.NewServer(t) // not in process: its pipe allocates
	serve(t, srv.Connect(), &funcs{})
	c := dial(t, srv.Connect())
	ctx := testContext(t)
	req := wrapperspb.Bytes(make([]byte, 60))
	call := func() {
		if _, err := testBlob.Call(ctx, c, req); err != nil {
			t.Fatal(err)
		}
	}
	call()
	if n := testing.AllocsPerRun(2000, call); n > limit {
		t.Errorf("a call allocates %v times, the limit is %d", n, limit)
	} else {
		t.Logf("%v allocations a call", n)
	}
}
