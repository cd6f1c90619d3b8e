package main

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"

	chaosv1 "github.com/natscall/natscall/internal/chaos/gen/chaos/v1"
	"github.com/natscall/natscall/internal/chaos/gen/chaos/v1/chaosv1nats"
)

// runWorker serves until ctx ends. It is a replica that records nothing, so that it can be loaded.
func (a assignment) runWorker(ctx context.Context, nc *nats.Conn) error {
	options := []rpc.ServerOption{
		rpc.WithServiceMetadata(map[string]string{replicaKey: a.Name}),
		rpc.WithLogger(slog.New(slog.NewTextHandler(os.Stderr, nil))),
	}
	if a.Slots > 0 {
		options = append(options, rpc.WithMaxConcurrency(a.Slots))
	}
	srv := rpc.NewServer(nc, options...)
	if err := chaosv1nats.RegisterChaosServiceServer(srv, worker{}); err != nil {
		return err
	}
	return srv.Run(ctx)
}

// worker does what it is told to for as long as it is told to.
type worker struct {
	chaosv1nats.UnimplementedChaosServiceServer
}

func (worker) work(ctx context.Context, req *chaosv1.WorkRequest) (*chaosv1.WorkResponse, error) {
	if err := sleep(ctx, time.Duration(req.GetSleepUs())*time.Microsecond); err != nil {
		return nil, err
	}
	return &chaosv1.WorkResponse{}, nil
}

func (w worker) Add(ctx context.Context, req *chaosv1.WorkRequest) (*chaosv1.WorkResponse, error) {
	return w.work(ctx, req)
}

func (w worker) Get(ctx context.Context, req *chaosv1.WorkRequest) (*chaosv1.WorkResponse, error) {
	return w.work(ctx, req)
}
