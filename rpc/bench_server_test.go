package rpc_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

// BenchmarkDispatch measures the server alone: requests of many callers, made
// and answered by a client that does nothing else, beside a callback that
// responds. At most 256 are on their way.
func BenchmarkDispatch(b *testing.B) {
	message, err := proto.Marshal(wrapperspb.Bytes(make([]byte, 60)))
	must(b, err)
	request := func(buf []byte) []byte {
		return append(wire.AppendRequest(buf, wire.NewID(), wire.CodecProto, time.Minute), message...)
	}
	for _, p := range []struct {
		name   string
		listen func(b *testing.B, nc *nats.Conn)
	}{
		{"raw", func(b *testing.B, nc *nats.Conn) {
			_, err := nc.QueueSubscribe(testRoot+".Blob", "q", func(m *nats.Msg) { _ = m.Respond(m.Data) })
			must(b, err)
		}},
		{"natscall", func(b *testing.B, nc *nats.Conn) { serve(b, nc, &funcs{}) }},
	} {
		b.Run(p.name, func(b *testing.B) {
			srv := rpctest.NewServer(b)
			server, client := srv.Connect(), srv.Connect()
			p.listen(b, server)
			room, done := make(chan struct{}, 256), make(chan struct{})
			got := 0
			_, err := client.Subscribe("answers", func(*nats.Msg) {
				<-room
				if got++; got == b.N {
					close(done)
				}
			})
			must(b, err)
			must(b, server.Flush())
			must(b, client.Flush())
			var buf []byte
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				room <- struct{}{}
				buf = request(buf[:0])
				must(b, client.PublishRequest(testRoot+".Blob", "answers", buf))
			}
			<-done
		})
	}
}

// The service of BenchmarkOneWay: an event of bytes.
var (
	eventDesc = rpc.ServiceDesc{Name: "test.v1.EventService", MicroName: "EventService", Version: "1.0.0"}
	event     = rpc.NewOneWayMethod[bytes](&eventDesc, rpc.MethodDesc{Name: "Event"})
)

type eventHandler func()

func (f eventHandler) Event(context.Context, *bytes) error {
	f()
	return nil
}

// BenchmarkOneWay measures events beside plain publish and subscribe.
func BenchmarkOneWay(b *testing.B) {
	payload := make([]byte, 60)
	b.Run("raw", func(b *testing.B) { benchRawStream(b, string(payload)) })
	b.Run("natscall", func(b *testing.B) {
		srv := rpctest.NewServer(b)
		done, got := make(chan struct{}), 0
		s := rpc.NewServer(srv.Connect(), rpc.WithLogger(slog.New(slog.DiscardHandler)), rpc.WithMaxConcurrency(1), rpc.WithMaxQueue(b.N))
		must(b, rpc.Register(s, &eventDesc, eventHandler(func() {
			if got++; got == b.N {
				close(done)
			}
		}), nil, rpc.HandleOneWay(event, eventHandler.Event)))
		must(b, s.Start(testContext(b)))
		b.Cleanup(func() { shutdown(b, s) })
		c, ctx, m := dial(b, srv.Connect()), context.Background(), wrapperspb.Bytes(payload)
		b.SetBytes(int64(len(payload)))
		b.ReportAllocs()
		b.ResetTimer()
		for range b.N {
			must(b, event.Call(ctx, c, m))
		}
		<-done
	})
}
