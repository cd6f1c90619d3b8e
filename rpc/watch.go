package rpc

import (
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
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/reply"
	"github.com/natscall/natscall/rpc/internal/stream"
	"github.com/natscall/natscall/rpc/internal/wire"
)

const (
	// watchInterval is the time between two looks at the waiting calls. Every second look asks
	// about a call.
	watchInterval = 500 * time.Millisecond
	// recheckInterval is the time between alive queries after a reconnect. If three of them find
	// nobody, in three quarters of a second, the call is lost.
	recheckInterval = 250 * time.Millisecond
	// muteTime is for how long a service is not asked after NATS has refused it. The permission may
	// come back.
	muteTime = 3 * time.Second
	// maxShared is how many calls share a first query: 1 KiB.
	maxShared = 64
	// aliveSuffix is the last token of the reply subject of alive queries.
	aliveSuffix = "alive"
)

// watch finds the calls that nobody works on any more: those whose replica was killed, or whose
// reply was lost. docs/protocol.md, "Alive query and answer", has the rule. It also listens to the
// connection, so that calls end when it is closed, or when NATS refuses a publish.
type watch struct {
	nc      *nats.Conn
	inbox   *reply.Inbox
	known   *instances.Directory
	out     *publish.Publisher
	streams *stream.Table
	prefix  string // of the inbox's subjects; with aliveSuffix it is the one for the answers

	answered func(request string) bool // somebody has answered on the subject

	access access // to the inbox

	quit     chan struct{}
	done     chan struct{}
	listener connwatch.Listener
	status   chan nats.Status

	mu    sync.Mutex
	asked map[wire.ID]waiting  // the calls that are asked about; never changed
	muted map[string]time.Time // until when a root, where the client may not publish, is not asked
}

// access is what NATS lets a client have of its inbox.
type access struct {
	forbidden     atomic.Pointer[Error] // why no reply can come, if so
	subscriptions *connwatch.Subscriptions
	log           *slog.Logger
}

// waiting is a call that waits for its reply, or a stream that waits for its first answer.
type waiting interface {
	CallID() wire.ID
	Root() string
	Waited() *reply.Patience
	Alive(id wire.ID)
}

func newWatch(c *Client, b *reply.Inbox, d *instances.Directory, prefix string) *watch {
	w := &watch{
		nc: c.nc, inbox: b, known: d, out: c.out, streams: c.streams, prefix: prefix, answered: c.answeredOn,
		quit: make(chan struct{}), done: make(chan struct{}), muted: map[string]time.Time{},
		access: access{subscriptions: connwatch.NewSubscriptions(), log: c.options.logger},
	}
	w.listener = w.asyncError
	return w
}

// start starts the watch's goroutine, which stop or the end of the connection ends. onLost runs at
// each loss of the connection and at its end, onClosed at its end only.
func (w *watch) start(onLost, onClosed func()) {
	w.status = w.nc.StatusChanged(nats.CLOSED, nats.RECONNECTING, nats.DISCONNECTED, nats.CONNECTED)
	connwatch.Listen(w.nc, &w.listener)
	go func() {
		defer close(w.done)
		defer connwatch.Unlisten(w.nc, &w.listener)
		if w.run(onLost) {
			onLost()
			onClosed()
			w.endCalls(failf(CodeUnavailable, ExecutionMayHaveRun, "the NATS connection was closed").because(nats.ErrConnectionClosed))
		}
	}()
}

// run ticks until it is stopped. It reports whether the connection was closed.
func (w *watch) run(onLost func()) (closed bool) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	recheck := time.NewTimer(recheckInterval)
	recheck.Stop()
	defer recheck.Stop()
	tend := time.NewTimer(tendInterval)
	tend.Stop()
	defer tend.Stop()
	if w.nc.IsClosed() { // before anybody listened
		return true
	}
	for {
		select {
		case <-ticker.C:
			w.tick()
		case status := <-w.status:
			switch {
			case w.nc.IsClosed():
				return true
			case status == nats.CONNECTED:
				if w.look((*reply.Patience).Reconnected) {
					recheck.Reset(recheckInterval)
				}
			default:
				onLost()
			}
		case <-recheck.C:
			if w.look((*reply.Patience).Recheck) {
				recheck.Reset(recheckInterval)
			}
		case <-w.access.subscriptions.Refused:
			tend.Reset(tendInterval)
		case <-tend.C:
			if w.tend() > 0 {
				tend.Reset(tendInterval)
			}
		case <-w.quit:
			return false
		}
	}
}

// tend makes the subscription to the inbox again after NATS has refused it. It returns how many
// subscriptions are refused still.
func (w *watch) tend() (refused int) {
	if w.nc.Status() != nats.CONNECTED {
		return 1 // nothing is known
	}
	back, refused := w.access.subscriptions.Tend()
	for _, sub := range back {
		w.access.forbidden.Store(nil)
		w.access.log.Warn("natscall: the NATS user may subscribe to its inbox again: calls are possible", "subject", sub.Subject)
	}
	return refused
}

// stop ends the goroutine, waits for it, and ends all calls with err.
func (w *watch) stop(err *Error) {
	close(w.quit)
	<-w.done
	w.nc.RemoveStatusListener(w.status)
	w.endCalls(err)
}

// endCalls ends all that waits for replies.
func (w *watch) endCalls(err *Error) {
	w.inbox.End(err)
	w.known.Mail.End(err)
}

// tick looks at the calls. First it publishes requests that wait for a caller that never comes, as
// it has panicked within a call.
func (w *watch) tick() {
	if out := w.out; out.Holds() && out.Overdue() {
		out.Flush()
	}
	w.look((*reply.Patience).Tick)
}

// look applies rule to every waiting call. It ends those that are lost and, if the connection is
// up, asks about those that rule names. It reports whether it has asked.
func (w *watch) look(rule reply.Rule) (asks bool) {
	w.mu.Lock()
	maps.DeleteFunc(w.muted, func(_ string, until time.Time) bool { return time.Now().After(until) })
	muted := maps.Clone(w.muted)
	w.mu.Unlock()
	l := look{rule: rule, connected: w.nc.Status() == nats.CONNECTED, muted: muted, asked: map[wire.ID]waiting{}}
	w.inbox.Each(func(p *reply.Pending) error { return l.at(p) })
	// Open streams have heartbeats.
	w.streams.EachOpening(func(c *stream.Client) error { return l.at(c) })
	w.mu.Lock()
	w.asked = l.asked
	w.mu.Unlock()
	return l.connected && l.queries.publish(w.nc, w.prefix+aliveSuffix)
}

// look is one look at all calls.
type look struct {
	rule      reply.Rule
	connected bool
	muted     map[string]time.Time // roots that may not be asked
	queries   queries
	asked     map[wire.ID]waiting // all that an answer may be about, also a late one
}

// at looks at a call. It returns the error of one that is lost.
func (l *look) at(call waiting) error {
	p := call.Waited()
	if root := call.Root(); l.connected && (root == "" || !l.muted[root].IsZero()) {
		p.Skip()
		return nil
	}
	ask, dead := l.rule(p)
	if p.Asked() {
		l.asked[call.CallID()] = call
	}
	switch {
	case dead:
		return nobodyWorks(l.connected)
	case ask:
		l.queries.add(call)
	}
	return nil
}

func nobodyWorks(connected bool) *Error {
	if !connected {
		return failf(CodeUnavailable, ExecutionMayHaveRun, "the NATS connection was lost while the call waited (%v)", ExecutionMayHaveRun)
	}
	return failf(CodeUnavailable, ExecutionMayHaveRun, "no replica works on the call any more (%v)", ExecutionMayHaveRun)
}

// queries are the alive queries of one look: for each service the calls that
// are asked about for the first time, together, and the others one by one.
type queries struct {
	shared map[string][]wire.ID
	alone  []query
}

type query struct {
	root string
	ids  []wire.ID
}

func (q *queries) add(call waiting) {
	root, id := call.Root(), call.CallID()
	if call.Waited().AskedBefore() { // a singleton account import lets only one answer pass
		q.alone = append(q.alone, query{root, []wire.ID{id}})
		return
	}
	if q.shared == nil {
		q.shared = map[string][]wire.ID{}
	}
	ids := append(q.shared[root], id)
	if len(ids) == maxShared {
		q.alone = append(q.alone, query{root, ids})
		ids = nil
	}
	q.shared[root] = ids
}

// publish sends the queries, and reports whether there are any. One that is not sent counts as not
// answered.
func (q *queries) publish(nc *nats.Conn, reply string) (any bool) {
	for root, ids := range q.shared {
		if len(ids) > 0 {
			q.alone = append(q.alone, query{root, ids})
		}
	}
	for _, one := range q.alone {
		_ = nc.PublishRequest(names.Join(one.root, wire.AliveToken), reply, wire.AppendAlive(nil, wire.KindAliveQuery, one.ids...))
	}
	return len(q.alone) > 0
}

// aliveAnswer takes the answer of an instance: these calls are alive.
func (w *watch) aliveAnswer(m *nats.Msg) {
	e, err := wire.Parse(m.Data)
	if err != nil || e.Kind != wire.KindAliveAnswer {
		return // such as a 503: no instance listens
	}
	w.mu.Lock()
	asked := w.asked
	w.mu.Unlock()
	for id := range e.IDs() {
		if call := asked[id]; call != nil {
			call.Alive(id)
		}
	}
}

// asyncError acts on what NATS refuses: to subscribe to the inbox, which ends all calls; to publish
// alive and instance queries, of which it takes note; to publish requests, which ends their calls
// and streams.
func (w *watch) asyncError(_ *nats.Subscription, err error) {
	if inbox, ok := connwatch.Violation(err, connwatch.ToSubscribe); ok && inbox == w.prefix+"*" {
		w.access.subscriptions.Refuse(inbox, err)
		w.forbid(inbox, err)
		return
	}
	subject, ok := connwatch.Violation(err, connwatch.ToPublish)
	if !ok {
		return
	}
	if root, isQuery := strings.CutSuffix(subject, "."+wire.AliveToken); isQuery {
		w.mu.Lock()
		w.muted[root] = time.Now().Add(muteTime) // silence is no sign of death then
		w.mu.Unlock()
		return
	}
	if root, isQuery := strings.CutSuffix(subject, "."+wire.AllToken+"."+wire.InstancesToken); isQuery {
		w.known.Refused(root)
		return
	}
	// The error does not say which call it refused. If somebody has answered on the subject, or if
	// several calls wait for that, the permission may have been there and been taken away later.
	mayHaveRun := w.answered(subject) || w.waitingOn(subject) > 1
	refused := func(early bool) *Error {
		x := ExecutionNotRun
		if mayHaveRun || !early {
			x = ExecutionMayHaveRun
		}
		return failf(CodePermissionDenied, x, "the NATS user may not publish to %q", subject).because(err)
	}
	w.inbox.Each(func(p *reply.Pending) error {
		if p.To() != subject {
			return nil
		}
		return refused(!p.Old())
	})
	w.known.Mail.Refused(subject, refused(true))
	for _, s := range w.streams.All() {
		if to, early := s.To(); to == subject {
			s.Break(refused(early))
		}
	}
}

// waitingOn is how many calls and streams wait for an answer from a subject.
func (w *watch) waitingOn(subject string) (n int) {
	w.inbox.Each(func(p *reply.Pending) error {
		if p.To() == subject {
			n++
		}
		return nil // it goes on
	})
	for _, s := range w.streams.All() {
		if to, _ := s.To(); to == subject {
			n++
		}
	}
	return n
}

// forbid ends all calls, and those to come, of a client that may not subscribe to its inbox.
func (w *watch) forbid(inbox string, err error) {
	forbidden := failf(CodePermissionDenied, ExecutionNotRun, "the NATS user may not subscribe to its inbox %q", inbox).because(err)
	if w.access.forbidden.Swap(forbidden) == nil {
		w.access.log.Error("natscall: the NATS user may not subscribe to its inbox: no call is possible until it may", "subject", inbox)
	}
	waiting := forbidden.withExecution(ExecutionMayHaveRun)
	w.endCalls(waiting)
	w.streams.Break(waiting)
}
