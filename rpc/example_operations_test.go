package rpc_test

import (
	"context"
	"errors"
	"log"
	"os"
	"time"

	"github.com/nats-io/nats.go"

	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
)

// The code of docs/operations.md. The tests of conn_test.go, lameduck_test.go, instance_test.go and
// gather_test.go run it.

// connectOrders connects with a login, such as nats.UserCredentials("orders.creds").
func connectOrders(urls string, login nats.Option) (*nats.Conn, error) {
	return nats.Connect(urls, login,
		nats.Name("orders"),                     // what operators see of the connection
		nats.RetryOnFailedConnect(true),         // the program may start before NATS does
		nats.MaxReconnects(-1),                  // otherwise nats.go gives up after 60 attempts
		nats.CustomInboxPrefix("_INBOX_orders"), // if the user has inboxes of its own
	)
}

// serveAndMove serves until ctx ends, and moves to another NATS node when its own is about to
// leave.
func serveAndMove(ctx context.Context, urls string, register func(*rpc.Server) error) error {
	var leave func(*nats.Conn) error
	for {
		lameDuck := make(chan struct{}, 1)
		nc, err := nats.Connect(urls, nats.LameDuckModeHandler(func(*nats.Conn) { lameDuck <- struct{}{} }))
		if err != nil {
			return err
		}
		defer nc.Close()
		srv := rpc.NewServer(nc)
		if err := register(srv); err != nil {
			return err
		}
		if err := srv.Start(ctx); err != nil {
			return err
		}
		if leave != nil { // the new server is ready: the old one answers what it has
			if err := leave(nc); err != nil {
				return err
			}
		}
		leave = func(next *nats.Conn) error {
			grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 25*time.Second)
			defer cancel()
			defer nc.Close()
			return errors.Join(awaitRoute(grace, nc, next), srv.Shutdown(grace))
		}
		select {
		case <-lameDuck:
		case <-ctx.Done():
			return leave(nil)
		}
	}
}

// awaitRoute returns when the node of the old connection knows what the new one has
// subscribed to: nodes tell each other in order, so a request that gets through proves it.
func awaitRoute(ctx context.Context, old, next *nats.Conn) error {
	if next == nil {
		return nil // there is no next one
	}
	inbox := next.NewInbox()
	sub, err := next.Subscribe(inbox, func(m *nats.Msg) { _ = m.Respond(nil) })
	if err != nil {
		return err
	}
	defer func() { _ = sub.Unsubscribe() }()
	for {
		if _, err = old.RequestWithContext(ctx, inbox, nil); !errors.Is(err, nats.ErrNoResponders) {
			return err
		}
	}
}

func stopOrForce() func(*rpc.Server, <-chan os.Signal) error {
	stop := func(s *rpc.Server, signals <-chan os.Signal) error {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		go func() {
			<-signals // a second one: whoever sent it does not want to wait
			cancel()
		}()
		return s.Shutdown(ctx)
	}
	return stop
}

// placeBoth places an order, and a second one with the instance that has taken the first.
func placeBoth(ctx context.Context, orders orderv1nats.OrderServiceClient, first, second *orderv1.PlaceOrderRequest) error {
	var instance string
	if _, err := orders.PlaceOrder(ctx, first, rpc.ResponseInstance(&instance)); err != nil {
		return err
	}
	_, err := orders.PlaceOrder(ctx, second, rpc.WithInstance(instance))
	return err
}

// placeEverywhere places an order with every instance, and gives the responses to use.
func placeEverywhere(ctx context.Context, client *rpc.Client, req *orderv1.PlaceOrderRequest, use func(*orderv1.PlaceOrderResponse)) {
	g := orderv1nats.OrderServiceMethods.PlaceOrder.Gather(ctx, client, req, rpc.UntilStall(time.Second))
	for row := range g.All() {
		if row.Err != nil {
			log.Printf("instance %s: %v", row.Instance, row.Err)
			continue
		}
		use(row.Response)
	}
	if r := g.Result(); r.Ended != rpc.GatherEndAll {
		log.Printf("ended by %v; missing: %v; %v", r.Ended, r.Missing, r.Err)
	}
}
