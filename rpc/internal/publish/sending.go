package publish

import (
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

// Sent implements Owner.
func (s *sending) Sent(_ *Message, err error) { s.sent <- err }

// Leads implements Owner. It is not asked, since the message is for no batch.
func (s *sending) Leads([]*Message) bool { return false }

// Claim implements Owner.
func (s *sending) Claim(*Message) bool { return s.state.CompareAndSwap(0, sendingClaimed) }
