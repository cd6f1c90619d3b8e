// Package tap shows the calls of others as they happen: it is `natscall tap`.
package tap

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/cmd/natscall/internal/output"
	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/rpc/rpctap"
)

// burst is how many messages may come between two looks of the goroutine that takes them.
const burst = 4096

// options are what is shown, and how.
type options struct {
	methods []string // none means all
	control bool
	count   int // 0 is no limit
	limit   int // of the text of a message; 0 is none
	json    bool
	raw     bool
}

// Tap is subscribed to the subjects of calls.
type Tap struct {
	options
	catalog *Catalog
	out     *output.Writer
	calls   *rpctap.Calls
	came    chan *nats.Msg
	backlog *backlog
	learner *learner
	notices chan string // what happens to the connection
	subs    []*nats.Subscription
	replies map[*nats.Subscription]bool // those to inboxes
	counts  counts
}

// counts are what the summary says.
type counts struct {
	shown, hidden, calls int
	kinds                map[string]int
}

func newTap(o options, c *Catalog, out *output.Writer, l *learner) *Tap {
	return &Tap{
		options: o, catalog: c, out: out, calls: rpctap.NewCalls(), came: make(chan *nats.Msg, burst), backlog: newBacklog(), learner: l,
		notices: make(chan string, 16), replies: map[*nats.Subscription]bool{}, counts: counts{kinds: map[string]int{}},
	}
}

// errNotPermitted is what NATS says to a subscription.
var errNotPermitted = errors.New("NATS does not permit to subscribe to it")

// listen subscribes, in no queue group, and returns when the subscription is there.
func (t *Tap) listen(ctx context.Context, nc *nats.Conn, subject string, replies bool) error {
	sub, err := nc.ChanSubscribe(subject, t.came)
	if err != nil {
		return err
	}
	if err := nc.FlushWithContext(ctx); err != nil {
		return err
	}
	err = nc.LastError()
	if errors.Is(err, nats.ErrPermissionViolation) && strings.Contains(err.Error(), strconv.Quote(subject)) {
		return errNotPermitted
	}
	t.subs = append(t.subs, sub)
	t.replies[sub] = replies
	return nil
}

// run shows what comes until ctx ends or there is enough.
func (t *Tap) run(ctx context.Context, log *output.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	var filling sync.WaitGroup
	filling.Go(func() { t.backlog.fill(t.came, ctx.Done()) })
	defer filling.Wait()
	defer t.learner.running.Wait()
	defer cancel()
	for {
		select {
		case <-t.backlog.ready:
			if done, err := t.showAll(ctx); done || err != nil {
				return err
			}
		case targets := <-t.learner.found:
			for _, name := range t.learner.learned(targets, t.catalog) {
				t.notice("service %s is there now", name)
			}
		case notice := <-t.notices:
			fmt.Fprintln(log, notice) // stderr: there is nobody else to tell
		case <-ctx.Done():
			return nil
		}
	}
}

// showAll shows the messages that wait, and reports whether there are enough.
func (t *Tap) showAll(ctx context.Context) (done bool, err error) {
	for _, m := range t.backlog.take() {
		if err := t.show(ctx, m, time.Now()); err != nil {
			return true, err
		}
		if t.count > 0 && t.counts.shown == t.count {
			return true, nil
		}
	}
	return false, nil
}

// show shows a message, unless it is one of those that are left out.
func (t *Tap) show(ctx context.Context, m *nats.Msg, at time.Time) error {
	replies := t.replies[m.Sub]
	if replies && !covers(m.Sub.Subject, m.Subject) {
		return nil // what JetStream delivers to an inbox was published elsewhere
	}
	e := t.calls.Observe(m, at)
	if replies && isForeign(e) {
		return nil
	}
	if e.From == rpctap.SideClient {
		t.learner.want(ctx, e.Subject.Root, t.catalog, at)
	}
	row := t.catalog.rowOf(e, at)
	if !t.isWanted(row) {
		return nil
	}
	if !t.control && (e.Kind.IsControl() || row.method.isOwn() && len(t.methods) == 0) {
		t.counts.hidden++
		return nil
	}
	if t.raw {
		row.Raw = m.Data
	}
	t.counts.add(row)
	if t.json {
		return t.out.Line(row)
	}
	return writeText(t.out, row, t.limit)
}

// isForeign reports whether a message in an inbox belongs to no call that was seen.
func isForeign(e *rpctap.Event) bool {
	return e.Call == nil && !slices.ContainsFunc(e.Batch, func(item *rpctap.Event) bool { return item.Call != nil })
}

// isWanted reports whether a message is of one of the methods that were asked for.
func (t *Tap) isWanted(r *Row) bool {
	return len(t.methods) == 0 || slices.ContainsFunc(t.methods, r.method.isNamed)
}

func (c *counts) add(r *Row) {
	c.shown++
	rows := r.Batch
	if len(rows) == 0 {
		rows = []*Row{r}
	}
	for _, row := range rows {
		c.kinds[row.Kind.String()]++
		switch {
		case row.Kind == rpctap.KindRequest, row.Kind == rpctap.KindOpen, row.Kind == rpctap.KindPlain && row.From == rpctap.SideClient:
			c.calls++
		}
	}
}

// summary says what was shown, and what was not.
func (t *Tap) summary() string {
	c := &t.counts
	var kinds []string
	for name, n := range c.kinds {
		kinds = append(kinds, fmt.Sprintf("%d %s", n, name))
	}
	slices.SortFunc(kinds, func(a, b string) int {
		return cmp.Or(leading(b)-leading(a), strings.Compare(a, b))
	})
	text := counted(c.shown, "message", "messages")
	if c.calls > 0 {
		text += " of " + counted(c.calls, "call", "calls")
	}
	if len(kinds) > 0 {
		text += ": " + strings.Join(kinds, ", ")
	}
	if c.hidden > 0 {
		text += fmt.Sprintf("; %s not shown (--control shows them)", counted(c.hidden, "control message", "control messages"))
	}
	if dropped := t.dropped(); dropped > 0 {
		text += fmt.Sprintf("; %s lost, as they came faster than they are shown", counted(dropped, "message", "messages"))
	}
	return text
}

func leading(s string) int {
	n, _ := strconv.Atoi(strings.Fields(s)[0])
	return n
}

func counted(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

// dropped returns how many messages were not shown because too many came.
func (t *Tap) dropped() int {
	sum := t.backlog.lost()
	for _, sub := range t.subs {
		n, _ := sub.Dropped() // fails for a connection that is closed
		sum += n
	}
	return sum
}

// notice reports something that happens to the connection.
func (t *Tap) notice(format string, args ...any) {
	select {
	case t.notices <- fmt.Sprintf(format, args...):
	default: // there are many already
	}
}

// refused explains that NATS does not permit a subscription.
func refused(subject string) error {
	return problem.Failure("listening takes a user who may subscribe to the services' subjects", "NATS does not permit to subscribe to %s", subject)
}
