package rpc_test

import (
	"context"
	"crypto/rand"
	"io"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/flow"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

const testRoot = "test.v1.TestService"

// peer is a client that is written by hand, on a plain connection.
type peer struct {
	t       *testing.T
	nc      *nats.Conn
	answers *nats.Subscription
	id      wire.ID
	frames  string // subject for frames, once a stream is open
}

func newPeer(t *testing.T, nc *nats.Conn) *peer {
	answers, err := nc.SubscribeSync(nc.NewInbox())
	must(t, err)
	t.Cleanup(func() { _ = answers.Unsubscribe() }) // the connection may be closed
	must(t, answers.SetPendingLimits(-1, -1))
	return &peer{t: t, nc: nc, answers: answers, id: wire.NewID()}
}

// open opens a stream of a method, with a credit.
func (p *peer) open(method string, credit uint64) {
	p.t.Helper()
	p.openWith(method, wire.Open{Credit: credit})
}

func (p *peer) openWith(method string, o wire.Open) {
	p.t.Helper()
	p.publish(testRoot+"."+method, wire.AppendOpen(nil, p.id, 0, 0, o))
	f, err := wire.ParseFrame(p.next().Data)
	must(p.t, err)
	id, instance, err := wire.ParseAccept(&f)
	if err != nil || id != p.id {
		p.t.Fatalf("accept: %v %v", id, err)
	}
	p.frames = testRoot + "._i." + instance + "." + id.String()
}

func (p *peer) publish(subject string, data []byte) {
	p.t.Helper()
	must(p.t, p.nc.PublishRequest(subject, p.answers.Subject, data))
}

// frame sends a frame.
func (p *peer) frame(kind wire.Kind, number uint64, body ...byte) {
	p.t.Helper()
	must(p.t, p.nc.Publish(p.frames, append(wire.AppendFrame(nil, kind, number), body...)))
}

func (p *peer) next() *nats.Msg {
	p.t.Helper()
	m, err := p.answers.NextMsg(10 * time.Second)
	must(p.t, err)
	return m
}

// end reads until the end of the stream and returns its code.
func (p *peer) end() rpc.Code {
	p.t.Helper()
	for {
		f, err := wire.ParseFrame(p.next().Data)
		must(p.t, err)
		if f.Kind == wire.KindEnd {
			return statusCode(p.t, f.Body)
		}
	}
}

// refusal reads an error response and returns its code.
func (p *peer) refusal() rpc.Code {
	p.t.Helper()
	e, err := wire.Parse(p.next().Data)
	must(p.t, err)
	if e.Kind != wire.KindResponse || e.Flags&(wire.FlagError|wire.NotRun.Flags()) != wire.FlagError|wire.NotRun.Flags() {
		p.t.Fatalf("the answer is of kind %d, flags %x", e.Kind, e.Flags)
	}
	return statusCode(p.t, e.Body)
}

func statusCode(t *testing.T, body []byte) rpc.Code {
	t.Helper()
	var s natscallv1.Status
	must(t, proto.Unmarshal(body, &s))
	return rpc.Code(s.GetCode())
}

func (p *peer) silent() {
	p.t.Helper()
	must(p.t, p.nc.Flush())
	if n, _, err := p.answers.Pending(); err != nil || n > 0 {
		m := p.next()
		p.t.Errorf("an answer came: %v %x", m.Header, m.Data)
	}
}

// message is a message of a byte stream, behind its prefix.
func message(t *testing.T, value string) []byte {
	b, err := proto.Marshal(wrapperspb.String(value))
	must(t, err)
	return append(wire.AppendMessagePrefix(nil, len(b)), b...)
}

// hostileService has a Chat that echoes and a Gather that never reads.
func hostileService(t *testing.T) (srv *rpctest.Server, goesOn func(*testing.T)) {
	srv = rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{watch: count, gather: func(ctx context.Context, _ *rpc.Receiver[*text]) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	}})
	c := dial(t, srv.Connect())
	return srv, func(t *testing.T) {
		t.Helper()
		must(t, callOnce(t, c))
		r, err := watch(testContext(t), c, "10")
		must(t, err)
		must(t, wantCount(r, 10))
	}
}

// frame of a stream, as it is sent.
type hostileFrame struct {
	kind   wire.Kind
	number uint64
	body   []byte
}

func TestHostileFrames(t *testing.T) {
	data := func(number uint64, body ...byte) hostileFrame { return hostileFrame{wire.KindData, number, body} }
	end := func(number uint64) hostileFrame { return hostileFrame{wire.KindEnd, number, nil} }
	hello := message(t, "hello")
	huge := []byte{0, 0xff, 0xff, 0xff, 0xff, 'x'}
	tests := []struct {
		name, method string
		frames       []hostileFrame
		want         rpc.Code
	}{
		{"none", "Chat", []hostileFrame{data(0, hello...), end(1)}, rpc.CodeOK},
		{"gap", "Chat", []hostileFrame{data(1, hello...)}, rpc.CodeDataLoss},
		{"twice", "Gather", []hostileFrame{data(0, hello...), data(0, hello...)}, rpc.CodeDataLoss},
		{"gap before the end", "Chat", []hostileFrame{end(1)}, rpc.CodeDataLoss},
		{"end within a message", "Chat", []hostileFrame{data(0, hello[:7]...), end(1)}, rpc.CodeDataLoss},
		{"after the end", "Gather", []hostileFrame{end(0), data(1, hello...)}, rpc.CodeInternal},
		{"second end", "Gather", []hostileFrame{end(0), end(1)}, rpc.CodeInternal},
		{"no body", "Chat", []hostileFrame{data(0)}, rpc.CodeInternal},
		{"absurd length", "Chat", []hostileFrame{data(0, huge...)}, rpc.CodeResourceExhausted},
		{"message flags", "Chat", []hostileFrame{data(0, 9, 0, 0, 0, 0)}, rpc.CodeInternal},
		{"no message", "Chat", []hostileFrame{data(0, 0, 0, 0, 0, 2, 0xff, 0xff)}, rpc.CodeInvalidArgument},
		{"heartbeat ahead", "Gather", []hostileFrame{{wire.KindHeartbeat, 1, []byte{0}}}, rpc.CodeDataLoss},
		{"heartbeat without credit", "Gather", []hostileFrame{{wire.KindHeartbeat, 0, nil}}, rpc.CodeInternal},
		{"absurd number", "Gather", []hostileFrame{data(math.MaxUint64, 1)}, rpc.CodeInternal},
		{"unknown kind", "Gather", []hostileFrame{{99, 0, nil}}, rpc.CodeInternal},
		{"accept", "Chat", []hostileFrame{{wire.KindAccept, 0, make([]byte, 20)}, end(0)}, rpc.CodeOK},
		{"absurd credit", "Chat", []hostileFrame{{wire.KindCredit, 1 << 62, nil}, data(0, hello...), end(1)}, rpc.CodeOK},
		{"no request", "Watch", []hostileFrame{end(0)}, rpc.CodeInvalidArgument},
		{"second request", "Watch", []hostileFrame{data(0, append(hello, hello...)...), end(1)}, rpc.CodeInvalidArgument},
	}
	srv, goesOn := hostileService(t)
	nc := srv.Connect()
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := newPeer(t, nc)
			p.open(test.method, 1<<20)
			for _, f := range test.frames {
				p.frame(f.kind, f.number, f.body...)
			}
			if code := p.end(); code != test.want {
				t.Errorf("the stream ends with %v, want %v", code, test.want)
			}
			goesOn(t)
		})
	}
}

func TestHostileBytes(t *testing.T) {
	srv, goesOn := hostileService(t)
	p := newPeer(t, srv.Connect())
	p.open("Gather", 0)
	for size := range 100 {
		b := make([]byte, size)
		_, err := rand.Read(b)
		must(t, err)
		for _, subject := range []string{p.frames, testRoot + ".Chat", testRoot + "._all.x"} {
			must(t, p.nc.Publish(subject, b))
		}
	}
	if code := p.end(); code != rpc.CodeInternal {
		t.Errorf("the stream ends with %v", code)
	}
	goesOn(t)
}

// TestHostileFlood: more than the credit, in large frames and in very many
// tiny ones, ends the stream and takes no memory.
func TestHostileFlood(t *testing.T) {
	srv, goesOn := hostileService(t)
	for name, flood := range map[string]struct{ frames, size int }{"large": {60, 500_000}, "tiny": {300_000, 1}} {
		t.Run(name, func(t *testing.T) {
			p := newPeer(t, srv.Connect())
			p.open("Gather", 0)
			before := heap()
			for i := range uint64(flood.frames) {
				p.frame(wire.KindData, i, make([]byte, flood.size)...)
			}
			if code := p.end(); code != rpc.CodeInternal {
				t.Errorf("the stream ends with %v", code)
			}
			goesOn(t)
			if grown := heap() - before; grown > 16*flow.Window {
				t.Errorf("%d bytes are kept", grown)
			}
		})
	}
}

// TestHostileHeaders: NATS headers of a frame are no metadata, whatever their size.
func TestHostileHeaders(t *testing.T) {
	srv, goesOn := hostileService(t)
	p := newPeer(t, srv.Connect())
	p.open("Chat", 1<<20)
	h := nats.Header{"X": {strings.Repeat("x", 900<<10)}, "Nats-Service-Error-Code": {"5"}}
	must(t, p.nc.PublishMsg(&nats.Msg{Subject: p.frames, Header: h, Data: append(wire.AppendFrame(nil, wire.KindData, 0), message(t, "a")...)}))
	must(t, p.nc.PublishMsg(&nats.Msg{Subject: p.frames, Header: h, Data: wire.AppendFrame(nil, wire.KindEnd, 1)}))
	if code := p.end(); code != rpc.CodeOK {
		t.Errorf("the stream ends with %v", code)
	}
	goesOn(t)
}

// TestUnknownStreams: frames of streams that nobody has are ignored, and who asks is told.
func TestUnknownStreams(t *testing.T) {
	srv, goesOn := hostileService(t)
	p := newPeer(t, srv.Connect())
	p.open("Chat", 0)
	known := p.frames
	instance := known[:strings.LastIndexByte(known, '.')+1]
	all, err := p.nc.SubscribeSync(testRoot + "._i.>")
	must(t, err)
	sent := 0
	for _, token := range []string{wire.NewID().String(), "x", strings.Repeat("0", 31), strings.Repeat("z", 32), "a.b.c"} {
		p.frames = instance + token
		p.frame(wire.KindData, 0, 1)
		p.frame(wire.KindEnd, 0)
		p.publish(p.frames, wire.AppendHeartbeat(nil, 0, 0))
		if code := p.end(); code != rpc.CodeUnavailable {
			t.Errorf("the answer about %q is %v", token, code)
		}
		// An answer that is sent to the instance itself is not answered again.
		must(t, p.nc.PublishRequest(p.frames, instance+wire.NewID().String(), wire.AppendHeartbeat(nil, 0, 0)))
		sent += 4 + 1
	}
	p.frames = known
	p.publish(known, wire.AppendHeartbeat(nil, 0, 0))
	p.frame(wire.KindEnd, 0)
	if code := p.end(); code != rpc.CodeOK {
		t.Errorf("the known stream ends with %v", code)
	}
	goesOn(t)
	if n, _, err := all.Pending(); err != nil || n != sent+2 {
		t.Errorf("%d messages on the subjects of the instance, want %d (%v)", n, sent+2, err)
	}
}

func TestHostileOpens(t *testing.T) {
	srv, goesOn := hostileService(t)
	nc := srv.Connect()
	id := wire.NewID()
	request := wire.AppendRequest(nil, id, 0, 0)
	open := wire.AppendOpen(nil, id, 0, 0, wire.Open{})
	edit := func(i int, b byte) []byte { c := append([]byte(nil), open...); c[i] = b; return c }
	tests := []struct {
		name, subject string
		data          []byte
		want          rpc.Code
	}{
		{"truncated", testRoot + ".Chat", open[:10], rpc.CodeInvalidArgument},
		{"no credit", testRoot + ".Chat", open[:len(open)-1], rpc.CodeInvalidArgument},
		{"no timeout", testRoot + ".Chat", open[:len(open)-2], rpc.CodeInvalidArgument},
		{"absurd credit", testRoot + ".Chat", wire.AppendOpen(nil, id, 0, 0, wire.Open{Credit: math.MaxUint64}), rpc.CodeInvalidArgument},
		{"much data", testRoot + ".Chat", append(append([]byte(nil), open...), make([]byte, wire.MaxOpenData+1)...), rpc.CodeInvalidArgument},
		{"version", testRoot + ".Chat", edit(1, 9), rpc.CodeUnimplemented},
		{"flags", testRoot + ".Chat", edit(3, 0x80), rpc.CodeUnimplemented},
		{"codec", testRoot + ".Chat", edit(3, 3), rpc.CodeUnimplemented},
		{"frame", testRoot + ".Chat", append(wire.AppendFrame(nil, wire.KindData, 0), open...), rpc.CodeUnimplemented},
		{"request", testRoot + ".Watch", request, rpc.CodeUnimplemented},
		{"one-way", "notes.new", open, rpc.CodeUnimplemented},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := newPeer(t, nc)
			p.publish(test.subject, test.data)
			if code := p.refusal(); code != test.want {
				t.Errorf("refused with %v, want %v", code, test.want)
			}
		})
	}
	must(t, nc.Publish(testRoot+".Chat", open)) // nobody to answer to
	goesOn(t)
}

// TestOpenTwice: an id runs once, whichever methods it is sent to.
func TestOpenTwice(t *testing.T) {
	srv, goesOn := hostileService(t)
	p := newPeer(t, srv.Connect())
	p.open("Chat", 1<<20)
	for _, method := range []string{"Chat", "Gather", "Watch", "Blob"} {
		p.publish(testRoot+"."+method, wire.AppendOpen(nil, p.id, 0, 0, wire.Open{}))
		behind := newPeer(t, p.nc) // when this one is accepted, the one before has been looked at
		behind.open(method, 1<<20)
		behind.frame(wire.KindStreamCancel, 0)
	}
	goesOn(t)
	p.silent()
	p.frame(wire.KindData, 0, message(t, "a")...)
	p.frame(wire.KindEnd, 1)
	if code := p.end(); code != rpc.CodeOK {
		t.Errorf("the stream ends with %v", code)
	}
}

// recvAll reads a stream to its end.
func recvAll(recv func() (*text, error)) (n int, err error) {
	for {
		switch _, err := recv(); {
		case err == io.EOF:
			return n, nil
		case err != nil:
			return n, err
		}
		n++
	}
}

// TestUnknownStreamClaimsNothing: an instance that does not know a stream does not know either
// whether its handler ran.
func TestUnknownStreamClaimsNothing(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{})
	p := newPeer(t, nc)
	p.open("Chat", 1<<20)
	p.frame(wire.KindEnd, 0)
	p.end()
	p.id = wire.NewID()
	p.publish(p.frames[:strings.LastIndexByte(p.frames, '.')+1]+p.id.String(), wire.AppendFrame(nil, wire.KindCredit, 1<<20))
	for {
		m := p.next()
		if len(m.Data) == 0 { // behind the end of the stream
			continue
		}
		f, err := wire.ParseFrame(m.Data)
		must(t, err)
		if f.Kind != wire.KindEnd || statusCode(t, f.Body) != rpc.CodeUnavailable || f.Flags.Execution() != wire.MayHaveRun {
			t.Errorf("the answer is of kind %d, flags %x", f.Kind, f.Flags)
		}
		return
	}
}
