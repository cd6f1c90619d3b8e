package rpctap

import (
	"container/list"
	"errors"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// maxCalls is how many calls are followed at the same time: more than there are in flight, and
	// few enough to cost nothing.
	maxCalls = 4096
	// maxReplies is how many reply subjects of a call are known. A stream renews its own with each
	// credit and heartbeat, and frames to an earlier one may still be on their way.
	maxReplies = 16
	// maxInstances is how many instances a call to all of them may get streams from: what a client
	// sends to all of them, a few thousand instances answer at most, few of them with streams.
	maxInstances = 1024
	// maxHeld bounds the memory of messages that have come in part.
	maxHeld = 2 * MaxMessage
)

// Calls follows calls. It finds the call of an answer by the call id, and where there is none by
// the reply subject. It knows the last 4,096 calls that it has heard of. It is not safe for
// concurrent use.
type Calls struct {
	byID    map[string]*Call
	byReply map[string]route
	order   *list.List // of *Call, the one that was heard of last at the back
	held    int        // bytes of messages that have come in part
}

// route says whose messages come on a reply subject.
type route struct {
	call     *Call
	instance string // "" until an instance has accepted the stream
}

// Call is what is known of a call from its request. Its fields do not change.
type Call struct {
	ID      string // "" if the request was plain
	Kind    Kind   // of the request: KindRequest, KindOpen or KindPlain
	Subject Subject
	Reply   string
	Encoding
	Start time.Time // when the request was seen
	state callState
}

// callState is what changes in a Call.
type callState struct {
	element *list.Element
	replies []string              // the subjects whose route leads here
	client  *Assembler            // of the client's stream
	servers map[string]*Assembler // of the streams of instances
	ended   bool
}

// Event is a message in its call.
type Event struct {
	*Message
	From     Side
	Call     *Call           // nil if its request was not seen
	After    time.Duration   // since its request
	Messages []StreamMessage // that came with it, or are whole now
	Partial  int             // bytes of a message of the stream that is not whole yet
	Missing  error           // why the messages of the stream cannot be told apart
	Batch    []*Event        // of a batch, as in Items
}

// NewCalls returns a Calls that knows no calls.
func NewCalls() *Calls {
	return &Calls{byID: map[string]*Call{}, byReply: map[string]route{}, order: list.New()}
}

// Observe reads a message that was seen at a time. Messages have to be shown in the order in which
// they came, each once.
func (c *Calls) Observe(m *nats.Msg, at time.Time) *Event { return c.observe(Decode(m), at) }

func (c *Calls) observe(m *Message, at time.Time) *Event {
	e := &Event{Message: m, From: m.Kind.side()}
	for _, item := range m.Items {
		e.Batch = append(e.Batch, c.observe(item.Message, at))
	}
	if len(e.Batch) > 0 {
		e.From = e.Batch[0].From
		return e
	}
	answered := c.byReply[m.Subject.Name]
	c.findSide(e, answered.call != nil)
	c.join(e, answered, at)
	if e.Call != nil {
		e.After = at.Sub(e.Call.Start)
		c.order.MoveToBack(e.Call.state.element)
	}
	c.read(e, answered.instance)
	c.forget()
	return e
}

// findSide says which side has sent a message of a kind that both send.
func (c *Calls) findSide(e *Event, isReply bool) {
	switch {
	case e.From != SideUnknown:
	case e.Kind == KindPlain && !isReply && e.Subject.Root == "": // in the inbox of somebody
	case e.Kind == KindPlain && isReply, e.Kind != KindPlain && e.Subject.Stream == "":
		e.From = SideServer
	default:
		e.From = SideClient
	}
	if e.Kind == KindInvalid {
		e.From = SideUnknown
	}
}

// join finds the call of a message, or begins it.
func (c *Calls) join(e *Event, answered route, at time.Time) {
	e.Call = c.byID[e.ID]
	switch {
	case e.Call == nil && e.begins():
		c.begin(e, at)
	case e.Call == nil && e.From == SideServer && e.ID == "":
		e.Call = answered.call
	}
	switch {
	case e.Call == nil:
	case e.Kind == KindAccept:
		c.learn(e.Subject.Name, route{e.Call, e.Instance})
	case e.Subject.Stream != "" && e.Reply != "":
		c.learn(e.Reply, route{e.Call, e.Subject.Instance})
	}
}

// begins reports whether a message is the first of a call.
func (e *Event) begins() bool {
	return e.Kind == KindRequest || e.Kind == KindOpen || e.Kind == KindPlain && e.From == SideClient
}

func (c *Calls) begin(e *Event, at time.Time) {
	call := &Call{ID: e.ID, Kind: e.Kind, Subject: e.Subject, Reply: e.Reply, Encoding: e.Encoding, Start: at}
	call.state.client = NewAssembler(e.Compression)
	call.state.servers = map[string]*Assembler{}
	call.state.element = c.order.PushBack(call)
	if e.Call = call; e.ID != "" {
		c.byID[e.ID] = call
	}
	if e.Reply != "" {
		c.learn(e.Reply, route{call: call})
	}
}

// learn remembers who answers on a reply subject.
func (c *Calls) learn(reply string, r route) {
	c.byReply[reply] = r
	state := &r.call.state
	if slices.Contains(state.replies, reply) {
		return
	}
	if state.replies = append(state.replies, reply); len(state.replies) > maxReplies {
		c.unlearn(r.call, state.replies[0])
		state.replies = state.replies[1:]
	}
}

func (c *Calls) unlearn(call *Call, reply string) {
	if c.byReply[reply].call == call { // else it is another call's by now
		delete(c.byReply, reply)
	}
}

// Why the messages of a stream cannot be told apart.
var (
	errLate      = errors.New("the beginning of the stream was not seen")
	errInstances = errors.New("too many instances answer this call with streams")
)

// read finds the messages that an event brings. instance is whose stream the reply subject is.
func (c *Calls) read(e *Event, instance string) {
	switch e.Kind {
	case KindRequest, KindResponse:
		e.Messages = []StreamMessage{{Data: e.Body, Size: e.BodySize, Compressed: e.Compressed, Err: e.Err}}
	case KindPlain:
		c.readPlain(e)
	case KindOpen, KindData:
		c.readStream(e, instance)
	}
	if call := e.Call; call != nil && e.From == SideServer {
		switch e.Kind {
		case KindResponse, KindError, KindEnd, KindPlainError, KindPlainEnd, KindNoResponders:
			call.state.ended = true
		}
	}
}

func (c *Calls) readPlain(e *Event) {
	if call := e.Call; call != nil && e.From == SideServer {
		if call.state.ended && e.Size == 0 && len(e.Header) == 0 {
			e.Kind = KindClose
			return
		}
		if e.Guessed { // a server answers in the codec of the request
			e.Codec = call.Codec
		}
	}
	e.Messages = []StreamMessage{{Data: e.Body, Size: e.BodySize, Err: e.Err}}
}

// readStream takes the bytes of a stream.
func (c *Calls) readStream(e *Event, instance string) {
	if e.Call == nil {
		e.Missing = errLate
		return
	}
	e.Codec, e.Compression = e.Call.Codec, e.Call.Compression
	a := e.Call.assembler(e.From, instance)
	c.held -= a.held()
	if e.Kind == KindOpen {
		e.Messages = a.Open(e.Body)
	} else {
		e.Messages = a.Data(e.Sequence, e.Body)
	}
	c.held += a.held()
	e.Partial, e.Missing = a.Partial(), a.Err()
}

// assembler returns that of a side, of an instance if it is the server's.
func (c *Call) assembler(from Side, instance string) *Assembler {
	if from == SideClient {
		return c.state.client
	}
	a := c.state.servers[instance]
	if a == nil {
		a = NewAssembler(c.Compression)
		if len(c.state.servers) == maxInstances {
			a.lose(errInstances)
			return a
		}
		c.state.servers[instance] = a
	}
	return a
}

// forget lets go of the calls that were not heard of for longest, if there are too many.
func (c *Calls) forget() {
	for c.order.Len() > maxCalls || c.held > maxHeld && c.order.Len() > 1 {
		call := c.order.Remove(c.order.Front()).(*Call)
		delete(c.byID, call.ID)
		for _, reply := range call.state.replies {
			c.unlearn(call, reply)
		}
		c.held -= call.state.client.held()
		for _, a := range call.state.servers {
			c.held -= a.held()
		}
	}
}
