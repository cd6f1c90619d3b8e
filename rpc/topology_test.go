package rpc_test

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// tour makes calls of every shape and size, which must work wherever the
// caller and the service are. The service is that of tourist.
func tour(t *testing.T, c *rpc.Client) {
	t.Helper()
	ctx := testContext(t)
	for range 20 {
		must(t, callOnce(t, c))
	}
	_, err := testRead.Call(ctx, c, wrapperspb.String("missing"))
	wantCode(t, err, rpc.CodeNotFound, rpc.ExecutionDidRun)
	for _, size := range []int{0, 1<<20 - 1, 1 << 20, 1<<20 + 1, 3 << 20} {
		res, err := testBlob.Call(ctx, c, wrapperspb.Bytes(make([]byte, size)))
		if err != nil || len(res.GetValue()) != size {
			t.Fatalf("%d bytes there and back: %d came, %v", size, len(res.GetValue()), err)
		}
	}
	tourStreams(ctx, t, c)
}

func tourStreams(ctx context.Context, t *testing.T, c *rpc.Client) {
	t.Helper()
	for _, n := range []int{0, 1, 30_000} {
		r, err := watch(ctx, c, strconv.Itoa(n)+" enough")
		must(t, err)
		wantCode(t, wantCount(r, n), rpc.CodeAborted, rpc.ExecutionDidRun)
	}
	gather, err := testGather.Call(ctx, c)
	must(t, err)
	for range 30_000 {
		must(t, gather.Send(wrapperspb.String("x")))
	}
	res, err := gather.CloseAndRecv()
	if err != nil || len(res.GetValue()) != 30_000 {
		t.Fatalf("client stream: %d came, %v", len(res.GetValue()), err)
	}
	chat, err := testChat.Call(ctx, c)
	must(t, err)
	for i := range 200 {
		must(t, chat.Send(wrapperspb.String(strconv.Itoa(i)))) // also an empty one
		_, err := chat.Recv()
		must(t, err)
	}
	must(t, chat.Send(wrapperspb.String("")))
	_, err = chat.Recv()
	must(t, err)
	chat.CloseSend()
	if _, err := chat.Recv(); err != io.EOF {
		t.Fatalf("bidirectional: the end is %v", err)
	}
}

// tourist is the service of tour.
func tourist() *funcs {
	return &funcs{watch: count, read: func(_ context.Context, id string) (string, error) {
		return "", rpc.Errorf(rpc.CodeNotFound, "no %s", id)
	}}
}

func TestCluster(t *testing.T) {
	var nodes []*rpctest.Server
	for i := range 3 {
		nodes = append(nodes, rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
			o.ServerName = fmt.Sprintf("n%d", i)
			o.Cluster = server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: server.RANDOM_PORT}
			if i > 0 {
				o.Routes = []*url.URL{{Scheme: "nats", Host: nodes[0].NATS().ClusterAddr().String()}}
			}
		})))
	}
	serve(t, nodes[0].Connect(), tourist())
	serve(t, nodes[1].Connect(), tourist())
	for _, node := range nodes {
		tour(t, dial(t, node.Connect()))
	}
}

func TestLeafNode(t *testing.T) {
	hub, leaf := leafOf(t, func(*server.Options) {}, nil)
	for name, where := range map[string][2]*rpctest.Server{"service on the hub": {hub, leaf}, "service on the leaf": {leaf, hub}} {
		t.Run(name, func(t *testing.T) {
			serve(t, where[0].Connect(), tourist())
			nc := where[1].Connect()
			awaitService(t, nc)
			tour(t, dial(t, nc))
		})
	}
}

// leafOf starts a hub, changed by f, and a leaf node that logs in as user.
func leafOf(t *testing.T, f func(*server.Options), user *url.Userinfo) (hub, leaf *rpctest.Server) {
	var options *server.Options
	hub = rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
		f(o)
		o.LeafNode = server.LeafNodeOpts{Host: "127.0.0.1", Port: server.RANDOM_PORT}
		options = o
	}))
	// Start has filled in the port.
	remote := &url.URL{Scheme: "nats-leaf", User: user, Host: fmt.Sprintf("127.0.0.1:%d", options.LeafNode.Port)}
	leaf = rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
		o.LeafNode.Remotes = []*server.RemoteLeafOpts{{URLs: []*url.URL{remote}}}
	}))
	return hub, leaf
}

// awaitService waits until the service of the tests answers discovery: a
// connection between servers is made in the background.
func awaitService(t *testing.T, nc *nats.Conn) {
	t.Helper()
	for ctx := testContext(t); ; {
		attempt, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		_, err := nc.RequestWithContext(attempt, "$SRV.PING.TestService", nil)
		<-attemptEnd(attempt, err == nil)
		cancel()
		if err == nil {
			return
		}
		must(t, ctx.Err())
	}
}

// attemptEnd paces attempts: at once after a success.
func attemptEnd(ctx context.Context, now bool) <-chan struct{} {
	if now {
		ended := make(chan struct{})
		close(ended)
		return ended
	}
	return ctx.Done()
}

func TestGateway(t *testing.T) {
	gateway := func(name string, remotes ...*server.RemoteGatewayOpts) *rpctest.Server {
		return rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
			o.ServerName = name
			o.Gateway = server.GatewayOpts{Name: name, Host: "127.0.0.1", Port: server.RANDOM_PORT, Gateways: remotes}
		}))
	}
	east := gateway("east")
	west := gateway("west", &server.RemoteGatewayOpts{Name: "east", URLs: []*url.URL{{Scheme: "nats", Host: east.NATS().GatewayAddr().String()}}})
	serve(t, east.Connect(), tourist())
	nc := west.Connect()
	awaitService(t, nc)
	tour(t, dial(t, nc))
}

// accounts are a provider of the service of the tests, and a consumer that imports it under
// another name.
func accounts(t *testing.T, o *server.Options) {
	svc, app := server.NewAccount("SVC"), server.NewAccount("APP")
	must(t, svc.AddServiceExportWithResponse("test.v1.TestService.>", server.Streamed, nil))
	must(t, app.AddServiceImport(svc, "ext.test.v1.TestService.>", "test.v1.TestService.>"))
	o.Accounts = []*server.Account{svc, app}
	o.Users = []*server.User{{Username: "svc", Password: "x", Account: svc}, {Username: "app", Password: "x", Account: app}}
}

func TestStreamsAcrossAccounts(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) { accounts(t, o) }))
	for range 2 {
		serve(t, srv.Connect(nats.UserInfo("svc", "x")), tourist())
	}
	c := dial(t, srv.Connect(nats.UserInfo("app", "x")), rpc.WithSubjectPrefix("ext"))
	tour(t, c)
	tourSizes(t, c)
}

// tourSizes sends messages of all sizes that matter there and back, unary and streamed.
func tourSizes(t *testing.T, c *rpc.Client) {
	t.Helper()
	ctx := testContext(t)
	chat, err := testChat.Call(ctx, c)
	must(t, err)
	defer chat.Close()
	const limit = 16 << 20
	for _, size := range []int{0, 1, 1<<20 - 1, 1 << 20, 1<<20 + 1, limit - 8} {
		// The size is that of the content; tag and length are added.
		res, err := testBlob.Call(ctx, c, wrapperspb.Bytes(make([]byte, size)))
		if err != nil || len(res.GetValue()) != size {
			t.Fatalf("unary, %d bytes: %d came, %v", size, len(res.GetValue()), err)
		}
		must(t, chat.Send(wrapperspb.String(strings.Repeat("x", size))))
		m, err := chat.Recv()
		if err != nil || len(m.GetValue()) != size {
			t.Fatalf("streamed, %d bytes: %d came, %v", size, len(m.GetValue()), err)
		}
	}
}

// TestStreamsAcrossAccountsAndLeaf: the caller's leaf node is bound to the importing account.
func TestStreamsAcrossAccountsAndLeaf(t *testing.T) {
	hub, leaf := leafOf(t, func(o *server.Options) { accounts(t, o) }, url.UserPassword("app", "x"))
	serve(t, hub.Connect(nats.UserInfo("svc", "x")), tourist())
	c := dial(t, leaf.Connect(), rpc.WithSubjectPrefix("ext"))
	for ctx := testContext(t); ; must(t, ctx.Err()) { // a leaf is connected in the background
		if _, err := do(ctx, c, "x", rpc.WithTimeout(200*time.Millisecond)); err == nil {
			break
		}
	}
	tour(t, c)
}

// TestStreamsWithLeastPrivilege: what docs/protocol.md asks for is enough.
func TestStreamsWithLeastPrivilege(t *testing.T) {
	allow := func(subjects ...string) *server.SubjectPermission {
		return &server.SubjectPermission{Allow: subjects}
	}
	srv := newServerWithUsers(t,
		&server.User{Username: "service", Password: "x", Permissions: &server.Permissions{
			Subscribe: allow("test.v1.TestService.>", "notes.new", "$SRV.>"),
			Publish:   &server.SubjectPermission{Deny: []string{">"}},
			Response:  &server.ResponsePermission{MaxMsgs: -1, Expires: time.Minute},
		}},
		&server.User{Username: "caller", Password: "x", Permissions: &server.Permissions{
			Publish: allow("test.v1.TestService.>"), Subscribe: allow("_INBOX_caller.>"),
		}})
	serve(t, srv.Connect(nats.UserInfo("service", "x"), quiet), tourist())
	tour(t, dial(t, srv.Connect(nats.UserInfo("caller", "x"), nats.CustomInboxPrefix("_INBOX_caller"), quiet)))
}
