package rpcotel_test

import (
	"context"
	"fmt"
	"log"
	"strings"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcotel"
)

// The code of docs/telemetry.md comes from this file and from that of rpclog.

func ExampleNewInterceptor() {
	nc, stop := connect()
	defer stop()
	ctx := context.Background()
	exporter, reader := tracetest.NewInMemoryExporter(), sdkmetric.NewManualReader()

	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	otel.SetTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter)))
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))

	telemetry, err := rpcotel.NewInterceptor()
	if err != nil {
		log.Fatal(err)
	}
	srv := rpc.NewServer(nc, rpc.WithInterceptors(telemetry))    // put it first
	client := rpc.NewClient(nc, rpc.WithInterceptors(telemetry)) // the same one

	finer := sdkmetric.NewView(sdkmetric.Instrument{Name: "rpc.*.call.duration"},
		sdkmetric.Stream{Aggregation: sdkmetric.AggregationBase2ExponentialHistogram{MaxSize: 160, MaxScale: 20}})
	_ = sdkmetric.NewMeterProvider(sdkmetric.WithView(finer))

	must := func(err error) {
		if err != nil {
			log.Fatal(err)
		}
	}
	must(inventoryv1nats.RegisterInventoryServiceServer(srv, product{}))
	must(srv.Start(ctx))
	stock := inventoryv1nats.NewInventoryServiceClient(client)
	_, err = stock.GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: "apple"})
	must(err)
	must(client.Close())
	must(srv.Shutdown(ctx))
	for _, span := range exporter.GetSpans() {
		fmt.Printf("%v %s, a child of another span: %v\n", span.SpanKind, span.Name, span.Parent.IsValid())
	}
	// Output:
	// server inventory.v1.InventoryService/GetStock, a child of another span: true
	// client inventory.v1.InventoryService/GetStock, a child of another span: false
}

func ExampleObserveServer() {
	nc, stop := connect()
	defer stop()
	ctx := context.Background()
	reader := sdkmetric.NewManualReader()
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))

	srv := rpc.NewServer(nc)
	load, err := rpcotel.ObserveServer(srv)
	if err != nil {
		log.Fatal(err)
	}
	defer load.Unregister()

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
	_, err = stock.GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: "apple"})
	fmt.Println(err)
	var all metricdata.ResourceMetrics
	if err := reader.Collect(ctx, &all); err != nil {
		log.Fatal(err)
	}
	for _, m := range all.ScopeMetrics[0].Metrics {
		if m.Name == "natscall.server.answered_calls" {
			for _, p := range m.Data.(metricdata.Sum[int64]).DataPoints {
				fmt.Println(p.Attributes.Encoded(attribute.DefaultEncoder()), p.Value)
			}
		}
	}
	// Output:
	// <nil>
	// rpc.method=inventory.v1.InventoryService/GetStock,rpc.response.status_code=OK 1
}

func ExampleWithPublicEndpoint() {
	outside := func(call *rpc.Call) bool { return strings.HasPrefix(call.Peer().Reply, "_R_.") }
	telemetry, err := rpcotel.NewInterceptor(
		rpcotel.WithPublicEndpoint(outside),
		rpcotel.WithRequestHeaders("tenant"),
		rpcotel.WithResponseHeaders("cost"),
		rpcotel.WithFilter(func(_ context.Context, call *rpc.Call) bool {
			return !strings.HasSuffix(call.Method(), "/Ping")
		}),
		rpcotel.WithSpanAttributes(func(_ context.Context, call *rpc.Call) []attribute.KeyValue {
			return []attribute.KeyValue{attribute.Bool("shop.plain", call.Peer().Plain)}
		}),
		rpcotel.WithDurationAttributes(func(_ context.Context, call *rpc.Call) []attribute.KeyValue {
			return []attribute.KeyValue{attribute.String("shop.tenant", call.Header().Get("tenant"))}
		}),
	)
	fmt.Println(telemetry != nil, err)
	// Output: true <nil>
}

func ExamplePropagate() {
	nc, stop := connect()
	defer stop()
	client := rpc.NewClient(nc)
	defer client.Close()
	ctx, span := sdktrace.NewTracerProvider().Tracer("shop").Start(context.Background(), "look")
	defer span.End()

	method := inventoryv1nats.InventoryServiceMethods.GetStock
	req := &inventoryv1.GetStockRequest{ProductId: "apple"}
	rows := method.Gather(ctx, client, req, rpc.WithCallOptions(rpcotel.Propagate(ctx, nil)...))

	for row := range rows.All() {
		fmt.Println(row.Response)
	}
	fmt.Println(rows.Result().Ended)
	// Output: nobody
}

// product implements the inventory service, as far as the examples need it.
type product struct {
	inventoryv1nats.UnimplementedInventoryServiceServer
}

func (product) GetStock(_ context.Context, req *inventoryv1.GetStockRequest) (*inventoryv1.GetStockResponse, error) {
	return &inventoryv1.GetStockResponse{Stock: &inventoryv1.Stock{ProductId: req.GetProductId()}}, nil
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
