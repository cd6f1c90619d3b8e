package buffer

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/natscall/natscall/rpc/internal/wire"
)

var compressions = []wire.Compression{wire.CompressionGzip, wire.CompressionZstd}

// TestCompress: what pays is compressed, behind what stands before it, and comes back.
func TestCompress(t *testing.T) {
	text := strings.Repeat("natscall ", 1000)
	noise := make([]byte, 4096)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	for _, c := range append(compressions, wire.CompressionNone) {
		for _, test := range []struct {
			name, message string
			pays          bool
		}{
			{"text", text, c != wire.CompressionNone},
			{"short", text[:minSize-1], false},
			{"noise", string(noise), false},
		} {
			b := Take()
			b.B = append(b.B, "envelope"+test.message...)
			b.Compress(c, len("envelope"))
			if b.Compressed != test.pays {
				t.Fatalf("%v, %s: compressed is %v", c, test.name, b.Compressed)
			}
			if want := b.Flags(c)&wire.FlagCompressed != 0; want != test.pays {
				t.Errorf("%v, %s: the flags say %v", c, test.name, want)
			}
			before := len(b.B)
			if b.Compress(c, len("envelope")); b.Compressed && len(b.B) != before {
				t.Errorf("%v, %s: compressed twice", c, test.name)
			}
			got := b.B[len("envelope"):]
			if b.Compressed {
				var err error
				if got, err = Decompress(c, got, len(test.message)); err != nil {
					t.Fatal(err)
				}
			}
			if string(b.B[:len("envelope")]) != "envelope" || string(got) != test.message {
				t.Errorf("%v, %s: it is not what was compressed", c, test.name)
			}
			b.PutBack()
		}
	}
}

// TestDecompressLimit: a message may have as many bytes as the limit, and no more.
func TestDecompressLimit(t *testing.T) {
	const size = 100_000
	for _, c := range compressions {
		b := Take()
		b.B = append(b.B, bytes.Repeat([]byte{'x'}, size)...)
		b.Compress(c, 0)
		if _, err := Decompress(c, b.B, size-1); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%v: one byte over the limit: %v", c, err)
		}
		if out, err := Decompress(c, b.B, size); err != nil || len(out) != size {
			t.Errorf("%v: %d bytes, %v", c, len(out), err)
		}
		b.PutBack()
	}
}

// FuzzDecompress: whatever comes is decompressed or refused, within the limit.
func FuzzDecompress(f *testing.F) {
	const limit = 1 << 16
	for _, c := range compressions {
		b := Take()
		b.B = append(b.B, strings.Repeat("natscall ", 1000)...)
		b.Compress(c, 0)
		f.Add(byte(c), bytes.Clone(b.B))
		b.PutBack()
	}
	f.Fuzz(func(t *testing.T, c byte, data []byte) {
		if out, err := Decompress(wire.Compression(c), data, limit); err == nil && len(out) > limit {
			t.Errorf("%d bytes", len(out))
		}
	})
}

// TestWhatPays: compression is tried from minSize on, and has to save a minSaving-th.
func TestWhatPays(t *testing.T) {
	noise := func(n int) string {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rand.Uint32())
		}
		return string(b)
	}
	for _, c := range compressions {
		for _, test := range []struct {
			name, message string
			pays          bool
		}{
			{"just large enough", strings.Repeat("x", minSize), true},
			{"a bit too small", strings.Repeat("x", minSize-1), false},
			{"a sixteenth is saved", noise(15<<10) + strings.Repeat("x", 1<<10), false},
			{"a quarter is saved", noise(12<<10) + strings.Repeat("x", 4<<10), true},
		} {
			b := Take()
			b.B = append(b.B, test.message...)
			b.Compress(c, 0)
			want := c.Flags()
			if test.pays {
				want |= wire.FlagCompressed
			}
			if b.Compressed != test.pays || b.Flags(c) != want {
				t.Errorf("%v, %s: compressed is %v, flags are %#x", c, test.name, b.Compressed, b.Flags(c))
			}
			b.PutBack()
		}
	}
}

// TestDecompressRefuses: without an agreed compression, and with a window that takes too much
// memory.
func TestDecompressRefuses(t *testing.T) {
	if _, err := Decompress(wire.CompressionNone, []byte("x"), 100); err == nil {
		t.Error("a message is taken though no compression has been agreed on")
	}
	for _, window := range []int{zstdWindow, 2 * zstdWindow} {
		var out bytes.Buffer
		w, err := zstd.NewWriter(&out, zstd.WithWindowSize(window))
		if err != nil {
			t.Fatal(err)
		}
		for range 3 * window >> 20 { // of an unknown size, so that the frame has a window
			_, _ = w.Write(make([]byte, 1<<20))
		}
		_ = w.Close()
		if _, err := Decompress(wire.CompressionZstd, out.Bytes(), 8*window); (err == nil) != (window == zstdWindow) {
			t.Errorf("a window of %d bytes: %v", window, err)
		}
	}
}

// TestLargeBuffers: a buffer that has become large does not stay in the pool.
func TestLargeBuffers(t *testing.T) {
	for range 100 {
		b := Take()
		b.B = make([]byte, 0, maxPooled+1)
		b.PutBack()
		if b = Take(); cap(b.B) > maxPooled {
			t.Fatal("a large buffer is in the pool")
		}
		b.PutBack()
	}
}

// FuzzCompress: what is compressed, where that pays, is decompressed to what it was, and what
// stands before it stays.
func FuzzCompress(f *testing.F) {
	f.Add(byte(1), uint8(20), []byte("natscall "), uint16(200))
	f.Add(byte(2), uint8(0), []byte("x"), uint16(5000))
	f.Add(byte(0), uint8(3), []byte("ab"), uint16(minSize))
	f.Fuzz(func(t *testing.T, c byte, from uint8, part []byte, times uint16) {
		message := bytes.Repeat(part, min(int(times), (64<<10)/max(1, len(part))))
		before := bytes.Repeat([]byte{'h'}, int(from))
		kind := wire.Compression(c % 3)
		b := Take()
		defer b.PutBack()
		b.B = append(append(b.B, before...), message...)
		b.Compress(kind, int(from))
		if !bytes.HasPrefix(b.B, before) {
			t.Error("what stands before the message has changed")
		}
		got := b.B[from:]
		if b.Compressed {
			if len(got) > len(message)-len(message)/minSaving {
				t.Errorf("%d bytes become %d", len(message), len(got))
			}
			var err error
			if got, err = Decompress(kind, got, len(message)); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, message) {
			t.Errorf("%d bytes are another message of %d", len(message), len(got))
		}
	})
}
