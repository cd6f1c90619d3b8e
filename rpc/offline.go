package rpc

import (
	"context"

	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/rpc/internal/messages"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// The functions of this file are for package rpctest, which makes streams without NATS. Nobody else
// has a messages.Stream.

// SenderOf returns a typed view of a stream, for package rpctest.
func SenderOf[M proto.Message](s messages.Stream) *Sender[M] { return &Sender[M]{s} }

// ReceiverOf returns a typed view of a stream, for package rpctest.
func ReceiverOf[M proto.Message](s messages.Stream) *Receiver[M] {
	return newReceiver[M](s, newMessageOf[M])
}

// BidiStreamOf returns a typed view of a stream, for package rpctest.
func BidiStreamOf[S, R proto.Message](s messages.Stream) *BidiStream[S, R] {
	return &BidiStream[S, R]{view{s}, newMessageOf[R]}
}

// ClientStreamOf returns a typed view of a stream, for package rpctest.
func ClientStreamOf[S, R proto.Message](s messages.Stream) *ClientStream[S, R] {
	return &ClientStream[S, R]{view{s}, newMessageOf[R]}
}

// CallOf returns a context in which CallFromContext finds a call, for package rpctest.
func CallOf(ctx context.Context, c messages.Call) (context.Context, *Call) {
	desc := &ServiceDesc{Name: c.Service}
	m := untypedMethod(desc, MethodDesc{Name: c.Method}, KindUnary)
	call := &Call{method: &m, header: c.Header}
	return context.WithValue(ctx, callKey{}, call), call
}

// OnSendHeader makes f run for SendHeader of a call of CallOf, for package rpctest.
func OnSendHeader(c *Call, f func() error) { c.hooked().sendHeader = f }

// RemoteError returns the error of a handler as its caller gets it, for package rpctest.
func RemoteError(err error) error {
	body, failed := appendProto(nil, handlerError(err).status())
	if failed != nil { // of details that no caller can decode
		return err
	}
	return parseStatus(body, wire.DidRun)
}

func newMessageOf[M proto.Message]() proto.Message {
	var m M
	return m.ProtoReflect().New().Interface()
}
