package liveness

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/internal/names"
	"github.com/natscall/natscall/rpc/internal/wire"
)

const (
	// muteTime is for how long all instances below a root, or single ones, are not asked after NATS
	// has refused such a query. The permission may come back.
	muteTime = 3 * time.Second
	// maxShared is how many calls share a first query: 1 KiB.
	maxShared = 64
	// maxNamed is how many ids a query to one instance names: 16 KiB.
	maxNamed = 1024
	// replyRounds is after how many looks reply subjects are used again. Where a service may send
	// one response ("allow_responses: true"), NATS lets one answer to each subject pass, and an
	// instance that stood still answers the queries of many looks at once. NATS keeps each subject
	// for a while, so their number is bounded.
	replyRounds = 64
)

// Conn is what an Asker needs of a *nats.Conn.
type Conn interface {
	PublishMsg(m *nats.Msg) error
}

// Call is a call, or a stream that opens, which waits for its first answer.
type Call interface {
	CallID() wire.ID
	Root() string // where to ask, or "" if nobody can be asked
	Waited() *Patience
	// Where returns the instance that works on the call, or "" as long as that is not known.
	Where() string
	// Alive notes that an instance works on the call, if it still waits. instance is "" if it does
	// not say which one it is.
	Alive(id wire.ID, instance string)
}

// Stream is a stream that an instance has accepted.
type Stream interface {
	CallID() wire.ID
	Root() string
	Where() string
	// Known reports whether the instance knows that the stream belongs to this client.
	Known() bool
	Alive(id wire.ID, instance string)
}

// Asker asks instances about the calls and streams of a client. Its client makes a Look at all of
// them with every tick. It also takes the answers, which may come at any time.
//
// A call whose instance is not known is asked about by a query to all instances. An instance that
// has answered for calls, or has accepted streams, is asked whether it is there: one small message
// is enough for any number of them. It names the streams that the instance does not know yet to
// belong to this client, and now and then each call.
type Asker struct {
	conn   Conn
	client wire.ID // names the client to instances
	prefix string  // of the reply subjects

	mu    sync.Mutex
	asked map[wire.ID]answerable // that an answer may be about, also a late one; never changed
	muted map[string]time.Time   // until when a subject, or those below it, are not used
	peers map[Place]*peer
	count int // of peers so far
	round int // of reply subjects
}

type answerable interface {
	Alive(id wire.ID, instance string)
}

// Place is an instance of a service.
type Place struct{ Root, Instance string }

// peer is an instance that a client has streams at, or knows to work on its calls.
type peer struct {
	Place
	number int // in its reply subject
	every  int // ticks between two queries
	Patience
	deaf bool // it is older than these queries: its streams have heartbeats only
}

// TokenPrefix begins the last token of the reply subjects of queries.
const TokenPrefix = "a"

// NewAsker returns the Asker of a client. Answers come to subjects that begin with prefix, which
// ends with a dot, and TokenPrefix; the caller subscribes, and calls Deliver.
func NewAsker(conn Conn, prefix string) *Asker {
	return &Asker{conn: conn, client: wire.NewID(), prefix: prefix, muted: map[string]time.Time{}, peers: map[Place]*peer{}}
}

// Refused notes that NATS has refused to publish to a subject. It reports whether that is the
// subject of a query. Silence is no sign of death then.
func (a *Asker) Refused(subject string) bool {
	mute := subject
	if !strings.HasSuffix(subject, "."+wire.AliveToken) {
		below, ok := strings.CutSuffix(subject, "."+wire.AliveSuffix)
		i := strings.LastIndex(below, "."+wire.InstanceToken+".")
		if !ok || i < 0 {
			return false
		}
		mute = oneSubject(below[:i])
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.muted[mute] = time.Now().Add(muteTime)
	return true
}

// allSubject is where all instances of a service are asked. The subjects of single ones begin with
// oneSubject.
func allSubject(root string) string { return names.Join(root, wire.AliveToken) }
func oneSubject(root string) string { return names.Join(root, wire.InstanceToken) }

// Look is one look at all calls and streams of a client. It is for one goroutine.
type Look struct {
	asker   *Asker
	rule    Rule
	asks    bool // queries can be sent
	muted   map[string]time.Time
	asked   map[wire.ID]answerable
	queries queries
	visits  map[Place]*visit
	peers   int // so far
}

// visit is what a look finds at a peer, whose own fields are under the lock of the Asker.
type visit struct {
	*peer
	due     bool
	silence int       // ticks since the first query that it has not answered
	calls   bool      // it works on some
	streams bool      // it has accepted some
	asked   []wire.ID // calls that are asked about
	unknown []wire.ID // streams that it does not know
}

// Look begins a look. connected says that queries can be sent, ticks that this is a look of the
// clock: only then peers with streams are asked.
func (a *Asker) Look(rule Rule, connected, ticks bool) *Look {
	a.mu.Lock()
	defer a.mu.Unlock()
	maps.DeleteFunc(a.muted, func(_ string, until time.Time) bool { return time.Now().After(until) })
	l := &Look{
		asker: a, rule: rule, asks: connected, muted: maps.Clone(a.muted),
		asked: map[wire.ID]answerable{}, visits: map[Place]*visit{}, peers: a.count,
	}
	for at, p := range a.peers {
		v := &visit{peer: p}
		switch {
		case !connected, l.mutes(oneSubject, p.Root):
			p.Skip()
		case ticks && !p.deaf:
			v.due = p.tick(p.every)
		}
		v.silence = p.waited()
		l.visits[at] = v
	}
	return l
}

func (l *Look) mutes(subject func(root string) string, root string) bool {
	return len(l.muted) > 0 && !l.muted[subject(root)].IsZero()
}

// Call looks at a call. It reports whether nobody works on it any more.
func (l *Look) Call(c Call) (dead bool) {
	p, root, at := c.Waited(), c.Root(), c.Where()
	if l.mutes(oneSubject, root) {
		at = "" // all are asked instead: the instance has to know that the client is there
	}
	if l.asks && (root == "" || at == "" && l.mutes(allSubject, root)) {
		p.Skip()
		return false
	}
	ask, dead := l.rule(p)
	if p.Asked() {
		l.asked[c.CallID()] = c
	}
	if at == "" {
		if ask && !dead && l.asks {
			l.queries.add(c)
		}
		return dead
	}
	v := l.visit(Place{root, at})
	v.calls = true
	if ask && l.asks {
		v.asked = append(v.asked, c.CallID())
	}
	return dead || v.silence >= callLimit
}

// Stream looks at a stream. It reports whether its instance has died.
func (l *Look) Stream(s Stream) (dead bool) {
	v := l.visit(Place{s.Root(), s.Where()})
	v.streams = true
	switch {
	case v.silence >= streamLimit:
		return true
	case !s.Known():
		v.unknown = append(v.unknown, s.CallID())
		l.asked[s.CallID()] = s
	}
	return false
}

func (l *Look) visit(at Place) *visit {
	v := l.visits[at]
	if v == nil {
		l.peers++
		v = &visit{peer: &peer{Place: at, number: l.peers, every: askEvery}}
		l.visits[at] = v
	}
	return v
}

// End ends the look: it publishes the queries. One that is not sent counts as not answered. It
// reports whether there are any.
func (l *Look) End() (any bool) {
	all := l.finish()
	if !l.asks {
		return false
	}
	for _, q := range all {
		_ = l.asker.conn.PublishMsg(&nats.Msg{
			Subject: q.subject, Reply: l.asker.prefix + q.token, Data: wire.AppendAlive(nil, wire.KindAliveQuery, q.ids...),
			Header: nats.Header{wire.ClientHeader: {l.asker.client.String()}},
		})
	}
	return len(all) > 0
}

// finish keeps the peers that are there still, and returns the queries of the look.
func (l *Look) finish() []query {
	a := l.asker
	all := l.queries.all()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked, a.peers, a.count = l.asked, map[Place]*peer{}, l.peers
	for at, v := range l.visits {
		if !v.calls && (!v.streams || v.silence >= streamLimit) || v.silence >= callLimit {
			continue // nothing is there any more
		}
		a.peers[at] = v.peer
		if v.every = streamsEvery; v.calls {
			v.every = askEvery
			v.soon(askEvery) // it may have had streams only until now
		}
		if len(v.asked) > 0 && !v.deaf {
			v.peer.asked(v.every)
			v.due = true
		}
		if v.due {
			all = append(all, v.queries()...)
		}
	}
	if len(all) > 0 {
		a.round = (a.round + 1) % replyRounds
	}
	for i := range all {
		all[i].token += "-" + strconv.Itoa(i*replyRounds+a.round)
	}
	return all
}

// queries returns the messages to a peer.
func (v *visit) queries() (all []query) {
	ids := append(v.asked, v.unknown...)
	if len(ids) == 0 {
		ids = []wire.ID{{}} // of no call
	}
	subject := names.Join(oneSubject(v.Root), v.Instance, wire.AliveSuffix)
	for some := range slices.Chunk(ids, maxNamed) {
		all = append(all, query{subject, TokenPrefix + strconv.Itoa(v.number), some})
	}
	return all
}

// queries are those of one look to all instances: for each service the calls that are asked about
// for the first time, together, and the others one by one.
type queries struct {
	shared map[string][]wire.ID
	alone  []query
}

// query is a message that asks about calls and streams.
type query struct {
	subject string
	token   string // the last one of the reply subject, which no other query of its time has
	ids     []wire.ID
}

func (q *queries) add(c Call) {
	root, id := c.Root(), c.CallID()
	if c.Waited().AskedBefore() { // a singleton account import lets only one answer pass
		q.alone = append(q.alone, toAll(root, id))
		return
	}
	if q.shared == nil {
		q.shared = map[string][]wire.ID{}
	}
	ids := append(q.shared[root], id)
	if len(ids) == maxShared {
		q.alone = append(q.alone, toAll(root, ids...))
		ids = nil
	}
	q.shared[root] = ids
}

func toAll(root string, ids ...wire.ID) query {
	return query{allSubject(root), TokenPrefix, ids}
}

func (q *queries) all() []query {
	for root, ids := range q.shared {
		if len(ids) > 0 {
			q.alone = append(q.alone, toAll(root, ids...))
		}
	}
	return q.alone
}

// Deliver takes a message that came to a reply subject with the token. If nobody listens for the
// queries to an instance, which then has lost its connection with all streams, it returns where.
func (a *Asker) Deliver(token string, m *nats.Msg) (gone Place, ok bool) {
	none := wire.IsNoResponders(m.Header, m.Data)
	e, err := wire.Parse(m.Data)
	alive := err == nil && e.Kind == wire.KindAliveAnswer
	instance := m.Header.Get(wire.InstanceHeader)
	if wire.CheckInstance(instance) != nil {
		instance = "" // nobody can be asked there
	}
	a.mu.Lock()
	asked := a.asked
	if p := a.peerLocked(token); p != nil {
		switch {
		case none:
			gone, ok = p.Place, true
		case alive && instance == p.Instance:
			p.Found(false)
		default: // it takes the query for a frame of a stream
			p.deaf = true
		}
	}
	a.mu.Unlock()
	if !alive {
		return gone, ok
	}
	for id := range e.IDs() {
		if c := asked[id]; c != nil {
			c.Alive(id, instance)
		}
	}
	return gone, ok
}

// peerLocked returns the peer whose answer comes with a token, or nil.
func (a *Asker) peerLocked(token string) *peer {
	text, _, _ := strings.Cut(token[len(TokenPrefix):], "-")
	number, err := strconv.Atoi(text)
	if err != nil {
		return nil
	}
	for _, p := range a.peers {
		if p.number == number {
			return p
		}
	}
	return nil
}
