package rpctap

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// MaxMessage is how large a message may be, decompressed, for its bytes to be kept, and how large
// all messages may be together that are decompressed from one NATS message. That is as much as a
// server sends to a plain client by default.
const MaxMessage = 64 << 20

// NoTimeout is the timeout of a request whose caller wants none.
const NoTimeout = wire.NoTimeout

// Message is what one NATS message says, or an item of a batch. Which fields are set depends on its
// kind. It shares memory with the NATS message.
type Message struct {
	Kind     Kind
	Subject  Subject
	Reply    string
	Header   nats.Header // as it came; [Headers] leaves out the keys of NATS and the protocol
	Size     int         // of the data as it came
	ID       string      // of the call, 32 hex digits; "" if the message has none
	IDs      []string    // the further calls of a cancel, an alive query or its answer
	Instance string      // that has sent it, if it says so
	Timeout  time.Duration
	Encoding
	Frame
	Body    []byte   // the message, decompressed; of data and open, bytes of the stream
	Failure *Failure // of an error, and of the end of a stream that failed
	Items   []Item   // of a batch
	Err     error    // what is wrong with it
}

// Encoding is how the messages of a call are encoded.
type Encoding struct {
	Codec       rpc.Codec
	Guessed     bool            // a plain message does not name its codec
	Compression rpc.Compression // that the caller takes, and uses
	Compressed  bool            // the message was compressed
	BodySize    int             // of the message as it came
}

// Frame is what the frames of streams say, and the open.
type Frame struct {
	Sequence  uint64 // of a data or end frame, or of the next one, in a heartbeat
	Credit    uint64 // of an open, accept, credit or heartbeat
	HalfClose bool   // of an open: the client sends no messages after those in it
	Waited    bool   // of data: the frame had to wait for credit
}

// Item is an item of a batch: a request, or the answer to one.
type Item struct {
	Tag uint64 // by which the client tells answers apart
	*Message
}

// Decode reads a NATS message. It never fails: what is wrong stands in the result's Err, and the
// other fields are set as far as they could be read.
func Decode(m *nats.Msg) *Message {
	out := &Message{Subject: ParseSubject(m.Subject), Reply: m.Reply, Header: m.Header, Size: len(m.Data)}
	out.Instance = m.Header.Get(wire.InstanceHeader)
	switch {
	case wire.IsBatch(m.Data):
		out.decodeBatch(m.Data)
	case wire.IsEnvelope(m.Data):
		out.decode(m.Data, newRoom())
	default:
		out.decodePlain(m.Data)
	}
	return out
}

// decode reads an envelope or a frame.
func (m *Message) decode(data []byte, room *room) {
	if wire.IsFrame(data) {
		m.decodeFrame(data)
		return
	}
	e, err := wire.Parse(data)
	if len(data) >= wire.HeaderSize {
		m.Kind, m.ID = kindOf(e.Kind), e.ID.String()
	}
	if err != nil {
		m.Kind, m.Err, m.Body = KindInvalid, err, e.Body
		return
	}
	m.Timeout, m.Body = e.Timeout, e.Body
	m.Codec, m.Compression = rpc.Codec(e.Flags.Codec()), rpc.Compression(e.Flags.Compression())
	switch e.Kind {
	case wire.KindOpen:
		m.decodeOpen(&e)
	case wire.KindRequest, wire.KindResponse:
		m.decodeCall(e.Flags, room)
	case wire.KindCancel, wire.KindAliveQuery, wire.KindAliveAnswer:
		m.decodeIDs(&e)
	}
}

// decodeCall reads what the flags of a request or a response say.
func (m *Message) decodeCall(flags wire.Flags, room *room) {
	m.BodySize = len(m.Body)
	if m.Kind == KindResponse && flags&wire.FlagError != 0 {
		m.Kind, m.Codec = KindError, rpc.CodecProto
		m.Failure, m.Err = parseFailure(m.Body, flags.Execution())
		return
	}
	if m.Compressed = flags&wire.FlagCompressed != 0; m.Compressed {
		m.Body, m.Err = room.decompress(m.Compression, m.Body)
	}
}

func (m *Message) decodeOpen(e *wire.Envelope) {
	open, err := wire.ParseOpen(e)
	if err != nil {
		m.Kind, m.Err = KindInvalid, err
		return
	}
	m.Credit, m.HalfClose, m.Body = open.Credit, open.HalfClose, open.Data
}

func (m *Message) decodeIDs(e *wire.Envelope) {
	m.Body = nil
	for id := range e.IDs() {
		m.IDs = append(m.IDs, id.String())
	}
	m.IDs = m.IDs[1:]
}

func (m *Message) decodeFrame(data []byte) {
	f, err := wire.ParseFrame(data)
	m.ID, m.Body = m.Subject.Stream, f.Body
	if err != nil {
		m.Err = err
		return
	}
	m.Kind = kindOf(f.Kind)
	switch f.Kind {
	case wire.KindAccept:
		m.Credit = f.Number
		m.decodeAccept(&f)
	case wire.KindData:
		m.Sequence, m.Waited = f.Number, f.Flags&wire.FlagWaited != 0
	case wire.KindEnd:
		m.Sequence = f.Number
		if len(f.Body) > 0 {
			m.Failure, m.Err = parseFailure(f.Body, f.Flags.Execution())
		}
	case wire.KindCredit:
		m.Credit = f.Number
	case wire.KindHeartbeat:
		m.Sequence = f.Number
		m.Credit, m.Err = wire.ParseHeartbeat(&f)
	}
}

func (m *Message) decodeAccept(f *wire.Frame) {
	m.Body = nil
	id, instance, err := wire.ParseAccept(f)
	if err != nil {
		m.Err = err
		return
	}
	m.ID, m.Instance = id.String(), instance
}

// decodeBatch reads a batch and its items. If the batch is cut off, they are those that are whole.
func (m *Message) decodeBatch(data []byte) {
	batch, err := wire.ParseBatch(data)
	m.Kind, m.Err = KindBatch, err
	room := newRoom()
	for tag, data := range batch.Items() {
		item := &Message{Subject: m.Subject, Reply: m.Reply, Header: m.Header, Size: len(data), Instance: m.Instance}
		switch {
		case wire.IsBatch(data):
			item.Err = errors.New("a batch within a batch")
		case wire.IsEnvelope(data):
			item.decode(data, room)
		default:
			item.Err = errors.New("an item of a batch that is no envelope")
		}
		m.Items = append(m.Items, Item{tag, item})
	}
}

// decodePlain reads a message without an envelope. Whether it is a request or an answer cannot be
// told from most of them.
func (m *Message) decodePlain(data []byte) {
	m.Kind, m.Body, m.BodySize = KindPlain, data, len(data)
	code := m.Header.Get(micro.ErrorCodeHeader)
	switch {
	case wire.IsNoResponders(m.Header, data):
		m.Kind = KindNoResponders
		return
	case code == "0" && len(data) == 0:
		m.Kind = KindPlainEnd
		return
	case code != "" || m.Header.Get(micro.ErrorHeader) != "":
		m.Kind = KindPlainError
		m.Failure = plainFailure(m.Header, data)
		return
	}
	var timeout error
	m.Timeout, timeout = wire.ParseTimeout(m.Header.Get(wire.TimeoutHeader))
	m.Err = errors.Join(m.decodeContentType(), timeout)
}

// decodeContentType finds the codec of a plain message. A server knows the type of its requests,
// and so guesses better where none is named.
func (m *Message) decodeContentType() error {
	contentType := m.Header.Get(wire.ContentTypeHeader)
	if contentType == "" {
		m.Guessed = true
		m.Codec = guessCodec(m.Body)
		return nil
	}
	codec, err := wire.ParseContentType(contentType)
	m.Codec = rpc.Codec(codec)
	return err
}

func guessCodec(body []byte) rpc.Codec {
	if bytes.HasPrefix(body, []byte("{")) {
		return rpc.CodecJSON
	}
	return rpc.CodecProto
}

// room is how many bytes may still be decompressed from a NATS message. Without it one could have
// many messages that become large each.
type room int

func newRoom() *room {
	r := room(MaxMessage)
	return &r
}

// decompress returns a message decompressed, or as it is with an error.
func (r *room) decompress(c rpc.Compression, data []byte) ([]byte, error) {
	out, err := buffer.Decompress(wire.Compression(c), data, int(*r))
	if errors.Is(err, buffer.ErrTooLarge) {
		*r = 0 // the others are not tried
	}
	if err != nil {
		return data, fmt.Errorf("the message does not decompress (%v): %w", c, err)
	}
	*r -= room(len(out))
	return out, nil
}

// Headers returns the header and the trailer that a caller, a handler or an interceptor has set,
// without the keys of NATS and of the protocol.
func (m *Message) Headers() (header, trailer map[string][]string) { return wire.SplitHeader(m.Header) }
