package rpc_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// An adapter of another stub family, in small: the forms are those of grpc-go.
type (
	// clientConn is grpc.ClientConnInterface.
	clientConn struct {
		client  *rpc.Client
		methods map[string]*rpc.Method
	}
	// foreignClientStream is grpc.ClientStream.
	foreignClientStream struct {
		ctx    context.Context
		conn   *clientConn
		method *rpc.Method
		opts   []rpc.CallOption
		stream *rpc.Stream
	}
	// foreignServerStream is grpc.ServerStream.
	foreignServerStream struct {
		ctx    context.Context
		stream *rpc.Stream
	}
	// foreignMethod is grpc.MethodDesc or grpc.StreamDesc.
	foreignMethod struct {
		unary  func(ctx context.Context, dec func(any) error) (any, error)
		stream func(*foreignServerStream) error
	}
)

func (c *clientConn) Invoke(ctx context.Context, method string, args, reply any, opts ...rpc.CallOption) error {
	return c.methods[method].Call(ctx, c.client, args, reply, opts...)
}

// NewStream does not wait for a server if there is a request, which is not known yet.
func (c *clientConn) NewStream(ctx context.Context, method string, opts ...rpc.CallOption) (s *foreignClientStream, err error) {
	s = &foreignClientStream{ctx: ctx, conn: c, method: c.methods[method], opts: opts}
	if s.method.Kind() != rpc.KindServerStream {
		s.stream, err = s.method.Open(ctx, c.client, nil, opts...)
	}
	return s, err
}

func (s *foreignClientStream) SendMsg(m any) (err error) {
	if s.stream == nil {
		s.stream, err = s.method.Open(s.ctx, s.conn.client, m, s.opts...)
		return err
	}
	return s.stream.Send(m)
}

func (s *foreignClientStream) CloseSend() error                     { s.stream.CloseSend(); return nil }
func (s *foreignClientStream) RecvMsg(m any) error                  { return s.stream.Recv(m) }
func (s *foreignClientStream) Header() (map[string][]string, error) { return s.stream.Header(s.ctx) }
func (s *foreignClientStream) Trailer() map[string][]string         { return s.stream.Trailer() }
func (s *foreignServerStream) SendMsg(m any) error                  { return s.stream.Send(m) }
func (s *foreignServerStream) RecvMsg(m any) error                  { return s.stream.Recv(m) }
func (s *foreignServerStream) SetHeader(k, v string) {
	rpc.CallFromContext(s.ctx).ResponseHeader().Add(k, v)
}
func (s *foreignServerStream) SetTrailer(k, v string) {
	rpc.CallFromContext(s.ctx).ResponseTrailer().Add(k, v)
}
func (s *foreignServerStream) SendHeader() error { return rpc.CallFromContext(s.ctx).SendHeader() }

// registerForeign is grpc.ServiceRegistrar.
func registerForeign(s *rpc.Server, sd protoreflect.ServiceDescriptor, impl map[string]foreignMethod) (*clientConn, error) {
	desc := rpc.NewServiceDesc(sd)
	conn := &clientConn{methods: map[string]*rpc.Method{}}
	var handlers []rpc.Handler[map[string]foreignMethod]
	for i := range sd.Methods().Len() {
		md := sd.Methods().Get(i)
		m, err := rpc.NewMethod(desc, md, dynamicpb.NewMessageType(md.Input()), dynamicpb.NewMessageType(md.Output()))
		if err != nil {
			return nil, err
		}
		conn.methods[m.FullName()] = m
		handlers = append(handlers, rpc.HandleMethod(m, func(impl map[string]foreignMethod, ctx context.Context, s *rpc.Stream) error {
			f := impl[string(md.Name())]
			if f.stream != nil {
				return f.stream(&foreignServerStream{ctx, s})
			}
			res, err := f.unary(ctx, s.Recv)
			if err != nil || m.Kind() == rpc.KindOneWay {
				return err
			}
			return s.Send(res)
		}))
	}
	return conn, rpc.Register(s, desc, impl, nil, handlers...)
}

// TestAdapter: stubs and handlers of another family find all that they need in what is exported.
func TestAdapter(t *testing.T) {
	nc := rpctest.Connect(t)
	goOn := make(chan struct{})
	noted := make(chan string, 1)
	s := rpc.NewServer(nc)
	conn, err := registerForeign(s, echoFile(t), map[string]foreignMethod{
		"Do": {unary: func(ctx context.Context, dec func(any) error) (any, error) {
			in := new(text)
			if err := dec(in); err != nil {
				return nil, err
			}
			call := rpc.CallFromContext(ctx)
			call.ResponseHeader().Set("h", "1")
			call.ResponseTrailer().Set("t", "2")
			must(t, call.SendHeader()) // goes with the response
			if _, ok := ctx.Deadline(); ok || call.DeadlineBy() != rpc.DeadlineByNone {
				t.Errorf("a deadline by %v", call.DeadlineBy())
			}
			if err := dec(in); err != io.EOF || in.GetValue() == "" {
				t.Errorf("the second request is %v, %v", in, err)
			}
			if in.GetValue() == "fail" {
				return nil, rpc.NewError(rpc.CodeAborted, "no", wrapperspb.Int32(7))
			}
			return in, nil
		}},
		"Note": {unary: func(_ context.Context, dec func(any) error) (any, error) {
			in := new(text)
			defer func() { noted <- in.GetValue() }()
			return nil, dec(in)
		}},
		"Watch": {stream: func(s *foreignServerStream) error {
			in := new(text)
			if err := s.RecvMsg(in); err != nil {
				return err
			}
			s.SetHeader("h", "1")
			if err := s.SendHeader(); err != nil {
				return err
			}
			<-goOn
			s.SetTrailer("t", "2")
			return errors.Join(s.SendMsg(in), rpc.NewError(rpc.CodeAborted, "no"))
		}},
		"Gather": {stream: func(s *foreignServerStream) error {
			all := ""
			for {
				in := new(text)
				if err := s.RecvMsg(in); err == io.EOF {
					return s.SendMsg(wrapperspb.String(all))
				} else if err != nil {
					return err
				}
				all += in.GetValue()
			}
		}},
		"Chat": {stream: func(s *foreignServerStream) error {
			for in := new(text); ; {
				if err := s.RecvMsg(in); err == io.EOF {
					return nil
				} else if err != nil {
					return err
				}
				if err := s.SendMsg(in); err != nil {
					return err
				}
			}
		}},
	})
	must(t, err)
	startServer(t, s)
	conn.client = dial(t, nc, rpc.WithoutTimeout())
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	x, out := wrapperspb.String("x"), new(text)

	var h, trailer rpc.Header
	var instance string
	must(t, conn.Invoke(ctx, "/echo.v3.Echo/Do", x, out, rpc.ResponseHeader(&h), rpc.ResponseTrailer(&trailer), rpc.ResponseInstance(&instance)))
	if !proto.Equal(x, out) || h.Get("h") != "1" || trailer.Get("t") != "2" || instance == "" {
		t.Errorf("%v, header %v, trailer %v, instance %q", out, h, trailer, instance)
	}
	err = conn.Invoke(ctx, "/echo.v3.Echo/Do", wrapperspb.String("fail"), out, rpc.ResponseHeader(&h), rpc.ResponseTrailer(&trailer))
	detail, _ := rpc.Detail[*wrapperspb.Int32Value](err)
	if e := wantCode(t, err, rpc.CodeAborted, rpc.ExecutionDidRun); detail.GetValue() != 7 || e.Instance() != instance || trailer.Get("t") != "2" {
		t.Errorf("%v, detail %v, instance %q, trailer %v", err, detail, e.Instance(), trailer)
	}
	long := wrapperspb.String(strings.Repeat("x", 1000))
	err = conn.Invoke(ctx, "/echo.v3.Echo/Do", long, out, rpc.WithMaxReceiveSize(100))
	wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionDidRun)
	must(t, conn.Invoke(ctx, "/echo.v3.Echo/Note", x, nil))
	if got := <-noted; got != "x" {
		t.Errorf("noted %q", got)
	}

	watch, err := conn.NewStream(ctx, "/echo.v3.Echo/Watch", rpc.WithInstance(instance))
	must(t, err)
	must(t, watch.SendMsg(x))
	must(t, watch.CloseSend())
	// Before the first message:
	if h, err := watch.Header(); err != nil || rpc.Header(h).Get("h") != "1" {
		t.Errorf("header %v, %v", h, err)
	}
	close(goOn)
	must(t, watch.RecvMsg(out))
	wantCode(t, watch.RecvMsg(out), rpc.CodeAborted, rpc.ExecutionDidRun)
	if out.GetValue() != "x" || rpc.Header(watch.Trailer()).Get("t") != "2" || watch.stream.Instance() != instance {
		t.Errorf("%v, trailer %v, instance %q", out, watch.Trailer(), watch.stream.Instance())
	}

	for method, want := range map[string][]string{"/echo.v3.Echo/Gather": {"xx"}, "/echo.v3.Echo/Chat": {"x", "x"}} {
		s, err := conn.NewStream(ctx, method)
		must(t, err)
		must(t, s.SendMsg(x))
		must(t, s.SendMsg(x))
		must(t, s.CloseSend())
		for _, want := range want {
			if err := s.RecvMsg(out); err != nil || out.GetValue() != want {
				t.Errorf("%s: %v, %v", method, out, err)
			}
		}
		if err := s.RecvMsg(out); err != io.EOF {
			t.Errorf("%s: the end is %v", method, err)
		}
	}
}
