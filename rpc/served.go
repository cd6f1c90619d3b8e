package rpc

import (
	"cmp"
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

	endpoint   *endpoint
	reply      string // subject, or "" if no answer is wanted
	id         wire.ID
	plain      bool
	codec      Codec
	compressed bool        // body is compressed
	accepts    Compression // of the caller
	batched    bool        // the request was an item of a batch
	tag        uint64      // of that item
	body       []byte
	whole      int     // size of the memory that body is part of
	stream     *stream // nil if the request is in body

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

// receive parses a request that came at a time of the server's clock. If it returns an error, the
// request is to be refused with that.
func (c *serverCall) receive(m *nats.Msg, at time.Duration) *Error {
	c.reply, c.body = m.Reply, m.Data
	c.whole = max(c.whole, m.Size())
	c.call.header = Header(m.Header)
	timeout, err := c.parse(m)
	if timeout == 0 {
		timeout = c.endpoint.timeout
	}
	if timeout == 0 && c.plain { // a plain caller that has gone might never be noticed
		timeout = c.endpoint.service.server.options.timeout
	}
	if c.plain && c.call.method.kind == KindServerStream && err == nil {
		timeout, err = c.boundPlainStream(timeout)
	}
	if timeout > 0 {
		c.ctx.deadline = at + min(timeout, math.MaxInt64-at)
	}
	return err
}

func (c *serverCall) parse(m *nats.Msg) (time.Duration, *Error) {
	if c.plain = !wire.IsEnvelope(m.Data) && !c.batched; c.plain {
		return c.parsePlain(m)
	}
	e, err := wire.Parse(m.Data)
	if wire.IsBatch(m.Data) {
		_, err = wire.ParseBatch(m.Data)
		err = cmp.Or(err, errBatchInBatch)
	}
	c.id, c.body, c.codec = e.ID, e.Body, Codec(e.Flags.Codec())
	c.accepts, c.compressed = Compression(e.Flags.Compression()), e.Flags&wire.FlagCompressed != 0
	if e.Kind == wire.KindCancel || e.Kind == wire.KindAliveAnswer {
		c.reply = "" // these kinds are never answered
	}
	switch {
	case errors.Is(err, wire.ErrVersion), errors.Is(err, wire.ErrUnsupported):
		return 0, failf(CodeUnimplemented, NotRun, "%v", err)
	case err != nil:
		return 0, failf(CodeInvalidArgument, NotRun, "%v", err)
	case e.Kind == wire.KindOpen && c.batched:
		return 0, failf(CodeInvalidArgument, NotRun, "an open in a batch")
	case e.Kind == wire.KindOpen:
		return e.Timeout, c.receiveOpen(&e)
	case e.Kind == wire.KindRequest && c.call.method.kind > KindOneWay:
		return 0, failf(CodeUnimplemented, NotRun, "%s is a %v method here, and the caller takes it for a unary one: the .proto files of the two differ", c.call.method.FullName(), c.call.method.kind)
	case e.Kind != wire.KindRequest || e.Flags&(wire.FlagError|wire.NotRun.Flags()) != 0:
		return 0, failf(CodeInvalidArgument, NotRun, "envelope of kind %d, flags %#02x is not a request", e.Kind, e.Flags)
	}
	return e.Timeout, nil
}

func (c *serverCall) parsePlain(m *nats.Msg) (time.Duration, *Error) {
	c.id = wire.NewID() // for the table; nobody else knows it
	if kind := c.call.method.kind; kind == KindClientStream || kind == KindBidi {
		return 0, failf(CodeUnimplemented, NotRun, "%s is a %v method: it takes a natscall client", c.call.method.FullName(), kind)
	}
	if contentType := m.Header.Get(wire.ContentTypeHeader); contentType == "" {
		c.codec = c.endpoint.guessCodec(m.Data)
	} else {
		codec, err := wire.ParseContentType(contentType)
		if err != nil {
			return 0, failf(CodeInvalidArgument, NotRun, "%v", err)
		}
		c.codec = Codec(codec)
	}
	timeout, err := wire.ParseTimeout(m.Header.Get(wire.TimeoutHeader))
	if err != nil {
		return 0, failf(CodeInvalidArgument, NotRun, "%v", err)
	}
	return min(timeout, maxPlainTimeout), nil
}

// maxPlainTimeout bounds the time of a plain request, since its caller's leaving is not noticed.
const maxPlainTimeout = 24 * time.Hour

// coding returns how the call's messages are encoded.
func (c *serverCall) coding() coding {
	options := c.endpoint.service.server.options.json
	if options.strict == strictByForm && c.plain && c.call.method.kind != KindOneWay {
		options.strict = strictAlways
	}
	return coding{c.codec, options}
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
	if limit := c.endpoint.service.server.options.maxMessageSize; len(c.body) > limit {
		return nil, overLimit("request", len(c.body), limit, NotRun)
	}
	if c.compressed {
		var failed *Error
		if c.body, failed = c.accepts.decompress(c.body, c.endpoint.service.server.options.maxMessageSize); failed != nil {
			return nil, failf(failed.code, NotRun, "request: %s", failed.message)
		}
		c.whole = cap(c.body)
	}
	req := c.endpoint.method.newRequest()
	if err := c.coding().unmarshal(c.body, req, c.whole); err != nil {
		return nil, failf(CodeInvalidArgument, NotRun, "the request is not a valid %s in %v: %v", messageName(req), c.codec, err)
	}
	return req, nil
}

var errBatchInBatch = errors.New("a batch within a batch")

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
		c.body, c.call.request, c.call.response = nil, nil, nil // whoever keeps the context keeps c
	}
	if c.stream != nil { // it has ended already, unless a forced shutdown met the accept
		c.stream.endNow(failf(CodeUnavailable, MayHaveRun, "the server was stopped before the call had ended"))
	}
	c.endpoint.service.calls.Remove(c.id)
}

// mayBeKept reports whether interceptors, or a handler with its stream, have got hold of the call.
func (c *serverCall) mayBeKept() bool {
	return c.endpoint.method.kind > KindOneWay || c.stream != nil || c.endpoint.service.server.intercepts()
}

// serve runs the interceptors and the handler.
func (c *serverCall) serve() *Error {
	if c.ctx.ended() != nil {
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
		before := c.stream.waitUnder(ctx)
		defer c.stream.ctx.Store(before) // for the answer
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
	switch unlogged, ok := c.endpoint.panicked.next(); {
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
