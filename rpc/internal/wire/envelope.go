// Package wire has the bytes of the natscall protocol as pure functions:
// envelopes, call ids, subjects and headers. docs/protocol.md is its source.
package wire

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

const (
	// Mark is the first byte of an envelope. No Protobuf message and no JSON
	// text starts with it.
	Mark = 0x00
	// Version is the protocol version that this package writes and reads.
	Version = 1
	// HeaderSize is the size of what every envelope starts with.
	HeaderSize = 20

	idOffset = 4
	// maxTimeoutBytes is how long the varint of a timeout may be.
	maxTimeoutBytes = 9
)

// Kind is the kind of an envelope.
type Kind uint8

// The kinds of envelopes.
const (
	KindRequest Kind = iota + 1
	KindResponse
	KindCancel
	KindAliveQuery
	KindAliveAnswer
)

// The kinds by which a client asks instances what they are. KindOpen stands between these and those
// above.
const (
	KindInstanceQuery Kind = iota + 7
	KindInstanceAnswer
)

// Flags are the flags of an envelope.
type Flags uint8

// The flags. The two lowest bits hold the codec.
const (
	FlagError Flags = 1 << 4 // the body is a Status

	// FlagNameInstance of a request asks for the instance's token in the answer.
	FlagNameInstance Flags = 1 << 4

	// FlagCompressed says that the message is compressed.
	FlagCompressed Flags = 1 << 7

	codecMask       Flags = 0b11
	compressionMask Flags = 0b11 << compressionShift

	compressionShift = 2

	// requestAdvice are flags of requests, openAdvice of opens, that a receiver that does not know
	// them ignores.
	requestAdvice Flags = 1 << 5
	openAdvice    Flags = 0b11 << 4
)

// Execution is what an error says about the handler: whether it ran.
type Execution uint8

// What an error may say.
const (
	DidRun     Execution = iota // the handler ran
	NotRun                      // it certainly did not run
	MayHaveRun                  // the instance cannot know, as others got the request too
	Refused                     // it did not run, and another instance may take the call
)

const (
	executionShift       = 5
	executionMask  Flags = 0b11 << executionShift
)

// Flags returns x as it stands in the flags of an error.
func (x Execution) Flags() Flags { return Flags(x) << executionShift }

// Execution returns what the flags of an error say.
func (f Flags) Execution() Execution { return Execution(f & executionMask >> executionShift) }

// Compression is how messages may be compressed.
type Compression uint8

// The compressions.
const (
	CompressionNone Compression = iota
	CompressionGzip
	CompressionZstd
)

// Flags returns c as it stands in the flags.
func (c Compression) Flags() Flags { return Flags(c) << compressionShift }

// Compression returns the compression that the flags name.
func (f Flags) Compression() Compression { return Compression(f & compressionMask >> compressionShift) }

// Codec is the encoding of a message in an envelope.
type Codec uint8

// The codecs.
const (
	CodecProto Codec = iota
	CodecJSON
)

// Codec returns the codec that the flags name.
func (f Flags) Codec() Codec { return Codec(f & codecMask) }

// ID is a call id: 128 unguessable bits.
type ID [16]byte

// NewID returns a new call id. Its source is the runtime's ChaCha8 generator,
// keyed by the operating system and kept by each thread: as hard to guess as
// crypto/rand, without a system call or a lock for each call.
func NewID() (id ID) {
	binary.LittleEndian.PutUint64(id[:8], rand.Uint64())
	binary.LittleEndian.PutUint64(id[8:], rand.Uint64())
	return id
}

// String returns the id in hexadecimal.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// ParseID is the inverse of String.
func ParseID(s string) (id ID, ok bool) {
	if len(s) != hex.EncodedLen(len(id)) {
		return id, false
	}
	_, err := hex.Decode(id[:], []byte(s))
	return id, err == nil
}

// IDOf returns the call id of an envelope that this side has written.
func IDOf(envelope []byte) ID { return ID(envelope[idOffset:HeaderSize]) }

// ResponseOf returns what is in the envelope of a response that Parse has accepted.
func ResponseOf(envelope []byte) (flags Flags, body []byte) {
	return Flags(envelope[FlagsOffset]), envelope[HeaderSize:]
}

// Envelope is a parsed envelope. Body aliases the parsed bytes.
type Envelope struct {
	Kind    Kind
	Flags   Flags
	ID      ID
	Timeout time.Duration // of a request; 0 means that it names none, NoTimeout that it wants none
	Body    []byte        // the message or status; for a cancel and the alive kinds, further ids
}

// The errors of Parse. ErrVersion and ErrUnsupported come with an envelope
// that has at least its ID, so that the sender can be told.
var (
	ErrNotEnvelope = errors.New("not an envelope")
	ErrTruncated   = errors.New("truncated envelope")
	ErrVersion     = errors.New("unsupported protocol version")
	ErrUnsupported = errors.New("unsupported envelope")
	ErrTimeout     = errors.New("invalid timeout in envelope")
	ErrIDs         = errors.New("list of call ids is cut off")
)

// IsEnvelope reports whether data is an envelope rather than a plain message.
func IsEnvelope(data []byte) bool { return len(data) > 0 && data[0] == Mark }

// Parse parses an envelope. The result is meaningful, as far as it goes, also
// with ErrVersion, ErrUnsupported and ErrTimeout.
func Parse(data []byte) (Envelope, error) {
	if !IsEnvelope(data) {
		return Envelope{}, ErrNotEnvelope
	}
	if len(data) < HeaderSize {
		return Envelope{}, fmt.Errorf("%w: %d bytes of %d", ErrTruncated, len(data), HeaderSize)
	}
	e := Envelope{Kind: Kind(data[2]), Flags: Flags(data[3]), Body: data[HeaderSize:]}
	copy(e.ID[:], data[idOffset:])
	if data[1] != Version {
		return e, fmt.Errorf("%w: %d; this side speaks %d", ErrVersion, data[1], Version)
	}
	return e, e.check()
}

// check refuses what this version does not define, and takes the timeout off
// the body of a request.
func (e *Envelope) check() error {
	allowed := codecMask | compressionMask | FlagCompressed
	switch {
	case e.Kind == KindRequest:
		e.Flags &^= requestAdvice
		allowed |= FlagNameInstance
	case e.Kind == KindOpen:
		e.Flags &^= openAdvice
		allowed = codecMask | compressionMask | FlagHalfClose
	case e.Kind == KindResponse && e.Flags&FlagError != 0:
		allowed = codecMask | compressionMask | FlagError | executionMask
	case e.Kind == KindResponse:
		allowed = codecMask | compressionMask | FlagCompressed
	}
	if e.Flags&^allowed != 0 || e.Flags.Codec() > CodecJSON || e.Flags.Compression() > CompressionZstd ||
		e.Flags&FlagCompressed != 0 && e.Flags.Compression() == CompressionNone {
		return fmt.Errorf("%w: flags %#02x", ErrUnsupported, uint8(e.Flags))
	}
	switch e.Kind {
	case KindRequest, KindOpen:
		return e.cutTimeout()
	case KindResponse, KindCancel, KindInstanceQuery, KindInstanceAnswer:
		return nil
	case KindAliveQuery, KindAliveAnswer:
		if len(e.Body)%len(e.ID) != 0 {
			return ErrIDs
		}
		return nil
	}
	return fmt.Errorf("%w: kind %d", ErrUnsupported, uint8(e.Kind))
}

// NoTimeout is the timeout of a request whose caller wants none. On the wire it is noTimeout.
const (
	NoTimeout time.Duration = -1
	noTimeout               = 1 << 62
)

func (e *Envelope) cutTimeout() error {
	micros, n := binary.Uvarint(e.Body)
	if n > 0 && n <= maxTimeoutBytes && micros == noTimeout {
		e.Timeout, e.Body = NoTimeout, e.Body[n:]
		return nil
	}
	if n <= 0 || n > maxTimeoutBytes || micros > math.MaxInt64/uint64(time.Microsecond) {
		return ErrTimeout
	}
	e.Timeout = time.Duration(micros) * time.Microsecond
	e.Body = e.Body[n:]
	return nil
}

// IDs returns an iterator over the ids of a cancel, an alive query or its answer.
func (e *Envelope) IDs() func(yield func(ID) bool) {
	return func(yield func(ID) bool) {
		if !yield(e.ID) {
			return
		}
		for rest := e.Body; len(rest) >= len(e.ID); rest = rest[len(e.ID):] {
			if !yield(ID(rest[:len(e.ID)])) {
				return
			}
		}
	}
}

// AppendRequest appends the envelope of a request; the message follows. A
// timeout above zero is rounded up to a microsecond, so that it stays one.
func AppendRequest(b []byte, id ID, codec Codec, timeout time.Duration) []byte {
	return appendTimeout(appendHeader(b, KindRequest, Flags(codec), id), timeout)
}

func appendTimeout(b []byte, timeout time.Duration) []byte {
	if timeout == NoTimeout {
		return binary.AppendUvarint(b, noTimeout)
	}
	return binary.AppendUvarint(b, roundUp(timeout, time.Microsecond))
}

// roundUp is d in whole units, so that a timeout above zero stays one. The
// largest durations, of a deadline that is centuries away, are rounded down:
// a unit more would not fit into a Duration on the other side.
func roundUp(d, unit time.Duration) uint64 {
	n := max(0, d/unit)
	if d%unit > 0 && n < math.MaxInt64/unit {
		n++
	}
	return uint64(n)
}

// AppendResponse appends the envelope of a response; the message or status follows.
func AppendResponse(b []byte, id ID, codec Codec, flags Flags) []byte {
	return appendHeader(b, KindResponse, flags|Flags(codec), id)
}

// AppendCancel appends a cancel of calls, of which there must be at least one.
func AppendCancel(b []byte, ids ...ID) []byte { return appendIDs(b, KindCancel, ids) }

// AppendAlive appends an alive query or answer about ids, of which there must
// be at least one.
func AppendAlive(b []byte, kind Kind, ids ...ID) []byte { return appendIDs(b, kind, ids) }

func appendIDs(b []byte, kind Kind, ids []ID) []byte {
	b = appendHeader(b, kind, 0, ids[0])
	for i := range ids[1:] {
		b = append(b, ids[i+1][:]...)
	}
	return b
}

// AppendInstanceQuery appends the question to instances what they are.
func AppendInstanceQuery(b []byte, id ID) []byte {
	return appendHeader(b, KindInstanceQuery, 0, id)
}

// AppendInstanceAnswer appends the envelope of the answer to such a query; the message follows.
func AppendInstanceAnswer(b []byte, id ID) []byte {
	return appendHeader(b, KindInstanceAnswer, 0, id)
}

func appendHeader(b []byte, kind Kind, flags Flags, id ID) []byte {
	b = append(b, Mark, Version, byte(kind), byte(flags))
	return append(b, id[:]...)
}
