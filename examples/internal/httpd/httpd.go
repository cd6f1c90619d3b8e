// Package httpd serves what a process of the examples shows over HTTP.
package httpd

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"
)

// Server serves HTTP until Close.
type Server struct {
	URL string // such as http://127.0.0.1:9464

	server http.Server
	served chan error
}

// Start serves at an address; port 0 takes a free one.
func Start(address string, handler http.Handler) (*Server, error) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	s := &Server{
		URL:    "http://" + listener.Addr().String(),
		server: http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second},
		served: make(chan error, 1),
	}
	go func() { s.served <- s.server.Serve(listener) }() // ended by Close
	return s, nil
}

// Close answers what has been asked already, for as long as ctx allows.
func (s *Server) Close(ctx context.Context) error {
	err := s.server.Shutdown(ctx)
	if err != nil {
		err = errors.Join(err, s.server.Close())
	}
	if end := <-s.served; !errors.Is(end, http.ErrServerClosed) {
		err = errors.Join(err, end)
	}
	return err
}
