package rpc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/nats-io/nuid"
	"google.golang.org/protobuf/types/known/emptypb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/internal/names"
	"github.com/natscall/natscall/rpc/internal/admission"
	"github.com/natscall/natscall/rpc/internal/calls"
	"github.com/natscall/natscall/rpc/internal/connwatch"
	"github.com/natscall/natscall/rpc/internal/health"
	"github.com/natscall/natscall/rpc/internal/liveness"
	"github.com/natscall/natscall/rpc/internal/pool"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/reply"
	"github.com/natscall/natscall/rpc/internal/schema"
	"github.com/natscall/natscall/rpc/internal/wait"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// service is a service of a server.
//
//	            start            stop              drained, or forced
//	registered ------> started ------> draining --------------------> stopped
//	    ^                 |
//	    +-----------------+
//	      unsubscribeAll: NATS has refused
//
// A started service has its subscriptions. A draining one takes no new requests. drain makes the
// last two changes, once, whatever number of callers stop waits for.
type service struct {
	server    *Server
	desc      *ServiceDesc
	options   serviceOptions
	root      string
	endpoints []*endpoint
	next      Next // the folded interceptors of the service, and the handler
	identity  micro.ServiceIdentity

	workers  workers
	calls    callTable
	profile  profile
	started  time.Time
	steps    serviceSteps
	stopping *wait.Joint // the drain
	subs     subscriptions
}

// serviceSteps are how far a service has got.
type serviceSteps struct {
	ready    atomic.Bool // NATS has confirmed the subscriptions
	draining atomic.Bool // no more requests come

	// These are closed as a drain goes on.
	started   chan struct{}
	abandoned chan struct{} // it does not wait for calls any longer
}

// profile is what an instance says of itself.
type profile struct {
	methods []*endpoint    // ownMethods
	schema  *schema.Schema // nil if there is no descriptor
	health  *health.Monitor
	watched watched
}

// callTable has the calls of a service.
type callTable struct {
	calls.Table[*serverCall]
	callers liveness.Callers
}

// workers are the goroutines that run the calls of a service.
type workers struct {
	calls   *pool.Pool // unary and one-way
	streams *pool.Pool // run for long
	own     *pool.Pool // calls of the own methods
}

func (w *workers) all() []*pool.Pool { return []*pool.Pool{w.calls, w.streams, w.own} }

// subscriptions are those of a service that has started.
type subscriptions struct {
	requests []*connwatch.Subscription // of the methods
	control  []*connwatch.Subscription // cancel and alive, frames of streams
	own      []*connwatch.Subscription // of the own methods
	verbs    []*connwatch.Subscription // discovery
}

func (s *subscriptions) all() []*connwatch.Subscription {
	return slices.Concat(s.requests, s.verbs, s.control, s.own)
}

// err returns why calls are not served, or not as they should be, or nil. Subscriptions for tools
// do not count: without them the instance can still do its work.
func (s *subscriptions) err() error {
	for _, sub := range slices.Concat(s.requests, s.control) {
		if err := sub.Err(); err != nil {
			return err
		}
	}
	return nil
}

// takeCalls reports whether NATS has not refused all subscriptions of the methods.
func (s *subscriptions) takeCalls() bool {
	serves := func(sub *connwatch.Subscription) bool { return sub.Err() == nil }
	return len(s.requests) == 0 || slices.ContainsFunc(s.requests, serves)
}

// listensTo reports whether subject is one of the service's own.
func (s *service) listensTo(subject string) bool {
	return strings.HasPrefix(subject, s.root+".") || slices.ContainsFunc(s.endpoints, func(e *endpoint) bool { return e.subject == subject })
}

// Register adds a service to a server, for generated code. It may be called before and after Start.
// On a server that has started, the service is ready when Register returns.
//
// Register fails if s or impl is nil, an option is invalid, a function of [WithMethodInterceptors]
// fails, NATS would refuse the description, the server already has the service or one of its
// subjects, or the server has been shut down. On a server that has started it also fails if NATS
// refuses a subscription, or does not confirm all of them within 10 s.
func Register[S any](s *Server, desc *ServiceDesc, impl S, opts []ServiceOption, handlers ...Handler[S]) error {
	switch {
	case desc == nil:
		return errors.New("rpc: register: the description of the service is nil")
	case !s.made():
		return fmt.Errorf("rpc: register %s: %w", desc.Name, errNoServer)
	case any(impl) == nil:
		return fmt.Errorf("rpc: register %s: the implementation is nil", desc.Name)
	}
	svc, err := newService(s, desc, opts)
	if err != nil {
		return fmt.Errorf("rpc: register %s: %w", desc.Name, err)
	}
	for _, h := range handlers {
		svc.addEndpoint(h.method, func(ctx context.Context, call *Call) error {
			return h.invoke(impl, ctx, call)
		})
	}
	if err := errors.Join(svc.checkEndpoints(), svc.limitMethods(), svc.interceptMethods()); err != nil {
		return fmt.Errorf("rpc: register %s: %w", desc.Name, err)
	}
	if err := s.add(svc); err != nil {
		return fmt.Errorf("rpc: register %s: %w", desc.Name, err)
	}
	return nil
}

func newService(s *Server, desc *ServiceDesc, opts []ServiceOption) (*service, error) {
	if s.err != nil {
		return nil, s.err
	}
	svc := &service{server: s, desc: desc, options: s.options.serviceOptions, root: names.Join(s.options.prefix, desc.root())}
	for _, opt := range opts {
		if opt == nil {
			return nil, errNilOption
		}
		if err := opt.applyService(&svc.options); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(desc.check(), named("the root of its subjects", names.CheckSubject(svc.root))); err != nil {
		return nil, err
	}
	svc.next = chain(svc.options.interceptors, func(ctx context.Context, call *Call) error {
		if next := call.served.endpoint.next; next != nil {
			return next(ctx, call)
		}
		return handle(ctx, call)
	})
	if svc.options.queue == queueAsConcurrency {
		svc.options.queue = svc.options.concurrency
	}
	calls, streams := svc.options.limits()
	svc.workers.calls = pool.New(admission.NewQueue(calls), s.out)
	svc.workers.streams = pool.New(admission.NewQueue(streams), s.out)
	svc.workers.own = pool.New(admission.NewQueue(ownLimits), s.out)
	svc.steps.started, svc.steps.abandoned = make(chan struct{}), make(chan struct{})
	svc.stopping = wait.NewJoint()
	if desc.File != nil {
		svc.profile.schema = schema.New(desc.File, desc.Comments)
	}
	svc.profile.methods = ownMethods{svc}.endpoints()
	svc.profile.health = membership{svc}.monitor()
	svc.identity = micro.ServiceIdentity{Name: desc.MicroName, ID: nuid.Next(), Version: desc.Version, Metadata: svc.metadata()}
	return svc, nil
}

// named puts the name of a value before what package names says about it.
func named(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s %w", what, err)
}

// checkEndpoints refuses methods that NATS would refuse or that cannot be served.
func (s *service) checkEndpoints() error {
	var errs []error
	for _, e := range s.endpoints {
		errs = append(errs, named(e.method.FullName()+":", e.check()))
	}
	return errors.Join(errs...)
}

// interceptMethods makes the interceptors of each method.
func (s *service) interceptMethods() error {
	var errs []error
	for _, e := range s.endpoints {
		errs = append(errs, e.intercept())
	}
	return errors.Join(errs...)
}

// limitMethods gives each method its limits.
func (s *service) limitMethods() error {
	unknown := maps.Clone(s.options.methods)
	calls, streams := s.options.limits()
	for _, e := range s.endpoints {
		limits := calls
		if e.method.kind > KindOneWay {
			limits = streams
		}
		own, ok := s.options.methods[e.method.FullName()]
		switch {
		case ok && own.Waiting > 0 && e.method.kind > KindOneWay:
			return fmt.Errorf("WithMethodLimits(%q): the queue of a streaming method must be 0, not %d", e.method.FullName(), own.Waiting)
		case ok:
			limits = limits.Within(own)
			delete(unknown, e.method.FullName())
		case len(s.endpoints) > 1:
			limits = limits.Share()
		}
		e.admission = admission.NewMethod(limits)
	}
	for _, name := range slices.Sorted(maps.Keys(unknown)) {
		return fmt.Errorf("WithMethodLimits(%q): the service has no such method, only %s", name, strings.Join(s.fullNames(), ", "))
	}
	return nil
}

func (s *service) fullNames() []string {
	all := make([]string, len(s.endpoints))
	for i, e := range s.endpoints {
		all[i] = e.method.FullName()
	}
	return all
}

func (s *service) metadata() map[string]string {
	m := map[string]string{}
	maps.Copy(m, s.desc.Metadata)
	maps.Copy(m, s.options.metadata)
	m["natscall.service"] = s.desc.Name
	m["natscall.protocol"] = fmt.Sprint(wire.Version)
	m["natscall.root"] = s.root
	if s.profile.schema != nil {
		m["natscall.schema"] = s.profile.schema.Hash()
	}
	return m
}

func (s *service) addEndpoint(m *method, invoke func(context.Context, *Call) error) {
	e := &endpoint{service: s, method: m, invoke: invoke, group15: m.hasGroup15()}
	e.subject = names.Join(s.server.options.prefix, m.subject)
	e.queueGroup = s.queueGroup()
	s.endpoints = append(s.endpoints, e)
}

func (s *service) queueGroup() string {
	switch {
	case s.options.queueGroup != "":
		return s.options.queueGroup
	case s.options.noQueueGroup:
		return ""
	}
	return s.desc.queueGroup()
}

// start subscribes; the caller flushes and checks for refusals. Discovery comes last, so that a
// listed instance is already serving.
func (s *service) start() error {
	s.started = time.Now().UTC()
	if err := (responder{s}).checkInfo(); err != nil {
		return err
	}
	for _, p := range s.workers.all() {
		p.Open() // a start before this one may have failed
	}
	for subject, f := range map[string]nats.MsgHandler{
		names.Join(s.root, wire.AllWildcard):                       s.onAll,
		names.Join(s.root, wire.InstanceToken, s.identity.ID, ">"): s.onInstance,
	} {
		sub, err := s.subscribe(subject, "", f)
		if err != nil {
			return err
		}
		s.subs.control = append(s.subs.control, sub)
	}
	for _, e := range s.profile.methods {
		sub, err := s.subscribe(e.subject, e.queueGroup, e.receive)
		if err != nil {
			return err
		}
		s.subs.own = append(s.subs.own, sub)
	}
	for _, e := range s.endpoints {
		sub, err := s.subscribe(e.subject, e.queueGroup, e.receive)
		if err != nil {
			return err
		}
		s.subs.requests = append(s.subs.requests, sub)
	}
	for _, subject := range verbSubjects(s.identity.Name, s.identity.ID) {
		sub, err := s.subscribe(subject, "", responder{s}.onVerb)
		if err != nil {
			return err
		}
		s.subs.verbs = append(s.subs.verbs, sub)
	}
	return nil
}

// serve is called when NATS has confirmed the subscriptions.
func (s *service) serve() {
	s.steps.ready.Store(true)
	membership{s}.watch()
}

func (s *service) subscribe(subject, group string, f nats.MsgHandler) (*connwatch.Subscription, error) {
	return s.server.async.subscriptions.Subscribe(subject, func() (sub *nats.Subscription, err error) {
		if group == "" {
			sub, err = s.server.nc.Subscribe(subject, f)
		} else {
			sub, err = s.server.nc.QueueSubscribe(subject, group, f)
		}
		if err == nil {
			// The callbacks never block, and answer what they refuse. A limit here would drop
			// requests silently.
			err = sub.SetPendingLimits(-1, -1)
		}
		if err != nil {
			return nil, fmt.Errorf("subscribe to %q: %w", subject, err)
		}
		return sub, nil
	})
}

// onAll is the callback for messages to every instance: cancels, queries and requests.
func (s *service) onAll(m *nats.Msg) {
	token := m.Subject[len(s.root)+len("."+wire.AllToken+"."):]
	if method, ok := strings.CutPrefix(token, wire.CallToken+"."); ok {
		s.onCall(toAll, method, m)
		return
	}
	s.onControl(m)
}

// onControl takes a cancel or a query.
func (s *service) onControl(m *nats.Msg) {
	e, err := wire.Parse(m.Data)
	if err != nil {
		return // a message that is not valid has no answer
	}
	switch e.Kind {
	case wire.KindCancel:
		for id := range e.IDs() {
			if c, ok := s.calls.Cancel(id); ok {
				c.ctx.endWith(contextCanceled)
			}
		}
	case wire.KindAliveQuery:
		s.answerAlive(&e, m)
	case wire.KindInstanceQuery:
		s.answerInstance(&e, m.Reply)
	}
}

// answerInstance tells a client, or another instance, what this one is.
func (s *service) answerInstance(query *wire.Envelope, reply string) {
	if reply == "" {
		return
	}
	state := s.state()
	if state == natscallv1.State_STATE_SERVING && strings.HasSuffix(reply, "."+wire.PeersToken) {
		membership{s}.rely()
	}
	body, err := appendProto(wire.AppendInstanceAnswer(nil, query.ID), &natscallv1.Instance{
		Instance: s.identity.ID, State: state, QueueGroup: s.queueGroup(),
		Methods: append(s.methods(), wire.SchemaMethod, wire.HealthMethod),
	})
	if err == nil {
		err = s.server.nc.Publish(reply, body)
	}
	if err != nil {
		s.server.options.logger.Error("natscall: an instance query was not answered", "service", s.desc.Name, "error", err)
	}
}

// state returns what the instance says about itself.
func (s *service) state() natscallv1.State {
	select {
	case <-s.steps.started:
		return natscallv1.State_STATE_DRAINING
	default:
	}
	switch {
	case !s.steps.ready.Load():
		return natscallv1.State_STATE_STARTING
	case s.subs.err() != nil:
		return natscallv1.State_STATE_UNHEALTHY
	}
	// One that is healthy again and still out of its groups does not cover for others yet.
	if status := s.profile.health.Status(); status.Err != nil || status.Out {
		return natscallv1.State_STATE_UNHEALTHY
	}
	return natscallv1.State_STATE_SERVING
}

// methods returns the names of the methods, as in the .proto file.
func (s *service) methods() []string {
	all := make([]string, len(s.endpoints))
	for i, e := range s.endpoints {
		all[i] = e.method.desc.Name
	}
	return all
}

// answerAlive tells a client which of its calls are here. If it has asked this instance, no call is
// an answer too: the zero id.
func (s *service) answerAlive(query *wire.Envelope, m *nats.Msg) {
	var mine []wire.ID
	for id := range query.IDs() {
		if _, ok := s.calls.Get(id); ok {
			mine = append(mine, id)
		}
	}
	if client, ok := wire.ParseID(m.Header.Get(wire.ClientHeader)); ok {
		s.calls.callers.Heard(client, mine)
	}
	if len(mine) == 0 && !strings.HasSuffix(m.Subject, "."+wire.AliveToken) {
		mine = []wire.ID{{}}
	}
	if len(mine) == 0 || m.Reply == "" {
		return
	}
	err := publish.Send(s.server.nc, &nats.Msg{
		Subject: m.Reply, Header: nats.Header{wire.InstanceHeader: {s.identity.ID}},
		Data: wire.AppendAlive(nil, wire.KindAliveAnswer, mine...),
	})
	if err != nil {
		s.server.options.logger.Error("natscall: an alive answer was not sent", "service", s.desc.Name, "error", err)
	}
}

// pendingControl returns, for each of the control subscriptions, a function that reports whether
// the callback still has to take what waits for it now.
func (s *service) pendingControl() (all []func() bool) {
	for _, sub := range s.subs.control {
		got, pending := sub.Progress()
		all = append(all, func() bool {
			now, left := sub.Progress()
			return left > 0 && now <= got+int64(pending)
		})
	}
	return all
}

// endDead ends the calls whose clients are dead.
func (s *service) endDead() {
	dead := s.calls.callers.Tick(func(id wire.ID) liveness.Kind {
		if _, ok := s.calls.Get(id); !ok {
			return liveness.KindEnded
		} else if s.server.streams.Has(id) {
			return liveness.KindStream
		}
		return liveness.KindUnary
	})
	for _, id := range dead {
		if s.server.streams.Has(id) { // its end is that of the call
			s.server.streams.End(id, failf(CodeUnavailable, ExecutionMayHaveRun, "nothing has come from the caller for %v", liveness.StreamSilence))
		} else if c, ok := s.calls.Get(id); ok {
			c.ctx.endWith(contextCanceled)
		}
	}
}

// stop takes no more requests and waits until those that were taken are answered. If ctx, or that
// of another caller of stop, ends first, the other calls are canceled and answered with an error.
func (s *service) stop(ctx context.Context) error { return s.stopping.Do(ctx, s.drain) }

func (s *service) drain(ctx context.Context) error {
	close(s.steps.started)
	s.profile.watched.stop()
	s.unsubscribe(s.subs.verbs)
	membership{s}.handOver(ctx)
	err := s.drainRequests(ctx)
	s.steps.draining.Store(true)
	if endErr := s.awaitCalls(ctx); endErr != nil {
		err = fmt.Errorf("%w; still running: %s", endErr, s.running())
		s.abandon()
	}
	s.server.out.Flush() // answers that would wait for a goroutine that is waking
	s.unsubscribe(slices.Concat(s.subs.control, s.subs.own))
	membership{s}.awaitCheck()
	return err
}

// awaitCalls waits for the calls. Tools may ask until the last one has ended.
func (s *service) awaitCalls(ctx context.Context) error {
	err := wait.All(ctx, []<-chan struct{}{s.workers.calls.Close(), s.workers.streams.Close()})
	return cmp.Or(err, wait.All(ctx, []<-chan struct{}{s.workers.own.Close()}))
}

// running describes the calls that have not ended: how many of which method.
func (s *service) running() string {
	counts := map[string]int{}
	for _, c := range s.calls.All() {
		counts[c.call.method.FullName()]++
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%d of %s", counts[name], name))
	}
	if len(parts) == 0 {
		return "none any more"
	}
	return strings.Join(parts, ", ")
}

// drainRequests ends the subscriptions of the methods after they have delivered what they have.
func (s *service) drainRequests(ctx context.Context) error {
	var draining []<-chan nats.SubStatus
	for _, sub := range s.subs.requests {
		// A drain during a reconnect leaves interest behind on the NATS server, so without a
		// connection it is Unsubscribe.
		if !s.server.nc.IsConnected() {
			s.unsubscribe([]*connwatch.Subscription{sub})
		} else if ch, err := sub.Drain(); err != nil {
			s.logUnsubscribe(sub, err)
		} else if ch != nil {
			draining = append(draining, ch)
		}
	}
	err := wait.All(ctx, draining)
	if err != nil {
		s.unsubscribe(s.subs.requests)
	}
	return err
}

func (s *service) unsubscribe(subs []*connwatch.Subscription) {
	for _, sub := range subs {
		if err := sub.Unsubscribe(); err != nil {
			s.logUnsubscribe(sub, err)
		}
	}
}

func (s *service) logUnsubscribe(sub *connwatch.Subscription, err error) {
	if !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrBadSubscription) {
		s.server.options.logger.Error("natscall: unsubscribe", "subject", sub.Subject, "error", err)
	}
}

// abandon cancels the calls that are left and answers them with an error, so that their callers do
// not wait for handlers that ignore their context.
func (s *service) abandon() {
	all := s.calls.All()
	for _, begun := range []bool{false, true} { // the end of those that run lets others begin
		for _, c := range all {
			if c.giveUp() == begun {
				continue
			}
			err := c.verdict(failf(CodeUnavailable, ExecutionDidRun, "the server was stopped before the call had ended"))
			err.refused = err.execution == ExecutionNotRun
			c.refuse(err)
			// After refuse, or the handler's own answer might come first.
			c.ctx.endWith(contextStopped)
		}
	}
	close(s.steps.abandoned) // also after refuse
}

// unsubscribeAll undoes a start that failed.
func (s *service) unsubscribeAll() {
	s.unsubscribe(s.subs.all())
	s.subs = subscriptions{}
	for _, p := range s.workers.all() {
		p.Close() // calls may have come already
	}
}

// conflict refuses a service that the server has already, and a subject that is taken.
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

// onInstance is the callback for messages to this instance: queries, requests, and frames of
// clients.
func (s *service) onInstance(m *nats.Msg) {
	token := m.Subject[len(s.root)+len("."+wire.InstanceToken+".")+len(s.identity.ID)+len("."):]
	if token == wire.InstancesToken || token == wire.AliveSuffix {
		s.onControl(m)
	} else if token == wire.PeersToken {
		membership{s}.deliver(m)
	} else if method, ok := strings.CutPrefix(token, wire.CallToken+"."); ok {
		s.onCall(toInstance, method, m)
	} else {
		s.onFrame(token, m)
	}
}

// onCall takes a request that does not come by the subject of its method.
func (s *service) onCall(to addressee, method string, m *nats.Msg) {
	switch e := s.endpointOf(method); {
	case e != nil:
		e.receiveFor(to, m)
	case m.Reply != "":
		unknown := newMethod[emptypb.Empty, emptypb.Empty](s.desc, MethodDesc{Name: method}, KindUnary)
		(&endpoint{service: s, method: &unknown, unknown: true}).receiveFor(to, m)
	}
}

// endpointOf returns the endpoint of a method, given its name, or nil.
func (s *service) endpointOf(method string) *endpoint {
	for _, all := range [...][]*endpoint{s.endpoints, s.profile.methods} {
		for _, e := range all {
			if e.method.desc.Name == method {
				return e
			}
		}
	}
	return nil
}

// onFrame takes a frame of the stream whose id is the token.
func (s *service) onFrame(token string, m *nats.Msg) {
	id, ok := wire.ParseID(token)
	if ok && s.server.streams.Deliver(id, m) {
		return
	}
	if reply.IsNoResponders(m) { // the reader of a plain stream has gone
		if c, ok := s.calls.Get(id); ok {
			c.ctx.endWith(contextCanceled)
		}
		return
	}
	if m.Reply == "" {
		return // a frame that crossed the end of its stream
	}
	unknown := failf(CodeUnavailable, ExecutionMayHaveRun, "the instance does not know the stream, or it has ended")
	end := wire.AppendFrame(nil, wire.KindEnd, 0)
	end[wire.FlagsOffset] |= byte(wire.MayHaveRun.Flags())
	body, err := appendProto(end, unknown.status())
	if err == nil {
		err = s.server.nc.Publish(m.Reply, body)
	}
	if err != nil {
		s.server.options.logger.Error("natscall: the end of an unknown stream was not sent", "error", err)
	}
}

// load counts the calls of each endpoint that have not been counted as ended.
func (s *service) load() map[*endpoint]endpointLoad {
	all := map[*endpoint]endpointLoad{}
	for _, c := range s.calls.All() {
		if c.steps.taken(callCounted) {
			continue
		}
		l := all[c.endpoint]
		l.inFlight++
		if !c.steps.taken(callRunning) {
			l.queued++
		}
		all[c.endpoint] = l
	}
	return all
}
