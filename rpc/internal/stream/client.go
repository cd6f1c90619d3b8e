package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/internal/names"
	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/flow"
	"github.com/natscall/natscall/rpc/internal/liveness"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/reply"
	"github.com/natscall/natscall/rpc/internal/wait"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// ClientConfig is what a client's side is made with.
type ClientConfig struct {
	Config
	Out         Out // for all but the sending half
	Statuses    Statuses
	Subject     string // of the open
	Root        string // of the service's own subjects
	ReplyPrefix string // beginning of the reply subjects
	// Deadline ends the stream, if it is not zero, beside the context.
	Deadline time.Time
	// CallID is the id of the call at the instance, if it is not ID: where several streams belong
	// to one call, each needs an ID of its own.
	CallID wire.ID
	// Queued says that the server may have the open wait in a queue: then only alive queries find
	// out that nobody will accept it.
	Queued bool
	// Abandoned runs if the stream ends at its deadline before a server has accepted it: one that
	// stands still may have its open yet.
	Abandoned func()
	// Refuse returns why there can be no stream, or nil. It is called once the stream is in the
	// table, where Table.Break finds it.
	Refuse func() error
}

// Statuses reads what servers say about the end of a stream. It is called under the stream's lock.
type Statuses interface {
	// Status returns the error that an instance has sent.
	Status(body []byte, x wire.Execution, instance string) error
	// Unknown returns the error of a stream that its instance does not know, if that is what status
	// says, else nil.
	Unknown(status error) error
}

// Out publishes what a client's side has to say and must not wait for: nats.go may hold its lock
// for longer than the caller has time. A *publish.Publisher is one.
type Out interface {
	Post(m publish.Message)
	PublishMsg(m *nats.Msg) error
}

// Client is the client's side of a stream.
type Client struct {
	Stream
	statuses Statuses
	out      Out
	root     string
	inbox    string
	callID   wire.ID
	until    clientContext

	// Under mu.
	instance string // that has accepted the stream
	foreign  reply.Foreign
	replies  int // reply subjects so far
	header   map[string][]string
	trailer  map[string][]string
	headed   chan struct{} // closed when header has come; nil until something waits for that
	closed   bool          // nothing more is read
	whenDone func(error)   // runs when the stream is over and nothing more is read
}

// clientContext is what belongs to the context that ends a stream.
type clientContext struct {
	caller    context.Context // the one that it has been derived from, or nil
	release   func()
	abandoned func() // see ClientConfig
}

// NewClient returns the client's side of a stream. It ends with ctx.
func NewClient(ctx context.Context, config ClientConfig) *Client {
	c := &Client{statuses: config.Statuses, out: config.Out, root: config.Root, inbox: config.ReplyPrefix}
	c.until.abandoned = config.Abandoned
	cancel := context.CancelFunc(func() {})
	if !config.Deadline.IsZero() {
		c.until.caller = ctx
		ctx, cancel = context.WithDeadline(ctx, config.Deadline)
	}
	c.init(ctx, config.Config, c)
	c.to = config.Subject
	if c.callID = config.CallID; c.callID == (wire.ID{}) {
		c.callID = config.ID
	}
	if !config.Queued {
		c.life.openTimeout = maxSilence * c.Table.heartbeat
	}
	c.mu.Lock() // until the stream is in the table: ctx may have ended, and is about to end it
	stop := context.AfterFunc(ctx, func() { c.End(&ContextError{ctx}) })
	c.until.release = func() {
		stop()
		cancel()
	}
	added := c.Table.add(&c.Stream)
	c.mu.Unlock()
	if err := config.Refuse(); err != nil {
		c.Break(err)
	} else if !added {
		c.Break(ErrDuplicate)
	}
	return c
}

// Open is what the open of a stream says beside the first message.
type Open struct {
	Header      nats.Header
	HeaderSize  int // in bytes
	Codec       wire.Codec
	Compression wire.Compression
	Timeout     time.Duration // 0 says nothing, wire.NoTimeout that there is none
}

// Open publishes the open, with as much of the first message as fits into it, and waits until a
// server has accepted the stream.
//
// The error is a *publish.UnpublishedError, a *reply.UnsentError, a *reply.InvalidError,
// nats.ErrNoResponders, or why the stream has ended.
func (c *Client) Open(o Open) error {
	room := c.Conn.MaxPayload() - int64(o.HeaderSize+wire.HeaderSize+2*wire.MaxFrameHeader)
	c.mu.Lock()
	if c.over {
		err := c.err
		c.mu.Unlock()
		return &publish.UnpublishedError{Err: err}
	}
	m := c.openLocked(&o, int(min(room, wire.MaxOpenData)))
	c.mu.Unlock()
	c.out.Post(m)
	return c.awaitOpen()
}

// Sent implements publish.Owner. It ends the stream whose open could not be published.
func (c *Client) Sent(m *publish.Message, err error) {
	if err != nil {
		c.Break(&reply.UnsentError{Err: err, Size: len(m.Buffer.B)})
	}
}

// Leads implements publish.Owner. It is not asked, since an open is for no batch.
func (c *Client) Leads([]*publish.Message) bool { return false }

// Claim implements publish.Owner.
func (c *Client) Claim(*publish.Message) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.life.claimed = !c.over
	return c.life.claimed
}

func (c *Client) openLocked(o *Open, room int) publish.Message {
	credit, _ := c.recv.Grant()
	open := wire.Open{Credit: credit, Data: c.send.Opening(room)}
	if open.HalfClose = c.send.Closing() && c.send.Buffered() == 0; open.HalfClose {
		c.send.EndedInOpening()
	}
	buf := buffer.Take()
	buf.B = wire.AppendOpen(buf.B, c.ID, o.Codec, o.Timeout, open)
	buf.B[wire.FlagsOffset] |= byte(o.Compression.Flags())
	return publish.Message{Subject: c.to, Reply: c.replyLocked(), Header: o.Header, Buffer: buf, Owner: c}
}

// awaitOpen waits until the stream is open, or over.
func (c *Client) awaitOpen() error {
	for {
		c.mu.Lock()
		open, over, err, claimed := c.open, c.over, c.err, c.life.claimed
		c.mu.Unlock()
		switch {
		case open:
			return nil
		case over:
			return reply.Unpublished(err, claimed)
		}
		select {
		case <-c.recv.changed:
		case <-c.ended:
		}
	}
}

// Fetch opens the stream to an instance that has announced a large response, and fetches it. If the
// stream has ended meanwhile, it tells the instance.
func (c *Client) Fetch(instance string, credit uint64) {
	c.mu.Lock()
	own, _ := c.recv.Grant()
	c.openedLocked(instance, credit)
	over := c.over
	c.mu.Unlock()
	if over {
		c.publishControl(wire.KindStreamCancel, 0)
	} else {
		c.publishControl(wire.KindCredit, own)
	}
}

// openedLocked makes the stream send its frames to an instance.
func (c *Client) openedLocked(instance string, credit uint64) {
	c.to, c.open = names.Join(c.root, wire.InstanceToken, instance, c.callID.String()), true
	c.instance = instance
	c.life.heardAt = time.Now()
	c.send.Grant(credit)
	c.flushLocked()
}

// Instance is the token of the instance that has accepted the stream, or "".
func (c *Client) Instance() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.instance
}

// Foreign is what came while the stream opened and was no answer of natscall's.
func (c *Client) Foreign() reply.Foreign {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.foreign
}

// Headers returns the header of the first frame and the trailer of the last, nil until they have
// come.
func (c *Client) Headers() (header, trailer map[string][]string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.header, c.trailer
}

// Header waits for the response header. The error is a *ContextError, or why the stream is over if
// no header came before.
func (c *Client) Header(ctx context.Context) (map[string][]string, error) {
	select {
	case <-c.heading():
	case <-c.ended:
	case <-ctx.Done():
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.header != nil:
		return c.header, nil
	case c.over:
		return nil, c.err
	}
	return nil, &ContextError{ctx}
}

// heading returns a channel that is closed when the response header has come.
func (c *Client) heading() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.headed == nil {
		c.headed = make(chan struct{})
		if c.header != nil {
			close(c.headed)
		}
	}
	return c.headed
}

// CloseSend ends the sending half. The second time it does nothing.
func (c *Client) CloseSend() {
	_ = c.checkContext() // neither a message nor the end overtakes a cancel
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	c.send.Close()
	c.send.closed = ErrClosed
	wait.Signal(c.send.changed)
	c.flushLocked()
}

// End ends the stream for a reason of this side, and tells the server. At the deadline it does not,
// as the server has the deadline too.
func (c *Client) End(err error) {
	c.mu.Lock()
	first, open, claimed := c.endLocked(err, false), c.open, c.life.claimed
	c.mu.Unlock()
	if !first {
		return
	}
	defer c.leave() // at last: Table.Close waits until what the server is told is queued
	ended, byContext := err.(*ContextError)
	switch {
	case !open && !claimed: // the server has not heard of it, nor will it
	case byContext && ended.Ctx.Err() == context.DeadlineExceeded && open:
	case byContext && ended.Ctx.Err() == context.DeadlineExceeded:
		c.until.abandoned()
	case open:
		c.publishControl(wire.KindStreamCancel, 0)
	default: // any instance may accept it: tell all, as for a unary call
		liveness.Cancel(c.out, c.root, c.ID)
	}
}

// control implements side.
func (c *Client) control(m *nats.Msg) error { return c.out.PublishMsg(m) }

// doneReading implements side.
func (c *Client) doneReading(err error) { c.Close(err) }

// Close says that nothing more is read. It ends the stream with err, unless that is nil.
func (c *Client) Close(err error) {
	if err != nil {
		c.End(err)
	}
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.runNotify()
}

// Notify makes f run once, with the stream's error. It runs when the stream is over and its reader
// has read the end or closed it, or ctx has ended.
func (c *Client) Notify(ctx context.Context, f func(error)) {
	stop := context.AfterFunc(ctx, func() { c.Close(nil) })
	c.mu.Lock()
	c.whenDone = func(err error) {
		stop()
		f(err)
	}
	c.mu.Unlock()
	c.runNotify()
}

// runNotify runs the function of Notify if the stream is over and nothing more is read.
func (c *Client) runNotify() {
	c.mu.Lock()
	f, err := c.whenDone, c.err
	if f == nil || !c.over || c.recv.Ended() && !c.closed {
		c.mu.Unlock()
		return
	}
	if c.recv.err != nil { // the reader's error is more precise
		err = c.recv.err
	}
	c.whenDone = nil
	c.mu.Unlock()
	f(err)
}

// onOver implements side.
func (c *Client) onOver() {
	c.until.release()
	c.runNotify()
}

// checkContext implements side. A client's stream ends with its context. It does so here, since the
// goroutine that would end it may be late, and neither a message nor the end may overtake the
// cancel.
func (c *Client) checkContext() error {
	ctx := *c.ctx.Load()
	if ctx.Err() == nil {
		if c.until.caller == nil || c.until.caller.Err() == nil {
			return nil
		}
		ctx = c.until.caller // which has ended, so ctx is about to
	}
	c.End(&ContextError{ctx})
	return nil
}

// deliver implements side. The message came on a reply subject of c.
func (c *Client) deliver(m *nats.Msg) {
	open := c.Accepted()
	switch {
	case reply.IsNoResponders(m) && !open:
		c.Break(nats.ErrNoResponders)
	case reply.IsNoResponders(m):
		c.Break(ErrGone)
	case !open, len(m.Data) > 0 && !wire.IsFrame(m.Data):
		c.takeAnswer(m) // perhaps an error, or foreign, such as JetStream's acknowledgement
	case len(m.Data) > 0:
		c.receive(m)
	case len(m.Header) == 0: // it follows the end frame, which would have removed c
		c.End(fmt.Errorf("%w: the end", flow.ErrLost))
	}
}

// takeAnswer takes an accept, or an envelope, which may also come after the accept of another
// instance. It counts a foreign message.
func (c *Client) takeAnswer(m *nats.Msg) {
	switch mine, err := wire.Answers(m.Data, c.ID); {
	case !mine:
		c.mu.Lock()
		c.foreign.Count(m)
		c.mu.Unlock()
	case err != nil:
		c.End(&reply.InvalidError{Err: err})
	case wire.IsFrame(m.Data):
		f, _ := wire.ParseFrame(m.Data)
		_, instance, _ := wire.ParseAccept(&f)
		c.mu.Lock()
		if !c.over {
			c.openedLocked(instance, f.Number)
		}
		c.mu.Unlock()
		wait.Signal(c.recv.changed)
	default:
		c.refused(m)
	}
}

// refused ends the stream with the error that came instead of an accept. After an accept it is
// another instance's, and the one that has accepted is told.
func (c *Client) refused(m *nats.Msg) {
	flags, body := wire.ResponseOf(m.Data)
	if flags&wire.FlagError == 0 {
		c.End(&reply.InvalidError{Err: errors.New("a response instead of an accept")})
		return
	}
	if first, open := c.end(c.statuses.Status(body, flags.Execution(), m.Header.Get(wire.InstanceHeader)), true); first && open {
		c.publishControl(wire.KindStreamCancel, 0)
	}
}

// takeLocked implements side: headers, and the status.
func (c *Client) takeLocked(f wire.Frame, m *nats.Msg) error {
	switch {
	case f.Kind != wire.KindHeader && f.Kind != wire.KindData && f.Kind != wire.KindEnd:
		return nil
	case f.Kind == wire.KindHeader, c.header != nil, f.Number == 0: // else a frame with it was lost
		c.takeHeaderLocked(m.Header)
	}
	if f.Kind != wire.KindEnd {
		return nil
	}
	var status error
	if len(f.Body) > 0 {
		status = c.statuses.Status(f.Body, f.Flags.Execution(), c.instance)
		// Such an end has number 0, whatever number is expected.
		if unknown := c.statuses.Unknown(status); f.Number == 0 && unknown != nil {
			c.endLocked(unknown, true)
			return nil
		}
	}
	if err := c.recv.End(f.Number); err != nil {
		return err
	}
	c.endLocked(status, true)
	return nil
}

// takeHeaderLocked takes the response header from the first frame that carries it, and the trailer
// from the last.
func (c *Client) takeHeaderLocked(h nats.Header) {
	if c.header != nil && len(h) == 0 {
		return
	}
	header, trailer := wire.SplitHeader(h)
	if c.header == nil {
		c.header = header
		if c.headed != nil {
			close(c.headed)
		}
	}
	c.trailer = trailer
}

// addLocked implements side. A credit and a heartbeat have a reply subject that nobody has used.
func (c *Client) addLocked(o outgoing, kind wire.Kind) outgoing {
	if kind == wire.KindCredit || kind == wire.KindHeartbeat {
		o.msg.Reply = c.replyLocked()
	}
	return o
}

// replyLocked returns a reply subject that nobody has used.
func (c *Client) replyLocked() string {
	c.replies++
	return fmt.Sprintf("%s%s%v-%d", c.inbox, TokenPrefix, c.ID, c.replies)
}

// look runs f under the stream's lock, unless the stream is over.
func (c *Client) look(f func(c *Client, open bool) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return nil
	}
	return f(c, c.open)
}

// CallID is the id of the call.
func (c *Client) CallID() wire.ID { return c.callID }

// Root is where to ask whether the call is alive.
func (c *Client) Root() string { return c.root }

// Waited is how long the call has waited. The function of Table.EachClient may use it.
func (c *Client) Waited() *liveness.Patience { return &c.life.Patience }

// Where is the instance that has accepted the stream, or "". The function of Table.EachClient may
// use it.
func (c *Client) Where() string { return c.instance }

// Claimed reports whether the open has been published, or is about to be. The function of
// Table.EachClient may use it.
func (c *Client) Claimed() bool { return c.life.claimed }

// Known reports whether the instance knows that the stream belongs to this client. The function of
// Table.EachClient may use it.
func (c *Client) Known() bool { return c.life.known }

// Alive notes that an instance works on the call.
func (c *Client) Alive(_ wire.ID, instance string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.life.Found(false) // Where is for streams that are open
	if c.open && instance == c.instance {
		c.life.known = true
	}
}
