package rpctap_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/gzip"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctap"
)

// prefixed is a message as it stands in a stream.
func prefixed(flags byte, message string) string {
	return string(binary.BigEndian.AppendUint32([]byte{flags}, uint32(len(message)))) + message
}

func zipped(t *testing.T, text string) string {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write([]byte(text))
	must(t, err)
	must(t, w.Close())
	return out.String()
}

func TestAssembler(t *testing.T) {
	long := strings.Repeat("long ", 1000)
	for name, test := range map[string]struct {
		frames  []string
		want    []string
		partial int
		lost    string // part of Err
	}{
		"two in a frame":  {[]string{prefixed(0, "a") + prefixed(0, "b")}, []string{"a", "b"}, 0, ""},
		"empty":           {[]string{prefixed(0, "") + prefixed(0, "")}, []string{"", ""}, 0, ""},
		"prefix cut":      {[]string{prefixed(0, "abc")[:3], prefixed(0, "abc")[3:]}, []string{"abc"}, 0, ""},
		"message cut":     {[]string{prefixed(0, "abc")[:6], prefixed(0, "abc")[6:] + "\x00"}, []string{"abc"}, 1, ""},
		"not whole":       {[]string{prefixed(0, "abc")[:7]}, nil, 2, ""},
		"compressed":      {[]string{prefixed(1, zipped(t, long))}, []string{long}, 0, ""},
		"wrong prefix":    {[]string{prefixed(0, "a"), "\x07\x00\x00\x00\x00", prefixed(0, "a")}, []string{"a"}, 0, "what should be the beginning"},
		"a frame is lost": {[]string{prefixed(0, "a"), "", prefixed(0, "b")}, []string{"a"}, 0, "frame 2 came, and frame 1 was expected"},
	} {
		t.Run(name, func(t *testing.T) {
			a, got := rpctap.NewAssembler(rpc.CompressionGzip), []string(nil)
			for i, frame := range test.frames {
				if frame == "" {
					continue
				}
				for _, m := range a.Data(uint64(i), []byte(frame)) {
					must(t, m.Err)
					got = append(got, string(m.Data))
				}
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if a.Partial() != test.partial {
				t.Errorf("%d bytes are left", a.Partial())
			}
			if err := a.Err(); (err == nil) != (test.lost == "") || err != nil && !strings.Contains(err.Error(), test.lost) {
				t.Errorf("it is lost because of %v", err)
			}
		})
	}
}

// TestAssemblerLimit: what is too large to be kept is counted, and does not hide what follows.
func TestAssemblerLimit(t *testing.T) {
	a := rpctap.NewAssembler(rpc.CompressionNone)
	size := rpctap.MaxMessage + 1
	got := a.Data(0, binary.BigEndian.AppendUint32([]byte{0}, uint32(size)))
	part := make([]byte, 1<<20)
	sequence := uint64(1)
	for left := size; left > 0; left -= len(part) {
		got = append(got, a.Data(sequence, part[:min(left, len(part))])...)
		sequence++
	}
	got = append(got, a.Data(sequence, []byte(prefixed(0, "next")))...)
	if len(got) != 2 || got[0].Size != size || got[0].Data != nil || got[0].Err == nil || string(got[1].Data) != "next" {
		t.Errorf("got %d messages, %v", len(got), a.Err())
	}
}

// TestAssemblerBroken: a message that does not decompress is an error of its own.
func TestAssemblerBroken(t *testing.T) {
	got := rpctap.NewAssembler(rpc.CompressionZstd).Open([]byte(prefixed(1, "no zstd") + prefixed(0, "b")))
	if len(got) != 2 || got[0].Err == nil || string(got[0].Data) != "no zstd" || string(got[1].Data) != "b" {
		t.Errorf("got %+v", got)
	}
}

// FuzzAssembler: however messages are cut into frames, they come out as they went in.
func FuzzAssembler(f *testing.F) {
	f.Add([]byte("one\xfftwo\xff\xffthree"), uint8(3))
	f.Add([]byte{0xff}, uint8(1))
	f.Add([]byte(strings.Repeat("many bytes", 50)), uint8(200))
	f.Fuzz(func(t *testing.T, data []byte, size uint8) {
		want := bytes.Split(data, []byte{0xff})
		var stream []byte
		for _, m := range want {
			stream = append(stream, prefixed(0, string(m))...)
		}
		a, got := rpctap.NewAssembler(rpc.CompressionNone), [][]byte(nil)
		sequence := uint64(0)
		for frame := range slices.Chunk(stream, int(size)+1) {
			for _, m := range a.Data(sequence, frame) {
				got = append(got, m.Data)
			}
			sequence++
		}
		if diff := cmp.Diff(want, got); diff != "" || a.Partial() != 0 || a.Err() != nil {
			t.Errorf("%d bytes are left, %v (-want +got):\n%s", a.Partial(), a.Err(), diff)
		}
	})
}
