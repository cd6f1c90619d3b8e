package rpc

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

const (
	// minAlias is the size from which it pays to leave a bytes field where it
	// has been received.
	minAlias = 1 << 10
	// maxKeep is how many times its size a field may keep.
	maxKeep = 4
	// maxScan bounds how many fields are looked at: a message with many has no
	// large one that is worth the search.
	maxScan = 16
)

// largeField is the occurrence of a field that makes up most of an encoded
// message: the messages that carry files, chunks and blobs are like that.
type largeField struct {
	number     protowire.Number
	start, end int // of the occurrence, with its tag
	value      []byte
}

// findLargeField returns the zero value where there is none, and where data is not valid.
func findLargeField(data []byte, minimum int) largeField {
	minimum = max(minimum, len(data)/2)
	at := 0
	for range maxScan {
		number, kind, n := protowire.ConsumeTag(data[at:])
		if n < 0 {
			break
		}
		size := protowire.ConsumeFieldValue(number, kind, data[at+n:])
		if size < 0 {
			break
		}
		end := at + n + size
		if kind == protowire.BytesType && size > minimum {
			if value, _ := protowire.ConsumeBytes(data[at+n:]); len(value) >= minimum {
				return largeField{number, at, end, value}
			}
		}
		at = end
	}
	return largeField{}
}

// unmarshal decodes what is before the field, sets the field, and decodes
// what is behind it: the result is the same as of decoding it all.
func (f *largeField) unmarshal(data []byte, m proto.Message) error {
	r := m.ProtoReflect()
	field := r.Descriptor().Fields().ByNumber(f.number)
	_, vt := m.(vtUnmarshaler)
	if field == nil || field.Kind() != protoreflect.BytesKind || field.IsList() ||
		vt && r.Descriptor().RequiredNumbers().Len() > 0 { // UnmarshalVT wants them in every part
		return unmarshalProto(data, m, wholeMessage)
	}
	if f.start > 0 {
		if err := unmarshalProto(data[:f.start], m, partOfMessage); err != nil {
			return err
		}
	}
	r.Set(field, protoreflect.ValueOfBytes(f.value[:len(f.value):len(f.value)]))
	if f.end < len(data) {
		if err := unmarshalProto(data[f.end:], m, partOfMessage); err != nil {
			return err
		}
	}
	if vt {
		return nil
	}
	return proto.CheckInitialized(m)
}
