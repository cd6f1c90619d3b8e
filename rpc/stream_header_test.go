package rpc_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

// headed is a stream in either direction whose handler sends its header before it waits.
type headed struct {
	funcs
	goOn chan struct{}
}

func newHeaded() *headed {
	h := &headed{goOn: make(chan struct{})}
	h.watch = func(ctx context.Context, req string, to *rpc.Sender[*text]) error {
		if err := h.announce(ctx); err != nil {
			return err
		}
		if err := to.Send(wrapperspb.String(req)); err != nil {
			return err
		}
		rpc.CallFromContext(ctx).ResponseTrailer().Set("rows", "1")
		return nil
	}
	h.gather = func(ctx context.Context, from *rpc.Receiver[*text]) (string, error) {
		if err := h.announce(ctx); err != nil {
			return "", err
		}
		_, err := from.Recv()
		return "gathered", err
	}
	h.chat = func(ctx context.Context, s *rpc.BidiStream[*text, *text]) error {
		if err := h.announce(ctx); err != nil {
			return err
		}
		return s.Send(wrapperspb.String("x"))
	}
	return h
}

func (h *headed) announce(ctx context.Context) error {
	call := rpc.CallFromContext(ctx)
	call.ResponseHeader().Set("revision", "7")
	if err := call.SendHeader(); err != nil {
		return err
	}
	select {
	case <-h.goOn:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wantHeader compares the response header of a stream.
func wantHeader(t *testing.T, s interface {
	Header(context.Context) (rpc.Header, error)
}, want rpc.Header) {
	t.Helper()
	got, err := s.Header(testContext(t))
	must(t, err)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("header (-want +got):\n%s", diff)
	}
}

// TestSendHeader: the header of a stream of any shape is there long before its first message.
func TestSendHeader(t *testing.T) {
	srv := rpctest.NewServer(t)
	h := newHeaded()
	serve(t, srv.Connect(), h)
	c := dial(t, srv.Connect())
	want := rpc.Header{"revision": {"7"}}

	r, err := watch(testContext(t), c, "x")
	must(t, err)
	g, err := testGather.Call(testContext(t), c)
	must(t, err)
	b, err := testChat.Call(testContext(t), c)
	must(t, err)
	for _, s := range []interface {
		Header(context.Context) (rpc.Header, error)
	}{r, g, b} {
		wantHeader(t, s, want)
		wantHeader(t, s, want) // again
	}
	close(h.goOn)
	if _, err := r.Recv(); err != nil {
		t.Error(err)
	}
	if _, err := r.Recv(); err != io.EOF || r.Trailer().Get("rows") != "1" {
		t.Errorf("the stream ended with %v, trailer %v", err, r.Trailer())
	}
	must(t, g.Send(wrapperspb.String("x")))
	if res, err := g.CloseAndRecv(); err != nil || res.GetValue() != "gathered" {
		t.Errorf("%v, %v", res, err)
	}
	if _, err := b.Recv(); err != nil {
		t.Error(err)
	}
	for range b.All() {
	}
	wantHeader(t, r, want)
	wantHeader(t, g, want)
	wantHeader(t, b, want)
}

// TestHeaderFrameFaults: a header frame that is lost, doubled or late costs nothing but time.
func TestHeaderFrameFaults(t *testing.T) {
	h := newHeaded()
	close(h.goOn)
	n := newBadNetwork(t, h)
	for name, action := range faults {
		t.Run(name, func(t *testing.T) {
			n.client.Fault(once(action, ofNewStream(func(m rpctest.Message) bool {
				return frameIs(m, rpctest.ToClient, wire.KindHeader, 0)
			})))
			r, err := watch(testContext(t), n.c, "x")
			must(t, err)
			wantHeader(t, r, rpc.Header{"revision": {"7"}})
			if m, err := r.Recv(); err != nil || m.GetValue() != "x" {
				t.Errorf("%v, %v", m, err)
			}
			if _, err := r.Recv(); err != io.EOF {
				t.Errorf("the stream ended with %v", err)
			}
			wantHeader(t, r, rpc.Header{"revision": {"7"}})
		})
	}
}

// TestHeaderWithoutSendHeader: Header returns with the first message or the end, when ctx ends, and
// when the stream breaks.
func TestHeaderWithoutSendHeader(t *testing.T) {
	srv := rpctest.NewServer(t)
	goOn := make(chan struct{})
	serve(t, srv.Connect(), &funcs{watch: func(ctx context.Context, req string, to *rpc.Sender[*text]) error {
		select {
		case <-goOn:
		case <-ctx.Done():
			return ctx.Err()
		}
		switch req {
		case "fail":
			return rpc.Errorf(rpc.CodeNotFound, "no such thing")
		case "message":
			return to.Send(wrapperspb.String("x"))
		}
		return nil
	}})
	c := dial(t, srv.Connect())
	open := func(req string) *rpc.Receiver[*text] {
		r, err := watch(testContext(t), c, req)
		must(t, err)
		return r
	}
	ended, cancel := context.WithCancel(testContext(t))
	cancel()
	closed := open("")
	if _, err := closed.Header(ended); rpc.CodeOf(err) != rpc.CodeCanceled {
		t.Errorf("ctx has ended, and Header returns %v", err)
	}
	waiting := make(chan error)
	go func() {
		_, err := closed.Header(context.Background())
		waiting <- err
	}()
	closed.Close()
	if err := <-waiting; rpc.CodeOf(err) != rpc.CodeCanceled {
		t.Errorf("the stream was closed, and Header returned %v", err)
	}
	streams := map[string]*rpc.Receiver[*text]{"message": open("message"), "nothing": open("nothing"), "fail": open("fail")}
	close(goOn)
	for req, r := range streams {
		if h, err := r.Header(testContext(t)); err != nil || len(h) != 0 {
			t.Errorf("%s: %v, %v", req, h, err)
		}
	}
	if _, err := streams["fail"].Recv(); rpc.CodeOf(err) != rpc.CodeNotFound {
		t.Errorf("Recv after Header returns %v", err)
	}
}

// TestSendHeaderErrors: SendHeader is possible once, with a valid header, before the first message,
// and does nothing on a unary call.
func TestSendHeaderErrors(t *testing.T) {
	srv := rpctest.NewServer(t)
	send := func(ctx context.Context) error { return rpc.CallFromContext(ctx).SendHeader() }
	var codes []rpc.Code
	impl := &funcs{
		watch: func(ctx context.Context, req string, to *rpc.Sender[*text]) error {
			switch req {
			case "invalid":
				rpc.CallFromContext(ctx).ResponseHeader().Set("a b", "c")
			case "after":
				must(t, to.Send(wrapperspb.String("x")))
			}
			codes = []rpc.Code{rpc.CodeOf(send(ctx)), rpc.CodeOf(send(ctx))}
			return nil
		},
		do: func(ctx context.Context, _ string) (string, error) { return "", send(ctx) },
	}
	serve(t, srv.Connect(), impl)
	c := dial(t, srv.Connect(), rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		if err := call.SendHeader(); rpc.CodeOf(err) != rpc.CodeFailedPrecondition {
			t.Errorf("on a client SendHeader returns %v", err)
		}
		return next(ctx, call)
	}))
	must(t, callOnce(t, c))
	for req, want := range map[string][]rpc.Code{
		"twice":   {rpc.CodeOK, rpc.CodeFailedPrecondition},
		"after":   {rpc.CodeFailedPrecondition, rpc.CodeFailedPrecondition},
		"invalid": {rpc.CodeInternal, rpc.CodeFailedPrecondition},
	} {
		r, err := watch(testContext(t), c, req)
		must(t, err)
		for range r.All() {
		}
		if diff := cmp.Diff(want, codes); diff != "" {
			t.Errorf("%s (-want +got):\n%s", req, diff)
		}
	}
}

// TestPlainStreamHeader: to a plain reader the header goes with the first message, else the end.
func TestPlainStreamHeader(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{watch: func(ctx context.Context, req string, to *rpc.Sender[*text]) error {
		call := rpc.CallFromContext(ctx)
		call.ResponseHeader().Set("revision", "7")
		if err := errors.Join(call.SendHeader(), call.SendHeader()); err != nil {
			return err
		}
		return count(ctx, req, to)
	}})
	nc := srv.Connect()
	for _, req := range []string{"0", "3"} {
		messages, end := askMany(t, nc, encode(t, wrapperspb.String(req)), contentType("application/protobuf"))
		checkPlainEnd(t, end, "")
		for i, m := range append(messages, end) {
			first, last := i == 0, i == len(messages)
			if got := m.Header.Get("revision"); first && got != "7" || !first && !last && got != "" {
				t.Errorf("%s messages: the header of message %d is %v", req, i, m.Header)
			}
		}
	}
}

// TestAdviceIsIgnored: what the protocol sets aside for peers that understand it changes nothing.
func TestAdviceIsIgnored(t *testing.T) {
	const advice = 0x0f // in the flags of a frame
	h := newHeaded()
	close(h.goOn)
	n := newBadNetwork(t, h)
	mark := func(m rpctest.Message) rpctest.Action {
		if wire.IsFrame(m.Data) {
			m.Data[wire.FlagsOffset] |= advice
		} else if e, err := wire.Parse(m.Data); err == nil && (e.Kind == wire.KindRequest || e.Kind == wire.KindOpen) {
			m.Data[wire.FlagsOffset] |= 0x30
		}
		return rpctest.Pass
	}
	n.client.Fault(mark)
	n.server.Fault(mark)
	r, err := watch(testContext(t), n.c, "x")
	must(t, err)
	wantHeader(t, r, rpc.Header{"revision": {"7"}})
	m, err := r.Recv()
	must(t, err)
	if m.GetValue() != "x" {
		t.Errorf("got %v", m)
	}
	if _, err := r.Recv(); err != io.EOF {
		t.Errorf("the stream ended with %v", err)
	}
}

// TestUnknownFrames: a frame of a kind that is set aside is ignored, wherever it comes in a stream;
// one of another kind that is not known ends the stream.
func TestUnknownFrames(t *testing.T) {
	for kind, want := range map[byte]error{24: io.EOF, 31: io.EOF, 23: nil, 32: nil} {
		nc := rpctest.Connect(t)
		c := dial(t, nc)
		sub, err := nc.Subscribe(testRoot+".Watch", func(m *nats.Msg) {
			e, err := wire.Parse(m.Data)
			must(t, err)
			unknown := append([]byte{0, 1, kind, 0xff}, "whatever"...)
			for _, data := range [][]byte{
				wire.AppendAccept(nil, e.ID, 0, "I"), unknown, unknown, wire.AppendFrame(nil, wire.KindEnd, 0),
			} {
				must(t, m.Respond(data))
			}
		})
		must(t, err)
		r, err := watch(testContext(t), c, "x")
		must(t, err)
		if _, err := r.Recv(); want != nil && err != want || want == nil && rpc.CodeOf(err) != rpc.CodeInternal {
			t.Errorf("kind %d: the stream ended with %v", kind, err)
		}
		must(t, sub.Unsubscribe())
	}
}

// TestLostHeader: if the frame that would have had the header is lost, Header fails as Recv does.
func TestLostHeader(t *testing.T) {
	n := newBadNetwork(t, &funcs{watch: func(ctx context.Context, _ string, to *rpc.Sender[*text]) error {
		rpc.CallFromContext(ctx).ResponseHeader().Set("revision", "7")
		return sendFaulty(to.Send)
	}})
	n.client.Fault(once(rpctest.Lose, ofNewStream(func(m rpctest.Message) bool {
		return frameIs(m, rpctest.ToClient, wire.KindData, 0)
	})))
	r, err := watch(testContext(t), n.c, "x")
	must(t, err)
	_, err = r.Header(testContext(t))
	wantCode(t, err, rpc.CodeDataLoss, rpc.ExecutionMayHaveRun)
}

// TestSendHeaderOfLargeCall: a unary call is one, also if its request comes as a stream: its header
// goes with the response.
func TestSendHeaderOfLargeCall(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{blob: func(ctx context.Context, _ []byte) ([]byte, error) {
		call := rpc.CallFromContext(ctx)
		if err := errors.Join(call.SendHeader(), call.SendHeader()); err != nil {
			return nil, err
		}
		call.ResponseHeader().Set("late", "1")
		return []byte("x"), nil
	}})
	var h rpc.Header
	_, err := testBlob.Call(testContext(t), dial(t, srv.Connect()), wrapperspb.Bytes(make([]byte, 2<<20)), rpc.ResponseHeader(&h))
	if err != nil || h.Get("late") != "1" {
		t.Errorf("%v, %v", h, err)
	}
}

// TestPlainHeaderAfterError: a message that could not be sent to a plain reader does not take the
// header along.
func TestPlainHeaderAfterError(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{watch: func(ctx context.Context, _ string, to *rpc.Sender[*text]) error {
		rpc.CallFromContext(ctx).ResponseHeader().Set("revision", "7")
		if err := to.Send(wrapperspb.String(strings.Repeat("x", 2<<20))); rpc.CodeOf(err) != rpc.CodeResourceExhausted {
			t.Errorf("Send: %v", err)
		}
		return to.Send(wrapperspb.String("x"))
	}})
	messages, _ := askMany(t, srv.Connect(), encode(t, wrapperspb.String("0")), contentType("application/protobuf"))
	if len(messages) != 1 || messages[0].Header.Get("revision") != "7" {
		t.Errorf("%d messages, the first has %v", len(messages), messages[0].Header)
	}
}
