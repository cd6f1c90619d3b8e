package rpc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// Compression is how the messages of a call are compressed.
type Compression uint8

const (
	// CompressionNone does not compress, the default.
	CompressionNone = Compression(wire.CompressionNone)
	// CompressionGzip is gzip (RFC 1952), which every language has.
	CompressionGzip = Compression(wire.CompressionGzip)
	// CompressionZstd is Zstandard (RFC 8878): faster, and smaller, than gzip.
	CompressionZstd = Compression(wire.CompressionZstd)
)

// String returns "none", "gzip" or "zstd".
func (c Compression) String() string {
	return [...]string{"none", "gzip", "zstd", "unknown compression"}[min(c, CompressionZstd+1)]
}

// WithCompression compresses requests, and asks for compressed responses,
// where it pays: from 1 KiB on, if at least an eighth is saved. It does
// nothing for plain and one-way requests.
func WithCompression(c Compression) interface {
	ClientOption
	CallOption
} {
	return forCalls(func(o *callOptions) error {
		if c > CompressionZstd {
			return fmt.Errorf("WithCompression(%d): there is no such compression", uint8(c))
		}
		o.compression = c
		return nil
	})
}

const (
	// minCompressed is the size from which on compression is tried: smaller
	// messages fit into a network packet anyway.
	minCompressed = 1024
	// minSaving is the part of a message that has to be saved: less is not
	// worth the receiver's time.
	minSaving = 8
	// zstdWindow bounds the memory of a decoder for a frame that asks for more.
	zstdWindow = 8 << 20
)

// pack compresses what is in the buffer from an offset on, if that pays.
func (b *buffer) pack(c Compression, from int) {
	size := len(b.b) - from
	if b.packed || c == CompressionNone || size < minCompressed {
		return
	}
	out := takeBuffer()
	defer out.putBack()
	if c == CompressionZstd {
		out.b = zstdEncoder().EncodeAll(b.b[from:], out.b)
	} else {
		out.b = appendGzip(out.b, b.b[from:])
	}
	if len(out.b) <= size-size/minSaving {
		b.b, b.packed = append(b.b[:from], out.b...), true
	}
}

// flags says how the message behind an envelope is compressed.
func (b *buffer) flags(c Compression) byte {
	flags := wire.Compression(c).Flags()
	if b.packed {
		flags |= wire.FlagCompressed
	}
	return byte(flags)
}

var zstdEncoder = sync.OnceValue(func() *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	if err != nil {
		panic(err) // of an invalid option, which is constant
	}
	return e
})

var gzipWriters = sync.Pool{New: func() any {
	w, err := gzip.NewWriterLevel(nil, gzip.BestSpeed)
	if err != nil {
		panic(err) // likewise
	}
	return w
}}

func appendGzip(dst, src []byte) []byte {
	w := gzipWriters.Get().(*gzip.Writer)
	defer gzipWriters.Put(w)
	out := bytes.NewBuffer(dst)
	w.Reset(out)
	_, _ = w.Write(src) // a bytes.Buffer takes everything
	_ = w.Close()
	return out.Bytes()
}

var errUnpackedTooLarge = errors.New("the decompressed message is too large")

// unpack decompresses a message, up to limit bytes.
func (c Compression) unpack(data []byte, limit int) (out []byte, failed *Error) {
	var err error
	switch c {
	case CompressionGzip:
		out, err = unpackWith(&gzipReaders, data, limit)
	case CompressionZstd:
		out, err = unpackWith(&zstdReaders, data, limit)
	default:
		err = errors.New("no compression has been agreed on")
	}
	switch {
	case errors.Is(err, errUnpackedTooLarge):
		return nil, failf(CodeResourceExhausted, MayHaveRun, "the decompressed message has more than %d bytes, the limit (rpc.WithMaxMessageSize)", limit)
	case err != nil:
		return nil, failf(CodeInvalidArgument, MayHaveRun, "the message does not decompress (%v): %v", c, err)
	}
	return out, nil
}

// resetReader is a decoder that can be used again.
type resetReader interface {
	io.Reader
	Reset(io.Reader) error
}

var (
	gzipReaders = sync.Pool{New: func() any { return new(gzip.Reader) }}
	zstdReaders = sync.Pool{New: func() any {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(zstdWindow))
		if err != nil {
			panic(err) // of an invalid option, which is constant
		}
		return d
	}}
)

func unpackWith(pool *sync.Pool, data []byte, limit int) ([]byte, error) {
	r := pool.Get().(resetReader)
	defer func() {
		_ = r.Reset(bytes.NewReader(nil)) // lets go of data
		pool.Put(r)
	}()
	if err := r.Reset(bytes.NewReader(data)); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.Grow(4 * min(limit/4, len(data))) // as much as a usual message becomes
	n, err := out.ReadFrom(io.LimitReader(r, int64(limit)+1))
	if err == nil && n > int64(limit) {
		err = errUnpackedTooLarge
	}
	return out.Bytes(), err
}
