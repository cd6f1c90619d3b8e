//go:build unix

package rpcauth_test

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcauth"
	"github.com/natscall/natscall/rpc/rpctest"
)

// BenchmarkUnary measures what identity costs a call of 60 bytes, on both sides together: bare,
// through an import that shares (the NATS server writes the header in any case), with a verifier
// beside, and with one whose handler asks; signed by a user without a JWT, by one with a JWT, and
// by the key of a connection whose credentials are a file. Client, service and NATS server are one
// process; cpu-ns/op is the CPU time of all of it.
func BenchmarkUnary(b *testing.B) {
	account, user := newAccount(b), newUser(b)
	token := user.token(b, account, nil)
	file := user.credentials(b, token)
	trust := func(b *testing.B, nc *nats.Conn) rpc.ServerOption {
		v := newVerifier(b, nc, rpcauth.WithIssuers(account.public, user.public), rpcauth.RequireSignature("*"),
			rpcauth.WithReplayWindow(100_000_000))
		return rpc.WithInterceptors(v.Intercept)
	}
	for _, callers := range []struct {
		name string
		n    int
	}{{"1caller", 1}, {"64callers", 64}} {
		for _, with := range []struct {
			name     string
			imported bool
			server   func(*testing.B, *nats.Conn) rpc.ServerOption
			client   func(*testing.B) rpc.ClientOption
			login    nats.Option
		}{
			{name: "bare"},
			{name: "verifier", server: func(b *testing.B, nc *nats.Conn) rpc.ServerOption {
				return rpc.WithInterceptors(newVerifier(b, nc).Intercept)
			}},
			{name: "import", imported: true},
			{name: "import/verifier", imported: true, server: func(b *testing.B, nc *nats.Conn) rpc.ServerOption {
				return rpc.WithInterceptors(newVerifier(b, nc).Intercept)
			}},
			{name: "import/identity", imported: true, server: func(b *testing.B, nc *nats.Conn) rpc.ServerOption {
				return rpc.WithInterceptors(newVerifier(b, nc, rpcauth.Allow("*", rpcauth.Accounts("SHARE"))).Intercept)
			}},
			{name: "signed/seed", server: trust, client: func(b *testing.B) rpc.ClientOption {
				return signing(b, nil, rpcauth.WithSeed(user.seed(b)))
			}},
			{name: "signed/credentials", server: trust, client: func(b *testing.B) rpc.ClientOption {
				return signing(b, nil, rpcauth.WithCredentials(file))
			}},
			{name: "signed/connection", server: trust, login: nats.UserCredentials(file)},
		} {
			b.Run(callers.name+"/"+with.name, func(b *testing.B) {
				service, client := connections(b, with.imported, with.login)
				var serverOpts []rpc.ServerOption
				if with.server != nil {
					serverOpts = append(serverOpts, with.server(b, service))
				}
				var clientOpts []rpc.ClientOption
				if with.client != nil {
					clientOpts = append(clientOpts, with.client(b))
				} else if with.login != nil {
					clientOpts = append(clientOpts, signing(b, client))
				}
				serveEcho(b, service, serverOpts...)
				benchCall(b, callers.n, dial(b, client, clientOpts...))
			})
		}
	}
}

// connections returns those of a service and of a client, perhaps in another account.
func connections(b *testing.B, imported bool, login nats.Option) (service, client *nats.Conn) {
	var opts []rpctest.Option
	if imported {
		opts = append(opts, rpctest.WithServerOptions(func(o *server.Options) {
			svc, share := server.NewAccount("SVC"), server.NewAccount("SHARE")
			must(b, svc.AddServiceExport("test.v1.Test.>", nil))
			must(b, share.AddServiceImport(svc, "test.v1.Test.>", "test.v1.Test.>"))
			must(b, share.SetServiceImportSharing(svc, "test.v1.Test.>", true))
			o.Accounts = []*server.Account{svc, share}
			o.Users = []*server.User{{Username: "svc", Password: "x", Account: svc}, {Username: "alice", Password: "x", Account: share}}
		}))
	}
	srv := rpctest.NewServer(b, opts...)
	if imported {
		return srv.Connect(nats.UserInfo("svc", "x")), srv.Connect(nats.UserInfo("alice", "x"))
	}
	if login == nil {
		login = nats.Name("client")
	}
	return srv.Connect(), srv.Connect(login)
}

type echo struct{}

// serveEcho serves a method that does nothing.
func serveEcho(b *testing.B, nc *nats.Conn, opts ...rpc.ServerOption) {
	s := rpc.NewServer(nc, opts...)
	must(b, rpc.Register(s, &testDesc, echo{}, nil, rpc.HandleUnary(testDo,
		func(_ echo, _ context.Context, req *text) (*text, error) { return req, nil })))
	must(b, s.Start(b.Context()))
	b.Cleanup(func() { must(b, s.Shutdown(context.Background())) })
}

func benchCall(b *testing.B, callers int, c *rpc.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	req := wrapperspb.String(string(make([]byte, 60)))
	call := func() error {
		_, err := testDo.Call(ctx, c, req)
		return err
	}
	must(b, call())
	b.ReportAllocs()
	before := cpuTime()
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for range (b.N + callers - 1 - i) / callers {
				if err := call(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
}

// cpuTime returns the CPU time that the process has used.
func cpuTime() time.Duration {
	var r syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &r) // fails for an invalid argument only
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
