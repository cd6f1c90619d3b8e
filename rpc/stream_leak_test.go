package rpc_test

import (
	"context"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestStreamsLeaveNothing: 10,000 streams end at random points, by all who can
// end them, and no table entry, subscription, memory or (rpctest looks) goroutine is left.
func TestStreamsLeaveNothing(t *testing.T) {
	srv := rpctest.NewServer(t)
	serverNC, clientNC := srv.Connect(), srv.Connect()
	s := serve(t, serverNC, &funcs{watch: func(ctx context.Context, req string, to *rpc.Sender[*text]) error {
		if err := count(ctx, "5", to); err != nil || req == "end" {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}})
	c := dial(t, clientNC)
	must(t, abandon(testContext(t), c, 0)) // makes the client's subscription
	subs := serverNC.NumSubscriptions() + clientNC.NumSubscriptions()
	before := heap()
	each(t, 50, func(worker int) error {
		for i := range 200 {
			if err := abandon(testContext(t), c, uint64(worker*200+i)); err != nil {
				return err
			}
		}
		return nil
	})
	until(t, "all streams are gone", func() bool { return c.OpenStreams() == 0 && s.Open() == 0 })
	if n := serverNC.NumSubscriptions() + clientNC.NumSubscriptions(); n != subs {
		t.Errorf("%d subscriptions, before that %d", n, subs)
	}
	if grown := heap() - before; grown > 16<<20 { // parked goroutines, buffers of the connections
		t.Errorf("%d bytes are left", grown)
	}
}

// abandon opens a stream and ends it at a point that seed decides.
func abandon(ctx context.Context, c *rpc.Client, seed uint64) error {
	rnd := rand.New(rand.NewPCG(seed, 3))
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	how := rnd.IntN(4)
	if how == 0 {
		// This may happen while it opens.
		time.AfterFunc(time.Duration(rnd.IntN(2000))*time.Microsecond, cancel)
	}
	if how == 1 {
		return chatAndClose(ctx, c, rnd.IntN(4))
	}
	req := []string{"end", "wait"}[rnd.IntN(2)]
	r, err := watch(ctx, c, req)
	for range rnd.IntN(6) {
		if err == nil {
			_, err = r.Recv()
		}
	}
	switch {
	case how > 1 && err != nil:
		return err
	case how == 2:
		r.Close()
	}
	return nil // and cancel
}

func chatAndClose(ctx context.Context, c *rpc.Client, messages int) error {
	s, err := testChat.Call(ctx, c)
	if err != nil {
		return err
	}
	defer s.Close()
	for range messages {
		if err := s.Send(wrapperspb.String("x")); err != nil {
			return err
		}
	}
	if messages == 2 {
		s.CloseSend()
	}
	return nil
}

// delivered is how many messages NATS has delivered to each connection.
func delivered(t *testing.T, srv *rpctest.Server, conns []*nats.Conn) []int64 {
	t.Helper()
	z, err := srv.NATS().Connz(&server.ConnzOptions{})
	must(t, err)
	counts := make([]int64, len(conns))
	for i, nc := range conns {
		id, err := nc.GetClientID()
		must(t, err)
		for _, info := range z.Conns {
			if info.Cid == id {
				counts[i] = info.OutMsgs
			}
		}
	}
	return counts
}

// TestOneReplicaGetsTheFrames, counted by the NATS server.
func TestOneReplicaGetsTheFrames(t *testing.T) {
	srv := rpctest.NewServer(t)
	var replicas []*nats.Conn
	for range 3 {
		nc := srv.Connect()
		serve(t, nc, &funcs{gather: func(_ context.Context, from *rpc.Receiver[*text]) (string, error) {
			if err := recvFaulty(from.Recv); err != io.EOF {
				return "", err
			}
			return "", nil // a long response would take more credit: one message more
		}})
		replicas = append(replicas, nc)
	}
	c := dial(t, srv.Connect())
	for range 10 {
		before := delivered(t, srv, replicas)
		s, err := testGather.Call(testContext(t), c)
		must(t, err)
		must(t, sendFaulty(s.Send)) // a frame each
		_, err = s.CloseAndRecv()
		must(t, err)
		got := delivered(t, srv, replicas)
		for i := range got {
			got[i] -= before[i]
		}
		slices.Sort(got)
		if want := []int64{0, 0, 1 + faultyMessages + 1}; !slices.Equal(got, want) {
			t.Fatalf("the replicas got %v messages, want %v: an open, the frames, the end", got, want)
		}
	}
}
