package rpcdedup_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcdedup"
)

// stock adds what came in to a stock, so its AddStock must not run twice.
type stock struct {
	inventoryv1nats.UnimplementedInventoryServiceServer
	available int32
}

func (s *stock) AddStock(_ context.Context, req *inventoryv1.AddStockRequest) (*inventoryv1.AddStockResponse, error) {
	s.available += req.GetQuantity()
	return &inventoryv1.AddStockResponse{Stock: &inventoryv1.Stock{ProductId: req.GetProductId(), Available: s.available}}, nil
}

func registerStock(ctx context.Context, nc *nats.Conn, srv *rpc.Server, impl *stock) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	kv, err := js.CreateOrUpdateKeyValue(ctx, jetstream.KeyValueConfig{
		Bucket: "inventory-calls",
		TTL:    24 * time.Hour, // longer than any caller repeats a call
	})
	if err != nil {
		return err
	}
	store, err := rpcdedup.NewBucket(ctx, kv)
	if err != nil {
		return err
	}
	return inventoryv1nats.RegisterInventoryServiceServer(srv, impl,
		rpcdedup.Server(store, rpcdedup.Require(inventoryv1nats.InventoryServiceAddStockMethod)))
}

func Example() {
	nc, stop := connect()
	defer stop()
	srv := rpc.NewServer(nc)
	if err := registerStock(context.Background(), nc, srv, new(stock)); err != nil {
		log.Fatal(err)
	}
	if err := srv.Start(context.Background()); err != nil {
		log.Fatal(err)
	}
	defer func() { _ = srv.Shutdown(context.Background()) }()
	client := rpc.NewClient(nc)
	defer client.Close()
	inventory := inventoryv1nats.NewInventoryServiceClient(client)

	for range 2 { // the second time as after a restart of the caller
		res, err := inventory.AddStock(context.Background(), &inventoryv1.AddStockRequest{ProductId: "67890", Quantity: 10},
			rpc.WithIdempotencyKey("delivery-4711"))
		fmt.Println(res.GetStock().GetAvailable(), err)
	}
	// Output:
	// 10 <nil>
	// 10 <nil>
}

// connect starts what a deployment has already: a NATS server with JetStream.
func connect() (nc *nats.Conn, stop func()) {
	dir, err := os.MkdirTemp("", "rpcdedup")
	if err != nil {
		log.Fatal(err)
	}
	ns, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, JetStream: true, StoreDir: dir})
	if err != nil {
		log.Fatal(err)
	}
	ns.Start()
	if !ns.ReadyForConnections(10 * time.Second) {
		log.Fatal("the NATS server is not ready")
	}
	nc, err = nats.Connect("", nats.InProcessServer(ns))
	if err != nil {
		log.Fatal(err)
	}
	return nc, func() { nc.Close(); ns.Shutdown(); ns.WaitForShutdown(); _ = os.RemoveAll(dir) }
}
