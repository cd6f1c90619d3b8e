package rpc

import (
	"context"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// TestLateRequestIsRefused: a request that reaches an instance which has stopped is refused in
// such a way that the caller sends it again, in each form.
func TestLateRequestIsRefused(t *testing.T) {
	nc := connectInside(t)
	s := NewServer(nc)
	svc, err := newService(s, &ServiceDesc{Name: "test.v1.Late", MicroName: "Late", Version: "1.0.0"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	desc := svc.desc
	run := func(context.Context, *Call) error { t.Error("it ran"); return nil }
	unary := NewUnaryMethod[emptypb.Empty, emptypb.Empty](desc, MethodDesc{Name: "Do"})
	stream := NewServerStreamMethod[emptypb.Empty, emptypb.Empty](desc, MethodDesc{Name: "Watch"})
	svc.addEndpoint(&unary.method, run)
	svc.addEndpoint(&stream.method, run)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, err := range []error{s.add(svc), s.Start(ctx), s.Shutdown(ctx)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	replies, err := nc.SubscribeSync("reply")
	if err != nil {
		t.Fatal(err)
	}
	id := wire.NewID()
	for name, late := range map[string]struct {
		endpoint int
		body     []byte
	}{
		"unary":  {0, wire.AppendRequest(nil, id, 0, 0)},
		"plain":  {0, nil},
		"stream": {1, wire.AppendOpen(nil, id, 0, 0, wire.Open{Credit: 1, HalfClose: true})},
	} {
		svc.endpoints[late.endpoint].receive(&nats.Msg{Subject: "x", Reply: "reply", Data: late.body})
		m, err := replies.NextMsg(20 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		x := wire.ExecutionOf(m.Header)
		if e, err := wire.Parse(m.Data); err == nil {
			x = e.Flags.Execution()
		}
		if code := m.Header.Get("Nats-Service-Error-Code"); code != "14" || x != wire.Refused {
			t.Errorf("%s: it is answered with code %s, execution %d", name, code, x)
		}
	}
}
