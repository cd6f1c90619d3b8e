package rpc_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
)

// The service of the tests, as generated code would describe it. What its
// methods do is up to each test.
var testDesc = rpc.ServiceDesc{
	Name: "test.v1.TestService", MicroName: "TestService", Version: "1.2.3",
	Description: "TestService is for tests.", Metadata: map[string]string{"team": "core"},
	File: wrapperspb.File_google_protobuf_wrappers_proto,
}

type (
	text  = wrapperspb.StringValue
	bytes = wrapperspb.BytesValue
)

var (
	testDo     = rpc.NewUnaryMethod[text, text](&testDesc, rpc.MethodDesc{Name: "Do", Metadata: map[string]string{"cost": "low"}})
	testRead   = rpc.NewUnaryMethod[text, text](&testDesc, rpc.MethodDesc{Name: "Read", Idempotency: rpc.IdempotencyNoSideEffects})
	testBlob   = rpc.NewUnaryMethod[bytes, bytes](&testDesc, rpc.MethodDesc{Name: "Blob"})
	testObject = rpc.NewUnaryMethod[structpb.Struct, structpb.Struct](&testDesc, rpc.MethodDesc{Name: "Object", Timeout: 3 * time.Second})
	testNote   = rpc.NewOneWayMethod[structpb.Struct](&testDesc, rpc.MethodDesc{Name: "Note", Subject: "notes.new"})
	testWatch  = rpc.NewServerStreamMethod[text, text](&testDesc, rpc.MethodDesc{Name: "Watch"})
	testGather = rpc.NewClientStreamMethod[text, text](&testDesc, rpc.MethodDesc{Name: "Gather"})
	testChat   = rpc.NewBidiMethod[text, text](&testDesc, rpc.MethodDesc{Name: "Chat"})
)

type testServer interface {
	Do(context.Context, *text) (*text, error)
	Read(context.Context, *text) (*text, error)
	Blob(context.Context, *bytes) (*bytes, error)
	Object(context.Context, *structpb.Struct) (*structpb.Struct, error)
	Note(context.Context, *structpb.Struct) error
	Watch(context.Context, *text, *rpc.Sender[*text]) error
	Gather(context.Context, *rpc.Receiver[*text]) (*text, error)
	Chat(context.Context, *rpc.BidiStream[*text, *text]) error
}

func registerTest(s *rpc.Server, impl testServer, opts ...rpc.ServiceOption) error {
	return rpc.Register(s, &testDesc, impl, opts,
		rpc.HandleUnary(testDo, testServer.Do),
		rpc.HandleUnary(testRead, testServer.Read),
		rpc.HandleUnary(testBlob, testServer.Blob),
		rpc.HandleUnary(testObject, testServer.Object),
		rpc.HandleOneWay(testNote, testServer.Note),
		rpc.HandleServerStream(testWatch, testServer.Watch),
		rpc.HandleClientStream(testGather, testServer.Gather),
		rpc.HandleBidi(testChat, testServer.Chat),
	)
}

// funcs implements testServer by functions; those that are nil echo.
type funcs struct {
	do     func(context.Context, string) (string, error)
	read   func(context.Context, string) (string, error)
	blob   func(context.Context, []byte) ([]byte, error)
	object func(context.Context, *structpb.Struct) (*structpb.Struct, error)
	note   func(context.Context, *structpb.Struct) error
	watch  func(context.Context, string, *rpc.Sender[*text]) error
	gather func(context.Context, *rpc.Receiver[*text]) (string, error)
	chat   func(context.Context, *rpc.BidiStream[*text, *text]) error
}

func (f *funcs) Do(ctx context.Context, req *text) (*text, error) {
	return callText(ctx, f.do, req)
}

func (f *funcs) Read(ctx context.Context, req *text) (*text, error) {
	return callText(ctx, f.read, req)
}

func callText(ctx context.Context, f func(context.Context, string) (string, error), req *text) (*text, error) {
	if f == nil {
		return req, nil
	}
	out, err := f(ctx, req.GetValue())
	if err != nil {
		return nil, err
	}
	if out == "nil" {
		return nil, nil
	}
	return wrapperspb.String(out), nil
}

func (f *funcs) Blob(ctx context.Context, req *bytes) (*bytes, error) {
	if f.blob == nil {
		return req, nil
	}
	out, err := f.blob(ctx, req.GetValue())
	return wrapperspb.Bytes(out), err
}

func (f *funcs) Object(ctx context.Context, req *structpb.Struct) (*structpb.Struct, error) {
	if f.object == nil {
		return req, nil
	}
	return f.object(ctx, req)
}

func (f *funcs) Note(ctx context.Context, req *structpb.Struct) error {
	if f.note == nil {
		return nil
	}
	return f.note(ctx, req)
}

func (f *funcs) Watch(ctx context.Context, req *text, to *rpc.Sender[*text]) error {
	if f.watch == nil {
		return to.Send(req)
	}
	return f.watch(ctx, req.GetValue(), to)
}

func (f *funcs) Gather(ctx context.Context, from *rpc.Receiver[*text]) (*text, error) {
	if f.gather != nil {
		out, err := f.gather(ctx, from)
		return wrapperspb.String(out), err
	}
	var all string
	for m, err := range from.All() {
		if err != nil {
			return nil, err
		}
		all += m.GetValue()
	}
	return wrapperspb.String(all), nil
}

func (f *funcs) Chat(ctx context.Context, with *rpc.BidiStream[*text, *text]) error {
	if f.chat != nil {
		return f.chat(ctx, with)
	}
	for m, err := range with.All() {
		if err != nil {
			return err
		}
		if err := with.Send(m); err != nil {
			return err
		}
	}
	return nil
}

// serve runs a server with the test service until the test ends.
func serve(t testing.TB, nc *nats.Conn, impl testServer, opts ...rpc.ServerOption) *rpc.Server {
	t.Helper()
	s := newTestServer(t, nc, impl, opts...)
	t.Cleanup(func() { shutdown(t, s) })
	return s
}

// newTestServer is serve for tests that stop the server themselves.
func newTestServer(t testing.TB, nc *nats.Conn, impl testServer, opts ...rpc.ServerOption) *rpc.Server {
	t.Helper()
	s := rpc.NewServer(nc, append([]rpc.ServerOption{rpc.WithLogger(slog.New(slog.DiscardHandler))}, opts...)...)
	if err := registerTest(s, impl); err != nil {
		t.Fatalf("register: %v", err)
	}
	if err := s.Start(testContext(t)); err != nil {
		t.Fatalf("start: %v", err)
	}
	return s
}

func shutdown(t testing.TB, s *rpc.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil && !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrDisconnected) {
		t.Errorf("shutdown: %v", err)
	}
}

// dial returns a client that is closed when the test ends.
func dial(t testing.TB, nc *nats.Conn, opts ...rpc.ClientOption) *rpc.Client {
	t.Helper()
	c := rpc.NewClient(nc, opts...)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

// testContext has a deadline far beyond what any step of a test takes.
func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// do calls the Do method.
func do(ctx context.Context, c *rpc.Client, in string, opts ...rpc.CallOption) (string, error) {
	res, err := testDo.Call(ctx, c, wrapperspb.String(in), opts...)
	return res.GetValue(), err
}

// wantCode checks the code and the execution of an error and returns it.
func wantCode(t testing.TB, err error, code rpc.Code, x rpc.Execution) *rpc.Error {
	t.Helper()
	var e *rpc.Error
	if !errors.As(err, &e) {
		t.Fatalf("error is %T (%v), want an *rpc.Error with code %v", err, err, code)
	}
	if e.Code() != code || e.Execution() != x {
		t.Fatalf("error is %v (%v), want code %v (%v)", e, e.Execution(), code, x)
	}
	return e
}
