package connwatch

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/wait"
)

// ClosedError is the error of a connection that has been closed for good, with the reason if
// nats.go has one, such as an authorization that was refused.
func ClosedError(nc *nats.Conn) error {
	if last := nc.LastError(); last != nil && !errors.Is(last, nats.ErrConnectionClosed) {
		return fmt.Errorf("the NATS connection is closed: %w (%w)", last, nats.ErrConnectionClosed)
	}
	return fmt.Errorf("the NATS connection is closed: %w", nats.ErrConnectionClosed)
}

// Describe says what state a connection is in that is not up, with its last error if there is one.
func Describe(nc *nats.Conn) string {
	return "the NATS connection is " + strings.ToLower(nc.Status().String()) + lastError(nc)
}

// lastError is the last error of a connection, as a suffix of another text.
func lastError(nc *nats.Conn) string {
	if last := nc.LastError(); last != nil {
		return fmt.Sprintf(" (last error: %v)", last)
	}
	return ""
}

// Await returns nil when the connection is up. Its error says what state the connection is in.
func Await(ctx context.Context, nc *nats.Conn) error {
	changes := nc.StatusChanged(nats.CONNECTED, nats.CLOSED, nats.DRAINING_SUBS)
	defer nc.RemoveStatusListener(changes)
	for {
		switch status := nc.Status(); {
		case status == nats.CONNECTED:
			return nil
		case status == nats.CLOSED:
			return ClosedError(nc)
		case nc.IsDraining():
			return nats.ErrConnectionDraining
		}
		select {
		case <-changes:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", Describe(nc), wait.EndOf(ctx))
		}
	}
}
