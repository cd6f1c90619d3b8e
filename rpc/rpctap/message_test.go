package rpctap_test

import (
	"encoding/hex"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctap"
)

// protocolPage is normative; its hex blocks are what this package must read.
const protocolPage = "../../docs/protocol.md"

var hexBlock = regexp.MustCompile("(?s)```hex ([a-z-]+)\n(.*?)```")

// hexBlocks reads the blocks of the page.
func hexBlocks(t testing.TB) map[string][]byte {
	t.Helper()
	page, err := os.ReadFile(protocolPage)
	must(t, err)
	blocks := map[string][]byte{}
	for _, block := range hexBlock.FindAllStringSubmatch(string(page), -1) {
		data, err := hex.DecodeString(strings.Join(strings.Fields(block[2]), ""))
		must(t, err)
		blocks[block[1]] = data
	}
	return blocks
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The ids of the page.
const (
	firstID  = "000102030405060708090a0b0c0d0e0f"
	secondID = "101112131415161718191a1b1c1d1e1f"
)

// TestProtocolPage reads every hex block of the page.
func TestProtocolPage(t *testing.T) {
	message := []byte("\x0a\x0242")
	want := map[string]*rpctap.Message{
		"request":                 {Kind: rpctap.KindRequest, ID: firstID, Timeout: 2 * time.Second, Body: message},
		"request-without-timeout": {Kind: rpctap.KindRequest, ID: firstID, Timeout: rpctap.NoTimeout, Body: message},
		"request-to-be-named":     {Kind: rpctap.KindRequest, ID: firstID, Timeout: 2 * time.Second, Body: message},
		"response":                {Kind: rpctap.KindResponse, ID: firstID, Body: message},
		"error": {Kind: rpctap.KindError, ID: firstID,
			Failure: &rpctap.Failure{Code: rpc.CodeNotFound, Message: "no order 42", Execution: rpc.ExecutionDidRun}},
		"refusal": {Kind: rpctap.KindError, ID: firstID,
			Failure: &rpctap.Failure{Code: rpc.CodeUnavailable, Message: "server is draining", Execution: rpc.ExecutionNotRun, Refused: true}},
		"cancel":          {Kind: rpctap.KindCancel, ID: firstID},
		"alive-query":     {Kind: rpctap.KindAliveQuery, ID: firstID, IDs: []string{secondID}},
		"alive-answer":    {Kind: rpctap.KindAliveAnswer, ID: secondID},
		"instance-query":  {Kind: rpctap.KindInstanceQuery, ID: firstID},
		"instance-answer": {Kind: rpctap.KindInstanceAnswer, ID: firstID, Body: []byte("\x0a\x03ABC\x10\x02\x1a\x0aPlaceOrder\x22\x01q")},
		"batch": {Kind: rpctap.KindBatch, Items: []rpctap.Item{
			{Tag: 7, Message: &rpctap.Message{Kind: rpctap.KindRequest, ID: firstID, Body: []byte("\x0a\x01x")}},
			{Tag: 300, Message: &rpctap.Message{Kind: rpctap.KindRequest, ID: secondID}},
		}},
		"open": {Kind: rpctap.KindOpen, ID: firstID, Timeout: 2 * time.Second, Frame: rpctap.Frame{Credit: 512 << 10, HalfClose: true},
			Body: append([]byte{0, 0, 0, 0, 4}, message...)},
		"accept":        {Kind: rpctap.KindAccept, ID: firstID, Instance: "ABC", Frame: rpctap.Frame{Credit: 512 << 10}},
		"data":          {Kind: rpctap.KindData, Frame: rpctap.Frame{Sequence: 1}, Body: []byte("\x00\x00\x00\x00\x01x\x00\x00\x00\x00\x01y")},
		"end":           {Kind: rpctap.KindEnd, Frame: rpctap.Frame{Sequence: 2}},
		"credit":        {Kind: rpctap.KindCredit, Frame: rpctap.Frame{Credit: 1 << 20}},
		"heartbeat":     {Kind: rpctap.KindHeartbeat, Frame: rpctap.Frame{Sequence: 2, Credit: 1 << 20}, Body: []byte("\x80\x80\x40")},
		"stream-cancel": {Kind: rpctap.KindStreamCancel},
		"stream-header": {Kind: rpctap.KindHeader},
	}
	blocks := hexBlocks(t)
	for name, want := range want {
		t.Run(name, func(t *testing.T) {
			block, ok := blocks[name]
			if !ok {
				t.Fatalf("%s has no block `hex %s`", protocolPage, name)
			}
			got := rpctap.Decode(&nats.Msg{Data: block})
			if got.Size != len(block) {
				t.Errorf("the size is %d, and %d bytes came", got.Size, len(block))
			}
			ignored := cmp.Options{
				cmpopts.EquateEmpty(), cmpopts.IgnoreFields(rpctap.Message{}, "Size"), cmpopts.IgnoreFields(rpctap.Encoding{}, "BodySize"),
			}
			if want.Failure != nil {
				ignored = append(ignored, cmpopts.IgnoreFields(rpctap.Message{}, "Body"))
			}
			if diff := cmp.Diff(want, got, ignored); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for name := range blocks {
		if want[name] == nil {
			t.Errorf("no test knows the block `hex %s`", name)
		}
	}
}

func TestParseSubject(t *testing.T) {
	for subject, want := range map[string]rpctap.Subject{
		"order.v1.OrderService.PlaceOrder":              {Root: "order.v1.OrderService", Method: "PlaceOrder"},
		"eu.order.v1.OrderService._schema":              {Root: "eu.order.v1.OrderService", Method: "_schema"},
		"order.v1.OrderService._all.cancel":             {Root: "order.v1.OrderService", All: true},
		"order.v1.OrderService._all.call.GetOrder":      {Root: "order.v1.OrderService", Method: "GetOrder", All: true},
		"order.v1.OrderService._i.ABC.alive":            {Root: "order.v1.OrderService", Instance: "ABC"},
		"order.v1.OrderService._i.ABC.call._health":     {Root: "order.v1.OrderService", Method: "_health", Instance: "ABC"},
		"order.v1.OrderService._i.ABC." + firstID:       {Root: "order.v1.OrderService", Instance: "ABC", Stream: firstID},
		"order.v1.OrderService._i":                      {Root: "order.v1.OrderService"},
		"orders.new":                                    {Root: "orders", Method: "new"},
		"one":                                           {Method: "one"},
		"":                                              {},
		"_INBOX.abc.def":                                {},
		"_INBOX_shopper.abc":                            {},
		"$JS.ACK.orders.c.1.2.3.4.5":                    {},
		"order.v1.OrderService._i.ABC." + firstID + "0": {Root: "order.v1.OrderService", Instance: "ABC"},
	} {
		want.Name = subject
		if diff := cmp.Diff(want, rpctap.ParseSubject(subject)); diff != "" {
			t.Errorf("%q (-want +got):\n%s", subject, diff)
		}
	}
}

// TestPlain: what plain messages say in their headers.
func TestPlain(t *testing.T) {
	for name, test := range map[string]struct {
		header nats.Header
		body   string
		want   rpctap.Message
		failed string // part of Err
	}{
		"JSON by its look": {nil, `{"a":1}`, rpctap.Message{Kind: rpctap.KindPlain, Encoding: rpctap.Encoding{Codec: rpc.CodecJSON, Guessed: true}}, ""},
		"Protobuf":         {nil, "\x0a\x0242", rpctap.Message{Kind: rpctap.KindPlain, Encoding: rpctap.Encoding{Guessed: true}}, ""},
		"named": {nats.Header{"Content-Type": {"application/json; charset=utf-8"}, "Natscall-Timeout": {"1500"}}, `85`,
			rpctap.Message{Kind: rpctap.KindPlain, Timeout: 1500 * time.Millisecond, Encoding: rpctap.Encoding{Codec: rpc.CodecJSON}}, ""},
		"no timeout": {nats.Header{"Natscall-Timeout": {"none"}}, "", rpctap.Message{Kind: rpctap.KindPlain, Timeout: rpctap.NoTimeout, Encoding: rpctap.Encoding{Guessed: true}}, ""},
		"wrong type": {nats.Header{"Content-Type": {"text/html"}}, "x", rpctap.Message{Kind: rpctap.KindPlain}, "text/html"},
		"wrong time": {nats.Header{"Natscall-Timeout": {"soon"}}, "x", rpctap.Message{Kind: rpctap.KindPlain, Encoding: rpctap.Encoding{Guessed: true}}, "soon"},
		"error": {nats.Header{"Nats-Service-Error-Code": {"5"}, "Nats-Service-Error": {"not_found: no"}, "Natscall-Not-Run": {"1"}, "Natscall-Instance": {"ABC"}}, `{"code":5,"message":"no order"}`,
			rpctap.Message{Kind: rpctap.KindPlainError, Instance: "ABC", Failure: &rpctap.Failure{Code: rpc.CodeNotFound, Message: "no order", Execution: rpc.ExecutionNotRun}}, ""},
		"error of a stranger": {nats.Header{"Nats-Service-Error-Code": {"404"}, "Nats-Service-Error": {"gone"}}, "",
			rpctap.Message{Kind: rpctap.KindPlainError, Failure: &rpctap.Failure{Code: 404, Message: "gone", Execution: rpc.ExecutionDidRun}}, ""},
		"end":           {nats.Header{"Nats-Service-Error-Code": {"0"}}, "", rpctap.Message{Kind: rpctap.KindPlainEnd}, ""},
		"no responders": {nats.Header{"Status": {"503"}}, "", rpctap.Message{Kind: rpctap.KindNoResponders}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := rpctap.Decode(&nats.Msg{Header: test.header, Data: []byte(test.body)})
			if (got.Err == nil) != (test.failed == "") || got.Err != nil && !strings.Contains(got.Err.Error(), test.failed) {
				t.Errorf("the error is %v", got.Err)
			}
			ignored := cmp.Options{
				cmpopts.IgnoreFields(rpctap.Message{}, "Size", "Header", "Body", "Err"), cmpopts.IgnoreFields(rpctap.Encoding{}, "BodySize"),
			}
			if diff := cmp.Diff(&test.want, got, ignored); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestInvalid: what breaks the protocol is named, and read as far as it goes.
func TestInvalid(t *testing.T) {
	for name, test := range map[string]struct {
		data, want, id string
	}{
		"truncated":       {"\x00\x01\x01", "truncated", ""},
		"version":         {"\x00\x02\x01\x00" + strings.Repeat("a", 20), "unsupported protocol version: 2", strings.Repeat("61", 16)},
		"unknown kind":    {"\x00\x01\x0f\x00" + strings.Repeat("a", 20), "kind 15", strings.Repeat("61", 16)},
		"open":            {"\x00\x01\x06\x00" + strings.Repeat("a", 16) + "\x00", "credit", strings.Repeat("61", 16)},
		"accept":          {"\x00\x01\x10\x00\x00", "accept without an instance", ""},
		"frame":           {"\x00\x01\x11\x00", "number", ""},
		"status":          {"\x00\x01\x02\x10" + strings.Repeat("a", 16) + "\xff", "not a valid status", strings.Repeat("61", 16)},
		"compressed":      {"\x00\x01\x02\x84" + strings.Repeat("a", 16) + "none", "does not decompress (gzip)", strings.Repeat("61", 16)},
		"batch of plain":  {"\x00\x01\x20\x00\x01\x01x", "", ""},
		"batch in batch":  {"\x00\x01\x20\x00\x01\x04\x00\x01\x20\x00", "", ""},
		"batch, cut off":  {"\x00\x01\x20\x00\x01\x09x", "cut off", ""},
		"unknown frame":   {"\x00\x01\x30\x00\x00", "kind 48", ""},
		"frame of future": {"\x00\x02\x11\x00\x00", "version: 2", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got := rpctap.Decode(&nats.Msg{Data: []byte(test.data)})
			err := got.Err
			if len(got.Items) > 0 {
				err = got.Items[0].Err
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("the error is %v, and not %q", err, test.want)
			}
			if got.ID != test.id {
				t.Errorf("the id is %q", got.ID)
			}
		})
	}
}

// TestBombs: a NATS message with many messages that become large each takes no more memory than one
// of them may.
func TestBombs(t *testing.T) {
	bomb := zipped(t, strings.Repeat("\x00", rpctap.MaxMessage/3))
	response := "\x00\x01\x02\x84" + strings.Repeat("a", 16) + bomb
	const bombs = 5
	batch, frame := wire.AppendBatch(nil), ""
	for i := range uint64(bombs) {
		batch = wire.AppendItem(batch, i, []byte(response))
		frame += prefixed(1, bomb)
	}
	kept, failed := 0, 0
	for _, item := range rpctap.Decode(&nats.Msg{Data: batch}).Items {
		if item.Err != nil {
			failed++
		} else if len(item.Body) == rpctap.MaxMessage/3 {
			kept++
		}
	}
	if kept != 3 || failed != bombs-3 {
		t.Errorf("of a batch %d are decompressed, and %d are not", kept, failed)
	}
	kept, failed = 0, 0
	for _, m := range rpctap.NewAssembler(rpc.CompressionGzip).Data(0, []byte(frame)) {
		if m.Err != nil {
			failed++
		} else if len(m.Data) == rpctap.MaxMessage/3 {
			kept++
		}
	}
	if kept != 3 || failed != bombs-3 {
		t.Errorf("of a frame %d are decompressed, and %d are not", kept, failed)
	}
}
