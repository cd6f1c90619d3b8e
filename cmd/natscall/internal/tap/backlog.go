package tap

import (
	"sync"

	"github.com/nats-io/nats.go"
)

// maxBacklog bounds the memory of messages that wait to be shown.
const maxBacklog = 64 << 20

// backlog are messages that have come and wait to be shown, in their order. What does not fit is
// dropped, and counted: a terminal that is slow must not take all memory.
type backlog struct {
	ready chan struct{} // has a token where there are messages

	mu      sync.Mutex
	waiting []*nats.Msg
	size    int
	dropped int
}

func newBacklog() *backlog { return &backlog{ready: make(chan struct{}, 1)} }

// fill takes messages from a channel until stop is closed.
func (b *backlog) fill(came <-chan *nats.Msg, stop <-chan struct{}) {
	for {
		select {
		case m := <-came:
			b.add(m)
		case <-stop:
			return
		}
	}
}

func (b *backlog) add(m *nats.Msg) {
	b.mu.Lock()
	if b.size+m.Size() > maxBacklog {
		b.dropped++
	} else {
		b.waiting = append(b.waiting, m)
		b.size += m.Size()
	}
	b.mu.Unlock()
	select {
	case b.ready <- struct{}{}:
	default:
	}
}

// take returns the messages that wait.
func (b *backlog) take() []*nats.Msg {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := b.waiting
	b.waiting, b.size = nil, 0
	return out
}

// lost returns how many messages were dropped.
func (b *backlog) lost() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dropped
}
