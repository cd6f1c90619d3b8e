package rpc_test

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestLimitsByDirection: what a side sends and what it takes are bounded apart, in calls of all
// kinds.
func TestLimitsByDirection(t *testing.T) {
	const limit, large = 1000, 2000
	sends, receives := rpc.WithMaxSendSize(limit), rpc.WithMaxReceiveSize(limit)
	for _, test := range []struct {
		name              string
		client            []rpc.ClientOption
		server            []rpc.ServerOption
		request, response bool // is refused if it is large
	}{
		{"no limit", nil, nil, false, false},
		{"client sends", []rpc.ClientOption{sends}, nil, true, false},
		{"client receives", []rpc.ClientOption{receives}, nil, false, true},
		{"server sends", nil, []rpc.ServerOption{sends}, false, true},
		{"server receives", nil, []rpc.ServerOption{receives}, true, false},
		{"the last option counts", []rpc.ClientOption{rpc.WithMaxMessageSize(limit), rpc.WithMaxReceiveSize(large * 2)}, nil, true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			srv := rpctest.NewServer(t)
			serve(t, srv.Connect(), answersOfSize(), test.server...)
			c := dial(t, srv.Connect(), test.client...)
			for kind, call := range sizedCalls() {
				for _, opts := range [][]rpc.CallOption{nil, {rpc.WithCompression(rpc.CompressionZstd)}} {
					wantLimit(t, kind+", small", call(testContext(t), c, 10, 10, opts...), false)
					wantLimit(t, kind+", request", call(testContext(t), c, large, 10, opts...), test.request)
					wantLimit(t, kind+", response", call(testContext(t), c, 10, large, opts...), test.response)
				}
			}
		})
	}
}

// TestLimitsOfCalls: a call's own limits replace those of its client.
func TestLimitsOfCalls(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), answersOfSize())
	c := dial(t, srv.Connect(), rpc.WithMaxMessageSize(1000))
	for kind, call := range sizedCalls() {
		wantLimit(t, kind, call(testContext(t), c, 2000, 10), true)
		wantLimit(t, kind, call(testContext(t), c, 2000, 10, rpc.WithMaxSendSize(4000)), false)
		wantLimit(t, kind, call(testContext(t), c, 10, 2000, rpc.WithMaxSendSize(4000)), true)
		wantLimit(t, kind, call(testContext(t), c, 2000, 2000, rpc.WithMaxMessageSize(4000)), false)
	}
}

func wantLimit(t *testing.T, what string, err error, refused bool) {
	t.Helper()
	switch {
	case !refused && err != nil, refused && rpc.CodeOf(err) != rpc.CodeResourceExhausted:
		t.Errorf("%s: %v", what, err)
	case refused && !strings.Contains(err.Error(), "the limit"):
		t.Errorf("%s: %v does not name the limit", what, err)
	}
}

// answersOfSize answers a request "small" with a short text, any other with a long one, and a
// message of a stream likewise.
func answersOfSize() *funcs {
	return &funcs{
		do: func(_ context.Context, req string) (string, error) { return sized(req), nil },
		watch: func(_ context.Context, req string, to *rpc.Sender[*text]) error {
			return to.Send(wrapperspb.String(sized(req)))
		},
		gather: func(_ context.Context, from *rpc.Receiver[*text]) (string, error) {
			m, err := from.Recv()
			return sized(m.GetValue()), err
		},
		chat: func(_ context.Context, with *rpc.BidiStream[*text, *text]) error {
			m, err := with.Recv()
			if err != nil {
				return err
			}
			return with.Send(wrapperspb.String(sized(m.GetValue())))
		},
	}
}

// sized returns the response that a request asks for by its first letter.
func sized(req string) string {
	if strings.HasPrefix(req, "L") {
		return strings.Repeat("x", 2000)
	}
	return "x"
}

// sizedCalls returns a call of each kind, with a request and a response of about so many bytes.
func sizedCalls() map[string]func(ctx context.Context, c *rpc.Client, request, response int, opts ...rpc.CallOption) error {
	ask := func(request, response int) *text {
		first := "S"
		if response > 1000 {
			first = "L"
		}
		return wrapperspb.String(first + strings.Repeat("x", request))
	}
	return map[string]func(context.Context, *rpc.Client, int, int, ...rpc.CallOption) error{
		"unary": func(ctx context.Context, c *rpc.Client, request, response int, opts ...rpc.CallOption) error {
			_, err := testDo.Call(ctx, c, ask(request, response), opts...)
			return err
		},
		"server stream": func(ctx context.Context, c *rpc.Client, request, response int, opts ...rpc.CallOption) error {
			r, err := testWatch.Call(ctx, c, ask(request, response), opts...)
			if err != nil {
				return err
			}
			defer r.Close()
			_, err = r.Recv()
			return err
		},
		"client stream": func(ctx context.Context, c *rpc.Client, request, response int, opts ...rpc.CallOption) error {
			s, err := testGather.Call(ctx, c, opts...)
			if err != nil {
				return err
			}
			defer s.Close()
			if err := s.Send(ask(request, response)); err != nil {
				return err
			}
			_, err = s.CloseAndRecv()
			return err
		},
		"bidirectional": func(ctx context.Context, c *rpc.Client, request, response int, opts ...rpc.CallOption) error {
			s, err := testChat.Call(ctx, c, opts...)
			if err != nil {
				return err
			}
			defer s.Close()
			if err := s.Send(ask(request, response)); err != nil {
				return err
			}
			_, err = s.Recv()
			return err
		},
	}
}

// TestLimitsOfPlainStreams: a message to a plain reader is bounded by what the server sends.
func TestLimitsOfPlainStreams(t *testing.T) {
	for refused, opt := range map[bool]rpc.ServerOption{true: rpc.WithMaxSendSize(1000), false: rpc.WithMaxReceiveSize(1000)} {
		srv := rpctest.NewServer(t)
		sent := make(chan error, 1)
		serve(t, srv.Connect(), &funcs{watch: func(_ context.Context, req string, to *rpc.Sender[*text]) error {
			sent <- to.Send(wrapperspb.String(sized(req)))
			return nil
		}}, opt)
		askMany(t, srv.Connect(), encode(t, wrapperspb.String("L")), contentType("application/protobuf"))
		wantLimit(t, "plain stream", <-sent, refused)
	}
}
