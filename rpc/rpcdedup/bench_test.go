package rpcdedup_test

import (
	"crypto/rand"
	"testing"
	"time"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcdedup"
	"github.com/natscall/natscall/rpc/rpctest"
)

// BenchmarkPay is what a key costs: without the interceptor, with it and no key, and with a key in
// either store.
func BenchmarkPay(b *testing.B) {
	srv := rpctest.NewServer(b, rpctest.WithJetStream())
	for _, test := range []struct {
		name  string
		opts  []rpc.ServiceOption
		keyed bool
	}{
		{"bare", nil, false},
		{"no key", []rpc.ServiceOption{rpcdedup.Server(rpcdedup.NewMemory(time.Hour))}, false},
		{"memory", []rpc.ServiceOption{rpcdedup.Server(rpcdedup.NewMemory(time.Hour))}, true},
		{"bucket", []rpc.ServiceOption{rpcdedup.Server(bucket(b, srv.Connect()))}, true},
	} {
		b.Run(test.name, func(b *testing.B) {
			s := rpc.NewServer(srv.Connect())
			must(b, register(s, new(accounts), test.opts...))
			must(b, s.Start(b.Context()))
			defer func() { must(b, s.Shutdown(b.Context())) }()
			c := dial(b, srv.Connect())
			req := order(b, 7)
			b.ReportAllocs()
			for b.Loop() {
				var opts []rpc.CallOption
				if test.keyed {
					opts = append(opts, rpc.WithIdempotencyKey(rand.Text()))
				}
				if _, err := pay.Call(b.Context(), c, req, opts...); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
