// Package rpcvalidate checks the messages of calls against the rules that their .proto files have,
// with [protovalidate]:
//
//	message BookRequest {
//	  string room = 1 [(buf.validate.field).string.min_len = 1];
//	  uint32 nights = 2 [(buf.validate.field).uint32 = {gte: 1, lte: 30}];
//	}
//
// A server with [Validation.Server] refuses a request that breaks rules before its handler runs:
//
//	validation, err := rpcvalidate.New()
//	srv := rpc.NewServer(nc, validation.Server())
//
// The caller finds an *rpc.Error with CodeInvalidArgument that names the fields, and whose detail
// of type *validate.Violations has the rules that were broken. Register fails if rules do not
// compile. A client with [Validation.Client] checks its requests before it sends them. Responses
// are checked with [WithResponses].
//
// The package is a module of its own, since protovalidate needs cel-go.
//
// [protovalidate]: https://protovalidate.com
package rpcvalidate

import (
	"context"
	"sync/atomic"

	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/rpc"
)

// Validation checks the messages of any number of servers and clients. New makes it. It is
// immutable, and its methods may be called concurrently.
type Validation struct{ *options }

// New returns a Validation. The error is that of an option.
func New(opts ...Option) (*Validation, error) {
	o, err := newOptions(opts)
	if err != nil {
		return nil, err
	}
	return &Validation{o}, nil
}

// Server returns the option of a server, or of the registration of a service, that checks requests:
// a single request before its handler runs, each message of a stream when the handler receives it.
// The checks come after all interceptors, next to the handler.
//
// A request that breaks rules ends the call with CodeInvalidArgument. Its message names the first
// fields that are wrong, and its detail is a *validate.Violations. The handler of a single request
// has not run then; that of a stream gets the error from Recv, and the stream is over.
//
// If rules do not compile, Register fails with an error that names the message and the field. It
// also fails for a method whose types are not known ([rpc.NewRawMethod]), unless [WithFilter]
// leaves it out. Rules that fail to evaluate a message, as by a division by zero, are not the
// caller's fault: the call ends with CodeInternal, and the reason is logged.
func (v *Validation) Server() rpc.ServerServiceOption {
	return rpc.WithMethodInterceptors(v.serve)
}

// Client returns the option of a client or a call that checks requests before they are sent. One
// that breaks rules fails with CodeInvalidArgument and has not run: nothing is sent. For a message
// of a stream that is the error of Send; the message is not sent, and the stream goes on. The error
// of rules that do not compile or fail to evaluate has CodeInternal.
//
// The server has the last word: it may have newer rules. Give the option after those whose
// interceptors change requests.
func (v *Validation) Client() rpc.ClientCallOption {
	return rpc.WithInterceptors(v.call)
}

// call is the interceptor of clients.
func (v *Validation) call(ctx context.Context, call *rpc.Call, next rpc.Next) error {
	if !v.checks(call.Method()) {
		return next(ctx, call)
	}
	if v.responses && call.Kind() != rpc.KindOneWay {
		call.OnReceive(func(m *rpc.Message) error { return ofMessage(m, rpc.CodeInternal, v.receivedResponse) })
	}
	if streamsRequests(call.Kind()) {
		call.OnSend(func(m *rpc.Message) error { return ofMessage(m, rpc.CodeInvalidArgument, v.sentRequest) })
	} else if err := ofRequest(call, v.sentRequest); err != nil {
		return err
	}
	return next(ctx, call)
}

// serve makes the interceptor of a server's method.
func (v *Validation) serve(m *rpc.Method) (rpc.Interceptor, error) {
	if !v.checks(m.FullName()) {
		return nil, nil
	}
	if err := v.compile(m); err != nil {
		return nil, err
	}
	s := &served{Validation: v, method: m, responses: v.responses && m.Kind() != rpc.KindOneWay}
	return s.intercept, nil
}

// served is a method of a server.
type served struct {
	*Validation
	method    *rpc.Method
	responses bool // are checked
	log       limit
}

// intercept is the interceptor.
func (s *served) intercept(ctx context.Context, call *rpc.Call, next rpc.Next) error {
	if streamsRequests(call.Kind()) {
		call.OnReceive(func(m *rpc.Message) error { return ofMessage(m, rpc.CodeInvalidArgument, s.request) })
	} else if err := ofRequest(call, s.request); err != nil {
		return err
	}
	if !s.responses {
		return next(ctx, call)
	}
	var refused atomic.Pointer[error]
	call.OnSend(func(m *rpc.Message) error {
		err := ofMessage(m, rpc.CodeInternal, s.response)
		if err != nil {
			refused.CompareAndSwap(nil, &err)
		}
		return err
	})
	err := next(ctx, call)
	if first := refused.Load(); err == nil && first != nil { // a stream that lacks a message
		return *first
	}
	return err
}

// streamsRequests reports whether clients of methods of a kind stream.
func streamsRequests(kind rpc.Kind) bool {
	return kind == rpc.KindClientStream || kind == rpc.KindBidi
}

// ofRequest checks the single request of a call.
func ofRequest(call *rpc.Call, check func(proto.Message) error) error {
	m, err := call.Request()
	if err != nil {
		return undecoded(err, rpc.CodeInvalidArgument)
	}
	return check(m)
}

// ofMessage checks a message on its way. code is that of one that does not decode.
func ofMessage(m *rpc.Message, code rpc.Code, check func(proto.Message) error) error {
	value, err := m.Proto()
	if err != nil {
		return undecoded(err, code)
	}
	return check(value)
}

// undecoded returns the error of a message that does not decode.
func undecoded(err error, code rpc.Code) error {
	if isOwn(err) {
		return err
	}
	return rpc.Errorf(code, "the message does not decode: %w", err)
}
