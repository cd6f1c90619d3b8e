package inventory_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/natscall/natscall/examples/internal/app"
	"github.com/natscall/natscall/examples/inventory"
	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/rpc/rpctest"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// write writes a file that others may not read, and returns its name.
func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(file, data, 0o600))
	return file
}

// serveAs runs the inventory as its command does, with flags, and calls it with the settings that
// they stand for.
func serveAs(t *testing.T, srv *rpctest.Server, client app.Settings, flags ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	code := make(chan int, 1)
	var stderr bytes.Buffer
	go func() { code <- execute(ctx, srv, &stderr, flags...) }()
	defer func() {
		cancel()
		if c := <-code; c != app.ExitOK {
			t.Errorf("exit code %d: %s", c, &stderr)
		}
	}()
	client.Server, client.Log = srv.URL(), slog.New(slog.DiscardHandler)
	nc, err := client.Connect("client")
	must(t, err)
	defer nc.Close()
	c := client.NewClient(nc)
	defer func() { _ = c.Close() }()
	for { // until there is one
		calling, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		res, err := inventoryv1nats.NewInventoryServiceClient(c).AddStock(calling, &inventoryv1.AddStockRequest{ProductId: "apple", Quantity: 3})
		cancel()
		if err == nil {
			if res.GetStock().GetAvailable() != 3 {
				t.Errorf("stock is %v", res.GetStock())
			}
			return
		}
		if !strings.Contains(err.Error(), "no service answers") {
			t.Fatal(err)
		}
	}
}

func execute(ctx context.Context, srv *rpctest.Server, stderr *bytes.Buffer, flags ...string) int {
	command := app.Command{Name: "inventory", Run: inventory.Run}
	return command.Execute(ctx, append([]string{"-server", srv.URL()}, flags...), stderr, stderr)
}

// refusedAs makes sure that NATS does not take a service with other flags.
func refusedAs(t *testing.T, srv *rpctest.Server, want string, flags ...string) {
	t.Helper()
	var stderr bytes.Buffer
	if code := execute(t.Context(), srv, &stderr, flags...); code != app.ExitFailed || !strings.Contains(stderr.String(), want) {
		t.Errorf("with %q: exit code %d, %q, want %q", flags, code, &stderr, want)
	}
}

// authority makes certificates.
type authority struct {
	*testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	a := &authority{T: t}
	a.cert = &x509.Certificate{Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	cert, key := a.issue(a.cert)
	parsed, err := x509.ParseCertificate(cert)
	must(t, err)
	a.cert, a.key = parsed, key
	return a
}

// issue returns a certificate, which is the authority's own before there is any.
func (a *authority) issue(template *x509.Certificate) (der []byte, key *ecdsa.PrivateKey) {
	a.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.T, err)
	template.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	must(a.T, err)
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err = x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, signer)
	must(a.T, err)
	return der, key
}

// files writes a certificate with its key.
func (a *authority) files(name string) (cert, key string) {
	a.Helper()
	der, private := a.issue(&x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	must(a.T, err)
	return write(a.T, name+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		write(a.T, name+"-key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}))
}

// TestTLS: both sides show certificates, and take only those of an authority that they trust.
func TestTLS(t *testing.T) {
	a := newAuthority(t)
	ca := write(t, "ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
	serverCert, serverKey := a.files("server")
	config, err := server.GenTLSConfig(&server.TLSConfigOpts{CertFile: serverCert, KeyFile: serverKey, CaFile: ca, Verify: true})
	must(t, err)
	config.MinVersion = tls.VersionTLS13
	srv := rpctest.NewServer(t, rpctest.WithJetStream(), rpctest.WithServerOptions(func(o *server.Options) {
		o.TLSConfig, o.TLSVerify, o.TLSTimeout = config, true, 30
	}))
	cert, key := a.files("inventory")
	serveAs(t, srv, app.Settings{TLSCA: ca, TLSCert: cert, TLSKey: key}, "-tlsca", ca, "-tlscert", cert, "-tlskey", key)
	refusedAs(t, srv, "tls", "-tlsca", ca)
	refusedAs(t, srv, "certificate", "-tlscert", cert, "-tlskey", key)
	cert, key = newAuthority(t).files("stranger")
	refusedAs(t, srv, "tls", "-tlsca", ca, "-tlscert", cert, "-tlskey", key)
}

// newSeed returns a key with the seed that belongs into a file.
func newSeed(t *testing.T, create func() (nkeys.KeyPair, error)) (key nkeys.KeyPair, public string, seed []byte) {
	t.Helper()
	key, err := create()
	must(t, err)
	public, err = key.PublicKey()
	must(t, err)
	seed, err = key.Seed()
	must(t, err)
	return key, public, seed
}

// TestNKey: NATS knows the public key, the service has the seed.
func TestNKey(t *testing.T) {
	_, public, seed := newSeed(t, nkeys.CreateUser)
	srv := rpctest.NewServer(t, rpctest.WithJetStream(), rpctest.WithServerOptions(func(o *server.Options) {
		o.Nkeys = []*server.NkeyUser{{Nkey: public}}
	}))
	file := write(t, "inventory.nk", seed)
	serveAs(t, srv, app.Settings{NKey: file}, "-nkey", file)
	_, _, other := newSeed(t, nkeys.CreateUser)
	refusedAs(t, srv, "Authorization Violation", "-nkey", write(t, "other.nk", other))
	refusedAs(t, srv, "-nkey ", "-nkey", write(t, "no.nk", []byte("no seed")))
}

// TestCredentials: a NATS server in operator mode knows the keys that sign for an account, and the
// service has a JWT that one of them has signed.
func TestCredentials(t *testing.T) {
	operator, operatorID, _ := newSeed(t, nkeys.CreateOperator)
	resolver := new(server.MemAccResolver)
	newAccount := func(limits jwt.JetStreamLimits) (nkeys.KeyPair, string) {
		key, public, _ := newSeed(t, nkeys.CreateAccount)
		claims := jwt.NewAccountClaims(public)
		claims.Limits.JetStreamLimits = limits
		token, err := claims.Encode(operator)
		must(t, err)
		must(t, resolver.Store(public, token))
		return key, public
	}
	account, _ := newAccount(jwt.JetStreamLimits{DiskStorage: jwt.NoLimit, MemoryStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit})
	_, system := newAccount(jwt.JetStreamLimits{})
	trusted := jwt.NewOperatorClaims(operatorID)
	trusted.SystemAccount = system
	srv := rpctest.NewServer(t, rpctest.WithJetStream(), rpctest.WithServerOptions(func(o *server.Options) {
		o.TrustedOperators, o.AccountResolver, o.SystemAccount = []*jwt.OperatorClaims{trusted}, resolver, system
	}))
	creds := func(signer nkeys.KeyPair) string {
		_, public, seed := newSeed(t, nkeys.CreateUser)
		token, err := jwt.NewUserClaims(public).Encode(signer)
		must(t, err)
		text, err := jwt.FormatUserConfig(token, seed)
		must(t, err)
		return write(t, "user.creds", text)
	}
	file := creds(account)
	serveAs(t, srv, app.Settings{Creds: file}, "-creds", file)
	stranger, _, _ := newSeed(t, nkeys.CreateAccount)
	refusedAs(t, srv, "Authorization Violation", "-creds", creds(stranger))
	refusedAs(t, srv, "Authorization Violation")
}
