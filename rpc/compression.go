package rpc

import (
	"errors"
	"fmt"

	"github.com/natscall/natscall/rpc/internal/buffer"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// Compression is how the messages of a call are compressed.
type Compression uint8

const (
	// CompressionNone is no compression, the default.
	CompressionNone = Compression(wire.CompressionNone)
	// CompressionGzip is gzip (RFC 1952), which is available in every language.
	CompressionGzip = Compression(wire.CompressionGzip)
	// CompressionZstd is Zstandard (RFC 8878): faster, and smaller, than gzip.
	CompressionZstd = Compression(wire.CompressionZstd)
)

// String returns "none", "gzip" or "zstd".
func (c Compression) String() string {
	return [...]string{"none", "gzip", "zstd", "unknown compression"}[min(c, CompressionZstd+1)]
}

// WithCompression compresses requests and asks for compressed responses. A message is compressed if
// it has at least 1 KiB and this saves at least an eighth. Plain and one-way requests are never
// compressed. The default is CompressionNone.
func WithCompression(c Compression) ClientCallOption {
	return forCalls(func(o *callOptions) error {
		if c > CompressionZstd {
			return fmt.Errorf("WithCompression(%d): there is no such compression", uint8(c))
		}
		o.compression = c
		return nil
	})
}

// decompress decompresses a message; more than limit bytes are an error.
func (c Compression) decompress(data []byte, limit int) ([]byte, *Error) {
	out, err := buffer.Decompress(wire.Compression(c), data, limit)
	switch {
	case errors.Is(err, buffer.ErrTooLarge):
		return nil, failf(CodeResourceExhausted, ExecutionMayHaveRun, "the decompressed message has more than %d bytes, the limit (rpc.WithMaxMessageSize or WithMaxReceiveSize)", limit)
	case err != nil:
		return nil, failf(CodeInvalidArgument, ExecutionMayHaveRun, "the message does not decompress (%v): %v", c, err)
	}
	return out, nil
}
