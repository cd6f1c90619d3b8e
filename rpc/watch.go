package rpc

import (
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/connwatch"
	"github.com/natscall/natscall/rpc/internal/instances"
	"github.com/natscall/natscall/rpc/internal/liveness"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/reply"
	"github.com/natscall/natscall/rpc/internal/stream"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// recheckInterval is the time between alive queries after a reconnect. If three of them find
// nobody, in three quarters of a second, the call is lost.
const recheckInterval = 250 * time.Millisecond

// watch finds the calls and streams that nobody works on any more: those whose replica was killed,
// or whose reply was lost. Package liveness has the rule. It also listens to the connection, so
// that calls end when it is closed, or when NATS refuses a publish.
type watch struct {
	nc      *nats.Conn
	inbox   *reply.Inbox
	known   *instances.Directory
	out     *publish.Publisher
	streams *stream.Table
	left    liveness.Abandoned
	asker   *liveness.Asker
	prefix  string // of the inbox's subjects

	answered func(request string) bool // somebody has answered on the subject

	access access // to the inbox
	conn   connCheck

	quit     chan struct{}
	done     chan struct{}
	listener connwatch.Listener
	status   chan nats.Status
}

// access is what NATS lets a client have of its inbox.
type access struct {
	forbidden     atomic.Pointer[Error] // why no reply can come, if so
	subscriptions *connwatch.Subscriptions
	tending       sync.WaitGroup
	log           *slog.Logger
}

func newWatch(c *Client, b *reply.Inbox, prefix string) *watch {
	w := &watch{
		nc: c.nc, inbox: b, out: c.out, streams: c.streams, prefix: prefix, answered: c.answeredOn,
		quit: make(chan struct{}), done: make(chan struct{}), asker: liveness.NewAsker(c.out, prefix),
		access: access{subscriptions: connwatch.NewSubscriptions(), log: c.options.logger},
	}
	w.listener = w.asyncError
	link := connwatch.NewLink(c.nc)
	w.known = instances.New(c.out, func() bool { return !link.Down() }, prefix)
	w.conn.init(link, c.options.logger, c.options.reconnect)
	return w
}

// start starts the watch's goroutine, which stop or the end of the connection ends. onLost runs at
// each loss of the connection and at its end, onClosed at its end only.
func (w *watch) start(onLost, onClosed func()) {
	w.status = w.nc.StatusChanged(nats.RECONNECTING, nats.DISCONNECTED, nats.CONNECTED)
	connwatch.Listen(w.nc, &w.listener)
	go w.conn.link.Follow(w.done)
	go func() {
		defer close(w.done)
		if w.run(onLost) {
			onClosed() // first, so that no call comes behind those that are ended
			onLost()
			w.endCalls(failf(CodeUnavailable, ExecutionMayHaveRun, "the NATS connection was closed").because(nats.ErrConnectionClosed))
			connwatch.Unlisten(w.nc, &w.listener)
		}
	}()
}

// run ticks until it is stopped. It reports whether the connection was closed.
func (w *watch) run(onLost func()) (closed bool) {
	ticker := time.NewTicker(liveness.Tick)
	defer ticker.Stop()
	recheck := time.NewTimer(recheckInterval)
	recheck.Stop()
	defer recheck.Stop()
	tend := time.NewTimer(tendInterval)
	tend.Stop()
	defer tend.Stop()
	tending, tended := false, make(chan int, 1) // not here: it may wait for the connection's lock
	for {
		select {
		case <-ticker.C:
			w.tick()
		case status := <-w.status:
			if status != nats.CONNECTED {
				onLost()
			} else if w.look((*liveness.Patience).Reconnected, true, false) {
				recheck.Reset(recheckInterval)
			}
		case <-w.conn.link.Closed():
			return true
		case <-recheck.C:
			if w.look((*liveness.Patience).Recheck, !w.conn.link.Down(), false) {
				recheck.Reset(recheckInterval)
			}
		case <-w.access.subscriptions.Refused:
			tend.Reset(tendInterval)
		case <-tend.C:
			if tending {
				tend.Reset(tendInterval)
				continue
			}
			tending = true
			w.access.tending.Go(func() { tended <- w.tend() })
		case refused := <-tended:
			if tending = false; refused > 0 {
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
	if w.conn.link.Down() {
		return 1 // nothing is known
	}
	back, refused := w.access.subscriptions.Tend()
	for _, sub := range back {
		w.access.forbidden.Store(nil)
		w.access.log.Warn("natscall: the NATS user may subscribe to its inbox again: calls are possible", "subject", sub.Subject)
	}
	return refused
}

// stop ends the goroutine, waits for it, and ends all calls with err: instances are told. Then
// release is to follow.
func (w *watch) stop(err *Error) {
	close(w.quit)
	<-w.done
	w.inbox.Each(func(p *reply.Pending) error {
		if p.Root() != "" && p.Claimed() {
			w.left.Add(p.Root(), p.CallID())
		}
		return err
	})
	w.known.Mail.End(err)
	if !w.conn.link.Down() {
		w.left.Cancel(w.out)
	}
}

// release takes the watch off the connection. It may wait for the lock of that.
func (w *watch) release() {
	w.conn.stop()
	w.access.tending.Wait()
	connwatch.Unlisten(w.nc, &w.listener)
	w.nc.RemoveStatusListener(w.status)
}

// endCalls ends all that waits for replies.
func (w *watch) endCalls(err *Error) {
	w.inbox.End(err)
	w.known.Mail.End(err)
}

// tick looks at the calls. First it has requests published that wait for a caller that never comes,
// as it has panicked within a call. While nothing can be published, nobody can be asked, and
// silence says nothing.
func (w *watch) tick() {
	if out := w.out; out.Holds() && out.Overdue() {
		out.Wake()
	}
	if w.out.Stalled() && !w.conn.link.Down() {
		return
	}
	if w.conn.link.Down() {
		w.look((*liveness.Patience).Offline, false, true)
		return // requests that were given up have met the same end
	}
	w.look((*liveness.Patience).Tick, true, true)
	w.left.Cancel(w.out)
}

// look applies rule to every waiting call. It ends those that are lost and, if the connection is
// up, asks about those that rule names. With ticks it also looks at streams. It reports whether it
// has asked.
func (w *watch) look(rule liveness.Rule, connected, ticks bool) (asks bool) {
	l := w.asker.Look(rule, connected, ticks)
	silence := false
	at := func(dead bool) error {
		if !dead {
			return nil
		}
		silence = silence || connected
		return nobodyWorks(connected)
	}
	w.inbox.Each(func(p *reply.Pending) error {
		if !p.Claimed() { // no instance can know it
			return nil
		}
		return at(l.Call(p))
	})
	w.streams.EachClient(func(c *stream.Client, open bool) error {
		switch {
		case open:
			return at(l.Stream(c))
		case !c.Claimed():
			return nil
		}
		return at(l.Call(c))
	})
	if silence {
		w.conn.check(w.nc)
	}
	return l.End()
}

// errSilence is the cause of an error of a call that no instance has answered for.
var errSilence = errors.New("no instance answers for the call")

func nobodyWorks(connected bool) *Error {
	if !connected {
		return failf(CodeUnavailable, ExecutionMayHaveRun, "the NATS connection was lost while the call waited (%v)", ExecutionMayHaveRun)
	}
	return failf(CodeUnavailable, ExecutionMayHaveRun, "no replica works on the call any more (%v)", ExecutionMayHaveRun).because(errSilence)
}

// deliver takes a message that came to a reply subject of alive queries. The streams of an instance
// that has lost its connection end.
func (w *watch) deliver(token string, m *nats.Msg) {
	gone, ok := w.asker.Deliver(token, m)
	if !ok {
		return
	}
	w.streams.EachClient(func(c *stream.Client, open bool) error {
		if open && c.Root() == gone.Root && c.Where() == gone.Instance {
			return stream.ErrGone
		}
		return nil
	})
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
	if w.asker.Refused(subject) {
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
