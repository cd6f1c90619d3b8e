package rpctest

import (
	"context"
	"io"
	"maps"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/messages"
)

// NewContext returns a context for the unit test of a handler: rpc.CallFromContext finds a call in
// it whose request has a header. The test finds in the call what the handler has set.
func NewContext(ctx context.Context, header rpc.Header) (context.Context, *rpc.Call) {
	return rpc.CallOf(ctx, messages.Call{Service: "rpctest.Service", Method: "Method", Header: header})
}

// NewSender returns a stream for the unit test of a server-streaming handler, without NATS, and a
// function that returns what has been sent so far. Send copies the message and never waits.
func NewSender[M proto.Message]() (stream *rpc.Sender[M], sent func() []M) {
	r := new(record)
	return rpc.SenderOf[M](r), func() []M {
		r.mu.Lock()
		defer r.mu.Unlock()
		out := make([]M, len(r.sent))
		for i, m := range r.sent {
			out[i] = m.(M)
		}
		return out
	}
}

// NewReceiver returns a stream for the unit test of a client-streaming handler, without NATS. Recv
// returns copies of the messages and then io.EOF.
func NewReceiver[M proto.Message](sent ...M) *rpc.Receiver[M] {
	return NewBrokenReceiver(io.EOF, sent...)
}

// NewBrokenReceiver is like NewReceiver with another error at the end, such as that of a caller
// that has gone.
func NewBrokenReceiver[M proto.Message](end error, sent ...M) *rpc.Receiver[M] {
	r := &record{end: end}
	for _, m := range sent {
		r.next = append(r.next, m)
	}
	return rpc.ReceiverOf[M](r)
}

// record is a handler's side of a stream whose peer is a list of messages.
type record struct {
	end error

	mu   sync.Mutex
	sent []proto.Message
	next []proto.Message
}

func (r *record) SendMessage(m any) error {
	if err := checkSent(m, rpc.CodeInternal); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sent = append(r.sent, proto.Clone(m.(proto.Message)))
	return nil
}

func (r *record) RecvMessage(m any) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.next) == 0 {
		return r.end
	}
	proto.Merge(m.(proto.Message), r.next[0])
	r.next = r.next[1:]
	return nil
}

func (r *record) RecvOnlyMessage(m any) error { return r.RecvMessage(m) }
func (r *record) CloseSend()                  {}
func (r *record) Close()                      {}
func (r *record) Header(context.Context) (map[string][]string, error) {
	return map[string][]string{}, nil
}
func (r *record) Trailer() map[string][]string { return nil }
func (r *record) Instance() string             { return "" }

// checkSent refuses nil as the real Send does.
func checkSent(m any, code rpc.Code) error {
	if p, ok := m.(proto.Message); !ok || !p.ProtoReflect().IsValid() {
		return rpc.Errorf(code, "Send(nil): there is nothing to send")
	}
	return nil
}

// ServerStream calls a server-streaming handler in memory, without NATS, and returns the client's
// side of the stream, which a fake of a generated client may return too. The handler's context, in
// which rpc.CallFromContext finds a call (that of NewContext, if ctx has one), ends with ctx, with
// Close and with the test, which waits for the handler.
//
// Messages are copied on their way. Up to 1,024 of them wait in each direction until they are
// received; then Send waits. An error of the handler reaches the client as it would over NATS: with
// its code, message and details, and without what it wraps. Call.SendHeader sends the header.
func ServerStream[Req, Res proto.Message](ctx context.Context, t testing.TB, req Req, handler func(context.Context, Req, *rpc.Sender[Res]) error) *rpc.Receiver[Res] {
	return rpc.ReceiverOf[Res](newPipe(ctx, t, func(ctx context.Context, s *handlerSide) error {
		return handler(ctx, proto.CloneOf(req), rpc.SenderOf[Res](s))
	}))
}

// ClientStream is like ServerStream for a client-streaming handler.
func ClientStream[Req, Res proto.Message](ctx context.Context, t testing.TB, handler func(context.Context, *rpc.Receiver[Req]) (Res, error)) *rpc.ClientStream[Req, Res] {
	return rpc.ClientStreamOf[Req, Res](newPipe(ctx, t, func(ctx context.Context, s *handlerSide) error {
		res, err := handler(ctx, rpc.ReceiverOf[Req](s))
		if err != nil {
			return err
		}
		return s.SendMessage(res)
	}))
}

// Bidi is like ServerStream for a bidirectional handler.
func Bidi[Req, Res proto.Message](ctx context.Context, t testing.TB, handler func(context.Context, *rpc.BidiStream[Res, Req]) error) *rpc.BidiStream[Req, Res] {
	return rpc.BidiStreamOf[Req, Res](newPipe(ctx, t, func(ctx context.Context, s *handlerSide) error {
		return handler(ctx, rpc.BidiStreamOf[Res, Req](s))
	}))
}

// pipeRoom is how many messages wait in each direction of a pipe.
const pipeRoom = 1024

// pipe is a stream in memory: the client's side of it. The handler's side is handlerSide.
type pipe struct {
	caller    context.Context
	requests  chan proto.Message
	responses chan proto.Message
	cancel    context.CancelFunc
	call      *rpc.Call
	ended     chan struct{} // closed when the handler has returned

	begin  sync.Once
	begun  chan struct{}       // closed when the response header is final
	header map[string][]string // of the response, once begun is closed

	closeSend sync.Once
	half      chan struct{} // closed by CloseSend

	closed sync.Once
	gone   chan struct{} // closed by Close

	// Once the handler has ended.
	err     error
	trailer map[string][]string
}

func newPipe(ctx context.Context, t testing.TB, handler func(context.Context, *handlerSide) error) *pipe {
	p := &pipe{
		caller: ctx, requests: make(chan proto.Message, pipeRoom), responses: make(chan proto.Message, pipeRoom),
		begun: make(chan struct{}), ended: make(chan struct{}), half: make(chan struct{}), gone: make(chan struct{}),
	}
	if p.call = rpc.CallFromContext(ctx); p.call == nil {
		ctx, p.call = NewContext(ctx, nil)
	}
	rpc.OnSendHeader(p.call, p.sendHeader)
	ctx, p.cancel = context.WithCancel(ctx)
	t.Cleanup(func() {
		p.cancel()
		<-p.ended
	})
	go p.run(ctx, handler) // ends with the handler, for which the test waits
	return p
}

func (p *pipe) run(ctx context.Context, handler func(context.Context, *handlerSide) error) {
	side := &handlerSide{pipe: p, ctx: ctx}
	p.err = rpc.Errorf(rpc.CodeInternal, "the handler ended its goroutine")
	defer close(p.ended)
	defer p.cancel()
	defer func() { // also if a test's Fatal has ended the goroutine
		_ = p.sendHeader()
		p.trailer = maps.Clone(p.call.ResponseTrailer())
	}()
	if err := handler(ctx, side); err != nil {
		p.err = rpc.RemoteError(err)
	} else {
		p.err = nil
	}
}

// sendHeader makes the response header final.
func (p *pipe) sendHeader() error {
	err := rpc.Errorf(rpc.CodeFailedPrecondition, "it is too late to send the response header")
	p.begin.Do(func() {
		p.header, err = maps.Clone(p.call.ResponseHeader()), nil
		close(p.begun)
	})
	return err
}

// contextError returns the error of a side whose context has ended.
func contextError(ctx context.Context) error {
	return rpc.NewError(rpc.CodeOf(ctx.Err()), context.Cause(ctx).Error())
}

// over returns why the client can neither send nor receive any more, or nil.
func (p *pipe) over() error {
	select {
	case <-p.gone:
		return rpc.Errorf(rpc.CodeCanceled, "the stream was closed")
	default:
	}
	if p.caller.Err() != nil {
		return contextError(p.caller)
	}
	return nil
}

func (p *pipe) SendMessage(m any) error {
	if err := checkSent(m, rpc.CodeInvalidArgument); err != nil {
		return err
	}
	select {
	case <-p.half:
		return rpc.Errorf(rpc.CodeFailedPrecondition, "Send after the end of the sending half")
	default:
	}
	if err := p.over(); err != nil {
		return err
	}
	select {
	case <-p.ended: // even if there is room
		return io.EOF
	default:
	}
	select {
	case <-p.ended:
		return io.EOF
	case <-p.caller.Done():
		return contextError(p.caller)
	case p.requests <- proto.Clone(m.(proto.Message)):
		return nil
	}
}

func (p *pipe) RecvMessage(m any) error {
	if err := p.over(); err != nil {
		return err
	}
	select {
	case res := <-p.responses:
		return take(m, res)
	case <-p.caller.Done():
		return contextError(p.caller)
	case <-p.gone:
		return p.over()
	case <-p.ended:
	}
	select {
	case res := <-p.responses: // sent before the end
		return take(m, res)
	default:
	}
	if p.err != nil {
		return p.err
	}
	return io.EOF
}

func take(dst any, m proto.Message) error {
	proto.Merge(dst.(proto.Message), m)
	return nil
}

func (p *pipe) RecvOnlyMessage(m any) error {
	err := p.RecvMessage(m)
	if err == io.EOF {
		return rpc.Errorf(rpc.CodeInternal, "the stream ended without a message")
	}
	return err
}

func (p *pipe) CloseSend() { p.closeSend.Do(func() { close(p.half) }) }

func (p *pipe) Close() {
	select {
	case <-p.ended:
		return // a stream that has ended stays as it ended
	default:
	}
	p.closed.Do(func() { close(p.gone) })
	p.cancel()
}

func (p *pipe) Header(ctx context.Context) (map[string][]string, error) {
	select {
	case <-p.begun:
	case <-p.caller.Done():
	case <-p.gone:
	case <-ctx.Done():
	}
	select {
	case <-p.begun: // whatever has come meanwhile
		return p.header, nil
	default:
	}
	if err := p.over(); err != nil {
		return nil, err
	}
	return nil, contextError(ctx)
}

func (p *pipe) Trailer() map[string][]string {
	select {
	case <-p.ended:
		return p.trailer
	default:
		return nil
	}
}

func (p *pipe) Instance() string { return "rpctest" }

// handlerSide is the handler's side of a pipe.
type handlerSide struct {
	*pipe
	ctx context.Context
}

func (s *handlerSide) SendMessage(m any) error {
	if err := checkSent(m, rpc.CodeInternal); err != nil {
		return err
	}
	_ = s.sendHeader() // unless that has been done before
	if s.ctx.Err() != nil {
		return contextError(s.ctx)
	}
	select {
	case s.responses <- proto.Clone(m.(proto.Message)):
		return nil
	case <-s.ctx.Done():
		return contextError(s.ctx)
	}
}

func (s *handlerSide) RecvMessage(m any) error {
	if s.ctx.Err() != nil {
		return contextError(s.ctx)
	}
	select {
	case req := <-s.requests:
		return take(m, req)
	case <-s.ctx.Done():
		return contextError(s.ctx)
	case <-s.half:
	}
	select {
	case req := <-s.requests: // sent before the half-close
		return take(m, req)
	default:
		return io.EOF
	}
}

func (s *handlerSide) RecvOnlyMessage(m any) error { return s.RecvMessage(m) }

// The handler ends its half, and the stream, by returning.
func (s *handlerSide) CloseSend() {}
func (s *handlerSide) Close()     {}

func (s *handlerSide) Header(context.Context) (map[string][]string, error) {
	return s.call.Header(), nil
}
func (s *handlerSide) Trailer() map[string][]string { return nil }
func (s *handlerSide) Instance() string             { return "" }
