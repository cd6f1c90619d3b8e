package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcschema"
)

// patience is how long a call may take that is to succeed, on a machine that is busy.
const patience = time.Minute

// caller makes the calls.
type caller struct {
	nc        *nats.Conn
	prefix    string
	client    *rpc.Client
	inventory inventoryv1nats.InventoryServiceClient
	orders    orderv1nats.OrderServiceClient
	feed      orderv1nats.OrderFeedServiceClient
}

// call makes a call of each kind, prints its name if it went well, and returns what went wrong.
func call(ctx context.Context, nc *nats.Conn, client *rpc.Client, prefix string, out io.Writer) error {
	c := caller{
		nc: nc, prefix: prefix, client: client,
		inventory: inventoryv1nats.NewInventoryServiceClient(client),
		orders:    orderv1nats.NewOrderServiceClient(client),
		feed:      orderv1nats.NewOrderFeedServiceClient(client),
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var all error
	for _, kind := range []struct {
		name string
		call func(context.Context) error
	}{
		{"unary", c.unary},
		{"error", c.fails},
		{"deadline", c.deadline},
		{"cancel", c.cancel},
		{"large", c.large},
		{"compressed", c.compressed},
		{"JSON", c.json},
		{"plain request", c.plain},
		{"any NATS client", c.foreign},
		{"one-way", c.oneWay},
		{"server stream", c.serverStream},
		{"server stream that fails", c.serverStreamFails},
		{"client stream", c.clientStream},
		{"bidirectional stream", c.bidi},
		{"one instance", c.instance},
		{"all instances", c.gather},
		{"batched", c.batched},
		{"schema", c.schema},
		{"health", c.health},
	} {
		if err := kind.call(ctx); err != nil {
			all = errors.Join(all, fmt.Errorf("%s: %w", kind.name, err))
			continue
		}
		fmt.Fprintln(out, "ok", kind.name)
	}
	return all
}

// stock makes a unary call and checks the response.
func (c caller) stock(ctx context.Context, opts ...rpc.CallOption) error {
	res, err := c.inventory.GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: "apple"}, opts...)
	if err == nil && res.GetStock().GetProductId() != "apple" {
		err = fmt.Errorf("the response is %v", res)
	}
	return err
}

func (c caller) unary(ctx context.Context) error {
	var header, trailer rpc.Header
	err := c.stock(ctx, rpc.WithHeader("Peer-Say", "hello"), rpc.ResponseHeader(&header), rpc.ResponseTrailer(&trailer))
	if err == nil && (header.Get("Peer-Echo") != "hello" || trailer.Get("Peer-Trailer") != "end") {
		err = fmt.Errorf("the header is %v, the trailer %v", header, trailer)
	}
	return err
}

func (c caller) fails(ctx context.Context) error {
	_, err := c.inventory.GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: "wrong"})
	if err := wantCode(err, rpc.CodeFailedPrecondition); err != nil {
		return err
	}
	if detail, ok := rpc.Detail[*inventoryv1.OutOfStock](err); !ok || detail.GetAvailable() != 3 {
		return fmt.Errorf("the detail is %v", detail)
	}
	_, err = c.orders.PlaceOrder(ctx, &orderv1.PlaceOrderRequest{})
	return wantCode(err, rpc.CodeUnimplemented)
}

func (c caller) deadline(ctx context.Context) error {
	_, err := c.inventory.GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: "slow"}, rpc.WithTimeout(300*time.Millisecond))
	return wantCode(err, rpc.CodeDeadlineExceeded)
}

func (c caller) cancel(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	time.AfterFunc(100*time.Millisecond, cancel)
	_, err := c.inventory.GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: "slow"})
	return wantCode(err, rpc.CodeCanceled)
}

// large is more than NATS's max_payload, both ways.
func (c caller) large(ctx context.Context) error {
	return c.add(ctx, strings.Repeat("large ", 500_000))
}

func (c caller) compressed(ctx context.Context) error {
	for _, compression := range []rpc.Compression{rpc.CompressionGzip, rpc.CompressionZstd} {
		if err := c.add(ctx, strings.Repeat("compressed ", 10_000), rpc.WithCompression(compression)); err != nil {
			return fmt.Errorf("%v: %w", compression, err)
		}
	}
	return nil
}

func (c caller) add(ctx context.Context, product string, opts ...rpc.CallOption) error {
	res, err := c.inventory.AddStock(ctx, &inventoryv1.AddStockRequest{ProductId: product, Quantity: 7}, opts...)
	if err == nil && (res.GetStock().GetProductId() != product || res.GetStock().GetReceived() != 7) {
		err = fmt.Errorf("the response has %d bytes, and %d", len(res.GetStock().GetProductId()), res.GetStock().GetReceived())
	}
	return err
}

func (c caller) json(ctx context.Context) error { return c.stock(ctx, rpc.WithCodec(rpc.CodecJSON)) }

func (c caller) plain(ctx context.Context) error {
	return errors.Join(
		c.stock(ctx, rpc.WithPlainRequests()),
		c.stock(ctx, rpc.WithPlainRequests(), rpc.WithCodec(rpc.CodecJSON)),
	)
}

func (c caller) foreign(ctx context.Context) error {
	subject := c.prefix + ".inventory.v1.InventoryService.GetStock"
	res, err := c.nc.RequestWithContext(ctx, subject, []byte(`{"productId": "apple"}`))
	if err == nil && !strings.Contains(string(res.Data), `"apple"`) {
		err = fmt.Errorf("the response is %q", res.Data)
	}
	return err
}

// oneWay ends when the server has the order.
func (c caller) oneWay(ctx context.Context) error {
	if err := c.feed.OrderPlaced(ctx, &orderv1.OrderPlacedRequest{OrderId: "o-1"}); err != nil {
		return err
	}
	_, err := c.orders.GetOrder(ctx, &orderv1.GetOrderRequest{OrderId: "o-1"}, rpc.WithTimeout(patience))
	return err
}

// streamed is how many messages streams have: so many that their window is opened again.
const streamed = 20_000

func (c caller) watch(ctx context.Context, products ...string) (received int32, err error) {
	stream, err := c.inventory.WatchStock(ctx, &inventoryv1.WatchStockRequest{ProductIds: products})
	if err != nil {
		return 0, err
	}
	defer stream.Close()
	for res, err := range stream.All() {
		if err != nil {
			return received, err
		}
		if got := res.GetStock().GetAvailable(); got != received {
			return received, fmt.Errorf("message %d is %d", received, got)
		}
		received++
	}
	return received, nil
}

func (c caller) serverStream(ctx context.Context) error {
	received, err := c.watch(ctx, fmt.Sprint(streamed))
	if err == nil && received != streamed {
		err = fmt.Errorf("%d messages, want %d", received, streamed)
	}
	return err
}

func (c caller) serverStreamFails(ctx context.Context) error {
	received, err := c.watch(ctx, "3", "fail")
	if received != 3 {
		return fmt.Errorf("%d messages before %w, want 3", received, err)
	}
	return wantCode(err, rpc.CodeAborted)
}

func (c caller) clientStream(ctx context.Context) error {
	stream, err := c.inventory.ImportStock(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	for range streamed {
		if err := stream.Send(&inventoryv1.ImportStockRequest{ProductId: "apple", Quantity: 2}); err != nil {
			return err
		}
	}
	res, err := stream.CloseAndRecv()
	if err == nil && (res.GetLines() != streamed || res.GetQuantity() != 2*streamed) {
		err = fmt.Errorf("the response is %v", res)
	}
	return err
}

func (c caller) bidi(ctx context.Context) error {
	stream, err := c.orders.PickOrder(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	for i := range int32(100) {
		line := &orderv1.PickOrderRequest_Picked{Picked: &orderv1.Line{Quantity: i}}
		if err := stream.Send(&orderv1.PickOrderRequest{Action: line}); err != nil {
			return err
		}
		res, err := stream.Recv()
		if err != nil {
			return err
		}
		if got := res.GetPick().GetQuantity(); got != i {
			return fmt.Errorf("answer %d is %d", i, got)
		}
	}
	stream.CloseSend()
	for res, err := range stream.All() {
		return fmt.Errorf("after the end: %v, %w", res, err)
	}
	return nil
}

func (c caller) instance(ctx context.Context) error {
	var instance, again string
	if err := c.stock(ctx, rpc.ResponseInstance(&instance)); err != nil {
		return err
	}
	err := c.stock(ctx, rpc.WithInstance(instance), rpc.ResponseInstance(&again))
	if err == nil && (instance == "" || again != instance) {
		err = fmt.Errorf("%q answered, not %q", again, instance)
	}
	return err
}

func (c caller) gather(ctx context.Context) error {
	method := inventoryv1nats.InventoryServiceMethods.GetStock
	answers := method.Gather(ctx, c.client, &inventoryv1.GetStockRequest{ProductId: "apple"})
	for answer := range answers.All() {
		if answer.Err != nil {
			return answer.Err
		}
	}
	result := answers.Result()
	if result.Err == nil && (len(result.Answered) != 1 || len(result.Missing) != 0) {
		return fmt.Errorf("%v answered, %v did not", result.Answered, result.Missing)
	}
	return result.Err
}

// batched makes so many calls at once that some share a message.
func (c caller) batched(ctx context.Context) error {
	client := rpc.NewClient(c.nc, rpc.WithSubjectPrefix(c.prefix), rpc.WithBatching(16<<10), rpc.WithoutRetry())
	defer client.Close()
	many := c
	many.inventory = inventoryv1nats.NewInventoryServiceClient(client)
	const calls = 256
	ended := make(chan error, calls)
	for i := range calls {
		go func() { ended <- many.add(ctx, fmt.Sprint("product ", i)) }()
	}
	var all error
	for range calls {
		all = errors.Join(all, <-ended)
	}
	return all
}

// desc is the service as a tool knows it.
var desc = &rpc.ServiceDesc{Name: inventoryv1nats.InventoryServiceName}

func (c caller) schema(ctx context.Context) error {
	set, err := rpcschema.Fetch(ctx, c.client, desc)
	if err != nil {
		return err
	}
	for _, file := range set.GetFile() {
		if file.GetPackage() == "inventory.v1" {
			return nil
		}
	}
	return fmt.Errorf("the schema has %d files, and none of the service", len(set.GetFile()))
}

func (c caller) health(ctx context.Context) error {
	res, err := rpc.HealthMethod(desc).Call(ctx, c.client, &natscallv1.GetHealthRequest{})
	if err == nil && (res.GetStatus() != natscallv1.HealthStatus_HEALTH_STATUS_SERVING || !res.GetTakesCalls()) {
		err = fmt.Errorf("the response is %v", res)
	}
	return err
}

// wantCode returns what is wrong with an error that is to have a code.
func wantCode(err error, code rpc.Code) error {
	if rpc.CodeOf(err) == code {
		return nil
	}
	return fmt.Errorf("got %w, want the code %v", err, code)
}
