package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Server serves any number of services over a NATS connection, on which
// other servers and clients may be too. Its methods may be called concurrently.
//
// A server is made by NewServer, started and shut down, each once. Services may be
// registered before and while it runs. Shut it down before the connection is closed or
// drained: nats.Conn.Drain does not wait for handlers.
type Server struct {
	nc      *nats.Conn
	options serverOptions
	next    Next  // the folded interceptors and the handler
	err     error // of an option
	errors  asyncErrors
	out     publisher
	streams streamTable

	turn chan struct{} // holds a token while Start, Register, Unregister or Shutdown works

	mu       sync.Mutex // not held while anything waits for NATS
	state    serverState
	services []*service
	closed   chan nats.Status // of the connection, while running
	ended    chan struct{}    // closed when stopped
}

// serverState is the state of a server: new -> running -> stopping -> stopped,
// or new -> stopped. Start and Shutdown change it.
type serverState uint8

const (
	serverNew serverState = iota
	serverRunning
	serverStopping
	serverStopped
)

// ErrServerStopped is returned by the methods of a server that has been shut down.
var ErrServerStopped = errors.New("rpc: the server has been shut down")

// NewServer returns a server for a connection. An invalid option is the
// error of Register, Start and Run, with its name.
func NewServer(nc *nats.Conn, opts ...ServerOption) *Server {
	s := &Server{nc: nc, out: publisher{nc: nc, maxBatch: maxAnswerBatch}, turn: make(chan struct{}, 1), ended: make(chan struct{})}
	s.options = serverOptions{
		serviceOptions: serviceOptions{concurrency: defaultConcurrency, queue: defaultQueue, streams: defaultMaxStreams},
		peerOptions:    peerOptions{maxMessageSize: defaultMaxMessageSize, heartbeat: defaultHeartbeat},
		logger:         slog.Default(), timeout: defaultTimeout, grace: defaultGracePeriod,
	}
	for _, opt := range opts {
		if opt == nil {
			s.err = errors.Join(s.err, errNilOption)
			continue
		}
		s.err = errors.Join(s.err, opt.applyServer(&s.options))
	}
	if nc == nil {
		s.err = errors.Join(s.err, errors.New("the NATS connection is nil"))
	}
	s.streams.heartbeat = s.options.heartbeat
	s.next = chain(s.options.interceptors, handle)
	s.errors = s.asyncError
	return s
}

// Run starts the server, serves until ctx ends, and shuts down, for which
// running handlers have the grace period. It returns nil after a clean end, and an
// error if the server could not start, had to stop handlers, or lost its connection for good.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Start(ctx); err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return nil // asked to end before it was ready
		}
		return err
	}
	select {
	case <-ctx.Done():
	case <-s.ended:
		if s.nc.IsClosed() {
			return fmt.Errorf("rpc: server: %w", nats.ErrConnectionClosed)
		}
		return nil
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.options.grace)
	defer cancel()
	return s.Shutdown(grace)
}

// intercepts tells whether somebody sees the calls beside their handlers.
func (s *Server) intercepts() bool { return len(s.options.interceptors) > 0 }

// Start subscribes for all services that are registered and returns when NATS
// has confirmed it: the server is ready. ctx bounds the wait. Where NATS refuses a
// subscription Start fails, names it, and nothing stays behind.
func (s *Server) Start(ctx context.Context) error {
	if s.err != nil {
		return fmt.Errorf("rpc: server: %w", s.err)
	}
	if err := s.take(ctx); err != nil {
		return fmt.Errorf("rpc: start: %w", err)
	}
	defer s.done()
	switch services, state := s.registered(); {
	case state == serverRunning:
		return errors.New("rpc: the server runs already")
	case state != serverNew:
		return ErrServerStopped
	default:
		return s.start(ctx, services)
	}
}

func (s *Server) start(ctx context.Context, services []*service) error {
	hooks.add(s.nc, &s.errors)
	if err := s.subscribe(ctx, services); err != nil {
		hooks.remove(s.nc, &s.errors)
		return fmt.Errorf("rpc: start: %w", err)
	}
	s.closed = s.nc.StatusChanged(nats.CLOSED, nats.RECONNECTING, nats.DISCONNECTED, nats.DRAINING_SUBS)
	s.setState(serverRunning)
	go s.watchConnection(s.closed)
	return nil
}

// take waits until nobody else changes the server's subscriptions.
func (s *Server) take(ctx context.Context) error {
	select {
	case s.turn <- struct{}{}:
		return nil
	default:
	}
	select {
	case s.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Server) done() { <-s.turn }

func (s *Server) registered() ([]*service, serverState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.services), s.state
}

func (s *Server) setState(state serverState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = state
}

// watchConnection ends the streams when the connection is lost, and the server
// when it is closed. Shutdown, by closing the channel, ends it otherwise.
func (s *Server) watchConnection(status <-chan nats.Status) {
	for !s.nc.IsClosed() { // it may have been closed before anybody listened
		if _, ok := <-status; !ok {
			break
		}
		if s.nc.Status() == nats.DRAINING_SUBS {
			s.options.logger.Warn("natscall: the NATS connection is draining; it does not wait for handlers, Server.Shutdown does")
			continue
		}
		s.streams.endAll(failf(CodeUnavailable, MayHaveRun, "the NATS connection was lost").because(nats.ErrDisconnected))
	}
	if !s.nc.IsClosed() {
		return
	}
	s.turn <- struct{}{} // who has it does not wait long for a closed connection
	defer s.done()
	now, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.shutdown(now); err != nil && !errors.Is(err, context.Canceled) {
		s.options.logger.Error("natscall: shutdown after the connection was closed", "error", err)
	}
}

// subscribe starts services and makes sure that NATS has accepted it.
func (s *Server) subscribe(ctx context.Context, services []*service) (err error) {
	before := s.nc.LastError()
	defer func() {
		if err != nil {
			for _, svc := range services {
				svc.unsubscribeAll()
			}
		}
	}()
	for _, svc := range services {
		if err = svc.start(); err != nil {
			return err
		}
	}
	if err = s.flush(ctx); err != nil {
		return err
	}
	// The NATS server reports a refused subscription before it answers the flush.
	if last := s.nc.LastError(); last != nil && last != before { //nolint:errorlint // identity: is it a new one?
		if _, refused := violation(last, "Subscription"); refused || errors.Is(last, nats.ErrMaxSubscriptionsExceeded) {
			return last
		}
	}
	return nil
}

// flushTimeout bounds a flush whose context has no deadline.
const flushTimeout = 10 * time.Second

func (s *Server) flush(ctx context.Context) error {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, flushTimeout)
		defer cancel()
	}
	if err := s.nc.FlushWithContext(ctx); err != nil {
		return fmt.Errorf("flush, while the NATS connection is %s: %w", strings.ToLower(s.nc.Status().String()), err)
	}
	return nil
}

// add makes a service part of the server, and ready if the server runs.
func (s *Server) add(svc *service) error {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	if err := s.take(ctx); err != nil {
		return err
	}
	defer s.done()
	services, state := s.registered()
	if state > serverRunning {
		return ErrServerStopped
	}
	if err := svc.conflict(services); err != nil {
		return err
	}
	if state == serverRunning {
		if err := s.subscribe(ctx, []*service{svc}); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.services = append(s.services, svc)
	return nil
}

// conflict refuses a service that is there, and a subject that is taken.
func (svc *service) conflict(services []*service) error {
	taken := map[string]string{}
	for _, other := range services {
		if other.desc.Name == svc.desc.Name {
			return errors.New("the server has it already")
		}
		for _, e := range other.endpoints {
			taken[e.subject] = e.method.FullName()
		}
	}
	for _, e := range svc.endpoints {
		if owner, ok := taken[e.subject]; ok {
			return fmt.Errorf("%s and %s share the subject %q", owner, e.method.FullName(), e.subject)
		}
		taken[e.subject] = e.method.FullName()
	}
	return nil
}

// Unregister takes a service, by its full name, off the server: it waits for its
// running handlers; when ctx ends first they are cancelled, their callers answered, and ctx's error is returned.
func (s *Server) Unregister(ctx context.Context, name string) error {
	if err := s.take(ctx); err != nil {
		return fmt.Errorf("rpc: unregister %s: %w", name, err)
	}
	defer s.done()
	svc, state := s.remove(name)
	switch {
	case svc == nil:
		return fmt.Errorf("rpc: unregister: the server has no service %q", name)
	case state != serverRunning:
		return nil
	}
	if err := svc.drain(ctx); err != nil {
		return fmt.Errorf("rpc: unregister %s: %w", name, err)
	}
	return s.flush(ctx)
}

// remove takes a service out of the list; nil if it is not there.
func (s *Server) remove(name string) (*service, serverState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, svc := range s.services {
		if svc.desc.Name == name {
			s.services = slices.Delete(slices.Clone(s.services), i, i+1)
			return svc, s.state
		}
	}
	return nil, s.state
}

// Shutdown ends the server without losing a call: it takes no new requests,
// answers those it has, and returns when their answers are with NATS. When ctx
// ends first the handlers that still run are cancelled, their callers are
// answered with CodeUnavailable, and ctx's error is returned. A second
// Shutdown waits for the first. The connection stays open.
func (s *Server) Shutdown(ctx context.Context) error {
	if err := s.take(ctx); err != nil {
		return fmt.Errorf("rpc: shutdown: %w", err)
	}
	defer s.done()
	return s.shutdown(ctx)
}

// shutdown is Shutdown for who has the turn.
func (s *Server) shutdown(ctx context.Context) error {
	services, state := s.registered()
	switch state {
	case serverStopped:
		return nil
	case serverRunning:
		s.setState(serverStopping)
		defer s.setState(serverStopped)
		defer close(s.ended)
		return s.stop(ctx, services)
	}
	s.setState(serverStopped)
	close(s.ended)
	return nil
}

func (s *Server) stop(ctx context.Context, services []*service) error {
	errs := make([]error, len(services))
	var wg sync.WaitGroup
	for i, svc := range services {
		wg.Go(func() { errs[i] = svc.drain(ctx) })
	}
	wg.Wait()
	err := errors.Join(errs...)
	s.streams.close(failf(CodeUnavailable, MayHaveRun, "the server has been shut down"))
	if flushErr := s.lastFlush(ctx); err == nil {
		err = flushErr
	}
	hooks.remove(s.nc, &s.errors)
	s.nc.RemoveStatusListener(s.closed)
	if err != nil {
		return fmt.Errorf("rpc: shutdown: %w", err)
	}
	return nil
}

// lastFlushTimeout is what the last answers have where the context is over:
// little, as who calls Shutdown has waited long enough.
const lastFlushTimeout = time.Second

// lastFlush makes sure that the answers are with NATS.
func (s *Server) lastFlush(ctx context.Context) error {
	switch {
	case s.nc.IsClosed():
		return nil
	case !s.nc.IsConnected():
		return fmt.Errorf("the last answers may be lost: %w", nats.ErrDisconnected)
	case ctx.Err() == nil:
		return s.flush(ctx)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastFlushTimeout)
	defer cancel()
	return s.flush(ctx)
}

// asyncError reports what NATS does not let the server do: nobody else would notice.
func (s *Server) asyncError(_ *nats.Subscription, err error) {
	if subject, ok := violation(err, "Publish"); ok {
		s.options.logger.Error("natscall: the NATS user may not publish an answer; it needs allow_responses", "subject", subject)
	}
}
