package buffer

import (
	"bytes"
	"errors"
	"io"
	"sync"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/natscall/natscall/rpc/internal/wire"
)

// zstdWindow bounds the memory of a decoder for a frame that asks for more.
const zstdWindow = 8 << 20

// compress appends the compressed form of src to dst.
func compress(c wire.Compression, dst, src []byte) []byte {
	if c == wire.CompressionZstd {
		return zstdEncoder().EncodeAll(src, dst)
	}
	return appendGzip(dst, src)
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

// ErrTooLarge is returned by Decompress for a message over the limit.
var ErrTooLarge = errors.New("the decompressed message is too large")

// Decompress decompresses a message, up to limit bytes. The result shares no memory with data.
// Errors other than ErrTooLarge mean that data is not valid.
func Decompress(c wire.Compression, data []byte, limit int) ([]byte, error) {
	switch c {
	case wire.CompressionGzip:
		return decompressWith(&gzipReaders, data, limit)
	case wire.CompressionZstd:
		return decompressWith(&zstdReaders, data, limit)
	}
	return nil, errors.New("no compression has been agreed on")
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

func decompressWith(readers *sync.Pool, data []byte, limit int) ([]byte, error) {
	r := readers.Get().(resetReader)
	defer func() {
		_ = r.Reset(bytes.NewReader(nil)) // lets go of data
		readers.Put(r)
	}()
	if err := r.Reset(bytes.NewReader(data)); err != nil {
		return nil, err
	}
	var out bytes.Buffer
	out.Grow(4 * min(limit/4, len(data))) // as much as a usual message becomes
	n, err := out.ReadFrom(io.LimitReader(r, int64(limit)+1))
	if err == nil && n > int64(limit) {
		err = ErrTooLarge
	}
	return out.Bytes(), err
}
