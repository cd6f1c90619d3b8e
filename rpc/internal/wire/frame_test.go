package wire_test

import (
	"bytes"
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/natscall/natscall/rpc/internal/wire"
)

func TestParseFrameRefusals(t *testing.T) {
	id := wire.NewID()
	tests := []struct {
		name string
		data []byte
		want error
	}{
		{"empty", nil, wire.ErrFrame},
		{"envelope", wire.AppendCancel(nil, id), wire.ErrFrame},
		{"text", []byte("{}{}{}"), wire.ErrFrame},
		{"no number", []byte{0, 1, 17, 0}, wire.ErrFrame},
		{"number cut off", []byte{0, 1, 17, 0, 0x80}, wire.ErrFrame},
		{"number of ten bytes", append([]byte{0, 1, 17, 0}, overlong(10)...), wire.ErrFrame},
		{"number too large", wire.AppendFrame(nil, wire.KindData, math.MaxUint64), wire.ErrFrame},
		{"version", []byte{0, 2, 17, 0, 0}, wire.ErrVersion},
		{"kind", []byte{0, 1, 23, 0, 0}, wire.ErrUnsupported},
		{"kind of a batch", []byte{0, 1, 32, 0, 0}, wire.ErrUnsupported},
		{"advice of another version", []byte{0, 2, 24, 0, 0}, wire.ErrVersion},
		{"flags", []byte{0, 1, 17, byte(wire.NotRun.Flags()), 0}, wire.ErrUnsupported},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if _, err := wire.ParseFrame(test.data); !errors.Is(err, test.want) {
				t.Errorf("error is %v, want %v", err, test.want)
			}
		})
	}
}

// FuzzFrame: what is read of a frame is what the Append functions would write for it.
func FuzzFrame(f *testing.F) {
	for _, block := range hexBlocks(f) {
		f.Add(block)
	}
	f.Add(append([]byte{0, 1, 17, 0}, overlong(9)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		frame, err := wire.ParseFrame(data)
		if err != nil {
			if !errors.Is(err, wire.ErrFrame) && !errors.Is(err, wire.ErrVersion) && !errors.Is(err, wire.ErrUnsupported) {
				t.Errorf("undocumented error: %v", err)
			}
			return
		}
		again, err := wire.ParseFrame(rewriteFrame(&frame))
		if err != nil {
			t.Fatalf("%+v is written so that it cannot be read: %v", frame, err)
		}
		if diff := cmp.Diff(frame, again, cmp.Comparer(bytes.Equal)); diff != "" {
			t.Error(diff)
		}
	})
}

// rewriteFrame writes a parsed frame again.
func rewriteFrame(f *wire.Frame) []byte {
	if id, instance, err := wire.ParseAccept(f); f.Kind == wire.KindAccept && err == nil {
		return wire.AppendAccept(nil, id, f.Number, instance)
	}
	if credit, err := wire.ParseHeartbeat(f); f.Kind == wire.KindHeartbeat && err == nil {
		out := wire.AppendHeartbeat(nil, f.Number, credit)
		if len(out) == len(wire.AppendFrame(nil, f.Kind, f.Number))+len(f.Body) {
			// The credit is not overlong.
			return out
		}
	}
	b := wire.AppendFrame(nil, f.Kind, f.Number)
	b[wire.FlagsOffset] = byte(f.Flags)
	return append(b, f.Body...)
}

// FuzzOpen: likewise for an open.
func FuzzOpen(f *testing.F) {
	f.Add(hexBlocks(f)["open"])
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := wire.Parse(data)
		if err != nil || e.Kind != wire.KindOpen {
			return
		}
		open, err := wire.ParseOpen(&e)
		if err != nil {
			if !errors.Is(err, wire.ErrOpen) {
				t.Errorf("undocumented error: %v", err)
			}
			return
		}
		out := wire.AppendOpen(nil, e.ID, e.Flags.Codec(), e.Timeout, open)
		out[wire.FlagsOffset] = byte(e.Flags) // and the compression
		again, err := wire.Parse(out)
		if err != nil {
			t.Fatalf("%+v is written so that it cannot be read: %v", open, err)
		}
		reopened, err := wire.ParseOpen(&again)
		if err != nil || e.ID != again.ID || e.Timeout != again.Timeout {
			t.Errorf("%+v is read as %+v: %v", e, again, err)
		}
		if diff := cmp.Diff(open, reopened, cmp.Comparer(bytes.Equal)); diff != "" {
			t.Error(diff)
		}
	})
}

// FuzzBatch: what is read of a batch is what the Append functions would write for it.
func FuzzBatch(f *testing.F) {
	f.Add(wire.AppendItem(wire.AppendItem(wire.AppendBatch(nil), 7, []byte("x")), 1<<62, nil))
	f.Add([]byte{0, 1, 32, 0, 1, 9, 'x'})
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := wire.ParseBatch(data)
		if err != nil {
			return
		}
		again := wire.AppendBatch(nil)
		for tag, item := range b.Items() {
			again = wire.AppendItem(again, tag, item)
		}
		if len(again) > len(data) { // varints may be longer than they need
			t.Errorf("%x is read as %x", data, again)
		}
		second, err := wire.ParseBatch(again)
		if err != nil || len(second) != len(again)-len(wire.AppendBatch(nil)) {
			t.Errorf("%x is not read again: %v", again, err)
		}
	})
}
