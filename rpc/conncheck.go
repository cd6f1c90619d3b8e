package rpc

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/connwatch"
	"github.com/natscall/natscall/rpc/internal/loglimit"
)

const (
	// pingTimeout is how long NATS has to answer a ping.
	pingTimeout = 1500 * time.Millisecond
	// maxPings is how many pings in a row may stay without an answer: a machine may be busy.
	maxPings = 2
)

// connCheck finds out whether a client's connection is a black hole: where packets are dropped on
// the way, neither the operating system nor nats.go reports an end for minutes. It asks NATS itself
// when an instance is silent.
type connCheck struct {
	link      *connwatch.Link
	log       *slog.Logger
	reconnect bool // a connection on which nothing comes
	logged    loglimit.Limit

	ctx     context.Context
	cancel  context.CancelFunc
	running atomic.Bool
	checks  sync.WaitGroup // ended by their pings, or by stop
}

func (c *connCheck) init(link *connwatch.Link, log *slog.Logger, reconnect bool) {
	c.link, c.log, c.reconnect = link, log, reconnect
	c.logged.Every = time.Minute
	c.ctx, c.cancel = context.WithCancel(context.Background())
}

// stop ends a check that runs, and waits for it. No other one may begin.
func (c *connCheck) stop() {
	c.cancel()
	c.checks.Wait()
}

// check begins a check of the connection, unless one runs.
func (c *connCheck) check(nc *nats.Conn) {
	if !c.running.CompareAndSwap(false, true) {
		return
	}
	c.checks.Go(func() {
		defer c.running.Store(false)
		if !c.silent(nc) {
			return
		}
		if _, ok := c.logged.Next(); ok {
			c.log.Error("natscall: nothing comes from NATS any more, although the connection is up: packets may be dropped on the way "+
				"(rpc.WithForcedReconnect, nats.PingInterval)", "server", nc.ConnectedUrlRedacted(), "reconnect", c.reconnect)
		}
		if !c.reconnect {
			return
		}
		if err := nc.ForceReconnect(); err != nil {
			c.log.Error("natscall: the connection was not given up", "error", err)
		}
	})
}

// silent reports whether NATS answers no ping, although the connection is up.
func (c *connCheck) silent(nc *nats.Conn) bool {
	for range maxPings {
		ctx, cancel := context.WithTimeout(c.ctx, pingTimeout)
		err := nc.FlushWithContext(ctx)
		cancel()
		if err == nil || c.ctx.Err() != nil || c.link.Down() {
			return false
		}
	}
	return true
}
