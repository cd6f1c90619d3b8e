package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/natscall/natscall/rpc/internal/wire"
)

var someID = wire.ID{0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xfb, 0xfc, 0xfd, 0xfe, 0xff}

// envelope is an envelope of someID by hand.
func envelope(version, kind, flags byte, body ...byte) []byte {
	b := append([]byte{0, version, kind, flags}, someID[:]...)
	return append(b, body...)
}

func TestParseRefusals(t *testing.T) {
	tests := []struct {
		name string
		data []byte
		err  error
	}{
		{"nothing", nil, wire.ErrNotEnvelope},
		{"a Protobuf message", []byte{0x0a, 2, '4', '2'}, wire.ErrNotEnvelope},
		{"JSON", []byte("{}"), wire.ErrNotEnvelope},
		{"the mark alone", []byte{0}, wire.ErrTruncated},
		{"half an id", envelope(1, 1, 0)[:12], wire.ErrTruncated},
		{"a byte too few", envelope(1, 2, 0)[:19], wire.ErrTruncated},
		{"version 0", envelope(0, 1, 0, 0), wire.ErrVersion},
		{"version 2", envelope(2, 1, 0, 0), wire.ErrVersion},
		{"version 2 of an unknown kind", envelope(2, 99, 0xff), wire.ErrVersion},
		{"kind 0", envelope(1, 0, 0, 0), wire.ErrUnsupported},
		{"kind 9", envelope(1, 9, 0, 0), wire.ErrUnsupported},
		{"kind 255", envelope(1, 255, 0, 0), wire.ErrUnsupported},
		{"codec 2", envelope(1, 1, 2, 0), wire.ErrUnsupported},
		{"codec 3", envelope(1, 2, 3), wire.ErrUnsupported},
		{"compression 3", envelope(1, 1, 3<<2, 0), wire.ErrUnsupported},
		{"compressed by nothing", envelope(1, 2, 1<<7), wire.ErrUnsupported},
		{"compressed open", envelope(1, 6, 1<<7|1<<2, 0), wire.ErrUnsupported},
		{"flag 6", envelope(1, 1, 1<<6, 0), wire.ErrUnsupported},
		{"flag 7", envelope(1, 3, 1<<7), wire.ErrUnsupported},
		{"request without a timeout", envelope(1, 1, 0), wire.ErrTimeout},
		{"timeout is cut off", envelope(1, 1, 0, 0x80, 0x80), wire.ErrTimeout},
		{"timeout of ten bytes", envelope(1, 1, 0, overlong(10)...), wire.ErrTimeout},
		{"timeout over 64 bits", envelope(1, 1, 0, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255), wire.ErrTimeout},
		{"no timeout in ten bytes", envelope(1, 1, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0xc0, 0), wire.ErrTimeout},
		{"more than no timeout", envelope(1, 1, 0, binary.AppendUvarint(nil, 1<<62+1)...), wire.ErrTimeout},
		{"timeout over a Duration", envelope(1, 1, 0, binary.AppendUvarint(nil, math.MaxInt64/1000+1)...), wire.ErrTimeout},
		{"alive query with half an id", envelope(1, 4, 0, 1, 2, 3), wire.ErrIDs},
		{"alive answer with half an id", envelope(1, 5, 0, make([]byte, 31)...), wire.ErrIDs},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			e, err := wire.Parse(test.data)
			if !errors.Is(err, test.err) {
				t.Fatalf("error is %v, want %v", err, test.err)
			}
			if len(test.data) >= wire.HeaderSize && test.data[0] == wire.Mark && e.ID != someID {
				t.Errorf("the id, to answer with, is %v", e.ID)
			}
		})
	}
}

// overlong is a zero in a varint of n bytes.
func overlong(n int) []byte {
	b := bytes.Repeat([]byte{0x80}, n)
	b[n-1] = 0
	return b
}

func TestParseAccepts(t *testing.T) {
	tests := []struct {
		name string
		data []byte
		want wire.Envelope
	}{
		{"request of an empty message", envelope(1, 1, 0, 0), wire.Envelope{Kind: wire.KindRequest}},
		{"timeout of nine bytes", envelope(1, 1, 0, append(overlong(9), 'x')...), wire.Envelope{Kind: wire.KindRequest, Body: []byte("x")}},
		{"the longest timeout", envelope(1, 1, 0, binary.AppendUvarint(nil, math.MaxInt64/1000)...),
			wire.Envelope{Kind: wire.KindRequest, Timeout: longest}},
		{"JSON response", envelope(1, 2, 1, '{', '}'), wire.Envelope{Kind: wire.KindResponse, Flags: 1, Body: []byte("{}")}},
		{"error that did not run", envelope(1, 2, 0x30), wire.Envelope{Kind: wire.KindResponse, Flags: wire.FlagError | wire.NotRun.Flags()}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			test.want.ID = someID
			got, err := wire.Parse(test.data)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, cmp.Comparer(bytes.Equal)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// TestTimeoutOfRequests: it is rounded up, never to none, and stays a Duration.
func TestTimeoutOfRequests(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{
		0: 0, -time.Second: 0, 1: time.Microsecond, 999: time.Microsecond, 1000: time.Microsecond, 1001: 2 * time.Microsecond,
		time.Hour: time.Hour, math.MaxInt64: longest, math.MinInt64: 0,
	} {
		e, err := wire.Parse(wire.AppendRequest(nil, someID, wire.CodecProto, timeout))
		if err != nil || e.Timeout != want {
			t.Errorf("%d ns arrives as %d ns (%v), want %d", timeout, e.Timeout, err, want)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	for range 5000 {
		body := make([]byte, rnd.IntN(40))
		for i := range body {
			body[i] = byte(rnd.Uint32())
		}
		roundTrip(t, wire.NewID(), rnd.IntN(2) == 1, byte(rnd.UintN(8))<<4, time.Duration(rnd.Int64()>>rnd.UintN(64)), body)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// roundTrip checks that Parse reads what the Append functions write, behind
// what is in the buffer already.
func roundTrip(t *testing.T, id wire.ID, json bool, flags byte, timeout time.Duration, body []byte) {
	t.Helper()
	codec, f := wire.CodecProto, wire.Flags(0)
	if wire.Flags(flags)&wire.FlagError != 0 { // only an error says something about its handler
		f = wire.Flags(flags) & (wire.FlagError | wire.Refused.Flags())
	}
	if json {
		codec = wire.CodecJSON
	}
	ids := []wire.ID{id, someID, wire.NewID()}
	rest := append(slices.Clone(ids[1][:]), ids[2][:]...)
	before := slices.Clip([]byte("before"))
	for _, c := range []struct {
		data []byte
		want wire.Envelope
	}{
		{append(wire.AppendRequest(before, id, codec, timeout), body...), wire.Envelope{Kind: wire.KindRequest, Flags: wire.Flags(codec), Timeout: micros(timeout), Body: body}},
		{append(wire.AppendResponse(before, id, codec, f), body...), wire.Envelope{Kind: wire.KindResponse, Flags: f | wire.Flags(codec), Body: body}},
		{wire.AppendCancel(before, id), wire.Envelope{Kind: wire.KindCancel}},
		{wire.AppendAlive(before, wire.KindAliveQuery, ids...), wire.Envelope{Kind: wire.KindAliveQuery, Body: rest}},
		{wire.AppendAlive(before, wire.KindAliveAnswer, id), wire.Envelope{Kind: wire.KindAliveAnswer}},
	} {
		c.want.ID = id
		got, err := wire.Parse(bytes.TrimPrefix(c.data, before))
		if err != nil {
			t.Fatalf("kind %d: %v", c.want.Kind, err)
		}
		if diff := cmp.Diff(c.want, got, cmp.Comparer(bytes.Equal)); diff != "" {
			t.Errorf("kind %d: %s", c.want.Kind, diff)
		}
		if got.Kind == wire.KindAliveQuery && !slices.Equal(slices.Collect(got.IDs()), ids) {
			t.Errorf("ids are %v, want %v", slices.Collect(got.IDs()), ids)
		}
	}
}

// micros is how a timeout arrives: rounded up to a microsecond.
func micros(timeout time.Duration) time.Duration {
	down := timeout.Truncate(time.Microsecond)
	if down == timeout || down == longest {
		return down
	}
	return down + time.Microsecond
}

// longest is the longest timeout of whole microseconds.
const longest = time.Duration(math.MaxInt64 / 1000 * 1000)

func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("0123456789abcdef"), true, byte(0x30), int64(time.Second), []byte("{}"))
	f.Add([]byte(nil), false, byte(0), int64(math.MaxInt64), []byte{0, 1, 1})
	f.Fuzz(func(t *testing.T, id []byte, json bool, flags byte, timeout int64, body []byte) {
		var callID wire.ID
		copy(callID[:], id)
		roundTrip(t, callID, json, flags, time.Duration(max(0, timeout)), body)
	})
}

// FuzzParse: what is read is what the Append functions would write for it, and
// what is refused has one of the documented errors and the sender's id.
func FuzzParse(f *testing.F) {
	for _, block := range hexBlocks(f) {
		f.Add(block)
	}
	f.Add(envelope(2, 1, 0, 0))
	f.Add(envelope(1, 1, 0, overlong(9)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		input := slices.Clone(data)
		e, err := wire.Parse(data)
		if !bytes.Equal(input, data) {
			t.Fatal("Parse changes its input")
		}
		if len(data) >= wire.HeaderSize && data[0] == wire.Mark && !bytes.Equal(e.ID[:], data[4:20]) {
			t.Errorf("id is %v", e.ID)
		}
		if err != nil {
			checkRefusal(t, data, err)
			return
		}
		if flags, body := wire.ResponseOf(data); e.Kind == wire.KindResponse && (flags != e.Flags || !bytes.Equal(body, e.Body)) {
			t.Errorf("ResponseOf gives flags %#02x and a body of %d bytes", flags, len(body))
		}
		again, err := wire.Parse(rewrite(&e))
		if err != nil {
			t.Fatalf("%+v is written so that it cannot be read: %v", e, err)
		}
		if diff := cmp.Diff(e, again, cmp.Comparer(bytes.Equal)); diff != "" {
			t.Error(diff)
		}
	})
}

func checkRefusal(t *testing.T, data []byte, err error) {
	t.Helper()
	if errors.Is(err, wire.ErrNotEnvelope) == wire.IsEnvelope(data) {
		t.Errorf("IsEnvelope does not agree with %v", err)
	}
	for _, known := range []error{wire.ErrNotEnvelope, wire.ErrTruncated, wire.ErrVersion, wire.ErrUnsupported, wire.ErrTimeout, wire.ErrIDs} {
		if errors.Is(err, known) {
			return
		}
	}
	t.Errorf("undocumented error: %v", err)
}

// rewrite writes a parsed envelope again.
func rewrite(e *wire.Envelope) []byte {
	switch e.Kind {
	case wire.KindRequest, wire.KindOpen:
		b := append(wire.AppendRequest(nil, e.ID, 0, e.Timeout), e.Body...)
		b[2], b[3] = byte(e.Kind), byte(e.Flags)
		return b
	case wire.KindAliveQuery, wire.KindAliveAnswer:
		b := wire.AppendAlive(nil, e.Kind, slices.Collect(e.IDs())...)
		b[3] = byte(e.Flags) // they have no use for flags, and do not refuse them
		return b
	case wire.KindCancel, wire.KindInstanceQuery, wire.KindInstanceAnswer:
		b := append(wire.AppendCancel(nil, e.ID), e.Body...)
		switch e.Kind {
		case wire.KindInstanceQuery:
			b = append(wire.AppendInstanceQuery(nil, e.ID), e.Body...)
		case wire.KindInstanceAnswer:
			b = append(wire.AppendInstanceAnswer(nil, e.ID), e.Body...)
		}
		b[3] = byte(e.Flags)
		return b
	}
	return append(wire.AppendResponse(nil, e.ID, 0, e.Flags), e.Body...)
}

func TestNewID(t *testing.T) {
	seen := map[wire.ID]bool{}
	for range 10000 {
		seen[wire.NewID()] = true
	}
	if len(seen) != 10000 {
		t.Errorf("10000 ids have %d values", len(seen))
	}
	if got := someID.String(); got != "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff" {
		t.Errorf("an id is shown as %s", got)
	}
}
