package authcallout_test

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/natscall/natscall/examples/authcallout"
	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newKey(t testing.TB, create func() (nkeys.KeyPair, error)) (pair nkeys.KeyPair, public string) {
	t.Helper()
	pair, err := create()
	must(t, err)
	public, err = pair.PublicKey()
	must(t, err)
	return pair, public
}

// decide knows one client, alice, who may read the stock.
func decide(req *jwt.AuthorizationRequest) (*authcallout.Grant, error) {
	o := req.ConnectOptions
	if o.Username != "alice" || subtle.ConstantTimeCompare([]byte(o.Password), []byte("secret")) == 0 {
		return nil, errors.New("unknown user or wrong password")
	}
	permissions, err := authcallout.Calls("_INBOX_alice", inventoryv1nats.InventoryServiceMethods.GetStock)
	return &authcallout.Grant{Name: "alice of APP", Account: "APP", Permissions: permissions, Until: time.Now().Add(time.Hour)}, err
}

// serve starts a NATS server with a callout, which has an account of its own, and the inventory.
func serve(t *testing.T, encrypted bool) *rpctest.Server {
	t.Helper()
	issuer, account := newKey(t, nkeys.CreateAccount)
	callout := &authcallout.Callout{Issuer: issuer, Decide: decide, Logger: slog.New(slog.DiscardHandler)}
	settings := &server.AuthCallout{Issuer: account, Account: "AUTH", AuthUsers: []string{"callout", "service"}}
	if encrypted {
		callout.Curve, settings.XKey = newKey(t, nkeys.CreateCurveKeys)
	}
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) {
		auth, app := server.NewAccount("AUTH"), server.NewAccount("APP")
		o.Accounts = []*server.Account{auth, app}
		o.Users = []*server.User{{Username: "callout", Password: "x", Account: auth}, {Username: "service", Password: "x", Account: app}}
		o.AuthCallout = settings
	}))
	nc := srv.Connect(nats.UserInfo("callout", "x"))
	_, err := callout.Serve(nc)
	must(t, err)
	must(t, nc.Flush())
	s := rpc.NewServer(srv.Connect(nats.UserInfo("service", "x")))
	must(t, inventoryv1nats.RegisterInventoryServiceServer(s, inventory{}))
	must(t, s.Start(t.Context()))
	t.Cleanup(func() { must(t, s.Shutdown(context.Background())) })
	return srv
}

type inventory struct {
	inventoryv1nats.UnimplementedInventoryServiceServer
}

func (inventory) GetStock(_ context.Context, req *inventoryv1.GetStockRequest) (*inventoryv1.GetStockResponse, error) {
	return &inventoryv1.GetStockResponse{Stock: &inventoryv1.Stock{ProductId: req.GetProductId(), Available: 7}}, nil
}

// TestCallout: a client that is admitted may call what it is permitted to call, and no other client
// connects, whether or not the requests are encrypted.
func TestCallout(t *testing.T) {
	for _, encrypted := range []bool{false, true} {
		t.Run(fmt.Sprint("encrypted ", encrypted), func(t *testing.T) {
			srv := serve(t, encrypted)
			nc := srv.Connect(nats.UserInfo("alice", "secret"), nats.CustomInboxPrefix("_INBOX_alice"), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
			c := rpc.NewClient(nc)
			defer func() { _ = c.Close() }()
			stock := inventoryv1nats.NewInventoryServiceClient(c)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			res, err := stock.GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: "apple"})
			if err != nil || res.GetStock().GetAvailable() != 7 {
				t.Errorf("%v, %v", res, err)
			}
			if _, err := stock.AddStock(ctx, &inventoryv1.AddStockRequest{ProductId: "apple", Quantity: 1}); rpc.CodeOf(err) != rpc.CodePermissionDenied {
				t.Errorf("the error is %v", err)
			}
			for _, login := range []nats.Option{nats.UserInfo("alice", "guess"), nats.UserInfo("mallory", "secret"), nats.Name("nobody")} {
				nc, err := nats.Connect(srv.URL(), login)
				if err == nil {
					nc.Close()
				}
				if err == nil || !strings.EqualFold(err.Error(), nats.ErrAuthorization.Error()) {
					t.Errorf("the error is %v", err)
				}
			}
		})
	}
}

// TestForgedRequest: what no NATS server has signed for a callout gets no answer.
func TestForgedRequest(t *testing.T) {
	serverKey, serverID := newKey(t, nkeys.CreateServer)
	other, _ := newKey(t, nkeys.CreateServer)
	_, user := newKey(t, nkeys.CreateUser)
	request := func(change func(*jwt.AuthorizationRequestClaims), signer nkeys.KeyPair) []byte {
		claims := jwt.NewAuthorizationRequestClaims(user)
		claims.Audience, claims.UserNkey, claims.Server.ID = authcallout.Audience, user, serverID
		claims.ConnectOptions.Username, claims.ConnectOptions.Password = "alice", "secret"
		change(claims)
		token, err := claims.Encode(signer)
		must(t, err)
		return []byte(token)
	}
	none := func(*jwt.AuthorizationRequestClaims) {}
	issuer, _ := newKey(t, nkeys.CreateAccount)
	callout := authcallout.Callout{Issuer: issuer, Decide: decide, Logger: slog.New(slog.DiscardHandler)}
	nc := rpctest.Connect(t) // of a NATS server without a callout, which lets a client ask
	_, err := callout.Serve(nc)
	must(t, err)
	good, err := nc.Request(authcallout.Subject, request(none, serverKey), 30*time.Second)
	must(t, err)
	if claims, err := jwt.DecodeAuthorizationResponseClaims(string(good.Data)); err != nil || claims.Error != "" || claims.Subject != user || claims.Audience != serverID {
		t.Fatalf("%+v, %v", claims, err)
	}
	answers, err := nc.SubscribeSync("answers")
	must(t, err)
	for _, data := range [][]byte{
		nil, []byte("x"),
		request(none, other),
		request(func(c *jwt.AuthorizationRequestClaims) { c.Audience = "x" }, serverKey),
		request(func(c *jwt.AuthorizationRequestClaims) { c.UserNkey = "x" }, serverKey),
		request(func(c *jwt.AuthorizationRequestClaims) { c.Expires = 1 }, serverKey),
	} {
		must(t, nc.PublishRequest(authcallout.Subject, "answers", data))
	}
	encrypted := &nats.Msg{Subject: authcallout.Subject, Reply: "answers", Data: []byte("xkv1"), Header: nats.Header{"Nats-Server-Xkey": {"X"}}}
	must(t, nc.PublishMsg(encrypted))
	must(t, nc.PublishRequest(authcallout.Subject, "answers", request(none, serverKey))) // the last
	m, err := answers.NextMsg(30 * time.Second)
	must(t, err)
	if claims, err := jwt.DecodeAuthorizationResponseClaims(string(m.Data)); err != nil || claims.Error != "" {
		t.Errorf("a forged request was answered: %+v, %v", claims, err)
	}
	if n, _, err := answers.Pending(); n != 0 || err != nil {
		t.Errorf("%d answers more, %v", n, err)
	}
}

// TestGrant: the name of a user is that of its grant, and without a grant nobody is admitted.
func TestGrant(t *testing.T) {
	serverKey, serverID := newKey(t, nkeys.CreateServer)
	_, user := newKey(t, nkeys.CreateUser)
	issuer, _ := newKey(t, nkeys.CreateAccount)
	for _, grant := range []*authcallout.Grant{nil, {Name: "alice", Account: "APP"}} {
		callout := authcallout.Callout{Issuer: issuer, Logger: slog.New(slog.DiscardHandler), Decide: func(*jwt.AuthorizationRequest) (*authcallout.Grant, error) {
			return grant, nil
		}}
		nc := rpctest.Connect(t)
		_, err := callout.Serve(nc)
		must(t, err)
		request := jwt.NewAuthorizationRequestClaims(user)
		request.Audience, request.UserNkey, request.Server.ID = authcallout.Audience, user, serverID
		request.ConnectOptions.Username = "root"
		token, err := request.Encode(serverKey)
		must(t, err)
		m, err := nc.Request(authcallout.Subject, []byte(token), 30*time.Second)
		must(t, err)
		answer, err := jwt.DecodeAuthorizationResponseClaims(string(m.Data))
		must(t, err)
		if grant == nil {
			if answer.Jwt != "" || answer.Error == "" {
				t.Errorf("without a grant the answer is %+v", answer)
			}
		} else if claims, err := jwt.DecodeUserClaims(answer.Jwt); err != nil || claims.Name != grant.Name {
			t.Errorf("the user is %+v, %v", claims, err)
		}
	}
}

// The permissions of a client come from the methods that it calls.
func ExampleCalls() {
	permissions, err := authcallout.Calls("_INBOX_alice", inventoryv1nats.InventoryServiceMethods.GetStock)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("subscribe", permissions.Sub.Allow)
	for _, subject := range permissions.Pub.Allow {
		fmt.Println("publish", subject)
	}
	// Output:
	// subscribe [_INBOX_alice.>]
	// publish inventory.v1.InventoryService.GetStock
	// publish inventory.v1.InventoryService._all.cancel
	// publish inventory.v1.InventoryService._all.alive
	// publish inventory.v1.InventoryService._all.instances
	// publish inventory.v1.InventoryService._i.*.*
	// publish inventory.v1.InventoryService._i.*.call.GetStock
}
