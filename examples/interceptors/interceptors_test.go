package interceptors

import (
	"context"
	"crypto/ed25519"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// shapes serves a method of each shape.
type shapes struct {
	inventoryv1nats.UnimplementedInventoryServiceServer
	orderv1nats.UnimplementedOrderServiceServer
	orderv1nats.UnimplementedOrderFeedServiceServer
	placed chan string
}

func (shapes) GetStock(_ context.Context, req *inventoryv1.GetStockRequest) (*inventoryv1.GetStockResponse, error) {
	if req.GetProductId() == "" {
		return nil, rpc.Errorf(rpc.CodeInvalidArgument, "which product?")
	}
	return &inventoryv1.GetStockResponse{Stock: &inventoryv1.Stock{ProductId: req.GetProductId()}}, nil
}

func (shapes) WatchStock(_ context.Context, _ *inventoryv1.WatchStockRequest, to *rpc.Sender[*inventoryv1.WatchStockResponse]) error {
	for range 2 {
		if err := to.Send(&inventoryv1.WatchStockResponse{}); err != nil {
			return err
		}
	}
	return nil
}

func (shapes) ImportStock(_ context.Context, from *rpc.Receiver[*inventoryv1.ImportStockRequest]) (*inventoryv1.ImportStockResponse, error) {
	for _, err := range from.All() {
		if err != nil {
			return nil, err
		}
	}
	return &inventoryv1.ImportStockResponse{}, nil
}

func (shapes) PickOrder(_ context.Context, with *rpc.BidiStream[*orderv1.PickOrderResponse, *orderv1.PickOrderRequest]) error {
	for m, err := range with.All() {
		if err != nil {
			return err
		}
		if err := with.Send(&orderv1.PickOrderResponse{Problem: m.GetOrderId()}); err != nil {
			return err
		}
	}
	return nil
}

func (s shapes) OrderPlaced(_ context.Context, req *orderv1.OrderPlacedRequest) error {
	s.placed <- req.GetOrderId()
	return nil
}

// serve serves shapes on a connection until the test ends.
func serve(t *testing.T, nc *nats.Conn, opts ...rpc.ServerOption) shapes {
	t.Helper()
	s := rpc.NewServer(nc, opts...)
	impl := shapes{placed: make(chan string, 1)}
	for _, err := range []error{
		inventoryv1nats.RegisterInventoryServiceServer(s, impl), orderv1nats.RegisterOrderServiceServer(s, impl),
		orderv1nats.RegisterOrderFeedServiceServer(s, impl), s.Start(t.Context()),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return impl
}

func dial(t *testing.T, nc *nats.Conn, opts ...rpc.ClientOption) *rpc.Client {
	c := rpc.NewClient(nc, opts...)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// calls makes a call of each shape.
func calls(ctx context.Context, c *rpc.Client, impl shapes) map[string]func() error {
	stock := inventoryv1nats.NewInventoryServiceClient(c)
	orders := orderv1nats.NewOrderServiceClient(c)
	return map[string]func() error{
		"unary": func() error {
			_, err := stock.GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: "apple"})
			return err
		},
		"failing": func() error {
			_, err := stock.GetStock(ctx, &inventoryv1.GetStockRequest{})
			return err
		},
		"compressed": func() error {
			_, err := stock.GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: strings.Repeat("a", 10_000)}, rpc.WithCompression(rpc.CompressionGzip))
			return err
		},
		"large": func() error {
			_, err := stock.GetStock(ctx, &inventoryv1.GetStockRequest{ProductId: strings.Repeat("a", 2<<20)})
			return err
		},
		"server stream": func() error {
			r, err := stock.WatchStock(ctx, &inventoryv1.WatchStockRequest{})
			if err != nil {
				return err
			}
			for _, err := range r.All() {
				if err != nil {
					return err
				}
			}
			return nil
		},
		"client stream": func() error {
			s, err := stock.ImportStock(ctx)
			if err != nil {
				return err
			}
			if err := s.Send(&inventoryv1.ImportStockRequest{}); err != nil && err != io.EOF {
				return err
			}
			_, err = s.CloseAndRecv()
			return err
		},
		"bidirectional": func() error {
			s, err := orders.PickOrder(ctx)
			if err != nil {
				return err
			}
			if err := s.Send(&orderv1.PickOrderRequest{Action: &orderv1.PickOrderRequest_OrderId{OrderId: "x"}}); err != nil && err != io.EOF {
				return err
			}
			s.CloseSend()
			for _, err := range s.All() {
				if err != nil {
					return err
				}
			}
			return nil
		},
		"one-way": func() error {
			return orderv1nats.NewOrderFeedServiceClient(c).OrderPlaced(ctx, &orderv1.OrderPlacedRequest{OrderId: "x"})
		},
	}
}

// compressed matches the size on the wire of a compressed message, which is the compressor's.
var compressed = regexp.MustCompile(`(1000\d bytes,) \d\d\b`)

// TestTrace: the interceptor sees every message of every shape, on both sides, alike.
func TestTrace(t *testing.T) {
	srv := rpctest.NewServer(t)
	spans := map[bool]chan *Span{true: make(chan *Span, 1), false: make(chan *Span, 1)}
	trace := Trace(func(s *Span) { spans[s.Server] <- s })
	impl := serve(t, srv.Connect(), rpc.WithInterceptors(trace))
	c := dial(t, srv.Connect(), rpc.WithInterceptors(trace))
	const stream = "send 0\nsent 0: 0 bytes, 0 on the wire, ok\nsend 1\nsent 1: 0 bytes, 0 on the wire, ok"
	tests := map[string]struct{ client, server string }{
		"unary": {
			"send 0\nattempt 0\nsent 0: 7 bytes, 7 on the wire, ok\nreceived 0: 9 bytes, 9 on the wire\nend: ok",
			"received 0: 7 bytes, 7 on the wire\nsend 0\nsent 0: 9 bytes, 9 on the wire, ok\nend: ok",
		},
		"failing": {
			"send 0\nattempt 0\nsent 0: 0 bytes, 0 on the wire, ok\nend: invalid_argument",
			"received 0: 0 bytes, 0 on the wire\nend: invalid_argument",
		},
		"compressed": {
			"send 0\nattempt 0\nsent 0: 10003 bytes, few on the wire, ok\nreceived 0: 10006 bytes, few on the wire\nend: ok",
			"received 0: 10003 bytes, few on the wire\nsend 0\nsent 0: 10006 bytes, few on the wire, ok\nend: ok",
		},
		"large": {
			"send 0\nattempt 0\nsent 0: 2097157 bytes, 2097157 on the wire, ok\nreceived 0: 2097162 bytes, 2097162 on the wire\nend: ok",
			"received 0: 2097157 bytes, 2097157 on the wire\nsend 0\nsent 0: 2097162 bytes, 2097162 on the wire, ok\nend: ok",
		},
		"server stream": {
			"send 0\nattempt 0\nsent 0: 0 bytes, 0 on the wire, ok\nreceived 0: 0 bytes, 0 on the wire\nreceived 1: 0 bytes, 0 on the wire\nend: ok",
			"received 0: 0 bytes, 0 on the wire\n" + stream + "\nend: ok",
		},
		"client stream": {
			"attempt 0\nsend 0\nsent 0: 0 bytes, 0 on the wire, ok\nreceived 0: 0 bytes, 0 on the wire\nend: ok",
			"received 0: 0 bytes, 0 on the wire\nsend 0\nsent 0: 0 bytes, 0 on the wire, ok\nend: ok",
		},
		"bidirectional": {
			"attempt 0\nsend 0\nsent 0: 3 bytes, 3 on the wire, ok\nreceived 0: 3 bytes, 3 on the wire\nend: ok",
			"received 0: 3 bytes, 3 on the wire\nsend 0\nsent 0: 3 bytes, 3 on the wire, ok\nend: ok",
		},
		"one-way": {
			"send 0\nattempt 0\nsent 0: 3 bytes, 3 on the wire, ok\nend: ok",
			"received 0: 3 bytes, 3 on the wire\nend: ok",
		},
	}
	for name, call := range calls(t.Context(), c, impl) {
		t.Run(name, func(t *testing.T) {
			if err := call(); err != nil && name != "failing" {
				t.Fatal(err)
			}
			if name == "one-way" {
				<-impl.placed
			}
			client, server := <-spans[false], <-spans[true]
			if got := compressed.ReplaceAllString(client.String(), "$1 few"); got != tests[name].client {
				t.Errorf("the client saw\n%s\nwant\n%s", got, tests[name].client)
			}
			if got := compressed.ReplaceAllString(server.String(), "$1 few"); got != tests[name].server {
				t.Errorf("the server saw\n%s\nwant\n%s", got, tests[name].server)
			}
			if name != "one-way" && len(server.Parent) != 32 {
				t.Errorf("the server's parent is %q", server.Parent)
			}
		})
	}
}

// TestSign: signed requests of every shape pass, once; all others do not reach the handler.
func TestSign(t *testing.T) {
	srv := rpctest.NewServer(t)
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	_, stranger, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	impl := serve(t, srv.Connect(), rpc.WithInterceptors(Verify(public)))
	for name, call := range calls(t.Context(), dial(t, srv.Connect(), rpc.WithInterceptors(Sign(private))), impl) {
		if name == "one-way" {
			continue // has no id
		}
		if err := call(); err != nil && name != "failing" {
			t.Errorf("%s: %v", name, err)
		}
	}
	unsigned := dial(t, srv.Connect())
	forged := dial(t, srv.Connect(), rpc.WithInterceptors(Sign(stranger)))
	for name, c := range map[string]*rpc.Client{"unsigned": unsigned, "forged": forged} {
		_, err := inventoryv1nats.NewInventoryServiceClient(c).GetStock(t.Context(), &inventoryv1.GetStockRequest{ProductId: "apple"})
		if rpc.CodeOf(err) != rpc.CodeUnauthenticated {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestReplay: a request that somebody has recorded neither counts twice nor with another body.
func TestReplay(t *testing.T) {
	nc := rpctest.Connect(t)
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, nc, rpc.WithInterceptors(Verify(public)))
	recorded, err := nc.SubscribeSync(inventoryv1nats.InventoryServiceName + ".GetStock")
	if err != nil {
		t.Fatal(err)
	}
	stock := inventoryv1nats.NewInventoryServiceClient(dial(t, nc, rpc.WithInterceptors(Sign(private))))
	if _, err := stock.GetStock(t.Context(), &inventoryv1.GetStockRequest{ProductId: "apple"}); err != nil {
		t.Fatal(err)
	}
	request, err := recorded.NextMsgWithContext(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := recorded.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	changed := slices.Clone(request.Data)
	changed[len(changed)-1]++
	for want, data := range map[string][]byte{
		"the request has come before":               request.Data,
		"the signature is not that of this request": changed,
	} {
		reply, err := nc.RequestMsgWithContext(t.Context(), &nats.Msg{Subject: request.Subject, Header: request.Header, Data: data})
		if err != nil {
			t.Fatal(err)
		}
		if got := reply.Header.Get(micro.ErrorHeader); !strings.Contains(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
