package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/examples/inventory"
	"github.com/natscall/natscall/examples/order"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// shopFiles are what the shop of the examples is made of.
const shopFiles = `-I ../../proto ../../proto/inventory/v1/inventory.proto ../../proto/order/v1/order.proto ../../proto/order/v1/feed.proto`

// shopUsers are the users of the shop, as docs/security.md has them. The subjects of --allow-pub
// and --allow-sub are those of JetStream: the services keep their state in its buckets, and take
// orders from a stream; natscall does not know which.
const shopUsers = `--user inventory --serve inventory.v1.InventoryService
  --allow-pub $JS.API.STREAM.*.KV_inventory --allow-pub $JS.API.STREAM.MSG.GET.KV_inventory
  --allow-pub $JS.API.CONSUMER.*.KV_inventory.> --allow-pub $KV.inventory.> --allow-sub _INBOX.>
--user order --serve order.v1.OrderService --serve order.v1.OrderFeedService
  --call order.v1.OrderFeedService/OrderPlaced --call inventory.v1.InventoryService/Reserve
  --call inventory.v1.InventoryService/Confirm --call inventory.v1.InventoryService/Release
  --allow-pub $JS.API.STREAM.*.KV_orders --allow-pub $JS.API.STREAM.MSG.GET.KV_orders
  --allow-pub $JS.API.CONSUMER.*.KV_orders.> --allow-pub $KV.orders.>
  --allow-pub $JS.API.STREAM.*.KV_picks --allow-pub $JS.API.STREAM.MSG.GET.KV_picks
  --allow-pub $JS.API.CONSUMER.*.KV_picks.> --allow-pub $KV.picks.>
  --allow-pub $JS.API.STREAM.*.KV_feed --allow-pub $JS.API.STREAM.MSG.GET.KV_feed
  --allow-pub $JS.API.CONSUMER.*.KV_feed.> --allow-pub $KV.feed.>
  --allow-pub $JS.API.STREAM.NAMES --allow-pub $JS.API.STREAM.*.orders-new
  --allow-pub $JS.API.CONSUMER.*.orders-new.> --allow-pub $JS.API.CONSUMER.MSG.NEXT.orders-new.order-service
--user shopper --inbox _INBOX_shopper --call inventory.v1.InventoryService --call order.v1.OrderService
  --call order.v1.OrderFeedService
--user tool --inbox _INBOX_tool --discover`

// output returns what the command prints.
func output(t *testing.T, args string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if code := run(t.Context(), append([]string{"permissions"}, strings.Fields(args)...), nil, &stdout, &stderr); code != problem.StatusOK {
		t.Fatalf("natscall permissions %s: exit code %d: %s", args, code, &stderr)
	}
	return stdout.String()
}

// configured returns the options of a NATS server whose configuration file includes what the
// command has printed.
func configured(t *testing.T, printed, config string) *server.Options {
	t.Helper()
	dir := t.TempDir()
	must(t, os.WriteFile(filepath.Join(dir, "printed.conf"), []byte(printed), 0o600))
	file := filepath.Join(dir, "nats.conf")
	must(t, os.WriteFile(file, []byte("include \"printed.conf\"\n"+config), 0o600))
	options, err := server.ProcessConfigFile(file)
	must(t, err)
	return options
}

// usersConfig gives each of the shop's users what the command has printed for it.
const usersConfig = `authorization { users: [
	{user: inventory, password: x, permissions: $inventory}
	{user: order, password: x, permissions: $order}
	{user: shopper, password: x, permissions: $shopper}
	{user: tool, password: x, permissions: $tool}
	{user: spy, password: x}
] }`

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// patience is how long a test waits for what has to happen.
const patience = 30 * time.Second

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// maxPayload is small, so that large messages are made soon.
const maxPayload = 64 << 10

// heartbeat is short, so that services soon notice that a client which may not send frames is mute.
const heartbeat = 2 * time.Second

// large is a field that messages of the shop do not have, and that exceeds max_payload.
func large() []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, 1000, protowire.BytesType), make([]byte, 2*maxPayload))
}

// shop is a NATS server, with the services of the examples on it.
type shop struct {
	*testing.T
	srv   *rpctest.Server
	spy   *nats.Conn
	peers []*peer                         // those of services
	held  sync.Map                        // *hold by its name
	login func(user string) []nats.Option // how a user connects
}

func newShop(t *testing.T, options func(*server.Options)) *shop {
	t.Helper()
	s := &shop{T: t, login: func(user string) []nats.Option {
		return []nats.Option{nats.UserInfo(user, "x"), nats.CustomInboxPrefix(inboxOf(user))}
	}}
	if options == nil {
		options = func(*server.Options) {} // anybody may do anything
	}
	s.srv = rpctest.NewServer(t, rpctest.WithJetStream(), rpctest.WithServerOptions(options), rpctest.WithServerOptions(func(o *server.Options) {
		o.MaxPayload = maxPayload
	}))
	return s
}

// inboxOf is the prefix of a user's inbox: a suffix tells variants of a user apart.
func inboxOf(user string) string {
	name, _, _ := strings.Cut(user, "_")
	if name == "shopper" || name == "tool" {
		return "_INBOX_" + name
	}
	return "_INBOX"
}

// peer is a connection of a user, and a client on it.
type peer struct {
	nc      *nats.Conn
	client  *rpc.Client
	refused chan string // what NATS has refused
}

func (s *shop) connect(user string, opts ...rpc.ClientOption) *peer {
	s.Helper()
	p := &peer{refused: make(chan string, 64)}
	p.nc = s.srv.Connect(append(s.login(user), nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
		if user == "tool" && strings.Contains(err.Error(), "._all.alive") {
			return // it need not ask who works on its calls, and tries when the machine is busy
		}
		select {
		case p.refused <- err.Error():
		default:
		}
	}))...)
	p.client = rpc.NewClient(p.nc, append(opts, rpc.WithHeartbeat(heartbeat), rpc.WithLogger(slog.New(slog.DiscardHandler)))...)
	s.Cleanup(func() { _ = p.client.Close() })
	return p
}

// hold is a call that the services hold back until its caller has gone.
type hold struct {
	running, ended, release chan struct{}
	run, end                sync.Once // the runtime may send the call again
	id                      []byte    // of the call, once it is running
}

// Headers by which a call asks to be held back, and for a response over max_payload.
const (
	holdHeader  = "Hold"
	largeHeader = "Large"
)

// intercept does what calls ask for.
func (s *shop) intercept(ctx context.Context, call *rpc.Call, next rpc.Next) error {
	if call.Header().Get(largeHeader) != "" {
		err := next(ctx, call)
		if err == nil {
			call.Response().ProtoReflect().SetUnknown(large())
		}
		return err
	}
	held, ok := s.held.Load(call.Header().Get(holdHeader))
	if !ok {
		return next(ctx, call)
	}
	h := held.(*hold)
	id, err := hex.DecodeString(call.ID())
	if err != nil {
		return err
	}
	h.run.Do(func() { h.id = id; close(h.running) })
	select {
	case <-ctx.Done():
		h.end.Do(func() { close(h.ended) })
	case <-h.release:
	}
	return ctx.Err()
}

func (s *shop) hold(name string) *hold {
	h := &hold{running: make(chan struct{}), ended: make(chan struct{}), release: make(chan struct{})}
	s.held.Store(name, h)
	return h
}

// newServer returns a server for a user's services.
func (s *shop) newServer(nc *nats.Conn, opts ...rpc.ServerOption) *rpc.Server {
	return rpc.NewServer(nc, append(opts, rpc.WithHeartbeat(heartbeat), rpc.WithLogger(slog.New(slog.DiscardHandler)), rpc.WithInterceptors(s.intercept))...)
}

// start starts a server, which ends with the test.
func (s *shop) start(srv *rpc.Server) error {
	if err := srv.Start(testContext(s.T)); err != nil {
		return err
	}
	s.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			s.Error(err)
		}
	})
	return nil
}

// serveInventory serves the inventory as inventory.Run does, as a user.
func (s *shop) serveInventory(user string, opts ...rpc.ServerOption) error {
	s.Helper()
	p := s.connect(user)
	s.peers = append(s.peers, p)
	nc := p.nc
	js, err := jetstream.New(nc)
	must(s.T, err)
	var config order.Config // has the settings, whose package is internal
	service, err := inventory.New(testContext(s.T), js, config.Settings)
	must(s.T, err)
	srv := s.newServer(nc, opts...)
	must(s.T, inventoryv1nats.RegisterInventoryServiceServer(srv, service))
	return s.start(srv)
}

// serveOrders serves orders and their feed as order.Run does, as a user.
func (s *shop) serveOrders(user string, opts ...rpc.ServerOption) error {
	s.Helper()
	p := s.connect(user)
	s.peers = append(s.peers, p)
	config := order.Config{Lease: patience}
	config.Log = slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(context.Background())
	orders, err := order.New(testContext(s.T), p.nc, p.client, config)
	must(s.T, err)
	feed, err := order.NewFeed(testContext(s.T), p.nc, config)
	must(s.T, err)
	intake, err := order.NewIntake(testContext(s.T), p.nc, orders, config)
	must(s.T, err)
	srv := s.newServer(p.nc, opts...)
	must(s.T, errors.Join(orderv1nats.RegisterOrderServiceServer(srv, orders), orderv1nats.RegisterOrderFeedServiceServer(srv, feed)))
	var running sync.WaitGroup
	running.Go(func() { orders.Recover(ctx) })
	running.Go(func() { intake.Run(ctx) })
	s.Cleanup(running.Wait)
	s.Cleanup(cancel)
	return s.start(srv)
}

// serveOld serves all that the shop has but one method of each service, as replicas do that are
// older than the method.
func (s *shop) serveOld() {
	s.Helper()
	inventories := s.newServer(s.connect("inventory").nc)
	i, o, f := inventoryv1nats.InventoryServiceMethods, orderv1nats.OrderServiceMethods, orderv1nats.OrderFeedServiceMethods
	must(s.T, rpc.Register(inventories, i.GetStock.Service(), inventoryv1nats.InventoryServiceServer(inventoryv1nats.UnimplementedInventoryServiceServer{}), nil,
		rpc.HandleUnary(i.GetStock, inventoryv1nats.InventoryServiceServer.GetStock)))
	orders := s.newServer(s.connect("order").nc)
	must(s.T, rpc.Register(orders, o.PlaceOrder.Service(), orderv1nats.OrderServiceServer(orderv1nats.UnimplementedOrderServiceServer{}), nil,
		rpc.HandleUnary(o.PlaceOrder, orderv1nats.OrderServiceServer.PlaceOrder)))
	must(s.T, rpc.Register(orders, f.ListFeed.Service(), orderv1nats.OrderFeedServiceServer(orderv1nats.UnimplementedOrderFeedServiceServer{}), nil,
		rpc.HandleOneWay(f.OrderPlaced, orderv1nats.OrderFeedServiceServer.OrderPlaced)))
	must(s.T, errors.Join(s.start(inventories), s.start(orders)))
}

// awaitRefusal returns an error if NATS refuses p something before done.
func awaitRefusal(ctx context.Context, p *peer, done <-chan struct{}) error {
	select {
	case <-done:
		return nil
	case refused := <-p.refused:
		return errors.New(refused)
	case <-ctx.Done():
		return fmt.Errorf("nothing happened: %w", ctx.Err())
	}
}
