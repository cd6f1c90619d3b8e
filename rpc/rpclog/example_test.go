package rpclog_test

import (
	"context"
	"fmt"
	"log"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/reflect/protoreflect"

	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpclog"
)

// The code of docs/telemetry.md about logs comes from this file.

func ExampleNewInterceptor() {
	nc, stop := connect()
	defer stop()
	ctx := context.Background()
	logger := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: same}))

	calls, err := rpclog.NewInterceptor(logger,
		rpclog.WithSlow(time.Second),
		rpclog.WithMessages(1000),
		rpclog.WithRedact(func(field protoreflect.FieldDescriptor) bool {
			return field.Name() == "product_id"
		}),
		rpclog.WithAttrs(func(_ context.Context, call *rpc.Call) []slog.Attr {
			return []slog.Attr{slog.String("tenant", call.Header().Get("tenant"))}
		}),
	)
	if err != nil {
		log.Fatal(err)
	}
	srv := rpc.NewServer(nc, rpc.WithInterceptors(calls))

	if err := inventoryv1nats.RegisterInventoryServiceServer(srv, stock{}); err != nil {
		log.Fatal(err)
	}
	if err := srv.Start(ctx); err != nil {
		log.Fatal(err)
	}
	client := rpc.NewClient(nc, rpc.WithHeader("tenant", "acme"))
	_, err = inventoryv1nats.NewInventoryServiceClient(client).GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: "apple"})
	if err != nil {
		log.Fatal(err)
	}
	if err := client.Close(); err != nil {
		log.Fatal(err)
	}
	if err := srv.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
	fmt.Println("done")
	// Output:
	// level=INFO msg="call served" code=ok tenant=acme request="{\"productId\":\"[redacted]\"}"
	// done
}

// same leaves out what is never the same, and what would make the lines of the example long.
func same(_ []string, a slog.Attr) slog.Attr {
	switch a.Key {
	case slog.TimeKey, "duration", "instance", "call", "queue", "method", "response":
		return slog.Attr{}
	}
	return a
}

// connect starts what a deployment has already: a NATS server.
func connect() (nc *nats.Conn, stop func()) {
	ns, err := server.NewServer(&server.Options{DontListen: true, NoSigs: true})
	if err != nil {
		log.Fatal(err)
	}
	ns.Start()
	nc, err = nats.Connect("", nats.InProcessServer(ns))
	if err != nil {
		log.Fatal(err)
	}
	return nc, func() { nc.Close(); ns.Shutdown(); ns.WaitForShutdown() }
}
