package rpc

import (
	"fmt"
	"runtime/debug"
	"strings"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// callHooks are the functions that interceptors have set for a call. Those that run them may be
// called on a nil *callHooks, where nobody has set any.
type callHooks struct {
	call      *Call
	onSend    []func(*Message) error
	onSent    []func(*Message, error)
	onReceive []func(*Message) error
	onAttempt []func(*Attempt) error
	onEnd     []func(error)

	sent, received int // messages so far, each counted by the goroutine that sends or receives
	attempts       int

	sendHeader func() error // of a call without NATS

	// Of a server's call.
	requestErr *Error // why the request does not decode
	response   struct {
		message    *Message
		from, size int // where it starts in its buffer, and its size before compression
	}

	// room is for what most calls need, so that it is not allocated apart.
	room struct {
		onSend, onReceive  [1]func(*Message) error
		onSent             [1]func(*Message, error)
		onAttempt          [1]func(*Attempt) error
		onEnd              [1]func(error)
		sending, receiving Message // of each direction there is one at a time
	}
}

func newCallHooks(c *Call) *callHooks {
	h := &callHooks{call: c}
	h.onSend, h.onReceive, h.onSent = h.room.onSend[:0], h.room.onReceive[:0], h.room.onSent[:0]
	h.onAttempt, h.onEnd = h.room.onAttempt[:0], h.room.onEnd[:0]
	return h
}

// Message is a message of a call on its way, as the functions of OnSend, OnSent and OnReceive see
// it. It is theirs until they return.
type Message struct {
	number         int
	size, wireSize int
	value          any // a proto.Message, or a *Raw; nil until a received message is decoded
	call           *Call

	received bool
	in       encoded       // that is received
	into     proto.Message // what it is to be decoded into; nil for a *Raw, and a server's request
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

// decode returns what Proto does, of a message that is not a proto.Message yet.
func (m *Message) decode() (proto.Message, error) {
	switch {
	case m.call == nil:
		return nil, failf(CodeInternal, ExecutionMayHaveRun, "the function of a hook that had this message has returned")
	case m.into != nil:
		return m.into, m.in.coding.unmarshal(m.in.data, m.into, m.in.whole)
	case m.value == nil:
		return m.call.Request()
	case m.received:
		return m.call.decodeRaw(&Raw{m.in.coding.codec, m.in.data}, !m.call.OnServer())
	}
	return m.call.decodeRaw(m.value, m.call.OnServer())
}

// sending runs the functions of OnSend. It returns the message for sentMessage, nil if there are no
// hooks.
func (h *callHooks) sending(value any) (*Message, error) {
	if h == nil {
		return nil, nil
	}
	m := &h.room.sending
	*m = Message{number: h.sent, value: value, call: h.call}
	for _, f := range h.onSend {
		if err := f(m); err != nil {
			return nil, err
		}
	}
	h.sent++
	return m, nil
}

// sentMessage runs the functions of OnSent. m is the result of sending.
func (h *callHooks) sentMessage(m *Message, size, wireSize int, err error) {
	if m == nil {
		return
	}
	m.size, m.wireSize = size, wireSize
	for _, f := range h.onSent {
		h.run("OnSent", func() { f(m, err) })
	}
	*m = Message{} // what it had is not kept for longer
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
func (h *callHooks) receive(e encoded, value any) (decoded bool, err error) {
	m := &h.room.receiving
	*m = Message{size: len(e.data), wireSize: e.wireSize, call: h.call, received: true, in: e}
	if m.into, _ = value.(proto.Message); m.into == nil {
		m.value = value
	}
	err = h.receiving(m)
	decoded = m.into != nil && m.value != nil
	*m = Message{}
	return decoded, err
}

// receiveRequest runs the functions of OnReceive for a server's single request.
func (h *callHooks) receiveRequest(size, wireSize int) error {
	m := &h.room.receiving
	*m = Message{size: size, wireSize: wireSize, call: h.call, received: true}
	err := h.receiving(m)
	*m = Message{}
	return err
}

// receiving runs the functions of OnReceive.
func (h *callHooks) receiving(m *Message) error {
	m.number = h.received
	h.received++
	for _, f := range h.onReceive {
		if err := f(m); err != nil {
			return err
		}
	}
	return nil
}

// answered runs the functions of OnSent for a server's single response, if there is one, and those
// of OnEnd. length is how much of its buffer the response takes.
func (h *callHooks) answered(length int, err error) {
	if h == nil {
		return
	}
	defer h.ended(err) // also if one of OnSent ends the goroutine
	if m := h.response.message; m != nil {
		h.sentMessage(m, h.response.size, max(0, length-h.response.from), err)
	}
}

// ended runs each function of OnEnd once, the last first. err is nil after a clean end.
func (h *callHooks) ended(err error) {
	if h == nil || len(h.onEnd) == 0 {
		return
	}
	last := len(h.onEnd) - 1
	f := h.onEnd[last]
	h.onEnd = h.onEnd[:last]
	defer h.ended(err) // also if f ends the goroutine
	h.run("OnEnd", func() { f(err) })
}

// run runs f and stops a panic: the goroutine may be one of nats.go's, or have a call to answer.
func (h *callHooks) run(name string, f func()) {
	defer func() {
		if r := recover(); r != nil {
			h.call.log().Error("natscall: a function of "+name+" panicked", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
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
	hedge    bool
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

// Hedge reports whether an earlier attempt of the call still waits for its answer ([WithHedging]).
func (a *Attempt) Hedge() bool { return a.hedge }

// Subject returns the subject to which the request is published.
func (a *Attempt) Subject() string { return a.subject }

// Instance returns the instance to which the request goes ([WithInstance], or because another one
// was silent, busy or has an earlier attempt), or "" if any one may take it.
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
func (h *callHooks) attempting(a Attempt) (nats.Header, *Error) {
	if h == nil || len(h.onAttempt) == 0 {
		return a.header, nil
	}
	a.number = h.attempts
	h.attempts++
	for _, f := range h.onAttempt {
		if err := f(&a); err != nil {
			return nil, hookError(err, ExecutionNotRun)
		}
	}
	return a.header, nil
}
