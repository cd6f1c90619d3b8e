package rpchealth_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpchealth"
	"github.com/natscall/natscall/rpc/rpctest"
)

type feed struct {
	orderv1nats.UnimplementedOrderFeedServiceServer
}

func (feed) ListFeed(context.Context, *orderv1.ListFeedRequest) (*orderv1.ListFeedResponse, error) {
	return &orderv1.ListFeedResponse{}, nil
}

// TestHandler follows a server through its life.
func TestHandler(t *testing.T) {
	nc := rpctest.Connect(t)
	server := rpc.NewServer(nc)
	handler := rpchealth.Handler(server)
	check := func(path string, want int) {
		t.Helper()
		for _, method := range []string{http.MethodGet, http.MethodHead} {
			w := httptest.NewRecorder()
			handler.ServeHTTP(w, httptest.NewRequest(method, path, nil))
			if w.Code != want {
				t.Errorf("%s %s: %d, want %d: %s", method, path, w.Code, want, w.Body)
			}
		}
	}
	check("/healthz", 200)
	check("/readyz", 503) // no service
	if err := orderv1nats.RegisterOrderFeedServiceServer(server, feed{}); err != nil {
		t.Fatal(err)
	}
	check("/readyz", 503) // not started
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("/healthz", 200)
	check("/readyz", 200)
	if err := server.SetHealth("", errors.New("no database")); err != nil {
		t.Fatal(err)
	}
	check("/healthz", 200)
	check("/readyz", 503)
	w := httptest.NewRecorder()
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	var body struct {
		Status   string
		Services []struct {
			Service, Instance, Reason string
			Serving                   bool
			TakesCalls                bool `json:"takes_calls"`
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body.Status != "unavailable" || len(body.Services) != 1 {
		t.Fatalf("%v: %s", err, w.Body)
	}
	if s := body.Services[0]; s.Service != orderv1nats.OrderFeedServiceName || s.Reason != "no database" || s.Serving || !s.TakesCalls ||
		s.Instance != server.Instance(orderv1nats.OrderFeedServiceName) {
		t.Errorf("got %+v", s)
	}
	if err := server.SetHealth("", nil); err != nil {
		t.Fatal(err)
	}
	check("/readyz", 200)
	if err := server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	check("/healthz", 503)
	check("/readyz", 503)
	check("/other", 404)
}

// TestNoServers: without a server nothing is ready.
func TestNoServers(t *testing.T) {
	for path, want := range map[string]int{"/healthz": 200, "/readyz": 503} {
		w := httptest.NewRecorder()
		rpchealth.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if w.Code != want {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

// TestLostConnection: a process whose connection is closed for good has to be started again.
func TestLostConnection(t *testing.T) {
	nc := rpctest.Connect(t)
	server := rpc.NewServer(nc)
	if err := orderv1nats.RegisterOrderFeedServiceServer(server, feed{}); err != nil {
		t.Fatal(err)
	}
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	nc.Close()
	if err := server.Run(t.Context()); err == nil {
		t.Error("the server runs") // it returns when the server has ended
	}
	_ = server.Shutdown(t.Context())
	w := httptest.NewRecorder()
	rpchealth.Handler(server).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/healthz", nil))
	if w.Code != 503 {
		t.Errorf("got %d", w.Code)
	}
}
