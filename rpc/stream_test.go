package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// count sends as many messages as the request says, and then its error.
func count(_ context.Context, req string, to *rpc.Sender[*text]) error {
	n, fail, _ := strings.Cut(req, " ")
	max, err := strconv.Atoi(n)
	if err != nil {
		return rpc.Errorf(rpc.CodeInvalidArgument, "%w", err)
	}
	for i := range max {
		if err := to.Send(wrapperspb.String(strconv.Itoa(i))); err != nil {
			return err
		}
	}
	if fail != "" {
		return rpc.NewError(rpc.CodeAborted, fail, wrapperspb.String("detail"))
	}
	return nil
}

// wantCount receives what count sends, and returns the end of the stream.
func wantCount(r *rpc.Receiver[*text], n int) error {
	got := 0
	for m, err := range r.All() {
		if err != nil {
			if got != n {
				return fmt.Errorf("%w after %d of %d messages", err, got, n)
			}
			return err
		}
		if m.GetValue() != strconv.Itoa(got) {
			return fmt.Errorf("message %d is %q", got, m.GetValue())
		}
		got++
	}
	if got != n {
		return fmt.Errorf("a clean end after %d of %d messages", got, n)
	}
	return nil
}

func watch(ctx context.Context, c *rpc.Client, req string, opts ...rpc.CallOption) (*rpc.Receiver[*text], error) {
	return testWatch.Call(ctx, c, wrapperspb.String(req), opts...)
}

func TestServerStream(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{watch: count})
	for name, c := range map[string]*rpc.Client{"protobuf": dial(t, srv.Connect()), "json": dial(t, srv.Connect(), rpc.WithCodec(rpc.CodecJSON))} {
		for _, n := range []int{0, 1, 100, 50_000} {
			t.Run(fmt.Sprintf("%s %d", name, n), func(t *testing.T) {
				r, err := watch(testContext(t), c, strconv.Itoa(n))
				must(t, err)
				must(t, wantCount(r, n))
				if _, err := r.Recv(); err != io.EOF {
					t.Errorf("Recv after the end: %v", err)
				}
				r.Close()
				r, err = watch(testContext(t), c, strconv.Itoa(n)+" enough")
				must(t, err)
				e := wantCode(t, errors.Unwrap(fmt.Errorf("%w", wantCount(r, n))), rpc.CodeAborted, rpc.ExecutionDidRun)
				if e.Message() != "enough" || len(e.Details()) != 1 {
					t.Errorf("the status is %v, %d details", e, len(e.Details()))
				}
			})
		}
	}
}

func TestClientStream(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{})
	c := dial(t, srv.Connect())
	for _, n := range []int{0, 1, 100, 20_000} {
		s, err := testGather.Call(testContext(t), c)
		must(t, err)
		for range n {
			must(t, s.Send(wrapperspb.String("x")))
		}
		res, err := s.CloseAndRecv()
		if err != nil || len(res.GetValue()) != n {
			t.Fatalf("%d messages: %d came, %v", n, len(res.GetValue()), err)
		}
	}
}

func TestBidi(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{})
	c := dial(t, srv.Connect())
	s, err := testChat.Call(testContext(t), c)
	must(t, err)
	for i := range 1000 { // ping-pong
		must(t, s.Send(wrapperspb.String(strconv.Itoa(i))))
		m, err := s.Recv()
		if err != nil || m.GetValue() != strconv.Itoa(i) {
			t.Fatalf("ping %d: %v, %v", i, m, err)
		}
	}
	s.CloseSend()
	s.CloseSend()
	if _, err := s.Recv(); err != io.EOF {
		t.Fatalf("at the end: %v", err)
	}
	if err := s.Send(wrapperspb.String("late")); err != io.EOF {
		t.Errorf("Send after the end: %v", err)
	}
	s.Close()
}

func TestStreamMetadata(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{watch: func(ctx context.Context, req string, to *rpc.Sender[*text]) error {
		call := rpc.CallFromContext(ctx)
		call.ResponseHeader().Set("tenant", call.Header().Get("tenant"))
		err := count(ctx, req, to)
		call.ResponseTrailer().Set("rows", "3")
		return err
	}})
	c := dial(t, srv.Connect())
	for _, req := range []string{"0", "3", "3 fail", "0 fail"} {
		r, err := watch(testContext(t), c, req, rpc.WithHeader("tenant", "acme"))
		must(t, err)
		if req[0] == '3' {
			_, err = r.Recv()
			must(t, err)
			wantHeader(t, r, rpc.Header{"tenant": {"acme"}})
		}
		for range r.All() {
		}
		wantHeader(t, r, rpc.Header{"tenant": {"acme"}})
		if diff := cmp.Diff(rpc.Header{"rows": {"3"}}, r.Trailer()); diff != "" {
			t.Errorf("%q: %s", req, diff)
		}
	}
}

// TestStreamCancel: the handler's context ends with the stream of the caller, however that ends.
func TestStreamCancel(t *testing.T) {
	srv := rpctest.NewServer(t)
	ended := make(chan error, 1)
	serve(t, srv.Connect(), &funcs{watch: func(ctx context.Context, _ string, to *rpc.Sender[*text]) error {
		must(t, to.Send(wrapperspb.String("x")))
		<-ctx.Done()
		ended <- ctx.Err()
		return ctx.Err()
	}})
	c := dial(t, srv.Connect())
	for name, end := range map[string]func(cancel func(), r *rpc.Receiver[*text]){
		"context": func(cancel func(), _ *rpc.Receiver[*text]) { cancel() },
		"Close":   func(_ func(), r *rpc.Receiver[*text]) { r.Close() },
	} {
		ctx, cancel := context.WithCancel(testContext(t))
		r, err := watch(ctx, c, "x")
		must(t, err)
		_, err = r.Recv()
		must(t, err)
		end(cancel, r)
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("%s: the handler's context ended with %v", name, err)
		}
		_, err = r.Recv()
		wantCode(t, err, rpc.CodeCanceled, rpc.ExecutionMayHaveRun)
		cancel()
	}
}

func TestLargeUnary(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{})
	c := dial(t, srv.Connect())
	for _, size := range []int{0, 1, 1<<20 - 40, 1<<20 - 20, 1<<20 - 1, 1 << 20, 1<<20 + 1, 5 << 20, 16<<20 - 5} {
		in := make([]byte, size)
		for i := range in {
			in[i] = byte(i * 7)
		}
		res, err := testBlob.Call(testContext(t), c, wrapperspb.Bytes(in))
		if err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
		if string(in) != string(res.GetValue()) {
			t.Fatalf("%d bytes came back changed", size)
		}
	}
	_, err := testBlob.Call(testContext(t), c, wrapperspb.Bytes(make([]byte, 16<<20)))
	wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionNotRun)
}

// TestLargeWithMetadata: headers count against max_payload too.
func TestLargeWithMetadata(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{blob: func(ctx context.Context, in []byte) ([]byte, error) {
		call := rpc.CallFromContext(ctx)
		call.ResponseHeader().Set("echo", call.Header().Get("note"))
		return in, nil
	}})
	c := dial(t, srv.Connect())
	note := strings.Repeat("n", 1000)
	for size := 1<<20 - 2100; size < 1<<20; size += 50 {
		var h rpc.Header
		res, err := testBlob.Call(testContext(t), c, wrapperspb.Bytes(make([]byte, size)), rpc.WithHeader("note", note), rpc.ResponseHeader(&h))
		if err != nil || len(res.GetValue()) != size || h.Get("echo") != note {
			t.Fatalf("%d bytes: %d came, %v", size, len(res.GetValue()), err)
		}
	}
}
