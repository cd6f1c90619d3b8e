package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	"github.com/natscall/natscall/gen/inventory/v1/inventoryv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestMethodInterceptors: one is made for each method when the service is registered, and runs
// inside the others; those of the server come first.
func TestMethodInterceptors(t *testing.T) {
	var mu sync.Mutex
	var log []string
	record := func(s string) { mu.Lock(); defer mu.Unlock(); log = append(log, s) }
	made := map[string][]string{}
	of := func(name string) rpc.ServerServiceOption {
		return rpc.WithMethodInterceptors(func(m *rpc.Method) (rpc.Interceptor, error) {
			made[name] = append(made[name], fmt.Sprintf("%s %v", m.Desc().Name, m.Kind()))
			if m.Kind() == rpc.KindUnary && m.Desc().Name != "Do" {
				return nil, nil
			}
			return func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
				if call.Method() != m.FullName() {
					t.Errorf("a call of %s has the interceptor of %s", call.Method(), m.FullName())
				}
				record(name)
				return next(ctx, call)
			}, nil
		})
	}
	plain := func(name string) rpc.AnyOption {
		return rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
			record(name)
			return next(ctx, call)
		})
	}
	nc := rpctest.Connect(t)
	srv := rpc.NewServer(nc, of("server's method"), plain("server"))
	must(t, registerTest(srv, &funcs{}, of("service's method"), plain("service")))
	must(t, srv.Start(testContext(t)))
	defer shutdown(t, srv)
	c := dial(t, nc)

	want := []string{"Do unary", "Read unary", "Blob unary", "Object unary", "Note one_way", "Watch server_stream", "Gather client_stream", "Chat bidi_stream"}
	for name, got := range made {
		if !slices.Equal(got, want) {
			t.Errorf("%s: made for %q, want %q", name, got, want)
		}
	}
	ctx := testContext(t)
	for method, call := range map[string]func() error{
		"Do":    func() error { _, err := testDo.Call(ctx, c, wrapperspb.String("x")); return err },
		"Read":  func() error { _, err := testRead.Call(ctx, c, wrapperspb.String("x")); return err },
		"Watch": func() error { return watchToEnd(t, c) },
	} {
		log = nil
		must(t, call())
		want := "server service server's method service's method"
		if method == "Read" { // whose interceptors are nil
			want = "server service"
		}
		mu.Lock()
		if got := strings.Join(log, " "); got != want {
			t.Errorf("%s: %s, want %s", method, got, want)
		}
		mu.Unlock()
	}
}

// TestMethodInterceptorRefuses: the handler of a call that it refuses has not run, and one that
// calls next twice runs a streaming handler once.
func TestMethodInterceptorRefuses(t *testing.T) {
	refuse := rpc.WithMethodInterceptors(func(m *rpc.Method) (rpc.Interceptor, error) {
		return func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
			if m.Kind() == rpc.KindUnary {
				return rpc.Errorf(rpc.CodePermissionDenied, "no")
			}
			return errors.Join(next(ctx, call), next(ctx, call))
		}, nil
	})
	nc := rpctest.Connect(t)
	srv := rpc.NewServer(nc)
	must(t, registerTest(srv, &funcs{do: func(context.Context, string) (string, error) {
		t.Error("the handler ran")
		return "", nil
	}}, refuse))
	must(t, srv.Start(testContext(t)))
	defer shutdown(t, srv)
	c := dial(t, nc)
	_, err := do(testContext(t), c, "x")
	wantCode(t, err, rpc.CodePermissionDenied, rpc.ExecutionNotRun)
	if err := watchToEnd(t, c); rpc.CodeOf(err) != rpc.CodeInternal || !strings.Contains(err.Error(), "twice") {
		t.Errorf("next twice: %v", err)
	}
}

// watchToEnd reads a stream to its end.
func watchToEnd(t *testing.T, c *rpc.Client) error {
	r, err := testWatch.Call(testContext(t), c, wrapperspb.String("x"))
	if err != nil {
		return err
	}
	for _, err := range r.All() {
		if err != nil {
			return err
		}
	}
	return nil
}

// TestMethodInterceptorFailsRegister: the errors of all methods are that of Register, and the
// service may be registered again without them.
func TestMethodInterceptorFailsRegister(t *testing.T) {
	bad := errors.New("bad")
	fail := rpc.WithMethodInterceptors(func(m *rpc.Method) (rpc.Interceptor, error) {
		if m.Kind() == rpc.KindUnary {
			return nil, nil
		}
		return nil, fmt.Errorf("a %v method: %w", m.Kind(), bad)
	})
	nc := rpctest.Connect(t)
	srv := rpc.NewServer(nc)
	err := registerTest(srv, &funcs{}, fail)
	if !errors.Is(err, bad) {
		t.Fatalf("Register: %v", err)
	}
	for _, part := range []string{"/test.v1.TestService/Watch: a server_stream method: bad", "/test.v1.TestService/Chat: a bidi_stream method: bad"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("Register: %v\nwithout %q", err, part)
		}
	}
	must(t, registerTest(srv, &funcs{}))
}

// TestMethodTypes: what a method says of itself.
func TestMethodTypes(t *testing.T) {
	get := inventoryv1nats.InventoryServiceMethods.GetStock
	if _, ok := get.NewRequest().(*inventoryv1.GetStockRequest); !ok {
		t.Errorf("the request is a %T", get.NewRequest())
	}
	if _, ok := get.NewResponse().(*inventoryv1.GetStockResponse); !ok {
		t.Errorf("the response is a %T", get.NewResponse())
	}
	if got, want := get.Descriptor(), inventoryv1.File_inventory_v1_inventory_proto.Services().Get(0).Methods().ByName("GetStock"); got != want {
		t.Errorf("the descriptor is %v", got)
	}
	if _, ok := testNote.NewResponse().(*emptypb.Empty); !ok {
		t.Errorf("the response of a one-way method is a %T", testNote.NewResponse())
	}
	raw := rpc.NewRawMethod(&rpc.ServiceDesc{Name: "a.v1.A"}, rpc.MethodDesc{Name: "Do"}, rpc.KindUnary)
	if raw.NewRequest() != nil || raw.NewResponse() != nil || raw.Descriptor() != nil {
		t.Errorf("a raw method has types: %v, %v, %v", raw.NewRequest(), raw.NewResponse(), raw.Descriptor())
	}
}

// TestServerOptions: options that are joined are applied in order, to a server and to a service.
func TestServerOptions(t *testing.T) {
	nc := rpctest.Connect(t)
	failed := errors.New("no")
	var log []string
	record := func(name string, err error) rpc.ServerServiceOption {
		return rpc.WithMethodInterceptors(func(*rpc.Method) (rpc.Interceptor, error) {
			log = append(log, name)
			return nil, err
		})
	}
	joined := rpc.WithServerOptions(record("a", nil), rpc.WithServerOptions(record("b", failed)), rpc.WithServerOptions())
	register := func(opt rpc.ServerServiceOption, onServer bool) error {
		if onServer {
			return inventoryv1nats.RegisterInventoryServiceServer(rpc.NewServer(nc, opt), inventoryv1nats.UnimplementedInventoryServiceServer{})
		}
		return inventoryv1nats.RegisterInventoryServiceServer(rpc.NewServer(nc), inventoryv1nats.UnimplementedInventoryServiceServer{}, opt)
	}
	for _, onServer := range []bool{true, false} {
		if err := register(joined, onServer); !errors.Is(err, failed) || !slices.Equal(log[:2], []string{"a", "b"}) {
			t.Errorf("%v, %v", err, log)
		}
		if err := register(rpc.WithServerOptions(rpc.WithoutQueueGroup(), nil), onServer); err == nil || !strings.Contains(err.Error(), "an option is nil") {
			t.Errorf("the error is %v", err)
		}
		if err := register(rpc.WithServerOptions(rpc.WithQueueGroup("a b")), onServer); err == nil {
			t.Error("a wrong queue group is taken")
		}
	}
}
