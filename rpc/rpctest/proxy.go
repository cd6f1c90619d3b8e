package rpctest

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
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
// Faults of one connection only need a proxy of their own. TLS does not get
// through it. Its methods may be called concurrently.
type Proxy struct {
	t        testing.TB
	target   string
	listener net.Listener
	fault    atomic.Pointer[func(Message) Action]
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

// NewProxy starts a proxy to srv. It passes everything until Fault says
// otherwise, and ends with the test, whatever is held or delayed in it.
func NewProxy(t testing.TB, srv *Server) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("rpctest: proxy: %v", err)
	}
	p := &Proxy{t: t, target: srv.ns.Addr().String(), listener: listener, links: map[*link]struct{}{}}
	p.Fault(nil)
	p.pumps.Go(p.accept)
	t.Cleanup(p.Close)
	return p
}

// URL is the address for nats.Connect. Connections that go through the proxy
// should use nats.IgnoreDiscoveredServers where the server is part of a cluster.
func (p *Proxy) URL() string { return "nats://" + p.listener.Addr().String() }

// Connect returns a connection through the proxy that is closed when the test
// ends. It tries to reconnect every 10 ms, unless opts say otherwise.
func (p *Proxy) Connect(opts ...nats.Option) *nats.Conn {
	p.t.Helper()
	opts = append([]nats.Option{nats.ReconnectWait(10 * time.Millisecond), nats.ReconnectJitter(0, 0), nats.IgnoreDiscoveredServers()}, opts...)
	nc, err := nats.Connect(p.URL(), opts...)
	if err != nil {
		p.t.Fatalf("rpctest: connect through proxy: %v", err)
	}
	p.t.Cleanup(nc.Close)
	return nc
}

// Fault makes f decide about every message from now on; nil lets all pass.
// f is called concurrently for different connections and directions, and must not block.
func (p *Proxy) Fault(f func(Message) Action) { p.fault.Store(&f) }

// Cut closes all connections. New ones are accepted: clients reconnect.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.close()
	}
}

// Close cuts all connections for good and waits until they are gone. Closing again does nothing.
func (p *Proxy) Close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	_ = p.listener.Close() // the second time it is closed already
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
		server, err := net.Dial("tcp", p.target)
		if err != nil { // the server has been shut down
			_ = client.Close()
			continue
		}
		p.link(client, server)
	}
}

// link is one connection: a pair of sockets, and two pumps between them which
// end when either socket is closed.
type link struct {
	client, server net.Conn
	once           sync.Once
	closed         chan struct{}
}

func (p *Proxy) link(client, server net.Conn) {
	l := &link{client: client, server: server, closed: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		l.close()
		return
	}
	p.links[l] = struct{}{}
	p.pumps.Go(func() { p.pump(l, ToServer, client, server) })
	p.pumps.Go(func() { p.pump(l, ToClient, server, client) })
}

func (l *link) close() {
	l.once.Do(func() {
		close(l.closed)
		_, _ = l.client.Close(), l.server.Close() // they may be closed from the other end
	})
}

func (p *Proxy) pump(l *link, to Direction, from io.Reader, dst io.Writer) {
	w := pump{proxy: p, link: l, to: to, r: bufio.NewReaderSize(from, 64<<10), w: bufio.NewWriterSize(dst, 64<<10)}
	for w.step() {
	}
	l.close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.links, l)
}

// pump carries one direction of a link.
type pump struct {
	proxy *Proxy
	link  *link
	to    Direction
	r     *bufio.Reader
	w     *bufio.Writer
	held  []byte // a message to deliver after the next
}

// step carries one protocol line, with the message that it announces. It returns false at the
// end of the link. What cannot be written is not read, so errors of w show there.
func (p *pump) step() bool {
	line, err := p.r.ReadString('\n')
	if err != nil {
		return false
	}
	m, size, ok := parseLine(line, p.to)
	if !ok {
		_, err = p.w.WriteString(line)
		return err == nil && p.flush()
	}
	raw := make([]byte, len(line)+size.total+len("\r\n"))
	copy(raw, line)
	body := raw[len(line):]
	if _, err := io.ReadFull(p.r, body); err != nil {
		return false
	}
	return p.act(p.decide(&m, body[:size.total], size.header), raw) && p.flush()
}

func (p *pump) flush() bool {
	return p.r.Buffered() > 0 || p.w.Flush() == nil
}

func (p *pump) decide(m *Message, body []byte, header int) Action {
	f := *p.proxy.fault.Load()
	if f == nil {
		return Pass
	}
	m.Data = body[header:]
	if header > 0 {
		m.Header, _ = nats.DecodeHeadersMsg(body[:header]) // one that does not parse is none
	}
	return f(*m)
}

// act does what was decided about the message raw.
func (p *pump) act(a Action, raw []byte) bool {
	times := 1
	switch {
	case a == Cut:
		return false
	case a == Lose:
		return true
	case a == Swap && p.held == nil:
		p.held = raw
		return true
	case a == Duplicate:
		times = 2
	case a > 0 && !p.wait(time.Duration(a)):
		return false
	}
	for range times {
		if _, err := p.w.Write(raw); err != nil {
			return false
		}
	}
	_, err := p.w.Write(p.held)
	p.held = nil
	return err == nil
}

// wait lets what was written go, and returns false when the link ends meanwhile.
func (p *pump) wait(d time.Duration) bool {
	if p.w.Flush() != nil {
		return false
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-p.link.closed:
		return false
	}
}

// sizes are those of a message: of its header, and with it.
type sizes struct{ header, total int }

// parseLine reads the line before a message:
//
//	PUB subject [reply] size           MSG subject sid [reply] size
//	HPUB subject [reply] header size   HMSG subject sid [reply] header size
func parseLine(line string, to Direction) (m Message, s sizes, ok bool) {
	fields := strings.Fields(line)
	if len(fields) < 3 {
		return m, s, false
	}
	numbers, addresses := 1, 1
	switch verb := strings.ToUpper(fields[0]); {
	case to == ToServer && verb == "PUB", to == ToClient && verb == "MSG":
	case to == ToServer && verb == "HPUB", to == ToClient && verb == "HMSG":
		numbers = 2
	default:
		return m, s, false
	}
	if to == ToClient {
		addresses = 2 // the sid
	}
	first := len(fields) - numbers
	if first < 1+addresses {
		return m, s, false
	}
	m = Message{To: to, Subject: fields[1]}
	if first > 1+addresses {
		m.Reply = fields[1+addresses]
	}
	s, err := parseSizes(fields[first:])
	return m, s, err == nil
}

func parseSizes(fields []string) (s sizes, err error) {
	if s.total, err = strconv.Atoi(fields[len(fields)-1]); err != nil {
		return s, err
	}
	if len(fields) == 2 {
		s.header, err = strconv.Atoi(fields[0])
	}
	if err == nil && (s.header < 0 || s.total < s.header) {
		err = fmt.Errorf("header of %d bytes in a message of %d", s.header, s.total)
	}
	return s, err
}
