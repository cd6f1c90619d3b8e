package rpc_test

import (
	"context"
	"strings"
	"testing"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// BenchmarkUntyped measures a call of 60 bytes with both sides of the same form: generated, dynamic
// and raw, beside plain nats.go.
func BenchmarkUntyped(b *testing.B) {
	for _, callers := range []struct {
		name string
		n    int
	}{{"1caller", 1}, {"64callers", 64}} {
		b.Run(callers.name+"/plain", func(b *testing.B) {
			srv := rpctest.NewServer(b)
			server, client := srv.Connect(), srv.Connect()
			benchCall(b, callers.n, plainEcho(b, server, client, make([]byte, 60)))
		})
		for _, form := range echoForms(b) {
			b.Run(callers.name+"/"+form.name, func(b *testing.B) {
				srv := rpctest.NewServer(b)
				s := rpc.NewServer(srv.Connect())
				must(b, (&echo{form: form}).register(s))
				startServer(b, s)
				e := echoClient{form, dial(b, srv.Connect())}
				text := strings.Repeat("x", 60)
				benchCall(b, callers.n, func(ctx context.Context) error { return e.once(ctx, text) })
			})
		}
	}
}

// BenchmarkUntypedStream measures a message of a bidirectional stream there and back, likewise.
func BenchmarkUntypedStream(b *testing.B) {
	for _, form := range echoForms(b) {
		b.Run(form.name, func(b *testing.B) {
			srv := rpctest.NewServer(b)
			s := rpc.NewServer(srv.Connect())
			must(b, (&echo{form: form}).register(s))
			startServer(b, s)
			e := echoClient{form, dial(b, srv.Connect())}
			b.ReportAllocs()
			b.ResetTimer()
			must(b, e.pingPong(context.Background(), strings.Repeat("x", 60), b.N))
		})
	}
}
