package rpc

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc/internal/frozenwire"
	"github.com/natscall/natscall/rpc/internal/wire"
)

type fuzzText = wrapperspb.StringValue

var (
	fuzzDesc   = ServiceDesc{Name: "fuzz.v1.Fuzz", MicroName: "Fuzz", Version: "1.0.0"}
	fuzzDo     = NewUnaryMethod[fuzzText, fuzzText](&fuzzDesc, MethodDesc{Name: "Do"})
	fuzzNote   = NewOneWayMethod[fuzzText](&fuzzDesc, MethodDesc{Name: "Note"})
	fuzzWatch  = NewServerStreamMethod[fuzzText, fuzzText](&fuzzDesc, MethodDesc{Name: "Watch"})
	fuzzGather = NewClientStreamMethod[fuzzText, fuzzText](&fuzzDesc, MethodDesc{Name: "Gather"})
	fuzzChat   = NewBidiMethod[fuzzText, fuzzText](&fuzzDesc, MethodDesc{Name: "Chat"})
)

const (
	fuzzRoot     = "fuzz.v1.Fuzz"
	fuzzInstance = "INSTANCE"
	// fuzzPayload is a max_payload that a response can exceed.
	fuzzPayload = 8 << 10
)

// fuzzHandlers count by request how often a handler has run for it.
type fuzzHandlers struct {
	mu   sync.Mutex
	runs map[fuzzRequest]int
}

// fuzzRequest tells a request from others, unless both have the same id, and tag in a batch.
type fuzzRequest struct {
	reply string
	id    wire.ID // zero if it is plain
	tag   uint64
}

func (h *fuzzHandlers) ran(ctx context.Context) {
	c := CallFromContext(ctx).served
	r := fuzzRequest{c.received.reply, c.id, c.tag}
	if c.plain {
		r.id = wire.ID{}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.runs[r]++
}

// do fails, panics or returns a large response where the request says so, and echoes.
func (h *fuzzHandlers) do(ctx context.Context, in *fuzzText) (*fuzzText, error) {
	h.ran(ctx)
	switch in.GetValue() {
	case "fail":
		return nil, Errorf(CodeAborted, "%s", "failed")
	case "panic":
		panic("of a handler")
	case "nil":
		return nil, nil
	case "large":
		return wrapperspb.String(strings.Repeat("large", fuzzPayload)), nil
	case "wait":
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return in, nil
}

func (h *fuzzHandlers) note(ctx context.Context, in *fuzzText) error {
	_, err := h.do(ctx, in)
	return err
}

func (h *fuzzHandlers) watch(ctx context.Context, in *fuzzText, to *Sender[*fuzzText]) error {
	out, err := h.do(ctx, in)
	if err != nil || out == nil {
		return err
	}
	return errors.Join(to.Send(in), to.Send(in))
}

func (h *fuzzHandlers) gather(ctx context.Context, from *Receiver[*fuzzText]) (*fuzzText, error) {
	h.ran(ctx)
	all := ""
	for {
		switch m, err := from.Recv(); {
		case err == io.EOF:
			return wrapperspb.String(all), nil
		case err != nil:
			return nil, err
		default:
			all += m.GetValue()
		}
	}
}

func (h *fuzzHandlers) chat(ctx context.Context, with *BidiStream[*fuzzText, *fuzzText]) error {
	h.ran(ctx)
	for {
		m, err := with.Recv()
		switch {
		case err == io.EOF:
			return nil
		case err == nil:
			err = with.Send(m)
		}
		if err != nil {
			return err
		}
	}
}

// fuzzInput reads the parts of an input. All of it means something.
type fuzzInput []byte

func (in *fuzzInput) byte() (b byte) {
	if len(*in) > 0 {
		b, *in = (*in)[0], (*in)[1:]
	}
	return b
}

// bytes returns as many bytes as the next two say.
func (in *fuzzInput) bytes() (b []byte) {
	n := int(in.byte())<<8 | int(in.byte())
	n = min(n, len(*in))
	b, *in = (*in)[:n:n], (*in)[n:]
	return b
}

// fuzzMessage appends a message to an input.
func fuzzMessage(input []byte, subject, reply byte, token, header string, body []byte) []byte {
	for _, part := range [][]byte{{subject, reply}, fuzzPart(token), fuzzPart(header), fuzzPart(string(body))} {
		input = append(input, part...)
	}
	return input
}

func fuzzPart(s string) []byte { return append([]byte{byte(len(s) >> 8), byte(len(s))}, s...) }

// fuzzSubjects are those that the service has subscribed to. A message may come to any token in
// place of the wildcard.
var fuzzSubjects = []string{
	fuzzRoot + ".Do", fuzzRoot + ".Note", fuzzRoot + ".Watch", fuzzRoot + ".Gather", fuzzRoot + ".Chat",
	fuzzRoot + "._all.cancel", fuzzRoot + "._all.alive", fuzzRoot + "._all.instances", fuzzRoot + "._all.call.*", fuzzRoot + "._all.*",
	fuzzRoot + "._i." + fuzzInstance + ".alive", fuzzRoot + "._i." + fuzzInstance + ".instances",
	fuzzRoot + "._i." + fuzzInstance + ".call.*", fuzzRoot + "._i." + fuzzInstance + ".*",
	"$SRV.*", "$SRV.*.Fuzz", "$SRV.*.Fuzz." + fuzzInstance,
}

// fuzzReplies are the reply subjects of requests. Each message has one of its own, so that its
// answers are known.
var fuzzReplies = []string{"", "reply.", "_R_.", "_GR_.", "$JS.ACK.", fuzzRoot + "._all."}

// fuzzToken makes a part of a subject of any text.
func fuzzToken(b []byte) string {
	s := strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || r == '*' || r == '>' {
			return -1
		}
		return r
	}, string(b))
	if s = strings.Trim(strings.ReplaceAll(s, "..", "."), "."); s == "" || strings.Contains(s, "..") {
		return "x"
	}
	return s
}

// message reads the next message. Its reply subject ends with a number of its own.
func (in *fuzzInput) message(number int64) *nats.Msg {
	subject, reply := fuzzSubjects[int(in.byte())%len(fuzzSubjects)], fuzzReplies[int(in.byte())%len(fuzzReplies)]
	m := &nats.Msg{Subject: strings.Replace(subject, "*", fuzzToken(in.bytes()), 1)}
	if reply != "" {
		m.Reply = fmt.Sprint(reply, number)
	}
	for line := range strings.SplitSeq(string(in.bytes()), "\n") {
		if key, value, ok := strings.Cut(line, ":"); ok {
			if m.Header == nil {
				m.Header = nats.Header{}
			}
			m.Header[key] = append(m.Header[key], value)
		}
	}
	m.Data = in.bytes()
	return m
}

// fuzzServer is a service of which all messages come from the fuzzer.
type fuzzServer struct {
	*service
	t        *testing.T
	handlers fuzzHandlers
	first    int64 // number of a message
	took     []*nats.Msg
}

// fuzzMessages is how many there have been.
var fuzzMessages atomic.Int64

// newFuzzServer makes one with options that the bits choose. Its server has not been started:
// nothing happens but what the messages cause.
func newFuzzServer(t *testing.T, nc *nats.Conn, bits byte) *fuzzServer {
	f := &fuzzServer{t: t, first: fuzzMessages.Load() + 1, handlers: fuzzHandlers{runs: map[fuzzRequest]int{}}}
	opts := []ServerOption{WithLogger(slog.New(slog.DiscardHandler)), WithMaxReceiveSize(64 << 10)}
	for i, opt := range []ServerOption{
		WithoutQueueGroup(), WithPlainStreamLimits(0, 0), WithMaxTimeout(time.Second), WithMaxConcurrency(1),
		WithInterceptors(func(ctx context.Context, call *Call, next Next) error { return next(ctx, call) }), WithMaxQueue(1),
	} {
		if bits>>i&1 != 0 {
			opts = append(opts, opt)
		}
	}
	var err error
	if f.service, err = newService(NewServer(nc, opts...), &fuzzDesc, nil); err != nil {
		t.Fatal(err)
	}
	for _, h := range []Handler[*fuzzHandlers]{
		HandleUnary(fuzzDo, (*fuzzHandlers).do), HandleOneWay(fuzzNote, (*fuzzHandlers).note), HandleServerStream(fuzzWatch, (*fuzzHandlers).watch),
		HandleClientStream(fuzzGather, (*fuzzHandlers).gather), HandleBidi(fuzzChat, (*fuzzHandlers).chat),
	} {
		f.addEndpoint(h.method, func(ctx context.Context, call *Call) error { return h.invoke(&f.handlers, ctx, call) })
	}
	if err := f.limitMethods(); err != nil {
		t.Fatal(err)
	}
	f.identity.ID = fuzzInstance
	f.steps.ready.Store(true)
	f.server.stall.ticked.Store(math.MaxInt64) // its clock does not tick, and it never stood still
	return f
}

// deliver hands in a message as the subscription to its subject does.
func (f *fuzzServer) deliver(m *nats.Msg) {
	f.took = append(f.took, m)
	token := strings.TrimPrefix(m.Subject, fuzzRoot+".")
	switch i := slices.IndexFunc(f.endpoints, func(e *endpoint) bool { return e.subject == m.Subject }); {
	case i >= 0:
		f.endpoints[i].receive(m)
	case strings.HasPrefix(token, wire.AllToken+"."):
		f.onAll(m)
	case strings.HasPrefix(token, wire.InstanceToken+"."):
		f.onInstance(m)
	default:
		responder{f.service}.onVerb(m)
	}
}

// end stops the service. What has not ended by itself until then ends because of it, and nothing is
// left.
func (f *fuzzServer) end() {
	answered := func(c *serverCall) bool { return c.steps.taken(callAnswered) }
	for range 1000 { // some wait for their client, and others for a slot behind those
		if !slices.ContainsFunc(f.calls.All(), func(c *serverCall) bool { return !answered(c) }) {
			break
		}
		runtime.Gosched()
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = f.stop(ctx)
	f.server.streams.Break(errStopped())
	limit := time.NewTimer(time.Minute)
	defer limit.Stop()
	for _, ended := range []<-chan struct{}{f.workers.calls.Close(), f.workers.streams.Close()} {
		select {
		case <-ended:
		case <-limit.C:
			f.t.Fatalf("calls do not end: %s", f.running())
		}
	}
	f.server.out.Flush()
	if n := len(f.calls.All()); n > 0 {
		f.t.Errorf("%d calls are left: %s", n, f.running())
	}
	for len(f.server.streams.All()) > 0 { // one that is over may be on its way out
		select {
		case <-limit.C:
			f.t.Fatalf("%d streams are left", len(f.server.streams.All()))
		default:
			runtime.Gosched()
		}
	}
}

// fuzzAsked is what a message asks for: requests, by their tags if they came in a batch.
type fuzzAsked struct {
	msg      *nats.Msg
	method   *method
	known    bool // the service has the method
	batch    bool
	requests []fuzzAskedOne
}

// fuzzAskedOne is a request.
type fuzzAskedOne struct {
	tag         uint64
	id          wire.ID
	again       bool // it has the id of one before it, and is ignored if that has not ended
	least, most int  // answers
}

// asks returns what a message to a method asks for. ids are those of the requests before.
func (f *fuzzServer) asks(m *nats.Msg, ids map[wire.ID]bool) *fuzzAsked {
	name := m.Subject[strings.LastIndex(m.Subject, ".")+1:]
	call := strings.Contains(m.Subject, "."+wire.CallToken+".")
	if call {
		_, name, _ = strings.Cut(m.Subject, "."+wire.CallToken+".")
	}
	i := slices.IndexFunc(f.endpoints, func(e *endpoint) bool {
		return e.method.desc.Name == name && (call || e.subject == m.Subject)
	})
	if i < 0 && (!call || m.Reply == "") {
		return nil
	}
	a := &fuzzAsked{msg: m, known: i >= 0}
	if a.known {
		a.method = f.endpoints[i].method
	}
	if batch, err := wire.ParseBatch(m.Data); wire.IsBatch(m.Data) && err == nil {
		a.batch = true
		for tag, item := range batch.Items() {
			a.add(tag, item, ids)
		}
	} else {
		a.add(0, m.Data, ids)
	}
	return a
}

func (a *fuzzAsked) add(tag uint64, data []byte, ids map[wire.ID]bool) {
	one := fuzzAskedOne{tag: tag, least: 1, most: 1}
	e, _ := wire.Parse(data)
	if wire.IsEnvelope(data) {
		one.id = e.ID
		one.again, ids[e.ID] = ids[e.ID], true
	}
	plainStream := a.method != nil && a.method.kind == KindServerStream && !a.batch && !wire.IsEnvelope(data)
	switch {
	case a.msg.Reply == "", slices.Contains([]wire.Kind{wire.KindCancel, wire.KindAliveAnswer, wire.KindInstanceAnswer}, e.Kind):
		one.least, one.most = 0, 0 // never answered
	case one.again, strings.HasPrefix(a.msg.Reply, jetStreamAck), plainStream && strings.HasPrefix(a.msg.Reply, fuzzRoot):
		one.least = 0
	}
	a.requests = append(a.requests, one)
}

// check looks at all that the service has published.
func (f *fuzzServer) check(sent []*nats.Msg) {
	byReply := map[string][]*nats.Msg{}
	for _, m := range sent {
		byReply[m.Subject] = append(byReply[m.Subject], m)
	}
	ids := map[wire.ID]bool{}
	least, most := 0, 0
	for _, m := range f.took {
		answers := byReply[m.Reply]
		delete(byReply, m.Reply)
		if a := f.asks(m, ids); a != nil {
			f.checkAnswers(a, answers)
			for _, one := range a.requests {
				if a.known {
					most++
				}
				if a.known && !one.again {
					least++
				}
			}
		} else {
			f.checkOthers(m, answers)
		}
	}
	for reply := range byReply {
		if n, err := strconv.ParseInt(reply[strings.LastIndex(reply, ".")+1:], 10, 64); err == nil && n < f.first {
			continue // a frame that crossed the end of the server before
		}
		f.t.Errorf("something came to %q, where nobody has asked", reply)
	}
	var counted int64
	for _, e := range f.endpoints {
		n, _ := e.stats.requests()
		counted += n
	}
	if counted < int64(least) || counted > int64(most) {
		f.t.Errorf("%d requests are counted, want %d to %d", counted, least, most)
	}
}

// checkAnswers looks at the answers to requests.
func (f *fuzzServer) checkAnswers(a *fuzzAsked, answers []*nats.Msg) {
	got := make([]int, len(a.requests))
	ended := false // a plain stream
	for _, m := range answers {
		switch {
		case len(m.Data) > 0 && wire.IsBatch(m.Data):
			batch, err := frozenwire.ParseBatch(m.Data)
			if err != nil || !a.batch {
				f.t.Errorf("a batch answers %x: %v", a.msg.Data, err)
			}
			for tag, item := range batch.Items() {
				f.count(a, got, tag, item)
			}
		case wire.IsEnvelope(a.msg.Data):
			f.count(a, got, 0, m.Data)
		case wire.IsEnvelope(m.Data):
			f.t.Errorf("an envelope answers %q", a.msg.Data)
		default:
			_, isEnd := m.Header["Nats-Service-Error-Code"]
			switch {
			case ended:
				f.t.Error("something comes behind the end of a plain answer")
			case !isEnd && a.method != nil && a.method.kind == KindServerStream && f.listensTo(m.Subject):
				f.t.Error("a plain stream to the service itself")
			}
			if ended = isEnd || a.method == nil || a.method.kind != KindServerStream; ended {
				got[0]++
			}
			if x := wire.ExecutionOf(m.Header); isEnd && m.Header.Get("Nats-Service-Error-Code") != "0" {
				f.checkRan(fuzzRequest{reply: a.msg.Reply}, x)
			}
		}
	}
	for i, one := range a.requests {
		if same := a.like(one); got[i] < one.least || got[i] > one.most*same {
			f.t.Errorf("%x to %s, reply %q: request %d is answered %d times, want %d to %d", a.msg.Data, a.msg.Subject, a.msg.Reply, i, got[i], one.least, one.most)
		}
	}
}

// like returns how many of the requests nobody can tell from one of them.
func (a *fuzzAsked) like(one fuzzAskedOne) (n int) {
	for _, other := range a.requests {
		if other.tag == one.tag && other.id == one.id {
			n++
		}
	}
	return n
}

// count counts an answer in an envelope for its request, the first one that waits for it. Frames
// that follow an accept are none.
func (f *fuzzServer) count(a *fuzzAsked, got []int, tag uint64, data []byte) {
	if frame, err := frozenwire.ParseFrame(data); len(data) == 0 || frozenwire.IsFrame(data) && frame.Kind != frozenwire.KindAccept {
		if err != nil && len(data) > 0 {
			f.t.Errorf("a frame %x: %v", data, err)
		}
		return
	}
	best := -1
	for i, one := range a.requests {
		if mine, err := frozenwire.Answers(data, frozenwire.ID(one.id)); mine && one.tag == tag {
			if err != nil {
				f.t.Errorf("the answer %x is not valid: %v", data, err)
			}
			if best < 0 || got[i] < got[best] {
				best = i
			}
		}
	}
	if best < 0 {
		f.t.Errorf("%x answers nothing of %x", data, a.msg.Data)
		return
	}
	got[best]++
	if e, err := wire.Parse(data); err == nil && e.Kind == wire.KindResponse && a.known && a.like(a.requests[best]) == 1 && a.requests[best].least == 1 {
		if x := e.Flags.Execution(); e.Flags&wire.FlagError != 0 {
			f.checkRan(fuzzRequest{a.msg.Reply, e.ID, tag}, x)
		} else {
			f.checkRan(fuzzRequest{a.msg.Reply, e.ID, tag}, wire.DidRun)
		}
	}
}

// checkRan compares what an answer says about the handler with what it knows.
func (f *fuzzServer) checkRan(r fuzzRequest, x wire.Execution) {
	switch n := f.handlers.runs[r]; {
	case n > 0 && (x == wire.NotRun || x == wire.Refused), n == 0 && x == wire.DidRun:
		f.t.Errorf("the answer says %d about the handler, which ran %d times", x, n)
	}
}

// checkOthers looks at what answers a message that is no request: a query, a cancel, or a frame.
func (f *fuzzServer) checkOthers(m *nats.Msg, answers []*nats.Msg) {
	e, err := wire.Parse(m.Data)
	control := strings.HasPrefix(m.Subject, fuzzRoot+"."+wire.AllToken+".") || strings.HasSuffix(m.Subject, fuzzInstance+"."+wire.AliveSuffix) ||
		strings.HasSuffix(m.Subject, fuzzInstance+"."+wire.InstancesToken)
	want, kind := 0, wire.Kind(0)
	switch {
	case strings.HasPrefix(m.Subject, "$SRV."):
		f.checkVerb(m, answers)
		return
	case !control: // a frame
		for _, a := range answers {
			if _, err := frozenwire.ParseFrame(a.Data); err != nil && len(a.Data) > 0 {
				f.t.Errorf("the frame %x is answered with %x: %v", m.Data, a.Data, err)
			}
		}
		return
	case m.Reply == "" || err != nil:
	case e.Kind == wire.KindInstanceQuery:
		want, kind = 1, wire.KindInstanceAnswer
	case e.Kind == wire.KindAliveQuery && strings.HasSuffix(m.Subject, wire.AliveToken):
		want, kind = min(1, len(answers)), wire.KindAliveAnswer // if it has one of the calls
	case e.Kind == wire.KindAliveQuery:
		want, kind = 1, wire.KindAliveAnswer
	}
	if len(answers) != want {
		f.t.Errorf("%x to %s is answered %d times, want %d", m.Data, m.Subject, len(answers), want)
	}
	for _, a := range answers {
		if got, err := wire.Parse(a.Data); err != nil || got.Kind != kind {
			f.t.Errorf("%x to %s is answered with %x: %v", m.Data, m.Subject, a.Data, err)
		}
	}
}

func (f *fuzzServer) checkVerb(m *nats.Msg, answers []*nats.Msg) {
	verb, _, _ := strings.Cut(strings.TrimPrefix(m.Subject, "$SRV."), ".")
	want := 0
	if slices.Contains([]string{"PING", "INFO", "STATS"}, verb) && m.Reply != "" {
		want = 1
	}
	if len(answers) != want {
		f.t.Errorf("%s is answered %d times, want %d", m.Subject, len(answers), want)
	}
	for _, a := range answers {
		if !json.Valid(a.Data) {
			f.t.Errorf("%s is answered with %q", m.Subject, a.Data)
		}
	}
}

// fuzzExamples are the bytes that docs/protocol.md shows.
func fuzzExamples(f *testing.F) (all [][]byte) {
	page, err := os.ReadFile("../docs/protocol.md")
	if err != nil {
		f.Fatal(err)
	}
	for _, block := range regexp.MustCompile("(?s)```hex [^\n]*\n(.*?)```").FindAllSubmatch(page, -1) {
		data, err := hex.DecodeString(string(bytes.Join(bytes.Fields(block[1]), nil)))
		if err != nil {
			f.Fatal(err)
		}
		all = append(all, data)
	}
	if len(all) < 10 {
		f.Fatalf("%d examples", len(all))
	}
	return all
}

// FuzzServer gives a service any messages on the subjects that it has subscribed to. It does not
// panic, answers each request with a reply subject once and none of the kinds that have no answer,
// in bytes that the frozen parser reads. What the answer says about the handler is true, each
// request is counted, and nothing is left in the end.
func FuzzServer(f *testing.F) {
	for _, example := range fuzzExamples(f) {
		for subject := range fuzzSubjects {
			f.Add(fuzzMessage([]byte{0}, byte(subject), 1, "Do", "", example))
		}
	}
	id := wire.ID{1}
	open := wire.AppendOpen(nil, id, 0, 0, wire.Open{Credit: 1 << 20})
	data := append(wire.AppendFrame(nil, wire.KindData, 0), "\x00\x00\x00\x00\x03\x0a\x01x"...)
	end := wire.AppendFrame(nil, wire.KindEnd, 1)
	for method := range byte(5) {
		stream := fuzzMessage([]byte{0}, method, 1, "", "", open)
		for _, frame := range [][]byte{data, end, wire.AppendFrame(nil, wire.KindCredit, 1<<20), wire.AppendFrame(nil, wire.KindStreamCancel, 0)} {
			stream = fuzzMessage(stream, 13, 1, id.String(), "", frame)
		}
		f.Add(stream)
	}
	for _, word := range []string{"fail", "panic", "nil", "large", "wait"} {
		body := append([]byte{0x0a, byte(len(word))}, word...)
		request := append(wire.AppendRequest(nil, id, 0, time.Second), body...)
		twice := append(wire.AppendRequest(nil, wire.ID{2}, 0, time.Second), body...)
		batch := wire.AppendItem(wire.AppendItem(wire.AppendBatch(nil), 7, request), 8, twice)
		for reply := range fuzzReplies {
			f.Add(fuzzMessage(fuzzMessage([]byte{8}, 0, byte(reply), "", "", request), 0, 1, "", "", batch))
			f.Add(fuzzMessage(fuzzMessage([]byte{1}, 2, byte(reply), "", "Content-Type:application/json\nNatscall-Timeout:5ms", []byte(`"`+word+`"`)), 5, 1, "", "", wire.AppendCancel(nil, id)))
		}
	}
	f.Add(fuzzMessage([]byte{255}, 14, 1, "STATS", "", nil))
	nats, nc := connectFake(f, fuzzPayload)
	f.Fuzz(func(t *testing.T, input []byte) {
		in := fuzzInput(input)
		s := newFuzzServer(t, nc, in.byte())
		for len(in) > 0 && len(s.took) < 16 {
			s.deliver(in.message(fuzzMessages.Add(1)))
		}
		s.end()
		s.check(nats.take(t, nc))
	})
}
