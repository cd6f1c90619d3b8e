package rpc_test

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
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

// TestLargeRequestThatWasQueued: a client is not taken for dead for the time that its request was
// queued, in which it has nowhere to send a sign of life.
func TestLargeRequestThatWasQueued(t *testing.T) {
	nc := rpctest.Connect(t)
	const heartbeat = 100 * time.Millisecond
	running, finish := make(chan struct{}), make(chan struct{})
	serve(t, nc, &funcs{do: func(_ context.Context, in string) (string, error) {
		close(running)
		<-finish
		return in, nil
	}}, rpc.WithMaxConcurrency(1), rpc.WithHeartbeat(heartbeat))
	c := dial(t, nc)
	result := make(chan error)
	go func() { result <- callOnce(t, c) }()
	<-running
	time.AfterFunc(5*heartbeat, func() { close(finish) })
	p := newPeer(t, nc)
	p.open("Blob", 1<<20)
	must(t, <-result)
	for { // until the server has looked at the stream
		f, err := wire.ParseFrame(p.next().Data)
		must(t, err)
		if f.Kind == wire.KindHeartbeat {
			break
		}
	}
	p.frame(wire.KindData, 0, 0, 0, 0, 0, 0)
	p.frame(wire.KindEnd, 1)
	if code := p.end(); code != rpc.CodeOK {
		t.Errorf("the call ended with %v", code)
	}
}
