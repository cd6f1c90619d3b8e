package rpctest

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// Proxy is a network that can be bad: it stands between connections and a NATS
// server and does to single messages what a test asks for. What is no message,
// as subscriptions and pings, passes.
//
//	proxy := rpctest.NewProxy(t, srv)
//	c := orderv1nats.NewOrderServiceClient(proxy.Connect())
//	proxy.Fault(func(m rpctest.Message) rpctest.Action {
//		if m.To == rpctest.ToClient && bytes.Contains(m.Data, []byte("second")) {
//			return rpctest.Lose
//		}
//		return rpctest.Pass
//	})
//
// It also does what happens to networks and processes as a whole:
//
//	proxy.Cut()       // the connections break, and can be made again
//	proxy.Close()     // what is behind the proxy was killed: they break for good
//	proxy.Block()     // it stands still, or cannot be reached, until Unblock
//	proxy.BlackHole() // packets of the connections are dropped, and nobody is told
//	proxy.Latency(d)  // it is far away
//
// Faults of one connection only need a proxy of their own. TLS does not get
// through it. Its methods may be called concurrently.
type Proxy struct {
	t        testing.TB
	server   *Server
	listener net.Listener // nil if the server does not listen: then nor does the proxy
	fault    atomic.Pointer[func(Message) Action]
	latency  atomic.Int64
	gates    [2]gate // by Direction
	pumps    sync.WaitGroup

	mu     sync.Mutex
	closed bool
	links  map[*link]struct{}
}

// Direction is which way a message goes.
type Direction uint8

// The directions.
const (
	ToServer Direction = iota // PUB and HPUB
	ToClient                  // MSG and HMSG
)

// String returns "to server" or "to client".
func (d Direction) String() string { return [...]string{"to server", "to client"}[min(d, ToClient)] }

// Message is a message on its way through a Proxy. It is valid only until the
// fault function returns.
type Message struct {
	To      Direction
	Subject string
	Reply   string
	Header  nats.Header // nil where there is none
	Data    []byte
}

// Action is what happens to a message: one of the constants, or what [Delay] returns.
type Action time.Duration

// The actions. Order and "next" are those of one connection and direction.
const (
	Pass      Action = -iota // deliver it: the zero value
	Lose                     // deliver it never
	Duplicate                // deliver it twice
	Swap                     // deliver it after the next message; never, where none comes
	Cut                      // close the connection, with the message undelivered
)

// Delay holds a message, and all behind it, for d, which is above zero.
func Delay(d time.Duration) Action { return Action(d) }

// NewProxy starts a proxy to srv. It passes everything until a method says
// otherwise, and ends with the test, whatever is held or delayed in it. Where srv
// does not listen, as in a [Bubble], the proxy does not use the network either.
func NewProxy(t testing.TB, srv *Server) *Proxy {
	t.Helper()
	p := &Proxy{t: t, server: srv, links: map[*link]struct{}{}}
	p.Fault(nil)
	t.Cleanup(p.Close)
	if srv.URL() == "" {
		return p
	}
	var err error
	if p.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatalf("rpctest: proxy: %v", err)
	}
	p.pumps.Go(p.accept)
	return p
}

// URL is the address for nats.Connect, or "" where the server does not listen. Connections that go
// through the proxy should use nats.IgnoreDiscoveredServers where the server is part of a cluster.
func (p *Proxy) URL() string {
	if p.listener == nil {
		return ""
	}
	return "nats://" + p.listener.Addr().String()
}

// Connect returns a connection through the proxy that is closed when the test
// ends. It tries to reconnect every 10 ms, unless opts say otherwise.
func (p *Proxy) Connect(opts ...nats.Option) *nats.Conn {
	p.t.Helper()
	first := []nats.Option{nats.ReconnectWait(10 * time.Millisecond), nats.ReconnectJitter(0, 0), nats.IgnoreDiscoveredServers()}
	if p.listener == nil {
		first = append(first, nats.InProcessServer(p))
	}
	nc, err := nats.Connect(p.URL(), append(first, opts...)...)
	if err != nil {
		p.t.Fatalf("rpctest: connect through proxy: %v", err)
	}
	p.t.Cleanup(nc.Close)
	return nc
}

// InProcessConn makes a connection that does not use the network, whether or not the server
// listens. It is for nats.InProcessServer.
func (p *Proxy) InProcessConn() (net.Conn, error) {
	server, err := p.server.ns.InProcessConn()
	if err != nil {
		return nil, err
	}
	outer, inner := net.Pipe()
	if !p.link(&link{client: inner, server: server}) {
		return nil, errors.New("rpctest: the proxy is closed")
	}
	return outer, nil
}

// Fault makes f decide about every message from now on; nil lets all pass.
// f is called concurrently for different connections and directions, and must not block.
func (p *Proxy) Fault(f func(Message) Action) { p.fault.Store(&f) }

// Latency makes everything that is sent from now on take d in each direction. It stays in order.
func (p *Proxy) Latency(d time.Duration) { p.latency.Store(int64(d)) }

// Block stops what goes in the directions, or in both if there are none, of all connections and of
// those that are made meanwhile: as if the process behind the proxy stood still, or could not be
// reached. What is sent waits, as it does in the buffers of TCP, and arrives after Unblock. So does
// the end of a connection.
func (p *Proxy) Block(to ...Direction) {
	if len(to) == 0 {
		to = []Direction{ToServer, ToClient}
	}
	for _, d := range to {
		p.gates[d].shut()
	}
}

// Unblock ends what Block has begun.
func (p *Proxy) Unblock() {
	for i := range p.gates {
		p.gates[i].open()
	}
}

// Cut closes all connections. New ones are accepted: clients reconnect.
func (p *Proxy) Cut() { p.each((*link).close) }

// BlackHole drops what the connections of now carry from now on, without closing them. Neither side
// learns of it, not even when the other one closes. New connections pass.
func (p *Proxy) BlackHole() { p.each(func(l *link) { l.hole.Store(true) }) }

func (p *Proxy) each(f func(*link)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		f(l)
	}
}

// Close cuts all connections for good and waits until they are gone. Closing again does nothing.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	if p.listener != nil {
		_ = p.listener.Close() // the second time it is closed already
	}
	p.Cut()
	p.pumps.Wait()
}

// accept runs until the listener is closed.
func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.server.ns.Addr().String())
		if err != nil { // the server has been shut down
			_ = client.Close()
			continue
		}
		p.link(&link{client: client, server: server, limit: socketBuffer})
	}
}

// link starts the pumps of a link, unless the proxy is closed.
func (p *Proxy) link(l *link) bool {
	l.closed = make(chan struct{})
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		l.close()
		return false
	}
	p.links[l] = struct{}{}
	var writers sync.WaitGroup
	for _, w := range []*pump{newPump(p, l, ToServer), newPump(p, l, ToClient)} {
		p.pumps.Go(w.read)
		writers.Go(w.write)
	}
	p.pumps.Go(func() {
		writers.Wait()
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.links, l)
	})
	return true
}

// gate is shut or open, which is the zero value.
type gate struct {
	mu     sync.Mutex
	opened chan struct{} // closed when it opens; nil while it is open
}

func (g *gate) shut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened == nil {
		g.opened = make(chan struct{})
	}
}

func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.opened != nil {
		close(g.opened)
		g.opened = nil
	}
}

// wait returns a channel that is closed when the gate opens, or nil if it is open.
func (g *gate) wait() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.opened
}
