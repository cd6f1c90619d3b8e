package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/nats-io/nkeys"

	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestCredentials: all ways to log in at a server whose users have JWTs. A bearer token is a JWT
// without a seed; any other JWT needs its seed.
func TestCredentials(t *testing.T) {
	t.Parallel()
	operator, account := keyPair(t, nkeys.CreateOperator), keyPair(t, nkeys.CreateAccount)
	claims := jwt.NewAccountClaims(account.public)
	encoded, err := claims.Encode(operator.KeyPair)
	must(t, err)
	resolver := new(server.MemAccResolver)
	must(t, resolver.Store(account.public, encoded))
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
		o.TrustedKeys, o.AccountResolver = []string{operator.public}, resolver
	}))
	token := func(of pair, bearer bool) string {
		user := jwt.NewUserClaims(of.public)
		user.BearerToken = bearer
		encoded, err := user.Encode(account.KeyPair)
		must(t, err)
		return encoded
	}
	user, bearer := keyPair(t, nkeys.CreateUser), keyPair(t, nkeys.CreateUser)
	seed, err := user.Seed()
	must(t, err)
	creds, err := jwt.FormatUserConfig(token(user, false), seed)
	must(t, err)
	file := filepath.Join(t.TempDir(), "me.creds")
	must(t, os.WriteFile(file, creds, 0o600))
	nc := srv.Connect(nats.UserJWTAndSeed(token(user, false), string(seed)))
	service, err := micro.AddService(nc, micro.Config{Name: "clock", Version: "1.0.0"})
	must(t, err)
	must(t, nc.Flush())
	t.Cleanup(func() { _ = service.Stop() })
	for name, test := range map[string]struct {
		args []string
		want int
	}{
		"file":               {[]string{"--creds", file}, problem.StatusOK},
		"JWT and seed":       {[]string{"--jwt", token(user, false), "--seed", string(seed)}, problem.StatusOK},
		"bearer token":       {[]string{"--jwt", token(bearer, true)}, problem.StatusOK},
		"JWT without a seed": {[]string{"--jwt", token(user, false)}, problem.StatusFailure},
		"no login":           {nil, problem.StatusFailure},
	} {
		if r := runAt(testContext(t), srv.URL(), nil, append([]string{"ping", "clock"}, test.args...)...); r.status != test.want {
			t.Errorf("%s: exit status %d: %s", name, r.status, r.stderr)
		}
	}
}

// pair are the keys of somebody.
type pair struct {
	nkeys.KeyPair
	public string
}

func keyPair(t *testing.T, create func() (nkeys.KeyPair, error)) pair {
	t.Helper()
	keys, err := create()
	must(t, err)
	public, err := keys.PublicKey()
	must(t, err)
	return pair{keys, public}
}
