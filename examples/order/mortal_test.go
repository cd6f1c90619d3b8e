package order

import (
	"context"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/natscall/natscall/examples/internal/kvtable"
	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
)

// mortal is a replica that crashes: from some moment on nothing that it does
// reaches the outside. The moment is counted in what it does outside, so that
// a test can put it between any two effects.
type mortal struct {
	mu   sync.Mutex
	left int  // how much it does before it crashes
	torn bool // it crashes with the effect done and the answer lost
	done int
}

var errDead = rpc.NewError(rpc.CodeUnavailable, "the replica has crashed")

func (m *mortal) do(effect func() error) error {
	m.mu.Lock()
	m.done++
	m.left--
	alive, torn := m.left >= 0, m.left == -1 && m.torn
	m.mu.Unlock()
	if !alive && !torn {
		return errDead
	}
	if err := effect(); err != nil || alive {
		return err
	}
	return errDead
}

// wrap puts m between the service and everything else.
func (m *mortal) wrap(s *Service, kv jetstream.KeyValue) {
	s.orders = kvtable.New[record](mortalKV{kv, m})
	s.inventory = mortalInventory{s.inventory, m}
	s.events = mortalEvents{s.events, m}
	flush := s.flush
	s.flush = func(ctx context.Context) error { return m.do(func() error { return flush(ctx) }) }
}

type mortalKV struct {
	jetstream.KeyValue
	m *mortal
}

func (kv mortalKV) Get(ctx context.Context, key string) (e jetstream.KeyValueEntry, err error) {
	err = kv.m.do(func() (err error) { e, err = kv.KeyValue.Get(ctx, key); return })
	return e, err
}

func (kv mortalKV) Create(ctx context.Context, key string, value []byte, opts ...jetstream.KVCreateOpt) (rev uint64, err error) {
	err = kv.m.do(func() (err error) { rev, err = kv.KeyValue.Create(ctx, key, value, opts...); return })
	return rev, err
}

func (kv mortalKV) Update(ctx context.Context, key string, value []byte, last uint64) (rev uint64, err error) {
	err = kv.m.do(func() (err error) { rev, err = kv.KeyValue.Update(ctx, key, value, last); return })
	return rev, err
}

func (kv mortalKV) Watch(ctx context.Context, key string, opts ...jetstream.WatchOpt) (w jetstream.KeyWatcher, err error) {
	err = kv.m.do(func() (err error) { w, err = kv.KeyValue.Watch(ctx, key, opts...); return })
	if err != nil && w != nil {
		_ = w.Stop()
	}
	return w, err
}

type mortalInventory struct {
	inventoryv1nats.InventoryServiceClient
	m *mortal
}

func (c mortalInventory) Reserve(ctx context.Context, req *inventoryv1.ReserveRequest, opts ...rpc.CallOption) (res *inventoryv1.ReserveResponse, err error) {
	err = c.m.do(func() (err error) { res, err = c.InventoryServiceClient.Reserve(ctx, req, opts...); return })
	return res, err
}

func (c mortalInventory) Confirm(ctx context.Context, req *inventoryv1.ConfirmRequest, opts ...rpc.CallOption) (res *inventoryv1.ConfirmResponse, err error) {
	err = c.m.do(func() (err error) { res, err = c.InventoryServiceClient.Confirm(ctx, req, opts...); return })
	return res, err
}

func (c mortalInventory) Release(ctx context.Context, req *inventoryv1.ReleaseRequest, opts ...rpc.CallOption) (res *inventoryv1.ReleaseResponse, err error) {
	err = c.m.do(func() (err error) { res, err = c.InventoryServiceClient.Release(ctx, req, opts...); return })
	return res, err
}

type mortalEvents struct {
	orderv1nats.OrderFeedServiceClient
	m *mortal
}

func (c mortalEvents) OrderPlaced(ctx context.Context, req *orderv1.OrderPlacedRequest, opts ...rpc.CallOption) error {
	return c.m.do(func() error { return c.OrderFeedServiceClient.OrderPlaced(ctx, req, opts...) })
}

// mortalMsg is a message that a mortal replica has got.
type mortalMsg struct {
	jetstream.Msg
	m *mortal
}

func (m mortalMsg) Ack() error { return m.m.do(m.Msg.Ack) }

func (m mortalMsg) NakWithDelay(d time.Duration) error {
	return m.m.do(func() error { return m.Msg.NakWithDelay(d) })
}

func (m mortalMsg) TermWithReason(why string) error {
	return m.m.do(func() error { return m.Msg.TermWithReason(why) })
}
