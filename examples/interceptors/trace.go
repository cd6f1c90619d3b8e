// Package interceptors has interceptors that a team would write: they trace calls, sign and verify
// requests, keep responses, and break the circuit to a service in trouble. They use what package
// rpc exports.
package interceptors

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"github.com/natscall/natscall/rpc"
)

// Span is what Trace has seen of a call on one side. Its lines begin with "send", "sent",
// "received", "attempt" and "end", in the order in which that happened.
type Span struct {
	Method string
	Server bool
	Parent string // the id that came with the request, on a server

	mu    sync.Mutex
	lines []string
}

func (s *Span) add(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines = append(s.lines, fmt.Sprintf(format, args...))
}

// String returns the lines of the span.
func (s *Span) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines, "\n")
}

// traceHeader carries the id of the client's span to the server.
const traceHeader = rpc.ExtensionPrefix + "Trace"

// Trace returns an interceptor for clients and servers that traces calls of every shape. ended gets
// each span when its call is over on that side.
func Trace(ended func(*Span)) rpc.Interceptor {
	return func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		span := &Span{Method: call.Method(), Server: call.OnServer(), Parent: call.Header().Get(traceHeader)}
		call.OnAttempt(func(a *rpc.Attempt) error {
			span.add("attempt %d", a.Number())
			return a.SetHeader(traceHeader, a.ID())
		})
		call.OnSend(func(m *rpc.Message) error {
			span.add("send %d", m.Number())
			return nil
		})
		call.OnSent(func(m *rpc.Message, err error) {
			span.add("sent %d: %d bytes, %d on the wire, %v", m.Number(), m.Size(), m.WireSize(), rpc.CodeOf(err))
		})
		call.OnReceive(func(m *rpc.Message) error {
			span.add("received %d: %d bytes, %d on the wire", m.Number(), m.Size(), m.WireSize())
			return nil
		})
		call.OnEnd(func(err error) {
			span.add("end: %v", rpc.CodeOf(err))
			ended(span)
		})
		return next(ctx, call)
	}
}
