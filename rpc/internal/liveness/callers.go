package liveness

import (
	"sync"
	"time"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// ServerTick is the time between two looks of a server at the clients that have asked it.
const ServerTick = 400 * time.Millisecond

// A client asks at least once a second as long as it waits. A stream whose client was killed ends
// within 5 s, an ordinary call within 10 s and not before 8 s, so that a client that is paused or
// cut off for 5 s still gets its answer. Both limits are in ticks of the server.
const (
	maxStreamSilence = 11 // 4.0 to 4.4 s
	maxCallSilence   = 22 // 8.4 to 8.8 s
	// StreamSilence is how long nothing has come from the client of a stream that ends for it.
	StreamSilence = (maxStreamSilence - 1) * ServerTick
)

// Callers are the clients that have asked a server about their calls and streams. A call that
// nobody has asked about is not among these: its caller may be older than the queries, or no client
// of natscall's. All methods may be called concurrently. The zero value has no callers.
type Callers struct {
	mu      sync.Mutex
	byToken map[wire.ID]*caller
	of      map[wire.ID]*caller // by call
}

// caller is a client.
type caller struct {
	silent int // ticks since it was heard
	calls  int
}

// Heard notes that a client has asked about calls, which the instance has.
func (c *Callers) Heard(client wire.ID, calls []wire.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	from := c.byToken[client]
	if from == nil {
		if len(calls) == 0 {
			return
		}
		if c.of == nil {
			c.byToken, c.of = map[wire.ID]*caller{}, map[wire.ID]*caller{}
		}
		from = new(caller)
		c.byToken[client] = from
	}
	from.silent = 0
	for _, id := range calls {
		c.of[id] = from
	}
}

// Reset gives all clients their time again: the server's own connection was lost.
func (c *Callers) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, from := range c.byToken {
		from.silent = 0
	}
}

// Kind says what a call is.
type Kind uint8

// The kinds of calls.
const (
	KindEnded  Kind = iota // it is not there any more
	KindUnary              // it has no stream
	KindStream             // it has one
)

// Tick counts a tick. kind looks up a call. Tick returns the calls whose clients are dead.
func (c *Callers) Tick(kind func(wire.ID) Kind) (dead []wire.ID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, from := range c.byToken {
		from.silent++
		from.calls = 0
	}
	for id, from := range c.of {
		limit := maxCallSilence
		switch kind(id) {
		case KindEnded:
			delete(c.of, id)
			continue
		case KindStream:
			limit = maxStreamSilence
		}
		if from.silent >= limit {
			dead = append(dead, id)
			delete(c.of, id)
			continue
		}
		from.calls++
	}
	for token, from := range c.byToken {
		if from.calls == 0 {
			delete(c.byToken, token)
		}
	}
	return dead
}
