package kvtable

import (
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// Message lets a Protobuf message be a value, or a field of one, in its own
// JSON form.
type Message[T any, M interface {
	*T
	proto.Message
}] struct {
	Msg M
}

// MarshalJSON implements json.Marshaler.
func (m Message[T, M]) MarshalJSON() ([]byte, error) { return protojson.Marshal(m.Msg) }

// UnmarshalJSON implements json.Unmarshaler. Fields that this version of the
// message does not have are left out: a newer replica may have written them.
func (m *Message[T, M]) UnmarshalJSON(b []byte) error {
	m.Msg = new(T)
	return protojson.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, m.Msg)
}
