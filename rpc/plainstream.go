package rpc

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/natscall/natscall/internal/names"
	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/publish"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// plainStream answers a plain NATS client with one NATS message for each message. Its reader grants
// no credit and sends no heartbeats, so NATS itself says whether it is still there: now and then a
// message has a reply subject of this instance, to which NATS answers "no responders" if nobody
// listens to the stream any more.
type plainStream struct {
	call     *serverCall
	ctx      context.Context
	remote   bool          // NATS does not say when the reader leaves
	begun    bool          // the response header has been sent
	sent     int           // bytes
	probed   time.Duration // when a message last had a reply subject, by the server's clock
	unprobed int           // messages since then
	bytes    int           // of those messages
}

const (
	// plainMessageHeader marks a message that could be mistaken for something else: an empty one
	// for the end, which has neither header nor body, and one that looks like an acknowledgement of
	// JetStream.
	plainMessageHeader = "Natscall-Message"

	// After so many messages or bytes, or so long, a message has a reply subject: a stream to
	// nobody ends within that and a round trip.
	probeMessages = 64
	probeBytes    = 256 << 10
	probeInterval = time.Second
)

// SendMessage sends a message as a NATS message of its own.
func (p *plainStream) SendMessage(m any) error {
	c := p.call
	if err := c.call.checkSent(m); err != nil {
		return err
	}
	if p.ctx.Err() != nil {
		return contextError(p.ctx, ExecutionMayHaveRun)
	}
	hooked, err := c.call.hooks.sending(m)
	if err != nil {
		return hookError(err, ExecutionMayHaveRun)
	}
	buf := buffer.Take()
	defer buf.PutBack()
	err = p.send(buf, m)
	c.call.hooks.sentMessage(hooked, len(buf.B), len(buf.B), err)
	return err
}

// send encodes a message into the buffer and publishes it.
func (p *plainStream) send(buf *buffer.Buffer, m any) (err error) {
	c := p.call
	if buf.B, err = c.coding().append(buf.B, m); err != nil {
		return failf(CodeInternal, ExecutionDidRun, "the message does not encode: %v", err)
	}
	options := &c.endpoint.service.server.options
	if limit := options.sizes.send; len(buf.B) > limit {
		return overSendLimit("message", len(buf.B), limit, ExecutionDidRun)
	}
	if limit := options.plainStreams.bytes; (p.remote || c.reply == "") && len(buf.B) > limit-p.sent {
		return failf(CodeResourceExhausted, ExecutionDidRun, "a plain stream to another account or cluster, or to nobody, has at most %d bytes (rpc.WithPlainStreamLimits)", limit)
	}
	h, err := p.header()
	if err != nil {
		return err
	}
	if !c.steps.beginSending() {
		return errStopped()
	}
	err = p.publish(h, buf.B)
	if c.steps.endSending() {
		c.answerForm.refuse(errStopped())
	}
	p.begun = p.begun || err == nil
	return err
}

// header returns the header of the next message: the response header for the first.
func (p *plainStream) header() (nats.Header, error) {
	if p.begun {
		return nil, nil
	}
	h, err := p.call.call.responseHeader.appendTo(nil, "")
	if err != nil {
		return nil, failf(CodeInternal, ExecutionDidRun, "response: %v", err).because(err)
	}
	if p.call.named {
		h = p.call.nameInstance(h)
	}
	return h, nil
}

func (p *plainStream) publish(h nats.Header, data []byte) error {
	out := nats.Msg{Subject: p.call.reply, Header: h, Data: data}
	if len(data) == 0 {
		if h == nil {
			out.Header = nats.Header{}
		}
		out.Header[plainMessageHeader] = []string{"1"}
	}
	p.sent += len(data)
	if out.Subject == "" {
		return nil // nobody listens
	}
	out.Reply = p.probe(len(data))
	if err := publish.Send(p.call.endpoint.service.server.nc, &out); errors.Is(err, nats.ErrMaxPayload) {
		return overMaxPayload("message", len(data), out.Header, ExecutionDidRun)
	} else if err != nil {
		return natsError(err, ExecutionDidRun)
	}
	return nil
}

// probe returns the reply subject for the next message, "" for most.
func (p *plainStream) probe(size int) string {
	p.unprobed++
	p.bytes += size
	now := p.call.ctx.clock().now()
	if p.remote || p.unprobed < probeMessages && p.bytes < probeBytes && now-p.probed < probeInterval {
		return ""
	}
	p.unprobed, p.bytes, p.probed = 0, 0, now
	s := p.call.endpoint.service
	return names.Join(s.root, wire.InstanceToken, s.identity.ID, p.call.id.String())
}

// plainStreamAnswer ends the stream of a plain request. The messages before the end are sent by a
// plainStream.
type plainStreamAnswer struct{ plainAnswer }

// respond publishes the clean end.
func (a plainStreamAnswer) respond(*buffer.Buffer, time.Duration) (kept bool) {
	h, err := a.header()
	if err != nil || h == nil {
		h = nats.Header{}
	}
	h[micro.ErrorCodeHeader] = []string{"0"}
	if err := publish.Send(a.endpoint.service.server.nc, &nats.Msg{Subject: a.reply, Header: h}); err != nil {
		a.endpoint.log().Error("natscall: the end of a stream was not sent", "error", err)
	}
	return false
}
