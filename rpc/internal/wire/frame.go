package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/natscall/natscall/internal/names"
)

// KindOpen opens a stream. It is an envelope, with a call id.
const KindOpen Kind = 6

// The kinds of stream frames. They have a number instead of a call id.
const (
	KindAccept Kind = iota + 16
	KindData
	KindEnd
	KindCredit
	KindHeartbeat
	KindStreamCancel
	KindHeader
)

// Frames of these kinds are for peers that understand them; others ignore them.
const (
	firstAdvice Kind = 24
	lastAdvice  Kind = 31
)

// IsAdvice reports whether a receiver that does not know the kind ignores the frame.
func (k Kind) IsAdvice() bool { return firstAdvice <= k && k <= lastAdvice }

// frameAdvice are flags of frames that a receiver that does not know them ignores.
const frameAdvice Flags = 0b1111

const (
	// FlagHalfClose says that the sender of an open sends no more messages.
	FlagHalfClose Flags = 1 << 6
	// FlagWaited says that a data frame had to wait for credit.
	FlagWaited Flags = 1 << 4
)

const (
	// FlagsOffset is where the flags of an envelope and of a frame stand.
	FlagsOffset = 3
	// MaxFrameHeader bounds what stands before the body of a frame.
	MaxFrameHeader = 4 + binary.MaxVarintLen64
	// FrameCost is what a data frame costs of the credit beside its body:
	// about what it takes to keep it.
	FrameCost = 64
	// MaxOpenData is how much of the byte stream an open may carry.
	MaxOpenData = 32 << 10
	// MessagePrefix is the size of what stands before each message.
	MessagePrefix = 5
)

// The errors of ParseFrame and ParseOpen.
var (
	ErrFrame = errors.New("invalid stream frame")
	ErrOpen  = errors.New("invalid open")
)

// Frame is a parsed stream frame. Body aliases the parsed bytes.
type Frame struct {
	Kind   Kind
	Flags  Flags  // an Execution on an end, FlagWaited on data, else none that is known
	Number uint64 // credit or sequence, as the kind says
	Body   []byte
}

// IsFrame reports whether data is a stream frame rather than an envelope.
func IsFrame(data []byte) bool {
	return len(data) >= 4 && data[0] == Mark && Kind(data[2]) >= KindAccept
}

// ParseFrame parses a stream frame.
func ParseFrame(data []byte) (Frame, error) {
	if !IsFrame(data) {
		return Frame{}, fmt.Errorf("%w: %d bytes", ErrFrame, len(data))
	}
	f := Frame{Kind: Kind(data[2]), Flags: Flags(data[3])}
	f.Flags &^= frameAdvice
	allowed, ok := Flags(0), false
	switch {
	case f.Kind == KindEnd:
		allowed = executionMask
	case f.Kind == KindData:
		allowed = FlagWaited
	case f.Kind.IsAdvice() && data[1] == Version:
		return Frame{Kind: f.Kind}, nil
	}
	f.Number, f.Body, ok = cutNumber(data[4:])
	switch {
	case data[1] != Version:
		return f, fmt.Errorf("%w: %d; this side speaks %d", ErrVersion, data[1], Version)
	case f.Kind > KindHeader || f.Flags&^allowed != 0:
		return f, fmt.Errorf("%w: kind %d, flags %#02x", ErrUnsupported, data[2], data[3])
	case !ok:
		return f, fmt.Errorf("%w: its number is cut off or too large", ErrFrame)
	}
	return f, nil
}

const (
	// maxNumber leaves room for additions without overflow.
	maxNumber = 1 << 62
	// maxNumberBytes is how long its varint may be.
	maxNumberBytes = 9
)

// cutNumber takes a number off b.
func cutNumber(b []byte) (number uint64, rest []byte, ok bool) {
	if len(b) > 0 && b[0] < 0x80 { // most are of one byte
		return uint64(b[0]), b[1:], true
	}
	number, n := binary.Uvarint(b)
	if n <= 0 || n > maxNumberBytes || number > maxNumber {
		return 0, nil, false
	}
	return number, b[n:], true
}

// AppendFrame appends the header of a frame; the body follows.
func AppendFrame(b []byte, kind Kind, number uint64) []byte {
	return binary.AppendUvarint(append(b, Mark, Version, byte(kind), 0), number)
}

// AppendAccept appends the frame by which an instance accepts a stream.
func AppendAccept(b []byte, id ID, credit uint64, instance string) []byte {
	b = AppendFrame(b, KindAccept, credit)
	return append(append(b, id[:]...), instance...)
}

// ParseAccept reads the body of an accept: whose it is and from which instance.
func ParseAccept(f *Frame) (id ID, instance string, err error) {
	if len(f.Body) <= len(id) {
		return id, "", fmt.Errorf("%w: accept without an instance", ErrFrame)
	}
	copy(id[:], f.Body)
	instance = string(f.Body[len(id):])
	if CheckInstance(instance) != nil {
		return id, "", fmt.Errorf("%w: instance %q", ErrFrame, instance)
	}
	return id, instance, nil
}

// CheckInstance returns what is wrong with the token of an instance: it is one token of a subject.
func CheckInstance(instance string) error {
	if strings.Contains(instance, ".") {
		return fmt.Errorf("%q is more than one token", instance)
	}
	return names.CheckSubject(instance)
}

// AppendHeartbeat appends a heartbeat: the sequence of the next data or end
// frame, and the credit once more.
func AppendHeartbeat(b []byte, next, credit uint64) []byte {
	return binary.AppendUvarint(AppendFrame(b, KindHeartbeat, next), credit)
}

// ParseHeartbeat reads the credit out of the body of a heartbeat.
func ParseHeartbeat(f *Frame) (credit uint64, err error) {
	credit, rest, ok := cutNumber(f.Body)
	if !ok || len(rest) > 0 {
		return 0, fmt.Errorf("%w: the credit of a heartbeat", ErrFrame)
	}
	return credit, nil
}

// Open is what an open says beside the fields of every envelope.
type Open struct {
	Credit    uint64
	Data      []byte // the first bytes of the client's byte stream
	HalfClose bool   // the client sends no messages after those in Data
}

// ParseOpen reads the body of an envelope of KindOpen.
func ParseOpen(e *Envelope) (Open, error) {
	credit, data, ok := cutNumber(e.Body)
	if !ok {
		return Open{}, fmt.Errorf("%w: its credit is cut off or too large", ErrOpen)
	}
	o := Open{Credit: credit, Data: data, HalfClose: e.Flags&FlagHalfClose != 0}
	if len(o.Data) > MaxOpenData {
		return Open{}, fmt.Errorf("%w: %d bytes of data, the limit is %d", ErrOpen, len(o.Data), MaxOpenData)
	}
	return o, nil
}

// AppendOpen appends an open.
func AppendOpen(b []byte, id ID, codec Codec, timeout time.Duration, o Open) []byte {
	flags := Flags(codec)
	if o.HalfClose {
		flags |= FlagHalfClose
	}
	b = appendHeader(b, KindOpen, flags, id)
	b = appendTimeout(b, timeout)
	return append(binary.AppendUvarint(b, o.Credit), o.Data...)
}

// AppendMessagePrefix appends what stands before a message of n bytes.
func AppendMessagePrefix(b []byte, n int) []byte {
	return binary.BigEndian.AppendUint32(append(b, 0), uint32(n))
}

// PutMessagePrefix writes the prefix of a message of n bytes into b.
func PutMessagePrefix(b []byte, compressed bool, n int) {
	b[0] = 0
	if compressed {
		b[0] = 1
	}
	binary.BigEndian.PutUint32(b[1:MessagePrefix], uint32(n))
}

// MessageSize reads the length of a message behind a prefix of this side's own.
func MessageSize(b []byte) int { return int(binary.BigEndian.Uint32(b[1:MessagePrefix])) }

// ParseMessagePrefix reads the length of the message behind a prefix, and whether it is compressed.
func ParseMessagePrefix(b []byte) (n int, compressed bool, err error) {
	if b[0] > 1 {
		return 0, false, fmt.Errorf("%w: message flags %#02x", ErrUnsupported, b[0])
	}
	return MessageSize(b), b[0] == 1, nil
}
