package rpc

import (
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// streamTable has the streams of a client or server. While there are any, a
// goroutine sends their heartbeats and notices dead peers.
type streamTable struct {
	inbox     string               // client: prefix of the reply subjects
	rootOf    func(*method) string // client: with its prefix
	heartbeat time.Duration

	mu      sync.Mutex
	closed  bool
	streams map[wire.ID]*stream
	keeping bool
	keepers sync.WaitGroup
	empty   chan struct{} // closed when the last stream has gone; made with the first
}

// maxSilence is how many heartbeats may fail to come before a peer is taken for dead.
const maxSilence = 3

// add adds a stream; false if there is one with its id, or the table is closed.
func (t *streamTable) add(s *stream) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.streams == nil {
		t.streams = map[wire.ID]*stream{}
	}
	if t.closed || t.streams[s.id] != nil {
		return false
	}
	t.streams[s.id] = s
	if !t.keeping {
		empty := make(chan struct{})
		t.keeping, t.empty = true, empty
		t.keepers.Go(func() { t.keep(empty) })
	}
	return true
}

func (t *streamTable) get(id wire.ID) *stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.streams[id]
}

func (t *streamTable) remove(s *stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.streams[s.id] != s {
		return
	}
	delete(t.streams, s.id)
	if len(t.streams) == 0 && t.keeping {
		t.keeping = false
		close(t.empty)
	}
}

func (t *streamTable) all() []*stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*stream, 0, len(t.streams))
	for _, s := range t.streams {
		all = append(all, s)
	}
	return all
}

// deliver takes a message for the stream that the token of its subject names.
func (t *streamTable) deliver(m *nats.Msg, token string) {
	if id, ok := parseStreamToken(token); ok {
		if s := t.get(id); s != nil {
			s.deliver(m)
		}
	}
}

// close ends all streams and waits for the goroutine. Nothing can be added any more.
func (t *streamTable) close(err *Error) {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	for _, s := range t.all() {
		s.cancel(err)
	}
	t.keepers.Wait()
}

// endAll ends all streams.
func (t *streamTable) endAll(err *Error) {
	for _, s := range t.all() {
		s.end(err)
	}
}

// keep looks at the streams four times in a heartbeat, until there are none.
func (t *streamTable) keep(empty <-chan struct{}) {
	ticker := time.NewTicker(max(t.heartbeat/4, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			for _, s := range t.all() {
				s.keep(now, t.heartbeat)
			}
		case <-empty:
			return
		}
	}
}

// keep sends a heartbeat when it is time to, and ends the stream where nothing came.
func (s *stream) keep(now time.Time, heartbeat time.Duration) {
	s.mu.Lock()
	open := s.to != "" && !s.over
	dead := (open || s.openingLocked()) && now.Sub(s.heardAt) > maxSilence*heartbeat || s.unfetchedLocked(now)
	due := open && now.Sub(s.beatAt) >= heartbeat*3/4 // the next look would be late
	if due && !dead {
		s.beat, s.beatAt = true, now
		s.flushLocked()
	}
	s.mu.Unlock()
	if dead {
		s.cancel(failf(CodeUnavailable, MayHaveRun, "nothing came from the peer for %v, three heartbeats (rpc.WithHeartbeat)", maxSilence*heartbeat))
	}
}

// fetchTimeout is how long a large response waits for the credit of its caller, which a client
// that waits for the response sends at once. It is as long as a client waits for one that has died.
const fetchTimeout = 4 * time.Second

// unfetchedLocked reports whether nobody fetches the response that a server has announced.
func (s *stream) unfetchedLocked(now time.Time) bool {
	return s.call.onServer && s.to == "" && !s.over && now.Sub(s.heardAt) > fetchTimeout
}

// openingLocked reports whether an accept is due: calls of streaming methods, unlike large unary
// ones, wait in no queue.
func (s *stream) openingLocked() bool {
	return s.to == "" && !s.over && !s.call.onServer && s.call.method.kind > KindOneWay
}
