package rpc

import (
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/internal/names"
	"github.com/natscall/natscall/rpc/internal/connwatch"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/reply"
	"github.com/natscall/natscall/rpc/internal/stream"
	"github.com/natscall/natscall/rpc/internal/wire"
)

const (
	// watchInterval is how often a client looks at its waiting calls, and half of the time between
	// two alive queries about a call.
	watchInterval = 500 * time.Millisecond
	// recheckInterval is how long a query about a call may go unanswered when the connection has
	// been re-established: after three of them, three quarters of a second, its answer was lost.
	recheckInterval = 250 * time.Millisecond
	// queryBatch is how many calls share a first query: 1 KiB.
	queryBatch = 64
	// aliveSuffix is the last token of the reply subject of alive queries.
	aliveSuffix = "alive"
)

// watch finds the calls that nobody works on any more: those whose replica was killed, or whose
// reply was lost. docs/protocol.md, "Alive query and answer", has the rule. It also listens to the
// connection, so that calls end when it is closed and when it may not publish.
type watch struct {
	nc      *nats.Conn
	inbox   *reply.Inbox
	out     *publish.Publisher
	streams *stream.Table
	prefix  string // of the inbox's subjects; with aliveSuffix it is the one for the answers

	answered func(request string) bool // somebody has answered on the subject

	forbidden atomic.Pointer[Error] // why no reply can come, if so

	quit   chan struct{}
	done   chan struct{}
	errors connwatch.Listener
	status chan nats.Status

	mu    sync.Mutex
	asked map[wire.ID]waiting // the calls that are asked about; not written to once it is here
	muted map[string]bool     // roots whose alive subject the client may not publish to
}

// waiting is a call that waits for its reply, or a stream that waits for its first answer.
type waiting interface {
	CallID() wire.ID
	Root() string
	Waited() *reply.Patience
	Alive(id wire.ID)
}

func newWatch(c *Client, b *reply.Inbox, prefix string) *watch {
	w := &watch{
		nc: c.nc, inbox: b, out: c.out, streams: c.streams, prefix: prefix, answered: c.answeredOn,
		quit: make(chan struct{}), done: make(chan struct{}), muted: map[string]bool{},
	}
	w.errors = w.asyncError
	return w
}

// start starts the watch's goroutine, which stop or the end of the connection ends. onLost runs at
// each loss of the connection and at its end, onClosed at its end only.
func (w *watch) start(onLost, onClosed func()) {
	w.status = w.nc.StatusChanged(nats.CLOSED, nats.RECONNECTING, nats.DISCONNECTED, nats.CONNECTED)
	connwatch.Listen(w.nc, &w.errors)
	go func() {
		defer close(w.done)
		defer connwatch.Unlisten(w.nc, &w.errors)
		if w.run(onLost) {
			onLost()
			onClosed()
			w.inbox.End(failf(CodeUnavailable, MayHaveRun, "the NATS connection was closed").because(nats.ErrConnectionClosed))
		}
	}()
}

// run ticks until it is stopped; it returns true when the connection has been closed.
func (w *watch) run(onLost func()) (closed bool) {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	recheck := time.NewTimer(recheckInterval)
	recheck.Stop()
	defer recheck.Stop()
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
		case <-w.quit:
			return false
		}
	}
}

// stop ends the goroutine, waits for it, and ends all calls with err.
func (w *watch) stop(err *Error) {
	close(w.quit)
	<-w.done
	w.nc.RemoveStatusListener(w.status)
	w.inbox.End(err)
}

// tick has requests published that wait for a caller that has died, by a panic within a call, and
// looks at the calls.
func (w *watch) tick() {
	if out := w.out; out.Holds() && out.Overdue() {
		out.Flush()
	}
	w.look((*reply.Patience).Tick)
}

// look ends the calls that rule finds lost and, if the connection is up, asks about those that rule
// wants to ask about. It reports whether it has asked.
func (w *watch) look(rule reply.Rule) (asks bool) {
	w.mu.Lock()
	muted := maps.Clone(w.muted)
	w.mu.Unlock()
	l := look{rule: rule, connected: w.nc.Status() == nats.CONNECTED, muted: muted, asked: map[wire.ID]waiting{}}
	w.inbox.Each(func(p *reply.Pending) error { return l.at(p) })
	w.streams.Opening(func(c *stream.Client) error { return l.at(c) }) // an open one has heartbeats
	w.mu.Lock()
	w.asked = l.asked
	w.mu.Unlock()
	return l.connected && l.queries.publish(w.nc, w.prefix+aliveSuffix)
}

// look is one look at all calls.
type look struct {
	rule      reply.Rule
	connected bool
	muted     map[string]bool // roots that may not be asked
	queries   queries
	asked     map[wire.ID]waiting // all that an answer may be about, also a late one
}

// at looks at a call. It returns the error of one that is lost.
func (l *look) at(call waiting) error {
	p := call.Waited()
	if root := call.Root(); l.connected && (root == "" || l.muted[root]) {
		p.Skip()
		return nil
	}
	ask, dead := l.rule(p)
	if p.Asked() {
		l.asked[call.CallID()] = call
	}
	switch {
	case dead:
		return lost(l.connected)
	case ask:
		l.queries.add(call)
	}
	return nil
}

func lost(connected bool) *Error {
	if !connected {
		return failf(CodeUnavailable, MayHaveRun, "the NATS connection was lost while the call waited (%v)", MayHaveRun)
	}
	return failf(CodeUnavailable, MayHaveRun, "no replica works on the call any more (%v)", MayHaveRun)
}

// queries are the alive queries of one tick: for each service the calls that
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
	if call.Waited().AskedBefore() { // an import of the singleton kind lets one answer pass
		q.alone = append(q.alone, query{root, []wire.ID{id}})
		return
	}
	if q.shared == nil {
		q.shared = map[string][]wire.ID{}
	}
	ids := append(q.shared[root], id)
	if len(ids) == queryBatch {
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
		return // a 503: nobody has any of the calls
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

// asyncError ends the calls whose request the NATS server refused.
func (w *watch) asyncError(_ *nats.Subscription, err error) {
	if inbox, ok := connwatch.Violation(err, connwatch.Subscription); ok && inbox == w.prefix+"*" {
		w.forbid(inbox, err)
		return
	}
	subject, ok := connwatch.Violation(err, connwatch.Publish)
	if !ok {
		return
	}
	if root, isQuery := strings.CutSuffix(subject, "."+wire.AliveToken); isQuery {
		w.mu.Lock()
		w.muted[root] = true // silence is no sign of death then
		w.mu.Unlock()
		return
	}
	// Where somebody has answered the permission was there, and may have been taken away while
	// calls were running: which of them was refused is not said.
	mayHaveRun := w.answered(subject)
	refused := func(early bool) *Error {
		x := NotRun
		if mayHaveRun || !early {
			x = MayHaveRun
		}
		return failf(CodePermissionDenied, x, "the NATS user may not publish to %q", subject).because(err)
	}
	w.inbox.Each(func(p *reply.Pending) error {
		if p.To() != subject {
			return nil
		}
		return refused(!p.Old())
	})
	for _, s := range w.streams.All() {
		if to, early := s.To(); to == subject {
			s.Break(refused(early))
		}
	}
}

// forbid ends all calls, and those to come, of a client that may not subscribe to its inbox.
func (w *watch) forbid(inbox string, err error) {
	forbidden := failf(CodePermissionDenied, NotRun, "the NATS user may not subscribe to its inbox %q", inbox).because(err)
	w.forbidden.Store(forbidden)
	waiting := *forbidden
	waiting.execution = MayHaveRun
	w.inbox.End(&waiting)
	w.streams.Break(&waiting)
}
