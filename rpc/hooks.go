package rpc

import (
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// callHooks are the functions that interceptors have set for a call.
type callHooks struct {
	onSend    []func(*Message) error
	onSent    []func(*Message, error)
	onReceive []func(*Message) error
	onAttempt []func(*Attempt) error
	onEnd     []func(error)

	sent, received int // messages so far, each counted by the goroutine that sends or receives
	attempts       int

	// Of a server's call.
	requestErr *Error // why the request does not decode
	response   struct {
		message    *Message
		from, size int // where it starts in its buffer, and its size before compression
	}
}

// Message is a message of a call on its way, as the functions of OnSend, OnSent and OnReceive see
// it. It is theirs until they return.
type Message struct {
	number         int
	size, wireSize int
	value          any // a proto.Message, or a *Raw
	decode         func() (proto.Message, error)
}

// Number counts the messages of a call in one direction, from 0.
func (m *Message) Number() int { return m.number }

// Size is the size of the encoded message in bytes, before compression. It is 0 in OnSend, as the
// message has not been encoded.
func (m *Message) Size() int { return m.size }

// WireSize is the size of the message in bytes as it goes over the wire: of the compressed message
// where that is smaller, without the envelopes and frames around it.
func (m *Message) WireSize() int { return m.wireSize }

// Proto returns the message. In OnReceive the first use decodes it, so a function that needs only
// the sizes saves that work. A message that is sent or received as *Raw is decoded for each use;
// the error has CodeUnimplemented if its type is not known. The error of a received message that
// does not decode is also that of the call or stream.
func (m *Message) Proto() (proto.Message, error) {
	if value, ok := m.value.(proto.Message); ok {
		return value, nil
	}
	value, err := m.decode()
	if _, raw := m.value.(*Raw); err == nil && !raw {
		m.value = value
	}
	return value, err
}

// OnSend makes f run for each message that this side sends, before it is encoded: for each message
// of a stream, a single request and a single response. An error of f becomes the error of Send or
// of the call, and the message is not sent. A request that is sent again is one message: OnAttempt
// sees how often it is sent.
//
// OnSend, OnSent and OnReceive are to be called before next. Several functions run in the order in
// which they were set; a nil f is ignored. On a bidirectional stream those of sending and those of
// receiving may run concurrently. On a server they run for the response when all interceptors have
// returned, so what is to happen after the last message belongs into OnEnd.
func (c *Call) OnSend(f func(*Message) error) {
	if f != nil {
		c.hooked().onSend = append(c.hooked().onSend, f)
	}
}

// OnSent makes f run after each message for which the functions of OnSend have run: it has been
// encoded and given to the connection or the stream's window, or err says why not. A panic in f is
// logged and goes no further.
func (c *Call) OnSent(f func(m *Message, err error)) {
	if f != nil {
		c.hooked().onSent = append(c.hooked().onSent, f)
	}
}

// OnReceive makes f run for each message that this side has received, before it is decoded: for
// each message of a stream, a single request and a single response. An error of f becomes the error
// of Recv or of the call. On a server it ends the call before the handler gets the message. A
// request is received when its handler is about to run.
func (c *Call) OnReceive(f func(*Message) error) {
	if f != nil {
		c.hooked().onReceive = append(c.hooked().onReceive, f)
	}
}

// OnEnd makes f run once, with the call's error, when the call is over on this side. f runs on
// whatever goroutine ends the call, so it must not block, and not close the client or server. A
// panic in f is logged and goes no further. Call OnEnd before next. A nil f is ignored.
//
// Only OnEnd is there for the end of a call of any shape. On a client next only opens a stream,
// which goes on until its end has been received, it is closed, or ctx ends. On a server the
// response is encoded when next has returned.
func (c *Call) OnEnd(f func(error)) {
	if f != nil {
		c.hooked().onEnd = append(c.hooked().onEnd, f)
	}
}

// OnAttempt makes f run on a client before each attempt to send the request or to open the stream,
// when the request has been encoded. An error of f ends the call. Call OnAttempt before next. A nil
// f is ignored, and so is OnAttempt on a server.
func (c *Call) OnAttempt(f func(*Attempt) error) {
	if f != nil && !c.OnServer() {
		c.hooked().onAttempt = append(c.hooked().onAttempt, f)
	}
}

func (c *Call) hooked() *callHooks {
	if c.hooks == nil {
		c.hooks = new(callHooks)
	}
	return c.hooks
}

// sending runs the functions of OnSend, and returns the message for sentMessage: nil if there are no
// hooks.
func (c *Call) sending(value any) (*Message, error) {
	if c.hooks == nil {
		return nil, nil
	}
	m := &Message{number: c.hooks.sent, value: value}
	m.decode = func() (proto.Message, error) { return c.decodeRaw(value, c.OnServer()) }
	for _, f := range c.hooks.onSend {
		if err := f(m); err != nil {
			return nil, err
		}
	}
	c.hooks.sent++
	return m, nil
}

// sentMessage runs the functions of OnSent. m is the result of sending.
func (c *Call) sentMessage(m *Message, size, wireSize int, err error) {
	if m == nil {
		return
	}
	m.size, m.wireSize = size, wireSize
	for _, f := range c.hooks.onSent {
		c.runHook("OnSent", func() { f(m, err) })
	}
}

// encoded is a message that has been received.
type encoded struct {
	coding   coding
	data     []byte
	whole    int // size of the memory that data is part of
	wireSize int
}

// receive runs the functions of OnReceive for a message that is to be decoded into value, an empty
// proto.Message or a *Raw. It reports whether one of them has done that.
func (c *Call) receive(e encoded, value any) (decoded bool, err error) {
	m := &Message{size: len(e.data), wireSize: e.wireSize}
	if target, ok := value.(proto.Message); ok {
		m.decode = func() (proto.Message, error) {
			err := e.coding.unmarshal(e.data, target, e.whole)
			decoded = err == nil
			return target, err
		}
	} else {
		m.value = value
		raw := &Raw{e.coding.codec, e.data}
		m.decode = func() (proto.Message, error) { return c.decodeRaw(raw, !c.OnServer()) }
	}
	err = c.receiving(m)
	return decoded, err
}

// receiving runs the functions of OnReceive.
func (c *Call) receiving(m *Message) error {
	m.number = c.hooks.received
	c.hooks.received++
	for _, f := range c.hooks.onReceive {
		if err := f(m); err != nil {
			return err
		}
	}
	return nil
}

// decodeRaw decodes a *Raw, which is a response or a request.
func (c *Call) decodeRaw(raw any, response bool) (proto.Message, error) {
	newMessage := c.method.newRequest
	if response {
		newMessage = c.method.newResponse
	}
	if newMessage == nil {
		return nil, failf(CodeUnimplemented, ExecutionMayHaveRun, "%s: the types of its messages are not known here", c.Method())
	}
	m := newMessage()
	return m, raw.(*Raw).Unmarshal(m)
}

// ended runs each function of OnEnd once. err is nil after a clean end.
func (c *Call) ended(err error) {
	if c.hooks == nil {
		return
	}
	for n := len(c.hooks.onEnd); n > 0; n = len(c.hooks.onEnd) {
		f := c.hooks.onEnd[n-1]
		c.hooks.onEnd = c.hooks.onEnd[:n-1]
		c.runHook("OnEnd", func() { f(err) })
	}
}

// runHook runs f and stops a panic: the goroutine may be one of nats.go's, or have a call to
// answer.
func (c *Call) runHook(name string, f func()) {
	defer func() {
		if r := recover(); r != nil {
			c.log().Error("natscall: a function of "+name+" panicked", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
		}
	}()
	f()
}

// Attempt is one sending of a call, as the functions of OnAttempt see it. It is theirs until they
// return.
type Attempt struct {
	id       wire.ID
	subject  string
	instance string
	number   int
	data     []byte
	header   nats.Header
}

// ID returns the id of the attempt: 32 hexadecimal digits, which the server's [Call.ID] repeats.
// Each attempt has a new one. A plain request, or a one-way message, has none: ID returns "".
func (a *Attempt) ID() string {
	if a.id == (wire.ID{}) {
		return ""
	}
	return a.id.String()
}

// Number counts the attempts of a call, from 0.
func (a *Attempt) Number() int { return a.number }

// Subject returns the subject to which the request is published.
func (a *Attempt) Subject() string { return a.subject }

// Instance returns the instance to which the request goes ([WithInstance]), or "" if any one may
// take it.
func (a *Attempt) Instance() string { return a.instance }

// Data returns the encoded request, before compression, which the server's [Call.RequestData]
// returns too. It is nil if the client streams. It must not be changed or kept.
func (a *Attempt) Data() []byte { return a.data }

// Header returns the header of the request as it is about to be sent. It must not be changed;
// SetHeader adds to it.
func (a *Attempt) Header() Header { return Header(a.header) }

// ExtensionPrefix begins the names of the headers that SetHeader of an [Attempt] sets. A server's
// interceptors find them in [Call.Header].
const ExtensionPrefix = wire.ExtensionPrefix

// SetHeader sets a header of this attempt. Its key must begin with [ExtensionPrefix], which
// nothing else may use, so it cannot collide with a header of the caller. The error is an *Error
// with CodeInvalidArgument.
func (a *Attempt) SetHeader(key, value string) error {
	if !strings.HasPrefix(key, ExtensionPrefix) {
		return failf(CodeInvalidArgument, ExecutionNotRun, "header %q of an attempt does not begin with %s", key, ExtensionPrefix)
	}
	if err := wire.CheckExtension(key, value); err != nil {
		return failf(CodeInvalidArgument, ExecutionNotRun, "%v", err).because(err)
	}
	if a.header == nil {
		a.header = nats.Header{}
	}
	a.header[key] = []string{value}
	return nil
}

// attempting runs the functions of OnAttempt, and returns the header with what they have added.
func (c *Call) attempting(a Attempt) (nats.Header, *Error) {
	if c.hooks == nil || len(c.hooks.onAttempt) == 0 {
		return a.header, nil
	}
	a.number = c.hooks.attempts
	c.hooks.attempts++
	for _, f := range c.hooks.onAttempt {
		if err := f(&a); err != nil {
			failed := *asError(err)
			failed.execution = ExecutionNotRun
			return nil, &failed
		}
	}
	return a.header, nil
}
