package inventory

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/examples/internal/app"
	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// world is a NATS server with JetStream, replicas on it, and a client of them.
type world struct {
	t     *testing.T
	srv   *rpctest.Server
	stock inventoryv1nats.InventoryServiceClient
}

func newWorld(t *testing.T) *world {
	t.Helper()
	srv := rpctest.NewServer(t, rpctest.WithJetStream())
	client := rpc.NewClient(srv.Connect())
	t.Cleanup(func() { _ = client.Close() })
	return &world{t, srv, inventoryv1nats.NewInventoryServiceClient(client)}
}

// run runs a replica until the returned function, or the end of the test, stops it.
func (w *world) run() (stop func()) {
	nc := w.srv.Connect()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, nc, app.Settings{Log: slog.New(slog.DiscardHandler)}) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) { // or it still starts
			w.t.Error(err)
		}
	})
	w.t.Cleanup(stop)
	return stop
}

// serve runs two replicas on a NATS server, and returns a client of them.
func serve(t *testing.T) inventoryv1nats.InventoryServiceClient {
	t.Helper()
	w := newWorld(t)
	w.run()
	w.run()
	return w.stock
}

func add(t *testing.T, stock inventoryv1nats.InventoryServiceClient, product string, quantity int32) {
	t.Helper()
	if _, err := stock.AddStock(t.Context(), &inventoryv1.AddStockRequest{ProductId: product, Quantity: quantity}); err != nil {
		t.Fatal(err)
	}
}

func checkStock(t *testing.T, stock inventoryv1nats.InventoryServiceClient, want *inventoryv1.Stock) {
	t.Helper()
	res, err := stock.GetStock(t.Context(), &inventoryv1.GetStockRequest{ProductId: want.GetProductId()})
	if err != nil || !proto.Equal(res.GetStock(), want) {
		t.Errorf("stock %v, %v, want %v", res.GetStock(), err, want)
	}
}

func TestReserveConfirmRelease(t *testing.T) {
	stock := serve(t)
	add(t, stock, "apple", 6)
	add(t, stock, "apple", 4)
	reserve := func(id string, n int32) (*inventoryv1.Reservation, error) {
		res, err := stock.Reserve(t.Context(), &inventoryv1.ReserveRequest{ProductId: "apple", ReservationId: id, Quantity: n})
		return res.GetReservation(), err
	}
	for _, id := range []string{"a", "b", "a"} { // a again
		r, err := reserve(id, 3)
		if err != nil || r.GetQuantity() != 3 || r.GetReservationId() != id || r.GetState() != inventoryv1.ReservationState_RESERVATION_STATE_OPEN {
			t.Errorf("Reserve: %v, %v", r, err)
		}
	}
	checkStock(t, stock, &inventoryv1.Stock{ProductId: "apple", Available: 4, Reserved: 6, Received: 10})
	for range 2 {
		c, err := stock.Confirm(t.Context(), &inventoryv1.ConfirmRequest{ProductId: "apple", ReservationId: "a"})
		if err != nil || c.GetReservation().GetState() != inventoryv1.ReservationState_RESERVATION_STATE_CONFIRMED {
			t.Errorf("Confirm: %v, %v", c, err)
		}
		r, err := stock.Release(t.Context(), &inventoryv1.ReleaseRequest{ProductId: "apple", ReservationId: "b"})
		if err != nil || r.GetReservation().GetState() != inventoryv1.ReservationState_RESERVATION_STATE_RELEASED {
			t.Errorf("Release: %v, %v", r, err)
		}
	}
	checkStock(t, stock, &inventoryv1.Stock{ProductId: "apple", Available: 7, Sold: 3, Received: 10})
	if _, err := reserve("c", 8); rpc.CodeOf(err) != rpc.CodeFailedPrecondition {
		t.Errorf("Reserve of too much: %v", err)
	}
	if _, err := reserve("b", 3); rpc.CodeOf(err) != rpc.CodeFailedPrecondition || !strings.Contains(err.Error(), "released") {
		t.Errorf("Reserve after Release: %v", err)
	}
}

// Both replicas take in goods and set them aside at once: none is lost, none
// is given away twice.
func TestAtOnce(t *testing.T) {
	stock := serve(t)
	add(t, stock, "apple", 1)
	var got atomic.Int32
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			add(t, stock, "apple", 1)
			_, err := stock.Reserve(t.Context(), &inventoryv1.ReserveRequest{ProductId: "apple", ReservationId: fmt.Sprint(i), Quantity: 2})
			switch rpc.CodeOf(err) {
			case rpc.CodeOK:
				got.Add(2)
			case rpc.CodeFailedPrecondition:
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	checkStock(t, stock, &inventoryv1.Stock{ProductId: "apple", Available: 33 - got.Load(), Reserved: got.Load(), Received: 33})
}

func TestListStock(t *testing.T) {
	stock := serve(t)
	for _, product := range []string{"pear", "apple", "fig"} {
		add(t, stock, product, 1)
	}
	// Leaves an entry of a product that never came in.
	if _, err := stock.Release(t.Context(), &inventoryv1.ReleaseRequest{ProductId: "unicorn", ReservationId: "r"}); err != nil {
		t.Fatal(err)
	}
	var got []string
	token := ""
	for more := true; more; more = token != "" {
		res, err := stock.ListStock(t.Context(), &inventoryv1.ListStockRequest{PageSize: 2, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range res.GetStock() {
			got = append(got, p.GetProductId())
		}
		token = res.GetNextPageToken()
	}
	if s := strings.Join(got, " "); s != "apple fig pear" {
		t.Errorf("products %q", s)
	}
	for _, product := range []string{"unicorn", "dragon"} {
		_, err := stock.GetStock(t.Context(), &inventoryv1.GetStockRequest{ProductId: product})
		if rpc.CodeOf(err) != rpc.CodeNotFound || !strings.Contains(err.Error(), product) {
			t.Errorf("%s: %v, want NOT_FOUND", product, err)
		}
	}
}

func TestInvalidRequests(t *testing.T) {
	stock := serve(t)
	_, get := stock.GetStock(t.Context(), &inventoryv1.GetStockRequest{ProductId: "a.b"})
	_, list := stock.ListStock(t.Context(), &inventoryv1.ListStockRequest{PageSize: 1001})
	_, addNone := stock.AddStock(t.Context(), &inventoryv1.AddStockRequest{ProductId: "apple"})
	_, addTo := stock.AddStock(t.Context(), &inventoryv1.AddStockRequest{Quantity: 1})
	_, reserve := stock.Reserve(t.Context(), &inventoryv1.ReserveRequest{ProductId: "apple", Quantity: 1})
	_, reserveLess := stock.Reserve(t.Context(), &inventoryv1.ReserveRequest{ProductId: "apple", ReservationId: "r", Quantity: -1})
	_, confirm := stock.Confirm(t.Context(), &inventoryv1.ConfirmRequest{ProductId: "apple", ReservationId: "r "})
	_, release := stock.Release(t.Context(), &inventoryv1.ReleaseRequest{ProductId: ">", ReservationId: "r"})
	for want, err := range map[string]error{
		`product_id: "a.b"`:                         get,
		"page_size: 1001 is not between 1 and 1000": list,
		"quantity: 0 is not between 1 and 1000000":  addNone,
		`product_id: ""`:                            addTo,
		`reservation_id: ""`:                        reserve,
		"quantity: -1":                              reserveLess,
		`reservation_id: "r "`:                      confirm,
		`product_id: ">"`:                           release,
	} {
		if rpc.CodeOf(err) != rpc.CodeInvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want INVALID_ARGUMENT with %s", err, want)
		}
	}
}
