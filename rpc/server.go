package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/natscall/natscall/rpc/internal/connwatch"
	"github.com/natscall/natscall/rpc/internal/liveness"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/stream"
	"github.com/natscall/natscall/rpc/internal/wait"
)

// Server serves any number of services over a NATS connection, which it may share with other
// servers and with clients. Its methods may be called concurrently.
//
// A server is made by NewServer, started once and shut down once. Services may be registered before
// it is started and while it runs. Shut it down before you close or drain the connection:
// nats.Conn.Drain does not wait for handlers.
type Server struct {
	nc      *nats.Conn
	options serverOptions
	next    Next  // the folded interceptors, those of the service, and the handler
	err     error // of an option
	clock   clock
	out     *publish.Publisher
	streams *stream.Table

	// turn holds a token while Start, Register, Unregister or Shutdown changes the server, but not
	// while one of them waits for handlers.
	turn     chan struct{}
	stopping *wait.Joint // the shutdown; its end is that of the server
	serving  serving

	mu       sync.Mutex // not held while anything waits for NATS
	state    serverState
	services []*service // including those that are being unregistered

	async asyncErrors
	stall stallGuard
}

// serving is a context that ends when the shutdown begins. Then nothing waits for NATS in order to
// serve.
type serving struct {
	ctx    context.Context
	end    context.CancelCauseFunc
	status chan nats.Status // of the connection, while running; changed with the turn
}

// asyncErrors is what a server does with the errors that its connection reports asynchronously.
type asyncErrors struct {
	listener      connwatch.Listener
	refused       connwatch.Refusals // while services start
	subscriptions *connwatch.Subscriptions
	answers       refusedAnswers
}

// errNoServer is the error of a Server that was not made by NewServer.
var errNoServer = errors.New("the server is nil or zero: rpc.NewServer makes one")

// made reports whether s was made by NewServer.
func (s *Server) made() bool { return s != nil && s.turn != nil }

// serverState is the state of a server: new -> running -> stopping -> stopped,
// or new -> stopped. Start and Shutdown change it.
type serverState uint8

const (
	serverNew serverState = iota
	serverRunning
	serverStopping
	serverStopped
)

// ErrServerStopped is returned, wrapped, by the methods of a server that has been shut down.
var ErrServerStopped = errors.New("the server has been shut down")

// maxAnswerBatch bounds the answers that share a NATS message, in bytes. It is about the size of
// the read buffer of nats.go.
const maxAnswerBatch = 32 << 10

// NewServer returns a server for a connection. If an option is invalid, Register, Start and Run
// return an error that names it.
func NewServer(nc *nats.Conn, opts ...ServerOption) *Server {
	s := &Server{nc: nc, clock: newClock(), turn: make(chan struct{}, 1)}
	s.out = publish.New(nc, publish.Config{Now: s.clock.now, MaxBatch: maxAnswerBatch})
	s.stopping = wait.NewJoint()
	s.serving.ctx, s.serving.end = context.WithCancelCause(context.Background())
	s.options = serverOptions{
		serviceOptions: serviceOptions{concurrency: defaultConcurrency, queue: queueAsConcurrency, streams: defaultMaxStreams},
		peerOptions:    peerOptions{heartbeat: defaultHeartbeat},
		sizes:          sizeLimits{defaultMaxSize, defaultMaxSize},
		plainStreams:   plainStreamLimits{defaultPlainBytes, defaultPlainTime},
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
	s.streams = stream.NewTable(s.options.heartbeat)
	s.next = chain(s.options.peerOptions.interceptors, func(ctx context.Context, call *Call) error {
		return call.served.endpoint.service.next(ctx, call)
	})
	s.async.listener = s.asyncError
	s.async.subscriptions = connwatch.NewSubscriptions()
	s.async.answers.log.Every = refusedLogInterval
	s.stall.server = s
	return s
}

// Run starts the server, serves until ctx ends, and then shuts down, giving running handlers the
// grace period. If the connection is down, or not up yet (nats.RetryOnFailedConnect), Run waits for
// it until ctx ends. Run returns nil after a clean end, and an error if the server could not start,
// had to stop handlers, or lost its connection for good.
func (s *Server) Run(ctx context.Context) error {
	if !s.made() {
		return fmt.Errorf("rpc: run: %w", errNoServer)
	}
	if services, state := s.registered(); s.err == nil && len(services) == 0 && state == serverNew {
		s.options.logger.Warn("natscall: the server has no services; is a Register missing before Run?")
	}
	if err := s.Start(ctx); err != nil {
		if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
			return nil // asked to end before it was ready
		}
		return err
	}
	select {
	case <-ctx.Done():
	case <-s.stopping.Ended():
		if s.nc.IsClosed() {
			return fmt.Errorf("rpc: server: %w", connwatch.ClosedError(s.nc))
		}
		return shutdownError(s.stopping.Err())
	}
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.options.grace)
	defer cancel()
	return s.Shutdown(grace)
}

// Start makes the subscriptions of all registered services and returns when NATS has confirmed
// them: the server is ready. Only ctx bounds the wait, which includes the one for a connection that
// is down or not up yet. If NATS refuses subscriptions, Start fails with an error that names them,
// and leaves no subscription behind.
func (s *Server) Start(ctx context.Context) error {
	if !s.made() {
		return fmt.Errorf("rpc: start: %w", errNoServer)
	}
	if s.err != nil {
		return fmt.Errorf("rpc: server: %w", s.err)
	}
	if err := s.takeTurn(ctx); err != nil {
		return fmt.Errorf("rpc: start: %w", err)
	}
	defer s.giveTurn()
	switch services, state := s.registered(); {
	case state == serverRunning:
		return errors.New("rpc: start: the server runs already")
	case state != serverNew:
		return fmt.Errorf("rpc: start: %w", ErrServerStopped)
	default:
		return s.start(ctx, services)
	}
}

func (s *Server) start(ctx context.Context, services []*service) error {
	s.stall.ticked.Store(math.MaxInt64) // before it ticks, nothing is held
	connwatch.Listen(s.nc, &s.async.listener)
	if err := s.subscribe(ctx, services); err != nil {
		connwatch.Unlisten(s.nc, &s.async.listener)
		return fmt.Errorf("rpc: start: %w", err)
	}
	s.stall.ticked.Store(int64(s.clock.now()))
	s.serving.status = s.nc.StatusChanged(nats.CLOSED, nats.RECONNECTING, nats.DISCONNECTED, nats.DRAINING_SUBS)
	s.setState(serverRunning)
	go s.watchConnection(s.serving.status)
	return nil
}

// takeTurn waits for the turn to change the server's subscriptions.
func (s *Server) takeTurn(ctx context.Context) error {
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

func (s *Server) giveTurn() { <-s.turn }

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

// watchConnection ends the streams when the connection is lost, and the server when it is closed.
// It also makes subscriptions again that NATS has refused. It ends when the connection is closed,
// or when Shutdown closes the channel.
func (s *Server) watchConnection(status <-chan nats.Status) {
	tend := time.NewTimer(tendInterval)
	tend.Stop()
	defer tend.Stop()
	ticker := time.NewTicker(liveness.ServerTick)
	defer ticker.Stop()
	for !s.nc.IsClosed() { // it may have been closed before status was registered
		select {
		case <-s.async.subscriptions.Refused:
			tend.Reset(tendInterval)
			continue
		case <-tend.C:
			if s.tend() > 0 {
				tend.Reset(tendInterval)
			}
			continue
		case <-ticker.C:
			s.tick()
			continue
		case _, ok := <-status:
			if !ok {
				return // the server has been shut down
			}
		}
		if s.nc.Status() == nats.DRAINING_SUBS {
			s.options.logger.Warn("natscall: the NATS connection is draining; it does not wait for handlers, Server.Shutdown does")
			continue
		}
		s.streams.Break(failf(CodeUnavailable, ExecutionMayHaveRun, "the NATS connection was lost").because(nats.ErrDisconnected))
		services, _ := s.registered()
		for _, svc := range services {
			svc.calls.callers.Reset()
		}
	}
	if _, state := s.registered(); state == serverStopped {
		return
	}
	s.options.logger.Error("natscall: the server ends, as its NATS connection is closed", "error", connwatch.ClosedError(s.nc))
	now, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(now); err != nil && !errors.Is(err, context.Canceled) {
		s.options.logger.Error("natscall: shutdown after the connection was closed", "error", err)
	}
}

// tick is a tick of the server's clock. It ends the calls of clients that are dead.
func (s *Server) tick() {
	s.stall.tick()
	if !s.nc.IsConnected() {
		return // nothing is known
	}
	services, _ := s.registered()
	for _, svc := range services {
		svc.endDead()
	}
}

// tendInterval is the time between two attempts to make a subscription again that NATS has refused.
// A permission that has come back is used after that, and noticed after twice that.
const tendInterval = 1500 * time.Millisecond

// tend makes the subscriptions again that NATS has refused. It returns how many there are still.
func (s *Server) tend() (refused int) {
	if !s.nc.IsConnected() {
		return 1 // nothing is known
	}
	back, refused := s.async.subscriptions.Tend()
	for _, sub := range back {
		s.options.logger.Warn("natscall: the NATS user may subscribe to a subject again: it is served", "subject", sub.Subject)
	}
	return refused
}

// subscribe starts services and makes sure that NATS has accepted their subscriptions.
func (s *Server) subscribe(ctx context.Context, services []*service) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(s.serving.ctx, func() { cancel(ErrServerStopped) })()
	if err := connwatch.Await(ctx, s.nc); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			for _, svc := range services {
				svc.unsubscribeAll()
			}
		}
	}()
	before := s.nc.LastError()
	s.async.refused.Begin()
	defer s.async.refused.End()
	for _, svc := range services {
		if err = svc.start(); err != nil {
			return err
		}
	}
	// A connection that breaks meanwhile subscribes again.
	for err = s.flush(ctx); err != nil; err = s.flush(ctx) {
		if ctx.Err() != nil { // even if it ended just after the flush had failed
			return flushError(s.nc, wait.EndOf(ctx))
		}
		if err = connwatch.Await(ctx, s.nc); err != nil {
			return err
		}
	}
	// The NATS server reports a refused subscription before it answers the flush.
	last := s.nc.LastError()
	if last != nil && last != before { //nolint:errorlint // identity: is it a new one?
		switch {
		case errors.Is(last, nats.ErrPermissionViolation):
			var subs []*connwatch.Subscription
			for _, svc := range services {
				subs = append(subs, svc.subs.all()...)
			}
			return s.async.refused.Of(ctx, subs, last)
		case errors.Is(last, nats.ErrMaxSubscriptionsExceeded):
			return last
		}
	}
	for _, svc := range services {
		svc.serve()
	}
	return nil
}

// flushTimeout is how long one flush waits for NATS. nats.go requires a bound; while the connection
// is up, another flush follows.
const flushTimeout = 10 * time.Second

// flush returns when NATS has everything that was published and subscribed. It fails when ctx ends
// or the connection is lost.
func (s *Server) flush(ctx context.Context) error {
	for {
		bounded, cancel := context.WithTimeout(ctx, flushTimeout)
		err := s.nc.FlushWithContext(bounded)
		cancel()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			err = wait.EndOf(ctx)
		case s.nc.IsConnected() && errors.Is(err, context.DeadlineExceeded):
			continue
		}
		return flushError(s.nc, err)
	}
}

func flushError(nc *nats.Conn, err error) error {
	return fmt.Errorf("flush, while the NATS connection is %s: %w", strings.ToLower(nc.Status().String()), err)
}

// add adds a service to the server. If the server is running, the service is ready when add
// returns.
func (s *Server) add(svc *service) error {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	if err := s.takeTurn(ctx); err != nil {
		return err
	}
	defer s.giveTurn()
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

// Unregister removes a service, given its full name, from the server. It takes no new requests and
// waits for the calls that it has. If ctx ends first, handlers that still run are canceled, their
// callers get CodeUnavailable, and Unregister returns ctx's error. When it returns, the name is
// free.
func (s *Server) Unregister(ctx context.Context, name string) error {
	if !s.made() {
		return fmt.Errorf("rpc: unregister %s: %w", name, errNoServer)
	}
	if err := s.takeTurn(ctx); err != nil { // Start may be working with the services
		return fmt.Errorf("rpc: unregister %s: %w", name, err)
	}
	svc, state := s.find(name)
	if svc != nil && state == serverNew {
		s.remove(svc)
	}
	s.giveTurn()
	switch {
	case svc == nil:
		return fmt.Errorf("rpc: unregister: the server has no service %q", name)
	case state == serverNew, state == serverStopped:
		return nil
	}
	err := svc.stop(ctx)
	s.remove(svc)
	if err == nil && state == serverRunning {
		err = s.flush(ctx)
	}
	if err != nil {
		return fmt.Errorf("rpc: unregister %s: %w", name, err)
	}
	return nil
}

// Instance returns the token of the instance of a service, given the service's full name, that this
// server is: see [WithInstance]. It is "" if the server has no such service.
func (s *Server) Instance(name string) string {
	if !s.made() {
		return ""
	}
	svc, _ := s.find(name)
	if svc == nil {
		return ""
	}
	return svc.identity.ID
}

// SetHealth says that a service of the server, given its full name, is healthy (err is nil), or why
// it is not. "" is all of its services. It may be called at any time, takes effect at once, and
// lasts until the next call. Until the first call services are healthy. If there is a
// [WithHealthCheck] too, a service is healthy if both say so. SetHealth fails if the server has no
// such service.
func (s *Server) SetHealth(service string, err error) error {
	if !s.made() {
		return fmt.Errorf("rpc: set health: %w", errNoServer)
	}
	services, _ := s.registered()
	found, err := service == "", reasonOf(err)
	for _, svc := range services {
		if service == "" || svc.desc.Name == service {
			svc.profile.health.Set(err)
			found = true
		}
	}
	if !found {
		return fmt.Errorf("rpc: set health: the server has no service %q", service)
	}
	return nil
}

// Health returns how the server's services are, in the order in which they were registered.
func (s *Server) Health() (all []Health) {
	if !s.made() {
		return nil
	}
	services, _ := s.registered()
	for _, svc := range services {
		all = append(all, membership{svc}.health())
	}
	return all
}

// Connected reports whether the server runs and its NATS connection is up.
func (s *Server) Connected() bool {
	if !s.made() || s.nc == nil {
		return false
	}
	_, state := s.registered()
	return state == serverRunning && s.nc.IsConnected()
}

// Stopped reports whether the server has been shut down, by Shutdown or since its NATS connection
// was closed for good.
func (s *Server) Stopped() bool {
	if !s.made() {
		return false
	}
	_, state := s.registered()
	return state == serverStopped
}

// Stats returns the numbers of the server's services that have started, in the order in which they
// were registered: what `nats micro stats` gets of this instance, but without asking over NATS. The
// Data of an endpoint is JSON; docs/protocol.md says what its fields mean.
func (s *Server) Stats() (all []micro.Stats) {
	if !s.made() {
		return nil
	}
	services, _ := s.registered()
	for _, svc := range services {
		if svc.steps.ready.Load() {
			all = append(all, responder{svc}.statistics())
		}
	}
	return all
}

// find returns a service, or nil, and the server's state.
func (s *Server) find(name string) (*service, serverState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.services, func(svc *service) bool { return svc.desc.Name == name })
	if i < 0 {
		return nil, s.state
	}
	return s.services[i], s.state
}

func (s *Server) remove(svc *service) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.services = slices.DeleteFunc(slices.Clone(s.services), func(other *service) bool { return other == svc })
}

// Shutdown ends the server without losing a call: it takes no new requests, answers those that it
// has, and returns when NATS has the answers. If ctx ends first, handlers that still run are
// canceled, their callers get CodeUnavailable, and Shutdown returns ctx's error with the names of
// the methods that still ran. Concurrent Shutdowns share one end, which is forced when the first of
// their contexts ends: a second Shutdown may have less patience than the first. The connection
// stays open.
func (s *Server) Shutdown(ctx context.Context) error {
	if !s.made() {
		return fmt.Errorf("rpc: shutdown: %w", errNoServer)
	}
	select {
	case <-s.stopping.Ended():
		return nil
	default:
	}
	return shutdownError(s.stopping.Do(ctx, s.shutdown))
}

func shutdownError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("rpc: shutdown: %w", err)
}

func (s *Server) shutdown(ctx context.Context) error {
	s.serving.end(ErrServerStopped)
	s.turn <- struct{}{} // Start and Register give up when serving ends
	services, state := s.registered()
	s.setState(serverStopping)
	s.giveTurn()
	defer s.setState(serverStopped)
	if state != serverRunning {
		return nil
	}
	s.stall.close()
	errs := make([]error, len(services))
	var wg sync.WaitGroup
	for i, svc := range services {
		wg.Go(func() { errs[i] = svc.stop(ctx) })
	}
	wg.Wait()
	err := errors.Join(errs...)
	s.streams.Close(failf(CodeUnavailable, ExecutionMayHaveRun, "the server has been shut down"))
	if flushErr := s.lastFlush(ctx); err == nil {
		err = flushErr
	}
	connwatch.Unlisten(s.nc, &s.async.listener)
	s.setState(serverStopped) // the connection may be closed from here on
	s.nc.RemoveStatusListener(s.serving.status)
	return err
}

// lastFlushTimeout bounds the flush of the last answers when Shutdown's context has ended. It is
// short, as the caller of Shutdown has waited long enough.
const lastFlushTimeout = time.Second

// lastFlush makes sure that NATS has the last answers.
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

// asyncError notes what NATS does not let the server do, which nothing else reports.
func (s *Server) asyncError(_ *nats.Subscription, err error) {
	starting := s.async.refused.Add(err) // also of other things: it may be the last one
	if subject, ok := connwatch.Violation(err, connwatch.ToSubscribe); ok {
		if served := s.async.subscriptions.Refuse(subject, err); served && !starting {
			s.options.logger.Error("natscall: the NATS user may not subscribe to a subject any more: it is not served until it may",
				"subject", subject)
		}
	}
	subject, ok := connwatch.Violation(err, connwatch.ToPublish)
	if !ok {
		return
	}
	stream := false
	for _, st := range s.streams.All() {
		if to, _ := st.To(); to == subject {
			stream = true
			st.Break(failf(CodePermissionDenied, ExecutionMayHaveRun, "the NATS user may not publish to %q", subject).because(err))
		}
	}
	s.async.answers.add(s.options.logger, subject, stream)
}
