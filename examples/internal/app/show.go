package app

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"go.opentelemetry.io/otel/exporters/stdout/stdouttrace"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/natscall/natscall/examples/internal/httpd"
	"github.com/natscall/natscall/examples/internal/natslog"
	"github.com/natscall/natscall/examples/internal/telemetry"
)

// Show says what a process shows of itself, which is nothing unless a flag says so.
type Show struct {
	Metrics string // an address
	Health  string // another one
	Traces  string // a file
	Logs    bool
}

// define makes the flags that set s.
func (s *Show) define(fs *flag.FlagSet) {
	fs.StringVar(&s.Metrics, "metrics", "", "`address` at which to serve metrics for Prometheus, such as 127.0.0.1:9464: at /metrics")
	fs.StringVar(&s.Health, "health", "", "`address` at which to tell Kubernetes how the services are, such as :8080: at /healthz and /readyz")
	fs.StringVar(&s.Traces, "traces", "", "`file` to which to append spans as JSON, such as /dev/stderr")
	fs.BoolVar(&s.Logs, "logs", false, "send the log, and a record for each call, to NATS: to logs.<name>.<instance>, which the stream LOGS keeps")
}

// ShowTimeout is how long the first and the last words to NATS, or to a collector, may take.
const ShowTimeout = 5 * time.Second

// show begins to show what the flags say. end sends the rest.
func (s *Settings) show(ctx context.Context, name string) (end func(), err error) {
	if s.Show == (Show{}) {
		return func() {}, nil
	}
	c := telemetry.Config{Service: name, Instance: nuid.Next(), Metrics: s.Show.Metrics, Batch: true}
	// First, as what comes next waits for NATS: the process is alive meanwhile.
	endHealth, err := s.showHealth()
	if err != nil {
		return nil, err
	}
	if s.Show.Traces != "" {
		if c.Traces, err = openTraces(s.Show.Traces); err != nil {
			endHealth()
			return nil, err
		}
	}
	endObserving, err := s.Observe(ctx, c, s.Show.Logs)
	if err != nil {
		endHealth()
		return nil, err
	}
	return func() { endHealth(); endObserving() }, nil
}

// showHealth serves it before there are servers: the process is alive, and not ready.
func (s *Settings) showHealth() (end func(), err error) {
	if s.Show.Health == "" {
		return func() {}, nil
	}
	s.Health = new(Health)
	server, err := httpd.Start(s.Show.Health, s.Health)
	if err != nil {
		return nil, fmt.Errorf("health: %w", err)
	}
	local := s.Log // which must not depend on NATS
	local.Info("health is served", "url", server.URL)
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), ShowTimeout)
		defer cancel()
		if err := server.Close(ctx); err != nil {
			local.Warn("the health of the services was not served to the end", "err", err)
		}
	}, nil
}

// traces are spans in a file.
type traces struct {
	*stdouttrace.Exporter
	file *os.File
}

func openTraces(name string) (sdktrace.SpanExporter, error) {
	file, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	exporter, err := stdouttrace.New(stdouttrace.WithWriter(file))
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return traces{exporter, file}, nil
}

// Shutdown implements sdktrace.SpanExporter.
func (t traces) Shutdown(ctx context.Context) error {
	return errors.Join(t.Exporter.Shutdown(ctx), t.file.Close())
}

// Observe makes the process show what c says. With logs it sends its log to NATS too, and a record
// for each call. end sends the rest, and must run when the servers and clients have ended.
func (s *Settings) Observe(ctx context.Context, c telemetry.Config, logs bool) (end func(), err error) {
	local := s.Log // for what must not depend on NATS
	var closers []func(context.Context) error
	end = func() {
		ctx, cancel := context.WithTimeout(context.Background(), ShowTimeout)
		defer cancel()
		for _, c := range slices.Backward(closers) {
			if err := c(ctx); err != nil {
				local.Warn("not all that was to be shown is", "err", err)
			}
		}
	}
	if logs {
		h, err := s.logToNATS(ctx, c.Service, c.Instance)
		if err != nil {
			return nil, err
		}
		closers = append(closers, h.Close)
		s.Log = slog.New(slog.NewMultiHandler(local.Handler(), h))
		c.Calls = slog.New(h) // one record a call would be too many for people to watch
	}
	if s.Telemetry, err = telemetry.Start(c); err != nil {
		end()
		return nil, err
	}
	closers = append(closers, s.Telemetry.Close)
	if url := s.Telemetry.URL(); url != "" {
		s.Log.Info("metrics are served", "url", url)
	}
	return end, nil
}

// logHandler closes its connection too.
type logHandler struct {
	*natslog.Handler
	nc *nats.Conn
}

// Close sends what is left.
func (h logHandler) Close(ctx context.Context) error {
	defer h.nc.Close()
	return h.Handler.Close(ctx)
}

// logToNATS returns a handler with a connection of its own, which logs to the local log only: a
// record about records would be one more.
func (s *Settings) logToNATS(ctx context.Context, name, instance string) (*logHandler, error) {
	apart := *s
	nc, err := apart.AwaitNATS(ctx, name+"-log")
	if err != nil {
		return nil, err
	}
	if err := s.ensureLogs(ctx, nc); err != nil {
		s.Log.Warn("the log goes to NATS, but no stream keeps it", "err", err)
	}
	h := natslog.New(nc, natslog.Subject(s.Prefix, name, instance), slog.LevelInfo,
		slog.String("service.name", name), slog.String("service.instance.id", instance))
	return &logHandler{h, nc}, nil
}

func (s *Settings) ensureLogs(ctx context.Context, nc *nats.Conn) error {
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, ShowTimeout)
	defer cancel()
	_, err = natslog.Ensure(ctx, js, s.Prefix, s.Replicas)
	return err
}
