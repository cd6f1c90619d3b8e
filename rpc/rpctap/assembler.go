package rpctap

import (
	"fmt"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// StreamMessage is a message of a call: the only one of a unary request or response, or one that
// has come together from the frames of a stream.
type StreamMessage struct {
	Data       []byte // decompressed; nil if the message is larger than [MaxMessage]
	Size       int    // as it came, without its prefix
	Compressed bool
	Err        error // the message does not decompress, or is too large to be kept
}

// Assembler puts the messages of one direction of a stream together. Once it has missed bytes it
// finds no messages any more, since only counting from the start tells where one begins. The states
// of what it waits for:
//
//	prefix --5 bytes--> message --its size--> prefix
//	any    --bytes missed, wrong prefix--> lost
//
// An Assembler is not safe for concurrent use.
type Assembler struct {
	compression rpc.Compression
	next        uint64 // sequence of the next frame
	prefix      []byte // as far as it has come
	inMessage   bool
	need        int // bytes of the message that are missing
	message     StreamMessage
	err         error // why it is lost
}

// NewAssembler returns an Assembler for a direction from its start. compression is that of the open
// or the request.
func NewAssembler(compression rpc.Compression) *Assembler {
	return &Assembler{compression: compression}
}

// Open takes the first bytes of the client's messages, which stand in the open. It returns the
// messages that are whole then.
func (a *Assembler) Open(data []byte) []StreamMessage { return a.add(data) }

// Data takes the body of a data frame, and returns the messages that are whole then. It copies what
// it keeps.
func (a *Assembler) Data(sequence uint64, body []byte) []StreamMessage {
	if a.err == nil && sequence != a.next {
		a.lose(fmt.Errorf("frame %d came, and frame %d was expected", sequence, a.next))
	}
	a.next = sequence + 1
	return a.add(body)
}

// Err returns why no more messages are found, or nil.
func (a *Assembler) Err() error { return a.err }

// Partial returns how many bytes there are of a message that is not whole yet.
func (a *Assembler) Partial() int { return len(a.prefix) + a.message.Size - a.need }

// held returns how much memory a partial message takes.
func (a *Assembler) held() int { return cap(a.message.Data) }

func (a *Assembler) lose(err error) {
	a.err, a.prefix, a.message, a.need, a.inMessage = err, nil, StreamMessage{}, 0, false
}

func (a *Assembler) add(b []byte) (out []StreamMessage) {
	room := newRoom()
	for len(b) > 0 && a.err == nil {
		if a.inMessage {
			b = a.addMessage(b)
		} else {
			b = a.addPrefix(b)
		}
		if a.inMessage && a.need == 0 {
			out = append(out, a.complete(room))
		}
	}
	return out
}

func (a *Assembler) addPrefix(b []byte) (rest []byte) {
	n := min(wire.MessagePrefix-len(a.prefix), len(b))
	if a.prefix = append(a.prefix, b[:n]...); len(a.prefix) < wire.MessagePrefix {
		return b[n:]
	}
	size, compressed, err := wire.ParseMessagePrefix(a.prefix)
	if err == nil && size < 0 { // where an int has 32 bits
		err = fmt.Errorf("a message of %d bytes", uint32(size))
	}
	if err != nil {
		a.lose(fmt.Errorf("what should be the beginning of a message is none: %w", err))
		return nil
	}
	a.prefix = a.prefix[:0]
	a.inMessage, a.need, a.message = true, size, StreamMessage{Size: size, Compressed: compressed}
	return b[n:]
}

func (a *Assembler) addMessage(b []byte) (rest []byte) {
	n := min(a.need, len(b))
	if a.message.Size <= MaxMessage {
		a.message.Data = append(a.message.Data, b[:n]...)
	}
	a.need -= n
	return b[n:]
}

// complete returns the message that is whole.
func (a *Assembler) complete(room *room) StreamMessage {
	m := a.message
	a.message, a.inMessage = StreamMessage{}, false
	switch {
	case m.Size > MaxMessage:
		m.Err = fmt.Errorf("it has %d bytes, of which at most %d are kept", m.Size, MaxMessage)
	case m.Compressed:
		m.Data, m.Err = room.decompress(a.compression, m.Data)
	case m.Data == nil:
		m.Data = []byte{}
	}
	return m
}
