package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/natscall/natscall/examples/internal/app"
	"github.com/natscall/natscall/examples/internal/backoff"
	"github.com/natscall/natscall/examples/internal/telemetry"
	"github.com/natscall/natscall/examples/internal/traces"
	"github.com/natscall/natscall/examples/inventory"
	"github.com/natscall/natscall/examples/order"
)

// replicas is how many there are of each service.
const replicas = 2

// startTimeout is how long NATS may take to be ready, generous because
// machines are.
const startTimeout = 20 * time.Second

// shop is a NATS server and the services on it.
type shop struct {
	nats     *server.Server
	dir      string // of JetStream
	settings app.Settings
	lease    time.Duration
	services []*replica
	spans    *traces.Collector // of all replicas; nil where they show nothing
}

// replica is one of a service's, on a connection of its own, as if it were a
// process of its own.
type replica struct {
	name   string
	number int // from 1
	run    func(context.Context, *nats.Conn, app.Settings) error

	nc     *nats.Conn
	shown  *telemetry.Telemetry
	unshow func()
	cancel context.CancelFunc
	done   <-chan error
}

// openShop starts everything, and waits until all serve.
func openShop(log *slog.Logger, lease time.Duration) (*shop, error) {
	s := &shop{lease: lease, settings: app.Settings{Log: log}}
	return s, s.open()
}

// open starts what openShop promises, or nothing.
func (s *shop) open() error {
	if err := s.startNATS(); err != nil {
		return errors.Join(err, s.close())
	}
	for i := range replicas {
		s.services = append(s.services,
			&replica{name: "inventory", number: i + 1, run: inventory.Run}, &replica{name: "order", number: i + 1, run: s.order})
	}
	if err := s.startServices(); err != nil {
		return errors.Join(err, s.close())
	}
	return nil
}

func (s *shop) startServices() error {
	for _, r := range s.services {
		if err := s.start(r); err != nil {
			return err
		}
	}
	return s.awaitServices()
}

// stopServices stops the orders first, as they need the inventory to finish.
func (s *shop) stopServices() error {
	var errs []error
	for _, name := range []string{"order", "inventory"} {
		for _, r := range s.services {
			if r.name == name {
				errs = append(errs, r.stop())
			}
		}
	}
	return errors.Join(errs...)
}

// awaitServices pings until all answer. Calls would wait for them by
// themselves, but only for one replica of each.
func (s *shop) awaitServices() error {
	nc, err := s.settings.Connect("shop")
	if err != nil {
		return err
	}
	defer nc.Close()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	for range (backoff.Policy{First: time.Millisecond, Limit: 50 * time.Millisecond}).Attempts(ctx) {
		if _, err = gather[micro.Ping](nc, "$SRV.PING", replicas*services, 50*time.Millisecond); err == nil {
			return nil
		}
	}
	return err
}

func (s *shop) startNATS() (err error) {
	if s.dir, err = os.MkdirTemp("", "natscall-shop-"); err != nil {
		return err
	}
	s.nats, err = server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: s.dir, NoLog: true, NoSigs: true,
	})
	if err != nil {
		return err
	}
	s.nats.Start()
	if !s.nats.ReadyForConnections(startTimeout) {
		return fmt.Errorf("NATS is not ready after %v", startTimeout)
	}
	s.settings.Server = s.url()
	return nil
}

func (s *shop) url() string { return s.nats.ClientURL() }

func (s *shop) order(ctx context.Context, nc *nats.Conn, settings app.Settings) error {
	return order.Run(ctx, nc, order.Config{Settings: settings, Lease: s.lease})
}

// start connects the replica and runs it.
func (s *shop) start(r *replica) error {
	settings, err := s.show(r)
	if err != nil {
		return err
	}
	nc, err := settings.Connect(r.name)
	if err != nil {
		r.unshow()
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.run(ctx, nc, settings) }() // ended by stop
	r.nc, r.cancel, r.done = nc, cancel, done
	return nil
}

// stop lets the replica finish what it works on. One that does not run stays as
// it is.
func (r *replica) stop() error {
	if r.done == nil {
		return nil
	}
	r.cancel()
	err := <-r.done
	r.nc.Close()
	r.unshow()
	r.done = nil
	if err != nil && !errors.Is(err, context.Canceled) { // or it was still starting
		return fmt.Errorf("%s: %w", r.name, err)
	}
	return nil
}

// close ends all that openShop has started.
func (s *shop) close() error {
	errs := []error{s.stopServices()}
	if s.nats != nil {
		s.nats.Shutdown()
		s.nats.WaitForShutdown()
	}
	if s.dir != "" {
		errs = append(errs, os.RemoveAll(s.dir))
	}
	return errors.Join(errs...)
}
