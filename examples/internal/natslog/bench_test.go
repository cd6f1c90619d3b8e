package natslog

import (
	"io"
	"log/slog"
	"testing"

	"github.com/natscall/natscall/rpc/rpctest"
)

// BenchmarkHandle compares what a record costs the caller with what it costs to write it to a file
// that takes no time.
func BenchmarkHandle(b *testing.B) {
	h := New(rpctest.Connect(b), "logs.bench.1", slog.LevelInfo)
	defer func() { _ = h.Close(b.Context()) }()
	for _, bench := range []struct {
		name    string
		handler slog.Handler
	}{
		{"JSON", slog.NewJSONHandler(io.Discard, nil)},
		{"NATS", h},
	} {
		b.Run(bench.name, func(b *testing.B) {
			log := slog.New(bench.handler)
			b.ReportAllocs()
			for b.Loop() {
				log.Info("call served", "method", "/order.v1.OrderService/PlaceOrder", "code", "ok", "duration", 1234567)
			}
		})
	}
}
