package rpc

import (
	"bytes"
	"runtime"

	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/reply"
)

// OpenStreams is how many streams a client has in its table.
func (c *Client) OpenStreams() int { return len(c.streams.All()) }

// Mailboxes is how many gatherings of a client have not ended.
func (c *Client) Mailboxes() int { return c.known.Mail.Len() }

// Waiters is how many slots for pending calls a client has made, and how many of them are free.
func (c *Client) Waiters() (all, free int) { return c.inbox.Slots() }

// FreeLists is how many lists free waiters are spread over: each has as many
// as calls that came to it at once.
const FreeLists = reply.FreeLists

// HoldRequests makes a client keep its requests until release has so many of them, which then leave
// together. held returns how many there are.
func (c *Client) HoldRequests() (held func() int, release func(requests int)) {
	held, publish := c.out.Hold()
	return held, func(requests int) {
		for held() < requests {
			runtime.Gosched()
		}
		publish()
	}
}

// LoseCaller makes a client believe that a caller has its answer and is about to run, which never
// comes.
func (c *Client) LoseCaller() {
	c.out.Omit()
	c.out.Expect()
}

// CallsInFlight returns how many calls of a client have not ended, and how many of their callers
// are about to run.
func (c *Client) CallsInFlight() (calls, expected int) { return c.out.InFlight() }

// Down reports whether the client knows that its connection is being made again.
func (c *Client) Down() bool { return c.link.Down() }

// Open is how many streams and calls a server has in its tables.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.streams.All())
	for _, svc := range s.services {
		n += len(svc.calls.All())
	}
	return n
}

// State is what the instance of a service says about itself.
func (s *Server) State(service string) string {
	svc, _ := s.find(service)
	return svc.state().String()
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
	taken, clean := make([]*buffer.Buffer, n), true
	for i := range taken {
		taken[i] = buffer.Take()
		poison(taken[i].B[:cap(taken[i].B)])
		c := callPool.Get().(*clientCall)
		// An owner that still has the call meets one without a method.
		*c = clientCall{sent: true, streamed: true}
		callPool.Put(c)
	}
	runtime.Gosched() // to whoever would write
	for _, buf := range taken {
		all := buf.B[:cap(buf.B)]
		clean = clean && bytes.Count(all, []byte{Poison}) == len(all)
		buf.PutBack()
	}
	return clean
}

func poison(b []byte) {
	b[0] = Poison
	for n := 1; n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
}

// StandStill makes a server believe that its process has stood still until now.
func (s *Server) StandStill() { s.stall.ticked.Store(int64(s.clock.now() - 2*stallTime)) }

// Requests is how many requests of a method, in all services of a server, have been answered.
func (s *Server) Requests(method string) (n int) {
	services, _ := s.registered()
	for _, svc := range services {
		for _, e := range svc.endpoints {
			if e.method.desc.Name == method {
				all, _ := e.stats.requests()
				n += int(all)
			}
		}
	}
	return n
}
