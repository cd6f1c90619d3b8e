package rpc_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestUnfetchedResponse: a large response that nobody fetches, as its caller has died, does
// not hold a worker until the caller's deadline, nor the shutdown.
func TestUnfetchedResponse(t *testing.T) {
	srv := rpctest.NewServer(t)
	s := newTestServer(t, srv.Connect(), &funcs{blob: func(context.Context, []byte) ([]byte, error) { return make([]byte, 2<<20), nil }})
	p := newPeer(t, srv.Connect())
	request := wire.AppendRequest(nil, p.id, wire.CodecProto, time.Hour)
	p.publish(testRoot+".Blob", append(request, encode(t, wrapperspb.Bytes(nil))...))
	f, err := wire.ParseFrame(p.next().Data)
	if err != nil || f.Kind != wire.KindAccept {
		t.Fatalf("frame of kind %d, %v", f.Kind, err)
	}
	shutdown(t, s) // which has half a minute
}
