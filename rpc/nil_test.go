package rpc_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// records are what a logger has been told.
type records struct {
	mu   sync.Mutex
	text strings.Builder
}

func (r *records) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.Write(b)
}

func (r *records) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

func (r *records) logger() *slog.Logger { return slog.New(slog.NewTextHandler(r, nil)) }

// seen are the messages that a hook has seen; nil is "<nil>".
type seen struct {
	mu    sync.Mutex
	texts []string
}

func (s *seen) see(m *rpc.Message) error {
	value, err := m.Proto()
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	text := "<nil>"
	if v, ok := value.(*wrapperspb.StringValue); ok && v != nil {
		text = v.GetValue()
	}
	s.texts = append(s.texts, text)
	return nil
}

// TestSendNil: nil is refused by Send on both sides of every stream, reaches no hook and no peer,
// and the stream goes on.
func TestSendNil(t *testing.T) {
	refused := make(chan error, 1)
	sendAround := func(send func(*text) error) error {
		if err := send(wrapperspb.String("a")); err != nil {
			return err
		}
		refused <- send(nil)
		return send(wrapperspb.String("b"))
	}
	srv := rpctest.NewServer(t)
	var onServer, onClient seen
	hook := func(s *seen) rpc.Interceptor {
		return func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
			call.OnSend(s.see)
			return next(ctx, call)
		}
	}
	serve(t, srv.Connect(), &funcs{
		watch: func(_ context.Context, _ string, to *rpc.Sender[*text]) error { return sendAround(to.Send) },
		chat: func(_ context.Context, with *rpc.BidiStream[*text, *text]) error {
			if m, err := with.Recv(); err == io.EOF {
				return sendAround(with.Send)
			} else if err != nil {
				return err
			} else if err := with.Send(m); err != nil {
				return err
			}
			m, err := with.Recv()
			if err != nil {
				return err
			}
			return with.Send(m)
		},
	}, rpc.WithInterceptors(hook(&onServer)))
	nc := srv.Connect()
	c := dial(t, nc, rpc.WithInterceptors(hook(&onClient)))
	ctx := testContext(t)
	collect := func(all func(func(*text, error) bool)) (texts []string) {
		for m, err := range all {
			must(t, err)
			texts = append(texts, m.GetValue())
		}
		return texts
	}
	for _, test := range []struct {
		name string
		run  func() []string // what came through
		code rpc.Code
		hook *seen
	}{
		{"server stream", func() []string {
			s, err := testWatch.Call(ctx, c, hello)
			must(t, err)
			return collect(s.All())
		}, rpc.CodeInternal, &onServer},
		{"plain server stream", func() (texts []string) {
			messages, _ := askMany(t, nc, nil, contentType("application/json"))
			for _, m := range messages {
				texts = append(texts, strings.Trim(string(m.Data), `"`))
			}
			return texts
		}, rpc.CodeInternal, &onServer},
		{"bidirectional, server", func() []string {
			s, err := testChat.Call(ctx, c)
			must(t, err)
			s.CloseSend()
			return collect(s.All())
		}, rpc.CodeInternal, &onServer},
		{"bidirectional, client", func() []string {
			s, err := testChat.Call(ctx, c)
			must(t, err)
			must(t, sendAround(s.Send))
			s.CloseSend()
			return collect(s.All())
		}, rpc.CodeInvalidArgument, &onClient},
		{"client stream", func() []string {
			s, err := testGather.Call(ctx, c)
			must(t, err)
			must(t, sendAround(s.Send))
			m, err := s.CloseAndRecv()
			must(t, err)
			return strings.Split(m.GetValue(), "")
		}, rpc.CodeInvalidArgument, &onClient},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.hook.texts = nil
			if got := test.run(); !slices.Equal(got, []string{"a", "b"}) {
				t.Errorf("%q came through", got)
			}
			err := <-refused
			wantText(t, err, "there is nothing to send")
			if rpc.CodeOf(err) != test.code {
				t.Errorf("Send(nil) is %v, want %v", err, test.code)
			}
			test.hook.mu.Lock()
			defer test.hook.mu.Unlock()
			if !slices.Equal(test.hook.texts, []string{"a", "b"}) {
				t.Errorf("OnSend saw %q", test.hook.texts)
			}
		})
	}
}

// TestNilClients: a client that is nil, or has no connection, fails calls of every shape, as
// generated code makes them too.
func TestNilClients(t *testing.T) {
	ctx := testContext(t)
	for name, c := range map[string]*rpc.Client{
		"the *rpc.Client is nil": nil, "the NATS connection is nil": rpc.NewClient(nil), "connection is nil": new(rpc.Client),
	} {
		calls := everyShape(ctx, c)
		orders, inventory, feed := orderv1nats.NewOrderServiceClient(c), inventoryv1nats.NewInventoryServiceClient(c), orderv1nats.NewOrderFeedServiceClient(c)
		calls["generated unary"] = func() error { _, err := orders.GetOrder(ctx, &orderv1.GetOrderRequest{}); return err }
		calls["generated one-way"] = func() error { return feed.OrderPlaced(ctx, &orderv1.OrderPlacedRequest{}) }
		calls["generated server stream"] = func() error { _, err := inventory.WatchStock(ctx, &inventoryv1.WatchStockRequest{}); return err }
		calls["generated client stream"] = func() error { _, err := inventory.ImportStock(ctx); return err }
		calls["generated bidirectional stream"] = func() error { _, err := orders.PickOrder(ctx); return err }
		for shape, call := range calls {
			e := wantCode(t, call(), rpc.CodeInvalidArgument, rpc.ExecutionNotRun)
			if !strings.Contains(e.Message(), name) {
				t.Errorf("%s: %v", shape, e)
			}
		}
	}
	must(t, rpc.NewClient(nil).Close())
	must(t, (*rpc.Client)(nil).Close())
}

// TestNilRequests: nil is no empty message, in any form.
func TestNilRequests(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{})
	for form, c := range everyForm(t, nc, rpc.WithInterceptors(passOn)) {
		calls := map[string]func() error{
			"unary":   func() error { _, err := testDo.Call(testContext(t), c, nil); return err },
			"one-way": func() error { return testNote.Call(testContext(t), c, nil) },
		}
		if !strings.HasPrefix(form, "plain") {
			calls["server stream"] = func() error { _, err := testWatch.Call(testContext(t), c, nil); return err }
		}
		for shape, call := range calls {
			if e := wantCode(t, call(), rpc.CodeInvalidArgument, rpc.ExecutionNotRun); !strings.Contains(e.Message(), "the request is nil") {
				t.Errorf("%s, %s: %v", form, shape, e)
			}
		}
	}
}

// TestNilServers: whatever is nil is named, by every method of the server.
func TestNilServers(t *testing.T) {
	nc := rpctest.Connect(t)
	wantText(t, registerTest(nil, &funcs{}), "rpc: register test.v1.TestService: the server is nil")
	wantText(t, rpc.Register[testServer](rpc.NewServer(nc), nil, &funcs{}, nil), "the description of the service is nil")
	for _, s := range []*rpc.Server{nil, new(rpc.Server)} {
		for _, err := range []error{
			registerTest(s, &funcs{}), s.Start(testContext(t)), s.Run(testContext(t)),
			s.Unregister(testContext(t), "x"), s.Shutdown(testContext(t)),
		} {
			wantText(t, err, "rpc.NewServer makes one")
		}
	}
	wantText(t, registerTest(rpc.NewServer(nc), nil), "the implementation is nil")
	wantText(t, orderv1nats.RegisterOrderServiceServer(nil, orders{}), "the server is nil")
	wantText(t, orderv1nats.RegisterOrderServiceServer(rpc.NewServer(nc), nil), "the implementation is nil")
	for text, s := range map[string]*rpc.Server{"the NATS connection is nil": rpc.NewServer(nil), "an option is nil": rpc.NewServer(nc, nil)} {
		wantText(t, registerTest(s, &funcs{}), text)
		wantText(t, s.Start(testContext(t)), text)
		wantText(t, s.Run(testContext(t)), text)
		must(t, s.Shutdown(testContext(t)))
	}
}

// TestNilForNothing: where nothing can be meant by nil, it means nothing.
func TestNilForNothing(t *testing.T) {
	nc := rpctest.Connect(t)
	var ended sync.WaitGroup
	hooks := func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		ended.Add(1)
		var s seen
		call.OnSend(nil)
		call.OnSend(s.see)
		call.OnSend(nil)
		call.OnReceive(nil)
		call.OnReceive(s.see)
		call.OnReceive(nil)
		call.OnEnd(nil)
		call.OnEnd(func(error) { ended.Done() })
		call.OnEnd(nil)
		return next(ctx, call)
	}
	var logged records
	serve(t, nc, &funcs{}, rpc.WithServiceMetadata(nil), rpc.WithInterceptors(), rpc.WithInterceptors(hooks), rpc.WithLogger(logged.logger()))
	c := dial(t, nc, rpc.WithInterceptors(), rpc.WithInterceptors(hooks))
	for shape, call := range everyShape(testContext(t), c, rpc.ResponseHeader(nil), rpc.ResponseTrailer(nil)) {
		if err := call(); err != nil {
			t.Errorf("%s: %v", shape, err)
		}
	}
	ended.Wait()
	onlyNil := func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.OnSend(nil)
		call.OnReceive(nil)
		call.OnEnd(nil)
		return next(ctx, call)
	}
	for shape, call := range everyShape(testContext(t), dial(t, nc, rpc.WithInterceptors(onlyNil))) {
		if err := call(); err != nil {
			t.Errorf("%s, only nil: %v", shape, err)
		}
	}
	if s := logged.String(); s != "" {
		t.Errorf("the server logged %s", s)
	}
}

// TestNilResponses: an interceptor of the server cannot answer with nothing.
func TestNilResponses(t *testing.T) {
	nc := rpctest.Connect(t)
	var response proto.Message
	serve(t, nc, &funcs{}, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		err := next(ctx, call)
		call.SetResponse(response)
		return err
	}))
	for _, response = range []proto.Message{nil, (*text)(nil), (*bytes)(nil)} {
		_, err := do(testContext(t), dial(t, nc), "x")
		wantText(t, wantCode(t, err, rpc.CodeInternal, rpc.ExecutionDidRun), "returned no response and no error")
	}
}

// TestRunWithoutServices: a server without a service waits for one, and says so.
func TestRunWithoutServices(t *testing.T) {
	nc := rpctest.Connect(t)
	for _, services := range []int{0, 1} {
		var logged records
		s := rpc.NewServer(nc, rpc.WithLogger(logged.logger()))
		for range services {
			must(t, registerTest(s, &funcs{}))
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := s.Run(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if got := strings.Contains(logged.String(), "the server has no services"); got != (services == 0) {
			t.Errorf("%d services: the server logged %q", services, logged.String())
		}
	}
}
