// Package app is what the commands of the example services share: their flags,
// the connection to NATS, and an end in good order.
package app

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"regexp"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/examples/internal/backoff"
	"github.com/natscall/natscall/examples/internal/telemetry"
	"github.com/natscall/natscall/rpc"
)

// Settings say how a service is connected and where it keeps its state.
type Settings struct {
	Server   string // the URLs of NATS, separated by commas
	Creds    string // files; empty where there are none
	NKey     string
	TLSCA    string
	TLSCert  string
	TLSKey   string
	Prefix   string        // of subjects and buckets
	Replicas int           // of the buckets; 0 is 1
	Grace    time.Duration // to finish what is being worked on; 0 is DefaultGrace
	Log      *slog.Logger

	Show         Show
	Health       *Health              // of the process; nil where it is not shown
	Telemetry    *telemetry.Telemetry // of the process; nil where it shows nothing
	Interceptors []rpc.Interceptor    // of servers, inside those of the telemetry
}

// DefaultGrace is more than the timeout of any method of the shop: 10 s, of PlaceOrder.
const DefaultGrace = 25 * time.Second

// prefix is a subject of which also the name of a bucket can be made.
var prefix = regexp.MustCompile(`^([A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*)?$`)

// define makes the flags that set s.
func (s *Settings) define(fs *flag.FlagSet) {
	fs.StringVar(&s.Server, "server", "", "`URLs` of the NATS servers, separated by commas (default $NATS_URL, or "+nats.DefaultURL+")")
	fs.StringVar(&s.Creds, "creds", "", "`file` with the user's credentials")
	fs.StringVar(&s.NKey, "nkey", "", "`file` with the seed of the user's NKey")
	fs.StringVar(&s.TLSCA, "tlsca", "", "`file` with the certificates of the authorities to trust")
	fs.StringVar(&s.TLSCert, "tlscert", "", "`file` with the certificate to show")
	fs.StringVar(&s.TLSKey, "tlskey", "", "`file` with the certificate's key")
	fs.StringVar(&s.Prefix, "prefix", "", "`subject` put before all subjects and buckets, so that several shops share one NATS")
	fs.IntVar(&s.Replicas, "replicas", 1, "how `many` servers of a NATS cluster keep the state (1 to 5), when it is made")
	fs.DurationVar(&s.Grace, "grace", DefaultGrace, "`time` to finish what is being worked on, after Ctrl-C or SIGTERM")
	s.Show.define(fs)
}

// complete fills in what the environment says. It is no default of a flag, since help prints those,
// and there may be a password in the URL.
func (s *Settings) complete() {
	s.Server = cmp.Or(s.Server, os.Getenv("NATS_URL"), nats.DefaultURL)
}

// check names the flag that is wrong.
func (s *Settings) check() error {
	switch {
	case s.Creds != "" && s.NKey != "":
		return errors.New("-creds and -nkey are two ways to say who the user is: give one")
	case s.TLSCert != "" && s.TLSKey == "":
		return errors.New("-tlscert needs -tlskey")
	case s.TLSKey != "" && s.TLSCert == "":
		return errors.New("-tlskey needs -tlscert")
	case s.Grace <= 0:
		return fmt.Errorf("-grace %v: must be positive", s.Grace)
	case s.Replicas < 1 || s.Replicas > 5:
		return fmt.Errorf("-replicas %d: must be 1 to 5", s.Replicas)
	case !prefix.MatchString(s.Prefix):
		return fmt.Errorf(`-prefix %q: must be letters, digits and "-", in one or more parts separated by dots`, s.Prefix)
	}
	for _, f := range []struct{ flag, file string }{
		{"-creds", s.Creds}, {"-nkey", s.NKey}, {"-tlsca", s.TLSCA}, {"-tlscert", s.TLSCert}, {"-tlskey", s.TLSKey},
	} {
		if f.file == "" {
			continue
		}
		if _, err := os.Stat(f.file); err != nil {
			return fmt.Errorf("%s: %w", f.flag, err)
		}
	}
	return checkURLs(s.Server)
}

// Connect connects to NATS, and stays connected: the connection is made again
// as often as it breaks.
func (s *Settings) Connect(name string) (*nats.Conn, error) {
	opts := []nats.Option{
		nats.Name(name),
		nats.MaxReconnects(-1),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil { // there is none where the connection was closed from here
				s.Log.Warn("disconnected from NATS", "err", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) { s.Log.Info("connected to NATS again", "server", redacted(nc.ConnectedUrl())) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { s.Log.Error("NATS", "err", err) }),
	}
	if s.Creds != "" {
		opts = append(opts, nats.UserCredentials(s.Creds))
	}
	if s.NKey != "" {
		nkey, err := nats.NkeyOptionFromSeed(s.NKey)
		if err != nil {
			return nil, fmt.Errorf("-nkey %s: %w", s.NKey, err)
		}
		opts = append(opts, nkey)
	}
	if s.TLSCA != "" {
		opts = append(opts, nats.RootCAs(s.TLSCA))
	}
	if s.TLSCert != "" {
		opts = append(opts, nats.ClientCert(s.TLSCert, s.TLSKey))
	}
	if err := checkURLs(s.Server); err != nil {
		return nil, err
	}
	nc, err := nats.Connect(s.Server, opts...)
	if err != nil {
		return nil, fmt.Errorf("cannot connect to %s: %w", redacted(s.Server), err)
	}
	return nc, nil
}

// absence spaces out what is tried until NATS is there.
var absence = backoff.Policy{First: 200 * time.Millisecond, Limit: 5 * time.Second}

// AwaitNATS is Connect for a process that may start before NATS does, as pods do: while no server
// answers it tries again, and says so in the log. What waiting does not mend, such as a login that
// is refused or a wrong file, is an error at once: with nats.RetryOnFailedConnect it would show
// later, or never.
func (s *Settings) AwaitNATS(ctx context.Context, name string) (*nats.Conn, error) {
	for range absence.Attempts(ctx) {
		nc, err := s.Connect(name)
		if err == nil || !absent(err) {
			return nc, err
		}
		s.Log.Warn("NATS is not there yet, waiting", "err", redacted(err.Error()))
	}
	return nil, ctx.Err()
}

// absent reports whether nothing that speaks NATS has answered: nobody listens, the name of the
// host is not known (yet), or what listens has no server behind it (yet).
func absent(err error) bool {
	var operation *net.OpError // also of TLS, with other names: what has come then is an answer
	if errors.As(err, &operation) {
		return slices.Contains([]string{"dial", "read", "write"}, operation.Op)
	}
	return errors.Is(err, nats.ErrNoServers) || errors.Is(err, nats.ErrTimeout) || errors.Is(err, io.EOF)
}

// NewServer returns a server on nc.
func (s *Settings) NewServer(nc *nats.Conn) *rpc.Server {
	srv := rpc.NewServer(nc, rpc.WithLogger(s.Log), rpc.WithSubjectPrefix(s.Prefix),
		rpc.WithGracePeriod(cmp.Or(s.Grace, DefaultGrace)),
		rpc.WithInterceptors(s.Telemetry.Interceptors()...), rpc.WithInterceptors(s.Interceptors...))
	if err := s.Telemetry.ObserveServer(srv); err != nil {
		s.Log.Error("metrics of the server are missing", "err", err) // it serves all the same
	}
	s.Health.add(srv)
	return srv
}

// NewClient returns a client on nc.
func (s *Settings) NewClient(nc *nats.Conn) *rpc.Client {
	return rpc.NewClient(nc, rpc.WithLogger(s.Log), rpc.WithSubjectPrefix(s.Prefix),
		rpc.WithInterceptors(s.Telemetry.Interceptors()...))
}
