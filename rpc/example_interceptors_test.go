package rpc_test

import (
	"context"
	"fmt"
	"log"

	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/rpc"
)

// The code of docs/interceptors.md comes from this file.

func ExampleCall_OnAttempt() {
	nc, stop := connect()
	defer stop()
	ctx := context.Background()

	onlyFor := func(tenant string) rpc.Interceptor {
		return func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
			if call.Header().Get("tenant") != tenant {
				return rpc.Errorf(rpc.CodePermissionDenied, "%s is for %s", call.Method(), tenant)
			}
			return next(ctx, call)
		}
	}
	srv := rpc.NewServer(nc) // rpc.WithInterceptors here is for all of its services
	err := inventoryv1nats.RegisterInventoryServiceServer(srv, product{}, rpc.WithInterceptors(onlyFor("acme")))

	if err != nil {
		log.Fatal(err)
	}
	if err := srv.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer srv.Shutdown(ctx)
	client := rpc.NewClient(nc)
	defer client.Close()
	stock := inventoryv1nats.NewInventoryServiceClient(client)
	req := &inventoryv1.GetStockRequest{ProductId: "apple"}

	printAttempts := func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.OnAttempt(func(a *rpc.Attempt) error {
			fmt.Printf("attempt %d to %s: %d bytes\n", a.Number(), a.Subject(), len(a.Data()))
			return a.SetHeader(rpc.ExtensionPrefix+"Attempt", fmt.Sprint(a.Number()))
		})
		return next(ctx, call)
	}
	_, err = stock.GetStock(ctx, req, rpc.WithInterceptors(printAttempts))

	fmt.Println(err)
	_, err = stock.GetStock(ctx, req, rpc.WithHeader("Tenant", "acme"))
	fmt.Println(err)
	// Output:
	// attempt 0 to inventory.v1.InventoryService.GetStock: 7 bytes
	// permission_denied: /inventory.v1.InventoryService/GetStock is for acme
	// <nil>
}

func ExampleWithMethodInterceptors() {
	nc, stop := connect()
	defer stop()
	ctx := context.Background()

	readOnly := rpc.WithMethodInterceptors(func(m *rpc.Method) (rpc.Interceptor, error) {
		if m.Desc().Idempotency == rpc.IdempotencyNoSideEffects {
			return nil, nil // such methods have no interceptor of this one
		}
		return func(context.Context, *rpc.Call, rpc.Next) error {
			return rpc.Errorf(rpc.CodeFailedPrecondition, "%s is not for a read-only replica", m.FullName())
		}, nil
	})
	srv := rpc.NewServer(nc, readOnly)

	if err := inventoryv1nats.RegisterInventoryServiceServer(srv, product{}); err != nil {
		log.Fatal(err)
	}
	if err := srv.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer srv.Shutdown(ctx)
	client := rpc.NewClient(nc)
	defer client.Close()
	stock := inventoryv1nats.NewInventoryServiceClient(client)
	_, err := stock.GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: "apple"})
	fmt.Println(err)
	_, err = stock.Reserve(ctx, &inventoryv1.ReserveRequest{})
	fmt.Println(err)
	// Output:
	// <nil>
	// failed_precondition: /inventory.v1.InventoryService/Reserve is not for a read-only replica
}

// customer is who calls, as the interceptor of ExampleCall_SetValue finds out.
type customer struct{ name string }

// greeted is a service that wants to know who calls.
type greeted struct {
	inventoryv1nats.UnimplementedInventoryServiceServer
}

func (greeted) GetStock(ctx context.Context, req *inventoryv1.GetStockRequest) (*inventoryv1.GetStockResponse, error) {
	who, ok := rpc.CallValue[*customer](rpc.CallFromContext(ctx))
	if !ok {
		return nil, rpc.NewError(rpc.CodeInternal, "the interceptor that finds out who calls is missing")
	}
	fmt.Println(who.name, "asks for", req.GetProductId())
	return &inventoryv1.GetStockResponse{}, nil
}

func ExampleCall_SetValue() {
	nc, stop := connect()
	defer stop()
	ctx := context.Background()
	customers := map[string]*customer{"t0ken": {name: "Ada"}}

	identify := func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		who, ok := customers[call.Header().Get("token")]
		if !ok {
			return rpc.NewError(rpc.CodeUnauthenticated, "the token is missing or not valid")
		}
		call.SetValue(who) // for the handler: rpc.CallValue[*customer]
		return next(ctx, call)
	}
	srv := rpc.NewServer(nc, rpc.WithInterceptors(identify))
	client := rpc.NewClient(nc, rpc.WithHeader("token", "t0ken")) // with each of its calls

	if err := inventoryv1nats.RegisterInventoryServiceServer(srv, greeted{}); err != nil {
		log.Fatal(err)
	}
	if err := srv.Start(ctx); err != nil {
		log.Fatal(err)
	}
	defer srv.Shutdown(ctx)
	defer client.Close()
	stranger := rpc.NewClient(nc)
	defer stranger.Close()
	for _, c := range []*rpc.Client{client, stranger} {
		_, err := inventoryv1nats.NewInventoryServiceClient(c).GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: "apple"})
		fmt.Println(err)
	}
	// Output:
	// Ada asks for apple
	// <nil>
	// unauthenticated: the token is missing or not valid
}
