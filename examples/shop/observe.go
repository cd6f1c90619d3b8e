package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/examples/internal/app"
	"github.com/natscall/natscall/examples/internal/prom"
	"github.com/natscall/natscall/examples/internal/telemetry"
	"github.com/natscall/natscall/examples/internal/traces"
	"github.com/natscall/natscall/examples/observe"
	"github.com/natscall/natscall/examples/order"
	"github.com/natscall/natscall/rpc"
)

// keptTraces is how many of the last traces are kept: those of some seconds.
const keptTraces = 4000

// busyEvery says which calls of Reserve an instance of the inventory refuses.
const busyEvery = 10

// busyFor is when a call that was refused may be sent again.
const busyFor = 5 * time.Millisecond

// show makes a replica show what it does, if the shop is observed. It is a
// process of its own to whoever looks.
func (s *shop) show(r *replica) (app.Settings, error) {
	settings := s.settings
	r.unshow = func() {}
	if s.spans == nil {
		return settings, nil
	}
	var err error
	if r.name == "inventory" {
		settings.Interceptors = []rpc.Interceptor{busy()}
	}
	r.unshow, err = settings.Observe(context.Background(), telemetry.Config{
		Service: r.name, Instance: strconv.Itoa(r.number), Metrics: "127.0.0.1:0", Traces: s.spans,
	}, true)
	r.shown = settings.Telemetry
	return settings, err
}

// busy refuses one in ten calls of Reserve, so that there is something to
// retry: the client may try again, since the refused call has not run.
func busy() rpc.Interceptor {
	var reserved atomic.Int64
	return func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		if call.Method() == reserveMethod && reserved.Add(1)%busyEvery == 0 {
			return rpc.RetryAfter(rpc.NewError(rpc.CodeUnavailable, "the storeman is busy"), busyFor)
		}
		return next(ctx, call)
	}
}

// observation is a shop under load, and what looks at it.
type observation struct {
	out      io.Writer
	shop     *shop
	settings app.Settings // of the customers, who are observed too
	unshow   func()
	nc       *nats.Conn
	client   *rpc.Client

	prometheus *prom.Prometheus // nil where there is none
	began      time.Time        // the load
	took       time.Duration
	placed     atomic.Int64 // orders, whatever became of them
}

// observing says how the shop is observed.
type observing struct {
	load   time.Duration // how long
	module string        // of Prometheus, for go to build; empty: only one on PATH
	serve  bool          // whether to stay up
}

// observeShop puts the shop under load, and prints what can be seen.
func observeShop(ctx context.Context, out io.Writer, log *slog.Logger, how observing) (err error) {
	path, missing := prom.Find(ctx, how.module, func(text string) { fmt.Fprintln(out, text) })
	o := newObservation(out, log)
	defer func() { err = errors.Join(err, o.close()) }()
	if err := o.open(ctx); err != nil {
		return err
	}
	if missing != nil {
		fmt.Fprintf(out, "\nThere is no Prometheus: %v.\nWhat needs none is shown all the same.\n", missing)
	} else if err := o.startPrometheus(ctx, path); err != nil {
		return err
	}
	if err := o.load(ctx, how.load); err != nil {
		return err
	}
	looked, cancel := context.WithTimeout(ctx, storyTime)
	defer cancel()
	if err := o.look(looked); err != nil {
		return err
	}
	if how.serve {
		o.invite()
		<-ctx.Done()
	}
	return nil
}

func newObservation(out io.Writer, log *slog.Logger) *observation {
	return &observation{out: out, shop: &shop{
		lease: order.DefaultLease, settings: app.Settings{Log: log}, spans: traces.NewCollector(keptTraces),
	}}
}

// open opens the shop, and lets a customer in.
func (o *observation) open(ctx context.Context) (err error) {
	if err := o.shop.open(); err != nil {
		o.shop = nil // it is closed again
		return err
	}
	o.settings = o.shop.settings
	o.unshow, err = o.settings.Observe(ctx, telemetry.Config{
		Service: "customer", Instance: "1", Metrics: "127.0.0.1:0", Traces: o.shop.spans,
	}, true)
	if err != nil {
		return err
	}
	if o.nc, err = o.settings.Connect("customer"); err != nil {
		return err
	}
	o.client = o.settings.NewClient(o.nc)
	fmt.Fprintf(o.out, "A shop: NATS at %s, and these processes, of which each serves metrics:\n", o.shop.url())
	for _, t := range o.targets() {
		fmt.Fprintf(o.out, "   %-11s %s\n", t.Job+"/"+t.Instance, t.URL)
	}
	return nil
}

// close ends what open has begun, as far as that came.
func (o *observation) close() error {
	var errs []error
	if o.prometheus != nil {
		errs = append(errs, o.prometheus.Close())
	}
	if o.client != nil {
		errs = append(errs, o.client.Close())
	}
	if o.nc != nil {
		o.nc.Close()
	}
	if o.unshow != nil {
		o.unshow()
	}
	if o.shop != nil {
		errs = append(errs, o.shop.close())
	}
	return errors.Join(errs...)
}

// targets are the processes.
func (o *observation) targets() (all []prom.Target) {
	for _, r := range o.shop.services {
		all = append(all, prom.Target{Job: r.name, Instance: strconv.Itoa(r.number), URL: r.shown.URL()})
	}
	return append(all, prom.Target{Job: "customer", Instance: "1", URL: o.settings.Telemetry.URL()})
}

func (o *observation) startPrometheus(ctx context.Context, path string) (err error) {
	if o.prometheus, err = prom.Start(ctx, path, o.targets(), observe.Alerts); err != nil {
		return err
	}
	fmt.Fprintf(o.out, "\nPrometheus is at %s, and scrapes them each second (%s).\n", o.prometheus.URL, path)
	return nil
}

// look prints what can be seen from outside, and checks it.
func (o *observation) look(ctx context.Context) error {
	id, err := o.showTrace(ctx)
	if err != nil {
		return err
	}
	if o.prometheus != nil {
		err = o.showRates(ctx)
	} else {
		err = o.showCounts(ctx)
	}
	if err != nil {
		return err
	}
	return o.showLogs(ctx, id)
}

// invite says what to try while the shop stays open.
func (o *observation) invite() {
	fmt.Fprintf(o.out, "\nThe shop stays open, without customers. Try, in another terminal:\n\n  export NATS_URL=%s\n", o.shop.url())
	fmt.Fprintf(o.out, "  nats stream view LOGS\n  nats sub 'logs.>'\n  nats micro stats OrderService\n  curl %s\n", o.targets()[0].URL)
	if o.prometheus != nil {
		fmt.Fprintf(o.out, "  open %s/alerts\n", o.prometheus.URL)
	}
	fmt.Fprintln(o.out, "\nCtrl-C closes it.")
}
