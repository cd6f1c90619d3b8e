package rpc_test

import (
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/flow"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

// hostileServer answers an open by hand.
type hostileServer struct {
	t  *testing.T
	nc *nats.Conn
	m  *nats.Msg
	id wire.ID
}

func (s *hostileServer) send(data []byte) {
	if err := s.nc.Publish(s.m.Reply, data); err != nil {
		s.t.Error(err)
	}
}

func (s *hostileServer) accept(instance string) {
	s.send(wire.AppendAccept(nil, s.id, 1<<20, instance))
}

func (s *hostileServer) frame(kind wire.Kind, number uint64, body ...byte) {
	s.send(append(wire.AppendFrame(nil, kind, number), body...))
}

// finish sends what makes a clean stream of a message.
func (s *hostileServer) finish() {
	s.frame(wire.KindData, 0, message(s.t, "x")...)
	s.frame(wire.KindEnd, 1)
}

func TestHostileServer(t *testing.T) {
	accepted := func(f func(s *hostileServer)) func(*hostileServer) {
		return func(s *hostileServer) { s.accept("ABC"); f(s) }
	}
	data := func(number uint64, body ...byte) func(*hostileServer) {
		return accepted(func(s *hostileServer) { s.frame(wire.KindData, number, body...) })
	}
	end := func(body ...byte) func(*hostileServer) {
		return accepted(func(s *hostileServer) { s.frame(wire.KindEnd, 0, body...) })
	}
	tests := []struct {
		name string
		act  func(s *hostileServer)
		want rpc.Code
	}{
		{"clean", accepted((*hostileServer).finish), rpc.CodeOK},
		{"silence", func(*hostileServer) {}, rpc.CodeUnavailable},
		{"instance with a dot", func(s *hostileServer) { s.accept("a.b") }, rpc.CodeInternal},
		{"wildcard instance", func(s *hostileServer) { s.accept(">") }, rpc.CodeInternal},
		{"long instance", func(s *hostileServer) { s.accept(strings.Repeat("x", 5000)) }, rpc.CodeInternal},
		{"no instance", func(s *hostileServer) { s.accept("") }, rpc.CodeInternal},
		{"foreign id", func(s *hostileServer) { s.send(wire.AppendAccept(nil, wire.NewID(), 0, "ABC")) }, rpc.CodeUnavailable},
		{"foreign refusal", func(s *hostileServer) { s.send(wire.AppendResponse(nil, wire.NewID(), 0, wire.FlagError)) }, rpc.CodeUnavailable},
		{"response", func(s *hostileServer) { s.send(wire.AppendResponse(nil, s.id, 0, 0)) }, rpc.CodeInternal},
		{"garbage, then accept", func(s *hostileServer) {
			s.send([]byte{0, 1, 2})
			s.send([]byte("x"))
			s.send(nil)
			s.accept("ABC")
			s.finish()
		}, rpc.CodeOK},
		{"second accept", accepted(func(s *hostileServer) { s.accept("DEF"); s.finish() }), rpc.CodeOK},
		{"cancel", accepted(func(s *hostileServer) { s.frame(wire.KindStreamCancel, 0); s.finish() }), rpc.CodeOK},
		{"after the end", accepted(func(s *hostileServer) { s.finish(); s.frame(wire.KindData, 2, 1); s.send([]byte("x")) }), rpc.CodeOK},
		{"forged ids", accepted((*hostileServer).forge), rpc.CodeOK},
		{"headers", accepted((*hostileServer).headers), rpc.CodeOK},
		{"garbage status", end(0xff, 0xff), rpc.CodeInternal},
		{"status without a code", end(0x12, 1, 'x'), rpc.CodeInternal},
		{"gap", data(1, 1), rpc.CodeDataLoss},
		{"partial message", accepted(func(s *hostileServer) { s.frame(wire.KindData, 0, 0, 0); s.frame(wire.KindEnd, 1) }), rpc.CodeDataLoss},
		{"the empty message, but no end", accepted(func(s *hostileServer) { s.send(nil) }), rpc.CodeDataLoss},
		{"no body", data(0), rpc.CodeInternal},
		{"absurd length", data(0, 0, 0xff, 0xff, 0xff, 0xff), rpc.CodeResourceExhausted},
		{"message flags", data(0, 2, 0, 0, 0, 0), rpc.CodeInternal},
		{"no message", data(0, 0, 0, 0, 0, 1, 0xff), rpc.CodeInternal},
		{"more than the credit", accepted((*hostileServer).flood), rpc.CodeInternal},
		{"a frame without a number", accepted(func(s *hostileServer) { s.send([]byte("\x00\x01\x11\x00")) }), rpc.CodeInternal},
		{"nothing of ours", accepted(func(s *hostileServer) { s.send([]byte(`{"stream":"S","seq":1}`)) }), rpc.CodeUnavailable},
	}
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) { o.MaxPayload = 4 << 20 }))
	nc := srv.Connect()
	c := dial(t, srv.Connect(), rpc.WithHeartbeat(300*time.Millisecond), rpc.WithoutRetry())
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			sub, err := nc.Subscribe(testRoot+".Watch", func(m *nats.Msg) {
				e, _ := wire.Parse(m.Data)
				test.act(&hostileServer{t, nc, m, e.ID})
			})
			must(t, err)
			// Without a listener a heartbeat is answered with 503.
			sink, err := nc.Subscribe(testRoot+"._i.>", func(*nats.Msg) {})
			must(t, err)
			must(t, nc.Flush())
			started := time.Now()
			n, err := hostileRecv(t, c)
			if rpc.CodeOf(err) != test.want || err == nil && n != 1 {
				t.Errorf("%d messages, %v; want %v", n, err, test.want)
			}
			if took := time.Since(started); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			must(t, sub.Unsubscribe())
			must(t, sink.Unsubscribe())
		})
	}
}

func hostileRecv(t *testing.T, c *rpc.Client) (int, error) {
	r, err := watch(testContext(t), c, "1")
	if err != nil {
		return 0, err
	}
	return recvAll(r.Recv)
}

// forge sends to all kinds of subjects of the client's inbox.
func (s *hostileServer) forge() {
	inbox := s.m.Reply[:strings.LastIndexByte(s.m.Reply, '.')+1]
	for _, token := range []string{"s", "s-", "szz-1", "s" + wire.NewID().String() + "-1", "0-0", "99999999999-0", "-1-0", "x", "alive"} {
		for _, data := range [][]byte{nil, {0}, []byte("x"), wire.AppendFrame(nil, wire.KindEnd, 0), wire.AppendAccept(nil, s.id, 0, "X")} {
			if err := s.nc.Publish(inbox+token, data); err != nil {
				s.t.Error(err)
			}
		}
	}
	s.finish()
}

func (s *hostileServer) headers() {
	m := nats.Msg{Subject: s.m.Reply, Header: nats.Header{"X": {strings.Repeat("x", 900<<10)}}}
	m.Data = append(wire.AppendFrame(nil, wire.KindData, 0), message(s.t, "x")...)
	if err := s.nc.PublishMsg(&m); err != nil {
		s.t.Error(err)
	}
	s.frame(wire.KindEnd, 1)
}

func (s *hostileServer) flood() {
	s.frame(wire.KindData, 0, append(wire.AppendMessagePrefix(nil, 8<<20), make([]byte, flow.Window)...)...)
}
