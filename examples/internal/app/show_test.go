package app_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/natscall/natscall/examples/internal/app"
	"github.com/natscall/natscall/examples/internal/natslog"
	"github.com/natscall/natscall/examples/internal/prom"
	"github.com/natscall/natscall/examples/inventory"
	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

const addStock = "inventory.v1.InventoryService/AddStock"

// TestShow runs the inventory with all that it can show, and calls it once.
func TestShow(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithJetStream())
	file := filepath.Join(t.TempDir(), "traces")
	command := app.Command{Name: "inventory", Run: func(ctx context.Context, nc *nats.Conn, s app.Settings) error {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		served := make(chan error, 1)
		go func() { served <- inventory.Run(ctx, nc, s) }()
		add(t, s.NewClient(nc))
		metrics, err := prom.Scrape(ctx, s.Telemetry.URL())
		if err != nil {
			t.Error(err)
		}
		for _, name := range []string{
			"rpc_server_call_duration_seconds", "rpc_client_call_duration_seconds", "natscall_server_answered_calls_total",
		} {
			if n := metrics.Sum(name, map[string]string{"rpc_method": addStock, "rpc_response_status_code": "OK"}); n != 1 {
				t.Errorf("%s is %v", name, n)
			}
		}
		if n := metrics.Sum("target_info", map[string]string{"service_name": "inventory"}); n != 1 {
			t.Errorf("target_info is %v", n)
		}
		cancel()
		return <-served
	}}
	var stderr strings.Builder
	// These are the flags of docs/observability.md.
	args := []string{"-server", srv.URL(), "-prefix", "eu.shop", "-metrics", "127.0.0.1:0", "-traces", file, "-logs"}
	if code := command.Execute(t.Context(), args, &stderr, &stderr); code != app.ExitOK || !strings.Contains(stderr.String(), "/metrics") {
		t.Fatalf("exit code %d, stderr %s", code, &stderr)
	}
	spans, err := os.ReadFile(file)
	if err != nil || strings.Count(string(spans), `"Name":"`+addStock+`"`) != 2 {
		t.Errorf("error %v, spans %s", err, spans)
	}
	checkLog(t, srv)
}

// add calls the inventory as soon as there is one.
func add(t *testing.T, client *rpc.Client) {
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		req := &inventoryv1.AddStockRequest{ProductId: "apple", Quantity: 3}
		_, err := inventoryv1nats.NewInventoryServiceClient(client).AddStock(ctx, req)
		if err == nil {
			return
		}
		if !strings.Contains(err.Error(), "no service answers") {
			t.Error(err)
			return
		}
	}
}

// checkLog checks what the stream has of the call.
func checkLog(t *testing.T, srv *rpctest.Server) {
	t.Helper()
	js, err := jetstream.New(srv.Connect())
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), natslog.Stream("eu.shop"))
	if err != nil {
		t.Fatal(err)
	}
	records, err := natslog.Read(t.Context(), stream, time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if r.Message == "call served" && r.Attributes["method"] == "/"+addStock && r.TraceID != "" &&
			strings.HasPrefix(r.Subject, "eu.shop.logs.inventory.") {
			return
		}
	}
	t.Errorf("no record tells of the call: %v", records)
}

// TestShowFails: what cannot be shown is said at the start.
func TestShowFails(t *testing.T) {
	srv := rpctest.NewServer(t) // without JetStream
	runs := func(context.Context, *nats.Conn, app.Settings) error { return nil }
	for _, tt := range []struct {
		name, stderr string
		code         int
		args         []string
	}{
		{"no address", "metrics: listen", app.ExitFailed, []string{"-metrics", "nowhere", "-logs"}},
		{"no address for the health", "health: listen", app.ExitFailed, []string{"-health", "nowhere"}},
		{"no file", "no/such", app.ExitFailed, []string{"-traces", "/no/such/file"}},
		{"no file and no address", "metrics: listen", app.ExitFailed, []string{"-traces", filepath.Join(t.TempDir(), "traces"), "-metrics", "nowhere"}},
		{"no stream", "no stream keeps it", app.ExitOK, []string{"-logs"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stderr strings.Builder
			command := app.Command{Name: "thing", Run: runs}
			code := command.Execute(t.Context(), append(tt.args, "-server", srv.URL()), &stderr, &stderr)
			if code != tt.code || !strings.Contains(stderr.String(), tt.stderr) {
				t.Errorf("exit code %d, stderr %s", code, &stderr)
			}
		})
	}
}
