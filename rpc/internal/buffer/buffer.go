// Package buffer has the memory in which messages are encoded, and compresses them there.
package buffer

import (
	"sync"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// Buffer is where a message is encoded before nats.go copies it. Its owner, who has taken it or
// been given it, puts it back once the message is published.
type Buffer struct {
	B          []byte
	Compressed bool // the message in B is compressed
}

var buffers = sync.Pool{New: func() any { return &Buffer{B: make([]byte, 0, 1024)} }}

// maxPooled keeps a rare larger message from staying in the pool: a bit more than the default of
// max_payload.
const maxPooled = 1<<20 + 64<<10

// Take returns an empty buffer.
func Take() *Buffer { return buffers.Get().(*Buffer) }

// PutBack gives the buffer, which the caller no longer uses, to others.
func (b *Buffer) PutBack() {
	if cap(b.B) <= maxPooled {
		b.B, b.Compressed = b.B[:0], false
		buffers.Put(b)
	}
}

const (
	// minSize is the size from which on compression is tried: smaller messages fit into a network
	// packet anyway.
	minSize = 1024
	// minSaving is the part of a message that compression has to save: less is not worth the
	// receiver's time.
	minSaving = 8
)

// Compress compresses the message, which starts at an offset, if that pays. What stands before
// it stays. A message that is compressed already is left alone.
func (b *Buffer) Compress(c wire.Compression, from int) {
	size := len(b.B) - from
	if b.Compressed || c == wire.CompressionNone || size < minSize {
		return
	}
	out := Take()
	defer out.PutBack()
	out.B = compress(c, out.B, b.B[from:])
	if len(out.B) <= size-size/minSaving {
		b.B, b.Compressed = append(b.B[:from], out.B...), true
	}
}

// Flags are those of an envelope before the message, for a call whose messages may be compressed
// by c.
func (b *Buffer) Flags(c wire.Compression) wire.Flags {
	flags := c.Flags()
	if b.Compressed {
		flags |= wire.FlagCompressed
	}
	return flags
}
