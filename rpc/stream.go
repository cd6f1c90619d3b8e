package rpc

import (
	"context"
	"io"
	"iter"

	"google.golang.org/protobuf/proto"
)

// Streams have their signatures, so that services can be written against them;
// until the protocol has streams every call of one ends with CodeUnimplemented.

// ServerStreamMethod is a method with one request and a stream of responses. It is immutable.
type ServerStreamMethod[Req, Res proto.Message] struct{ method }

// NewServerStream returns a server-streaming method, for generated code.
func NewServerStream[Req, Res any, PReq message[Req], PRes message[Res]](s *ServiceDesc, d MethodDesc) *ServerStreamMethod[PReq, PRes] {
	return &ServerStreamMethod[PReq, PRes]{newMethod[Req, Res, PReq, PRes](s, d, KindServerStream)}
}

// Call opens the stream. It returns CodeUnimplemented.
func (m *ServerStreamMethod[Req, Res]) Call(context.Context, *Client, Req, ...CallOption) (*Receiver[Res], error) {
	return nil, m.noStreams()
}

// HandleServerStream joins a server-streaming method with the method of S that serves it.
func HandleServerStream[S any, Req, Res proto.Message](m *ServerStreamMethod[Req, Res], _ func(S, context.Context, Req, *Sender[Res]) error) Handler[S] {
	return unimplementedStream[S](&m.method)
}

// ClientStreamMethod is a method with a stream of requests and one response. It is immutable.
type ClientStreamMethod[Req, Res proto.Message] struct{ method }

// NewClientStream returns a client-streaming method, for generated code.
func NewClientStream[Req, Res any, PReq message[Req], PRes message[Res]](s *ServiceDesc, d MethodDesc) *ClientStreamMethod[PReq, PRes] {
	return &ClientStreamMethod[PReq, PRes]{newMethod[Req, Res, PReq, PRes](s, d, KindClientStream)}
}

// Call opens the stream. It returns CodeUnimplemented.
func (m *ClientStreamMethod[Req, Res]) Call(context.Context, *Client, ...CallOption) (*ClientStream[Req, Res], error) {
	return nil, m.noStreams()
}

// HandleClientStream joins a client-streaming method with the method of S that serves it.
func HandleClientStream[S any, Req, Res proto.Message](m *ClientStreamMethod[Req, Res], _ func(S, context.Context, *Receiver[Req]) (Res, error)) Handler[S] {
	return unimplementedStream[S](&m.method)
}

// BidiMethod is a method with a stream in both directions. It is immutable.
type BidiMethod[Req, Res proto.Message] struct{ method }

// NewBidi returns a bidirectional method, for generated code.
func NewBidi[Req, Res any, PReq message[Req], PRes message[Res]](s *ServiceDesc, d MethodDesc) *BidiMethod[PReq, PRes] {
	return &BidiMethod[PReq, PRes]{newMethod[Req, Res, PReq, PRes](s, d, KindBidi)}
}

// Call opens the stream. It returns CodeUnimplemented.
func (m *BidiMethod[Req, Res]) Call(context.Context, *Client, ...CallOption) (*BidiStream[Req, Res], error) {
	return nil, m.noStreams()
}

// HandleBidi joins a bidirectional method with the method of S that serves it.
func HandleBidi[S any, Req, Res proto.Message](m *BidiMethod[Req, Res], _ func(S, context.Context, *BidiStream[Res, Req]) error) Handler[S] {
	return unimplementedStream[S](&m.method)
}

func unimplementedStream[S any](m *method) Handler[S] {
	return Handler[S]{m, func(S, context.Context, proto.Message) (proto.Message, error) {
		return nil, m.noStreams()
	}}
}

func (m *method) noStreams() *Error {
	return failf(CodeUnimplemented, NotRun, "%s is a %v method; this version of natscall has no streams", m.FullName(), m.kind)
}

// Sender is the sending half of a stream of M.
type Sender[M proto.Message] struct{ half }

// Send sends a message. It returns CodeUnimplemented.
func (s *Sender[M]) Send(M) error { return s.err() }

// Receiver is the receiving half of a stream of M.
type Receiver[M proto.Message] struct{ half }

// Recv receives a message, or io.EOF at the clean end. It returns CodeUnimplemented.
func (r *Receiver[M]) Recv() (m M, err error) { return m, r.err() }

// All iterates over the messages that are left. An error is the last element; a clean end is none.
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

// Close ends the stream early. Closing an ended stream does nothing.
func (r *Receiver[M]) Close() error { return nil }

// BidiStream sends S and receives R.
type BidiStream[S, R proto.Message] struct{ half }

// Send sends a message. It returns CodeUnimplemented.
func (b *BidiStream[S, R]) Send(S) error { return b.err() }

// CloseSend ends the sending half. Closing it again does nothing.
func (b *BidiStream[S, R]) CloseSend() error { return nil }

// Recv receives a message, or io.EOF at the clean end. It returns CodeUnimplemented.
func (b *BidiStream[S, R]) Recv() (m R, err error) { return m, b.err() }

// ClientStream sends S and then receives one R.
type ClientStream[S, R proto.Message] struct{ half }

// Send sends a message. It returns CodeUnimplemented.
func (c *ClientStream[S, R]) Send(S) error { return c.err() }

// CloseAndRecv ends the stream and waits for the response. It returns CodeUnimplemented.
func (c *ClientStream[S, R]) CloseAndRecv() (res R, err error) { return res, c.err() }

// half is what all streams share.
type half struct{}

func (half) err() error {
	return failf(CodeUnimplemented, NotRun, "this version of natscall has no streams")
}
