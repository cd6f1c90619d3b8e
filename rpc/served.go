package rpc

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// serverCall is one request on its way through a server.
//
//	          take            Run            answer           leave
//	received ------> queued ------> running --------> answered ------> left
//	   |                |              |
//	   |     refuse     |    refuse    |  refuse
//	   +------------> answered <-------+
//
// It is answered once: by the goroutine that runs it, by the subscription's goroutine if it is
// refused on arrival (then it ends there), or by a shutdown that no longer waits. A call that a
// shutdown has answered still runs until its handler returns. Each call is a new object: nothing of
// it is reused.
type serverCall struct {
	ctx  callContext
	call Call

	received
	stream *messageStream // nil if the request is in the body

	handling atomic.Int32 // callFresh, callHandled or callGivenUp
	running  atomic.Bool
	answered atomic.Bool
	counted  atomic.Bool // in the statistics, as a call that has ended
}

// It is decided once whether a call's handler is called: by the goroutine that is about to call it,
// or by the one that tells the caller that it did not run.
const (
	callFresh int32 = iota
	callHandled
	callGivenUp
)

// enter is called right before the handler. It returns an error if the caller has been told that
// the handler did not run.
func (c *serverCall) enter() error {
	if c.handling.CompareAndSwap(callFresh, callHandled) || c.handling.Load() == callHandled {
		return nil
	}
	return failf(CodeUnavailable, NotRun, "the call was given up")
}

// request decodes the request and then calls enter.
func (c *serverCall) request() (proto.Message, error) {
	req, err := c.call.Request()
	if err == nil {
		err = c.enter()
	}
	return req, err
}

// giveUp decides against the handler. It returns false if the handler has been called.
func (c *serverCall) giveUp() bool {
	return c.handling.CompareAndSwap(callFresh, callGivenUp) || c.handling.Load() == callGivenUp
}

// execution returns what the caller is told about the execution of the call that e ended. Without a
// queue group another instance may have run the call.
func (c *serverCall) execution(e *Error) wire.Execution {
	x := e.execution
	if x == MayHaveRun && c.handling.Load() == callHandled {
		x = DidRun
	}
	return x.onWire(e.refused, c.endpoint.queueGroup != "")
}

// receive takes a request that came at a time of the server's clock. If it returns an error, the
// request is to be refused with that.
func (c *serverCall) receive(m *nats.Msg, at time.Duration) *Error {
	c.call.header = Header(m.Header)
	timeout, open, err := c.parse(m)
	if timeout == 0 {
		timeout = c.endpoint.timeout
	}
	if timeout == 0 && c.plain { // a plain caller that has gone might never be noticed
		timeout = c.endpoint.service.server.options.timeout
	}
	switch {
	case err != nil:
	case c.plain && c.endpoint.method.kind == KindServerStream:
		timeout, err = c.boundPlainStream(timeout)
	case open.Kind == wire.KindOpen:
		err = c.receiveOpen(&open)
	}
	if timeout > 0 {
		c.ctx.deadline = at + min(timeout, math.MaxInt64-at)
	}
	return err
}

// receiveOpen makes the server's side of a stream.
func (c *serverCall) receiveOpen(e *wire.Envelope) *Error {
	open, err := wire.ParseOpen(e)
	if err == nil && c.reply == "" {
		err = errors.New("the open has no reply subject")
	}
	if err != nil {
		return failf(CodeInvalidArgument, NotRun, "%v", err)
	}
	c.stream = c.newStream(open)
	return nil
}

// decode decodes the request.
func (c *serverCall) decode() (proto.Message, error) {
	if c.stream != nil {
		req := c.endpoint.method.newRequest()
		if err := c.stream.recvOnly(req); err != nil {
			return nil, err
		}
		return req, nil
	}
	return c.received.decode()
}

// Run serves the call on the current goroutine. Whatever the user's code does, the call is answered
// and leaves the table: handlers, interceptors and hooks can only panic or call runtime.Goexit
// before returned is set.
func (c *serverCall) Run() {
	c.running.Store(true)
	clock := c.ctx.clock()
	started := clock.now()
	returned := false
	defer c.leave()
	defer func() {
		if !returned {
			c.answerPanic(recover(), started)
		}
	}()
	if c.ctx.expired(started) {
		c.ctx.expire()
	}
	err := c.serve()
	c.call.ended(asNil(err))
	returned = true
	c.answer(err, clock.now()-started)
}

// leave ends everything that belongs to a call that has been answered.
func (c *serverCall) leave() {
	if kept := c.ctx.finish(c.mayBeKept()); !kept {
		c.body, c.call.request, c.call.response = nil, nil, nil // a kept context keeps c
	}
	if c.stream != nil { // it has ended already, unless a forced shutdown met the accept
		c.stream.server.EndNow(failf(CodeUnavailable, MayHaveRun, "the server was stopped before the call had ended"))
	}
	c.endpoint.service.calls.Remove(c.id)
}

// mayBeKept reports whether interceptors, or a handler with its stream, have got hold of the call.
func (c *serverCall) mayBeKept() bool {
	return c.endpoint.method.kind > KindOneWay || c.stream != nil || c.endpoint.service.server.intercepts()
}

// serve runs the interceptors and the handler.
func (c *serverCall) serve() *Error {
	if c.ctx.Ended() != nil {
		return contextError(&c.ctx, NotRun)
	}
	if c.stream != nil {
		if err := c.accept(c.reply); err != nil {
			return err
		}
	}
	err := c.endpoint.service.server.next(&c.ctx, &c.call)
	if err == nil && c.call.method.hasResponse() {
		err = c.call.method.checkResponse(c.call.response)
	}
	return c.verdict(err)
}

// verdict returns the error to send to the caller, or nil.
func (c *serverCall) verdict(err error) *Error {
	if err == nil {
		return nil
	}
	e := handlerError(err)
	if c.giveUp() {
		e.execution = NotRun
	}
	return e
}

// handle is the Next of a server's innermost interceptor. ctx, which an interceptor may have
// derived from the call's, bounds the stream too.
func handle(ctx context.Context, call *Call) error {
	c := call.served
	if call.method.kind > KindOneWay && c.handling.Load() != callFresh {
		return failf(CodeInternal, DidRun, "an interceptor called next twice: %s streams, and its stream has been used", call.Method())
	}
	if c.stream != nil && ctx != context.Context(&c.ctx) {
		before := c.stream.WaitUnder(ctx)
		defer c.stream.WaitUnder(before) // for the answer
	}
	return c.endpoint.invoke(ctx, call)
}

// answerPanic answers a call whose handler did not return. recovered is nil after runtime.Goexit,
// which cannot be stopped.
func (c *serverCall) answerPanic(recovered any, started time.Duration) {
	what := "the handler ended its goroutine"
	if recovered != nil {
		what = "the handler panicked"
	}
	switch unlogged, ok := c.endpoint.panicked.Next(); {
	case !ok:
	case recovered != nil:
		c.endpoint.log().Error("natscall: "+what, "panic", fmt.Sprint(recovered), "stack", string(debug.Stack()), "unlogged", unlogged)
	default:
		c.endpoint.log().Error("natscall: "+what+" (runtime.Goexit)", "unlogged", unlogged)
	}
	err := c.verdict(failf(CodeInternal, DidRun, "%s", what))
	// Deferred, since a hook may end the goroutine too.
	defer func() { c.answer(err, c.ctx.clock().now()-started) }()
	c.call.ended(err)
}
