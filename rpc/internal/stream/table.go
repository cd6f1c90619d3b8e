package stream

import (
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// Table has the streams of a client or a server. While there are any, a goroutine sends their
// heartbeats and notices dead peers. All methods may be called concurrently.
type Table struct {
	heartbeat time.Duration

	mu      sync.Mutex
	closed  bool
	streams map[wire.ID]*Stream
	keeping bool
	keepers sync.WaitGroup
	empty   chan struct{} // closed when the last stream has gone; made with the first
}

// NewTable returns a table of streams that send a heartbeat once in an interval.
func NewTable(heartbeat time.Duration) *Table {
	return &Table{heartbeat: heartbeat, streams: map[wire.ID]*Stream{}}
}

// add adds a stream. It returns false if there is one with its id, or the table is closed.
func (t *Table) add(s *Stream) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed || t.streams[s.ID] != nil {
		return false
	}
	t.streams[s.ID] = s
	if !t.keeping {
		empty := make(chan struct{})
		t.keeping, t.empty = true, empty
		t.keepers.Go(func() { t.keep(empty) })
	}
	return true
}

func (t *Table) remove(s *Stream) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.streams[s.ID] != s {
		return
	}
	delete(t.streams, s.ID)
	if len(t.streams) == 0 && t.keeping {
		t.keeping = false
		close(t.empty)
	}
}

// All returns the streams of the table.
func (t *Table) All() []*Stream {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*Stream, 0, len(t.streams))
	for _, s := range t.streams {
		all = append(all, s)
	}
	return all
}

// EachClient runs f for every stream of a client's table. open says that its first answer has come.
// EachClient holds the stream's lock meanwhile, and ends the stream with the error that f returns.
func (t *Table) EachClient(f func(c *Client, open bool) error) {
	for _, s := range t.All() {
		c := s.side.(*Client)
		if err := c.look(f); err != nil {
			c.End(err)
		}
	}
}

// Has reports whether there is a stream with an id.
func (t *Table) Has(id wire.ID) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.streams[id] != nil
}

// End ends the stream with an id, if it is there, for a reason of this side.
func (t *Table) End(id wire.ID, err error) {
	t.mu.Lock()
	s := t.streams[id]
	t.mu.Unlock()
	if s != nil {
		s.side.End(err)
	}
}

// Deliver gives a message to the stream with an id. It returns false if there is none.
func (t *Table) Deliver(id wire.ID, m *nats.Msg) bool {
	t.mu.Lock()
	s := t.streams[id]
	t.mu.Unlock()
	if s == nil {
		return false
	}
	s.side.deliver(m)
	return true
}

// TokenPrefix begins the last token of the reply subjects of a client's streams.
const TokenPrefix = "s"

// ParseToken reads the id of a stream from such a token.
func ParseToken(token string) (wire.ID, bool) {
	text, _, _ := strings.Cut(strings.TrimPrefix(token, TokenPrefix), "-")
	return wire.ParseID(text)
}

// Close ends all streams and waits for the goroutine. Nothing can be added any more.
func (t *Table) Close(err error) {
	t.mu.Lock()
	t.closed = true
	t.mu.Unlock()
	for _, s := range t.All() {
		s.side.End(err)
	}
	t.keepers.Wait()
}

// Break ends all streams without telling their peers.
func (t *Table) Break(err error) {
	for _, s := range t.All() {
		s.Break(err)
	}
}

// keep looks at the streams four times per heartbeat, until no stream is left.
func (t *Table) keep(empty <-chan struct{}) {
	ticker := time.NewTicker(max(t.heartbeat/4, time.Millisecond))
	defer ticker.Stop()
	for {
		select {
		case now := <-ticker.C:
			for _, s := range t.All() {
				s.keep(now, t.heartbeat)
			}
		case <-empty:
			return
		}
	}
}
