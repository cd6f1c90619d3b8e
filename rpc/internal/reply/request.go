package reply

import (
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// Request is a request that waits for one reply.
type Request struct {
	ID      wire.ID
	Subject string
	Root    string // where to ask whether the call is alive
	Header  nats.Header
	Buffer  *buffer.Buffer // the data
	Plain   bool           // replies have no envelope

	// IsResponse reports whether a plain reply that has the form of JetStream's acknowledgement is
	// the response all the same. It is nil where it cannot be.
	IsResponse func(reply *nats.Msg) bool

	Timer    bool // the call ends at Deadline; without it only ctx ends it
	Deadline time.Time
	Left     time.Duration // until Deadline
}

// Reply is a message that ends a call: an envelope or a frame that announces a large response, or
// whatever came to a plain request.
type Reply struct {
	Msg  *nats.Msg
	Data []byte // of Msg, or of the call's part of a batch
}

// ErrContext and ErrDeadline are the errors of calls that have waited for long enough.
var (
	ErrContext  = errors.New("reply: the context has ended")
	ErrDeadline = errors.New("reply: the deadline has passed")
)

// UnsentError is the error of a request that could not be published.
type UnsentError struct {
	Err  error
	Size int // of the data
}

func (e *UnsentError) Error() string {
	return fmt.Sprintf("reply: the request was not sent: %v", e.Err)
}

// Unpublished returns the error of a call that has ended with err: a *publish.UnpublishedError if
// its request was not claimed, unless err says itself why it was not sent.
func Unpublished(err error, claimed bool) error {
	if _, unsent := err.(*UnsentError); err == nil || claimed || unsent {
		return err
	}
	return &publish.UnpublishedError{Err: err}
}

// InvalidError is the error of a reply that carries the call's id and cannot be read.
type InvalidError struct{ Err error }

func (e *InvalidError) Error() string { return fmt.Sprintf("reply: the reply is not valid: %v", e.Err) }
