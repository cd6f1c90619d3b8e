package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/internal/names"
	"github.com/natscall/natscall/rpc/internal/health"
	"github.com/natscall/natscall/rpc/internal/instances"
	"github.com/natscall/natscall/rpc/internal/wait"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// Health is how an instance of a service is. The zero value is one that does not serve.
type Health struct {
	Service  string // full name
	Instance string // as in [WithInstance]
	// Serving says that the instance can do its work.
	Serving bool
	// Reason says why it cannot, on one line. It is "" while the instance is serving.
	Reason string
	// Since is when it has become healthy or unhealthy by [WithHealthCheck] or [Server.SetHealth].
	Since time.Time
	// TakesCalls says that the instance is in its queue groups, or in some of them if NATS refuses
	// the others. One that is not serving stays in them while no other one serves
	// ([WithFailClosed]).
	TakesCalls bool
}

// status is the text in discovery.
func (h *Health) status() string {
	if h.Serving {
		return "SERVING"
	}
	return "NOT_SERVING"
}

// healthOptions are those of a service.
type healthOptions struct {
	check      func(context.Context) error
	failClosed bool
}

// WithHealthCheck makes a function decide whether an instance of a service is healthy: nil says
// that it is, an error why it is not. The text of the error is shown to everybody who may ask.
//
// The function is called every second, never twice at a time, with a context that ends after a
// second; if it does not return by then, or panics, that is a failure. Three results in a row have
// to differ from what is believed until it changes; the instance begins as healthy. The function
// should look at what the instance needs, such as its database, and nothing that calls the service.
// On a server it is called for each of its services.
//
// An instance that is not healthy leaves its queue groups, so it gets no more calls, and finishes
// those that it has. It stays in discovery, and calls addressed to it are served. When it is
// healthy again it comes back. It also stays in its groups, or comes back, while it hears no
// healthy instance with the same methods in the same group: if all fail for one reason, they go on
// serving. Without a queue group ([WithoutQueueGroup]) it stays, since each instance is to get all
// calls. See docs/health.md. [Server.SetHealth] is for what the program finds out by itself.
func WithHealthCheck(check func(ctx context.Context) error) ServerServiceOption {
	return forServices(func(o *serviceOptions) error {
		if check == nil {
			return errors.New("WithHealthCheck(nil)")
		}
		o.health.check = check
		return nil
	})
}

// WithFailClosed makes an instance that is not healthy leave its queue groups even if no other
// instance is healthy. Then callers get CodeUnavailable, where they would have got what unhealthy
// instances can do.
func WithFailClosed() ServerServiceOption {
	return forServices(func(o *serviceOptions) error {
		o.health.failClosed = true
		return nil
	})
}

// membership is a service as a member of its queue groups: a health.Groups.
type membership struct{ *service }

func (m membership) monitor() *health.Monitor {
	o := &m.options.health
	config := health.Config{FailClosed: o.failClosed, Changed: m.changed}
	if o.check != nil {
		config.Check = func(ctx context.Context) error { return reasonOf(o.check(ctx)) }
	}
	return health.New(config)
}

// reasonOf returns an error with the text that an error of the user's has now. The text is shown at
// any time, by any goroutine, so it must not change, be empty or panic, as that of a nil pointer.
func reasonOf(err error) error {
	if err == nil {
		return nil
	}
	text := wire.ErrorText(fmt.Sprint(err), "") // fmt survives a panic
	if text == "" || text == "<nil>" {
		text = fmt.Sprintf("an error without a text (%T)", err)
	}
	return errors.New(text)
}

// changed logs a change of the health, or that the instance has left its groups or come back.
func (m membership) changed(before, now health.Status) {
	log := m.server.options.logger.With("service", m.desc.Name, "instance", m.identity.ID)
	if panicked := (*health.PanicError)(nil); before.Err == nil && errors.As(now.Err, &panicked) {
		log.Error("natscall: the health check panicked", "panic", panicked.Value, "stack", string(panicked.Stack))
	}
	switch {
	case now.Out && !before.Out:
		log.Warn("natscall: the instance leaves its queue groups, as it is not healthy", "reason", now.Err)
	case !now.Out && before.Out && now.Err != nil:
		log.Warn("natscall: the instance is back in its queue groups, as no other one is healthy", "reason", now.Err)
	case !now.Out && before.Out:
		log.Info("natscall: the instance is back in its queue groups")
	case now.Err != nil:
		log.Warn("natscall: the instance is not healthy", "reason", now.Err)
	default:
		log.Info("natscall: the instance is healthy again")
	}
}

// health returns how the instance is now.
func (m membership) health() Health {
	status := m.profile.health.Status()
	err := m.obstacle()
	h := Health{
		Service: m.desc.Name, Instance: m.identity.ID, Since: status.Since,
		TakesCalls: err == nil && !status.Out && m.subs.takeCalls(),
	}
	if err == nil {
		err = cmp.Or(status.Err, m.subs.err())
	}
	if h.Serving = err == nil; err != nil {
		h.Reason = wire.ErrorText(err.Error(), "")
	}
	return h
}

// obstacle returns why the instance takes no calls, whatever its health is, or nil.
func (m membership) obstacle() error {
	select {
	case <-m.steps.started:
		return errDraining
	default:
	}
	if !m.steps.ready.Load() {
		return errNotStarted
	}
	return nil
}

var (
	errDraining   = errors.New("the instance is shutting down")
	errNotStarted = errors.New("the instance has not started")
)

// watched is the goroutine that watches the health of a service which has started, and what it
// waits for.
type watched struct {
	cancel  context.CancelFunc
	ended   chan struct{}   // closed when it has ended
	checked <-chan struct{} // then closed when the user's function has returned too
	query   atomic.Pointer[peerQuery]
	relied  atomic.Int64 // when an unhealthy instance was last told that this one is healthy
}

// peerQuery asks the other instances of a service whether one of them covers for this one.
type peerQuery struct {
	id      wire.ID
	covered chan struct{} // has a token when one does
}

// watch begins to watch the health.
func (m membership) watch() {
	w := &m.profile.watched
	w.ended = make(chan struct{})
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(context.Background())
	go func() {
		defer close(w.ended)
		w.checked = m.profile.health.Run(ctx, m)
	}()
}

// stop ends that: the instance neither leaves nor joins any more.
func (w *watched) stop() {
	if w.cancel != nil { // else the service has never served
		w.cancel()
		<-w.ended
	}
}

// checkPatience is how long a shutdown waits for a health check whose context has ended.
const checkPatience = time.Second

// awaitCheck waits until the user's function has returned. One that ignores its context does not
// hold up the shutdown.
func (m membership) awaitCheck() {
	if m.profile.watched.cancel == nil {
		return
	}
	timer := time.NewTimer(checkPatience)
	defer timer.Stop()
	select {
	case <-m.profile.watched.checked:
	case <-timer.C:
		m.server.options.logger.Warn("natscall: the health check still runs, as it ignores its context", "service", m.desc.Name)
	}
}

// deliver takes the answer of another instance.
func (m membership) deliver(msg *nats.Msg) {
	q := m.profile.watched.query.Load()
	if q == nil {
		return
	}
	if other := instances.Parse(msg.Data, q.id); other != nil && m.covers(other) {
		wait.Signal(q.covered)
	}
}

const (
	// peerTime is how long to wait for a healthy instance.
	peerTime = time.Second
	// overlap is how long an instance that may leave stays. Nodes of a NATS cluster learn of a
	// subscription one after the other: of an instance that has just come some may hear only after
	// they have heard that this one has left, and say "no responders". It is longer than the way
	// between nodes on two continents, and short beside the five seconds that a failing check has.
	overlap = 300 * time.Millisecond
)

// Connected reports whether the other instances can be asked.
func (m membership) Connected() bool { return m.server.nc.IsConnected() }

// Covered reports whether another instance is healthy and serves the same. One that is in its
// groups asks again after a while, before it may leave. Without a queue group each instance is to
// get every call, so no other one can stand in for it.
func (m membership) Covered(ctx context.Context) bool {
	if m.queueGroup() == "" {
		return false
	}
	covered := m.ask(ctx)
	if !covered || m.profile.health.Status().Out {
		return covered
	}
	return wait.Pause(ctx, overlap) == nil && m.ask(ctx)
}

// ask asks the other instances whether one of them is healthy and serves the same.
func (m membership) ask(ctx context.Context) bool {
	q := &peerQuery{id: wire.NewID(), covered: make(chan struct{}, 1)}
	m.profile.watched.query.Store(q)
	defer m.profile.watched.query.Store(nil)
	err := m.server.nc.PublishMsg(&nats.Msg{
		Subject: names.Join(m.root, wire.AllToken, wire.InstancesToken),
		Reply:   names.Join(m.root, wire.InstanceToken, m.identity.ID, wire.PeersToken),
		Data:    wire.AppendInstanceQuery(nil, q.id),
	})
	if err != nil {
		return false // as the connection was closed
	}
	timer := time.NewTimer(peerTime)
	defer timer.Stop()
	select {
	case <-q.covered:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}
	return false
}

// covers reports whether another instance can take the calls of this one.
func (m membership) covers(other *natscallv1.Instance) bool {
	if other.GetInstance() == m.identity.ID || other.GetState() != natscallv1.State_STATE_SERVING || other.GetQueueGroup() != m.queueGroup() {
		return false
	}
	return !slices.ContainsFunc(m.methods(), func(name string) bool { return !slices.Contains(other.GetMethods(), name) })
}

// Leave leaves the queue groups. What NATS has sent already is served. A drain without a connection
// would leave interest behind on the NATS server, so then it stays.
func (m membership) Leave(ctx context.Context) bool {
	if !m.Connected() {
		return false
	}
	var draining []<-chan nats.SubStatus
	for _, sub := range m.subs.requests {
		ch, err := sub.Pause()
		if err != nil {
			m.logUnsubscribe(sub, err)
		} else if ch != nil {
			draining = append(draining, ch)
		}
	}
	_ = wait.All(ctx, draining) // if ctx ends, the drains go on
	return true
}

// reliance is for how long an instance may rely on what another one has said: one that has left its
// groups asks every second, and is back when it has waited for two answers in vain.
const reliance = health.Interval + health.Silences*peerTime + 500*time.Millisecond

// rely notes that an instance that is not healthy is about to hear that this one is.
func (m membership) rely() { m.profile.watched.relied.Store(int64(m.server.clock.now())) }

// handOver lets instances that rely on this one come back before it takes no more calls. It says
// that it drains already, and the watch has ended.
func (m membership) handOver(ctx context.Context) {
	at := time.Duration(m.profile.watched.relied.Load())
	if at == 0 || m.server.clock.now()-at > reliance || !m.Connected() {
		return
	}
	patience := reliance
	if by, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(by)/2) // the rest is for the calls
	}
	back := time.Now().Add(patience)
	if !m.ask(ctx) {
		_ = wait.Pause(ctx, time.Until(back))
	}
}

// Join joins them again. It fails only where the connection is closing.
func (m membership) Join() bool {
	for _, sub := range m.subs.requests {
		if err := sub.Resume(); err != nil {
			return false
		}
	}
	return true
}

var _ health.Groups = membership{}
