package rpcauth_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nkeys"

	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcauth"
)

// The code of docs/identity.md comes from this file.

func ExampleNewVerifier() {
	nc, stop := connect()
	defer stop()
	ctx := context.Background()

	verifier, err := rpcauth.NewVerifier(nc,
		rpcauth.WithIssuers(account), // its users may call, if a rule lets them
		rpcauth.Allow("*", rpcauth.Authenticated),
		rpcauth.Allow(inventoryv1nats.InventoryServiceGetStockMethod, rpcauth.Anyone),
		rpcauth.Allow(inventoryv1nats.InventoryServiceAddStockMethod, rpcauth.Of(account, rpcauth.Tags("warehouse"))),
		rpcauth.RequireSignature(inventoryv1nats.InventoryServiceAddStockMethod),
	)
	if err != nil {
		log.Fatal(err)
	}
	srv := rpc.NewServer(nc, verifier.Server()) // after the interceptors for telemetry and logs

	must := func(err error) {
		if err != nil {
			log.Fatal(err)
		}
	}
	must(inventoryv1nats.RegisterInventoryServiceServer(srv, product{}))
	must(srv.Start(ctx))
	defer srv.Shutdown(ctx)

	signer, err := rpcauth.NewSigner(nc) // with the key that the connection logs in with
	if err != nil {
		log.Fatal(err)
	}
	client := rpc.NewClient(nc, rpc.WithInterceptors(signer)) // after those that set headers

	defer client.Close()
	unsigned := rpc.NewClient(nc)
	defer unsigned.Close()
	for _, c := range []*rpc.Client{client, unsigned} {
		stock := inventoryv1nats.NewInventoryServiceClient(c)
		_, err = stock.GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: "apple"})
		fmt.Println("GetStock:", rpc.CodeOf(err))
		_, err = stock.AddStock(ctx, &inventoryv1.AddStockRequest{ProductId: "apple", Quantity: 3})
		fmt.Println("AddStock:", rpc.CodeOf(err))
	}
	fmt.Println(verifier.Stats().Refused)
	// Output:
	// GetStock: ok
	// signed true [warehouse]
	// AddStock: ok
	// GetStock: ok
	// AddStock: unauthenticated
	// map[unsigned:1]
}

func (product) AddStock(ctx context.Context, req *inventoryv1.AddStockRequest) (*inventoryv1.AddStockResponse, error) {
	who := rpcauth.FromContext(ctx)
	fmt.Println(who.Kind, who.Account == account, who.Tags)

	return &inventoryv1.AddStockResponse{Stock: &inventoryv1.Stock{ProductId: req.GetProductId(), Available: req.GetQuantity()}}, nil
}

func ExampleWithReplayStore() {
	nc, stop := connect()
	defer stop()
	ctx := context.Background()
	js, err := jetstream.New(nc)
	if err != nil {
		log.Fatal(err)
	}

	seen, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "seen", TTL: 2 * time.Minute})
	if err != nil {
		log.Fatal(err)
	}
	store := func(ctx context.Context, id string, _ time.Time) (first bool, err error) {
		_, err = seen.Create(ctx, id, nil)
		if errors.Is(err, jetstream.ErrKeyExists) {
			return false, nil
		}
		return err == nil, err
	}

	_, err = rpcauth.NewVerifier(nc, rpcauth.WithIssuers(account), rpcauth.WithReplayStore(store))
	fmt.Println(err)
	for range 2 {
		first, err := store(ctx, "000102030405060708090a0b0c0d0e0f", time.Time{})
		fmt.Println(first, err)
	}
	// Output:
	// <nil>
	// true <nil>
	// false <nil>
}

// A rule is a function of the call and the identity, here one that lets callers read what is
// theirs.
func ExampleAllow() {
	nc, stop := connect()
	defer stop()
	own := func(_ context.Context, call *rpc.Call, id *rpcauth.Identity) bool {
		return id.Kind == rpcauth.KindImported && call.Header().Get("tenant") == id.Account
	}
	_, err := rpcauth.NewVerifier(nc,
		rpcauth.Allow("*", rpcauth.Users("UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4")),
		rpcauth.Allow("/order.v1.OrderService/*", own))
	fmt.Println(err)
	// Output: <nil>
}

// product implements the inventory service, as far as the examples need it.
type product struct {
	inventoryv1nats.UnimplementedInventoryServiceServer
}

func (product) GetStock(_ context.Context, req *inventoryv1.GetStockRequest) (*inventoryv1.GetStockResponse, error) {
	return &inventoryv1.GetStockResponse{Stock: &inventoryv1.Stock{ProductId: req.GetProductId()}}, nil
}

// issuer is the key of the account of the examples.
var issuer, account = func() (nkeys.KeyPair, string) {
	pair, err := nkeys.CreateAccount()
	if err != nil {
		log.Fatal(err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		log.Fatal(err)
	}
	return pair, public
}()

// connect starts what a deployment has already: a NATS server, and a user with credentials.
func connect() (nc *nats.Conn, stop func()) {
	dir, err := os.MkdirTemp("", "rpcauth")
	if err != nil {
		log.Fatal(err)
	}
	ns, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true, JetStream: true, StoreDir: dir})
	if err != nil {
		log.Fatal(err)
	}
	ns.Start()
	user, err := nkeys.CreateUser()
	if err != nil {
		log.Fatal(err)
	}
	public, err := user.PublicKey()
	if err != nil {
		log.Fatal(err)
	}
	claims := jwt.NewUserClaims(public)
	claims.Tags.Add("warehouse")
	token, err := claims.Encode(issuer)
	if err != nil {
		log.Fatal(err)
	}
	nc, err = nats.Connect("", nats.InProcessServer(ns), nats.UserJWT(func() (string, error) { return token, nil }, user.Sign))
	if err != nil {
		log.Fatal(err)
	}
	return nc, func() { nc.Close(); ns.Shutdown(); ns.WaitForShutdown(); _ = os.RemoveAll(dir) }
}
