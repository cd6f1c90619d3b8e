package rpc

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/internal/names"
	"github.com/natscall/natscall/rpc/internal/connwatch"
	"github.com/natscall/natscall/rpc/internal/instances"
	"github.com/natscall/natscall/rpc/internal/liveness"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/reply"
	"github.com/natscall/natscall/rpc/internal/retry"
	"github.com/natscall/natscall/rpc/internal/stream"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// Client makes calls over a NATS connection. Generated code wraps it in the
// typed client of a service; one Client serves any number of services and
// goroutines. NewClient makes it. It has one subscription, made by its first call, and four
// goroutines: that of the subscription, one that watches the calls, one that watches the connection
// and one that publishes.
//
// The connection stays the caller's. Close ends the client.
type Client struct {
	nc       *nats.Conn
	options  clientOptions
	next     Next  // the folded interceptors, or nil
	err      error // of an option
	out      *publish.Publisher
	inbox    *reply.Inbox
	watch    *watch
	link     *connwatch.Link
	streams  *stream.Table
	known    *instances.Directory // of services
	clock    clock
	subjects sync.Map // *method -> *subjects
	budgets  sync.Map // root -> *retry.Budget
	clientState
}

// clientState is whether a client has made its first call, and whether it is closed.
type clientState struct {
	opened atomic.Bool // inbox, watch, link and known are set
	closed atomic.Bool
	lost   atomic.Bool // closed by the end of the connection

	mu      sync.Mutex // for the first call and Close
	opening *opening   // that runs, or nil
	sub     *connwatch.Subscription
}

// opening makes a client's subscription, in a goroutine of its own: callers do not wait for
// nats.go's lock, but for done or their deadline.
type opening struct {
	done chan struct{}
	err  *Error
}

// NewClient returns a client for a connection. An invalid option fails every
// call with CodeInvalidArgument and a message that names it.
func NewClient(nc *nats.Conn, opts ...ClientOption) *Client {
	c := &Client{nc: nc, clock: newClock()}
	c.options.sizes = sizeLimits{defaultMaxSize, defaultMaxSize}
	c.options.clientTimeout = defaultClientTimeout
	c.options.heartbeat = defaultHeartbeat
	c.options.logger = slog.Default()
	c.options.reconnectWait = defaultReconnectWait
	c.options.budget = retryBudget{defaultRetryBurst, defaultRetryShare}
	for _, opt := range opts {
		if opt == nil {
			c.err = errors.Join(c.err, errNilOption)
			continue
		}
		c.err = errors.Join(c.err, opt.applyClient(&c.options))
	}
	c.err = errors.Join(c.err, c.options.applyMethods())
	c.out = publish.New(nc, publish.Config{Now: c.clock.now, MaxBatch: c.options.maxBatch, Refuse: c.offline, Down: func() bool { return c.link.Down() }})
	c.streams = stream.NewTable(c.options.heartbeat)
	if len(c.options.peerOptions.interceptors) > 0 {
		c.next = chain(c.options.peerOptions.interceptors, c.sendInside)
	}
	return c
}

// sendInside is send inside the interceptors of the call.
func (c *Client) sendInside(ctx context.Context, call *Call) error {
	if len(call.client.options.interceptors) == 0 {
		return c.send(ctx, call)
	}
	return chain(call.client.options.interceptors, c.send)(ctx, call)
}

// interceptorsOf returns the folded interceptors of the client and of a call, or nil if there are
// none.
func (c *Client) interceptorsOf(o *callOptions) Next {
	if c.next == nil && len(o.interceptors) > 0 {
		return c.sendInside
	}
	return c.next
}

// closeTimeout bounds the wait of Close for the NATS server, which takes a round trip.
const closeTimeout = time.Second

var errNilOption = errors.New("an option is nil")

// Close ends the calls that wait with CodeCanceled, tells their instances, and frees what the
// client holds. If it has made calls, it waits until the NATS server has all that they have sent,
// for at most a second. It does not close the connection. Closing again does nothing.
func (c *Client) Close() error {
	if c == nil {
		return nil // there is nothing to end
	}
	c.mu.Lock()
	sub := c.sub
	c.sub = nil
	c.closed.Store(true) // before the calls are ended: one that comes later sees it
	c.mu.Unlock()
	c.out.End()
	if sub == nil {
		return nil
	}
	c.watch.stop(failf(CodeCanceled, ExecutionMayHaveRun, "the client was closed"))
	c.known.Close()
	c.streams.Close(failf(CodeCanceled, ExecutionMayHaveRun, "the client was closed"))
	released := make(chan error, 1)
	go func() { released <- c.release(sub) }()
	select {
	case err := <-released:
		return err
	case <-time.After(closeTimeout):
		return nil // nats.go holds its lock
	}
}

// release takes the client off the connection, and waits until the NATS server has all that it has
// published.
func (c *Client) release(sub *connwatch.Subscription) error {
	c.watch.release()
	err := sub.Unsubscribe()
	c.out.Drain()
	if c.nc.IsConnected() {
		// If the connection is closed next, the last cancels may be lost with what it has not read.
		// An error is ignored: without them the instances notice by heartbeats.
		_ = c.nc.FlushTimeout(closeTimeout)
	}
	if errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrConnectionDraining) || errors.Is(err, nats.ErrBadSubscription) {
		return nil // the subscription has ended, or is about to
	}
	return err
}

// subscribeOnce returns why calls are not possible, or nil. The first one makes the subscription.
func (c *Client) subscribeOnce(ctx context.Context, deadline time.Time) *Error {
	if c.opened.Load() {
		return c.refusal()
	}
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	o := c.open()
	select {
	case <-o.done:
		return o.err
	case <-c.out.Ended():
		return c.refusal()
	case <-ctx.Done():
		return contextError(ctx, ExecutionNotRun)
	}
}

// open begins an opening, unless one runs.
func (c *Client) open() *opening {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opening == nil {
		o := &opening{done: make(chan struct{})}
		c.opening = o
		go func() {
			defer close(o.done)
			err := c.subscribe()
			c.mu.Lock()
			o.err, c.opening = err, nil
			c.mu.Unlock()
		}()
	}
	return c.opening
}

// subscribe makes the subscription, unless the client is closed.
func (c *Client) subscribe() *Error {
	if c.opened.Load() || c.closed.Load() {
		return c.refusal()
	}
	if err := connectionError(c.nc); err != nil {
		return err
	}
	prefix := c.nc.NewInbox() + "."
	b := reply.New(prefix, c.out, func() error { return asNil(c.refusal()) })
	w := newWatch(c, b, prefix)
	w.start(c.connectionLost, c.closedByConn) // before NATS can refuse the subscription
	sub, err := c.subscribeTo(prefix, b, w)
	if err != nil {
		failed := natsError(err, ExecutionNotRun)
		failed.execution = ExecutionNotRun // whatever it is
		w.stop(failed)
		w.release()
		return failed
	}
	c.mu.Lock()
	closed := c.closed.Load() // meanwhile
	if !closed {
		c.sub, c.inbox, c.watch, c.link, c.known = sub, b, w, w.conn.link, w.known
		c.opened.Store(true)
	}
	c.mu.Unlock()
	if closed {
		refused := c.refusal()
		w.stop(refused)
		w.release()
		_ = sub.Unsubscribe()
		return refused
	}
	go c.out.Run()
	return nil
}

// subscribeTo makes the subscription for all that comes back.
func (c *Client) subscribeTo(prefix string, b *reply.Inbox, w *watch) (*connwatch.Subscription, error) {
	deliver := func(m *nats.Msg) {
		switch token := m.Subject[len(prefix):]; {
		case strings.HasPrefix(token, liveness.TokenPrefix):
			w.deliver(token, m)
		case strings.HasPrefix(token, stream.TokenPrefix):
			if id, ok := stream.ParseToken(token); ok {
				c.streams.Deliver(id, m)
			}
		case strings.HasPrefix(token, instances.TokenPrefix):
			w.known.Deliver(token, m)
		case strings.HasPrefix(token, instances.MailPrefix):
			w.known.Mail.Deliver(token, m)
		case wire.IsBatch(m.Data):
			b.DeliverBatch(m)
		default:
			b.Deliver(m)
		}
	}
	return w.access.subscriptions.Subscribe(prefix+"*", func() (*nats.Subscription, error) {
		sub, err := c.nc.Subscribe(prefix+"*", deliver)
		if err == nil {
			// Replies wait in memory that the calls have asked for: no limit of the
			// subscription may drop them.
			err = sub.SetPendingLimits(-1, -1)
		}
		return sub, err
	})
}

// offline is why nothing can be published now, or nil. The publisher asks.
func (c *Client) offline() error {
	switch {
	case c.closed.Load():
		return asNil(c.refusal())
	case c.link.Down():
		return errReconnecting()
	}
	return asNil(connectionError(c.nc))
}

// awaitConnection waits until the connection is not being made any more. Before the first call has
// made the subscription nobody follows it, and whoever asks nats.go may wait for its lock.
func (c *Client) awaitConnection(ctx context.Context) error {
	if c.opened.Load() {
		return c.link.Await(ctx)
	}
	up := make(chan error, 1)
	go func() { up <- connwatch.Await(ctx, c.nc) }()
	select {
	case err := <-up:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// unusable is why no call can be sent any more, or nil.
func (c *Client) unusable() *Error {
	if c.opened.Load() {
		return c.refusal()
	}
	return connectionError(c.nc)
}

func errReconnecting() *Error {
	err := failf(CodeUnavailable, ExecutionNotRun, "the NATS connection is reconnecting")
	err.offline = true
	return err
}

// refusal is why no call can be sent any more, or nil.
func (c *Client) refusal() *Error {
	if c.closed.Load() {
		if c.lost.Load() {
			return connectionError(c.nc)
		}
		return failf(CodeCanceled, ExecutionNotRun, "the client was closed")
	}
	return c.watch.access.forbidden.Load()
}

// connectionLost runs at each loss of the connection, and at its end: frames may be lost.
func (c *Client) connectionLost() {
	c.streams.Break(failf(CodeUnavailable, ExecutionMayHaveRun, "the NATS connection was lost").because(nats.ErrDisconnected))
}

// closedByConn runs when the connection has been closed for good.
func (c *Client) closedByConn() {
	c.lost.Store(true)
	c.closed.Store(true)
	c.out.End()
}

// invoke is where every unary and one-way call comes from. The response is decoded into res, or
// into a new message if res is nil.
func (c *Client) invoke(ctx context.Context, m *method, req, res any, opts []CallOption) (any, error) {
	o, err := c.callOptions(m, opts)
	if err != nil {
		return nil, err
	}
	if req == m.nilRequest {
		return nil, failf(CodeInvalidArgument, ExecutionNotRun, "%s: the request is nil", m.FullName())
	}
	next := c.interceptorsOf(o)
	if next == nil {
		call := callPool.Get().(*clientCall) // nobody else sees it
		defer call.putBack()
		call.set(m, o.header, req, res, o)
		return call.end(c.send(ctx, &call.Call))
	}
	call := new(clientCall)
	call.set(m, maps.Clone(o.header), req, res, o)
	return call.end(c.intercepted(ctx, call, next))
}

// callOptions are those of the client or, where it has some, of the method, with those of the call
// itself. An invalid option is the error of the call, before it is used for anything.
func (c *Client) callOptions(m *method, opts []CallOption) (*callOptions, error) {
	switch {
	case c == nil:
		return nil, failf(CodeInvalidArgument, ExecutionNotRun, "the *rpc.Client is nil")
	case c.err != nil:
		return nil, failf(CodeInvalidArgument, ExecutionNotRun, "client: %v", c.err).because(c.err)
	case c.nc == nil:
		return nil, connectionError(c.nc)
	}
	base := c.options.of(m)
	if len(opts) > 0 {
		o := *base
		for _, opt := range opts {
			if opt == nil {
				return nil, failf(CodeInvalidArgument, ExecutionNotRun, "%v", errNilOption)
			}
			if err := opt.applyCall(&o); err != nil {
				return nil, failf(CodeInvalidArgument, ExecutionNotRun, "%v", err).because(err)
			}
		}
		base = &o
	}
	if name := base.retry.twice; name != "" && !m.mayRunTwice() {
		return nil, failf(CodeInvalidArgument, ExecutionNotRun, "%s: %s is for methods that may run twice (idempotency_level in the .proto file)", m.FullName(), name)
	}
	return base, nil
}

// intercepted runs a call through the interceptors and makes sure that what
// they return is what a client promises: an *Error or a response.
func (c *Client) intercepted(ctx context.Context, call *clientCall, next Next) error {
	err := call.run(ctx, next)
	if err == nil && call.method.kind == KindUnary {
		err = call.method.checkResponse(call.response, call.into == nil)
		if err != nil && !call.sent {
			err = failf(CodeInternal, ExecutionNotRun, "an interceptor ended the call without a response").because(err)
		}
	}
	if err != nil {
		return call.clientError(err)
	}
	return call.fill()
}

// invokeStream makes every call of a streaming method. req is nil if the client streams.
func (c *Client) invokeStream(ctx context.Context, m *method, req any, opts []CallOption) (*messageStream, error) {
	o, err := c.callOptions(m, opts)
	if err != nil {
		return nil, err
	}
	call := new(clientCall)
	call.set(m, o.header, req, nil, o)
	switch next := c.interceptorsOf(o); {
	case o.results.header != nil || o.results.trailer != nil:
		return nil, failf(CodeInvalidArgument, ExecutionNotRun, "%s streams: instead of rpc.ResponseHeader and rpc.ResponseTrailer its stream has the methods Header and Trailer", m.FullName())
	case o.results.instance != nil:
		return nil, failf(CodeInvalidArgument, ExecutionNotRun, "%s streams: instead of rpc.ResponseInstance its stream has the method Instance", m.FullName())
	case o.retry.keyed:
		return nil, failf(CodeInvalidArgument, ExecutionNotRun, "%s streams; rpc.WithIdempotencyKey is for unary and one-way calls", m.FullName())
	case o.plain:
		return nil, failf(CodeUnimplemented, ExecutionNotRun, "%s streams; rpc.WithPlainRequests is for unary calls", m.FullName())
	case m.kind == KindServerStream && req == m.nilRequest:
		return nil, failf(CodeInvalidArgument, ExecutionNotRun, "%s: the request is nil", m.FullName())
	case next == nil:
		err = c.send(ctx, &call.Call)
	default:
		call.header = maps.Clone(o.header)
		err = call.run(ctx, next)
	}
	switch {
	case err != nil && call.stream != nil: // an interceptor refuses the stream
		failed := call.clientError(err)
		call.stream.client.End(failed)
		err = failed
	case err != nil:
		err = call.clientError(err)
	case call.stream == nil:
		err = failf(CodeInternal, ExecutionNotRun, "%s: an interceptor has not opened the stream", m.FullName())
	default:
		if call.hooks != nil && len(call.hooks.onEnd) > 0 {
			call.stream.notify(ctx)
		}
		return call.stream, nil
	}
	call.hooks.ended(err)
	return nil, err
}

// send makes a call. It is the Next behind the last interceptor.
func (c *Client) send(ctx context.Context, seen *Call) error {
	call := seen.client
	call.sent, call.response = true, nil
	err := call.sendingRequest()
	if err == nil {
		err = c.sendAgain(ctx, call)
	}
	if err != nil {
		call.sentRequest(err)
	}
	return err
}

// sendAgain sends a call, and again where that is safe, until its deadline.
func (c *Client) sendAgain(ctx context.Context, call *clientCall) error {
	deadline, byCtx := call.deadline(ctx)
	r := retries{attempt: attempt{client: c, call: call, subjects: c.subjectsOf(call.method), deadline: deadline, byCtx: byCtx}}
	if err := r.attempt.subjects.err; err != nil {
		return err
	}
	r.attempt.subject = r.attempt.requestSubject()
	if r.until = deadline; deadline.IsZero() {
		r.until = time.Now().Add(call.options.clientTimeout)
		r.unbounded = call.options.timeout == wire.NoTimeout
	}
	return asNil(r.run(ctx))
}

// ending is what has ended a request.
type ending struct {
	reply   reply.Reply
	foreign reply.Foreign
	err     error
}

// do makes a request. If it ends without a reply, it has the call canceled that may run.
func (c *Client) do(ctx context.Context, r *reply.Request) (end ending) {
	end.reply, end.foreign, end.err = c.inbox.Do(ctx, r)
	if end.err == nil || r.Plain {
		return end
	}
	failed, _ := end.err.(*Error)
	switch {
	case end.err == reply.ErrContext && ctx.Err() == context.Canceled:
		c.cancel(r.Root, r.ID)
	case end.err == reply.ErrContext, end.err == reply.ErrDeadline, failed != nil && failed.cause == errSilence:
		c.watch.left.Add(r.Root, r.ID)
	}
	return end
}

// cancel tells the instances of a service that the caller of a call has gone, when the connection
// is up. It is an attempt: the caller waits for nothing any more.
func (c *Client) cancel(root string, id wire.ID) {
	if c.link.Down() {
		c.watch.left.Add(root, id)
		return
	}
	liveness.Cancel(c.out, root, id)
}

// subjects are those of a method with the client's prefix, and what is known of its calls.
type subjects struct {
	request, root string
	answered      atomic.Bool // somebody has answered on request: this user could publish to it
	err           error       // why they cannot be used
	direct        direct
	budget        *retry.Budget
	times         retry.Times // of calls, where these decide when to hedge
}

func (c *Client) subjectsOf(m *method) *subjects {
	if s, ok := c.subjects.Load(m); ok {
		return s.(*subjects)
	}
	fresh := &subjects{request: names.Join(c.options.prefix, m.subject), root: names.Join(c.options.prefix, m.root)}
	// Those of a method that was learned from others may be anything: NATS would close the
	// connection for good, or send the request to somebody else.
	for _, subject := range []string{fresh.request, fresh.root, names.Join(fresh.root, m.desc.Name)} {
		if err := names.CheckPublished(subject); err != nil && fresh.err == nil {
			fresh.err = m.invalid(fmt.Errorf("the subject %w", err))
		}
	}
	budget, _ := c.budgets.LoadOrStore(fresh.root, retry.NewBudget(c.options.budget.burst, c.options.budget.share))
	fresh.budget = budget.(*retry.Budget)
	s, _ := c.subjects.LoadOrStore(m, fresh)
	return s.(*subjects)
}

// direct is whether NATS lets this client send a method's calls to an instance of its choice.
type direct struct {
	answered  atomic.Bool  // an instance has answered such a call
	refusedAt atomic.Int64 // in Unix nanoseconds, the last time
}

// refusedTime is for how long a client does not try again what NATS has refused.
const refusedTime = time.Minute

// refuse notes that NATS has refused one. It reports whether that is certain: if none has been
// answered before, no permission was taken away in between.
func (d *direct) refuse() (certain bool) {
	d.refusedAt.Store(time.Now().UnixNano())
	return !d.answered.Load()
}

// refused reports whether NATS has refused one a short time ago.
func (d *direct) refused() bool {
	at := d.refusedAt.Load()
	return at != 0 && time.Since(time.Unix(0, at)) < refusedTime
}

// hasAnswered notes that somebody has answered.
func (s *subjects) hasAnswered() {
	if !s.answered.Load() { // a write each call would pass its memory between the CPUs
		s.answered.Store(true)
	}
}

// heardOf reports whether an instance of the service with a root has ever answered this client.
func (c *Client) heardOf(root string) (heard bool) {
	c.subjects.Range(func(_, value any) bool {
		s := value.(*subjects)
		heard = s.root == root && s.answered.Load()
		return !heard
	})
	return heard || c.known.Heard(root)
}

// answeredOn reports whether somebody has answered a request to a subject or, if that is one of the
// runtime's own, any request to its service.
func (c *Client) answeredOn(request string) (answered bool) {
	c.subjects.Range(func(_, value any) bool {
		s := value.(*subjects)
		mine := s.request == request || strings.HasPrefix(request, s.root+"._")
		answered = mine && s.answered.Load()
		return !answered
	})
	return answered
}
