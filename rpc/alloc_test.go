//go:build !race

package rpc_test

import (
	"context"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// The tests here fail when a hot path allocates more than it does now: in
// client, server, nats.go on both sides and the NATS server, together. The
// race detector changes the counts, so `make test` runs them without it.

// wantAllocations counts the allocations of f, which does n times what is
// looked at. What is shared, such as a frame, counts only where each has to pay
// for one of its own. An excess that does not stay is that of a timer, or of the scheduler.
func wantAllocations(t *testing.T, limit, n int, f func()) {
	t.Helper()
	f()
	var got float64
	for range 3 {
		got = testing.AllocsPerRun(max(20, 2000/n), f) / float64(n)
		if int(got) <= limit {
			t.Logf("%.2f allocations, the limit is %d", got, limit)
			return
		}
	}
	t.Errorf("%.2f allocations, the limit is %d", got, limit)
}

// batch is how many messages go through a stream, or to a one-way method, at
// once: enough that what they wait for at its end does not count.
const batch = 1000

func TestUnaryAllocations(t *testing.T) {
	pass := func(ctx context.Context, call *rpc.Call, next rpc.Next) error { return next(ctx, call) }
	nothing := func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.OnSend(func(*rpc.Message) error { return nil })
		call.OnSent(func(*rpc.Message, error) {})
		call.OnReceive(func(*rpc.Message) error { return nil })
		call.OnAttempt(func(*rpc.Attempt) error { return nil })
		call.OnEnd(func(error) {})
		return next(ctx, call)
	}
	for _, test := range []struct {
		name   string
		client []rpc.ClientOption
		server []rpc.ServerOption
		size   int
		limit  int
	}{
		{"bare", nil, nil, 60, 18},
		{"empty chains of interceptors", []rpc.ClientOption{rpc.WithInterceptors()}, []rpc.ServerOption{rpc.WithInterceptors()}, 60, 18},
		{"an interceptor on the server", nil, []rpc.ServerOption{rpc.WithInterceptors(pass)}, 60, 18},
		{"an interceptor on the client", []rpc.ClientOption{rpc.WithInterceptors(pass)}, nil, 60, 19},
		{"all hooks on the server", nil, []rpc.ServerOption{rpc.WithInterceptors(nothing)}, 60, 19},
		// One of these is the attempt.
		{"all hooks on the client", []rpc.ClientOption{rpc.WithInterceptors(nothing)}, nil, 60, 21},
		{"a retry policy", []rpc.ClientOption{
			rpc.WithRetryBudget(10, 0.1), rpc.WithMaxAttempts(3), rpc.WithBackoff(1, 2), rpc.WithRetryCodes(rpc.CodeAborted),
			rpc.WithMethodOptions("/test.v1.TestService/Blob", rpc.WithMaxAttempts(2)),
		}, nil, 60, 18},
		{"4 KiB", nil, nil, 4 << 10, 20}, // a field that is set by reflection, on either side
	} {
		t.Run(test.name, func(t *testing.T) {
			srv := rpctest.NewServer(t) // not in process: its pipe allocates
			serve(t, srv.Connect(), &funcs{}, test.server...)
			c := dial(t, srv.Connect(), test.client...)
			ctx := testContext(t)
			req := wrapperspb.Bytes(make([]byte, test.size))
			wantAllocations(t, test.limit, 1, func() {
				if _, err := testBlob.Call(ctx, c, req); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

func TestOneWayAllocations(t *testing.T) {
	srv := rpctest.NewServer(t)
	came, got := make(chan struct{}), 0
	serve(t, srv.Connect(), &funcs{note: func(context.Context, *structpb.Struct) error {
		if got++; got%batch == 0 {
			came <- struct{}{}
		}
		return nil
	}}, rpc.WithMaxConcurrency(1), rpc.WithMaxQueue(2*batch))
	c := dial(t, srv.Connect())
	ctx, note := testContext(t), new(structpb.Struct)
	wantAllocations(t, 5, batch, func() {
		for range batch {
			if err := testNote.Call(ctx, c, note); err != nil {
				t.Fatal(err)
			}
		}
		<-came
	})
}

func TestServerStreamAllocations(t *testing.T) {
	for _, test := range []struct {
		name        string
		size, limit int
	}{
		{"messages that share frames", 60, 2},
		{"messages with frames of their own", 16 << 10, 6},
	} {
		t.Run(test.name, func(t *testing.T) {
			srv := rpctest.NewServer(t)
			more := make(chan struct{})
			m := wrapperspb.String(string(make([]byte, test.size)))
			serve(t, srv.Connect(), &funcs{watch: func(_ context.Context, _ string, to *rpc.Sender[*text]) error {
				for range more {
					for range batch {
						if err := to.Send(m); err != nil {
							return err
						}
					}
				}
				return nil
			}})
			r, err := watch(testContext(t), dial(t, srv.Connect()), "x")
			must(t, err)
			wantAllocations(t, test.limit, batch, func() {
				more <- struct{}{}
				for range batch {
					if _, err := r.Recv(); err != nil {
						t.Fatal(err)
					}
				}
			})
			close(more)
		})
	}
}

func TestClientStreamAllocations(t *testing.T) {
	srv := rpctest.NewServer(t)
	came := make(chan struct{})
	serve(t, srv.Connect(), &funcs{gather: func(_ context.Context, from *rpc.Receiver[*text]) (string, error) {
		for got := 1; ; got++ {
			if _, err := from.Recv(); err != nil {
				return "", nil
			}
			if got%batch == 0 {
				came <- struct{}{}
			}
		}
	}})
	s, err := testGather.Call(testContext(t), dial(t, srv.Connect()))
	must(t, err)
	m := wrapperspb.String(string(make([]byte, 60)))
	wantAllocations(t, 2, batch, func() {
		for range batch {
			if err := s.Send(m); err != nil {
				t.Fatal(err)
			}
		}
		<-came
	})
	s.Close()
}

func TestPingPongAllocations(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{})
	s, err := testChat.Call(testContext(t), dial(t, srv.Connect()))
	must(t, err)
	m := wrapperspb.String(string(make([]byte, 60)))
	wantAllocations(t, 18, 1, func() {
		if err := s.Send(m); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
	})
	s.Close()
}

// TestDecodingAllocations counts the message, its string, and what sets the large field.
func TestDecodingAllocations(t *testing.T) {
	value := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), make([]byte, 64<<10))
	named := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte("type"))
	for _, test := range []struct {
		name  string
		data  []byte
		make  func() proto.Message
		limit int
	}{
		{"nothing", nil, func() proto.Message { return new(emptypb.Empty) }, 1},
		{"large field alone", value, func() proto.Message { return new(anypb.Any) }, 2},
		{"large field and a small one", append(named, value...), func() proto.Message { return new(anypb.Any) }, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			wantAllocations(t, test.limit, 1, func() {
				if err := rpc.UnmarshalResponse(test.data, test.make()); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}
