package inventory

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/examples/internal/app"
	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/rpc"
)

// Several writers change the stock at once, through both replicas. The watcher
// may miss what is changed again at once, but sees where each product ends.
func TestWatcherSeesEveryFinalValue(t *testing.T) {
	const writers, each = 4, 10
	stock := serve(t)
	add(t, stock, "apple", 1)
	var all sync.WaitGroup
	for _, product := range []string{"apple", "fig", "pear"} {
		for range writers {
			all.Go(func() {
				for range each {
					add(t, stock, product, 1)
				}
			})
		}
	}
	want := map[string]int32{"apple": 1 + writers*each, "fig": writers * each, "pear": writers * each}
	for p, err := range Watch(t.Context(), stock) {
		if err != nil {
			t.Fatal(err)
		}
		if want[p.GetProductId()] == p.GetAvailable() {
			delete(want, p.GetProductId())
		}
		if len(want) == 0 {
			break
		}
	}
	all.Wait()
}

func TestWatchSomeProducts(t *testing.T) {
	stock := serve(t)
	add(t, stock, "apple", 1)
	add(t, stock, "pear", 2)
	var got []string
	for p, err := range Watch(t.Context(), stock, "pear", "fig", "pear") {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(p.GetAvailable(), " ", p.GetProductId()))
		if len(got) == 1 {
			add(t, stock, "apple", 1)
			add(t, stock, "fig", 3) // was not known before
		}
		if len(got) == 2 {
			break
		}
	}
	if s := strings.Join(got, ", "); s != "2 pear, 3 fig" {
		t.Errorf("watched %s", s)
	}
}

// In a rolling restart each replica sends its watchers away, and they go on
// with the next: no change escapes them.
func TestWatcherMovesWhenAReplicaDrains(t *testing.T) {
	w := newWorld(t)
	stop := w.run()
	add(t, w.stock, "apple", 1)
	raw, err := w.stock.WatchStock(t.Context(), &inventoryv1.WatchStockRequest{})
	if err != nil {
		t.Fatal(err)
	}
	seen := int32(0)
	for p, err := range Watch(t.Context(), w.stock, "apple") {
		if err != nil {
			t.Fatal(err)
		}
		if p.GetAvailable() <= seen {
			continue // what it was already, from another replica
		}
		if seen = p.GetAvailable(); seen == 4 {
			break
		}
		next := w.run()
		stop()
		stop = next
		add(t, w.stock, "apple", 1)
	}
	var end error
	for _, err := range raw.All() {
		end = err
	}
	if rpc.CodeOf(end) != rpc.CodeUnavailable || !strings.Contains(end.Error(), "shuts down") {
		t.Errorf("the stream of the first replica ended with %v, want UNAVAILABLE", end)
	}
}

func TestWatchEndsWithItsContext(t *testing.T) {
	stock := serve(t)
	add(t, stock, "apple", 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var last error
	for _, err := range Watch(ctx, stock) {
		cancel()
		last = err
	}
	if rpc.CodeOf(last) != rpc.CodeCanceled {
		t.Errorf("it ended with %v, want CANCELED", last)
	}
	if _, err := stock.WatchStock(ctx, &inventoryv1.WatchStockRequest{}); rpc.CodeOf(err) != rpc.CodeCanceled {
		t.Errorf("WatchStock: %v, want CANCELED", err)
	}
}

// The handler ends when its watcher has left, however it does.
func TestWatcherLeaves(t *testing.T) {
	w := newWorld(t)
	ended := make(chan error, 1)
	tell := func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		err := next(ctx, call)
		if call.Kind() == rpc.KindServerStream {
			ended <- err
		}
		return err
	}
	w.serveWith(rpc.WithInterceptors(tell))
	add(t, w.stock, "apple", 1)
	for name, leave := range map[string]func(context.CancelFunc, *rpc.Receiver[*inventoryv1.WatchStockResponse]){
		"its context ends": func(cancel context.CancelFunc, _ *rpc.Receiver[*inventoryv1.WatchStockResponse]) { cancel() },
		"it closes":        func(_ context.CancelFunc, r *rpc.Receiver[*inventoryv1.WatchStockResponse]) { r.Close() },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		r, err := w.stock.WatchStock(ctx, &inventoryv1.WatchStockRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Recv(); err != nil {
			t.Fatal(err)
		}
		leave(cancel, r)
		if err := <-ended; err == nil {
			t.Errorf("%s: the handler has ended without an error", name)
		}
		cancel()
	}
}

// A plain NATS client cannot say that it leaves, but how long it stays.
func TestPlainWatcher(t *testing.T) {
	w := newWorld(t)
	w.serveWith()
	add(t, w.stock, "apple", 1)
	nc := w.srv.Connect()
	sub, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.PublishMsg(&nats.Msg{
		Subject: "inventory.v1.InventoryService.WatchStock", Reply: sub.Subject,
		Header: nats.Header{"Natscall-Timeout": {"100"}}, Data: []byte("{}"),
	}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"available":1`, `"code":4`} {
		m, err := sub.NextMsgWithContext(t.Context())
		if err != nil || !strings.Contains(string(m.Data), want) {
			t.Errorf("%s, %v, want %s", m.Data, err, want)
		}
	}
}

// serveWith runs a replica whose server has options.
func (w *world) serveWith(opts ...rpc.ServerOption) {
	w.t.Helper()
	nc := w.srv.Connect()
	js, err := jetstream.New(nc)
	if err != nil {
		w.t.Fatal(err)
	}
	service, err := New(w.t.Context(), js, app.Settings{})
	if err != nil {
		w.t.Fatal(err)
	}
	srv := rpc.NewServer(nc, append(opts, rpc.WithLogger(slog.New(slog.DiscardHandler)))...)
	if err := inventoryv1nats.RegisterInventoryServiceServer(srv, service); err != nil {
		w.t.Fatal(err)
	}
	if err := srv.Start(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := srv.Shutdown(context.Background()); err != nil {
			w.t.Error(err)
		}
	})
}

// send imports lines, until the service wants no more.
func send(t *testing.T, stock inventoryv1nats.InventoryServiceClient, lines []*inventoryv1.ImportStockRequest) (*inventoryv1.ImportStockResponse, error) {
	t.Helper()
	s, err := stock.ImportStock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		if err := s.Send(l); errors.Is(err, io.EOF) {
			break // CloseAndRecv tells why
		} else if err != nil {
			t.Fatal(err)
		}
	}
	return s.CloseAndRecv()
}

// 10,000 lines, one of which is wrong: what came before it is in the stock,
// and the delivery, when it is sent again, adds only the rest.
func TestImport(t *testing.T) {
	const count, bad = 10_000, 7001
	products := []string{"apple", "fig", "kiwi", "pear", "plum"}
	var lines []*inventoryv1.ImportStockRequest
	sums := func(until int) map[string]int32 {
		sum := map[string]int32{}
		for _, l := range lines[:until] {
			sum[l.GetProductId()] += l.GetQuantity()
		}
		return sum
	}
	for i := range int32(count) {
		lines = append(lines, &inventoryv1.ImportStockRequest{ProductId: products[i%5], Quantity: 1 + i%7})
	}
	lines[0].DeliveryId = "lorry-1"
	wrong := slices.Clone(lines)
	wrong[bad-1] = &inventoryv1.ImportStockRequest{ProductId: "apple", Quantity: -1}

	stock := serve(t)
	_, err := send(t, stock, wrong)
	stopped, ok := rpc.Detail[*inventoryv1.ImportStopped](err)
	if rpc.CodeOf(err) != rpc.CodeInvalidArgument || !strings.Contains(err.Error(), "line 7001: quantity: -1") || !ok || stopped.GetLines() != bad-1 {
		t.Fatalf("%v with %v, want INVALID_ARGUMENT for line 7001, and 7000 lines taken", err, stopped)
	}
	checkDelivered(t, stock, sums(bad-1))
	for _, want := range []*inventoryv1.ImportStockResponse{
		{Lines: count, RepeatedLines: bad - 1, Quantity: total(sums(count)) - total(sums(bad-1))},
		{Lines: count, RepeatedLines: count},
	} {
		res, err := send(t, stock, lines)
		if err != nil || !proto.Equal(res, want) {
			t.Errorf("again: %v, %v, want %v", res, err, want)
		}
		checkDelivered(t, stock, sums(count))
	}
}

func total(sums map[string]int32) (sum int64) {
	for _, n := range sums {
		sum += int64(n)
	}
	return sum
}

func checkDelivered(t *testing.T, stock inventoryv1nats.InventoryServiceClient, sums map[string]int32) {
	t.Helper()
	for product, n := range sums {
		checkStock(t, stock, &inventoryv1.Stock{ProductId: product, Available: n, Received: n})
	}
}

// Both replicas take in the same delivery at once, as when a caller has lost
// its connection in the middle and starts over: it counts once.
func TestImportAtOnce(t *testing.T) {
	stock := serve(t)
	var lines []*inventoryv1.ImportStockRequest
	for range 3000 {
		lines = append(lines, &inventoryv1.ImportStockRequest{DeliveryId: "d", ProductId: "apple", Quantity: 1})
	}
	var fresh atomic.Int32
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			res, err := send(t, stock, lines)
			if err != nil {
				t.Error(err)
			}
			fresh.Add(res.GetLines() - res.GetRepeatedLines())
		})
	}
	all.Wait()
	if fresh.Load() != 3000 {
		t.Errorf("%d lines were new, want 3000", fresh.Load())
	}
	checkStock(t, stock, &inventoryv1.Stock{ProductId: "apple", Available: 3000, Received: 3000})
}

func TestImportNothing(t *testing.T) {
	if res, err := send(t, serve(t), nil); err != nil || res.GetLines() != 0 {
		t.Errorf("%v, %v, want no lines", res, err)
	}
}

func TestInvalidStreams(t *testing.T) {
	stock := serve(t)
	watch := func(ids ...string) error {
		r, err := stock.WatchStock(t.Context(), &inventoryv1.WatchStockRequest{ProductIds: ids})
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Recv()
		return err
	}
	imports := func(lines ...*inventoryv1.ImportStockRequest) error {
		_, err := send(t, stock, lines)
		return err
	}
	first := &inventoryv1.ImportStockRequest{DeliveryId: "d", ProductId: "apple", Quantity: 1}
	for want, err := range map[string]error{
		`product_ids[1]: "a.b"`:                watch("apple", "a.b"),
		"product_ids: there are 101":           watch(make([]string, 101)...),
		`line 1: delivery_id: ""`:              imports(&inventoryv1.ImportStockRequest{ProductId: "apple", Quantity: 1}),
		`line 2: delivery_id: "e" is not "d"`:  imports(first, &inventoryv1.ImportStockRequest{DeliveryId: "e"}),
		`line 2: product_id: ""`:               imports(first, &inventoryv1.ImportStockRequest{Quantity: 1}),
		"line 3: quantity: 0 is not between 1": imports(first, first, &inventoryv1.ImportStockRequest{ProductId: "apple"}),
	} {
		if rpc.CodeOf(err) != rpc.CodeInvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want INVALID_ARGUMENT with %s", err, want)
		}
	}
	// The one delivery had two lines.
	checkStock(t, stock, &inventoryv1.Stock{ProductId: "apple", Available: 2, Received: 2})
}
