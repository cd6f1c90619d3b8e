package publish

import (
	"context"
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

// PostAndWait posts a message and waits until it has been published. It returns the error of that,
// or context.Canceled or context.DeadlineExceeded when ctx or the deadline, unless it is zero, has
// ended first, as an *UnpublishedError if that is so. The message's Owner is PostAndWait's.
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
	}
	s.timer.Stop()
	// The publisher may still have s, so it is not used again.
	if s.state.CompareAndSwap(0, sendingGone) {
		return &UnpublishedError{end}
	}
	return end
}

// Sent implements Owner.
func (s *sending) Sent(_ *Message, err error) { s.sent <- err }

// Leads implements Owner. It is not asked, since the message is for no batch.
func (s *sending) Leads([]*Message) bool { return false }

// Claim implements Owner.
func (s *sending) Claim(*Message) bool { return s.state.CompareAndSwap(0, sendingClaimed) }
