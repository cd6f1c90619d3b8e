package rpc

import (
	"context"
	"io"
	"iter"

	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/rpc/internal/messages"
)

// ServerStreamMethod is a method with one request and a stream of responses. It is immutable.
type ServerStreamMethod[Req, Res proto.Message] struct{ method }

// NewServerStreamMethod returns a server-streaming method, for generated code.
func NewServerStreamMethod[Req, Res any, PReq message[Req], PRes message[Res]](s *ServiceDesc, d MethodDesc) *ServerStreamMethod[PReq, PRes] {
	return &ServerStreamMethod[PReq, PRes]{newMethod[Req, Res, PReq, PRes](s, d, KindServerStream)}
}

// Call sends the request and returns when a server has accepted it. The stream ends with ctx:
// cancel ctx, or close the Receiver, to stop early. The error is an *Error.
func (m *ServerStreamMethod[Req, Res]) Call(ctx context.Context, c *Client, req Req, opts ...CallOption) (*Receiver[Res], error) {
	s, err := c.invokeStream(ctx, &m.method, req, opts)
	if err != nil {
		return nil, err
	}
	return newReceiver[Res](s, m.newResponse), nil
}

// HandleServerStream joins a server-streaming method with the method of S that serves it.
func HandleServerStream[S any, Req, Res proto.Message](m *ServerStreamMethod[Req, Res], f func(S, context.Context, Req, *Sender[Res]) error) Handler[S] {
	return Handler[S]{&m.method, func(impl S, ctx context.Context, call *Call) error {
		req, err := call.served.request()
		if err != nil {
			return err
		}
		return f(impl, ctx, req.(Req), &Sender[Res]{call.served.sender(ctx)})
	}}
}

// ClientStreamMethod is a method with a stream of requests and one response. It is immutable.
type ClientStreamMethod[Req, Res proto.Message] struct{ method }

// NewClientStreamMethod returns a client-streaming method, for generated code.
func NewClientStreamMethod[Req, Res any, PReq message[Req], PRes message[Res]](s *ServiceDesc, d MethodDesc) *ClientStreamMethod[PReq, PRes] {
	return &ClientStreamMethod[PReq, PRes]{newMethod[Req, Res, PReq, PRes](s, d, KindClientStream)}
}

// Call opens the stream and returns when a server has accepted it. The stream ends with ctx. The
// error is an *Error.
func (m *ClientStreamMethod[Req, Res]) Call(ctx context.Context, c *Client, opts ...CallOption) (*ClientStream[Req, Res], error) {
	s, err := c.invokeStream(ctx, &m.method, nil, opts)
	if err != nil {
		return nil, err
	}
	return &ClientStream[Req, Res]{view{s}, m.newResponse}, nil
}

// HandleClientStream joins a client-streaming method with the method of S that serves it.
func HandleClientStream[S any, Req, Res proto.Message](m *ClientStreamMethod[Req, Res], f func(S, context.Context, *Receiver[Req]) (Res, error)) Handler[S] {
	return Handler[S]{&m.method, func(impl S, ctx context.Context, call *Call) (err error) {
		if err := call.served.enter(); err != nil {
			return err
		}
		call.response, err = f(impl, ctx, newReceiver[Req](call.served.stream, m.newRequest))
		return err
	}}
}

// BidiMethod is a method with a stream in both directions. It is immutable.
type BidiMethod[Req, Res proto.Message] struct{ method }

// NewBidiMethod returns a bidirectional method, for generated code.
func NewBidiMethod[Req, Res any, PReq message[Req], PRes message[Res]](s *ServiceDesc, d MethodDesc) *BidiMethod[PReq, PRes] {
	return &BidiMethod[PReq, PRes]{newMethod[Req, Res, PReq, PRes](s, d, KindBidi)}
}

// Call opens the stream and returns when a server has accepted it. The stream ends with ctx. The
// error is an *Error.
func (m *BidiMethod[Req, Res]) Call(ctx context.Context, c *Client, opts ...CallOption) (*BidiStream[Req, Res], error) {
	s, err := c.invokeStream(ctx, &m.method, nil, opts)
	if err != nil {
		return nil, err
	}
	return &BidiStream[Req, Res]{view{s}, m.newResponse}, nil
}

// HandleBidi joins a bidirectional method with the method of S that serves it.
func HandleBidi[S any, Req, Res proto.Message](m *BidiMethod[Req, Res], f func(S, context.Context, *BidiStream[Res, Req]) error) Handler[S] {
	return Handler[S]{&m.method, func(impl S, ctx context.Context, call *Call) error {
		if err := call.served.enter(); err != nil {
			return err
		}
		return f(impl, ctx, &BidiStream[Res, Req]{view{call.served.stream}, m.newRequest})
	}}
}

// Sender is the sending half of a stream of M, with which a server-streaming handler sends
// responses. One goroutine at a time may send. It ends when the handler returns.
type Sender[M proto.Message] struct{ to messageSender }

// messageSender is a messageStream or a plainStream.
type messageSender interface{ SendMessage(m any) error }

// Send queues a message; the message may be reused when Send returns. Messages that are sent in
// quick succession share a frame. Send waits while the receiver is more than a window behind (1 to
// 4 MiB), until the handler's context ends. Like any publish of nats.go it also waits while the
// connection's socket takes nothing, even if the context has ended, for at most the connection's
// write deadline (nats.FlusherTimeout, a minute).
//
// The error is an *Error: CodeInvalidArgument (on a server CodeInternal) for nil, which is not
// sent; CodeCanceled after the caller has ended the stream; CodeDeadlineExceeded; CodeUnavailable
// if the peer or the connection is gone; CodeResourceExhausted for a message over the limit, which
// does not end the stream.
func (s *Sender[M]) Send(m M) error { return s.to.SendMessage(m) }

// Receiver is the receiving half of a stream of M: responses on a client,
// requests in a client-streaming handler. One goroutine at a time may receive.
type Receiver[M proto.Message] struct {
	view
	newMessage func() proto.Message
}

func newReceiver[M proto.Message](s messages.Stream, newMessage func() proto.Message) *Receiver[M] {
	return &Receiver[M]{view{s}, newMessage}
}

// Recv waits for the next message. At the clean end, after the last message, the error is io.EOF.
// Otherwise it is an *Error: either the server's status, after all messages that it sent before,
// or, at once, CodeDataLoss, CodeUnavailable, CodeCanceled or CodeDeadlineExceeded. After an error
// every Recv returns an error.
func (r *Receiver[M]) Recv() (M, error) { return recv[M](r.stream, r.newMessage) }

func recv[M proto.Message](s messages.Stream, newMessage func() proto.Message) (M, error) {
	m := newMessage()
	if err := s.RecvMessage(m); err != nil {
		var none M
		return none, err
	}
	return m.(M), nil
}

// All iterates over the remaining messages. An error is the last element; a clean end is not an
// element. Leaving the loop early leaves the stream open: Close it.
func (r *Receiver[M]) All() iter.Seq2[M, error] {
	return func(yield func(M, error) bool) {
		for {
			m, err := r.Recv()
			if err == io.EOF || !yield(m, err) || err != nil {
				return
			}
		}
	}
}

// Close ends the stream early: on a client the handler's context ends. On a
// server, and on a stream that has ended, it does nothing.
func (r *Receiver[M]) Close() { r.stream.Close() }

// BidiStream sends S and receives R. One goroutine may send while another receives.
type BidiStream[S, R proto.Message] struct {
	view
	newMessage func() proto.Message
}

// Send is like [Sender.Send]. On a client io.EOF means that the server has ended the stream; Recv
// returns how.
func (b *BidiStream[S, R]) Send(m S) error { return b.stream.SendMessage(m) }

// CloseSend ends the sending half: the peer's Recv returns io.EOF after the last message. The
// second time it does nothing, nor does it on a server, where the end of the handler ends the
// sending half.
func (b *BidiStream[S, R]) CloseSend() {
	b.stream.CloseSend()
}

// Recv is like [Receiver.Recv].
func (b *BidiStream[S, R]) Recv() (R, error) { return recv[R](b.stream, b.newMessage) }

// All is like [Receiver.All].
func (b *BidiStream[S, R]) All() iter.Seq2[R, error] {
	return (&Receiver[R]{b.view, b.newMessage}).All()
}

// Close ends the stream early, like [Receiver.Close].
func (b *BidiStream[S, R]) Close() { b.stream.Close() }

// ClientStream sends S and then receives one R, on a client.
type ClientStream[S, R proto.Message] struct {
	view
	newMessage func() proto.Message
}

// Send is like [Sender.Send]. io.EOF means that the server has ended the stream; CloseAndRecv
// returns how.
func (c *ClientStream[S, R]) Send(m S) error { return c.stream.SendMessage(m) }

// CloseAndRecv ends the sending half and waits for the response. The error is an *Error.
func (c *ClientStream[S, R]) CloseAndRecv() (R, error) {
	c.stream.CloseSend()
	m := c.newMessage()
	if err := c.stream.RecvOnlyMessage(m); err != nil {
		var none R
		return none, err
	}
	return m.(R), nil
}

// Close ends the stream early, like [Receiver.Close].
func (c *ClientStream[S, R]) Close() { c.stream.Close() }

// view is what the views of a stream share.
type view struct{ stream messages.Stream }

// Header returns the header of the peer. On a client that is the response header: Header waits
// until the server has sent it, early with [Call.SendHeader], or with its first message or the end.
// The error is an *Error: ctx has ended (the stream goes on), or the stream has ended before a
// header came. Of a stream that ends with an error status and has no header the result is empty,
// and Recv has the error. On a server Header returns the request header at once. The result must
// not be changed.
func (v view) Header(ctx context.Context) (Header, error) { return v.stream.Header(ctx) }

// Instance returns the token of the instance that serves the stream. [WithInstance] takes it. On a
// server it is "".
func (v view) Instance() string { return v.stream.Instance() }

// Trailer returns the server's trailer, which is there after the end of the stream. On a server it
// is nil.
func (v view) Trailer() Header { return v.stream.Trailer() }
