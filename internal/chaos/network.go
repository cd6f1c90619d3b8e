package main

import (
	"net"
	"slices"
	"sync"
	"time"
)

// network is what is between one process and the nodes. It knows bytes only: rpctest.Proxy, which
// knows messages, loses some of them, as no TCP connection does.
type network struct {
	pumps sync.WaitGroup
	urls  []string // for the process, by node

	mu        sync.Mutex
	weather   *weather
	listeners []net.Listener
	links     map[*link]struct{}
	closed    bool
}

// weather is how a network is for a while. The zero value is a good one.
type weather struct {
	hold    [2]bool       // by direction: no byte passes, until another weather comes
	latency time.Duration // of each direction
	rate    int           // bytes a second, of each link and direction; 0 for any
	changed chan struct{} // closed when another weather comes
}

// direction is which way bytes go.
type direction int

const (
	toNode direction = iota
	toProcess
)

func (d direction) String() string { return [...]string{"to the node", "to the process"}[d] }

// openNetwork opens a way to each node. An address is asked for whenever the process connects, as a
// node that has been started again has another one.
func openNetwork(nodes []func() string) (*network, error) {
	n := &network{weather: &weather{changed: make(chan struct{})}, links: map[*link]struct{}{}}
	for _, address := range nodes {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			n.close()
			return nil, err
		}
		n.listeners = append(n.listeners, listener)
		n.urls = append(n.urls, "nats://"+listener.Addr().String())
		n.pumps.Go(func() { n.accept(listener, address) })
	}
	return n, nil
}

// from returns the URLs of the nodes, from number i on.
func (n *network) from(i int) []string {
	i %= len(n.urls)
	return slices.Concat(n.urls[i:], n.urls[:i])
}

// accept runs until the listener is closed.
func (n *network) accept(listener net.Listener, address func() string) {
	for {
		process, err := listener.Accept()
		if err != nil {
			return
		}
		node, err := net.Dial("tcp", address())
		if err != nil { // the node is down
			reset(process)
			continue
		}
		n.link(process, node)
	}
}

func (n *network) link(process, node net.Conn) {
	l := &link{network: n, conns: [2]net.Conn{process, node}, closed: make(chan struct{})}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		l.close(reset)
		return
	}
	n.links[l] = struct{}{}
	n.pumps.Go(func() { l.pump(toNode, process, node) })
	n.pumps.Go(func() { l.pump(toProcess, node, process) })
}

// set changes the weather, of new links too.
func (n *network) set(w weather) {
	w.changed = make(chan struct{})
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.weather.changed)
	n.weather = &w
}

func (n *network) now() *weather {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.weather
}

// cut resets all links: both ends find out at once, and what was on its way is lost.
func (n *network) cut() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for l := range n.links {
		l.close(reset)
	}
}

// close ends all links and waits for them. Closing again does nothing.
func (n *network) close() {
	n.mu.Lock()
	n.closed = true
	for _, l := range n.listeners {
		_ = l.Close() // the second time it is closed already
	}
	n.mu.Unlock()
	n.cut()
	n.pumps.Wait()
}

// reset closes a connection by a RST.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0) // it may be closed already, as below
	}
	_ = c.Close()
}

func finish(c net.Conn) { _ = c.Close() }

// link is a connection of the process to a node: two, with a pump for each direction between them.
type link struct {
	network *network
	conns   [2]net.Conn
	once    sync.Once
	closed  chan struct{}
}

func (l *link) close(how func(net.Conn)) {
	l.once.Do(func() {
		close(l.closed)
		how(l.conns[0])
		how(l.conns[1])
	})
}

// chunk is bytes and when they came.
type chunk struct {
	at   time.Time
	data []byte
}

// maxChunks are on their way in one direction, more than a process sends while a fault lasts. Then
// its writes would block, and nats.go has no deadline for a publish: calls would end late.
const maxChunks = 1 << 14

// pump carries one direction. The end of a connection takes as long as bytes do.
func (l *link) pump(d direction, from, to net.Conn) {
	chunks := make(chan chunk, maxChunks)
	l.network.pumps.Go(func() { l.read(from, chunks) })
	for c := range chunks {
		if !l.await(d, c) {
			break
		}
		if _, err := to.Write(c.data); err != nil {
			break
		}
	}
	l.close(finish)
	l.network.mu.Lock()
	defer l.network.mu.Unlock()
	delete(l.network.links, l)
}

// read ends when either end of the link is closed. What is left of bytes then is a chunk of none.
func (l *link) read(from net.Conn, chunks chan<- chunk) {
	defer close(chunks)
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		select {
		case chunks <- chunk{time.Now(), slices.Clone(buf[:n])}:
		case <-l.closed:
			return
		}
		if err != nil {
			return
		}
	}
}

// await returns true when a chunk may go on, false if the link is closed before.
func (l *link) await(d direction, c chunk) bool {
	for {
		w := l.network.now()
		wait := time.Until(c.at.Add(w.latency))
		if w.rate > 0 {
			wait = max(wait, time.Duration(len(c.data))*time.Second/time.Duration(w.rate))
		}
		switch {
		case w.hold[d]:
			wait = -1
		case wait <= 0:
			return true
		}
		if passed, open := l.pause(w, wait); !open || passed {
			return open
		}
	}
}

// pause waits for so long, or for another weather; for that alone if wait is below zero.
func (l *link) pause(w *weather, wait time.Duration) (passed, open bool) {
	var passes <-chan time.Time
	if wait >= 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		passes = timer.C
	}
	select {
	case <-passes:
		return true, true
	case <-w.changed:
		return false, true
	case <-l.closed:
		return false, false
	}
}
