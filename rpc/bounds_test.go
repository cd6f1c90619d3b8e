package rpc_test

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

// flood is a handler that sends until it cannot, and reports how much and why.
type flood struct {
	bytes int
	err   error
	cause error
}

func flooding(ended chan<- flood) *funcs {
	return &funcs{watch: func(ctx context.Context, _ string, to *rpc.Sender[*text]) error {
		var f flood
		for ; f.err == nil; f.bytes += len(frameFiller) {
			f.err = to.Send(wrapperspb.String(frameFiller))
		}
		f.bytes -= len(frameFiller)
		f.cause = context.Cause(ctx)
		ended <- f
		return f.err
	}}
}

// TestAbsurdCredit: however much credit a peer grants, it gets a window before it is heard
// again, and then 16 MiB behind what it says.
func TestAbsurdCredit(t *testing.T) {
	const window, ahead = 1 << 20, 16 << 20
	for name, test := range map[string]struct {
		heartbeats int
		most       int
	}{
		"silent":     {0, window},
		"heard once": {1, window + ahead},
	} {
		t.Run(name, func(t *testing.T) {
			srv := rpctest.NewServer(t)
			ended := make(chan flood, 1)
			serve(t, srv.Connect(), flooding(ended), rpc.WithHeartbeat(beat))
			p := newPeer(t, srv.Connect())
			p.openWith("Watch", wire.Open{Credit: 1 << 62, Data: message(t, "x"), HalfClose: true})
			for range test.heartbeats {
				p.publish(p.frames, wire.AppendHeartbeat(nil, 0, 1<<62))
			}
			f := <-ended // as nothing comes from the peer
			wantCode(t, f.err, rpc.CodeUnavailable, rpc.ExecutionMayHaveRun)
			_, bytes, err := p.answers.Pending()
			must(t, err)
			if bytes > test.most+1<<18 || bytes < test.most/2 { // headers of frames; the last frame
				t.Errorf("the peer was sent %d bytes, want %d", bytes, test.most)
			}
		})
	}
}

// TestPlainStreamToNobody: a plain stream ends when its reader has gone, or was never there.
func TestPlainStreamToNobody(t *testing.T) {
	srv := rpctest.NewServer(t)
	ended := make(chan flood, 1)
	s := serve(t, srv.Connect(), flooding(ended), rpc.WithTimeout(time.Hour), rpc.WithPlainStreamLimits(0, 0))
	nc := srv.Connect()
	wantGone := func() {
		t.Helper()
		f := <-ended
		wantCode(t, f.err, rpc.CodeCanceled, rpc.ExecutionMayHaveRun)
		wantText(t, f.cause, "the caller has gone")
	}
	must(t, nc.PublishRequest(testRoot+".Watch", "nobody.listens", nil))
	wantGone()
	sub, err := nc.SubscribeSync(nc.NewInbox())
	must(t, err)
	must(t, sub.SetPendingLimits(-1, -1))
	must(t, nc.PublishRequest(testRoot+".Watch", sub.Subject, nil))
	for range 300 { // it is not taken for gone while it reads
		m, err := sub.NextMsg(20 * time.Second)
		must(t, err)
		if m.Header.Get("Nats-Service-Error-Code") != "" {
			t.Fatalf("it ended: %v", m.Header)
		}
	}
	must(t, sub.Unsubscribe())
	wantGone()
	until(t, "nothing is left", func() bool { return s.Open() == 0 })
}

// TestSlowPlainStreamToNobody: so does one that sends seldom.
func TestSlowPlainStreamToNobody(t *testing.T) { rpctest.Bubble(t, testSlowPlainStreamToNobody) }

func testSlowPlainStreamToNobody(t *testing.T, srv *rpctest.Server) {
	ended := make(chan error, 1)
	serve(t, srv.Connect(), &funcs{watch: func(ctx context.Context, _ string, to *rpc.Sender[*text]) error {
		tick := time.NewTicker(200 * time.Millisecond)
		defer tick.Stop()
		for {
			if err := to.Send(&text{}); err != nil {
				ended <- err
				return err
			}
			select {
			case <-tick.C:
			case <-ctx.Done():
			}
		}
	}}, rpc.WithTimeout(time.Hour))
	must(t, srv.Connect().PublishRequest(testRoot+".Watch", "nobody.listens", nil))
	wantCode(t, <-ended, rpc.CodeCanceled, rpc.ExecutionMayHaveRun)
}

// TestPlainStreamsToOtherAccounts: from where nobody says that the reader has gone, bytes
// and time are bounded, and with a 0 such streams are refused.
func TestPlainStreamsToOtherAccounts(t *testing.T) {
	for name, test := range map[string]struct {
		bytes int
		time  time.Duration
		code  rpc.Code
	}{
		"bytes":    {1 << 20, time.Hour, rpc.CodeResourceExhausted},
		"time":     {1 << 30, 50 * time.Millisecond, rpc.CodeDeadlineExceeded},
		"no bytes": {0, time.Hour, rpc.CodeUnimplemented},
		"no time":  {1 << 20, 0, rpc.CodeUnimplemented},
	} {
		t.Run(name, func(t *testing.T) {
			srv := importedService(t)
			ended := make(chan flood, 1)
			serve(t, srv.Connect(nats.UserInfo("svc", "x")), flooding(ended), rpc.WithTimeout(time.Hour), rpc.WithPlainStreamLimits(test.bytes, test.time))
			nc := srv.Connect(nats.UserInfo("app", "x"))
			sub, err := nc.SubscribeSync(nc.NewInbox())
			must(t, err)
			must(t, nc.PublishRequest("ext.test.v1.TestService.Watch", sub.Subject, nil))
			if test.code == rpc.CodeUnimplemented {
				m, err := sub.NextMsg(20 * time.Second)
				must(t, err)
				wantText(t, errorOf(m), "rpc.WithPlainStreamLimits")
				return
			}
			f := <-ended
			if rpc.CodeOf(f.err) != test.code || f.bytes > test.bytes {
				t.Errorf("%d bytes were sent, then %v", f.bytes, f.err)
			}
			if test.code == rpc.CodeResourceExhausted {
				wantText(t, f.err, "rpc.WithPlainStreamLimits")
			}
		})
	}
}

func errorOf(m *nats.Msg) error {
	return rpc.NewError(rpc.CodeUnknown, m.Header.Get("Nats-Service-Error"))
}
