package order

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/natscall/natscall/examples/internal/app"
	"github.com/natscall/natscall/rpc"
)

// TestReady: a process whose feed has started is not ready before its orders can be called.
func TestReady(t *testing.T) {
	w := newWorld(t)
	w.config.Health = new(app.Health)
	feed, srv, err := newServers(t.Context(), w.nc, w.config, w.service())
	if err != nil {
		t.Fatal(err)
	}
	check := func(when string, want int) {
		t.Helper()
		r := httptest.NewRecorder()
		w.config.Health.ServeHTTP(r, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil))
		if r.Code != want {
			t.Errorf("%s: /readyz answers %d, want %d: %s", when, r.Code, want, r.Body)
		}
	}
	check("before the start", http.StatusServiceUnavailable)
	for _, s := range []struct {
		name string
		*rpc.Server
		then int
	}{{"the feed", feed, http.StatusServiceUnavailable}, {"the orders", srv, http.StatusOK}} {
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer func() { _ = s.Shutdown(t.Context()) }()
		check(s.name+" have started", s.then)
	}
}
