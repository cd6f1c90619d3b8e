package rpctap

import "github.com/natscall/natscall/rpc/internal/wire"

// Kind is what a NATS message is in a call. docs/protocol.md explains the kinds.
type Kind uint8

const (
	// KindInvalid is a message that breaks the protocol, or speaks another version of it.
	// [Message.Err] says what is wrong.
	KindInvalid Kind = iota

	KindRequest        // a request in an envelope
	KindResponse       // the response to it
	KindError          // an error instead of the response, or of the accept of a stream
	KindCancel         // the caller waits no longer for calls
	KindAliveQuery     // a client asks whether somebody works on its calls
	KindAliveAnswer    // an instance says on which of them
	KindInstanceQuery  // a client asks instances what they are
	KindInstanceAnswer // an instance says what it is, in a natscall.v1.Instance
	KindBatch          // several requests or answers

	KindOpen         // opens a stream, also that of a large request
	KindAccept       // an instance takes the stream, or announces a large response
	KindData         // a part of the messages of one side
	KindEnd          // the end of one side's messages; on the server's the end of the call
	KindCredit       // how much the other side may send
	KindHeartbeat    // the sender is there
	KindStreamCancel // the client wants no more of the stream
	KindHeader       // the response header, before the first message
	KindAdvice       // a frame of a later version, which receivers may ignore

	KindPlain        // a message without an envelope: a request, or the answer to one
	KindPlainError   // an error in answer to a plain request
	KindPlainEnd     // the end of the stream of a plain request
	KindClose        // nothing, behind the end of a stream: accounts forget its reply subject then
	KindNoResponders // NATS says that nobody listens to the subject of the request
)

var kindNames = [...]string{
	"invalid",
	"request", "response", "error", "cancel", "alive_query", "alive_answer", "instance_query", "instance_answer", "batch",
	"open", "accept", "data", "end", "credit", "heartbeat", "stream_cancel", "header", "advice",
	"plain", "plain_error", "plain_end", "close", "no_responders",
}

// String returns the name in lower snake case, as in "alive_query".
func (k Kind) String() string { return kindNames[min(int(k), len(kindNames)-1)] }

// MarshalText returns what String does.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// IsControl reports whether a message of the kind carries nothing of callers and handlers: it asks
// whether a peer is there, or says how much it may send.
func (k Kind) IsControl() bool {
	switch k {
	case KindAliveQuery, KindAliveAnswer, KindInstanceQuery, KindInstanceAnswer, KindCredit, KindHeartbeat, KindAdvice, KindClose:
		return true
	}
	return false
}

// kindOf returns the kind of an envelope or a frame on the wire.
func kindOf(k wire.Kind) Kind {
	switch {
	case k.IsAdvice():
		return KindAdvice
	case k >= wire.KindAccept && k <= wire.KindHeader:
		return KindAccept + Kind(k-wire.KindAccept)
	}
	switch k {
	case wire.KindRequest:
		return KindRequest
	case wire.KindResponse:
		return KindResponse
	case wire.KindCancel:
		return KindCancel
	case wire.KindAliveQuery:
		return KindAliveQuery
	case wire.KindAliveAnswer:
		return KindAliveAnswer
	case wire.KindOpen:
		return KindOpen
	case wire.KindInstanceQuery:
		return KindInstanceQuery
	case wire.KindInstanceAnswer:
		return KindInstanceAnswer
	}
	return KindInvalid
}

// Side is the side of a call that has sent a message.
type Side uint8

// The sides.
const (
	SideUnknown Side = iota
	SideClient
	SideServer // NATS too, if it says that nobody listens
)

// String returns "client", "server" or "unknown".
func (s Side) String() string {
	return [...]string{"unknown", "client", "server"}[min(s, SideServer)]
}

// MarshalText returns what String does.
func (s Side) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// side returns which side sends messages of a kind, if it is always the same.
func (k Kind) side() Side {
	switch k {
	case KindRequest, KindCancel, KindAliveQuery, KindInstanceQuery, KindOpen, KindStreamCancel:
		return SideClient
	case KindResponse, KindError, KindAliveAnswer, KindInstanceAnswer, KindAccept, KindHeader,
		KindPlainError, KindPlainEnd, KindClose, KindNoResponders:
		return SideServer
	}
	return SideUnknown
}
