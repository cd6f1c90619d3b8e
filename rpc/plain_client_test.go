package rpc_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nats.go/micro"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

// serveByHand runs a micro service on the subjects of the test service, as
// somebody without natscall would write it: in Protobuf, or in JSON.
func serveByHand(t testing.TB, nc *nats.Conn, handler func(micro.Request, string)) {
	t.Helper()
	svc, err := micro.AddService(nc, micro.Config{Name: "ByHand", Version: "1.0.0"})
	must(t, err)
	t.Cleanup(func() { must(t, svc.Stop()) })
	must(t, svc.AddEndpoint("Do", micro.HandlerFunc(func(r micro.Request) {
		in := new(wrapperspb.StringValue)
		decode := proto.Unmarshal
		if r.Headers().Get("Content-Type") == "application/json" {
			decode = protojson.Unmarshal
		}
		if err := decode(r.Data(), in); err != nil {
			_ = r.Error("400", "cannot read: "+err.Error(), nil)
			return
		}
		handler(r, in.GetValue())
	}), micro.WithEndpointSubject(doSubject)))
}

// answer answers in the codec of the request.
func answer(r micro.Request, text string) {
	encode := proto.Marshal
	if r.Headers().Get("Content-Type") == "application/json" {
		encode = protojson.Marshal
	}
	b, _ := encode(wrapperspb.String(text))
	_ = r.Respond(b, micro.WithHeaders(micro.Headers{"region": {"eu"}}))
}

func TestPlainRequestsToMicro(t *testing.T) {
	nc := rpctest.Connect(t)
	serveByHand(t, nc, func(r micro.Request, in string) {
		answer(r, in+" within "+r.Headers().Get("Natscall-Timeout"))
	})
	for _, codec := range []rpc.Codec{rpc.CodecProto, rpc.CodecJSON} {
		t.Run(codec.String(), func(t *testing.T) {
			var h rpc.Header
			got, err := do(testContext(t), dial(t, nc, rpc.WithPlainRequests(), rpc.WithCodec(codec)), "hello", rpc.ResponseHeader(&h), rpc.WithTimeout(time.Second))
			must(t, err)
			if !strings.HasPrefix(got, "hello within ") || got == "hello within " {
				t.Errorf("got %q: no timeout was sent", got)
			}
			if diff := cmp.Diff(rpc.Header{"region": {"eu"}}, h); diff != "" {
				t.Errorf("response header: %s", diff)
			}
		})
	}
}

// TestErrorsOfMicro: a gRPC code is one, an HTTP status means what it says,
// anything else is UNKNOWN; the text is kept.
func TestErrorsOfMicro(t *testing.T) {
	nc := rpctest.Connect(t)
	serveByHand(t, nc, func(r micro.Request, in string) { _ = r.Error(in, "it broke", []byte(`{"some":"body"}`)) })
	for text, code := range map[string]rpc.Code{
		"5": rpc.CodeNotFound, "400": rpc.CodeInvalidArgument, "404": rpc.CodeNotFound, "409": rpc.CodeAborted, "503": rpc.CodeUnavailable,
		"500": rpc.CodeInternal, "418": rpc.CodeUnknown, "0": rpc.CodeUnknown, "17": rpc.CodeUnknown, "E_BROKEN": rpc.CodeUnknown, "-5": rpc.CodeUnknown,
	} {
		for _, codec := range []rpc.Codec{rpc.CodecProto, rpc.CodecJSON} {
			_, err := do(testContext(t), dial(t, nc, rpc.WithPlainRequests(), rpc.WithCodec(codec)), text)
			var e *rpc.Error
			if !errors.As(err, &e) || e.Code() != code || e.Message() != "it broke" || !e.Remote() {
				t.Errorf("%q in %v is %v, want %v: it broke", text, codec, err, code)
			}
		}
	}
}

func TestPlainResponsesThatDoNotDecode(t *testing.T) {
	nc := rpctest.Connect(t)
	serveByHand(t, nc, func(r micro.Request, in string) { _ = r.Respond([]byte("{\xff")) })
	for _, codec := range []rpc.Codec{rpc.CodecProto, rpc.CodecJSON} {
		_, err := do(testContext(t), dial(t, nc, rpc.WithPlainRequests(), rpc.WithCodec(codec)), "x")
		if e := wantCode(t, err, rpc.CodeInternal, rpc.ExecutionDidRun); !strings.Contains(e.Message(), "response is not a valid google.protobuf.StringValue") {
			t.Errorf("%v: %v", codec, e)
		}
	}
}

// TestEnvelopeToMicro: who forgot WithPlainRequests is told.
func TestEnvelopeToMicro(t *testing.T) {
	nc := rpctest.Connect(t)
	answered := make(chan bool, 1)
	svc, err := micro.AddService(nc, micro.Config{Name: "ByHand", Version: "1.0.0"})
	must(t, err)
	defer func() { must(t, svc.Stop()) }()
	must(t, svc.AddEndpoint("Do", micro.HandlerFunc(func(r micro.Request) {
		_ = r.Error("400", "cannot read that", nil)
		answered <- true
	}), micro.WithEndpointSubject(doSubject)))
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	_, err = do(ctx, dial(t, nc), "x")
	<-answered
	if e := wantCode(t, err, rpc.CodeDeadlineExceeded, rpc.ExecutionMayHaveRun); !strings.Contains(e.Message(), "rpc.WithPlainRequests") {
		t.Errorf("the error does not say what to do: %v", e)
	}
}

// TestStreamOnTheSubject: a JetStream stream that captures the requests
// acknowledges each to its reply subject. The call goes on until its answer
// comes, which here is not sent before that.
func TestStreamOnTheSubject(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithJetStream())
	captureAll(t, srv.Connect())
	acks := make(chan bool, 64)
	watcher := srv.Connect()
	_, err := watcher.Subscribe("_INBOX.>", func(m *nats.Msg) {
		if strings.Contains(string(m.Data), `"stream":"AUDIT"`) {
			acks <- true
		}
	})
	must(t, err)
	must(t, watcher.Flush())
	serve(t, srv.Connect(), &funcs{do: func(_ context.Context, in string) (string, error) { <-acks; return in, nil }})
	c := dial(t, srv.Connect())
	for _, codec := range []rpc.Codec{rpc.CodecProto, rpc.CodecJSON} {
		for i := range 20 {
			got, err := do(testContext(t), c, "x", rpc.WithCodec(codec))
			if err != nil || got != "x" {
				t.Fatalf("call %d in %v: %q, %v", i, codec, got, err)
			}
		}
	}
}

// captureAll makes a stream of all that the test service gets.
func captureAll(t testing.TB, nc *nats.Conn) {
	t.Helper()
	js, err := jetstream.New(nc)
	must(t, err)
	_, err = js.CreateStream(testContext(t), jetstream.StreamConfig{Name: "AUDIT", Subjects: []string{"test.v1.>"}, Storage: jetstream.MemoryStorage})
	must(t, err)
}

// TestStreamWithoutService: a call that only a stream heard says so.
func TestStreamWithoutService(t *testing.T) {
	nc := rpctest.NewServer(t, rpctest.WithJetStream()).Connect()
	captureAll(t, nc)
	_, err := do(context.Background(), dial(t, nc), "x", rpc.WithTimeout(500*time.Millisecond))
	if e := wantCode(t, err, rpc.CodeDeadlineExceeded, rpc.ExecutionMayHaveRun); !strings.Contains(e.Message(), "JetStream") || !strings.Contains(e.Message(), doSubject) {
		t.Errorf("the error does not name the likely cause: %v", e)
	}
}

// group15 is a message whose field 15 is a group, so that its first byte is "{".
type group15 struct{ m *dynamicpb.Message }

func (g *group15) ProtoReflect() protoreflect.Message {
	if g.m == nil {
		g.m = dynamicpb.NewMessage(group15Type)
	}
	return g.m
}

var group15Type = newGroup15Type()

// newGroup15Type is `message M { optional group G = 15 { optional string s = 1; } }`.
func newGroup15Type() protoreflect.MessageDescriptor {
	optional := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("group15.proto"), Syntax: proto.String("proto2"), Package: proto.String("test.v1"),
		MessageType: []*descriptorpb.DescriptorProto{{
			Name: proto.String("M"),
			Field: []*descriptorpb.FieldDescriptorProto{{Name: proto.String("g"), Number: proto.Int32(15), Label: optional,
				Type: descriptorpb.FieldDescriptorProto_TYPE_GROUP.Enum(), TypeName: proto.String(".test.v1.M.G")}},
			NestedType: []*descriptorpb.DescriptorProto{{Name: proto.String("G"), Field: []*descriptorpb.FieldDescriptorProto{
				{Name: proto.String("s"), Number: proto.Int32(1), Label: optional, Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum()}}}},
		}},
	}, nil)
	if err != nil {
		panic(err)
	}
	return file.Messages().Get(0)
}

// TestGroup15: a method whose request has a group 15 takes a body that begins
// with "{" as Protobuf, unless the header says JSON.
func TestGroup15(t *testing.T) {
	nc := rpctest.Connect(t)
	desc := rpc.ServiceDesc{Name: "test.v1.Groups", MicroName: "Groups", Version: "1.0.0"}
	method := rpc.NewUnaryMethod[group15, group15](&desc, rpc.MethodDesc{Name: "Echo"})
	s := rpc.NewServer(nc)
	must(t, rpc.Register(s, &desc, t, nil, rpc.HandleUnary(method, func(_ *testing.T, _ context.Context, g *group15) (*group15, error) { return g, nil })))
	must(t, s.Start(testContext(t)))
	defer shutdown(t, s)
	body := []byte{15<<3 | 3, 1<<3 | 2, 2, 'o', 'k', 15<<3 | 4}
	for name, test := range map[string]struct {
		body   string
		header nats.Header
		want   string
	}{
		"protobuf": {string(body), nil, string(body)},
		"json":     {`{"g":{"s":"ok"}}`, contentType(wire.ContentTypeJSON), `{"g":{"s":"ok"}}`},
	} {
		m := ask(t, nc, "test.v1.Groups.Echo", []byte(test.body), test.header)
		if got := strings.ReplaceAll(string(m.Data), " ", ""); got != test.want {
			t.Errorf("%s: got %q %v, want %q", name, got, m.Header, test.want)
		}
	}
	plainStatus(t, ask(t, nc, "test.v1.Groups.Echo", []byte(`{"g":{}}`), nil), rpc.CodeInvalidArgument)
}
