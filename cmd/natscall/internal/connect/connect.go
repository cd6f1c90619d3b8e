package connect

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/jsm.go/natscontext"
	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
)

// Conn is a connection, with what the flags and the context file say of it.
type Conn struct {
	*nats.Conn
	Colors string // the scheme
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

// dial connects, or ends early with ctx: nats.go waits for a server that does not answer.
func dial(ctx context.Context, servers string, options []nats.Option) (*nats.Conn, error) {
	type dialed struct {
		nc  *nats.Conn
		err error
	}
	done := make(chan dialed, 1)
	go func() { // ends with the time limit of the connection
		nc, err := nats.Connect(servers, options...)
		done <- dialed{nc, err}
	}()
	select {
	case d := <-done:
		return d.nc, d.err
	case <-ctx.Done():
	}
	go func() { // the same
		if d := <-done; d.err == nil {
			d.nc.Close()
		}
	}()
	return nil, ctx.Err()
}

// canceled is the error of a connection that Ctrl-C, or a time limit, has ended.
func canceled(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return problem.Failure("give it more time with --timeout", "the NATS server has not answered in time")
	}
	return problem.Failure("", "interrupted while connecting")
}

// traced returns what reports the life of the connection.
func traced(log io.Writer) []nats.Option {
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
func explain(err error, loaded *natscontext.Context, waited time.Duration) error {
	where := redact(loaded.ServerURL())
	if loaded.Name != "" {
		where += " (context " + loaded.Name + ")"
	}
	name := "name the server with --server or NATS_URL, or a context with --context"
	switch {
	case errors.Is(err, nats.ErrNoServers):
		return problem.Failure("start the NATS server, or "+name, "nothing listens at %s", where)
	case errors.Is(err, nats.ErrAuthorization), errors.Is(err, nats.ErrAuthExpired), errors.Is(err, nats.ErrAuthRevoked):
		if loaded.UserJWT() != "" && loaded.UserSeed() == "" {
			return problem.Failure("a JWT that is no bearer token needs the --seed of its user", "%s refuses the JWT: %w", where, err)
		}
		return problem.Failure("log in with --creds, --user and --password, --nkey or --context", "%s refuses the login: %w", where, err)
	case isTLS(err):
		return problem.Failure("--tlsca names the authority of the server's certificate, --tlscert and --tlskey that of the client", "TLS with %s fails: %w", where, err)
	case errors.Is(err, nats.ErrTimeout), isTimeout(err):
		return problem.Failure("check the address, or give it more time with --timeout", "%s does not answer within %v", where, waited)
	}
	if file, ok := errors.AsType[*fs.PathError](err); ok {
		return problem.Failure("--creds and --nkey name files", "credentials: %w", file)
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
