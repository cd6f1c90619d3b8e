package rpc_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc/rpctest"
)

// BenchmarkUnary measures a call of 60 bytes from 1 and 64 callers beside what
// a user would write by hand: nats.go with bytes, and micro with Protobuf.
// One process and an embedded NATS server: read the ratios, not the times.
func BenchmarkUnary(b *testing.B) { benchUnary(b, 60) }

// BenchmarkUnary4KiB is the same with messages that are worth not to be copied.
func BenchmarkUnary4KiB(b *testing.B) { benchUnary(b, 4<<10) }

func benchUnary(b *testing.B, size int) {
	payload := make([]byte, size)
	for i := range payload {
		payload[i] = 'x'
	}
	peers := []struct {
		name  string
		setup func(b *testing.B, server, client *nats.Conn) (call func(context.Context) error)
	}{
		{"raw", func(b *testing.B, server, client *nats.Conn) func(context.Context) error {
			return plainEcho(b, server, client, payload)
		}},
		{"micro", func(b *testing.B, server, client *nats.Conn) func(context.Context) error {
			svc, err := micro.AddService(server, micro.Config{Name: "echo", Version: "1.0.0"})
			must(b, err)
			b.Cleanup(func() { _ = svc.Stop() })
			must(b, svc.AddEndpoint("echo", micro.HandlerFunc(func(r micro.Request) {
				req := new(wrapperspb.BytesValue)
				_ = proto.Unmarshal(r.Data(), req)
				data, _ := proto.Marshal(req)
				_ = r.Respond(data)
			})))
			return func(ctx context.Context) error {
				data, _ := proto.Marshal(wrapperspb.Bytes(payload))
				m, err := client.RequestWithContext(ctx, "echo", data)
				if err != nil {
					return err
				}
				return proto.Unmarshal(m.Data, new(wrapperspb.BytesValue))
			}
		}},
		{"natscall", func(b *testing.B, server, client *nats.Conn) func(context.Context) error {
			serve(b, server, &funcs{})
			c := dial(b, client)
			return func(ctx context.Context) error {
				_, err := testBlob.Call(ctx, c, wrapperspb.Bytes(payload))
				return err
			}
		}},
	}
	for _, callers := range []struct {
		name string
		n    int
	}{{"1caller", 1}, {"64callers", 64}} {
		for _, p := range peers {
			b.Run(callers.name+"/"+p.name, func(b *testing.B) {
				srv := rpctest.NewServer(b)
				server := srv.Connect()
				call := p.setup(b, server, srv.Connect())
				must(b, server.Flush())
				benchCall(b, callers.n, call)
			})
		}
	}
}

// plainEcho returns a call that is made with nats.go alone.
func plainEcho(b *testing.B, server, client *nats.Conn, payload []byte) func(context.Context) error {
	_, err := server.QueueSubscribe("raw.echo", "q", func(m *nats.Msg) { _ = m.Respond(m.Data) })
	must(b, err)
	must(b, server.Flush())
	return func(ctx context.Context) error {
		_, err := client.RequestWithContext(ctx, "raw.echo", payload)
		return err
	}
}

// benchCall runs b.N calls from so many callers, in a context with a deadline.
func benchCall(b *testing.B, callers int, call func(context.Context) error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	must(b, call(ctx))
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for range (b.N + callers - 1 - i) / callers {
				if err := call(ctx); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
