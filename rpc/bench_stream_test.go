package rpc_test

import (
	"context"
	"strconv"
	"testing"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// BenchmarkServerStream measures messages one way, beside plain nats.go
// publish and subscribe, which has neither flow control nor loss detection.
func BenchmarkServerStream(b *testing.B) {
	for _, size := range []int{60, 16 << 10} {
		payload := string(make([]byte, size))
		b.Run(strconv.Itoa(size)+"/raw", func(b *testing.B) { benchRawStream(b, payload) })
		b.Run(strconv.Itoa(size)+"/natscall", func(b *testing.B) {
			srv := rpctest.NewServer(b)
			m := wrapperspb.String(payload)
			serve(b, srv.Connect(), &funcs{watch: func(_ context.Context, _ string, to *rpc.Sender[*text]) error {
				for range b.N {
					if err := to.Send(m); err != nil {
						return err
					}
				}
				return nil
			}})
			c := dial(b, srv.Connect())
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			r, err := watch(context.Background(), c, "x")
			must(b, err)
			got := 0
			for _, err := range r.All() {
				must(b, err)
				got++
			}
			if got != b.N {
				b.Fatalf("%d of %d messages came", got, b.N)
			}
		})
	}
}

// benchRawStream measures plain publish and subscribe.
func benchRawStream(b *testing.B, payload string) {
	srv := rpctest.NewServer(b)
	from, to := srv.Connect(), srv.Connect()
	done := make(chan struct{})
	got := 0
	sub, err := to.Subscribe("raw.stream", func(*nats.Msg) {
		if got++; got == b.N {
			close(done)
		}
	})
	must(b, err)
	must(b, sub.SetPendingLimits(-1, -1))
	must(b, to.Flush())
	b.SetBytes(int64(len(payload)))
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		must(b, from.Publish("raw.stream", []byte(payload)))
	}
	<-done
}

// BenchmarkClientStream measures messages the other way, likewise.
func BenchmarkClientStream(b *testing.B) {
	for _, size := range []int{60, 16 << 10} {
		payload := string(make([]byte, size))
		b.Run(strconv.Itoa(size)+"/raw", func(b *testing.B) { benchRawStream(b, payload) })
		b.Run(strconv.Itoa(size)+"/natscall", func(b *testing.B) {
			srv := rpctest.NewServer(b)
			serve(b, srv.Connect(), &funcs{gather: func(_ context.Context, from *rpc.Receiver[*text]) (string, error) {
				got, err := recvAll(from.Recv)
				return strconv.Itoa(got), err
			}})
			c, m := dial(b, srv.Connect()), wrapperspb.String(payload)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			b.ResetTimer()
			s, err := testGather.Call(context.Background(), c)
			must(b, err)
			for range b.N {
				must(b, s.Send(m))
			}
			res, err := s.CloseAndRecv()
			must(b, err)
			if got := res.GetValue(); got != strconv.Itoa(b.N) {
				b.Fatalf("%s of %d messages came", got, b.N)
			}
		})
	}
}

// BenchmarkPingPong measures a round trip on a stream beside a plain request.
func BenchmarkPingPong(b *testing.B) {
	b.Run("raw", func(b *testing.B) {
		srv := rpctest.NewServer(b)
		server, client := srv.Connect(), srv.Connect()
		_, err := server.Subscribe("raw.echo", func(m *nats.Msg) { _ = m.Respond(m.Data) })
		must(b, err)
		must(b, server.Flush())
		ctx := testContext(b) // RequestWithContext wants a deadline
		payload := make([]byte, 60)
		b.ReportAllocs()
		for b.Loop() {
			_, err := client.RequestWithContext(ctx, "raw.echo", payload)
			must(b, err)
		}
	})
	b.Run("natscall", func(b *testing.B) {
		srv := rpctest.NewServer(b)
		serve(b, srv.Connect(), &funcs{})
		s, err := testChat.Call(context.Background(), dial(b, srv.Connect()))
		must(b, err)
		m := wrapperspb.String(string(make([]byte, 60)))
		b.ReportAllocs()
		for b.Loop() {
			must(b, s.Send(m))
			_, err := s.Recv()
			must(b, err)
		}
		s.Close()
	})
}
