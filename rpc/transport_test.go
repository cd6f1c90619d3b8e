package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestResponsesAtMaxPayload: what surrounds a response counts against max_payload: its envelope, a
// batch, and metadata. A response that does not fit with these is sent as a stream.
func TestResponsesAtMaxPayload(t *testing.T) {
	const maxPayload = 64 << 10
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) { o.MaxPayload = maxPayload }))
	size, metadata := 0, ""
	serve(t, srv.Connect(), &funcs{blob: func(ctx context.Context, _ []byte) ([]byte, error) {
		if metadata != "" {
			rpc.CallFromContext(ctx).ResponseHeader().Set("key", metadata)
		}
		return make([]byte, size), nil
	}})
	alone, batching := dial(t, srv.Connect()), dial(t, srv.Connect(), rpc.WithBatching(16<<10))
	blob := func(c *rpc.Client, opts ...rpc.CallOption) error {
		res, err := testBlob.Call(testContext(t), c, new(bytes), opts...)
		if err == nil && len(res.GetValue()) != size {
			err = fmt.Errorf("%d bytes came, want %d", len(res.GetValue()), size)
		}
		return err
	}
	for size = maxPayload - 60; size < maxPayload; size += 3 {
		must(t, blob(alone))
		both := func() error { return blob(batching) }
		together(t, batching, 0, both, both)
	}
	size, metadata = maxPayload-1000, strings.Repeat("x", 2000)
	must(t, blob(alone))
	err := blob(alone, rpc.WithPlainRequests())
	if e := wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionDidRun); !strings.Contains(e.Message(), "max_payload is 65536") {
		t.Error(err)
	}
}

// TestErrorsAtMaxPayload: an error arrives, shortened, whatever its size and that of its metadata.
func TestErrorsAtMaxPayload(t *testing.T) {
	nc := rpctest.Connect(t)
	fail := func(ctx context.Context, message int) error {
		rpc.CallFromContext(ctx).ResponseTrailer().Set("key", strings.Repeat("x", 2<<20))
		return rpc.Errorf(rpc.CodeAborted, "%s", strings.Repeat("x", message))
	}
	serve(t, nc, &funcs{
		do: func(ctx context.Context, _ string) (string, error) { return "", fail(ctx, 10) },
		watch: func(context.Context, string, *rpc.Sender[*text]) error {
			return rpc.Errorf(rpc.CodeAborted, "%s", strings.Repeat("x", int(nc.MaxPayload()*3/4)))
		},
	})
	c := dial(t, nc)
	for _, opts := range [][]rpc.CallOption{nil, {rpc.WithPlainRequests()}} {
		_, err := do(testContext(t), c, "x", opts...)
		wantCode(t, err, rpc.CodeAborted, rpc.ExecutionDidRun)
	}
	r, err := watch(testContext(t), c, "x")
	must(t, err)
	_, err = r.Recv()
	if e := wantCode(t, err, rpc.CodeAborted, rpc.ExecutionDidRun); !strings.Contains(e.Message(), "shortened") {
		t.Errorf("a message of %d bytes", len(e.Message()))
	}
}

// TestMaxPayloadBelowOurOwn: where max_payload is below what is compared with it, a response that
// is too large is an error that names its size.
func TestMaxPayloadBelowOurOwn(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) { o.MaxPayload = 3000 }))
	serve(t, srv.Connect(), &funcs{do: func(context.Context, string) (string, error) { return strings.Repeat("x", 3500), nil }})
	_, err := do(testContext(t), dial(t, srv.Connect()), "x")
	if e := wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionDidRun); !strings.Contains(e.Message(), "the response has 3523 bytes") {
		t.Error(err)
	}
}

// TestEnvelopeFromJetStream: JetStream gets no error for an answer, whatever the message is, as
// that would acknowledge it. The error is logged, and the message is delivered again.
func TestEnvelopeFromJetStream(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithJetStream())
	nc := srv.Connect()
	logger, log := newLog()
	serve(t, srv.Connect(), &funcs{note: func(context.Context, *structpb.Struct) error { return errors.New("no such note") }}, logger)
	js, err := nc.JetStream()
	must(t, err)
	_, err = js.AddStream(&nats.StreamConfig{Name: "IN", Subjects: []string{"in"}, Storage: nats.MemoryStorage})
	must(t, err)
	_, err = js.AddConsumer("IN", &nats.ConsumerConfig{
		Durable: "C", DeliverSubject: "notes.new", AckPolicy: nats.AckExplicitPolicy, AckWait: 100 * time.Millisecond,
	})
	must(t, err)
	acks, err := nc.SubscribeSync("$JS.ACK.>")
	must(t, err)
	copies, err := nc.SubscribeSync("notes.new")
	must(t, err)
	must(t, nc.Flush())
	for _, data := range [][]byte{wire.AppendRequest(nil, wire.NewID(), 0, 0), {0, 1, 2}, []byte("{")} {
		_, err := js.Publish("in", data)
		must(t, err)
		for range 2 { // it comes again
			m, err := copies.NextMsg(10 * time.Second)
			must(t, err)
			if !strings.HasPrefix(m.Reply, "$JS.ACK.") {
				t.Fatalf("the reply subject is %q", m.Reply)
			}
		}
		if n, _, err := acks.Pending(); err != nil || n > 0 {
			t.Errorf("%q has %d answers, %v", data, n, err)
		}
		must(t, js.PurgeStream("IN"))
	}
	if len(untoldLines(log.String())) == 0 {
		t.Errorf("the log is %.600s", log.String())
	}
}

// TestInterceptorRefusesStream: if a client's interceptor fails after it has opened a stream, the
// handler's context ends, whatever the error is.
func TestInterceptorRefusesStream(t *testing.T) {
	for _, refusal := range []error{
		errors.New("no"),
		context.DeadlineExceeded,
		rpc.Errorf(rpc.CodeUnavailable, "token service: %w", context.DeadlineExceeded),
	} {
		nc := rpctest.Connect(t)
		ended, started := make(chan error, 1), make(chan bool, 1)
		serve(t, nc, &funcs{watch: func(ctx context.Context, _ string, _ *rpc.Sender[*text]) error {
			started <- true
			<-ctx.Done()
			ended <- context.Cause(ctx)
			return nil
		}})
		c := dial(t, nc, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
			if err := next(ctx, call); err != nil {
				return err
			}
			<-started
			return refusal
		}))
		if _, err := watch(testContext(t), c, "1"); rpc.CodeOf(err) != rpc.CodeOf(refusal) {
			t.Errorf("%v becomes %v", refusal, err)
		}
		if cause := <-ended; rpc.CodeOf(cause) != rpc.CodeCanceled {
			t.Errorf("%v: the handler's context ends with %v", refusal, cause)
		}
	}
}

// TestErrorAfterAccept: an error that comes instead of frames ends the stream as a status does.
func TestErrorAfterAccept(t *testing.T) {
	srv := rpctest.NewServer(t)
	nc := srv.Connect()
	_, err := nc.Subscribe(testRoot+".Chat", func(m *nats.Msg) {
		e, _ := wire.Parse(m.Data)
		s := &hostileServer{t, nc, m, e.ID}
		s.accept("ABC")
		s.send(append(wire.AppendResponse(nil, e.ID, 0, wire.FlagError), 0x08, byte(rpc.CodeAborted)))
	})
	must(t, err)
	canceled, err := nc.SubscribeSync(testRoot + "._i.ABC.>")
	must(t, err)
	must(t, nc.Flush())
	b, err := testChat.Call(testContext(t), dial(t, srv.Connect(), rpc.WithoutRetry()))
	must(t, err)
	_, err = b.Recv()
	wantCode(t, err, rpc.CodeAborted, rpc.ExecutionDidRun)
	if err := b.Send(wrapperspb.String("x")); err != io.EOF {
		t.Errorf("Send: %v", err)
	}
	m, err := canceled.NextMsg(10 * time.Second)
	must(t, err)
	if f, err := wire.ParseFrame(m.Data); err != nil || f.Kind != wire.KindStreamCancel {
		t.Errorf("the instance that has accepted gets %x", m.Data)
	}
}

// unreliable is a context of a user's own type with methods of which natscall knows nothing.
type unreliable struct{ context.Context }

func (unreliable) Ended() error { return nil }
func (unreliable) ended() error { return nil }

// TestInterceptorsContext: the context that a server's interceptor passes on bounds the handler's
// Send and Recv, whatever its type is, and not the response.
func TestInterceptorsContext(t *testing.T) {
	_ = unreliable{}.ended
	nc := rpctest.Connect(t)
	out := make(chan error, 1)
	limit := time.Millisecond
	serve(t, nc, &funcs{
		chat: func(_ context.Context, b *rpc.BidiStream[*text, *text]) error {
			_, err := b.Recv()
			out <- err
			return err
		},
	}, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return next(unreliable{ctx}, call)
	}))
	c := dial(t, nc)
	b, err := testChat.Call(testContext(t), c)
	must(t, err)
	defer b.Close()
	if err := <-out; rpc.CodeOf(err) != rpc.CodeDeadlineExceeded {
		t.Errorf("Recv ends with %v", err)
	}
	limit = time.Minute
	g, err := testGather.Call(testContext(t), c)
	must(t, err)
	must(t, g.Send(wrapperspb.String("x")))
	if m, err := g.CloseAndRecv(); err != nil || m.GetValue() != "x" {
		t.Errorf("the response of a stream: %v, %v", m, err)
	}
	large := strings.Repeat("x", 2<<20)
	if got, err := do(testContext(t), c, large); err != nil || got != large {
		t.Errorf("a large response: %d bytes, %v", len(got), err)
	}
}

// TestStreamWithoutCreditEnds: a response for which the client gives no credit is given up at the
// deadline.
func TestStreamWithoutCreditEnds(t *testing.T) {
	srv := rpctest.NewServer(t)
	s := serve(t, srv.Connect(), &funcs{gather: func(context.Context, *rpc.Receiver[*text]) (string, error) {
		return strings.Repeat("x", 2<<20), nil
	}})
	p := newPeer(t, srv.Connect())
	p.publish(testRoot+".Gather", wire.AppendOpen(nil, p.id, 0, 100*time.Millisecond, wire.Open{HalfClose: true}))
	f, err := wire.ParseFrame(p.next().Data)
	if err != nil || f.Kind != wire.KindAccept {
		t.Fatalf("no accept: %v, %v", f.Kind, err)
	}
	if code := p.end(); code != rpc.CodeDeadlineExceeded {
		t.Errorf("the stream ends with %v", code)
	}
	until(t, "the call has left", func() bool { return s.Open() == 0 })
}

// TestOnEndMetadata: a hook that runs at the end of a client's stream finds the response's
// metadata.
func TestOnEndMetadata(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{watch: func(ctx context.Context, _ string, to *rpc.Sender[*text]) error {
		call := rpc.CallFromContext(ctx)
		call.ResponseHeader().Set("a", "header")
		call.ResponseTrailer().Set("b", "trailer")
		return to.Send(wrapperspb.String("x"))
	}})
	var header, trailer string
	c := dial(t, nc, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.OnEnd(func(error) {
			header, trailer = call.ResponseHeader().Get("a"), call.ResponseTrailer().Get("b")
		})
		return next(ctx, call)
	}))
	r, err := watch(testContext(t), c, "x")
	must(t, err)
	for range r.All() {
	}
	if header != "header" || trailer != "trailer" {
		t.Errorf("the hook finds %q, %q", header, trailer)
	}
}

// TestStreamRequestOverLimit: a request that is too large did not run.
func TestStreamRequestOverLimit(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{})
	_, err := watch(testContext(t), dial(t, nc, rpc.WithMaxMessageSize(1000)), strings.Repeat("x", 2000))
	wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionNotRun)
}

// TestBadCompressionFromServer: a message of a server that does not decompress is the server's
// fault.
func TestBadCompressionFromServer(t *testing.T) {
	nc := rpctest.Connect(t)
	_, err := nc.Subscribe(testRoot+".Watch", func(m *nats.Msg) {
		e, _ := wire.Parse(m.Data)
		s := &hostileServer{t, nc, m, e.ID}
		s.accept("ABC")
		s.frame(wire.KindData, 0, 1, 0, 0, 0, 3, 'x', 'y', 'z')
	})
	must(t, err)
	r, err := watch(testContext(t), dial(t, nc), "x", rpc.WithCompression(rpc.CompressionGzip))
	must(t, err)
	_, err = r.Recv()
	wantCode(t, err, rpc.CodeInternal, rpc.ExecutionMayHaveRun)
}

// TestDetailThatDoesNotEncode: an error arrives with its code and the other details, in every form.
func TestDetailThatDoesNotEncode(t *testing.T) {
	nc := rpctest.Connect(t)
	fail := rpc.NewError(rpc.CodeAborted, "no", &anypb.Any{TypeUrl: "\xff"}, wrapperspb.String("good"))
	serve(t, nc, &funcs{
		do:    func(context.Context, string) (string, error) { return "", fail },
		watch: func(context.Context, string, *rpc.Sender[*text]) error { return fail },
	})
	c := dial(t, nc)
	check := func(form string, err error) {
		e := wantCode(t, err, rpc.CodeAborted, rpc.ExecutionDidRun)
		if good, ok := rpc.Detail[*text](err); !ok || good.GetValue() != "good" || len(e.Details()) != 1 {
			t.Errorf("%s: the details are %v", form, e.Details())
		}
	}
	_, err := do(testContext(t), c, "x")
	check("envelope", err)
	for _, codec := range []rpc.Codec{rpc.CodecProto, rpc.CodecJSON} {
		_, err = do(testContext(t), c, "x", rpc.WithPlainRequests(), rpc.WithCodec(codec))
		check("plain, "+codec.String(), err)
	}
	r, err := watch(testContext(t), c, "x")
	must(t, err)
	_, err = r.Recv()
	check("stream", err)
}
