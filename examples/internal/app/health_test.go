package app_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/examples/internal/app"
	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/rpc/rpctest"
)

type stock struct {
	inventoryv1nats.UnimplementedInventoryServiceServer
}

func (stock) GetStock(context.Context, *inventoryv1.GetStockRequest) (*inventoryv1.GetStockResponse, error) {
	return &inventoryv1.GetStockResponse{}, nil
}

// TestHealth follows a process from its start, without servers, to its end.
func TestHealth(t *testing.T) {
	server := rpctest.NewServer(t)
	command := app.Command{Name: "thing", Run: func(ctx context.Context, nc *nats.Conn, s app.Settings) error {
		check := func(when string, alive, ready int) {
			t.Helper()
			for path, want := range map[string]int{"/healthz": alive, "/readyz": ready, "/": http.StatusNotFound} {
				w := httptest.NewRecorder()
				s.Health.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, path, nil))
				if w.Code != want {
					t.Errorf("%s: %s answers %d, want %d: %s", when, path, w.Code, want, w.Body)
				}
			}
		}
		check("without servers", http.StatusOK, http.StatusServiceUnavailable)
		srv := s.NewServer(nc)
		if err := inventoryv1nats.RegisterInventoryServiceServer(srv, stock{}); err != nil {
			return err
		}
		check("before the start", http.StatusOK, http.StatusServiceUnavailable)
		if err := srv.Start(ctx); err != nil {
			return err
		}
		check("serving", http.StatusOK, http.StatusOK)
		other := s.NewServer(nc)
		check("with a server that has not started", http.StatusOK, http.StatusServiceUnavailable)
		if err := other.Shutdown(ctx); err != nil {
			return err
		}
		if err := srv.Shutdown(ctx); err != nil {
			return err
		}
		check("shut down", http.StatusServiceUnavailable, http.StatusServiceUnavailable)
		return nil
	}}
	if code := command.Execute(t.Context(), []string{"-server", server.URL(), "-health", "127.0.0.1:0"}, t.Output(), t.Output()); code != app.ExitOK {
		t.Errorf("exit code %d", code)
	}
}
