// Package connect makes connections to NATS as the `nats` command does: with the same flags,
// environment variables and context files.
package connect

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/jsm.go/natscontext"
	"github.com/nats-io/nats.go"
	"github.com/spf13/pflag"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
)

// Flags are the flags about the connection.
type Flags struct {
	Timeout time.Duration // how long to wait for answers
	Colors  string        // a color scheme, as in context files
	Trace   bool          // say on stderr what is asked of NATS

	servers, name string
	login         login
	tls           certificates
	socksProxy    string
	inboxPrefix   string
	context       string
	noContext     bool
	hurry         time.Duration
	variables     []string // the flags that the environment has set
}

// login is who connects.
type login struct{ user, password, token, creds, nkey, jwt, seed string }

// certificates are the files for TLS.
type certificates struct {
	cert, key, ca string
	first         bool
}

// defaultTimeout is that of the `nats` command.
const defaultTimeout = 5 * time.Second

// environment has the variables that set flags which are not given.
var environment = map[string]string{
	"server": "NATS_URL", "user": "NATS_USER", "password": "NATS_PASSWORD", "token": "NATS_TOKEN",
	"creds": "NATS_CREDS", "nkey": "NATS_NKEY", "jwt": "NATS_JWT", "seed": "NATS_SEED",
	"tlscert": "NATS_CERT", "tlskey": "NATS_KEY", "tlsca": "NATS_CA", "timeout": "NATS_TIMEOUT",
	"socks-proxy": "NATS_SOCKS_PROXY", "colors": "NATS_COLOR", "context": "NATS_CONTEXT",
}

// Register adds the flags to a set. name is that of connections, unless a flag says otherwise.
func (f *Flags) Register(set *pflag.FlagSet, name string) {
	set.StringVarP(&f.servers, "server", "s", "", "`URL`s of NATS servers")
	set.StringVar(&f.login.user, "user", "", "`name` of the user, or a token if there is no password")
	set.StringVar(&f.login.password, "password", "", "`password` of the user")
	set.StringVar(&f.login.token, "token", "", "`token` to log in with")
	set.StringVar(&f.login.creds, "creds", "", "`file` with the credentials of the user")
	set.StringVar(&f.login.nkey, "nkey", "", "`file` with the NKEY of the user")
	set.StringVar(&f.login.jwt, "jwt", "", "`JWT` of the user")
	set.StringVar(&f.login.seed, "seed", "", "`seed` that belongs to the JWT")
	set.StringVar(&f.tls.cert, "tlscert", "", "`file` with the TLS certificate of the client")
	set.StringVar(&f.tls.key, "tlskey", "", "`file` with the key of the certificate")
	set.StringVar(&f.tls.ca, "tlsca", "", "`file` with the authorities that the server's certificate may come from")
	set.BoolVar(&f.tls.first, "tlsfirst", false, "begin with TLS, before the server has said anything")
	set.BoolVar(&f.tls.first, "tls-first", false, "the same as --tlsfirst, as nsc writes it")
	_ = set.MarkHidden("tls-first") // fails for flags that do not exist only
	set.DurationVar(&f.Timeout, "timeout", defaultTimeout, "how long to wait for answers, and the deadline of a call, as in `5s`")
	set.StringVar(&f.socksProxy, "socks-proxy", "", "SOCKS5 `proxy` to connect through")
	set.StringVar(&f.inboxPrefix, "inbox-prefix", "", "`prefix` of the inboxes for answers")
	set.StringVar(&f.Colors, "colors", "", "`scheme` of tables: "+strings.Join(Schemes, ", "))
	set.StringVar(&f.context, "context", "", "`name` of a context of the nats command, or the file of one")
	set.BoolVar(&f.noContext, "no-context", false, "use no context, not even the selected one")
	set.StringVar(&f.name, "connection-name", name, "`name` of the connection")
	set.BoolVar(&f.Trace, "trace", false, "say on stderr what is asked of NATS")
}

// Schemes are the color schemes that the `nats` command and its context files know.
var Schemes = []string{"blue", "cyan", "double", "green", "magenta", "red", "rounded", "yellow"}

// FromEnvironment sets the flags that are not given and whose environment variables are.
func (f *Flags) FromEnvironment(set *pflag.FlagSet) error {
	var wrong error
	set.VisitAll(func(flag *pflag.Flag) {
		name := environment[flag.Name]
		value := os.Getenv(name)
		if name == "" || value == "" || flag.Changed || wrong != nil {
			return
		}
		if err := set.Set(flag.Name, value); err != nil {
			wrong = problem.Usage("environment variable %s: %w", name, err)
		}
		f.variables = append(f.variables, flag.Name)
	})
	return wrong
}

// Check sets the flags that are not given and whose environment variables are, and refuses what no
// connection can be made with.
func (f *Flags) Check(set *pflag.FlagSet) error {
	if err := f.FromEnvironment(set); err != nil {
		return err
	}
	return f.check()
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
	if err := f.checkPairs(loaded); err != nil {
		return nil, err
	}
	if err := checkServers(loaded.ServerURL()); err != nil {
		return nil, err
	}
	options, err := loaded.NATSOptions(nats.Name(f.name), nats.Timeout(f.dialTime()), nats.MaxReconnects(-1))
	if err != nil {
		return nil, problem.Failure("check the files and values that the flags, the environment and the context name", "credentials: %w", err)
	}
	if f.Trace {
		options = append(options, traced(log)...)
	}
	nc, err := dial(ctx, loaded.ServerURL(), append(options, opts...))
	if ctx.Err() != nil {
		return nil, canceled(ctx)
	}
	if err != nil {
		return nil, explain(err, loaded, f.dialTime())
	}
	return &Conn{nc, loaded.ColorScheme()}, nil
}

// Hurry bounds how long the connection and each answer may take.
func (f *Flags) Hurry(limit time.Duration) { f.Timeout, f.hurry = min(f.Timeout, limit), limit }

// dialTime is how long to wait for a connection: not less than usual, since --timeout is that of
// calls, too, which may be short.
func (f *Flags) dialTime() time.Duration {
	if f.hurry > 0 {
		return f.hurry
	}
	return max(f.Timeout, nats.DefaultTimeout)
}

// check refuses what no connection can be made with.
func (f *Flags) check() error {
	for _, file := range []struct{ flag, name string }{
		{"tlscert", f.tls.cert}, {"tlskey", f.tls.key}, {"tlsca", f.tls.ca},
	} {
		if file.name == "" {
			continue
		}
		if _, err := os.Stat(file.name); err != nil {
			return problem.Usage("--%s: %w", file.flag, err)
		}
	}
	if f.Colors != "" && !slices.Contains(Schemes, f.Colors) {
		return problem.Usage("--colors %s: there are %s", f.Colors, strings.Join(Schemes, ", "))
	}
	if p := f.inboxPrefix; p != "" && (strings.ContainsAny(p, " \t\r\n*>") || slices.Contains(strings.Split(p, "."), "")) {
		return problem.Usage("--inbox-prefix %q: it must be a subject without wildcards, as in _INBOX_me", p)
	}
	if f.Timeout <= 0 {
		return problem.Usage("--timeout %v: it must be more than nothing, as in 5s", f.Timeout)
	}
	return nil
}

// checkPairs refuses flags that count only with another one, which may also stand in the context. A
// JWT alone is a bearer token. A variable of the environment may be there for other programs: alone
// it does not count, as for the `nats` command.
func (f *Flags) checkPairs(loaded *natscontext.Context) error {
	for _, pair := range []struct{ flag, value, other, has string }{
		{"seed", f.login.seed, "jwt", loaded.UserJWT()},
		{"password", f.login.password, "user", loaded.User() + loaded.Token() + loaded.Creds() + loaded.NKey() + loaded.UserJWT()},
		{"tlscert", f.tls.cert, "tlskey", loaded.Key()},
		{"tlskey", f.tls.key, "tlscert", loaded.Certificate()},
	} {
		if pair.value != "" && pair.has == "" && !slices.Contains(f.variables, pair.flag) {
			return problem.Usage("--%s (%s) needs --%s (%s), too", pair.flag, environment[pair.flag], pair.other, environment[pair.other])
		}
	}
	return nil
}

// load returns the context file that the flags name, or the selected one, with what the flags say
// in place of what it says.
func (f *Flags) load(ctx context.Context) (*natscontext.Context, error) {
	if f.noContext {
		return natscontext.New("", false, f.settings()...)
	}
	files := natscontext.Backend(natscontext.NewDefaultFileBackend())
	name := f.context
	if strings.HasSuffix(name, ".json") {
		single := natscontext.NewSingleFileBackend(name)
		files, name = single, single.Name()
	}
	options := []natscontext.RegistryOption{natscontext.WithDefaultResolvers()}
	// Without a home folder nothing is selected.
	if selector, err := natscontext.NewDefaultFileSelector(); err == nil {
		options = append(options, natscontext.WithSelector(selector))
	}
	registry := natscontext.NewRegistry(files, options...)
	loaded, err := registry.Load(ctx, name, f.settings()...)
	if err != nil {
		return nil, problem.Failure(f.contextsThere(ctx, registry), "context %q: %w", f.context, err)
	}
	return loaded, nil
}

func (f *Flags) contextsThere(ctx context.Context, registry *natscontext.Registry) string {
	known, err := registry.List(ctx)
	if err != nil || len(known) == 0 {
		return "there are no contexts; `nats context add` makes one, --server needs none"
	}
	return fmt.Sprintf("the contexts are %s; --context names one", strings.Join(known, ", "))
}

func (f *Flags) settings() []natscontext.Option {
	out := []natscontext.Option{
		natscontext.WithServerURL(f.servers), natscontext.WithCreds(f.login.creds), natscontext.WithNKey(f.login.nkey),
		natscontext.WithUserJWT(f.login.jwt), natscontext.WithUserSeed(f.login.seed),
		natscontext.WithCertificate(f.tls.cert), natscontext.WithKey(f.tls.key), natscontext.WithCA(f.tls.ca),
		natscontext.WithSocksProxy(f.socksProxy), natscontext.WithInboxPrefix(f.inboxPrefix), natscontext.WithColorScheme(f.Colors),
	}
	if f.tls.first {
		out = append(out, natscontext.WithTLSHandshakeFirst())
	}
	if f.login.token != "" {
		out = append(out, natscontext.WithToken(f.login.token))
	}
	if f.login.user != "" && f.login.password == "" {
		return append(out, natscontext.WithToken(f.login.user))
	}
	return append(out, natscontext.WithUser(f.login.user), natscontext.WithPassword(f.login.password))
}
