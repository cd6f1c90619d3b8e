package wire_test

import (
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/natscall/natscall/rpc/internal/frozenwire"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// protocol1 has the hex blocks of the page as it was when version 1 was fixed.
const protocol1 = "testdata/protocol1.md"

// meaning is what a parser of version 1 finds in a body, in types that are those of no parser.
type meaning struct {
	Kind, Flags uint8
	ID          [16]byte
	Timeout     time.Duration
	Number      uint64 // of a frame; the credit of an open and of a heartbeat
	Body        []byte
	Instance    string
	HalfClose   bool
	IDs         [][16]byte
	Items       []item
}

type item struct {
	Tag  uint64
	Body []byte
}

// unknown are the flags that a receiver of version 1 may not look at; a later one may.
func unknown(kind uint8) uint8 {
	switch {
	case kind == 1 || kind == 6:
		return 0b11 << 4
	case kind >= 16 && kind < 32:
		return 0b1111
	}
	return 0
}

// frozenMeaning is what a peer finds that was built when version 1 was fixed.
func frozenMeaning(data []byte) (m meaning, err error) {
	switch {
	case frozenwire.IsBatch(data):
		b, err := frozenwire.ParseBatch(data)
		for tag, body := range b.Items() {
			m.Items = append(m.Items, item{tag, body})
		}
		return m, err
	case frozenwire.IsFrame(data):
		return frozenFrame(data)
	}
	e, err := frozenwire.Parse(data)
	m = meaning{Kind: uint8(e.Kind), Flags: uint8(e.Flags), ID: e.ID, Timeout: e.Timeout, Body: e.Body}
	if err != nil {
		return m, err
	}
	switch e.Kind {
	case frozenwire.KindOpen:
		o, err := frozenwire.ParseOpen(&e)
		m.Number, m.Body, m.HalfClose = o.Credit, o.Data, o.HalfClose
		return m, err
	case frozenwire.KindAliveQuery, frozenwire.KindAliveAnswer:
		for id := range e.IDs() {
			m.IDs = append(m.IDs, id)
		}
	}
	return m, nil
}

func frozenFrame(data []byte) (m meaning, err error) {
	f, err := frozenwire.ParseFrame(data)
	m = meaning{Kind: uint8(f.Kind), Flags: uint8(f.Flags), Number: f.Number, Body: f.Body}
	if err != nil {
		return m, err
	}
	switch f.Kind {
	case frozenwire.KindAccept:
		var id frozenwire.ID
		id, m.Instance, err = frozenwire.ParseAccept(&f)
		m.ID = id
	case frozenwire.KindHeartbeat:
		m.Number, err = frozenwire.ParseHeartbeat(&f)
	}
	return m, err
}

// currentMeaning is frozenMeaning for the current parser.
func currentMeaning(data []byte) (m meaning, err error) {
	switch {
	case wire.IsBatch(data):
		b, err := wire.ParseBatch(data)
		for tag, body := range b.Items() {
			m.Items = append(m.Items, item{tag, body})
		}
		return m, err
	case wire.IsFrame(data):
		return currentFrame(data)
	}
	e, err := wire.Parse(data)
	m = meaning{Kind: uint8(e.Kind), Flags: uint8(e.Flags), ID: e.ID, Timeout: e.Timeout, Body: e.Body}
	m.Flags &^= unknown(m.Kind)
	if err != nil {
		return m, err
	}
	switch e.Kind {
	case wire.KindOpen:
		o, err := wire.ParseOpen(&e)
		m.Number, m.Body, m.HalfClose = o.Credit, o.Data, o.HalfClose
		return m, err
	case wire.KindAliveQuery, wire.KindAliveAnswer:
		for id := range e.IDs() {
			m.IDs = append(m.IDs, id)
		}
	}
	return m, nil
}

func currentFrame(data []byte) (m meaning, err error) {
	f, err := wire.ParseFrame(data)
	m = meaning{Kind: uint8(f.Kind), Flags: uint8(f.Flags), Number: f.Number, Body: f.Body}
	m.Flags &^= unknown(m.Kind)
	if err != nil {
		return m, err
	}
	switch f.Kind {
	case wire.KindAccept:
		var id wire.ID
		id, m.Instance, err = wire.ParseAccept(&f)
		m.ID = id
	case wire.KindHeartbeat:
		m.Number, err = wire.ParseHeartbeat(&f)
	}
	return m, err
}

// written is what a current peer may write, by the function that writes it.
type written struct {
	by    string
	bytes []byte
	want  meaning
}

var (
	someText = []byte("text")
	twoIDs   = [][16]byte{someID, {15: 1}}
)

// currentWriters are bytes of each function of package wire that writes some, with what a peer of
// then has to find in them.
func currentWriters() (all []written) {
	for _, timeout := range []time.Duration{0, 1500 * time.Microsecond, wire.NoTimeout, math.MaxInt64 / 1000 * 1000} {
		for _, codec := range []wire.Codec{wire.CodecProto, wire.CodecJSON} {
			request := append(wire.AppendRequest(nil, someID, codec, timeout), someText...)
			want := meaning{Kind: 1, Flags: uint8(codec), ID: someID, Timeout: timeout, Body: someText}
			all = append(all, written{"AppendRequest", request, want})
			open := wire.AppendOpen(nil, someID, codec, timeout, wire.Open{Credit: 1 << 20, Data: someText})
			want.Kind, want.Number = 6, 1<<20
			all = append(all, written{"AppendOpen", open, want})
		}
	}
	half := wire.AppendOpen(nil, someID, 0, 0, wire.Open{HalfClose: true})
	all = append(all, written{"AppendOpen", half, meaning{Kind: 6, Flags: 1 << 6, ID: someID, HalfClose: true, Body: []byte{}}})
	for _, flags := range []wire.Flags{1 << 2, 1<<2 | 1<<7, 2 << 2, 2<<2 | 1<<7} {
		request := wire.AppendRequest(nil, someID, 0, 0)
		request[wire.FlagsOffset] |= byte(flags)
		all = append(all, written{"AppendRequest", request, meaning{Kind: 1, Flags: uint8(flags), ID: someID, Body: []byte{}}})
	}
	for _, flags := range responseFlags() {
		all = append(all, written{"AppendResponse", append(wire.AppendResponse(nil, someID, wire.CodecJSON, flags), someText...),
			meaning{Kind: 2, Flags: 1 | uint8(flags), ID: someID, Body: someText}})
	}
	for kind := wire.KindAliveQuery; kind <= wire.KindAliveAnswer; kind++ {
		all = append(all, written{"AppendAlive", wire.AppendAlive(nil, kind, twoIDs[0], twoIDs[1]),
			meaning{Kind: uint8(kind), ID: someID, Body: twoIDs[1][:], IDs: twoIDs}})
	}
	return append(append(all, currentFrames()...),
		written{"AppendCancel", wire.AppendCancel(nil, someID), meaning{Kind: 3, ID: someID, Body: []byte{}}},
		written{"AppendBatch", wire.AppendBatch(nil), meaning{}},
		written{"AppendItem", wire.AppendItem(wire.AppendItem(wire.AppendBatch(nil), 300, someText), 7, nil),
			meaning{Items: []item{{300, someText}, {7, []byte{}}}}},
	)
}

func currentFrames() (all []written) {
	flags := map[wire.Kind][]wire.Flags{
		wire.KindData: {0, wire.FlagWaited},
		wire.KindEnd:  {0, wire.NotRun.Flags(), wire.MayHaveRun.Flags(), wire.Refused.Flags()},
	}
	for _, kind := range []wire.Kind{wire.KindCredit, wire.KindStreamCancel, wire.KindHeader} {
		flags[kind] = []wire.Flags{0}
	}
	for kind, flags := range flags {
		for _, f := range flags {
			frame := append(wire.AppendFrame(nil, kind, 300), someText...)
			frame[wire.FlagsOffset] |= byte(f)
			all = append(all, written{"AppendFrame", frame, meaning{Kind: uint8(kind), Flags: uint8(f), Number: 300, Body: someText}})
		}
	}
	return append(all,
		written{"AppendAccept", wire.AppendAccept(nil, someID, 1<<20, "ABC"),
			meaning{Kind: 16, Number: 1 << 20, ID: someID, Instance: "ABC", Body: append(slices.Clone(someID[:]), "ABC"...)}},
		written{"AppendHeartbeat", wire.AppendHeartbeat(nil, 7, 5), meaning{Kind: 20, Number: 5, Body: []byte{5}}},
	)
}

// responseFlags are all that a response may have, beside the codec.
func responseFlags() (flags []wire.Flags) {
	for _, x := range []wire.Execution{wire.DidRun, wire.NotRun, wire.MayHaveRun, wire.Refused} {
		flags = append(flags, wire.FlagError|x.Flags())
	}
	for _, c := range []wire.Compression{wire.CompressionGzip, wire.CompressionZstd} {
		flags = append(flags, c.Flags(), c.Flags()|wire.FlagCompressed)
	}
	return append(flags, 0)
}

// TestOldPeerReadsNewOne: a peer of then reads what the current one writes, also if it has the
// flags that are set aside for what comes later.
func TestOldPeerReadsNewOne(t *testing.T) {
	for _, w := range currentWriters() {
		advice := []uint8{0}
		if len(w.want.Items) == 0 && w.by != "AppendBatch" {
			advice = subsets(unknown(w.want.Kind))
		}
		for _, flags := range advice {
			data := slices.Clone(w.bytes)
			data[wire.FlagsOffset] |= flags
			got, err := frozenMeaning(data)
			if err != nil {
				t.Errorf("%s with the flags %#02x, % x: %v", w.by, flags, data, err)
			}
			if diff := cmp.Diff(w.want, got); diff != "" {
				t.Errorf("%s with the flags %#02x, % x (-want +got):\n%s", w.by, flags, data, diff)
			}
		}
	}
}

// subsets returns all flags that have no other bits than those of mask.
func subsets(mask uint8) (flags []uint8) {
	for f := range 256 {
		if uint8(f)&^mask == 0 {
			flags = append(flags, uint8(f))
		}
	}
	return flags
}

// TestOldPeerIgnores: a peer of then ignores the kinds of frames that are set aside, and refuses
// envelopes of the kinds that were added later, with their call id. A server answers such a refusal
// only on the subjects of methods, and a client never, so the later kinds cost an old peer nothing.
func TestOldPeerIgnores(t *testing.T) {
	for kind := 24; kind <= 31; kind++ {
		for flags := range 256 {
			f, err := frozenwire.ParseFrame([]byte{0, 1, byte(kind), byte(flags), 0xff, 0xff})
			if err != nil || !f.Kind.IsAdvice() {
				t.Errorf("frame of kind %d with flags %#02x: %v", kind, flags, err)
			}
		}
	}
	for kind := 7; kind < 16; kind++ {
		data := append(append([]byte{0, 1, byte(kind), 0}, someID[:]...), someText...)
		e, err := frozenwire.Parse(data)
		if !errors.Is(err, frozenwire.ErrUnsupported) || e.ID != frozenwire.ID(someID) || int(e.Kind) != kind {
			t.Errorf("envelope of kind %d: %v, %v", kind, e, err)
		}
		if mine, _ := frozenwire.Answers(data, frozenwire.ID(someID)); mine {
			t.Errorf("an envelope of kind %d is taken for an answer", kind)
		}
	}
}

// later are the writers of what an old peer ignores, for TestAllWritersAreTested.
var later = []string{"AppendInstanceQuery", "AppendInstanceAnswer"}

// helpers write only a part of what is sent.
var helpers = []string{"AppendMessagePrefix"}

// TestAllWritersAreTested finds a function that writes bytes and that an old peer has not been
// tested with.
func TestAllWritersAreTested(t *testing.T) {
	tested := append(slices.Clone(later), helpers...)
	for _, w := range currentWriters() {
		tested = append(tested, w.by)
	}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".go") || strings.HasSuffix(file.Name(), "_test.go") {
			continue
		}
		syntax, err := parser.ParseFile(token.NewFileSet(), file.Name(), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range syntax.Decls {
			f, ok := decl.(*ast.FuncDecl)
			if ok && strings.HasPrefix(f.Name.Name, "Append") && !slices.Contains(tested, f.Name.Name) {
				t.Errorf("%s: no test has an old peer read what %s writes", file.Name(), f.Name.Name)
			}
		}
	}
}

// TestNewPeerReadsOldOne: the current parser reads what the page showed then as it was meant.
func TestNewPeerReadsOldOne(t *testing.T) {
	known := examples(t)
	for name, block := range hexBlocksOf(t, protocol1) {
		got, err := parse(block)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if diff := cmp.Diff(known[name].parsed, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
		compareMeanings(t, block)
	}
}

// compareMeanings checks that the current parser accepts what the frozen one accepts, and finds the
// same in it.
func compareMeanings(t *testing.T, data []byte) {
	t.Helper()
	want, err := frozenMeaning(data)
	if err != nil || frozenwire.Kind(want.Kind).IsAdvice() {
		return // what was set aside may mean something by now
	}
	got, err := currentMeaning(data)
	if err != nil {
		t.Errorf("% x was accepted: %v", data, err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("% x means something else (-then +now):\n%s", data, diff)
	}
}

// FuzzFrozen: the current parser accepts all that the frozen one accepts, with the same meaning.
func FuzzFrozen(f *testing.F) {
	for _, block := range hexBlocksOf(f, protocol1) {
		f.Add(block, "1500", "application/json; x")
	}
	for _, w := range currentWriters() {
		f.Add(w.bytes, "none", "application/protobuf")
	}
	f.Add([]byte{0, 1, 24, 0xff}, "", "")
	f.Fuzz(func(t *testing.T, data []byte, timeout, contentType string) {
		compareMeanings(t, data)
		if id := frozenwire.ID(someID); len(data) >= 20 {
			copy(id[:], data[4:])
			was, wasErr := frozenwire.Answers(data, id)
			is, isErr := wire.Answers(data, wire.ID(id))
			if was != is || wasErr == nil && isErr != nil {
				t.Errorf("% x was an answer: %v, %v; it is one: %v, %v", data, was, wasErr, is, isErr)
			}
		}
		if want, err := frozenwire.ParseTimeout(timeout); err == nil {
			if got, err := wire.ParseTimeout(timeout); err != nil || got != want {
				t.Errorf("timeout %q was %v and is %v, %v", timeout, want, got, err)
			}
		}
		if want, err := frozenwire.ParseContentType(contentType); err == nil {
			if got, err := wire.ParseContentType(contentType); err != nil || uint8(got) != uint8(want) {
				t.Errorf("content type %q was %v and is %v, %v", contentType, want, got, err)
			}
		}
		if len(data) >= wire.MessagePrefix {
			n, compressed, err := frozenwire.ParseMessagePrefix(data)
			now, nowCompressed, nowErr := wire.ParseMessagePrefix(data)
			if err == nil && (now != n || nowCompressed != compressed || nowErr != nil) {
				t.Errorf("prefix % x was %d, %v and is %d, %v, %v", data[:5], n, compressed, now, nowCompressed, nowErr)
			}
		}
	})
}

// TestExecutionOfOldPeer: an error of then says the same of its handler, in both forms.
func TestExecutionOfOldPeer(t *testing.T) {
	for x := range frozenwire.Refused + 1 {
		h := map[string][]string{}
		frozenwire.SetExecution(h, x)
		if got := wire.ExecutionOf(h); uint8(got) != uint8(x) {
			t.Errorf("header %v was %d and is %d", h, x, got)
		}
		if got := wire.Flags(x.Flags()).Execution(); uint8(got) != uint8(x) {
			t.Errorf("flags %#02x were %d and are %d", x.Flags(), x, got)
		}
	}
}
