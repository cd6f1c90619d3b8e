package connect

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"

	"github.com/nats-io/jsm.go/natscontext"
	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
)

// Conn is a connection, with what the flags and the context file say of it.
type Conn struct {
	*nats.Conn
	Colors string // the scheme
}

// Open connects. What NATS refuses later, and with --trace what happens to the connection, is
// reported to log.
func (f *Flags) Open(ctx context.Context, log io.Writer, opts ...nats.Option) (*Conn, error) {
	if err := f.check(); err != nil {
		return nil, err
	}
	loaded, err := f.load(ctx)
	if err != nil {
		return nil, err
	}
	if err := checkServers(loaded.ServerURL()); err != nil {
		return nil, err
	}
	options, err := loaded.NATSOptions(nats.Name(f.name), nats.Timeout(f.Timeout), nats.MaxReconnects(-1))
	if err != nil {
		return nil, problem.Failure("check the files and values that the flags, the environment and the context name", "credentials: %w", err)
	}
	options = append(options, f.traced(log)...)
	nc, err := nats.Connect(loaded.ServerURL(), append(options, opts...)...)
	if err != nil {
		return nil, f.explain(err, loaded)
	}
	return &Conn{nc, loaded.ColorScheme()}, nil
}

// checkServers refuses what is no URL before anything is dialed.
func checkServers(servers string) error {
	for server := range strings.SplitSeq(servers, ",") {
		server = strings.TrimSpace(server)
		if !strings.Contains(server, "://") {
			server = "nats://" + server
		}
		u, err := url.Parse(server)
		if err == nil && u.Hostname() == "" {
			err = errors.New("it names no host")
		}
		if err == nil && !knownScheme(u.Scheme) {
			err = fmt.Errorf("NATS knows no scheme %q, only nats, tls, ws and wss", u.Scheme)
		}
		if parse := (*url.Error)(nil); errors.As(err, &parse) {
			err = parse.Err // the URL stands before it, and it may have a password
		}
		if err != nil {
			next := "a URL of a NATS server looks like nats://localhost:4222; --server, NATS_URL and the context say which"
			return problem.Failure(next, "server URL %q is wrong: %w", redact(server), err)
		}
	}
	return nil
}

func knownScheme(scheme string) bool {
	switch scheme {
	case "nats", "tls", "ws", "wss":
		return true
	}
	return false
}

// redact hides what stands before the host.
func redact(servers string) string {
	var out []string
	for server := range strings.SplitSeq(servers, ",") {
		scheme, rest, found := strings.Cut(server, "://")
		if !found {
			scheme, rest = "nats", server
		}
		if i := strings.LastIndexByte(rest, '@'); i >= 0 {
			rest = "..." + rest[i:]
		}
		out = append(out, scheme+"://"+rest)
	}
	return strings.Join(out, ",")
}

// traced returns what reports the life of the connection.
func (f *Flags) traced(log io.Writer) []nats.Option {
	if !f.Trace {
		return nil
	}
	say := func(format string, args ...any) { fmt.Fprintf(log, ">>> "+format+"\n", args...) }
	return []nats.Option{
		nats.ConnectHandler(func(nc *nats.Conn) { say("connected to %s", nc.ConnectedUrlRedacted()) }),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				say("disconnected: %v", err)
			}
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) { say("connected again to %s", nc.ConnectedUrlRedacted()) }),
	}
}

// explain turns an error of nats.go into one that says what to do.
func (f *Flags) explain(err error, loaded *natscontext.Context) error {
	where := redact(loaded.ServerURL())
	if loaded.Name != "" {
		where += " (context " + loaded.Name + ")"
	}
	name := "name the server with --server or NATS_URL, or a context with --context"
	switch {
	case errors.Is(err, nats.ErrNoServers):
		return problem.Failure("start the NATS server, or "+name, "nothing listens at %s", where)
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked):
		return problem.Failure("log in with --creds, --user and --password, --nkey or --context", "%s refuses the login: %w", where, err)
	case isTLS(err):
		return problem.Failure("--tlsca names the authority of the server's certificate, --tlscert and --tlskey that of the client", "TLS with %s fails: %w", where, err)
	case errors.Is(err, nats.ErrTimeout), isTimeout(err):
		return problem.Failure("check the address, or give it more time with --timeout", "%s does not answer within %v", where, f.Timeout)
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return problem.Failure(name, "%s: there is no host %q", where, dns.Name)
	}
	return problem.Failure(name, "%s: %w", where, err)
}

func isTimeout(err error) bool {
	t, ok := errors.AsType[net.Error](err)
	return ok && t.Timeout()
}

func isTLS(err error) bool {
	if errors.Is(err, nats.ErrSecureConnRequired) || errors.Is(err, nats.ErrSecureConnWanted) {
		return true
	}
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, authority := errors.AsType[x509.UnknownAuthorityError](err)
	_, header := errors.AsType[tls.RecordHeaderError](err)
	_, alert := errors.AsType[tls.AlertError](err)
	return certificate || authority || header || alert
}
