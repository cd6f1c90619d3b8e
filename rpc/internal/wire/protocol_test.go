package wire_test

import (
	"bufio"
	"encoding/hex"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// protocolPage is normative; its hex blocks are what this package must write and read.
const protocolPage = "../../../docs/protocol.md"

// TestProtocolPage checks every hex block of the page, and that there is a
// block for everything that is checked.
func TestProtocolPage(t *testing.T) {
	blocks := hexBlocks(t)
	for name, example := range examples(t) {
		block, ok := blocks[name]
		if !ok {
			t.Errorf("%s has no block `hex %s`", protocolPage, name)
			continue
		}
		delete(blocks, name)
		if diff := cmp.Diff(block, example.bytes); diff != "" {
			t.Errorf("%s is not written like the page (-page +code):\n%s", name, diff)
		}
		parsed, err := parse(block)
		if err != nil {
			t.Errorf("%s is not read: %v", name, err)
		}
		if diff := cmp.Diff(example.parsed, parsed); diff != "" {
			t.Errorf("%s is read wrong (-want +got):\n%s", name, diff)
		}
	}
	for name := range blocks {
		t.Errorf("no test knows the block `hex %s`", name)
	}
}

func parse(block []byte) (any, error) {
	if wire.IsBatch(block) {
		b, err := wire.ParseBatch(block)
		items := map[uint64][]byte{}
		for tag, item := range b.Items() {
			items[tag] = item
		}
		return items, err
	}
	if wire.IsFrame(block) {
		return wire.ParseFrame(block)
	}
	return wire.Parse(block)
}

type example struct {
	bytes  []byte
	parsed any // a wire.Envelope or wire.Frame, or the items of a wire.Batch
}

// examples are what the page shows, by the names of its blocks.
func examples(t *testing.T) map[string]example {
	id, second := wire.ID{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, wire.ID{}
	for i := range second {
		second[i] = byte(16 + i)
	}
	message := encode(t, wrapperspb.String("42"))
	notFound := encode(t, &natscallv1.Status{Code: 5, Message: "no order 42"})
	draining := encode(t, &natscallv1.Status{Code: 14, Message: "server is draining"})
	instance := encode(t, &natscallv1.Instance{Instance: "ABC", State: natscallv1.State_STATE_SERVING, Methods: []string{"PlaceOrder"}, QueueGroup: "q"})
	named := wire.AppendRequest(nil, id, wire.CodecProto, 2*time.Second)
	named[wire.FlagsOffset] |= byte(wire.FlagNameInstance)
	refused := wire.FlagError | wire.Refused.Flags()
	first := append(wire.AppendMessagePrefix(nil, len(message)), message...)
	x := append(wire.AppendRequest(nil, id, wire.CodecProto, 0), encode(t, wrapperspb.String("x"))...)
	empty := wire.AppendRequest(nil, second, wire.CodecProto, 0)
	two := []byte("\x00\x00\x00\x00\x01x\x00\x00\x00\x00\x01y")
	return map[string]example{
		"request": {append(wire.AppendRequest(nil, id, wire.CodecProto, 2*time.Second), message...),
			wire.Envelope{Kind: wire.KindRequest, ID: id, Timeout: 2 * time.Second, Body: message}},
		"request-without-timeout": {append(wire.AppendRequest(nil, id, wire.CodecProto, wire.NoTimeout), message...),
			wire.Envelope{Kind: wire.KindRequest, ID: id, Timeout: wire.NoTimeout, Body: message}},
		"request-to-be-named": {append(named, message...),
			wire.Envelope{Kind: wire.KindRequest, Flags: wire.FlagNameInstance, ID: id, Timeout: 2 * time.Second, Body: message}},
		"response": {append(wire.AppendResponse(nil, id, wire.CodecProto, 0), message...),
			wire.Envelope{Kind: wire.KindResponse, ID: id, Body: message}},
		"error": {append(wire.AppendResponse(nil, id, wire.CodecProto, wire.FlagError), notFound...),
			wire.Envelope{Kind: wire.KindResponse, Flags: wire.FlagError, ID: id, Body: notFound}},
		"refusal": {append(wire.AppendResponse(nil, id, wire.CodecProto, refused), draining...),
			wire.Envelope{Kind: wire.KindResponse, Flags: refused, ID: id, Body: draining}},
		"cancel": {wire.AppendCancel(nil, id),
			wire.Envelope{Kind: wire.KindCancel, ID: id, Body: []byte{}}},
		"alive-query": {wire.AppendAlive(nil, wire.KindAliveQuery, id, second),
			wire.Envelope{Kind: wire.KindAliveQuery, ID: id, Body: second[:]}},
		"alive-answer": {wire.AppendAlive(nil, wire.KindAliveAnswer, second),
			wire.Envelope{Kind: wire.KindAliveAnswer, ID: second, Body: []byte{}}},
		"instance-query": {wire.AppendInstanceQuery(nil, id),
			wire.Envelope{Kind: wire.KindInstanceQuery, ID: id, Body: []byte{}}},
		"instance-answer": {append(wire.AppendInstanceAnswer(nil, id), instance...),
			wire.Envelope{Kind: wire.KindInstanceAnswer, ID: id, Body: instance}},
		"open": {wire.AppendOpen(nil, id, wire.CodecProto, 2*time.Second, wire.Open{Credit: 512 << 10, Data: first, HalfClose: true}),
			wire.Envelope{Kind: wire.KindOpen, Flags: wire.FlagHalfClose, ID: id, Timeout: 2 * time.Second, Body: append([]byte{0x80, 0x80, 0x20}, first...)}},
		"batch": {wire.AppendItem(wire.AppendItem(wire.AppendBatch(nil), 7, x), 300, empty),
			map[uint64][]byte{7: x, 300: empty}},
		"accept":        {wire.AppendAccept(nil, id, 512<<10, "ABC"), wire.Frame{Kind: wire.KindAccept, Number: 512 << 10, Body: append(id[:], "ABC"...)}},
		"data":          {append(wire.AppendFrame(nil, wire.KindData, 1), two...), wire.Frame{Kind: wire.KindData, Number: 1, Body: two}},
		"end":           {wire.AppendFrame(nil, wire.KindEnd, 2), wire.Frame{Kind: wire.KindEnd, Number: 2, Body: []byte{}}},
		"credit":        {wire.AppendFrame(nil, wire.KindCredit, 1<<20), wire.Frame{Kind: wire.KindCredit, Number: 1 << 20, Body: []byte{}}},
		"heartbeat":     {wire.AppendHeartbeat(nil, 2, 1<<20), wire.Frame{Kind: wire.KindHeartbeat, Number: 2, Body: []byte{0x80, 0x80, 0x40}}},
		"stream-cancel": {wire.AppendFrame(nil, wire.KindStreamCancel, 0), wire.Frame{Kind: wire.KindStreamCancel, Body: []byte{}}},
		"stream-header": {wire.AppendFrame(nil, wire.KindHeader, 0), wire.Frame{Kind: wire.KindHeader, Body: []byte{}}},
	}
}

// TestWhatIsIgnored: of what the protocol sets aside, a receiver that does not know it sees
// nothing.
func TestWhatIsIgnored(t *testing.T) {
	for name, block := range hexBlocks(t) {
		want, err := parse(block)
		if err != nil {
			t.Fatal(err)
		}
		advice := byte(0)
		switch got := want.(type) {
		case wire.Frame:
			advice = 0b1111
		case wire.Envelope:
			switch got.Kind {
			case wire.KindRequest:
				advice = 1 << 5
			case wire.KindOpen:
				advice = 0b11 << 4
			}
		}
		block[wire.FlagsOffset] |= advice
		got, err := parse(block)
		if err != nil {
			t.Errorf("%s with the flags %#02x: %v", name, advice, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s with the flags %#02x (-want +got):\n%s", name, advice, diff)
		}
	}
	for kind := range 256 {
		f, err := wire.ParseFrame([]byte{0, 1, byte(kind), 0xff})
		if ignored := kind >= 24 && kind <= 31; (err == nil) != ignored || f.Kind.IsAdvice() != ignored {
			t.Errorf("kind %d: %v", kind, err)
		}
	}
}

func encode(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// hexBlocks reads the blocks of the page.
func hexBlocks(t testing.TB) map[string][]byte {
	t.Helper()
	return hexBlocksOf(t, protocolPage)
}

// hexBlocksOf reads the blocks of a page that begin with "```hex NAME".
func hexBlocksOf(t testing.TB, page string) map[string][]byte {
	t.Helper()
	f, err := os.Open(page)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	blocks, name := map[string][]byte{}, ""
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		if start, ok := strings.CutPrefix(line, "```hex"); ok {
			if name = strings.TrimSpace(start); name == "" || blocks[name] != nil {
				t.Fatalf("a hex block has no name, or one that is taken: %q", line)
			}
			blocks[name] = []byte{}
			continue
		}
		if strings.HasPrefix(line, "```") {
			name = ""
		}
		if name != "" {
			blocks[name] = append(blocks[name], unhex(t, line)...)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return blocks
}

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(text, " ", ""))
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return b
}
