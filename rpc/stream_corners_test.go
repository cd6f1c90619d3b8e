package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestHeadersOfFramesAreNotKept: they cost no credit, so they may not cost memory.
func TestHeadersOfFramesAreNotKept(t *testing.T) {
	srv := rpctest.NewServer(t)
	reading := make(chan struct{})
	serve(t, srv.Connect(), &funcs{gather: func(ctx context.Context, from *rpc.Receiver[*text]) (string, error) {
		<-reading
		return "", nil
	}})
	nc := srv.Connect()
	id := wire.NewID()
	accept, err := nc.RequestWithContext(testContext(t), testRoot+".Gather", wire.AppendOpen(nil, id, 0, 0, wire.Open{Credit: 1 << 20}))
	must(t, err)
	f, err := wire.ParseFrame(accept.Data)
	must(t, err)
	_, instance, err := wire.ParseAccept(&f)
	must(t, err)
	before := heapInUse()
	padding := nats.Header{"x": {strings.Repeat("y", 900<<10)}}
	for i := range uint64(100) {
		frame := append(wire.AppendFrame(nil, wire.KindData, i), 0)
		must(t, nc.PublishMsg(&nats.Msg{Subject: testRoot + "._i." + instance + "." + id.String(), Header: padding, Data: frame}))
	}
	must(t, nc.Flush())
	// The frames came before this request, to another subscription.
	_, err = nc.RequestWithContext(testContext(t), testRoot+".Do", nil)
	must(t, err)
	until(t, "100 frames of one byte keep little", func() bool { return heapInUse()-before < 30<<20 })
	close(reading)
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

// TestSenderLetsGo: a stream that has sent a large message does not keep its size.
func TestSenderLetsGo(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{})
	c := dial(t, srv.Connect())
	before := heapInUse()
	for range 5 {
		chat, err := testChat.Call(testContext(t), c)
		must(t, err)
		defer chat.Close()
		must(t, chat.Send(wrapperspb.String(strings.Repeat("x", 12<<20))))
		_, err = chat.Recv()
		must(t, err)
	}
	if grown := heapInUse() - before; grown > 60<<20 {
		t.Errorf("5 idle streams keep %d MiB", grown>>20)
	}
}

// TestLargeCallNobodyAnswers: the open of a large call is asked about like any call.
func TestLargeCallNobodyAnswers(t *testing.T) { rpctest.Bubble(t, testLargeCallNobodyAnswers) }

func testLargeCallNobodyAnswers(t *testing.T, srv *rpctest.Server) {
	nc := srv.Connect()
	// The instance has died in the middle.
	_, err := nc.Subscribe(testRoot+".Blob", func(*nats.Msg) {})
	must(t, err)
	must(t, nc.Flush())
	_, err = testBlob.Call(testContext(t), dial(t, srv.Connect()), wrapperspb.Bytes(make([]byte, 3<<20)))
	wantCode(t, err, rpc.CodeUnavailable, rpc.ExecutionMayHaveRun)
}

// TestLargeCallWaitsInQueue: while somebody has it, it is not taken for lost.
func TestLargeCallWaitsInQueue(t *testing.T) { rpctest.Bubble(t, testLargeCallWaitsInQueue) }

func testLargeCallWaitsInQueue(t *testing.T, srv *rpctest.Server) {
	running, finish := make(chan struct{}, 2), make(chan struct{})
	serve(t, srv.Connect(), &funcs{blob: func(_ context.Context, in []byte) ([]byte, error) {
		running <- struct{}{}
		<-finish
		return nil, nil
	}}, rpc.WithMaxConcurrency(1))
	asked, err := srv.Connect().SubscribeSync(testRoot + "._all.alive")
	must(t, err)
	c := dial(t, srv.Connect())
	results := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := testBlob.Call(testContext(t), c, wrapperspb.Bytes(make([]byte, 3<<20)))
			results <- err
		}()
	}
	<-running
	for range 6 { // three without an answer were its death
		_, err := asked.NextMsg(time.Minute)
		must(t, err)
	}
	close(finish)
	for range 2 {
		must(t, <-results)
	}
}

// TestRecvErrorStays: after an error nothing comes, however the server ends.
func TestRecvErrorStays(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{watch: func(_ context.Context, _ string, to *rpc.Sender[*text]) error {
		for _, n := range []int{1, 1 << 20, 1} {
			if err := to.Send(wrapperspb.String(strings.Repeat("x", n))); err != nil {
				return err
			}
		}
		return nil
	}})
	for _, compression := range []rpc.Compression{rpc.CompressionNone, rpc.CompressionZstd} {
		ended := make(chan error, 1)
		c := dial(t, srv.Connect(), rpc.WithMaxMessageSize(10<<10), rpc.WithCompression(compression),
			rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
				call.OnEnd(func(err error) { ended <- err })
				return next(ctx, call)
			}))
		r, err := watch(testContext(t), c, "x")
		must(t, err)
		_, err = r.Recv()
		must(t, err)
		for range 3 {
			_, err = r.Recv()
			wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionMayHaveRun)
		}
		if err := <-ended; rpc.CodeOf(err) != rpc.CodeResourceExhausted {
			t.Errorf("%v: OnEnd got %v", compression, err)
		}
	}
}

// TestStreamsBesideJetStream: acknowledgements of a stream that captures the subjects do no harm.
func TestStreamsBesideJetStream(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithJetStream())
	nc := srv.Connect()
	js, err := jetstream.New(nc)
	must(t, err)
	_, err = js.CreateStream(testContext(t), jetstream.StreamConfig{Name: "S", Subjects: []string{testRoot + ".>"}})
	must(t, err)
	serve(t, srv.Connect(), tourist())
	c := dial(t, srv.Connect())
	r, err := watch(testContext(t), c, "50000")
	must(t, err)
	must(t, wantCount(r, 50_000))
	_, err = testBlob.Call(testContext(t), c, wrapperspb.Bytes(make([]byte, 3<<20)))
	must(t, err)
}

// TestSmallMaxPayload: everything works below the usual limit.
func TestSmallMaxPayload(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) { o.MaxPayload = 8 << 10 }))
	serve(t, srv.Connect(), tourist())
	c := dial(t, srv.Connect())
	for _, size := range []int{0, 5_000, 8_000, 8 << 10, 20_000, 40_000, 1 << 20} {
		res, err := testBlob.Call(testContext(t), c, wrapperspb.Bytes(make([]byte, size)))
		if err != nil || len(res.GetValue()) != size {
			t.Errorf("%d bytes: %d came, %v", size, len(res.GetValue()), err)
		}
	}
	r, err := watch(testContext(t), c, "1000")
	must(t, err)
	must(t, wantCount(r, 1000))
}

// TestCloseMeetsOpens: what was not run, says Close, was not run.
func TestCloseMeetsOpens(t *testing.T) {
	srv := rpctest.NewServer(t)
	ran := make(chan string, 10_000)
	serve(t, srv.Connect(), &funcs{watch: func(_ context.Context, in string, _ *rpc.Sender[*text]) error { ran <- in; return nil }})
	nc := srv.Connect()
	notRun := map[string]bool{}
	for i := range 200 {
		c := rpc.NewClient(nc)
		must(t, callOnce(t, c))
		name, result := fmt.Sprint(i), make(chan error)
		go func() { _, err := watch(testContext(t), c, name); result <- err }()
		must(t, c.Close())
		var e *rpc.Error
		if errors.As(<-result, &e) && e.Execution() == rpc.ExecutionNotRun {
			notRun[name] = true
		}
	}
	must(t, nc.Flush())
	must(t, callOnce(t, dial(t, nc)))
	close(ran)
	for name := range ran {
		if notRun[name] {
			t.Errorf("call %s ran", name)
		}
	}
}

// TestStreamsWithoutQueueGroup: they would go to every instance, and are refused.
func TestStreamsWithoutQueueGroup(t *testing.T) {
	nc := rpctest.Connect(t)
	s := rpc.NewServer(nc)
	must(t, registerTest(s, &funcs{}, rpc.WithoutQueueGroup()))
	must(t, s.Start(testContext(t)))
	defer shutdown(t, s)
	c := dial(t, nc)
	_, err := watch(testContext(t), c, "x")
	wantCode(t, err, rpc.CodeUnimplemented, rpc.ExecutionMayHaveRun)
	_, err = watch(testContext(t), c, "x", rpc.ResponseHeader(new(rpc.Header)))
	wantCode(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun)
}

// TestMaxPayloadChanges: the limit is that of the server that the connection is with.
func TestMaxPayloadChanges(t *testing.T) {
	first := rpctest.NewServer(t)
	port := first.NATS().Addr().(*net.TCPAddr).Port
	back := make(chan struct{}, 2)
	connect := func() *nats.Conn {
		return first.Connect(nats.ReconnectWait(10*time.Millisecond), nats.MaxReconnects(-1), nats.ReconnectHandler(func(*nats.Conn) { back <- struct{}{} }))
	}
	serve(t, connect(), tourist())
	c := dial(t, connect())
	message := wrapperspb.Bytes(make([]byte, 100_000))
	_, err := testBlob.Call(testContext(t), c, message)
	must(t, err)
	first.Shutdown()
	rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) { o.Port, o.MaxPayload = port, 16<<10 }))
	<-back
	<-back
	res, err := testBlob.Call(testContext(t), c, message)
	if err != nil || len(res.GetValue()) != 100_000 {
		t.Fatalf("%d bytes came, %v", len(res.GetValue()), err)
	}
	r, err := watch(testContext(t), c, "20000")
	must(t, err)
	must(t, wantCount(r, 20_000))
}
