package rpc_test

import (
	"context"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"
)

// The code of docs/operations.md. The tests of lameduck_test.go run it.

// serveAndMove serves until ctx ends, and moves to another NATS node when its own is about to
// leave.
func serveAndMove(ctx context.Context, urls string, register func(*rpc.Server) error) error {
	var leave func() error
	for {
		lameDuck := make(chan struct{}, 1)
		nc, err := nats.Connect(urls, nats.LameDuckModeHandler(func(*nats.Conn) { lameDuck <- struct{}{} }))
		if err != nil {
			return err
		}
		defer nc.Close()
		srv := rpc.NewServer(nc)
		if err := register(srv); err != nil {
			return err
		}
		if err := srv.Start(ctx); err != nil {
			return err
		}
		if leave != nil { // the new server is there: the old one answers what it has
			if err := leave(); err != nil {
				return err
			}
		}
		leave = func() error {
			grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 25*time.Second)
			defer cancel()
			defer nc.Close()
			return srv.Shutdown(grace)
		}
		select {
		case <-lameDuck:
		case <-ctx.Done():
			return leave()
		}
	}
}

func stopOrForce() func(*rpc.Server, <-chan os.Signal) error {
	stop := func(s *rpc.Server, signals <-chan os.Signal) error {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() {
			<-signals // a second one: whoever sent it does not want to wait
			cancel()
		}()
		return s.Shutdown(ctx)
	}
	return stop
}
