package rpclog_test

import (
	"io"
	"log/slog"
	"testing"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// BenchmarkUnary measures what logs cost a call, on both sides together: without, with a level that
// is off, with failures only, and with a line of JSON for each call.
func BenchmarkUnary(b *testing.B) {
	for _, with := range []struct {
		name string
		opts func() rpc.AnyOption
	}{
		{"bare", func() rpc.AnyOption { return rpc.WithInterceptors() }},
		{"off", func() rpc.AnyOption { return interceptor(b, io.Discard, slog.LevelError+1) }},
		{"failures", func() rpc.AnyOption { return interceptor(b, io.Discard, slog.LevelWarn) }},
		{"all", func() rpc.AnyOption { return interceptor(b, io.Discard, slog.LevelDebug) }},
	} {
		b.Run(with.name, func(b *testing.B) {
			srv := rpctest.NewServer(b)
			serve(b, srv.Connect(), stock{}, with.opts())
			c := dial(b, srv.Connect(), with.opts())
			b.ReportAllocs()
			for b.Loop() {
				must(b, get(b.Context(), c, "apple"))
			}
		})
	}
}
