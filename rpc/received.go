package rpc

import (
	"cmp"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// received is a request as it came to an endpoint, in one of its forms: in an envelope, as an item
// of a batch, or plain. It says how its call is answered.
type received struct {
	form
	endpoint *endpoint
	subject  string
	reply    string // subject, or "" if no answer is wanted
	id       wire.ID
	tag      uint64 // of an item of a batch
	body     []byte
	whole    uint32        // size of the memory that body is part of; a message has less than 2 GiB
	wireSize uint32        // of body as it came
	headSize uint32        // of the header of the NATS message as it came
	waited   time.Duration // in the queue; until the call runs, when it came
}

// form is how a request came, and how it is to be answered.
type form struct {
	plain      bool
	batched    bool // it was an item of a batch
	compressed bool // its body is compressed
	named      bool // the answer is to name the instance
	codec      Codec
	accepts    Compression // of the caller
	to         addressee
	deadlineBy DeadlineBy
}

// addressee says which instances a request was sent to.
type addressee uint8

const (
	toGroup    addressee = iota // one of each queue group, or all if there is none
	toInstance                  // this one
	toAll                       // all; the caller takes the answer of each
)

// alone reports whether no other instance got the request.
func (r *received) alone() bool {
	return r.to == toInstance || r.to == toGroup && r.endpoint.queueGroup != ""
}

// parse takes a message. If it returns an error, the request is to be refused with that. The
// timeout is what the request says, 0 for nothing. The envelope is that of an open, or zero.
func (r *received) parse(m *nats.Msg) (timeout time.Duration, open wire.Envelope, failed *Error) {
	r.subject, r.reply, r.body, r.wireSize = m.Subject, m.Reply, m.Data, uint32(len(m.Data))
	r.whole = max(r.whole, uint32(m.Size()))
	if !r.batched { // else it is that of the batch
		r.headSize = headSize(m)
	}
	if r.plain = !wire.IsEnvelope(m.Data) && !r.batched; r.plain {
		timeout, failed = r.parsePlain(m)
		return timeout, open, failed
	}
	e, err := wire.Parse(m.Data)
	if wire.IsBatch(m.Data) {
		_, err = wire.ParseBatch(m.Data)
		err = cmp.Or(err, errBatchInBatch)
	}
	r.id, r.body, r.codec = e.ID, e.Body, Codec(e.Flags.Codec())
	r.wireSize = uint32(len(r.body))
	r.named = e.Kind == wire.KindRequest && e.Flags&wire.FlagNameInstance != 0
	r.accepts, r.compressed = Compression(e.Flags.Compression()), e.Flags&wire.FlagCompressed != 0
	if e.Kind == wire.KindCancel || e.Kind == wire.KindAliveAnswer || e.Kind == wire.KindInstanceAnswer {
		r.reply = "" // these kinds are never answered
	}
	if failed := r.check(&e, err); failed != nil {
		return 0, open, failed
	}
	if e.Kind == wire.KindOpen {
		open = e
	}
	return e.Timeout, open, nil
}

// headSize returns how many bytes the header of a message that has come takes.
func headSize(m *nats.Msg) uint32 {
	return uint32(max(m.Size()-len(m.Subject)-len(m.Reply)-len(m.Data), 0))
}

var errBatchInBatch = errors.New("a batch within a batch")

// check returns why an envelope is no request of the endpoint's method, or nil. err is that of
// parsing it.
func (r *received) check(e *wire.Envelope, err error) *Error {
	m := r.endpoint.method
	switch {
	case errors.Is(err, wire.ErrVersion), errors.Is(err, wire.ErrUnsupported):
		return failf(CodeUnimplemented, ExecutionNotRun, "%v", err)
	case err != nil:
		return failf(CodeInvalidArgument, ExecutionNotRun, "%v", err)
	case e.Kind == wire.KindOpen && r.batched:
		return failf(CodeInvalidArgument, ExecutionNotRun, "an open in a batch")
	case e.Kind == wire.KindOpen && m.kind == KindOneWay:
		return failf(CodeUnimplemented, ExecutionNotRun, "%s takes plain messages", m.FullName())
	case e.Kind == wire.KindOpen && r.to == toAll:
		return failf(CodeUnimplemented, ExecutionNotRun, "a request to all instances is one NATS message and no stream")
	case e.Kind == wire.KindOpen && !r.alone(): // every instance would take it
		return failf(CodeUnimplemented, ExecutionNotRun, "%s has no queue group: it takes no streams, and no requests larger than the NATS server's max_payload", m.FullName())
	case e.Kind == wire.KindOpen:
		return nil
	case e.Kind == wire.KindRequest && m.kind > KindOneWay:
		return failf(CodeUnimplemented, ExecutionNotRun, "%s is a %v method here, and the caller takes it for a unary one: the .proto files of the two differ", m.FullName(), m.kind)
	case e.Kind != wire.KindRequest:
		return failf(CodeInvalidArgument, ExecutionNotRun, "envelope of kind %d, flags %#02x is not a request", e.Kind, e.Flags)
	}
	return nil
}

// maxPlainTimeout bounds the time of a plain request, since its caller's leaving is not noticed.
const maxPlainTimeout = 24 * time.Hour

func (r *received) parsePlain(m *nats.Msg) (time.Duration, *Error) {
	r.id = wire.NewID() // for the table; nobody else knows it
	r.named = m.Header.Get(wire.NameInstanceHeader) != "" || r.endpoint.own
	if kind := r.endpoint.method.kind; kind == KindClientStream || kind == KindBidi {
		return 0, failf(CodeUnimplemented, ExecutionNotRun, "%s is a %v method: it takes a natscall client", r.endpoint.method.FullName(), kind)
	}
	if contentType := m.Header.Get(wire.ContentTypeHeader); contentType == "" {
		r.codec = r.endpoint.guessCodec(m.Data)
	} else {
		codec, err := wire.ParseContentType(contentType)
		if err != nil {
			return 0, failf(CodeInvalidArgument, ExecutionNotRun, "%v", err)
		}
		r.codec = Codec(codec)
	}
	timeout, err := wire.ParseTimeout(m.Header.Get(wire.TimeoutHeader))
	if err != nil {
		return 0, failf(CodeInvalidArgument, ExecutionNotRun, "%v", err)
	}
	return timeout, nil
}

// coding returns how the call's messages are encoded.
func (r *received) coding() coding {
	options := r.endpoint.service.server.options.json
	if options.strict == strictByForm && r.plain && r.endpoint.method.kind != KindOneWay {
		options.strict = strictAlways
	}
	return coding{r.codec, options}
}

// data returns the encoded request, decompressed.
func (r *received) data() ([]byte, *Error) {
	limit := r.endpoint.sizes().receive
	if len(r.body) > limit {
		return nil, overReceiveLimit("request", len(r.body), limit, ExecutionNotRun)
	}
	if r.compressed {
		body, failed := r.accepts.decompress(r.body, limit)
		if failed != nil {
			return nil, failf(failed.code, ExecutionNotRun, "request: %s", failed.message)
		}
		r.body, r.whole, r.compressed = body, uint32(cap(body)), false
	}
	return r.body, nil
}

// decodeInto decodes the request into m, an empty proto.Message or a *Raw. data has returned the
// encoded request before.
func (r *received) decodeInto(m any) *Error {
	if err := r.coding().decode(r.body, m, int(r.whole)); err != nil {
		return failf(CodeInvalidArgument, ExecutionNotRun, "the request is not a valid %s in %v: %v", typeName(m), r.codec, err)
	}
	return nil
}

// remoteReplies are the beginnings of reply subjects of requests from other accounts and, over
// gateways, other clusters. NATS does not say when such a caller no longer listens.
var remoteReplies = []string{"_R_.", "_GR_."}

// isRemote reports whether the caller is one whose departure NATS does not report.
func (r *received) isRemote() bool {
	for _, prefix := range remoteReplies {
		if strings.HasPrefix(r.reply, prefix) {
			return true
		}
	}
	return false
}

// checkPlainStream refuses a plain stream to a remote caller if the server allows none. It also
// refuses a stream to the service itself, which would take each message for a request.
func (r *received) checkPlainStream() *Error {
	limits := &r.endpoint.service.server.options.plainStreams
	switch {
	case r.endpoint.service.listensTo(r.reply):
		reply := r.reply
		r.reply = "" // an answer would be a request too
		return failf(CodeInvalidArgument, ExecutionNotRun, "the reply subject %q of a plain stream is one of the service's own", reply)
	case r.isRemote() && (limits.bytes == 0 || limits.time == 0):
		return failf(CodeUnimplemented, ExecutionNotRun, "%s streams, and this server sends no plain streams to other accounts and clusters (rpc.WithPlainStreamLimits): it takes a natscall client", r.endpoint.method.FullName())
	}
	return nil
}

// jetStreamAck begins the reply subject of a message that a JetStream consumer delivers. An empty
// answer acknowledges the message; without one JetStream delivers it again.
const jetStreamAck = "$JS.ACK."

// acknowledges reports whether an answer acknowledges a message of JetStream.
func (r *received) acknowledges() bool { return strings.HasPrefix(r.reply, jetStreamAck) }

// answerBody returns the body of an answer: an item where the request was one.
func (r *received) answerBody(data []byte) []byte {
	if !r.batched {
		return data
	}
	return wire.AppendItem(wire.AppendBatch(nil), r.tag, data)
}
