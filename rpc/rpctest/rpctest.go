// Package rpctest gives a test a real NATS server inside the test's process.
//
//	func TestOrders(t *testing.T) {
//		nc := rpctest.Connect(t)
//		srv := rpc.NewServer(nc)
//		...
//	}
//
// What it starts ends with the test: connections, the server, its JetStream
// folder. When the last of a package's servers has stopped it checks that no
// goroutine is left; a leak fails the test that stopped it.
package rpctest

import (
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"
)

// startTimeout is how long a server may take to be ready, generous because
// test machines are.
const startTimeout = 20 * time.Second

// Server is an embedded NATS server. Its methods may be called concurrently.
type Server struct {
	t  testing.TB
	ns *server.Server
}

// Option changes how NewServer starts its server.
type Option func(*config)

type config struct {
	options   server.Options
	leakCheck bool
}

// WithJetStream enables JetStream, with its files in a folder of the test's.
func WithJetStream() Option {
	return func(c *config) { c.options.JetStream = true }
}

// WithServerOptions lets f change the options of the embedded server, for
// accounts, permissions, limits and clusters.
func WithServerOptions(f func(*server.Options)) Option {
	return func(c *config) { f(&c.options) }
}

// WithoutLeakCheck leaves out the check for goroutines at the end. A test that
// shares its time (t.Parallel) with others that start no server may need it,
// as the check cannot tell whose a goroutine is.
func WithoutLeakCheck() Option {
	return func(c *config) { c.leakCheck = false }
}

// inMemory makes a server not listen: connections to it do not use the network.
func inMemory(c *config) { c.options.DontListen = true }

// Connect starts a server and returns a connection to it that does not use
// the network: the shortest way to a test. Options of nats.go apply to the connection.
func Connect(t testing.TB, opts ...nats.Option) *nats.Conn {
	t.Helper()
	return NewServer(t, inMemory).Connect(opts...)
}

// NewServer starts a NATS server that listens on a free port of the loopback
// interface and stops with the test. It fails the test where it cannot start.
func NewServer(t testing.TB, opts ...Option) *Server {
	t.Helper()
	c := config{leakCheck: true, options: server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
	}}
	for _, opt := range opts {
		opt(&c)
	}
	if c.options.JetStream && c.options.StoreDir == "" {
		c.options.StoreDir = t.TempDir()
	}
	if c.leakCheck {
		leaks.enter(t)
	}
	ns, err := server.NewServer(&c.options)
	if err != nil {
		t.Fatalf("rpctest: NATS server: %v", err)
	}
	o := &c.options
	otherListeners := o.Cluster.Port != 0 || o.Gateway.Port != 0 || o.LeafNode.Port != 0 || o.Websocket.Port != 0 || o.MQTT.Port != 0
	s := &Server{t: t, ns: ns}
	t.Cleanup(s.Shutdown)
	ns.Start() // from here on the options are the NATS server's: it writes ports to them
	if !s.ready(otherListeners) {
		t.Fatalf("rpctest: NATS server was not ready after %v", startTimeout)
	}
	return s
}

// ready avoids ReadyForConnections where it can, which polls every 25 ms: the
// listener for clients is there after Start, other listeners may not be.
func (s *Server) ready(otherListeners bool) bool {
	if s.ns.Addr() != nil && !otherListeners {
		return true
	}
	return s.ns.ReadyForConnections(startTimeout)
}

// URL is the address for nats.Connect. A server that does not listen has "".
func (s *Server) URL() string {
	if s.ns.Addr() == nil {
		return ""
	}
	return s.ns.ClientURL()
}

// NATS returns the embedded server, for tests that look inside it.
func (s *Server) NATS() *server.Server { return s.ns }

// Connect returns a connection that is closed when the test ends. It fails
// the test where it cannot connect. It does not use the network if the server
// does not listen.
func (s *Server) Connect(opts ...nats.Option) *nats.Conn {
	s.t.Helper()
	if s.URL() == "" {
		opts = append(opts, nats.InProcessServer(s.ns))
	}
	nc, err := nats.Connect(s.URL(), opts...)
	if err != nil {
		s.t.Fatalf("rpctest: connect: %v", err)
	}
	s.t.Cleanup(nc.Close)
	return nc
}

// Shutdown stops the server and waits until it has stopped. The second call does nothing.
func (s *Server) Shutdown() {
	s.ns.Shutdown()
	s.ns.WaitForShutdown()
}

// leaks checks for leaked goroutines when the last server has stopped: an
// earlier check would see the goroutines of tests that run beside it.
var leaks = leakCheck{find: goleak.Find}

type leakCheck struct {
	find func(...goleak.Option) error

	mu      sync.Mutex
	servers int
	started int // servers, and those that have stopped
	// The goroutines that ran when the first server started; nil after a check.
	before goleak.Option
}

func (l *leakCheck) enter(t testing.TB) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.before == nil {
		l.before = goleak.IgnoreCurrent()
	}
	l.servers++
	l.started++
	t.Cleanup(func() { l.leave(t) }) // runs after the cleanups of what the test starts later
}

func (l *leakCheck) leave(t testing.TB) {
	l.mu.Lock()
	l.servers--
	last, before, started := l.servers == 0, l.before, l.started
	l.mu.Unlock()
	if !last {
		return
	}
	var err error
	if !t.Failed() {
		// A test that runs in parallel may be about to start its server.
		err = l.find(before, goleak.IgnoreAnyFunction("testing.tRunner"))
	}
	if l.checked(started) && err != nil {
		t.Errorf("rpctest: goroutines are left: %v", err)
	}
}

// checked ends a check, and reports whether no server has started since it began. If one has, what
// the check found may belong to it: the next check decides, about the goroutines of both.
func (l *leakCheck) checked(started int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.started != started {
		return false
	}
	l.before = nil
	return true
}
