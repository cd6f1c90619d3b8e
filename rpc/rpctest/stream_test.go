package rpctest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

type text = wrapperspb.StringValue

// The handlers under test.

func watch(ctx context.Context, req *text, to *rpc.Sender[*text]) error {
	rpc.CallFromContext(ctx).ResponseHeader().Set("tenant", rpc.CallFromContext(ctx).Header().Get("tenant"))
	rpc.CallFromContext(ctx).ResponseTrailer().Set("cost", "2")
	m := wrapperspb.String(req.GetValue())
	for range 2 {
		if err := to.Send(m); err != nil {
			return err
		}
		m.Value += "!" // Send has copied it
	}
	if req.GetValue() == "fail" {
		return rpc.NewError(rpc.CodeNotFound, "nothing", wrapperspb.Int32(7))
	}
	return nil
}

func gather(_ context.Context, from *rpc.Receiver[*text]) (*text, error) {
	var all []string
	for m, err := range from.All() {
		if err != nil {
			return nil, err
		}
		all = append(all, m.GetValue())
	}
	return wrapperspb.String(strings.Join(all, " ")), nil
}

func chat(_ context.Context, with *rpc.BidiStream[*text, *text]) error {
	for m, err := range with.All() {
		if err != nil {
			return err
		}
		if err := with.Send(wrapperspb.String("re: " + m.GetValue())); err != nil {
			return err
		}
	}
	return nil
}

func values(messages []*text) string {
	var all []string
	for _, m := range messages {
		all = append(all, m.GetValue())
	}
	return strings.Join(all, " ")
}

func TestSender(t *testing.T) {
	stream, sent := rpctest.NewSender[*text]()
	ctx, call := rpctest.NewContext(t.Context(), rpc.Header{"tenant": {"acme"}})
	must(t, watch(ctx, wrapperspb.String("a"), stream))
	if got := values(sent()); got != "a a!" {
		t.Errorf("sent %q", got)
	}
	if call.ResponseHeader().Get("tenant") != "acme" || call.ResponseTrailer().Get("cost") != "2" {
		t.Errorf("header %v, trailer %v", call.ResponseHeader(), call.ResponseTrailer())
	}
	if err := stream.Send(nil); rpc.CodeOf(err) != rpc.CodeInternal {
		t.Errorf("Send(nil) is %v", err)
	}
}

func TestReceiver(t *testing.T) {
	res, err := gather(t.Context(), rpctest.NewReceiver(wrapperspb.String("a"), wrapperspb.String("b")))
	if err != nil || res.GetValue() != "a b" {
		t.Errorf("%v, %v", res, err)
	}
	broken := errors.New("broken")
	if _, err := gather(t.Context(), rpctest.NewBrokenReceiver(broken, wrapperspb.String("a"))); err != broken {
		t.Errorf("the handler returned %v", err)
	}
}

func TestServerStream(t *testing.T) {
	ctx, _ := rpctest.NewContext(t.Context(), rpc.Header{"tenant": {"acme"}})
	r := rpctest.ServerStream(ctx, t, wrapperspb.String("fail"), watch)
	for _, want := range []string{"fail", "fail!"} {
		if m, err := r.Recv(); err != nil || m.GetValue() != want {
			t.Fatalf("%v, %v", m, err)
		}
	}
	_, err := r.Recv()
	if detail, ok := rpc.Detail[*wrapperspb.Int32Value](err); rpc.CodeOf(err) != rpc.CodeNotFound || !ok || detail.GetValue() != 7 {
		t.Errorf("the end is %v", err)
	}
	h, err := r.Header(t.Context())
	if err != nil || h.Get("tenant") != "acme" || r.Trailer().Get("cost") != "2" {
		t.Errorf("header %v, trailer %v, %v", h, r.Trailer(), err)
	}
}

func TestClientStream(t *testing.T) {
	s := rpctest.ClientStream(t.Context(), t, gather)
	must(t, s.Send(wrapperspb.String("a")))
	must(t, s.Send(wrapperspb.String("b")))
	res, err := s.CloseAndRecv()
	if err != nil || res.GetValue() != "a b" {
		t.Errorf("%v, %v", res, err)
	}
	if err := s.Send(wrapperspb.String("late")); rpc.CodeOf(err) != rpc.CodeFailedPrecondition {
		t.Errorf("Send after the end is %v", err)
	}
	nothing := rpctest.ClientStream(t.Context(), t, func(context.Context, *rpc.Receiver[*text]) (*text, error) { return nil, nil })
	if _, err := nothing.CloseAndRecv(); rpc.CodeOf(err) != rpc.CodeInternal {
		t.Errorf("no response is %v", err)
	}
}

func TestBidi(t *testing.T) {
	s := rpctest.Bidi(t.Context(), t, chat)
	for _, in := range []string{"a", "b"} {
		must(t, s.Send(wrapperspb.String(in)))
		if m, err := s.Recv(); err != nil || m.GetValue() != "re: "+in {
			t.Fatalf("%v, %v", m, err)
		}
	}
	s.CloseSend()
	if _, err := s.Recv(); err != io.EOF {
		t.Errorf("the end is %v", err)
	}
	if err := rpctest.Bidi(t.Context(), t, chat).Send(nil); rpc.CodeOf(err) != rpc.CodeInvalidArgument {
		t.Errorf("Send(nil) is %v", err)
	}
}

// TestSendHeader: the header comes before the first message, once, and is that of then.
func TestSendHeader(t *testing.T) {
	goOn := make(chan struct{})
	errs := make(chan error, 2)
	r := rpctest.ServerStream(t.Context(), t, wrapperspb.String("x"), func(ctx context.Context, req *text, to *rpc.Sender[*text]) error {
		call := rpc.CallFromContext(ctx)
		call.ResponseHeader().Set("tenant", "acme")
		errs <- call.SendHeader()
		call.ResponseHeader().Set("late", "x")
		errs <- call.SendHeader()
		<-goOn
		return to.Send(req)
	})
	for range 2 {
		if h, err := r.Header(t.Context()); err != nil || h.Get("tenant") != "acme" || h.Get("late") != "" {
			t.Errorf("header %v, %v", h, err)
		}
	}
	must(t, <-errs)
	if err := <-errs; rpc.CodeOf(err) != rpc.CodeFailedPrecondition {
		t.Errorf("the second SendHeader is %v", err)
	}
	close(goOn)
	_, err := r.Recv()
	must(t, err)
}

// TestHeaderOfNothing: a client that waits for a header that does not come learns why.
func TestHeaderOfNothing(t *testing.T) {
	silent := func(ctx context.Context, _ *rpc.BidiStream[*text, *text]) error { <-ctx.Done(); return ctx.Err() }
	soon, cancel := context.WithCancel(t.Context())
	cancel()
	s := rpctest.Bidi(t.Context(), t, silent)
	if _, err := s.Header(soon); rpc.CodeOf(err) != rpc.CodeCanceled {
		t.Errorf("Header of a ctx that has ended is %v", err)
	}
	ctx, end := context.WithCancelCause(t.Context())
	s = rpctest.Bidi(ctx, t, func(context.Context, *rpc.BidiStream[*text, *text]) error { <-t.Context().Done(); return nil })
	end(errors.New("enough"))
	if _, err := s.Header(t.Context()); rpc.CodeOf(err) != rpc.CodeCanceled || !strings.Contains(err.Error(), "enough") {
		t.Errorf("Header of a stream that has ended is %v", err)
	}
}

// TestErrorsCross: a client finds in an error what it would find over NATS, and nothing that it
// wraps.
func TestErrorsCross(t *testing.T) {
	for _, err := range []error{
		rpc.Errorf(rpc.CodeNotFound, "nothing: %w", io.ErrUnexpectedEOF),
		fmt.Errorf("%w: %w", rpc.NewError(rpc.CodeNotFound, "nothing"), io.ErrUnexpectedEOF),
	} {
		s := rpctest.Bidi(t.Context(), t, func(context.Context, *rpc.BidiStream[*text, *text]) error { return err })
		_, got := s.Recv()
		var e *rpc.Error
		if !errors.As(got, &e) || e.Code() != rpc.CodeNotFound || !e.Remote() || e.Execution() != rpc.ExecutionDidRun ||
			errors.Is(got, io.ErrUnexpectedEOF) || e.Message() != "nothing: unexpected EOF" {
			t.Errorf("%v came as %v", err, got)
		}
	}
}

// TestStreamEnds: whatever ends a stream, both sides learn of it, also one that waits to send.
func TestStreamEnds(t *testing.T) {
	ended := make(chan error, 1)
	endless := func(ctx context.Context, with *rpc.BidiStream[*text, *text]) error {
		m := wrapperspb.String("x")
		for {
			if err := with.Send(m); err != nil {
				ended <- err
				return err
			}
		}
	}
	s := rpctest.Bidi(t.Context(), t, endless)
	_, err := s.Recv()
	must(t, err)
	s.Close()
	if err := <-ended; rpc.CodeOf(err) != rpc.CodeCanceled {
		t.Errorf("the handler's Send is %v", err)
	}
	if _, err := s.Recv(); rpc.CodeOf(err) != rpc.CodeCanceled {
		t.Errorf("Recv after Close is %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	s = rpctest.Bidi(ctx, t, endless)
	cancel()
	<-ended
	if err := s.Send(proto.Clone(wrapperspb.String("x")).(*text)); rpc.CodeOf(err) != rpc.CodeCanceled {
		t.Errorf("Send after the end of ctx is %v", err)
	}
	quick := rpctest.Bidi(t.Context(), t, func(context.Context, *rpc.BidiStream[*text, *text]) error { return errors.New("no") })
	if _, err := quick.Recv(); rpc.CodeOf(err) != rpc.CodeUnknown || !strings.Contains(err.Error(), "no") {
		t.Errorf("the end is %v", err)
	}
	if err := quick.Send(wrapperspb.String("x")); err != io.EOF {
		t.Errorf("Send after the server's end is %v", err)
	}
	rpctest.Bidi(t.Context(), t, chat) // is left alone: the test ends it
}
