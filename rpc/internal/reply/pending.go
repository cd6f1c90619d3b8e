package reply

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/liveness"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// Pending is a slot of an inbox: it waits for the reply of one call after another.
//
//	       take, start            reply, failure
//	free --------------> waiting ---------------> ended
//	  ^                     | stop                  | wait
//	  +---------------------+-----------------------+
//	                     release
//
// Only Do takes, starts, stops and releases it.
type Pending struct {
	ended chan struct{} // of one; filled at most once a call
	alarm alarm         // of the caller
	inbox *Inbox
	list  *freeList
	slot  int

	mu         sync.Mutex
	waiting    bool
	reply      Reply  // set before ended is filled; then the caller's, and not under mu
	err        error  // likewise
	subject    string // of the reply
	generation uint64 // changes with subject
	request
	foreign   Foreign
	followers *followers // of the last batch that this slot has led
}

// request is what a pending call needs of its Request. With Patience it is what Each's function may
// look at.
type request struct {
	id         wire.ID
	to         string // subject
	root       string
	plain      bool
	isResponse func(*nats.Msg) bool
	instance   string // that works on the call, once it has said so
	claimed    bool   // its request has been published, or is about to be
	liveness.Patience
}

// Claimed reports whether the request has been published, or is about to be.
func (r *request) Claimed() bool { return r.claimed }

// CallID is the id of the call.
func (r *request) CallID() wire.ID { return r.id }

// To is the subject of the request.
func (r *request) To() string { return r.to }

// Root is where to ask whether the call is alive, or "" if nobody can be asked.
func (r *request) Root() string {
	if r.plain { // no instance knows its id
		return ""
	}
	return r.root
}

// Waited is how long the call has waited. Each's function may use it.
func (r *request) Waited() *liveness.Patience { return &r.Patience }

// Where is the instance that works on the call, or "" as long as none has said so.
func (r *request) Where() string { return r.instance }

// start makes p wait for the reply to a request; the result is the reply subject.
func (p *Pending) start(r *Request) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.Plain { // its replies carry no id: a late one to the call before must not meet it
		p.renewLocked()
	}
	// Of a batch that was answered: from here on "no responders" is about this call.
	if f := p.takeFollowersLocked(p.subject); f != nil {
		followerLists.Put(f)
	}
	p.request = request{id: r.ID, to: r.Subject, root: r.Root, plain: r.Plain, isResponse: r.IsResponse}
	p.foreign = Foreign{}
	p.waiting = true
	return p.subject
}

// renewLocked gives the slot a reply subject that nobody has used.
func (p *Pending) renewLocked() {
	p.generation++
	p.subject = p.inbox.prefix + strconv.Itoa(p.slot) + "-" + strconv.FormatUint(p.generation, 36)
}

// wait returns the reply, or why none is waited for any longer.
func (p *Pending) wait(ctx context.Context, r *Request) (Reply, error) {
	var alarm <-chan time.Time
	if r.Timer {
		alarm = p.alarm.at(r.Deadline, r.Left)
	}
	var end error
	for end == nil {
		select {
		case <-p.ended:
			return p.result()
		case <-ctx.Done():
			end = ErrContext
		case <-alarm:
			if p.alarm.heard(r.Deadline) { // else it was set for a call before
				end = ErrDeadline
			}
		}
	}
	if p.stop() {
		return Reply{}, Unpublished(end, p.claimed) // which does not change any more
	}
	<-p.ended
	return p.result()
}

// stop ends the waiting. It returns false where a reply has come nevertheless.
func (p *Pending) stop() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting {
		p.waiting = false
		p.renewLocked()
		p.inbox.out.GiveUp()
		return true
	}
	return false
}

// result returns what has ended the call, to its caller.
func (p *Pending) result() (Reply, error) {
	p.inbox.out.Return()
	reply, err := p.reply, p.err
	p.reply, p.err = Reply{}, nil
	return reply, Unpublished(err, p.claimed)
}

// release makes the slot, which has stopped waiting, available to other calls.
func (p *Pending) release() {
	p.list.mu.Lock()
	p.list.slots = append(p.list.slots, p)
	p.list.mu.Unlock()
}

// endLocked ends the waiting of a call that waits.
func (p *Pending) endLocked(reply Reply, err error) {
	p.waiting = false
	p.inbox.out.Expect()
	p.reply, p.err = reply, err
	p.ended <- struct{}{}
}

func (p *Pending) each(f func(*Pending) error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.waiting {
		return
	}
	if err := f(p); err != nil {
		p.endLocked(Reply{}, err)
		p.renewLocked() // its request may still be queued, or on its way
	}
}

// Alive notes that an instance works on a call, if it still waits here. instance is "" if it does
// not say which one it is.
func (p *Pending) Alive(id wire.ID, instance string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting && p.id == id {
		p.instance = instance
		p.Found(instance != "")
	}
}

// deliver takes a message that came to the reply subject of a generation.
func (p *Pending) deliver(m *nats.Msg, generation uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case !p.waiting || p.generation != generation: // late, or not ours
	case p.plain && (!isPubAck(m) || p.isResponse != nil && p.isResponse(m)):
		p.endLocked(Reply{Msg: m, Data: m.Data}, nil)
	case !p.plain && wire.IsEnvelope(m.Data):
		p.answerLocked(m, m.Data)
	default: // the reply may still come
		p.foreign.Count(m)
	}
}

// deliverItem takes an item of a batch.
func (p *Pending) deliverItem(m *nats.Msg, item []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting && !p.plain {
		p.answerLocked(m, item)
	}
}

// answerLocked ends the call with a message of natscall's if it is the call's. One that is, and is
// not valid, ends it too: nothing better will come.
func (p *Pending) answerLocked(m *nats.Msg, data []byte) {
	mine, err := wire.Answers(data, p.id)
	switch {
	case !mine: // a late answer to a call before, or another instance's
	case err != nil:
		p.endLocked(Reply{}, &InvalidError{err})
	default:
		p.endLocked(Reply{Msg: m, Data: data}, nil)
	}
}

// unanswered ends the calls to whose request "no responders" has come.
func (p *Pending) unanswered(subject string, generation uint64) {
	p.mu.Lock()
	followers := p.takeFollowersLocked(subject)
	if p.generation == generation {
		p.noRespondersLocked()
	}
	p.mu.Unlock()
	if followers != nil {
		for _, m := range followers.members {
			m.noResponders()
		}
		followerLists.Put(followers)
	}
}

func (p *Pending) noRespondersLocked() {
	if p.waiting {
		p.endLocked(Reply{}, nats.ErrNoResponders)
	}
}

// takeFollowersLocked returns the followers of the last batch, if it went under subject, or nil.
// The caller puts them back.
func (p *Pending) takeFollowersLocked(subject string) *followers {
	f := p.followers
	if f == nil || f.subject != subject {
		return nil
	}
	p.followers = nil
	return f
}

// Leads implements publish.Owner. It remembers the followers.
func (p *Pending) Leads(batch []*publish.Message) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.subject != batch[0].Reply { // its caller has gone, and others may use it
		return false
	}
	if p.followers == nil {
		p.followers = followerLists.Get().(*followers)
	}
	f := p.followers
	f.subject, f.members = p.subject, f.members[:0]
	for _, m := range batch[1:] {
		f.members = append(f.members, member{m.Owner.(*Pending), wire.IDOf(m.Buffer.B)})
	}
	return true
}

// Claim implements publish.Owner.
func (p *Pending) Claim(m *publish.Message) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.waiting || p.subject != m.Reply {
		return false // its caller has gone, and others may use the slot
	}
	p.claimed = true
	return true
}

// Sent implements publish.Owner. It ends the call whose request could not be published.
func (p *Pending) Sent(m *publish.Message, err error) {
	if err == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.waiting && p.subject == m.Reply { // see Claim
		p.endLocked(Reply{}, &UnsentError{err, len(m.Buffer.B)})
		p.renewLocked()
	}
}
