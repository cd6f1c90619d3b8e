package app

import (
	"net/http"
	"sync"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpchealth"
)

// Health tells Kubernetes how the servers of the process are. A nil one is told nothing.
type Health struct {
	mu      sync.Mutex
	servers []*rpc.Server
}

func (h *Health) add(s *rpc.Server) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.servers = append(h.servers, s)
}

// ServeHTTP answers /healthz and /readyz for the servers that there are by now.
func (h *Health) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	servers := h.servers // only appended to
	h.mu.Unlock()
	rpchealth.Handler(servers...).ServeHTTP(w, r)
}
