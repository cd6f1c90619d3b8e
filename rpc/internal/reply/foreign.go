package reply

import (
	"bytes"
	"encoding/json"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// Foreign counts what came to a call and was not its reply.
type Foreign struct {
	Acks   int // of JetStream streams
	Others int // without natscall's mark
}

// Count counts a message that is not natscall's.
func (f *Foreign) Count(m *nats.Msg) {
	switch {
	case isPubAck(m):
		f.Acks++
	case !wire.IsEnvelope(m.Data):
		f.Others++
	}
}

// isPubAck reports whether a reply is the acknowledgement of a JetStream stream, which comes where
// one captures the subject of the request. It has no header.
func isPubAck(m *nats.Msg) bool { return len(m.Header) == 0 && LooksLikePubAck(m.Data) }

// LooksLikePubAck reports whether data has the form of an acknowledgement: that a stream has stored
// the request, or why not (as when it is full). It has no other fields than these.
func LooksLikePubAck(data []byte) bool {
	if !bytes.HasPrefix(data, []byte("{")) || !bytes.Contains(data, []byte(`"stream":`)) {
		return false
	}
	var ack struct {
		Stream    string          `json:"stream"`
		Sequence  *uint64         `json:"seq"`
		Error     json.RawMessage `json:"error"`
		Domain    string          `json:"domain"`
		Duplicate bool            `json:"duplicate"`
		Value     string          `json:"val"`
		BatchID   string          `json:"batch"`
		BatchSize int             `json:"count"`
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	return d.Decode(&ack) == nil && ack.Stream != "" && ack.Sequence != nil
}
