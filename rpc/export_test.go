package rpc

import (
	"bytes"
	"runtime"

	"google.golang.org/protobuf/proto"
)

// OpenStreams is how many streams a client has in its table.
func (c *Client) OpenStreams() int { return len(c.streams.all()) }

// Waiters is how many waiters a client has made, and how many of them are free.
func (c *Client) Waiters() (all, free int) {
	for i := range c.inbox.free {
		list := &c.inbox.free[i]
		list.mu.Lock()
		free += len(list.waiters)
		list.mu.Unlock()
	}
	return len(*c.inbox.slots.Load()), free
}

// FreeLists is how many lists free waiters are spread over: each has as many
// as calls that came to it at once.
const FreeLists = freeLists

// HoldRequests makes a client keep its requests until release has so many of
// them, which then leave together.
func (c *Client) HoldRequests() (release func(requests int)) {
	c.out.mu.Lock()
	c.out.publishing = true
	c.out.mu.Unlock()
	return func(requests int) {
		for c.HeldRequests() < requests {
			runtime.Gosched()
		}
		c.out.lead()
	}
}

// ExpectCaller makes a client believe that a caller has its answer and is about to run, until it
// is there.
func (c *Client) ExpectCaller() (there func()) {
	c.out.unpublished()
	c.out.callers.answer()
	return c.out.returns
}

// CountCallersFrom makes an idle client count its calls from n on; balance tells the counts.
func (c *Client) CountCallersFrom(n uint32) (balance func() (started, ended, expected uint32)) {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	c.out.started = n
	c.out.callers.counts.Store(uint64(n) * oneEnded)
	return func() (started, ended, expected uint32) {
		c.out.mu.Lock()
		defer c.out.mu.Unlock()
		return c.out.started, c.out.callers.ended(), c.out.callers.expected()
	}
}

// HeldRequests is how many requests wait to be published.
func (c *Client) HeldRequests() int {
	c.out.mu.Lock()
	defer c.out.mu.Unlock()
	return len(c.out.queue)
}

// Open is how many streams and calls a server has in its tables.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.streams.all())
	for _, svc := range s.services {
		svc.calls.each(func(*serverCall) { n++ })
	}
	return n
}

// UnmarshalResponse decodes as a client does.
func UnmarshalResponse(data []byte, m proto.Message) error {
	return coding{}.unmarshal(data, m, len(data))
}

// Poison is what PoisonPools writes: a byte that no encoding here has.
const Poison = 0xff

// PoisonPools takes n buffers and calls, as others would who need them next,
// overwrites them, and puts them back. It returns false where a buffer has been
// written to meanwhile: by somebody who had put it back.
func PoisonPools(n int) bool {
	taken, clean := make([]*buffer, n), true
	for i := range taken {
		taken[i] = takeBuffer()
		poison(taken[i].b[:cap(taken[i].b)])
		c := calls.Get().(*Call)
		// An owner that still has the call meets one without a method.
		*c = Call{sent: true, streamed: true}
		calls.Put(c)
	}
	runtime.Gosched() // to whoever would write
	for _, buf := range taken {
		all := buf.b[:cap(buf.b)]
		clean = clean && bytes.Count(all, []byte{Poison}) == len(all)
		buf.putBack()
	}
	return clean
}

func poison(b []byte) {
	b[0] = Poison
	for n := 1; n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
}
