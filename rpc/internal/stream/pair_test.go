package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/flow"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/wire"
)

const (
	subject    = "service.Do"
	root       = "service"
	inbox      = "inbox."
	instance   = "instance"
	heartbeat  = 10 * time.Second
	maxMessage = 300 << 10
)

// The errors of the two sides.
var (
	errMine   = errors.New("mine")
	errTheirs = errors.New("theirs")
	errOther  = errors.New("other")
	errFinish = errors.New("the test ends")
)

// link takes what one side publishes.
type link struct {
	mu    sync.Mutex
	sent  []*nats.Msg
	err   error         // of publishing
	limit int64         // MaxPayload
	block chan struct{} // receives before each message, if not nil
	more  chan struct{} // holds one token when something has been published
	// lose says how often a message arrives. It is nil where each does so once.
	lose func(m *nats.Msg) int
}

func newLink() *link { return &link{limit: 1 << 20, more: make(chan struct{}, 1)} }

func (l *link) Publish(subject string, data []byte) error {
	return l.PublishMsg(&nats.Msg{Subject: subject, Data: data})
}

func (l *link) PublishRequest(subject, reply string, data []byte) error {
	return l.PublishMsg(&nats.Msg{Subject: subject, Reply: reply, Data: data})
}

func (l *link) PublishMsg(m *nats.Msg) error {
	if l.block != nil {
		<-l.block
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	times := 1
	if l.lose != nil {
		times = l.lose(m)
	}
	for range times {
		own := *m // like nats.go, which copies it
		own.Data, own.Header = slices.Clone(m.Data), maps.Clone(m.Header)
		l.sent = append(l.sent, &own)
	}
	select {
	case l.more <- struct{}{}:
	default:
	}
	return nil
}

// Post publishes at once, unlike a Publisher.
func (l *link) Post(m publish.Message) {
	if !m.Owner.Claim(&m) {
		panic("it is over before its open")
	}
	m.Owner.Sent(&m, l.PublishMsg(&nats.Msg{Subject: m.Subject, Reply: m.Reply, Header: m.Header, Data: m.Buffer.B}))
	m.Buffer.PutBack()
}

func (l *link) MaxPayload() int64 { return l.limit }

// fail makes all further messages fail.
func (l *link) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = err
}

// take returns what has been published, and forgets it.
func (l *link) take() []*nats.Msg {
	l.mu.Lock()
	defer l.mu.Unlock()
	sent := l.sent
	l.sent = nil
	return sent
}

// status is an error as it came in an end frame or a refusal.
type status struct {
	text string
	x    wire.Execution
}

func (s status) Error() string { return fmt.Sprint("status ", s.text, " ", s.x) }

// unknown is the text of a status.
const unknown = "unknown"

var errUnknown = errors.New("the instance does not know the stream")

type statuses struct{}

func (statuses) Status(body []byte, x wire.Execution, _ string) error { return status{string(body), x} }

func (statuses) Unknown(err error) error {
	if err.(status).text == unknown {
		return errUnknown
	}
	return nil
}

// owner is the call of a server's stream.
type owner struct {
	mu    sync.Mutex
	ends  []error // of StreamEnded
	ended func()  // runs then, if not nil

	contextEnded func() error
}

func (o *owner) ContextEnded() error { return o.contextEnded() }

func (o *owner) EndStatus(err error) EndStatus {
	return EndStatus{Header: nats.Header{"Nats-Error": {err.Error()}}, Body: []byte(err.Error()), Flags: wire.NotRun.Flags()}
}

func (o *owner) StreamEnded(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ends = append(o.ends, err)
	if o.ended != nil {
		o.ended()
	}
}

// told are the errors of StreamEnded.
func (o *owner) told() string {
	synctest.Wait()
	o.mu.Lock()
	defer o.mu.Unlock()
	return errTexts(o.ends)
}

// pair is a client and a server with a network between them. Nothing is delivered unless the test
// does so.
type pair struct {
	t                *testing.T
	id               wire.ID
	up, down         *link // what the client publishes, and what the server does
	clients, servers *Table
	client           *Client
	server           *Server // nil until the open has come
	owner            owner
	ctx              context.Context
	cancel           context.CancelFunc
	handler          context.Context
	opened           chan error // the result of Open

	mu       sync.Mutex
	notified []error // by Notify

	abandoned atomic.Int64 // streams
}

// newPair makes a client. change, which may be nil, changes how.
func newPair(t *testing.T, change func(p *pair, c *ClientConfig)) *pair {
	p := &pair{
		t: t, id: wire.NewID(), up: newLink(), down: newLink(), clients: NewTable(heartbeat), servers: NewTable(heartbeat),
		handler: context.Background(), opened: make(chan error, 1),
	}
	p.owner.contextEnded = func() error { return p.handler.Err() }
	p.ctx, p.cancel = context.WithCancel(context.Background())
	t.Cleanup(p.finish)
	c := p.clientConfig()
	if change != nil {
		change(p, &c)
	}
	p.client = NewClient(p.ctx, c)
	p.client.Notify(context.Background(), p.notify)
	return p
}

func (p *pair) notify(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.notified = append(p.notified, err)
}

// notifications are the errors of Notify.
func (p *pair) notifications() string {
	synctest.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	return errTexts(p.notified)
}

func (p *pair) clientConfig() ClientConfig {
	return ClientConfig{
		Config:   Config{ID: p.id, Conn: p.up, Table: p.clients, MaxMessage: maxMessage},
		Statuses: statuses{}, Out: p.up, Subject: subject, Root: root, ReplyPrefix: inbox,
		Refuse: func() error { return nil }, Abandoned: func() { p.abandoned.Add(1) },
	}
}

func (p *pair) serverConfig() Config {
	return Config{ID: p.id, Conn: p.down, Table: p.servers, MaxMessage: maxMessage}
}

// inPair runs f with a client and a server that has accepted its stream.
func inPair(t *testing.T, f func(p *pair)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		p := newPair(t, nil)
		p.open()
		f(p)
	})
}

// start begins to open the stream, and returns the open.
func (p *pair) start() *nats.Msg {
	p.t.Helper()
	go func() { p.opened <- p.client.Open(Open{Timeout: time.Hour}) }()
	synctest.Wait()
	if sent := p.up.take(); len(sent) == 1 {
		return sent[0]
	}
	p.t.Fatal("the open is not published")
	return nil
}

// open opens the stream.
func (p *pair) open() {
	p.t.Helper()
	p.toServer(p.start())
	p.settle()
	if err := <-p.opened; err != nil {
		p.t.Fatal("Open:", err)
	}
}

// finish ends what is left, and looks whether all of it has ended, and once.
func (p *pair) finish() {
	p.up.fail(nil)
	p.clients.Break(errFinish)
	p.servers.Break(errFinish)
	synctest.Wait()
	p.client.Close(errFinish)
	p.cancel()
	for _, table := range []*Table{p.clients, p.servers} {
		for _, s := range table.All() {
			p.t.Errorf("a stream is left in a table: %v", s.err)
			table.remove(s)
		}
		table.keepers.Wait()
	}
	synctest.Wait()
	if len(p.notified) != 1 {
		p.t.Errorf("Notify: %v", p.notified)
	}
	if p.server != nil && len(p.owner.ends) != 1 {
		p.t.Errorf("StreamEnded: %v", p.owner.ends)
	}
}

// toServer delivers a message of the client's.
func (p *pair) toServer(m *nats.Msg) {
	switch m.Subject {
	case subject:
		if err := p.accept(m); err != nil {
			p.t.Error("Accept:", err)
		}
	case root + "." + wire.CancelToken:
		if env, err := wire.Parse(m.Data); err != nil || env.Kind != wire.KindCancel || env.ID != p.id {
			p.t.Errorf("cancel %x: %v", m.Data, err)
		}
		if p.server != nil {
			p.server.End(ErrCanceled)
		}
	case root + "._i." + instance + "." + p.id.String():
		if !p.servers.Deliver(p.id, m) && m.Reply != "" {
			end := append(wire.AppendFrame(nil, wire.KindEnd, 0), unknown...)
			_ = p.down.Publish(m.Reply, end)
		}
	default:
		p.t.Errorf("subject %q", m.Subject)
	}
}

// accept makes the server's side from an open.
func (p *pair) accept(m *nats.Msg) error {
	env, err := wire.Parse(m.Data)
	if err != nil || env.ID != p.id {
		p.t.Errorf("open %x: %v", m.Data, err)
	}
	open, err := wire.ParseOpen(&env)
	if err != nil {
		p.t.Error(err)
	}
	p.server = NewServer(p.handler, p.serverConfig(), &p.owner, open)
	return p.server.Accept(m.Reply, func(credit uint64) error {
		return p.down.Publish(m.Reply, wire.AppendAccept(nil, p.id, credit, instance))
	})
}

// toClient delivers a message of the server's.
func (p *pair) toClient(m *nats.Msg) {
	token, ok := strings.CutPrefix(m.Subject, inbox)
	if id, parsed := ParseToken(token); !ok || !parsed || id != p.id {
		p.t.Errorf("subject %q", m.Subject)
	}
	p.clients.Deliver(p.id, m)
}

// settle delivers what is published until nothing more is. It returns what it was.
func (p *pair) settle() (up, down []string) {
	for {
		synctest.Wait()
		fromClient, fromServer := p.up.take(), p.down.take()
		if len(fromClient)+len(fromServer) == 0 {
			return up, down
		}
		for _, m := range fromClient {
			up = append(up, what(m))
			p.toServer(m)
		}
		for _, m := range fromServer {
			down = append(down, what(m))
			p.toClient(m)
		}
	}
}

// pass lets time pass, while everything is delivered. It returns what was.
func (p *pair) pass(d time.Duration) (up, down []string) {
	const step = heartbeat / 40
	for end := time.Now().Add(d); time.Now().Before(end); {
		<-time.After(step)
		u, d := p.settle()
		up, down = append(up, u...), append(down, d...)
	}
	return up, down
}

// what says in short what a message is.
func what(m *nats.Msg) string {
	f, err := wire.ParseFrame(m.Data)
	switch {
	case m.Subject == root+"."+wire.CancelToken:
		return "cancel to all"
	case m.Subject == subject:
		return "open"
	case len(m.Data) == 0:
		return "nothing"
	case err != nil:
		return "invalid"
	}
	switch f.Kind {
	case wire.KindAccept:
		return "accept"
	case wire.KindData:
		return fmt.Sprint("data ", f.Number)
	case wire.KindEnd:
		return strings.TrimSpace(fmt.Sprint("end ", f.Number, " ", string(f.Body)))
	case wire.KindCredit:
		return "credit"
	case wire.KindHeartbeat:
		return "heartbeat"
	}
	return "cancel"
}

func whats(messages []*nats.Msg) (all []string) {
	for _, m := range messages {
		all = append(all, what(m))
	}
	return all
}

// only returns those of the messages that begin with a word.
func only(all []string, word string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return !strings.HasPrefix(s, word) })
}

// published is what a link has taken, in short. It forgets it.
func (l *link) published() string {
	synctest.Wait()
	return strings.Join(whats(l.take()), ", ")
}

// send sends a message, in a frame of its own if that may be.
func send(s *Stream, message []byte) error {
	buf := buffer.Take()
	defer buf.PutBack()
	buf.B = append(buf.B[:flow.FrameRoom], message...)
	return s.Send(buf, flow.FrameRoom)
}

func sendText(s *Stream, text string) error { return send(s, []byte(text)) }

// mustSend sends messages.
func (p *pair) mustSend(s *Stream, texts ...string) {
	p.t.Helper()
	for _, text := range texts {
		if err := sendText(s, text); err != nil {
			p.t.Fatalf("Send of %.20q: %v", text, err)
		}
	}
}

// mustRecv receives messages.
func (p *pair) mustRecv(s *Stream, texts ...string) {
	p.t.Helper()
	for _, text := range texts {
		if m, err := s.Recv(); err != nil || string(m.Bytes) != text {
			p.t.Fatalf("Recv: %.20q, %v, not %.20q", m.Bytes, err, text)
		}
	}
}

// recvErr returns the error of Recv.
func recvErr(s *Stream) error {
	_, err := s.Recv()
	return err
}

// Of a side that goes on.
const (
	goes  = "goes"  // Send
	waits = "waits" // Recv
)

// sendState is the error of Send, or goes.
func sendState(s *Stream) string {
	s.mu.Lock()
	err := s.sendErrorLocked()
	s.mu.Unlock()
	if err == nil && s.side.checkContext() == nil {
		return goes
	}
	return errText(sendText(s, "x"))
}

// recvState is the error of Recv, or a message, or waits.
func recvState(s *Stream) string {
	if m, ok, end := s.read(); ok {
		return string(m.Bytes)
	} else if end == nil {
		return waits
	}
	return errText(recvErr(s))
}

func errText(err error) string {
	if err == nil {
		return "nil"
	}
	return err.Error()
}

func errTexts(errs []error) string {
	all := make([]string, len(errs))
	for i, err := range errs {
		all[i] = errText(err)
	}
	return strings.Join(all, ", ")
}

// states are those of Send and Recv of a stream.
func states(s *Stream) [2]string { return [2]string{sendState(s), recvState(s)} }

func isOver(s *Stream) bool {
	select {
	case <-s.Ended():
		return true
	default:
		return false
	}
}

// result is a call that may wait.
type result struct {
	done atomic.Bool
	err  error
	took time.Duration
}

// begin begins a call.
func begin(f func() error) *result {
	r := &result{}
	start := time.Now()
	go func() {
		r.err = f()
		r.took = time.Since(start)
		r.done.Store(true)
	}()
	synctest.Wait()
	return r
}

// state is the text of its error, or waits.
func (r *result) state() string {
	synctest.Wait()
	if !r.done.Load() {
		return waits
	}
	return errText(r.err)
}

// frame is a message for the server.
func (p *pair) frame(data []byte) *nats.Msg {
	return &nats.Msg{Subject: root + "._i." + instance + "." + p.id.String(), Data: data}
}

// answer is a message for the client.
func (p *pair) answer(data []byte) *nats.Msg {
	return &nats.Msg{Subject: fmt.Sprintf("%ss%v-1", inbox, p.id), Data: data}
}

// dataFrame is a data frame with messages.
func dataFrame(number uint64, texts ...string) []byte {
	b := wire.AppendFrame(nil, wire.KindData, number)
	for _, text := range texts {
		b = append(wire.AppendMessagePrefix(b, len(text)), text...)
	}
	return b
}

func endFrame(number uint64, status string) []byte {
	return append(wire.AppendFrame(nil, wire.KindEnd, number), status...)
}

// noResponders is what NATS answers where nobody listens.
func (p *pair) noResponders() *nats.Msg {
	m := p.answer(nil)
	m.Header = nats.Header{"Status": {"503"}}
	return m
}

// run is a random run of two sides, which may be disturbed.
type run struct {
	*pair
	seed     uint64
	one      bool // the server finishes without having read all
	half     bool // the client closes its half
	status   error
	requests traffic // the client's messages
	results  traffic // the server's
	accepted chan struct{}
	served   sync.WaitGroup
}

// traffic is what one side sends to the other.
type traffic struct {
	side  uint64
	count int // of the messages that are to be sent
	sent  int
	got   int
	end   error // of Recv
}

// disturbances are what may happen to a run that is open.
var disturbances = []func(p *pair){
	func(p *pair) { p.client.End(errMine) },
	func(p *pair) { p.client.Close(errMine) },
	func(p *pair) { p.client.Break(errMine) },
	func(p *pair) { _ = p.client.Reject(errMine) },
	func(p *pair) { p.cancel() },
	func(p *pair) { p.clients.Close(errMine) },
	func(p *pair) { p.clients.Break(errMine) },
	func(p *pair) { p.server.End(errOther) },
	func(p *pair) { p.server.EndAndWait(errOther) },
	func(p *pair) { p.server.Finish(errOther, nil) },
	func(p *pair) { p.server.Break(errOther) },
	func(p *pair) { p.servers.Close(errOther) },
	func(p *pair) { p.servers.Break(errOther) },
	func(p *pair) { p.up.fail(errMine) },
	func(p *pair) { p.down.fail(errOther) },
	func(p *pair) { p.clients.Deliver(p.id, p.noResponders()) },
	func(p *pair) { p.clients.Deliver(p.id, p.answer(endFrame(0, unknown))) },
}

// losing makes the nth message of a link arrive so often.
func losing(n, times int) func(*nats.Msg) int {
	return func(*nats.Msg) int {
		if n--; n == -1 {
			return times
		}
		return 1
	}
}

// random returns a source of its own for each part of a run.
func (r *run) random(part uint64) *rand.Rand { return rand.New(rand.NewPCG(r.seed, part)) }

// message is the nth of a side.
func (r *run) message(side uint64, n int) []byte {
	random := r.random(side<<32 | uint64(n))
	sizes := []int{0, 1, 10, 100, 1000, minAlone, flow.MaxBody - wire.MessagePrefix, flow.MaxBody, 3 * flow.MaxBody, maxMessage}
	return bytes.Repeat([]byte{byte(n)}, random.IntN(sizes[random.IntN(len(sizes))]+1))
}

// pause lets a bit of time pass, or none.
func pause(random *rand.Rand) {
	if random.IntN(4) == 0 {
		<-time.After(time.Duration(random.IntN(500)) * time.Millisecond)
	}
}

// send sends the messages of a side.
func (r *run) send(s *Stream, t *traffic, random *rand.Rand) {
	for ; t.sent < t.count; t.sent++ {
		pause(random)
		if send(s, r.message(t.side, t.sent)) != nil {
			return
		}
	}
}

// receive reads until there is nothing more.
func (r *run) receive(s *Stream, t *traffic, random *rand.Rand) {
	for {
		pause(random)
		m, err := s.Recv()
		if err != nil {
			t.end = err
			return
		}
		if want := r.message(t.side, t.got); !bytes.Equal(m.Bytes, want) {
			r.t.Errorf("message %d of side %d has %d bytes, not %d", t.got, t.side, len(m.Bytes), len(want))
		}
		t.got++
	}
}

// carry delivers what is published on a link, a while later, until done is closed.
func carry(l *link, random *rand.Rand, deliver func(m *nats.Msg), done <-chan struct{}) {
	for {
		select {
		case <-l.more:
		case <-done:
			return
		}
		if random.IntN(2) == 0 {
			<-time.After(time.Duration(random.IntN(50)) * time.Millisecond)
		}
		for _, m := range l.take() {
			deliver(m)
		}
	}
}

// deliver takes what the client has published. The first open gets a handler.
func (r *run) deliver(m *nats.Msg) {
	if m.Subject != subject {
		r.toServer(m)
		return
	}
	if r.server != nil || r.accept(m) != nil {
		return
	}
	close(r.accepted)
	s, reading := &r.server.Stream, sync.WaitGroup{}
	r.served.Go(func() {
		reading.Go(func() { r.receive(s, &r.requests, r.random(1)) })
		r.send(s, &r.results, r.random(2))
		if !r.one {
			reading.Wait()
		}
		r.server.Finish(r.status, nil)
		<-s.Ended()
		reading.Wait()
	})
}

// call is the caller.
func (r *run) call() {
	s, sending := &r.client.Stream, sync.WaitGroup{}
	sending.Go(func() {
		r.send(s, &r.requests, r.random(3))
		if r.half {
			r.client.CloseSend()
		}
	})
	if err := r.client.Open(Open{}); err != nil {
		r.results.end = err
	} else {
		r.receive(s, &r.results, r.random(4))
	}
	sending.Wait()
}

// disturb does something to the run after a while.
func (r *run) disturb(random *rand.Rand) {
	after := time.Duration(random.IntN(5000)) * time.Millisecond
	select {
	case <-r.accepted:
	case <-r.client.Ended():
		return
	}
	<-time.After(after)
	for range 1 + random.IntN(2) {
		disturbances[random.IntN(len(disturbances))](r.pair)
	}
}

// TestRandom: whatever happens, messages arrive once and in order, and both sides come to an end.
func TestRandom(t *testing.T) {
	for seed := range uint64(200) {
		if !t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { synctest.Test(t, func(t *testing.T) { runRandom(t, seed) }) }) {
			return
		}
	}
}

func runRandom(t *testing.T, seed uint64) {
	r := &run{seed: seed, accepted: make(chan struct{})}
	random := r.random(0)
	r.one = random.IntN(3) == 0
	r.half = !r.one || random.IntN(2) == 0
	if random.IntN(3) == 0 {
		r.status = errTheirs
	}
	counts := []int{0, 1, 10, 60}
	r.requests = traffic{side: 1, count: random.IntN(counts[random.IntN(len(counts))] + 1)}
	r.results = traffic{side: 2, count: random.IntN(counts[random.IntN(len(counts))] + 1)}
	kind := random.IntN(5) // of disturbance; 0 and 1 are none
	r.pair = newPair(t, func(p *pair, c *ClientConfig) {
		if random.IntN(3) == 0 {
			p.up.limit, p.down.limit = 4096, 4096
		}
		if kind == 2 && random.IntN(4) == 0 {
			c.Deadline = time.Now().Add(time.Duration(random.IntN(5000)) * time.Millisecond)
		}
		if kind == 3 {
			[]*link{p.up, p.down}[random.IntN(2)].lose = losing(random.IntN(10), 2*random.IntN(2))
		}
	})

	var all, network sync.WaitGroup
	done := make(chan struct{})
	network.Go(func() { carry(r.up, r.random(5), r.deliver, done) })
	network.Go(func() { carry(r.down, r.random(6), r.toClient, done) })
	all.Go(r.call)
	if kind == 2 || kind == 4 {
		all.Go(func() { r.disturb(r.random(7)) })
	}
	ended := make(chan struct{})
	go func() { all.Wait(); r.served.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-time.After(time.Hour):
		t.Fatalf("kind %d: it does not end; sent and received are %+v and %+v", kind, r.requests, r.results)
	}
	close(done)
	network.Wait()

	calm := kind < 2
	if r.requests.got > r.requests.sent || r.results.got > r.results.sent {
		t.Errorf("sent and received are %+v and %+v", r.requests, r.results)
	}
	clean := r.results.end == io.EOF || errText(r.results.end) == "status theirs 1"
	if clean && (r.results.got < r.results.count || (r.results.end == io.EOF) != (r.status == nil)) || calm && !clean {
		t.Errorf("kind %d: the client has got %+v", kind, r.results)
	}
	if read := r.requests.end == io.EOF && !r.one; read && r.requests.got < r.requests.count || calm && !r.one && !read {
		t.Errorf("kind %d: the server has got %+v", kind, r.requests)
	}
	if want := strings.Replace(errText(r.results.end), "EOF", "nil", 1); calm && r.notifications() != want ||
		calm && r.owner.told() != errText(r.status) {
		t.Errorf("Notify: %s, StreamEnded: %s", r.notifications(), r.owner.told())
	}
	if !isOver(&r.client.Stream) || r.server != nil && !isOver(&r.server.Stream) {
		t.Error("a side is not over")
	}
}
