package rpcauth_test

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcauth"
	"github.com/natscall/natscall/rpc/rpctest"
)

// leaf starts a NATS server that is a leaf node of another one, as one of its users.
func leaf(t *testing.T, host, user string, more func(*server.Options)) *rpctest.Server {
	t.Helper()
	return rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
		o.LeafNode.Remotes = []*server.RemoteLeafOpts{{
			URLs:         []*url.URL{{Scheme: "nats-leaf", Host: host, User: url.UserPassword(user, "x")}},
			LocalAccount: "LOCAL",
		}}
		more(o)
	}))
}

// eventually calls until the service has been heard of.
func eventually(t *testing.T, c *rpc.Client) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		if err := read(t, c); err == nil {
			return
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// TestLeafNodes: callers behind a leaf node of another account are known as that leaf node. One of
// the service's own account is believed whatever it says, as docs/identity.md warns: here that is
// what its own accounts are.
func TestLeafNodes(t *testing.T) {
	var options *server.Options
	hub, _ := imported(t, func(o *server.Options) {
		o.LeafNode = server.LeafNodeOpts{Host: "127.0.0.1", Port: server.RANDOM_PORT}
		options = o
	})
	host := fmt.Sprintf("127.0.0.1:%d", options.LeafNode.Port)
	nc, h := hub.Connect(nats.UserInfo("svc", "x")), newHandlers()
	serve(t, nc, h, newVerifier(t, nc, rpcauth.WithUserNames()))

	other := leaf(t, host, "alice", func(o *server.Options) {
		local := server.NewAccount("LOCAL")
		o.Accounts = []*server.Account{local}
		o.Users = []*server.User{{Username: "carol", Password: "x", Account: local}}
	})
	c := dial(t, other.Connect(nats.UserInfo("carol", "x")))
	eventually(t, c)
	if id := h.take(t, 1)[0]; id.Account != "SHARE" || id.User != "alice" || id.Connection.Kind != "Leafnode" {
		t.Errorf("behind a leaf node the identity is %+v, %+v", id, id.Connection)
	}
	_, err := other.Connect(nats.UserInfo("carol", "x")).RequestMsg(&nats.Msg{Subject: "test.v1.Test.Read", Header: nats.Header{infoHeader: {forged}}}, 30*time.Second)
	must(t, err)
	if id := h.take(t, 1)[0]; id.Account != "SHARE" || id.User != "alice" {
		t.Errorf("with a forged header the identity is %+v", id)
	}

	own := leaf(t, host, "svc", func(o *server.Options) {
		local, root := server.NewAccount("LOCAL"), server.NewAccount("ROOT")
		must(t, local.AddServiceExport("test.v1.Test.>", nil))
		must(t, root.AddServiceImport(local, "test.v1.Test.>", "test.v1.Test.>"))
		must(t, root.SetServiceImportSharing(local, "test.v1.Test.>", true))
		o.Accounts = []*server.Account{local, root}
		o.Users = []*server.User{{Username: "root", Password: "x", Account: root}}
	})
	eventually(t, dial(t, own.Connect(nats.UserInfo("root", "x"))))
	if id := h.take(t, 1)[0]; id.Kind != rpcauth.KindImported || id.Account != "ROOT" || id.User != "root" {
		t.Errorf("behind a leaf node of its own account the service believes in %+v", id)
	}
}
