package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	inventoryv1 "github.com/natscall/natscall/gen/inventory/v1"
	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// echoFile is the .proto file of a service with a method of each shape, as a tool gets it at run
// time: nothing of it is linked.
func echoFile(t testing.TB) protoreflect.ServiceDescriptor {
	t.Helper()
	str := func(s string) *string { return &s }
	method := func(name string, client, server bool, options *descriptorpb.MethodOptions) *descriptorpb.MethodDescriptorProto {
		const text = ".google.protobuf.StringValue"
		return &descriptorpb.MethodDescriptorProto{
			Name: &name, InputType: str(text), OutputType: str(text), Options: options,
			ClientStreaming: &client, ServerStreaming: &server,
		}
	}
	oneWay := new(descriptorpb.MethodOptions)
	proto.SetExtension(oneWay, natscallv1.E_Method, &natscallv1.MethodOptions{OneWay: true, Subject: "echo.notes"})
	safe := &descriptorpb.MethodOptions{IdempotencyLevel: descriptorpb.MethodOptions_NO_SIDE_EFFECTS.Enum()}
	proto.SetExtension(safe, natscallv1.E_Method, &natscallv1.MethodOptions{Timeout: durationpb.New(7e9)})
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: str("echo.proto"), Package: str("echo.v3"), Syntax: str("proto3"),
		Dependency: []string{"google/protobuf/wrappers.proto"},
		Service: []*descriptorpb.ServiceDescriptorProto{{Name: str("Echo"), Method: []*descriptorpb.MethodDescriptorProto{
			method("Do", false, false, safe), method("Watch", false, true, nil), method("Gather", true, false, nil),
			method("Chat", true, true, nil), method("Note", false, false, oneWay),
		}}},
	}, protoregistry.GlobalFiles)
	must(t, err)
	return file.Services().Get(0)
}

// echoForm is how a side is written: with generated types, with a dynamic message, or with raw
// bytes.
type echoForm struct {
	name    string
	methods map[string]*rpc.Method // nil for generated types
	message func(text string, codec rpc.Codec) any
	empty   func() any
	text    func(m any) string
}

const generated = "generated"

// echoForms returns the three forms.
func echoForms(t testing.TB) []echoForm {
	sd := echoFile(t)
	desc := rpc.NewServiceDesc(sd)
	dynamic, raw := map[string]*rpc.Method{}, map[string]*rpc.Method{}
	for i := range sd.Methods().Len() {
		md := sd.Methods().Get(i)
		m, err := rpc.NewMethod(desc, md, dynamicpb.NewMessageType(md.Input()), dynamicpb.NewMessageType(md.Output()))
		must(t, err)
		dynamic[string(md.Name())] = m
		raw[string(md.Name())] = rpc.NewRawMethod(desc, m.Desc(), m.Kind())
	}
	str := sd.Methods().Get(0).Input()
	value := str.Fields().Get(0)
	return []echoForm{
		{name: generated},
		{"dynamic", dynamic,
			func(s string, _ rpc.Codec) any {
				m := dynamicpb.NewMessage(str)
				m.Set(value, protoreflect.ValueOfString(s))
				return m
			},
			func() any { return dynamicpb.NewMessage(str) },
			func(m any) string { return m.(*dynamicpb.Message).Get(value).String() }},
		{"raw", raw,
			func(s string, codec rpc.Codec) any { return &rpc.Raw{Codec: codec, Data: encodeText(s, codec)} },
			func() any { return new(rpc.Raw) },
			func(m any) string {
				var out text
				if err := m.(*rpc.Raw).Unmarshal(&out); err != nil {
					return err.Error()
				}
				return out.GetValue()
			}},
	}
}

func encodeText(s string, codec rpc.Codec) []byte {
	var data []byte
	if codec == rpc.CodecJSON {
		data, _ = protojson.Marshal(wrapperspb.String(s))
	} else {
		data, _ = proto.Marshal(wrapperspb.String(s))
	}
	return data
}

// The generated form.
var (
	anyDesc   = rpc.ServiceDesc{Name: "echo.v3.Echo", MicroName: "Echo", Version: "3.0.0"}
	anyDo     = rpc.NewUnaryMethod[text, text](&anyDesc, rpc.MethodDesc{Name: "Do", Idempotency: rpc.IdempotencyNoSideEffects})
	anyWatch  = rpc.NewServerStreamMethod[text, text](&anyDesc, rpc.MethodDesc{Name: "Watch"})
	anyGather = rpc.NewClientStreamMethod[text, text](&anyDesc, rpc.MethodDesc{Name: "Gather"})
	anyChat   = rpc.NewBidiMethod[text, text](&anyDesc, rpc.MethodDesc{Name: "Chat"})
	anyNote   = rpc.NewOneWayMethod[text](&anyDesc, rpc.MethodDesc{Name: "Note", Subject: "echo.notes"})
)

// echo is the implementation in any form.
type echo struct {
	form  echoForm
	notes chan string
}

func (e *echo) register(s *rpc.Server) error {
	if e.form.name == generated {
		return rpc.Register(s, &anyDesc, e, nil,
			rpc.HandleUnary(anyDo, func(_ *echo, ctx context.Context, req *text) (*text, error) {
				copyHeader(ctx)
				if err := fail(req.GetValue()); err != nil {
					return nil, err
				}
				return req, nil
			}),
			rpc.HandleServerStream(anyWatch, func(_ *echo, ctx context.Context, req *text, to *rpc.Sender[*text]) error {
				copyHeader(ctx)
				for range 3 {
					if err := to.Send(req); err != nil {
						return err
					}
				}
				return fail(req.GetValue())
			}),
			rpc.HandleClientStream(anyGather, func(_ *echo, ctx context.Context, from *rpc.Receiver[*text]) (*text, error) {
				copyHeader(ctx)
				return (&funcs{}).Gather(ctx, from)
			}),
			rpc.HandleBidi(anyChat, func(_ *echo, ctx context.Context, with *rpc.BidiStream[*text, *text]) error {
				copyHeader(ctx)
				return (&funcs{}).Chat(ctx, with)
			}),
			rpc.HandleOneWay(anyNote, func(e *echo, _ context.Context, req *text) error { e.notes <- req.GetValue(); return nil }),
		)
	}
	var handlers []rpc.Handler[*echo]
	for _, m := range e.form.methods {
		handlers = append(handlers, rpc.HandleMethod(m, func(e *echo, ctx context.Context, s *rpc.Stream) error { return e.serve(ctx, m, s) }))
	}
	return rpc.Register(s, e.form.methods["Do"].Service(), e, nil, handlers...)
}

// startServer starts a server until the test ends.
func startServer(t testing.TB, s *rpc.Server) {
	t.Helper()
	must(t, s.Start(testContext(t)))
	t.Cleanup(func() { shutdown(t, s) })
}

func copyHeader(ctx context.Context) {
	call := rpc.CallFromContext(ctx)
	call.ResponseHeader().Set("tenant", call.Header().Get("tenant"))
	call.ResponseTrailer().Set("cost", "3")
}

func fail(s string) error {
	if s == "fail" {
		return rpc.Errorf(rpc.CodeNotFound, "no %s", s)
	}
	return nil
}

// serve serves any method.
func (e *echo) serve(ctx context.Context, m *rpc.Method, s *rpc.Stream) error {
	copyHeader(ctx)
	var all []string
	var codec rpc.Codec
	for {
		in := e.form.empty()
		if err := s.Recv(in); err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		if raw, ok := in.(*rpc.Raw); ok {
			codec = raw.Codec
		}
		all = append(all, e.form.text(in))
		if m.Kind() == rpc.KindBidi {
			if err := s.Send(in); err != nil {
				return err
			}
		}
	}
	out := e.form.message(strings.Join(all, ""), codec)
	switch m.Kind() {
	case rpc.KindUnary, rpc.KindClientStream:
		if err := fail(all[0]); err != nil {
			return err
		}
		return s.Send(out)
	case rpc.KindOneWay:
		e.notes <- all[0]
	case rpc.KindServerStream:
		for range 3 {
			if err := s.Send(out); err != nil {
				return err
			}
		}
		return fail(all[0])
	}
	return nil
}

// echoClient calls the service in a form. Each method returns the texts that came, joined by
// commas.
type echoClient struct {
	form echoForm
	c    *rpc.Client
}

func (e echoClient) unary(ctx context.Context, in string, codec rpc.Codec, opts ...rpc.CallOption) (string, error) {
	if e.form.name == generated {
		res, err := anyDo.Call(ctx, e.c, wrapperspb.String(in), append(opts, rpc.WithCodec(codec))...)
		return res.GetValue(), err
	}
	res := e.form.empty()
	err := e.form.methods["Do"].Call(ctx, e.c, e.form.message(in, codec), res, append(opts, rpc.WithCodec(codec))...)
	if err != nil {
		return "", err
	}
	return e.form.text(res), nil
}

// once makes a unary call without options.
func (e echoClient) once(ctx context.Context, in string) error {
	if e.form.name == generated {
		_, err := anyDo.Call(ctx, e.c, wrapperspb.String(in))
		return err
	}
	return e.form.methods["Do"].Call(ctx, e.c, e.form.message(in, rpc.CodecProto), e.form.empty())
}

// pingPong sends a message and waits for the answer, n times.
func (e echoClient) pingPong(ctx context.Context, in string, n int) error {
	if e.form.name == generated {
		s, err := anyChat.Call(ctx, e.c)
		if err != nil {
			return err
		}
		defer s.Close()
		for range n {
			if err := s.Send(wrapperspb.String(in)); err != nil {
				return err
			}
			if _, err := s.Recv(); err != nil {
				return err
			}
		}
		return nil
	}
	s, err := e.form.methods["Chat"].Open(ctx, e.c, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	for range n {
		if err := s.Send(e.form.message(in, rpc.CodecProto)); err != nil {
			return err
		}
		if err := s.Recv(e.form.empty()); err != nil {
			return err
		}
	}
	return nil
}

func (e echoClient) watch(ctx context.Context, in string, codec rpc.Codec, opts ...rpc.CallOption) (string, rpc.Header, error) {
	opts = append(opts, rpc.WithCodec(codec))
	if e.form.name == generated {
		r, err := anyWatch.Call(ctx, e.c, wrapperspb.String(in), opts...)
		if err != nil {
			return "", nil, err
		}
		return drain(ctx, func() (string, error) { m, err := r.Recv(); return m.GetValue(), err }, r.Header)
	}
	s, err := e.form.methods["Watch"].Open(ctx, e.c, e.form.message(in, codec), opts...)
	if err != nil {
		return "", nil, err
	}
	return drain(ctx, e.recv(s), s.Header)
}

func (e echoClient) recv(s *rpc.Stream) func() (string, error) {
	return func() (string, error) {
		m := e.form.empty()
		if err := s.Recv(m); err != nil {
			return "", err
		}
		return e.form.text(m), nil
	}
}

func drain(ctx context.Context, recv func() (string, error), header func(context.Context) (rpc.Header, error)) (string, rpc.Header, error) {
	var all []string
	for {
		s, err := recv()
		if err != nil {
			h, headerErr := header(ctx)
			if err == io.EOF {
				err = nil
			}
			return strings.Join(all, ","), h, errors.Join(err, headerErr)
		}
		all = append(all, s)
	}
}

// twice sends twice, or until the server has ended the stream: how, what is received says.
func twice(send func() error) error {
	for range 2 {
		if err := send(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (e echoClient) gather(ctx context.Context, in string, codec rpc.Codec, opts ...rpc.CallOption) (string, error) {
	opts = append(opts, rpc.WithCodec(codec))
	if e.form.name == generated {
		s, err := anyGather.Call(ctx, e.c, opts...)
		if err != nil {
			return "", err
		}
		if err := twice(func() error { return s.Send(wrapperspb.String(in)) }); err != nil {
			return "", err
		}
		res, err := s.CloseAndRecv()
		return res.GetValue(), err
	}
	s, err := e.form.methods["Gather"].Open(ctx, e.c, nil, opts...)
	if err != nil {
		return "", err
	}
	if err := twice(func() error { return s.Send(e.form.message(in, codec)) }); err != nil {
		return "", err
	}
	s.CloseSend()
	got, _, err := drain(ctx, e.recv(s), s.Header)
	return got, err
}

func (e echoClient) chat(ctx context.Context, in string, codec rpc.Codec, opts ...rpc.CallOption) (string, error) {
	opts = append(opts, rpc.WithCodec(codec))
	if e.form.name == generated {
		s, err := anyChat.Call(ctx, e.c, opts...)
		if err != nil {
			return "", err
		}
		if err := twice(func() error { return s.Send(wrapperspb.String(in)) }); err != nil {
			return "", err
		}
		s.CloseSend()
		got, _, err := drain(ctx, func() (string, error) { m, err := s.Recv(); return m.GetValue(), err }, s.Header)
		return got, err
	}
	s, err := e.form.methods["Chat"].Open(ctx, e.c, nil, opts...)
	if err != nil {
		return "", err
	}
	if err := twice(func() error { return s.Send(e.form.message(in, codec)) }); err != nil {
		return "", err
	}
	s.CloseSend()
	got, _, err := drain(ctx, e.recv(s), s.Header)
	return got, err
}

func (e echoClient) note(ctx context.Context, in string, codec rpc.Codec) error {
	if e.form.name == generated {
		return anyNote.Call(ctx, e.c, wrapperspb.String(in), rpc.WithCodec(codec))
	}
	return e.form.methods["Note"].Call(ctx, e.c, e.form.message(in, codec), nil)
}

// TestUntyped: generated, dynamic and raw clients talk to generated, dynamic and raw servers, in
// every shape, codec, compression and size.
func TestUntyped(t *testing.T) {
	forms := echoForms(t)
	for _, serverForm := range forms {
		for _, clientForm := range forms {
			t.Run(clientForm.name+" to "+serverForm.name, func(t *testing.T) {
				srv := rpctest.NewServer(t)
				impl := &echo{serverForm, make(chan string, 1)}
				s := rpc.NewServer(srv.Connect())
				must(t, impl.register(s))
				startServer(t, s)
				e := echoClient{clientForm, dial(t, srv.Connect())}
				for _, codec := range []rpc.Codec{rpc.CodecProto, rpc.CodecJSON} {
					for _, compression := range []rpc.Compression{rpc.CompressionNone, rpc.CompressionGzip, rpc.CompressionZstd} {
						for _, size := range []int{3, 10_000, 1<<20 + 1} {
							if size > 1<<20 && compression+rpc.Compression(codec) != 0 {
								continue // encoding so much takes long
							}
							t.Run(fmt.Sprintf("%v, %v, %d bytes", codec, compression, size), func(t *testing.T) {
								everyEcho(t, e, strings.Repeat("a", size), codec, rpc.WithCompression(compression))
							})
						}
					}
					t.Run(fmt.Sprintf("%v, plain", codec), func(t *testing.T) {
						got, err := e.unary(testContext(t), "abc", codec, rpc.WithPlainRequests())
						if err != nil || got != "abc" {
							t.Errorf("%q, %v", got, err)
						}
					})
					t.Run(fmt.Sprintf("%v, one-way", codec), func(t *testing.T) {
						must(t, e.note(testContext(t), "abc", codec))
						if got := <-impl.notes; got != "abc" {
							t.Errorf("%q", got)
						}
					})
					t.Run(fmt.Sprintf("%v, errors", codec), func(t *testing.T) {
						_, err := e.unary(testContext(t), "fail", codec)
						wantText(t, wantCode(t, err, rpc.CodeNotFound, rpc.ExecutionDidRun), "no fail")
						got, _, err := e.watch(testContext(t), "fail", codec)
						if rpc.CodeOf(err) != rpc.CodeNotFound || got != "fail,fail,fail" {
							t.Errorf("%q, %v", got, err)
						}
					})
				}
			})
		}
	}
}

func everyEcho(t *testing.T, e echoClient, in string, codec rpc.Codec, opts ...rpc.CallOption) {
	ctx := testContext(t)
	opts = append(opts, rpc.WithHeader("tenant", "acme"))
	var h, trailer rpc.Header
	same := func(shape, got, want string, err error) {
		t.Helper()
		if err != nil || got != want {
			t.Errorf("%s: %d bytes, want %d; %v", shape, len(got), len(want), err)
		}
	}
	got, err := e.unary(ctx, in, codec, append(opts, rpc.ResponseHeader(&h), rpc.ResponseTrailer(&trailer))...)
	same("unary", got, in, err)
	if h.Get("tenant") != "acme" || trailer.Get("cost") != "3" {
		t.Errorf("header %v, trailer %v", h, trailer)
	}
	got, h, err = e.watch(ctx, in, codec, opts...)
	same("server stream", got, in+","+in+","+in, err)
	if h.Get("tenant") != "acme" {
		t.Errorf("header %v", h)
	}
	got, err = e.gather(ctx, in, codec, opts...)
	same("client stream", got, in+in, err)
	got, err = e.chat(ctx, in, codec, opts...)
	same("bidirectional", got, in+","+in, err)
}

// TestUntypedGather: the rows of a gathering are of the kind that was asked for.
func TestUntypedGather(t *testing.T) {
	for _, form := range echoForms(t)[1:] {
		srv := rpctest.NewServer(t)
		for range 2 {
			s := rpc.NewServer(srv.Connect())
			must(t, (&echo{form: form}).register(s))
			startServer(t, s)
		}
		c := dial(t, srv.Connect())
		for _, codec := range []rpc.Codec{rpc.CodecProto, rpc.CodecJSON} {
			rows := 0
			g := form.methods["Do"].Gather(testContext(t), c, form.message("abc", codec), form.empty, rpc.WithCallOptions(rpc.WithCodec(codec)))
			for row := range g.All() {
				rows++
				if row.Err != nil || form.text(row.Response) != "abc" {
					t.Errorf("%s: %v, %v", form.name, row.Response, row.Err)
				}
			}
			if rows != 2 {
				t.Errorf("%s, %v: %d rows, %+v", form.name, codec, rows, g.Result())
			}
		}
		for name, g := range map[string]*rpc.Gathering[any]{
			"stream":      form.methods["Watch"].Gather(testContext(t), c, form.message("x", 0), form.empty),
			"no request":  form.methods["Do"].Gather(testContext(t), c, nil, form.empty),
			"no response": form.methods["Do"].Gather(testContext(t), c, form.message("x", 0), func() any { return nil }),
		} {
			for range g.All() {
				t.Errorf("%s: a row", name)
			}
			wantCode(t, g.Result().Err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun)
		}
	}
}

// TestUntypedMisuse: what cannot be sent or filled is refused, and named.
func TestUntypedMisuse(t *testing.T) {
	nc := rpctest.Connect(t)
	forms := echoForms(t)
	s := rpc.NewServer(nc)
	must(t, (&echo{form: forms[0]}).register(s))
	startServer(t, s)
	c := dial(t, nc)
	ctx := testContext(t)
	dynamic, raw := forms[1].methods, forms[2].methods
	ok, res := forms[1].message("x", 0), forms[1].empty()
	stream, err := dynamic["Chat"].Open(ctx, c, nil)
	must(t, err)
	watching, err := dynamic["Watch"].Open(ctx, c, ok)
	must(t, err)
	var nilRaw *rpc.Raw
	for _, test := range []struct {
		name, text string
		err        error
	}{
		{"no request", "the request: it is nil", dynamic["Do"].Call(ctx, c, nil, res)},
		{"nil request", "the request: it is nil", raw["Do"].Call(ctx, c, nilRaw, new(rpc.Raw))},
		{"no response", "the response: it is nil", dynamic["Do"].Call(ctx, c, ok, nil)},
		{"another type", "the request: it is a google.protobuf.BytesValue, not a google.protobuf.StringValue", dynamic["Do"].Call(ctx, c, wrapperspb.Bytes(nil), res)},
		{"another response", "the response: it is a google.protobuf.BytesValue", dynamic["Do"].Call(ctx, c, ok, new(bytes))},
		{"no message", "the request: a string is neither a proto.Message nor a *rpc.Raw", dynamic["Do"].Call(ctx, c, "x", res)},
		{"another codec", "it is in json, and the call in protobuf", raw["Do"].Call(ctx, c, &rpc.Raw{Codec: rpc.CodecJSON}, new(rpc.Raw), rpc.WithCodec(rpc.CodecProto))},
		{"no such codec", "there is no such codec", raw["Do"].Call(ctx, c, &rpc.Raw{Codec: 9}, new(rpc.Raw))},
		{"Call of a stream", "it is a bidi_stream method: Open opens", dynamic["Chat"].Call(ctx, c, ok, res)},
		{"Open of a unary method", "it is a unary method: Call calls", openError(dynamic["Do"].Open(ctx, c, ok))},
		{"Open with a request", "its requests are sent on the stream", openError(dynamic["Chat"].Open(ctx, c, ok))},
		{"Open without a request", "the request: it is nil", openError(dynamic["Watch"].Open(ctx, c, nil))},
		{"no client", "the *rpc.Client is nil", dynamic["Do"].Call(ctx, nil, ok, res)},
		{"Send of another type", "the message: it is a google.protobuf.BytesValue", stream.Send(wrapperspb.Bytes(nil))},
		{"Send(nil)", "the message: it is nil", stream.Send(nil)},
		{"Recv(nil)", "Recv: what to fill: it is nil", stream.Recv(nil)},
		{"Recv into no message", "what to fill: a string is neither a proto.Message nor a *rpc.Raw", stream.Recv("x")},
		{"Recv into another type", "what to fill: it is a google.protobuf.BytesValue", stream.Recv(new(bytes))},
	} {
		t.Run(test.name, func(t *testing.T) {
			if rpc.CodeOf(test.err) != rpc.CodeInvalidArgument {
				t.Errorf("%v", test.err)
			}
			wantText(t, test.err, test.text)
		})
	}
	if err := watching.Send(ok); rpc.CodeOf(err) != rpc.CodeFailedPrecondition {
		t.Errorf("Send on a server stream is %v", err)
	}
	must(t, stream.Send(ok)) // it goes on
	must(t, stream.Recv(res))
	stream.CloseSend()
	if err := stream.Recv(res); err != io.EOF || forms[1].text(res) != "x" {
		t.Errorf("the end is %v and leaves %q of the last message", err, forms[1].text(res))
	}
}

// TestUntypedHandlerMisuse: what a handler does wrong is an error of the server, which names it,
// and the call goes on.
func TestUntypedHandlerMisuse(t *testing.T) {
	forms := echoForms(t)
	dynamic := forms[1]
	other := new(bytes)
	errs := make(chan error, 10)
	reports := func(f func(s *rpc.Stream)) func(*echo, context.Context, *rpc.Stream) error {
		return func(_ *echo, _ context.Context, s *rpc.Stream) error {
			defer func() { errs <- nil }()
			f(s)
			return s.Send(dynamic.message("done", 0))
		}
	}
	use := reports(func(s *rpc.Stream) {
		for _, m := range []any{nil, (*rpc.Raw)(nil), "x", other} {
			errs <- s.Recv(m)
			errs <- s.Send(m)
		}
		in := dynamic.empty()
		if err := s.Recv(in); err != nil || dynamic.text(in) != "x" {
			t.Errorf("%v, %v", in, err)
		}
	})
	nc := rpctest.Connect(t)
	s := rpc.NewServer(nc)
	must(t, rpc.Register(s, dynamic.methods["Do"].Service(), new(echo), nil,
		rpc.HandleMethod(dynamic.methods["Do"], use), rpc.HandleMethod(dynamic.methods["Watch"], use),
		rpc.HandleMethod(dynamic.methods["Gather"], use), rpc.HandleMethod(dynamic.methods["Chat"], use)))
	startServer(t, s)
	e := echoClient{forms[0], dial(t, nc)}
	for shape, call := range map[string]func() (string, error){
		"unary":         func() (string, error) { return e.unary(testContext(t), "x", 0) },
		"server stream": func() (string, error) { got, _, err := e.watch(testContext(t), "x", 0); return got, err },
		"client stream": func() (string, error) { return e.gather(testContext(t), "x", 0) },
		"bidirectional": func() (string, error) { return e.chat(testContext(t), "x", 0) },
	} {
		got, err := call()
		if err != nil || got != "done" {
			t.Errorf("%s: %q, %v", shape, got, err)
		}
		for range 8 {
			err := wantCode(t, <-errs, rpc.CodeInternal, rpc.ExecutionDidRun)
			wantText(t, err, "/echo.v3.Echo/")
		}
		if err := <-errs; err != nil {
			t.Errorf("%s: %v", shape, err)
		}
	}
}

// TestUntypedHandlerTwice: an interceptor may run a handler again, or answer in its place, and
// finds no response after an error.
func TestUntypedHandlerTwice(t *testing.T) {
	for _, form := range echoForms(t) {
		nc := rpctest.Connect(t)
		s := rpc.NewServer(nc, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
			call.SetResponse(wrapperspb.String("an interceptor's"))
			if err := next(ctx, call); err != nil {
				if call.Response() != nil {
					t.Errorf("%s: after an error the response is %v", form.name, call.Response())
				}
				return err
			}
			if call.Response() == nil && form.name != "raw" {
				t.Errorf("%s: no response", form.name)
			}
			return next(ctx, call)
		}))
		must(t, (&echo{form: form}).register(s))
		startServer(t, s)
		e := echoClient{form, dial(t, nc)}
		if got, err := e.unary(testContext(t), "x", 0); err != nil || got != "x" {
			t.Errorf("%s: %q, %v", form.name, got, err)
		}
		_, err := e.unary(testContext(t), "fail", 0)
		wantCode(t, err, rpc.CodeNotFound, rpc.ExecutionDidRun)
	}
	failing := func(_ *echo, _ context.Context, s *rpc.Stream) error {
		if err := s.Send(wrapperspb.String("half")); err != nil {
			return err
		}
		return rpc.NewError(rpc.CodeAborted, "no")
	}
	nc := rpctest.Connect(t)
	var response any
	s := rpc.NewServer(nc, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		err := next(ctx, call)
		response = call.Response()
		return err
	}))
	do := echoForms(t)[1].methods["Do"]
	must(t, rpc.Register(s, do.Service(), new(echo), nil, rpc.HandleMethod(do, failing)))
	startServer(t, s)
	err := do.Call(testContext(t), dial(t, nc), wrapperspb.String("x"), new(text))
	wantCode(t, err, rpc.CodeAborted, rpc.ExecutionDidRun)
	if response != nil {
		t.Errorf("after an error the response is %v", response)
	}
}

func openError(_ *rpc.Stream, err error) error { return err }

// TestUntypedOnlyResponse: a client stream has one response, whatever the server sends.
func TestUntypedOnlyResponse(t *testing.T) {
	nc := rpctest.Connect(t)
	desc := &rpc.ServiceDesc{Name: "x.v1.X", MicroName: "X", Version: "1.0.0"}
	method := func(kind rpc.Kind) *rpc.Method { return rpc.NewRawMethod(desc, rpc.MethodDesc{Name: "Do"}, kind) }
	responses := 0
	s := rpc.NewServer(nc)
	must(t, rpc.Register(s, desc, 0, nil, rpc.HandleMethod(method(rpc.KindBidi), func(_ int, ctx context.Context, s *rpc.Stream) error {
		if h, err := s.Header(ctx); err != nil || h.Get("tenant") != "acme" || s.Trailer() != nil || s.Instance() != "" {
			t.Errorf("the handler's header is %v, %v", h, err)
		}
		s.Close() // does nothing
		s.CloseSend()
		for range responses {
			if err := s.Send(&rpc.Raw{Codec: rpc.CallFromContext(ctx).Peer().Codec, Data: []byte("x")}); err != nil {
				return err
			}
		}
		return nil
	})))
	startServer(t, s)
	c := dial(t, nc)
	for responses = range 3 {
		s, err := method(rpc.KindClientStream).Open(testContext(t), c, nil, rpc.WithHeader("tenant", "acme"), rpc.WithCodec(rpc.CodecJSON))
		must(t, err)
		s.CloseSend()
		var res rpc.Raw
		err = s.Recv(&res)
		if responses == 1 {
			if err != nil || string(res.Data) != "x" || res.Codec != rpc.CodecJSON {
				t.Errorf("%v, %v", res, err)
			}
			if err := s.Recv(&res); err != io.EOF {
				t.Errorf("the end is %v", err)
			}
			continue
		}
		wantText(t, wantCode(t, err, rpc.CodeInternal, rpc.ExecutionDidRun), []string{"ended without a message", "", "a second message came"}[responses])
	}
}

// TestUntypedInterceptors: interceptors see the messages of untyped calls decoded, where their
// types are known, and may answer in any of their forms.
func TestUntypedInterceptors(t *testing.T) {
	srv := rpctest.NewServer(t)
	forms := echoForms(t)
	s := rpc.NewServer(srv.Connect(), rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		if call.Header().Get("by") == "server" {
			call.SetResponse(wrapperspb.String("set"))
			return nil
		}
		return next(ctx, call)
	}))
	must(t, (&echo{form: forms[0]}).register(s))
	startServer(t, s)
	value := func(m proto.Message) string {
		if m == nil {
			return "nothing"
		}
		return protoText(m)
	}
	ofMessage := func(m *rpc.Message) string {
		p, err := m.Proto()
		if err != nil {
			return rpc.CodeOf(err).String()
		}
		return value(p)
	}
	typed := echoForm{"typed raw", forms[1].methods, forms[2].message, forms[2].empty, forms[2].text}
	for _, form := range []echoForm{forms[1], forms[2], typed} {
		var seen []string
		see := func(what, s string) { seen = append(seen, what+" "+s) }
		c := dial(t, srv.Connect(), rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
			call.OnSend(func(m *rpc.Message) error { see("send", ofMessage(m)); return nil })
			call.OnSent(func(m *rpc.Message, err error) { see("sent", ofMessage(m)) })
			call.OnReceive(func(m *rpc.Message) error { see("receive", ofMessage(m)+ofMessage(m)); return nil })
			req, err := call.Request()
			if err != nil {
				see("request", rpc.CodeOf(err).String())
			} else {
				see("request", value(req))
			}
			switch call.Header().Get("by") {
			case "client":
				call.SetResponse(wrapperspb.String("set"))
				return nil
			case "other type":
				call.SetResponse(wrapperspb.Bytes(nil))
				return nil
			}
			err = next(ctx, call)
			see("response", value(call.Response()))
			return err
		}))
		for _, codec := range []rpc.Codec{rpc.CodecProto, rpc.CodecJSON} {
			for by, want := range map[string]string{"": "a", "client": "set", "server": "set"} {
				seen = nil
				got, err := echoClient{form, c}.unary(testContext(t), "a", codec, rpc.WithHeader("by", by))
				if err != nil || got != want {
					t.Errorf("%s, %v, by %q: %q, %v", form.name, codec, by, got, err)
				}
				all := fmt.Sprintf("[request a send a sent a receive %s%[1]s response %[1]s]", want)
				switch {
				case form.name == "raw" && by == "client":
					all = "[request unimplemented]"
				case by == "client":
					all = "[request a]"
				case form.name == "raw":
					all = "[request unimplemented send unimplemented sent unimplemented receive unimplementedunimplemented response nothing]"
				}
				if fmt.Sprint(seen) != all {
					t.Errorf("%s, %v, by %q: the interceptor saw %s, want %s", form.name, codec, by, seen, all)
				}
			}
		}
		_, err := echoClient{form, c}.unary(testContext(t), "a", rpc.CodecProto, rpc.WithHeader("by", "other type"))
		if form.name != "raw" { // where the type is not known
			wantText(t, wantCode(t, err, rpc.CodeInternal, rpc.ExecutionNotRun), "an interceptor ended the call without a response")
		}
	}
}

// TestDynamicResponseOfInterceptor: an interceptor of the server may answer a call of generated
// code with a dynamic message, one of its client may not, since the caller has a type.
func TestDynamicResponseOfInterceptor(t *testing.T) {
	srv := rpctest.NewServer(t)
	dynamic := echoForms(t)[1]
	answer := rpc.WithInterceptors(func(_ context.Context, call *rpc.Call, _ rpc.Next) error {
		call.SetResponse(dynamic.message("set", 0).(proto.Message))
		return nil
	})
	s := rpc.NewServer(srv.Connect(), answer)
	must(t, (&echo{form: echoForms(t)[0]}).register(s))
	startServer(t, s)
	res, err := anyDo.Call(testContext(t), dial(t, srv.Connect()), hello)
	if err != nil || res.GetValue() != "set" {
		t.Errorf("%v, %v", res, err)
	}
	_, err = anyDo.Call(testContext(t), dial(t, srv.Connect(), answer), hello)
	wantCode(t, err, rpc.CodeInternal, rpc.ExecutionNotRun)
	wantText(t, errors.Unwrap(err), "response is a *dynamicpb.Message, not a *wrapperspb.StringValue")
}

// TestRawMessagesOfHooks: raw messages are decoded as what they are, requests or responses, on
// either side.
func TestRawMessagesOfHooks(t *testing.T) {
	var mu sync.Mutex
	var seen []string
	see := func(what string, m proto.Message, err error) {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			what += " " + err.Error()
		} else {
			what += " " + string(m.ProtoReflect().Descriptor().Name())
		}
		if !slices.Contains(seen, what) {
			seen = append(seen, what)
		}
	}
	intercept := rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		side := fmt.Sprint(call.OnServer())
		call.OnSend(func(m *rpc.Message) error { p, err := m.Proto(); see(side+" send", p, err); return nil })
		call.OnReceive(func(m *rpc.Message) error { p, err := m.Proto(); see(side+" receive", p, err); return nil })
		err := next(ctx, call)
		if call.Kind() == rpc.KindUnary {
			req, reqErr := call.Request()
			see(side+" request", req, reqErr)
			see(side+" response", call.Response(), nil)
		}
		return err
	})
	sd := inventoryv1.File_inventory_v1_inventory_proto.Services().ByName("InventoryService")
	desc := rpc.NewServiceDesc(sd)
	method := func(name protoreflect.Name) *rpc.Method {
		md := sd.Methods().ByName(name)
		m, err := rpc.NewMethod(desc, md, dynamicpb.NewMessageType(md.Input()), dynamicpb.NewMessageType(md.Output()))
		must(t, err)
		return m
	}
	unary, stream, upload := method("GetStock"), method("WatchStock"), method("ImportStock")
	echo := func(_ int, _ context.Context, s *rpc.Stream) error {
		var m rpc.Raw
		return errors.Join(s.Recv(&m), s.Send(&m))
	}
	nc := rpctest.Connect(t)
	s := rpc.NewServer(nc, intercept)
	must(t, rpc.Register(s, desc, 0, nil, rpc.HandleMethod(unary, echo), rpc.HandleMethod(stream, echo), rpc.HandleMethod(upload, echo)))
	startServer(t, s)
	c, ctx := dial(t, nc, intercept), testContext(t)
	var res rpc.Raw
	for m, kinds := range map[*rpc.Method]string{unary: "GetStock", stream: "WatchStock", upload: "ImportStock"} {
		seen = nil
		if m == unary {
			must(t, m.Call(ctx, c, new(rpc.Raw), &res))
		} else {
			var req any
			if m == stream {
				req = new(rpc.Raw)
			}
			open, err := m.Open(ctx, c, req)
			must(t, err)
			if req == nil {
				must(t, open.Send(new(rpc.Raw)))
				open.CloseSend()
			}
			for err == nil {
				err = open.Recv(&res)
			}
			if err != io.EOF {
				t.Errorf("%s: the end is %v", kinds, err)
			}
		}
		want := []string{"false receive ?Response", "false send ?Request", "true receive ?Request", "true send ?Response"}
		if m == unary {
			want = append(want, "false request ?Request", "false response ?Response", "true request ?Request", "true response ?Response")
		}
		slices.Sort(want)
		mu.Lock()
		slices.Sort(seen)
		if got := strings.Join(seen, "\n"); got != strings.ReplaceAll(strings.Join(want, "\n"), "?", kinds) {
			t.Errorf("%s: the hooks saw\n%s", kinds, got)
		}
		mu.Unlock()
	}
}

// TestUntypedServerHooks: the hooks of a server run for untyped handlers as for generated ones, and
// refuse the only request before the handler has it.
func TestUntypedServerHooks(t *testing.T) {
	log := newHookLog()
	seen := make(chan string, 10)
	refuse := func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.OnReceive(func(m *rpc.Message) error {
			p, err := m.Proto()
			if rpc.CodeOf(err) == rpc.CodeUnimplemented {
				seen <- "?"
			} else {
				seen <- protoText(p)
			}
			if call.Header().Get("refuse") != "" {
				return rpc.NewError(rpc.CodePermissionDenied, "no")
			}
			return nil
		})
		return next(ctx, call)
	}
	for _, form := range echoForms(t)[1:] {
		srv := rpctest.NewServer(t)
		s := rpc.NewServer(srv.Connect(), rpc.WithInterceptors(log.intercept, refuse))
		must(t, (&echo{form: form}).register(s))
		startServer(t, s)
		e := echoClient{echoForms(t)[0], dial(t, srv.Connect())}
		const received = "received 0: 3 bytes, all on the wire\n"
		sent := func(n int) string { return fmt.Sprintf("send %d\nsent %[1]d: 3 bytes, all on the wire, ok\n", n) }
		for shape, test := range map[string]struct {
			call  func(opts ...rpc.CallOption) error
			lines string
		}{
			"unary": {func(o ...rpc.CallOption) error { _, err := e.unary(testContext(t), "x", 0, o...); return err },
				received + sent(0) + "end: ok"},
			"server stream": {func(o ...rpc.CallOption) error { _, _, err := e.watch(testContext(t), "x", 0, o...); return err },
				received + sent(0) + sent(1) + sent(2) + "end: ok"},
		} {
			must(t, test.call())
			if got, _ := log.take(t); got != test.lines {
				t.Errorf("%s, %s: got\n%s\nwant\n%s", form.name, shape, got, test.lines)
			}
			want := "x"
			if form.name == "raw" {
				want = "?"
			}
			if got := <-seen; got != want {
				t.Errorf("%s, %s: OnReceive saw %s", form.name, shape, got)
			}
			wantCode(t, test.call(rpc.WithHeader("refuse", "1")), rpc.CodePermissionDenied, rpc.ExecutionDidRun)
			<-seen
			log.take(t)
		}
	}
}

// protoText is the text of a google.protobuf.StringValue, dynamic or not.
func protoText(m proto.Message) string {
	return m.ProtoReflect().Get(m.ProtoReflect().Descriptor().Fields().Get(0)).String()
}

// TestUntypedReplaces: what is received replaces all that a message has, on either side.
func TestUntypedReplaces(t *testing.T) {
	old := func() *text {
		m := wrapperspb.String("old")
		m.ProtoReflect().SetUnknown(protoreflect.RawFields{15 << 3, 1})
		return m
	}
	empty := func(where string, m *text) {
		t.Helper()
		if proto.Size(m) != 0 {
			t.Errorf("%s: the message is %v", where, m)
		}
	}
	methods := echoForms(t)[1].methods
	serve := func(_ *echo, _ context.Context, s *rpc.Stream) error {
		m := old()
		if err := s.Recv(m); err != nil {
			return err
		}
		empty("a handler", m)
		return s.Send(m)
	}
	var handlers []rpc.Handler[*echo]
	for _, name := range []string{"Do", "Watch", "Gather", "Chat"} {
		handlers = append(handlers, rpc.HandleMethod(methods[name], serve))
	}
	nc := rpctest.Connect(t)
	s := rpc.NewServer(nc)
	must(t, rpc.Register(s, methods["Do"].Service(), new(echo), nil, handlers...))
	startServer(t, s)
	c, ctx := dial(t, nc), testContext(t)
	m := old()
	must(t, methods["Do"].Call(ctx, c, new(text), m))
	empty("Call", m)
	for name, req := range map[string]any{"Watch": new(text), "Gather": nil, "Chat": nil} {
		s, err := methods[name].Open(ctx, c, req)
		must(t, err)
		if req == nil {
			must(t, s.Send(new(text)))
		}
		m := old()
		must(t, s.Recv(m))
		empty(name, m)
		s.Close()
	}
	m = old()
	must(t, new(rpc.Raw).Unmarshal(m))
	empty("Unmarshal", m)
}

// TestUntypedSendsOnce: a handler with one response sends one, and that of a one-way method none.
func TestUntypedSendsOnce(t *testing.T) {
	nc := rpctest.Connect(t)
	methods := echoForms(t)[1].methods
	errs := make(chan error, 3)
	twice := func(_ *echo, _ context.Context, s *rpc.Stream) error {
		for err := error(nil); err != io.EOF; err = s.Recv(new(rpc.Raw)) {
			must(t, err)
		}
		errs <- s.Send(wrapperspb.String("a"))
		errs <- s.Send(wrapperspb.String("b"))
		return nil
	}
	s := rpc.NewServer(nc)
	must(t, rpc.Register(s, methods["Do"].Service(), new(echo), nil, rpc.HandleMethod(methods["Do"], twice),
		rpc.HandleMethod(methods["Gather"], twice), rpc.HandleMethod(methods["Note"], twice)))
	startServer(t, s)
	e := echoClient{echoForms(t)[0], dial(t, nc)}
	for _, call := range []func() (string, error){
		func() (string, error) { return e.unary(testContext(t), "x", 0) },
		func() (string, error) { return e.gather(testContext(t), "x", 0) },
	} {
		if got, err := call(); err != nil || got != "a" {
			t.Errorf("%q, %v", got, err)
		}
		must(t, <-errs)
		wantText(t, wantCode(t, <-errs, rpc.CodeInternal, rpc.ExecutionDidRun), "there is one response, and it has been sent")
	}
	must(t, e.note(testContext(t), "x", 0))
	for range 2 {
		wantText(t, wantCode(t, <-errs, rpc.CodeInternal, rpc.ExecutionDidRun), "it has no response")
	}
}

// TestUntypedDescriptions: a method is what its descriptor says, and nothing that does not fit.
func TestUntypedDescriptions(t *testing.T) {
	sd := echoFile(t)
	desc := rpc.NewServiceDesc(sd)
	if desc.Name != "echo.v3.Echo" || desc.MicroName != "Echo" || desc.Version != "3.0.0" || desc.File != sd.ParentFile() {
		t.Errorf("%+v", desc)
	}
	methods := echoForms(t)[1].methods
	for name, want := range map[string]struct {
		kind    rpc.Kind
		subject string
	}{"Do": {rpc.KindUnary, ""}, "Watch": {rpc.KindServerStream, ""}, "Gather": {rpc.KindClientStream, ""}, "Chat": {rpc.KindBidi, ""}, "Note": {rpc.KindOneWay, "echo.notes"}} {
		m := methods[name]
		if m.Kind() != want.kind || m.Desc().Subject != want.subject || m.FullName() != "/echo.v3.Echo/"+name {
			t.Errorf("%s is %v, %+v", m.FullName(), m.Kind(), m.Desc())
		}
	}
	if d := methods["Do"].Desc(); d.Idempotency != rpc.IdempotencyNoSideEffects || d.Timeout.Seconds() != 7 {
		t.Errorf("Do: %+v", d)
	}
	md := sd.Methods().Get(0)
	str, blob := dynamicpb.NewMessageType(md.Input()), (&bytes{}).ProtoReflect().Type()
	for text, new := range map[string]func() (*rpc.Method, error){
		"the type of the request is not":        func() (*rpc.Method, error) { return rpc.NewMethod(desc, md, blob, str) },
		"the type of the response is not":       func() (*rpc.Method, error) { return rpc.NewMethod(desc, md, str, nil) },
		"the description is of another service": func() (*rpc.Method, error) { return rpc.NewMethod(&testDesc, md, str, str) },
	} {
		_, err := new()
		wantText(t, err, text)
	}
}

// TestUntypedPlainStream: an untyped handler streams to a plain NATS client.
func TestUntypedPlainStream(t *testing.T) {
	for _, form := range echoForms(t) {
		nc := rpctest.Connect(t)
		impl := &echo{form, make(chan string, 1)}
		s := rpc.NewServer(nc)
		must(t, impl.register(s))
		startServer(t, s)
		inbox, err := nc.SubscribeSync(nc.NewInbox())
		must(t, err)
		must(t, nc.PublishMsg(&nats.Msg{Subject: "echo.v3.Echo.Watch", Reply: inbox.Subject, Data: []byte(`"abc"`),
			Header: nats.Header{"Content-Type": []string{"application/json"}}}))
		for i := range 4 {
			m, err := inbox.NextMsgWithContext(testContext(t))
			must(t, err)
			if want := [...]string{`"abc"`, `"abc"`, `"abc"`, ""}[i]; string(m.Data) != want {
				t.Errorf("%s: message %d is %q", form.name, i, m.Data)
			}
		}
	}
}
