// Package instances asks the instances of services what they are, and keeps what several of them
// reply to one request.
package instances

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/internal/names"
	"github.com/natscall/natscall/rpc/internal/reply"
	"github.com/natscall/natscall/rpc/internal/wire"
)

const (
	// queryTime is how long a query waits for answers: several round trips within a region.
	queryTime = 250 * time.Millisecond
	// quietTime is how long it waits behind each answer for another one, or as long as that answer
	// took, if this is longer: on a slow way the answers are spread too.
	quietTime = 20 * time.Millisecond
	// JustNow is for how long the answers to a query count for callers that come later, most of
	// which have failed for the same reason at the same time.
	JustNow = 100 * time.Millisecond
	// RecentTime is for how long they count for a caller that looks for an instance beside the one
	// that has answered it. If one has gone meanwhile, it loses a round trip.
	RecentTime = time.Second
	// silentTime is for how long a service is not asked again that was silent: it is older than the
	// query, or its answers do not get here.
	silentTime = 4 * time.Second
	// seenTime is for how long an instance counts as known without having answered again.
	seenTime = time.Minute
)

// Directory is what a client has heard of the instances of services. A service is named by its
// root, which all of its own subjects begin with. All methods may be called concurrently.
//
//	      Ask         answers, none for quietTime; 503; queryTime; Refused; Close
//	idle -----> asking ----------------------------------------------------------> over
//	  ^                                                                              |
//	  +------------------------------------------------------------------------------+
//	                              Ask, later than age
//
// Callers that ask about a service at the same time share one query.
type Directory struct {
	Mail *Mailboxes

	conn      Conn
	connected func() bool
	prefix    string // of the reply subjects

	mu      sync.Mutex
	closed  bool
	roots   map[string]*service
	queries map[wire.ID]*Query // the last one of each service: answers may come late
}

// Conn is what a Directory publishes by. It does not wait. What is not sent is not answered.
type Conn interface {
	PublishMsg(m *nats.Msg) error
}

// service is a service of a Directory.
type service struct {
	heard  bool // an instance has answered some time
	silent time.Time
	last   *Query
	seen   map[string]time.Time // when instances last answered
}

// Query is a question to all instances of a service.
type Query struct {
	id    wire.ID
	root  string
	began time.Time
	done  chan struct{} // closed when it is over
	timer *time.Timer   // ends it
	over  bool
	ended time.Time

	dir   *Directory // nil if nobody is asked
	found Found      // under its mu, unlike id, root, began and done
}

// Over returns a channel that is closed when the answers have come.
func (q *Query) Over() <-chan struct{} { return q.done }

// Found returns what the query, which is over, has found. Late answers may be added later.
func (q *Query) Found() Found {
	if q.dir == nil {
		return Found{}
	}
	q.dir.mu.Lock()
	defer q.dir.mu.Unlock()
	return q.found
}

// Found is what a query has found. The zero value means that nothing is known.
type Found struct {
	Instances []*natscallv1.Instance // those that have answered
	Nobody    bool                   // no instance is there
}

// New returns a Directory. Answers come to subjects that begin with prefix, which ends with a dot,
// and TokenPrefix or, for its mailboxes, MailPrefix; the caller subscribes, and calls Deliver.
// Silence says nothing about a service while connected returns false.
func New(conn Conn, connected func() bool, prefix string) *Directory {
	return &Directory{
		Mail: newMailboxes(prefix), conn: conn, connected: connected, prefix: prefix,
		roots: map[string]*service{}, queries: map[wire.ID]*Query{},
	}
}

// TokenPrefix begins the last token of the reply subjects of queries.
const TokenPrefix = "i"

// Ask asks all instances of a service what they are. It returns when their answers have come, or
// when ctx ends. The answers to a query that has ended at most age ago count too. A service that
// was silent a short time ago is not asked.
func (d *Directory) Ask(ctx context.Context, root string, age time.Duration) Found {
	q := d.Query(root, age)
	select {
	case <-q.Over():
		return q.Found()
	case <-ctx.Done():
		return Found{}
	}
}

// Query is Ask without the wait. When it returns the query has been handed to the connection.
func (d *Directory) Query(root string, age time.Duration) *Query {
	q, begun := d.join(root, age)
	if begun {
		subject := names.Join(root, wire.AllToken, wire.InstancesToken)
		_ = d.conn.PublishMsg(&nats.Msg{
			Subject: subject, Reply: d.prefix + TokenPrefix + q.id.String(), Data: wire.AppendInstanceQuery(nil, q.id),
		})
	}
	return q
}

// noQuery is what there is to wait for where nobody is asked.
var noQuery = func() *Query {
	q := &Query{done: make(chan struct{})}
	close(q.done)
	return q
}()

// join returns the query to wait for, and whether the caller has to publish it. The answers to one
// that is over count for a while.
func (d *Directory) join(root string, age time.Duration) (q *Query, begun bool) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.serviceLocked(root)
	switch last := s.last; {
	case d.closed, now.Before(s.silent):
		return noQuery, false
	case last != nil && (!last.over || last.found.Known() && now.Sub(last.ended) < age):
		return last, false
	case last != nil:
		delete(d.queries, last.id)
	}
	for id, at := range s.seen {
		if now.Sub(at) > seenTime {
			delete(s.seen, id)
		}
	}
	q = &Query{id: wire.NewID(), root: root, began: now, done: make(chan struct{}), dir: d}
	q.timer = time.AfterFunc(queryTime, func() { d.end(q, d.connected()) })
	s.last, d.queries[q.id] = q, q
	return q, true
}

// Known reports whether the query has found out anything.
func (f *Found) Known() bool { return f.Nobody || len(f.Instances) > 0 }

func (d *Directory) serviceLocked(root string) *service {
	s := d.roots[root]
	if s == nil {
		s = &service{seen: map[string]time.Time{}}
		d.roots[root] = s
	}
	return s
}

// end ends a query. silence says that the lack of an answer means something.
func (d *Directory) end(q *Query, silence bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.endLocked(q, silence)
}

func (d *Directory) endLocked(q *Query, silence bool) {
	if q.over {
		return
	}
	q.over, q.ended = true, time.Now()
	q.timer.Stop()
	if silence && !q.found.Known() {
		d.serviceLocked(q.root).silent = q.ended.Add(silentTime)
	}
	close(q.done)
}

// Deliver takes a message that came to a reply subject with the token.
func (d *Directory) Deliver(token string, m *nats.Msg) {
	id, ok := wire.ParseID(strings.TrimPrefix(token, TokenPrefix))
	if !ok {
		return
	}
	none := reply.IsNoResponders(m)
	var answer *natscallv1.Instance
	if !none {
		if answer = Parse(m.Data, id); answer == nil {
			return
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch q := d.queries[id]; {
	case q == nil:
	case none:
		q.found.Nobody = !q.over && len(q.found.Instances) == 0
		d.endLocked(q, false)
	default:
		d.answerLocked(q, answer)
	}
}

// Parse returns the answer to the query, or nil if it is none.
func Parse(data []byte, id wire.ID) *natscallv1.Instance {
	e, err := wire.Parse(data)
	if err != nil || e.Kind != wire.KindInstanceAnswer || e.ID != id {
		return nil
	}
	answer := new(natscallv1.Instance)
	if proto.Unmarshal(e.Body, answer) != nil || wire.CheckInstance(answer.GetInstance()) != nil {
		return nil
	}
	return answer
}

// answerLocked takes an answer. One that comes late shows that the service is there, and is found
// by those that look again.
func (d *Directory) answerLocked(q *Query, answer *natscallv1.Instance) {
	now := time.Now()
	s := d.serviceLocked(q.root)
	s.heard, s.silent = true, time.Time{}
	s.seen[answer.GetInstance()] = now
	if slices.ContainsFunc(q.found.Instances, func(other *natscallv1.Instance) bool {
		return other.GetInstance() == answer.GetInstance()
	}) {
		return
	}
	q.found.Instances = append(slices.Clip(q.found.Instances), answer) // others may have the slice
	if took := now.Sub(q.began); !q.over {
		q.timer.Reset(min(max(quietTime, took), queryTime-took))
	}
}

// Seen returns the instances of a service that have answered a short time ago.
func (d *Directory) Seen(root string) (seen []string) {
	now := time.Now()
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.roots[root]; s != nil {
		for id, at := range s.seen {
			if now.Sub(at) <= seenTime {
				seen = append(seen, id)
			}
		}
	}
	return seen
}

// See notes that an instance has answered.
func (d *Directory) See(root, instance string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.serviceLocked(root)
	s.heard, s.silent, s.seen[instance] = true, time.Time{}, time.Now()
}

// Forget notes that an instance has gone.
func (d *Directory) Forget(root, instance string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.roots[root]; s != nil {
		delete(s.seen, instance)
	}
}

// Heard reports whether an instance of the service has ever answered.
func (d *Directory) Heard(root string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := d.roots[root]
	return s != nil && s.heard
}

// Refused notes that NATS does not let the client ask about a service.
func (d *Directory) Refused(root string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s := d.roots[root]; s != nil && s.last != nil {
		d.endLocked(s.last, true)
	}
}

// Close ends all queries. Nobody is asked any more.
func (d *Directory) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for _, q := range d.queries {
		d.endLocked(q, false)
	}
}
