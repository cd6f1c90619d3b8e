package connwatch

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/wait"
)

// Link knows, without asking it, whether a connection is being made again. nats.go holds its lock
// while it connects. If a server accepts and does not answer, whoever asks the connection waits for
// as long as nats.Timeout, and has no say in it.
type Link struct {
	nc       *nats.Conn
	statuses chan nats.Status
	down     atomic.Pointer[outage] // Follow changes it
	ended    atomic.Bool            // Follow has, so nothing is known any more
}

var errEnded = errors.New("the NATS connection is not followed any more")

// outage is a time in which a connection is made again.
type outage struct{ over chan struct{} }

// NewLink returns a Link that Follow keeps up to date.
func NewLink(nc *nats.Conn) *Link {
	l := &Link{nc: nc}
	l.statuses = nc.StatusChanged(nats.CONNECTED, nats.RECONNECTING, nats.DISCONNECTED, nats.CLOSED)
	l.set(nc.Status())
	return l
}

// Follow runs until done is closed.
func (l *Link) Follow(done <-chan struct{}) {
	defer l.nc.RemoveStatusListener(l.statuses)
	for {
		select {
		case status := <-l.statuses:
			l.set(status)
		case <-done:
			l.ended.Store(true)
			l.set(nats.CLOSED)
			return
		}
	}
}

func (l *Link) set(status nats.Status) {
	was := l.down.Load()
	switch down := status == nats.RECONNECTING || status == nats.DISCONNECTED; {
	case down && was == nil:
		l.down.Store(&outage{over: make(chan struct{})})
	case !down && was != nil:
		l.down.Store(nil)
		close(was.over)
	}
}

// Down reports whether the connection is being made again.
func (l *Link) Down() bool { return l.down.Load() != nil }

// Await returns nil when the connection is up. Its error says what state the connection is in. It
// does not wait any more when Follow has ended.
func (l *Link) Await(ctx context.Context) error {
	if down := l.down.Load(); down != nil {
		select {
		case <-down.over:
		case <-ctx.Done():
			return fmt.Errorf("the NATS connection is reconnecting: %w", wait.EndOf(ctx))
		}
	}
	if l.ended.Load() {
		return errEnded
	}
	return Await(ctx, l.nc)
}
