package rpcdedup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/natscall/natscall/rpc"
)

const (
	// defaultLease is longer than a garbage collection or a reconnect takes, and short enough for a
	// caller to wait for its end.
	defaultLease = 3 * time.Second
	// leastLease lets a record be renewed in time over a slow connection.
	leastLease = 100 * time.Millisecond
)

// Option is an option of Server.
type Option func(*config) error

type config struct {
	required []string
	accepted []string // nil for all that can be
	lease    time.Duration
	scope    func(context.Context, *rpc.Call) (string, error)
	again    []rpc.Code
	log      *slog.Logger
}

// Require names methods of which each call must have a key: one without a key is refused with
// CodeInvalidArgument. The names are full ones, as in the constants of generated code.
func Require(methods ...string) Option {
	return func(c *config) error {
		c.required = append(c.required, methods...)
		return nil
	}
}

// Accept names methods of which a call may have a key. Without Accept and Require these are all
// unary and one-way methods of the service. With one of them, these are only the methods that are
// named, and a key of another method's call means nothing.
func Accept(methods ...string) Option {
	return func(c *config) error {
		c.accepted = append(c.accepted, methods...)
		return nil
	}
}

// WithLease sets after which time without a renewal a call is lost. The default is 3 s, the minimum
// 100 ms. All instances of a service should have the same.
func WithLease(d time.Duration) Option {
	return func(c *config) error {
		if d < leastLease {
			return fmt.Errorf("rpcdedup: WithLease(%v): must be at least %v", d, leastLease)
		}
		c.lease = d
		return nil
	}
}

// WithScope sets whose the keys of a call are, such as its tenant or user: the same key in another
// scope is another key. Its error ends the call. The default is one scope for all callers, in which
// one that guesses a key gets the response of another one's call.
func WithScope(scope func(context.Context, *rpc.Call) (string, error)) Option {
	return func(c *config) error {
		if scope == nil {
			return errors.New("rpcdedup: WithScope: the function is nil")
		}
		c.scope = scope
		return nil
	}
}

// RunAgainAfter names codes of errors that are not kept: if the handler has returned one, the next
// call with the key runs it again. It is for errors before which a handler has changed nothing. The
// default is none: each result is kept.
func RunAgainAfter(codes ...rpc.Code) Option {
	return func(c *config) error {
		if slices.Contains(codes, rpc.CodeOK) {
			return errors.New("rpcdedup: RunAgainAfter(ok): that is no error")
		}
		c.again = append(c.again, codes...)
		return nil
	}
}

// WithLogger sets where it is logged that the store does not answer. The default is slog.Default().
func WithLogger(log *slog.Logger) Option {
	return func(c *config) error {
		if log == nil {
			return errors.New("rpcdedup: WithLogger: the logger is nil")
		}
		c.log = log
		return nil
	}
}
