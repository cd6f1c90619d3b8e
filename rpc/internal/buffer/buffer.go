// Package buffer has the memory in which messages are encoded, and compresses them there.
package buffer

import "sync"

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
