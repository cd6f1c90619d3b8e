package order

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/natscall/natscall/examples/internal/kvtable"
	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/rpc"
)

// Of all who want to take an order over, one does, and the others notice.
func TestOneOwner(t *testing.T) {
	w := newWorld(t)
	s := w.service()
	order := newRecord(request("r", line("apple", 1)))
	var err error
	if order.Revision, err = s.orders.Put(t.Context(), order); err != nil {
		t.Fatal(err)
	}
	var owners, lost atomic.Int32
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			mine := order
			err := s.advance(t.Context(), &mine, func(next *record) { next.Owner = newOwner() })
			switch {
			case err == nil:
				owners.Add(1)
			case errors.Is(err, errLost):
				lost.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if owners.Load() != 1 || lost.Load() != 15 {
		t.Errorf("%d owners, %d lost", owners.Load(), lost.Load())
	}
	if now, err := s.orders.Get(t.Context(), order.Key); err != nil || now.Revision != order.Revision+1 || now.Value.state() != pending {
		t.Errorf("%+v, %v", now, err)
	}
}

// lossy loses the answer to everything that is done for the first time.
type lossy struct{ done sync.Map }

func (l *lossy) do(what string, effect func() error) error {
	if err := effect(); err != nil {
		return err
	}
	if _, again := l.done.LoadOrStore(what, true); !again {
		return rpc.NewError(rpc.CodeUnavailable, "the answer is lost")
	}
	return nil
}

type lossyKV struct {
	jetstream.KeyValue
	l *lossy
}

func (kv lossyKV) Create(ctx context.Context, key string, value []byte, opts ...jetstream.KVCreateOpt) (rev uint64, err error) {
	err = kv.l.do("create", func() (err error) { rev, err = kv.KeyValue.Create(ctx, key, value, opts...); return })
	return rev, err
}

func (kv lossyKV) Update(ctx context.Context, key string, value []byte, last uint64) (rev uint64, err error) {
	err = kv.l.do(string(value), func() (err error) { rev, err = kv.KeyValue.Update(ctx, key, value, last); return })
	return rev, err
}

type lossyInventory struct {
	inventoryv1nats.InventoryServiceClient
	l *lossy
}

func (c lossyInventory) Reserve(ctx context.Context, req *inventoryv1.ReserveRequest, opts ...rpc.CallOption) (res *inventoryv1.ReserveResponse, err error) {
	err = c.l.do("reserve "+req.GetProductId(), func() (err error) { res, err = c.InventoryServiceClient.Reserve(ctx, req, opts...); return })
	return res, err
}

func (c lossyInventory) Confirm(ctx context.Context, req *inventoryv1.ConfirmRequest, opts ...rpc.CallOption) (res *inventoryv1.ConfirmResponse, err error) {
	err = c.l.do("confirm "+req.GetProductId(), func() (err error) { res, err = c.InventoryServiceClient.Confirm(ctx, req, opts...); return })
	return res, err
}

func (c lossyInventory) Release(ctx context.Context, req *inventoryv1.ReleaseRequest, opts ...rpc.CallOption) (res *inventoryv1.ReleaseResponse, err error) {
	err = c.l.do("release "+req.GetProductId(), func() (err error) { res, err = c.InventoryServiceClient.Release(ctx, req, opts...); return })
	return res, err
}

// Every answer is lost once, but nobody crashes: the owner finishes its order
// without help, and everything happens once.
func TestLostAnswers(t *testing.T) {
	w := newWorld(t)
	w.runInventory()
	w.add("apple", 10)
	w.add("plum", 1)
	kv := bucket(t, w, "orders")
	s := w.service() // nobody looks after its orders
	l := new(lossy)
	s.orders = kvtable.New[record](lossyKV{kv, l})
	s.inventory = lossyInventory{s.inventory, l}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if _, err := s.PlaceOrder(ctx, request("1", line("apple", 3), line("plum", 1))); err != nil {
		t.Error(err)
	}
	w.checkStock("apple", 7, 0, 3)
	if _, err := s.PlaceOrder(ctx, request("2", line("apple", 3), line("plum", 1))); rpc.CodeOf(err) != rpc.CodeFailedPrecondition {
		t.Error(err)
	}
	w.checkStock("apple", 7, 0, 3)
	w.checkStock("plum", 0, 0, 1)
}
