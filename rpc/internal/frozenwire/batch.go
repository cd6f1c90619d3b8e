package frozenwire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
)

// KindBatch is the kind of a NATS message that several calls share.
const KindBatch Kind = 32

// BatchOverhead bounds what a batch of one takes beside its item.
const BatchOverhead = batchHeader + 2*maxNumberBytes

const batchHeader = 4

// MaxItems is how many items a batch may have.
const MaxItems = 256

// ErrBatch is the error of ParseBatch.
var ErrBatch = errors.New("invalid batch")

// Batch is a parsed batch. It aliases the parsed bytes.
type Batch []byte

// IsBatch reports whether data is a batch rather than an envelope or a frame.
func IsBatch(data []byte) bool {
	return len(data) >= batchHeader && data[0] == Mark && Kind(data[2]) == KindBatch
}

// ParseBatch checks a batch. What is in the items is not looked at. With ErrBatch the
// result has those items that are whole.
func ParseBatch(data []byte) (Batch, error) {
	switch {
	case !IsBatch(data):
		return nil, fmt.Errorf("%w: %d bytes", ErrBatch, len(data))
	case data[1] != Version:
		return nil, fmt.Errorf("%w: %d; this side speaks %d", ErrVersion, data[1], Version)
	case data[FlagsOffset] != 0:
		return nil, fmt.Errorf("%w: batch with flags %#02x", ErrUnsupported, data[FlagsOffset])
	}
	for items, rest := 0, data[batchHeader:]; len(rest) > 0; items++ {
		whole := Batch(data[batchHeader : len(data)-len(rest)])
		if items == MaxItems {
			return whole, fmt.Errorf("%w: it has more than %d items", ErrBatch, MaxItems)
		}
		var ok bool
		if _, _, rest, ok = cutItem(rest); !ok {
			return whole, fmt.Errorf("%w: it is cut off", ErrBatch)
		}
	}
	return data[batchHeader:], nil
}

// Items returns the items with their tags.
func (b Batch) Items() iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		for rest := []byte(b); len(rest) > 0; {
			tag, item, next, ok := cutItem(rest)
			if !ok || !yield(tag, item) {
				return
			}
			rest = next
		}
	}
}

// cutItem takes an item off b.
func cutItem(b []byte) (tag uint64, item, rest []byte, ok bool) {
	tag, b, ok = cutNumber(b)
	if !ok {
		return 0, nil, nil, false
	}
	size, b, ok := cutNumber(b)
	if !ok || size > uint64(len(b)) {
		return 0, nil, nil, false
	}
	return tag, b[:size:size], b[size:], true
}

// AppendBatch appends the start of a batch; items follow.
func AppendBatch(b []byte) []byte { return append(b, Mark, Version, byte(KindBatch), 0) }

// AppendItem appends an item to a batch.
func AppendItem(b []byte, tag uint64, item []byte) []byte {
	b = binary.AppendUvarint(b, tag)
	b = binary.AppendUvarint(b, uint64(len(item)))
	return append(b, item...)
}
