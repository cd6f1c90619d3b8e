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
func TestUnfetchedResponse(t *testing.T) { rpctest.Bubble(t, testUnfetchedResponse) }

func testUnfetchedResponse(t *testing.T, srv *rpctest.Server) {
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

// TestLargeRequestThatNeverComes: a call whose deadline passes before its whole request has come
// has not run, and its end says so.
func TestLargeRequestThatNeverComes(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{blob: func(context.Context, []byte) ([]byte, error) {
		t.Error("it has run")
		return nil, nil
	}}, rpc.WithMaxTimeout(time.Millisecond))
	for range 50 { // the end and the deadline compete
		p := newPeer(t, nc)
		p.publish(testRoot+".Blob", wire.AppendOpen(nil, p.id, 0, 0, wire.Open{Credit: 1 << 20}))
		if code, x := p.endOrRefusal(); code != rpc.CodeDeadlineExceeded || x != wire.NotRun {
			t.Fatalf("it ends with %v and the execution %d", code, x)
		}
	}
}

// endOrRefusal reads up to the end of a stream, or the error in place of its accept.
func (p *peer) endOrRefusal() (rpc.Code, wire.Execution) {
	p.t.Helper()
	for {
		data := p.next().Data
		if e, err := wire.Parse(data); err == nil && e.Kind == wire.KindResponse {
			return statusCode(p.t, e.Body), e.Flags.Execution()
		}
		f, err := wire.ParseFrame(data)
		must(p.t, err)
		if f.Kind == wire.KindEnd {
			return statusCode(p.t, f.Body), f.Flags.Execution()
		}
	}
}
