package publish

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// sending waits until one message has been published.
type sending struct {
	sent  chan error   // of one
	state atomic.Int32 // 0 until it is claimed, or its caller has gone
	timer *time.Timer
}

const (
	sendingClaimed int32 = iota + 1
	sendingGone
)

var sendings = sync.Pool{New: func() any {
	s := &sending{sent: make(chan error, 1), timer: time.NewTimer(time.Hour)}
	s.timer.Stop()
	return s
}}

// ErrEnded is the error of a message that was on its way to the connection when its publisher
// ended: it may have been published.
var ErrEnded = errors.New("publish: it ended before the message was known to be published")

// PostAndWait posts a message and waits until it has been published. It returns the error of that.
// If ctx, the deadline unless it is zero, or the publisher ends first, it returns context.Canceled,
// context.DeadlineExceeded or ErrEnded, or an *UnpublishedError if the message never gets to the
// connection, which has the error of Refuse in place of ErrEnded. The message's Owner is
// PostAndWait's.
func (p *Publisher) PostAndWait(ctx context.Context, deadline time.Time, m Message) error {
	s := sendings.Get().(*sending)
	s.state.Store(0)
	m.Owner = s
	var alarm <-chan time.Time
	if !deadline.IsZero() {
		s.timer.Reset(time.Until(deadline))
		alarm = s.timer.C
	}
	p.Post(m)
	var end error
	select {
	case err := <-s.sent:
		s.timer.Stop()
		sendings.Put(s)
		return err
	case <-ctx.Done():
		end = ctx.Err()
	case <-alarm:
		end = context.DeadlineExceeded
	case <-p.ended:
		end = ErrEnded
	}
	s.timer.Stop()
	// The publisher may still have s, so it is not used again.
	if !s.state.CompareAndSwap(0, sendingGone) {
		return end
	}
	if end == ErrEnded {
		end = p.Refuse()
	}
	return &UnpublishedError{end}
}

// Sent implements Owner.
func (s *sending) Sent(_ *Message, err error) { s.sent <- err }

// Leads implements Owner. It is not asked, since the message is for no batch.
func (s *sending) Leads([]*Message) bool { return false }

// Claim implements Owner.
func (s *sending) Claim(*Message) bool { return s.state.CompareAndSwap(0, sendingClaimed) }
