package rpctap_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctap"
	"github.com/natscall/natscall/rpc/rpctest"
)

// shop serves a method of each shape.
type shop struct {
	inventoryv1nats.UnimplementedInventoryServiceServer
	orderv1nats.UnimplementedOrderServiceServer
	orderv1nats.UnimplementedOrderFeedServiceServer
}

func (shop) GetStock(_ context.Context, req *inventoryv1.GetStockRequest) (*inventoryv1.GetStockResponse, error) {
	if req.GetProductId() == "none" {
		return nil, rpc.Errorf(rpc.CodeNotFound, "no such product")
	}
	return &inventoryv1.GetStockResponse{Stock: &inventoryv1.Stock{ProductId: req.GetProductId()}}, nil
}

func (shop) WatchStock(_ context.Context, req *inventoryv1.WatchStockRequest, to *rpc.Sender[*inventoryv1.WatchStockResponse]) error {
	for _, id := range req.GetProductIds() {
		if err := to.Send(&inventoryv1.WatchStockResponse{Stock: &inventoryv1.Stock{ProductId: id}}); err != nil {
			return err
		}
	}
	return rpc.Errorf(rpc.CodeAborted, "sold out")
}

func (shop) ImportStock(_ context.Context, lines *rpc.Receiver[*inventoryv1.ImportStockRequest]) (*inventoryv1.ImportStockResponse, error) {
	res := new(inventoryv1.ImportStockResponse)
	for _, err := range lines.All() {
		if err != nil {
			return nil, err
		}
		res.Lines++
	}
	return res, nil
}

func (shop) PickOrder(_ context.Context, s *rpc.BidiStream[*orderv1.PickOrderResponse, *orderv1.PickOrderRequest]) error {
	for req, err := range s.All() {
		if err != nil {
			return err
		}
		if err := s.Send(&orderv1.PickOrderResponse{Problem: req.GetOrderId()}); err != nil {
			return err
		}
	}
	return nil
}

func (shop) OrderPlaced(context.Context, *orderv1.OrderPlacedRequest) error { return nil }

// maxPayload is small, so that large messages are made soon.
const maxPayload = 16 << 10

// patience is how long a test waits for what has to happen.
const patience = 30 * time.Second

// tapped is a NATS server with the shop on it, and a tap.
type tapped struct {
	*testing.T
	srv   *rpctest.Server
	came  chan *nats.Msg
	calls *rpctap.Calls
}

func newTapped(t *testing.T) *tapped {
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) { o.MaxPayload = maxPayload }))
	s := rpc.NewServer(srv.Connect())
	must(t, inventoryv1nats.RegisterInventoryServiceServer(s, shop{}))
	must(t, orderv1nats.RegisterOrderServiceServer(s, shop{}))
	must(t, orderv1nats.RegisterOrderFeedServiceServer(s, shop{}))
	must(t, s.Start(t.Context()))
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	tap := &tapped{T: t, srv: srv, came: make(chan *nats.Msg, 4096), calls: rpctap.NewCalls()}
	spy := srv.Connect()
	for _, subject := range []string{"inventory.v1.>", "order.v1.>", "orders.new", "_INBOX.>"} {
		_, err := spy.ChanSubscribe(subject, tap.came)
		must(t, err)
	}
	must(t, spy.Flush())
	return tap
}

// client returns a client of a connection of its own.
func (t *tapped) client(opts ...rpc.ClientOption) *rpc.Client {
	c := rpc.NewClient(t.srv.Connect(), opts...)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// until returns the events without those that say nothing of calls, up to the one whose text ends
// with last, as texts.
func (t *tapped) until(last string) (texts []string) {
	t.Helper()
	late := time.After(patience)
	for {
		select {
		case m := <-t.came:
			e := t.calls.Observe(m, time.Now())
			texts = append(texts, t.texts(e)...)
			if len(texts) > 0 && strings.HasSuffix(texts[len(texts)-1], last) {
				return texts
			}
		case <-late:
			t.Fatalf("%q has not come, only:\n%s", last, strings.Join(texts, "\n"))
		}
	}
}

// texts returns what an event says, but for frames between messages.
func (t *tapped) texts(e *rpctap.Event) (out []string) {
	t.Helper()
	for _, item := range e.Batch {
		out = append(out, t.texts(item)...)
	}
	if e.Err != nil || e.Missing != nil {
		t.Errorf("%v: %v, %v", e.Kind, e.Err, e.Missing)
	}
	if e.Kind.IsControl() || e.Kind == rpctap.KindBatch || e.Kind == rpctap.KindData && len(e.Messages) == 0 {
		return out
	}
	text := fmt.Sprintf("%v %v", e.From, e.Kind)
	if e.Call == nil {
		t.Errorf("%s is of no call", text)
		return append(out, text)
	}
	text += " " + e.Call.Subject.Method
	for _, m := range e.Messages {
		text += " " + t.json(e, m)
	}
	if e.Failure != nil {
		text += " " + e.Failure.String()
	}
	return append(out, text)
}

// json returns a message of a call as JSON, or its size if it is large.
func (t *tapped) json(e *rpctap.Event, m rpctap.StreamMessage) string {
	t.Helper()
	must(t, m.Err)
	if m.Compressed {
		return fmt.Sprintf("compressed to a tenth: %v", m.Size < len(m.Data)/10)
	}
	if len(m.Data) > 1000 {
		return fmt.Sprintf("%d bytes", len(m.Data))
	}
	d := t.messageType(e.Call.Subject, e.From)
	msg := d.New().Interface()
	if e.Codec == rpc.CodecJSON {
		must(t, protojson.Unmarshal(m.Data, msg))
	} else {
		must(t, proto.Unmarshal(m.Data, msg))
	}
	text, err := protojson.Marshal(msg)
	must(t, err)
	var compact bytes.Buffer
	must(t, json.Compact(&compact, text))
	return compact.String()
}

func (t *tapped) messageType(subject rpctap.Subject, from rpctap.Side) protoreflect.MessageType {
	t.Helper()
	name := protoreflect.FullName(subject.Root + "." + subject.Method)
	if subject.Name == "orders.new" {
		name = "order.v1.OrderFeedService.OrderPlaced"
	}
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
	must(t, err)
	md := d.(protoreflect.MethodDescriptor).Output()
	if from == rpctap.SideClient {
		md = d.(protoreflect.MethodDescriptor).Input()
	}
	mt, err := protoregistry.GlobalTypes.FindMessageByName(md.FullName())
	must(t, err)
	return mt
}

func getStock(c *rpc.Client, id string, opts ...rpc.CallOption) error {
	_, err := inventoryv1nats.NewInventoryServiceClient(c).GetStock(context.Background(), &inventoryv1.GetStockRequest{ProductId: id}, opts...)
	return err
}

func watchStock(c *rpc.Client, opts ...rpc.CallOption) error {
	stream, err := inventoryv1nats.NewInventoryServiceClient(c).WatchStock(context.Background(), &inventoryv1.WatchStockRequest{ProductIds: []string{"apple"}}, opts...)
	if err != nil {
		return err
	}
	defer stream.Close()
	for _, err := range stream.All() {
		if err != nil {
			return err
		}
	}
	return nil
}

// TestCalls follows calls of every shape and form, as real peers make them.
func TestCalls(t *testing.T) {
	large := strings.Repeat("x", 3*maxPayload)
	for name, test := range map[string]struct {
		call func(c *rpc.Client) error
		opts []rpc.ClientOption
		code rpc.Code
		want []string // the last is what is waited for
	}{
		"unary": {call: func(c *rpc.Client) error { return getStock(c, "apple") }, want: []string{
			`client request GetStock {"productId":"apple"}`,
			`server response GetStock {"stock":{"productId":"apple"}}`,
		}},
		"JSON": {call: func(c *rpc.Client) error { return getStock(c, "apple", rpc.WithCodec(rpc.CodecJSON)) }, want: []string{
			`client request GetStock {"productId":"apple"}`,
			`server response GetStock {"stock":{"productId":"apple"}}`,
		}},
		"error": {call: func(c *rpc.Client) error { return getStock(c, "none") }, code: rpc.CodeNotFound, want: []string{
			`client request GetStock {"productId":"none"}`,
			`server error GetStock not_found: no such product`,
		}},
		"plain": {call: func(c *rpc.Client) error { return getStock(c, "apple", rpc.WithPlainRequests()) }, want: []string{
			`client plain GetStock {"productId":"apple"}`,
			`server plain GetStock {"stock":{"productId":"apple"}}`,
		}},
		"plain error": {call: func(c *rpc.Client) error { return getStock(c, "none", rpc.WithPlainRequests()) }, code: rpc.CodeNotFound, want: []string{
			`client plain GetStock {"productId":"none"}`,
			`server plain_error GetStock not_found: no such product`,
		}},
		"batched": {call: func(c *rpc.Client) error { return getStock(c, "apple") }, opts: []rpc.ClientOption{rpc.WithBatching(4096)}, want: []string{
			`client request GetStock {"productId":"apple"}`,
			`server response GetStock {"stock":{"productId":"apple"}}`,
		}},
		"compressed": {call: func(c *rpc.Client) error {
			return getStock(c, large[:maxPayload/2], rpc.WithCompression(rpc.CompressionZstd))
		}, want: []string{
			`client request GetStock compressed to a tenth: true`,
			`server response GetStock compressed to a tenth: true`,
		}},
		"large": {call: func(c *rpc.Client) error { return getStock(c, large) }, want: []string{
			`client open GetStock`,
			`server accept GetStock`,
			`client data GetStock 49156 bytes`,
			`client end GetStock`,
			`server data GetStock 49160 bytes`,
			`server end GetStock`,
		}},
		"server stream": {call: func(c *rpc.Client) error { return watchStock(c) }, code: rpc.CodeAborted, want: []string{
			`client open WatchStock {"productIds":["apple"]}`,
			`server accept WatchStock`,
			`server data WatchStock {"stock":{"productId":"apple"}}`,
			`server end WatchStock aborted: sold out`,
		}},
		"client stream": {call: importStock, want: []string{
			`client open ImportStock`,
			`server accept ImportStock`,
			`client data ImportStock {"productId":"apple"}`,
			`client end ImportStock`,
			`server data ImportStock {"lines":1}`,
			`server end ImportStock`,
		}},
		"bidi": {call: pickOrder, want: []string{
			`client open PickOrder`,
			`server accept PickOrder`,
			`client data PickOrder {"orderId":"42"}`,
			`server data PickOrder {"problem":"42"}`,
			`client end PickOrder`,
			`server end PickOrder`,
		}},
		"one-way": {call: func(c *rpc.Client) error {
			return orderv1nats.NewOrderFeedServiceClient(c).OrderPlaced(context.Background(), &orderv1.OrderPlacedRequest{OrderId: "42"})
		}, want: []string{`client plain new {"orderId":"42"}`}},
	} {
		t.Run(name, func(t *testing.T) {
			tap := newTapped(t)
			if err := test.call(tap.client(test.opts...)); rpc.CodeOf(err) != test.code {
				t.Fatalf("the call ends with %v", err)
			}
			got := tap.until(test.want[len(test.want)-1])
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestPlainStream follows the stream of a plain NATS client, and one that ends well.
func TestPlainStream(t *testing.T) {
	tap := newTapped(t)
	nc := tap.srv.Connect()
	must(t, nc.PublishRequest("inventory.v1.InventoryService.WatchStock", nc.NewInbox(), []byte(`{"productIds":["apple"]}`)))
	want := []string{
		`client plain WatchStock {"productIds":["apple"]}`,
		`server plain WatchStock {"stock":{"productId":"apple"}}`,
		`server plain_error WatchStock aborted: sold out`,
	}
	if diff := cmp.Diff(want, tap.until(want[2])); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestGather: the answers of several instances, some of which go as streams, stay apart.
func TestGather(t *testing.T) {
	tap := newTapped(t)
	second := rpc.NewServer(tap.srv.Connect())
	must(t, inventoryv1nats.RegisterInventoryServiceServer(second, shop{}))
	must(t, second.Start(t.Context()))
	defer func() { must(t, second.Shutdown(context.Background())) }()

	// With its header the response is larger than max_payload, and the request is not.
	id := strings.Repeat("x", maxPayload-50)
	g := inventoryv1nats.InventoryServiceMethods.GetStock.Gather(t.Context(), tap.client(), &inventoryv1.GetStockRequest{ProductId: id})
	for range g.All() {
	}
	want := map[string]int{
		"client request GetStock 16337 bytes": 1, "server accept GetStock": 2, "server data GetStock 16340 bytes": 2, "server end GetStock": 2,
	}
	got := map[string]int{}
	for got["server end GetStock"] < 2 {
		for _, text := range tap.until("server end GetStock") {
			if !strings.Contains(text, "does not know the stream") { // a frame may cross the end
				got[text]++
			}
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestCancel: a caller that leaves, and a stream that is joined late.
func TestCancel(t *testing.T) {
	calls, id := rpctap.NewCalls(), "00000000000000000000000000000001"
	raw := make([]byte, 16)
	raw[15] = 1
	observe := func(subject, reply, head, tail string) *rpctap.Event {
		return calls.Observe(&nats.Msg{Subject: subject, Reply: reply, Data: []byte(head + string(raw) + tail)}, time.Unix(1, 0))
	}
	begun := observe("a.S.M", "_INBOX.1", "\x00\x01\x01\x00", "\x00x")
	canceled := observe("a.S._all.cancel", "", "\x00\x01\x03\x00", "")
	if begun.Call == nil || canceled.Call != begun.Call || canceled.Call.Subject.Method != "M" {
		t.Errorf("the cancel belongs to %+v", canceled.Call)
	}
	if late := calls.Observe(&nats.Msg{Subject: "a.S._i.ABC." + id[:31] + "2", Data: []byte("\x00\x01\x11\x00\x07x")}, time.Unix(2, 0)); late.From != rpctap.SideClient || late.Missing == nil {
		t.Errorf("a frame of an unknown stream: %+v", late)
	}
	if foreign := calls.Observe(&nats.Msg{Subject: "_INBOX.other", Data: []byte("hello")}, time.Unix(2, 0)); foreign.Call != nil || foreign.From != rpctap.SideUnknown {
		t.Errorf("a reply to somebody else: %+v", foreign)
	}
}

// TestForget: the number of calls that are known is bounded, and the oldest are forgotten.
func TestForget(t *testing.T) {
	calls := rpctap.NewCalls()
	for i := range 5000 {
		calls.Observe(&nats.Msg{Subject: "a.S.M", Reply: fmt.Sprint("_INBOX.", i), Data: []byte("{}")}, time.Unix(int64(i), 0))
	}
	for reply, known := range map[string]bool{"_INBOX.0": false, "_INBOX.903": false, "_INBOX.904": true, "_INBOX.4999": true} {
		e := calls.Observe(&nats.Msg{Subject: reply, Data: []byte("{}")}, time.Unix(5000, 0))
		if (e.Call != nil) != known {
			t.Errorf("the call of %s: %+v", reply, e.Call)
		}
		if known && e.Codec != rpc.CodecJSON {
			t.Errorf("the answer on %s is in %v", reply, e.Codec)
		}
	}
}

func importStock(c *rpc.Client) error {
	stream, err := inventoryv1nats.NewInventoryServiceClient(c).ImportStock(context.Background())
	if err != nil {
		return err
	}
	defer stream.Close()
	if err := stream.Send(&inventoryv1.ImportStockRequest{ProductId: "apple"}); err != nil {
		return err
	}
	_, err = stream.CloseAndRecv()
	return err
}

func pickOrder(c *rpc.Client) error {
	stream, err := orderv1nats.NewOrderServiceClient(c).PickOrder(context.Background())
	if err != nil {
		return err
	}
	defer stream.Close()
	if err := stream.Send(&orderv1.PickOrderRequest{Action: &orderv1.PickOrderRequest_OrderId{OrderId: "42"}}); err != nil {
		return err
	}
	if _, err := stream.Recv(); err != nil {
		return err
	}
	stream.CloseSend()
	if _, err = stream.Recv(); errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// TestNoResponders: NATS says so on the reply subject of the request.
func TestNoResponders(t *testing.T) {
	calls := rpctap.NewCalls()
	calls.Observe(&nats.Msg{Subject: "a.S.M", Reply: "_INBOX.1", Data: []byte("{}")}, time.Unix(1, 0))
	e := calls.Observe(&nats.Msg{Subject: "_INBOX.1", Header: nats.Header{"Status": {"503"}}}, time.Unix(3, 0))
	if e.Kind != rpctap.KindNoResponders || e.From != rpctap.SideServer || e.Call == nil || e.After != 2*time.Second {
		t.Errorf("got %v from %v, %+v after %v", e.Kind, e.From, e.Call, e.After)
	}
}
