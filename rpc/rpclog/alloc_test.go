//go:build !race

package rpclog_test

import (
	"context"
	"io"
	"log/slog"
	"testing"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpclog"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestAllocations: what is not written is not allocated. The race detector changes the counts.
func TestAllocations(t *testing.T) {
	for name, level := range map[string]slog.Level{"off": slog.LevelError + 1, "discarded": slog.LevelError + 1} {
		log := slog.New(slog.NewJSONHandler(io.Discard, &slog.HandlerOptions{Level: level}))
		if name == "discarded" {
			log = slog.New(slog.DiscardHandler)
		}
		intercept, err := rpclog.NewInterceptor(log, rpclog.WithSlow(1), rpclog.WithMessages(1000))
		must(t, err)
		ctx, call := rpctest.NewContext(t.Context(), nil)
		next := func(context.Context, *rpc.Call) error { return nil }
		if got := testing.AllocsPerRun(1000, func() { _ = intercept(ctx, call, next) }); got > 0 {
			t.Errorf("%s: %v allocations", name, got)
		}
	}
}

// TestClientAllocations: on a client also a call that succeeds costs none where only failures are
// logged.
func TestClientAllocations(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), stock{})
	allocations := func(opt rpc.ClientOption) float64 {
		c := dial(t, srv.Connect(), opt)
		return testing.AllocsPerRun(1000, func() { must(t, get(t.Context(), c, "apple")) })
	}
	pass := func(ctx context.Context, call *rpc.Call, next rpc.Next) error { return next(ctx, call) }
	var without, with float64
	for range 3 { // an excess that does not stay is that of the scheduler
		without, with = allocations(rpc.WithInterceptors(pass)), allocations(interceptor(t, io.Discard, slog.LevelWarn))
		if with <= without {
			return
		}
	}
	t.Errorf("%v allocations, %v without a log", with, without)
}
