package rpc_test

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestManyCallsInFlight: as many calls wait at once, on one connection on
// either side, and each gets its own answer. They wait in the server's queue,
// where one costs less than a goroutine.
func TestManyCallsInFlight(t *testing.T) {
	srv := rpctest.NewServer(t)
	goOn := make(chan struct{})
	s := serve(t, srv.Connect(), &funcs{do: func(ctx context.Context, in string) (string, error) {
		<-goOn
		return answerTo(in), nil
	}}, rpc.WithMaxConcurrency(4), rpc.WithMaxQueue(2*callsInFlight))
	c := dial(t, srv.Connect())
	ctx := longContext(t)
	results := make(chan error, callsInFlight)
	for i := range callsInFlight {
		go func() { results <- wantAnswer(ctx, c, strconv.Itoa(i)) }()
	}
	awaitOpen(t, s, callsInFlight, results)
	if all, free := c.Waiters(); all < callsInFlight || free > all-callsInFlight {
		t.Errorf("%d waiters, %d of them free, for %d calls", all, free, callsInFlight)
	}
	before := heap()
	close(goOn)
	for range callsInFlight {
		must(t, <-results)
	}
	until(t, "all calls are gone", func() bool { return s.Open() == 0 })
	t.Logf("%d bytes a call", before/callsInFlight)
}

// awaitOpen waits until a server has so many calls, or streams. A result that
// comes before is that of a call that should have waited.
func awaitOpen(t *testing.T, s *rpc.Server, n int, results <-chan error) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond) // to look costs as much as there are
	defer ticker.Stop()
	for s.Open() < n {
		select {
		case err := <-results:
			t.Fatalf("a call ended with %v, while %d of %d were in flight", err, s.Open(), n)
		case <-ticker.C:
		}
	}
}

// TestManyOpenStreams: as many streams are open at once, on one connection on
// either side; each does a round trip while all are, and nothing is left of them.
func TestManyOpenStreams(t *testing.T) {
	const openers = 100 // at once
	srv := rpctest.NewServer(t)
	s := serve(t, srv.Connect(), &funcs{}, rpc.WithMaxStreams(2*streamsOpen))
	c := dial(t, srv.Connect())
	ctx := longContext(t)
	streams := make([]*rpc.BidiStream[*text, *text], streamsOpen)
	forAll := func(f func(i int) error) {
		t.Helper()
		each(t, openers, func(opener int) error {
			for i := opener; i < streamsOpen; i += openers {
				if err := f(i); err != nil {
					return fmt.Errorf("stream %d: %w", i, err)
				}
			}
			return nil
		})
	}
	forAll(func(i int) (err error) {
		streams[i], err = testChat.Call(ctx, c)
		return err
	})
	if onServer, onClient := s.Open(), c.OpenStreams(); onServer != 2*streamsOpen || onClient != streamsOpen {
		t.Fatalf("of %d streams the server has %d with their calls, the client %d", streamsOpen, onServer, onClient)
	}
	forAll(func(i int) error {
		if err := streams[i].Send(wrapperspb.String(strconv.Itoa(i))); err != nil {
			return err
		}
		m, err := streams[i].Recv()
		if err == nil && m.GetValue() != strconv.Itoa(i) {
			err = fmt.Errorf("got %q", m.GetValue())
		}
		return err
	})
	t.Logf("%d bytes a stream", heap()/streamsOpen)
	forAll(func(i int) error {
		streams[i].CloseSend()
		if _, err := streams[i].Recv(); err != io.EOF {
			return fmt.Errorf("the end is %w", err)
		}
		return nil
	})
	until(t, "all streams are gone", func() bool { return s.Open() == 0 && c.OpenStreams() == 0 })
}

// longContext is testContext for tests of very many calls: no machine is that slow.
func longContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	t.Cleanup(cancel)
	return ctx
}
