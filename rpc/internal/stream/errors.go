package stream

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Errors of a stream. Others are those of package flow, those that its owner ends it with, and the
// types below.
var (
	ErrClosed    = errors.New("stream: the sending half has ended")
	ErrCanceled  = errors.New("stream: the client has ended it")
	ErrGone      = errors.New("stream: the server's instance has gone")
	ErrDuplicate = errors.New("stream: the table has a stream with this id, or is closed")
)

// ContextError says that a context has ended.
type ContextError struct{ Ctx context.Context }

func (e *ContextError) Error() string { return fmt.Sprintf("stream: %v", e.Ctx.Err()) }

// Unwrap returns the error of the context.
func (e *ContextError) Unwrap() error { return e.Ctx.Err() }

// PublishError is the error of a frame that could not be published.
type PublishError struct{ Err error }

func (e *PublishError) Error() string { return fmt.Sprintf("stream: publish: %v", e.Err) }

// SilenceError says that nothing has come from the peer for too long.
type SilenceError struct{ For time.Duration }

func (e *SilenceError) Error() string { return fmt.Sprintf("stream: nothing came for %v", e.For) }
