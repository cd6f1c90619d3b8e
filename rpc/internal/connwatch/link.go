package connwatch

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/wait"
)

// Link knows what is to be known of a connection without asking it. nats.go holds its lock while it
// connects, and while it writes to a socket that takes nothing. Whoever asks the connection then
// waits for as long as nats.Timeout or nats.FlusherTimeout, and has no say in it.
type Link struct {
	nc         *nats.Conn
	statuses   chan nats.Status
	down       atomic.Pointer[outage] // Follow changes it
	maxPayload atomic.Int64           // of the server
	closed     chan struct{}          // when the connection is, for good
	ended      atomic.Bool            // Follow has, so nothing is known any more
}

var errEnded = errors.New("the NATS connection is not followed any more")

// outage is a time in which a connection is made again.
type outage struct{ over chan struct{} }

// NewLink returns a Link that Follow keeps up to date. It may wait for the connection's lock.
func NewLink(nc *nats.Conn) *Link {
	l := &Link{nc: nc, closed: make(chan struct{})}
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
			l.setDown(false)
			return
		}
	}
}

func (l *Link) set(status nats.Status) {
	switch status {
	case nats.RECONNECTING, nats.DISCONNECTED:
		l.setDown(true)
		return
	case nats.CLOSED:
		select {
		case <-l.closed:
		default:
			close(l.closed)
		}
	default:
		l.maxPayload.Store(l.nc.MaxPayload())
	}
	l.setDown(false)
}

func (l *Link) setDown(down bool) {
	switch was := l.down.Load(); {
	case down && was == nil:
		l.down.Store(&outage{over: make(chan struct{})})
	case !down && was != nil:
		l.down.Store(nil)
		close(was.over)
	}
}

// Down reports whether the connection is being made again.
func (l *Link) Down() bool { return l.down.Load() != nil }

// Closed is closed when the connection has been closed for good.
func (l *Link) Closed() <-chan struct{} { return l.closed }

// MaxPayload is that of the server that the connection is to, or was to last.
func (l *Link) MaxPayload() int64 { return l.maxPayload.Load() }

// Publish is that of the connection. Like the next two it may wait for the lock.
func (l *Link) Publish(subject string, data []byte) error { return l.nc.Publish(subject, data) }

// PublishRequest is that of the connection.
func (l *Link) PublishRequest(subject, reply string, data []byte) error {
	return l.nc.PublishRequest(subject, reply, data)
}

// PublishMsg is that of the connection.
func (l *Link) PublishMsg(m *nats.Msg) error { return l.nc.PublishMsg(m) }

// Await returns nil when the connection is not being made any more: it is up, or closed. It does
// not wait any more when Follow has ended.
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
	return nil
}
