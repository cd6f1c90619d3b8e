// Package rpchealth tells orchestrators how the servers of a process are, over HTTP.
//
//	http.ListenAndServe(":8080", rpchealth.Handler(server))
//
// Kubernetes, for instance, asks /healthz whether the process is to be started again, and /readyz
// whether a rollout may go on. Neither decides about calls: NATS has no addresses to take out of a
// list, and an instance that is not healthy leaves its queue groups by itself
// ([rpc.WithHealthCheck]).
package rpchealth

import (
	"encoding/json"
	"net/http"

	"github.com/natscall/natscall/rpc"
)

// answer is the body of an answer.
type answer struct {
	Status   string    `json:"status"` // "ok", or "unavailable"
	Services []service `json:"services"`
}

// service is how one service of a server is.
type service struct {
	Service    string `json:"service"`
	Instance   string `json:"instance"`
	Serving    bool   `json:"serving"`
	TakesCalls bool   `json:"takes_calls"`
	Reason     string `json:"reason,omitempty"`
}

// Handler answers GET and HEAD of two paths, with status 200 or 503 and the state of each service
// in JSON:
//
//   - /healthz is 200 until a server has been shut down, for instance since its NATS connection was
//     closed for good. Then only a new process helps.
//   - /readyz is 200 while all services of all servers are serving: each server has started, its
//     connection is up, and no service is unhealthy or shutting down. A server without services is
//     not ready.
//
// All other paths are 404. The answer has the texts of health checks: keep the port inside.
// Handler may be called before the servers are started.
func Handler(servers ...*rpc.Server) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, servers, alive(servers))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		reply(w, servers, ready(servers))
	})
	return mux
}

// alive reports whether no server has been shut down.
func alive(servers []*rpc.Server) bool {
	for _, s := range servers {
		if s.Stopped() {
			return false
		}
	}
	return true
}

// ready reports whether all services of all servers are serving.
func ready(servers []*rpc.Server) bool {
	for _, s := range servers {
		all := s.Health()
		if len(all) == 0 || !s.Connected() {
			return false
		}
		for _, h := range all {
			if !h.Serving {
				return false
			}
		}
	}
	return len(servers) > 0
}

func reply(w http.ResponseWriter, servers []*rpc.Server, ok bool) {
	a := answer{Status: "ok", Services: []service{}}
	code := http.StatusOK
	if !ok {
		a.Status, code = "unavailable", http.StatusServiceUnavailable
	}
	for _, s := range servers {
		for _, h := range s.Health() {
			a.Services = append(a.Services, service{h.Service, h.Instance, h.Serving, h.TakesCalls, h.Reason})
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(a) // it fails only if the client has gone
}
