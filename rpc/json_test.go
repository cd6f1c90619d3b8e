package rpc_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

// The service of these tests: its methods return what they get. oldOrder and oldChat are those
// of a client with an older .proto file, in which an order has its id only.
var (
	echoDesc  = rpc.ServiceDesc{Name: "test.v1.Echo", MicroName: "Echo", Version: "1.0.0"}
	echoOrder = rpc.NewUnaryMethod[orderv1.Order, orderv1.Order](&echoDesc, rpc.MethodDesc{Name: "Order"})
	echoChat  = rpc.NewBidiMethod[orderv1.Order, orderv1.Order](&echoDesc, rpc.MethodDesc{Name: "Chat"})
	echoNote  = rpc.NewOneWayMethod[orderv1.Order](&echoDesc, rpc.MethodDesc{Name: "Note"})
	echoFail  = rpc.NewUnaryMethod[orderv1.Order, orderv1.Order](&echoDesc, rpc.MethodDesc{Name: "Fail"})
	oldOrder  = rpc.NewUnaryMethod[orderv1.Order, orderv1.GetOrderRequest](&echoDesc, rpc.MethodDesc{Name: "Order"})
	oldChat   = rpc.NewBidiMethod[orderv1.Order, orderv1.GetOrderRequest](&echoDesc, rpc.MethodDesc{Name: "Chat"})
)

// echoOf is a unary method with a request of any type.
func echoOf[T any, P interface {
	*T
	proto.Message
}](name string, _ P) rpc.Handler[any] {
	return rpc.HandleUnary(rpc.NewUnaryMethod[T, T, P, P](&echoDesc, rpc.MethodDesc{Name: name}),
		func(_ any, _ context.Context, in P) (P, error) { return in, nil })
}

func serveEchoes(t testing.TB, nc *nats.Conn, opts ...rpc.ServerOption) {
	t.Helper()
	s := rpc.NewServer(nc, opts...)
	must(t, rpc.Register[any](s, &echoDesc, t, nil,
		echoOf("Text", &wrapperspb.StringValue{}), echoOf("Number", &wrapperspb.UInt32Value{}), echoOf("Double", &wrapperspb.DoubleValue{}),
		echoOf("Bool", &wrapperspb.BoolValue{}), echoOf("List", &structpb.ListValue{}), echoOf("Object", &structpb.Struct{}),
		rpc.HandleUnary(echoOrder, func(_ any, _ context.Context, in *orderv1.Order) (*orderv1.Order, error) { return in, nil }),
		rpc.HandleUnary(echoFail, func(_ any, _ context.Context, in *orderv1.Order) (*orderv1.Order, error) {
			return nil, rpc.NewError(rpc.CodeAborted, "no", in)
		}),
		rpc.HandleOneWay(echoNote, func(any, context.Context, *orderv1.Order) error { return nil }),
		rpc.HandleBidi(echoChat, func(_ any, _ context.Context, with *rpc.BidiStream[*orderv1.Order, *orderv1.Order]) error {
			for m, err := range with.All() {
				if err != nil {
					return err
				}
				if err := with.Send(m); err != nil {
					return err
				}
			}
			return nil
		}),
	))
	must(t, s.Start(testContext(t)))
	t.Cleanup(func() { shutdown(t, s) })
}

// TestJSONBodies: what people send by hand is read as they mean it, with and without a header, and
// what is empty is an empty message.
func TestJSONBodies(t *testing.T) {
	nc := rpctest.Connect(t)
	serveEchoes(t, nc)
	for _, test := range []struct{ method, body, want string }{
		{"Number", "85", "85"},
		{"Number", "0", "0"},
		{"Number", `"85"`, "85"},
		{"Double", "-1.5e3", "-1500"},
		{"Text", `"you"`, `"you"`},
		{"Text", `""`, `""`},
		{"Bool", "true", "true"},
		{"List", `[1,"a"]`, `[1,"a"]`},
		{"Object", `{"a":1}`, `{"a":1}`},
		{"Order", `{"orderId":"1"}`, `{"orderId":"1"}`},
		{"Order", `{"order_id":"1"}`, `{"orderId":"1"}`},
		{"Order", `{}`, `{}`},
	} {
		for _, around := range [][2]string{{"", ""}, {"", "\n"}, {" ", " "}, {"\n", ""}, {"\r\n\t", "\r\n"}, {"\uFEFF", ""}, {"\uFEFF\r\n", "\n"}} {
			for _, header := range []nats.Header{nil, contentType("application/json")} {
				body := around[0] + test.body + around[1]
				m := ask(t, nc, "test.v1.Echo."+test.method, []byte(body), header)
				if string(m.Data) != test.want || len(m.Header) != 0 {
					t.Errorf("%s %q %v: answer is %q %v, want %q", test.method, body, header, m.Data, m.Header, test.want)
				}
			}
		}
	}
	zeros := map[string]string{"Number": "0", "Double": "0", "Text": `""`, "Bool": "false", "List": "[]", "Object": "{}", "Order": "{}"}
	for method, zero := range zeros {
		for _, body := range []string{"", " ", "\n", "\r\n", "\t \n", "\uFEFF", "\uFEFF\n"} {
			for _, header := range []nats.Header{nil, contentType("application/json")} {
				want := zero
				if body == "" && header == nil {
					want = "" // in Protobuf, as nothing says that it is JSON
				}
				if m := ask(t, nc, "test.v1.Echo."+method, []byte(body), header); string(m.Data) != want || len(m.Header) != 0 {
					t.Errorf("%s %q %v: answer is %q %v, want %q", method, body, header, m.Data, m.Header, want)
				}
			}
		}
	}
}

// inEnvelope asks as a natscall client does that sends this JSON, and returns the error or nil.
func inEnvelope(t *testing.T, nc *nats.Conn, method, body string) error {
	t.Helper()
	id := wire.NewID()
	m := ask(t, nc, "test.v1.Echo."+method, append(wire.AppendRequest(nil, id, wire.CodecJSON, 0), body...), nil)
	e, err := wire.Parse(m.Data)
	must(t, err)
	if e.Flags&wire.FlagError != 0 {
		return fmt.Errorf("%s", m.Header.Get("Nats-Service-Error"))
	}
	return nil
}

// inPlain is inEnvelope for a plain request.
func inPlain(t *testing.T, nc *nats.Conn, method, body string) error {
	t.Helper()
	m := ask(t, nc, "test.v1.Echo."+method, []byte(body), contentType("application/json"))
	if text := m.Header.Get("Nats-Service-Error"); text != "" {
		return fmt.Errorf("%s", text)
	}
	return nil
}

// inStream is inEnvelope for the first message of a stream.
func inStream(t *testing.T, nc *nats.Conn, method, body string) error {
	t.Helper()
	sub, err := nc.SubscribeSync(nc.NewInbox())
	must(t, err)
	defer func() { must(t, sub.Unsubscribe()) }()
	open := wire.Open{Credit: 1 << 20, Data: append(wire.AppendMessagePrefix(nil, len(body)), body...), HalfClose: true}
	must(t, nc.PublishRequest("test.v1.Echo."+method, sub.Subject, wire.AppendOpen(nil, wire.NewID(), wire.CodecJSON, 0, open)))
	for {
		m, err := sub.NextMsgWithContext(testContext(t))
		must(t, err)
		if f, err := wire.ParseFrame(m.Data); err == nil && f.Kind == wire.KindEnd {
			if len(f.Body) == 0 {
				return nil
			}
			return fmt.Errorf("%s", m.Header.Get("Nats-Service-Error"))
		}
	}
}

// TestStrictServer: plain requests are read strictly and all else is not, unless the option says
// so.
func TestStrictServer(t *testing.T) {
	srv := rpctest.NewServer(t)
	nc := srv.Connect()
	bodies := []struct{ body, want string }{
		{`{"orderId":"1","id":1}`, `unknown field "id"; order.v1.Order has orderId, requestId, lines, state, rejection, created`},
		{`{"lines":[{"product":"x"}]}`, `unknown field "lines[0].product"; order.v1.Line has productId, quantity`},
		{`{"state":"PENDING"}`, `field "state": "PENDING" is no value of order.v1.OrderState, which has ORDER_STATE_UNSPECIFIED, ORDER_STATE_PENDING`},
		{`{"rejection":{"reason":"?"}}`, `field "rejection.reason": "?" is no value of order.v1.RejectionReason`},
	}
	forms := []struct {
		name, method string
		ask          func(*testing.T, *nats.Conn, string, string) error
		strict       bool // by default
	}{
		{"plain", "Order", inPlain, true},
		{"plain one-way", "Note", inPlain, false},
		{"envelope", "Order", inEnvelope, false},
		{"stream", "Chat", inStream, false},
	}
	for _, server := range []struct {
		name   string
		opts   []rpc.ServerOption
		strict *bool
	}{
		{"default", nil, nil},
		{"strict", []rpc.ServerOption{rpc.WithStrictJSON(true)}, proto.Bool(true)},
		{"not strict", []rpc.ServerOption{rpc.WithStrictJSON(false)}, proto.Bool(false)},
		{"the last one counts", []rpc.ServerOption{rpc.WithStrictJSON(true), rpc.WithStrictJSON(false)}, proto.Bool(false)},
	} {
		t.Run(server.name, func(t *testing.T) {
			serveEchoes(t, srv.Connect(), server.opts...)
			for _, form := range forms {
				strict := form.strict
				if server.strict != nil {
					strict = *server.strict
				}
				for _, test := range bodies {
					err := form.ask(t, nc, form.method, test.body)
					if (err != nil) != strict || err != nil && !strings.HasPrefix(err.Error(), "invalid_argument") {
						t.Errorf("%s: %s: %v, strict is %v", form.name, test.body, err, strict)
					}
					if err != nil {
						wantText(t, err, test.want)
					}
				}
				must(t, form.ask(t, nc, form.method, `{"order_id":"1","lines":[{"productId":"x"}],"state":"ORDER_STATE_PENDING"}`))
				must(t, form.ask(t, nc, form.method, `{"state":99}`)) // a number is no name
			}
		})
	}
}

// TestStrictClient: responses are read leniently unless the client or the call says so; the
// latter counts more. The server has fields that the client does not.
func TestStrictClient(t *testing.T) {
	nc := rpctest.Connect(t)
	serveEchoes(t, nc)
	in := &orderv1.Order{OrderId: "1", RequestId: "2"}
	unary := func(c *rpc.Client, opts ...rpc.CallOption) (*orderv1.GetOrderRequest, error) {
		return oldOrder.Call(testContext(t), c, in, append(opts, rpc.WithCodec(rpc.CodecJSON))...)
	}
	forms := map[string]func(*rpc.Client, ...rpc.CallOption) (*orderv1.GetOrderRequest, error){
		"envelope": unary,
		"plain": func(c *rpc.Client, opts ...rpc.CallOption) (*orderv1.GetOrderRequest, error) {
			return unary(c, append(opts, rpc.WithPlainRequests())...)
		},
		"stream": func(c *rpc.Client, opts ...rpc.CallOption) (*orderv1.GetOrderRequest, error) {
			s, err := oldChat.Call(testContext(t), c, append(opts, rpc.WithCodec(rpc.CodecJSON))...)
			must(t, err)
			defer s.Close()
			must(t, s.Send(in))
			return s.Recv()
		},
	}
	yes, no := rpc.WithStrictJSON(true), rpc.WithStrictJSON(false)
	for _, test := range []struct {
		name   string
		client []rpc.ClientOption
		call   []rpc.CallOption
		strict bool
	}{
		{"default", nil, nil, false},
		{"client", []rpc.ClientOption{yes}, nil, true},
		{"call", nil, []rpc.CallOption{yes}, true},
		{"client and not the call", []rpc.ClientOption{yes}, []rpc.CallOption{no}, false},
		{"call and not the client", []rpc.ClientOption{no}, []rpc.CallOption{yes}, true},
	} {
		c := dial(t, nc, test.client...)
		for form, call := range forms {
			switch got, err := call(c, test.call...); {
			case !test.strict && (err != nil || got.GetOrderId() != "1"):
				t.Errorf("%s, %s: %v, %v", test.name, form, got, err)
			case test.strict:
				e := wantCode(t, err, rpc.CodeInternal, rpc.ExecutionDidRun)
				wantText(t, e, `unknown field "requestId"; order.v1.GetOrderRequest has orderId`)
			}
		}
	}
}

// jsonOption is an option of how JSON is written.
type jsonOption interface {
	rpc.ClientOption
	rpc.CallOption
	rpc.ServerOption
}

// jsonForms are these options, with what an order with an id looks like.
var jsonForms = []struct {
	name string
	opts []jsonOption
	want string
}{
	{"default", nil, `{"orderId":"1"}`},
	{"names", []jsonOption{rpc.WithJSONProtoNames(true)}, `{"order_id":"1"}`},
	{"unpopulated", []jsonOption{rpc.WithJSONUnpopulated(true)},
		`{"orderId":"1","requestId":"","lines":[],"state":"ORDER_STATE_UNSPECIFIED","rejection":null,"created":null}`},
	{"both, and off again", []jsonOption{rpc.WithJSONUnpopulated(true), rpc.WithJSONProtoNames(true), rpc.WithJSONUnpopulated(false)}, `{"order_id":"1"}`},
}

// TestJSONForms: each side writes as its options say, in every message, and reads every form.
func TestJSONForms(t *testing.T) {
	srv := rpctest.NewServer(t)
	nc := srv.Connect()
	in := &orderv1.Order{OrderId: "1"}
	for _, form := range jsonForms {
		t.Run("server "+form.name, func(t *testing.T) {
			opts := []rpc.ServerOption{rpc.WithStrictJSON(true)}
			for _, opt := range form.opts {
				opts = append(opts, opt)
			}
			serveEchoes(t, srv.Connect(), opts...)
			for _, other := range jsonForms {
				if m := ask(t, nc, "test.v1.Echo.Order", []byte(other.want), nil); string(m.Data) != form.want {
					t.Errorf("the answer to %s is %s %v, want %s", other.want, m.Data, m.Header, form.want)
				}
			}
			var status struct{ Details []map[string]any }
			must(t, json.Unmarshal(ask(t, nc, "test.v1.Echo.Fail", []byte(form.want), nil).Data, &status))
			delete(status.Details[0], "@type")
			want := map[string]any{}
			must(t, json.Unmarshal([]byte(form.want), &want))
			if diff := cmp.Diff(want, status.Details[0]); diff != "" {
				t.Errorf("a detail of an error: %s", diff)
			}
		})
		for _, ofCall := range []bool{false, true} {
			t.Run(fmt.Sprintf("client %s, by call %v", form.name, ofCall), func(t *testing.T) {
				serveEchoes(t, srv.Connect())
				requests, err := nc.SubscribeSync("test.v1.Echo.*")
				must(t, err)
				defer func() { must(t, requests.Unsubscribe()) }()
				must(t, nc.Flush())
				opts := []rpc.ClientOption{rpc.WithCodec(rpc.CodecJSON), rpc.WithStrictJSON(true)}
				var callOpts []rpc.CallOption
				for _, opt := range form.opts {
					if ofCall {
						callOpts = append(callOpts, opt)
					} else {
						opts = append(opts, opt)
					}
				}
				c := dial(t, srv.Connect(), opts...)
				_, err = echoOrder.Call(testContext(t), c, in, callOpts...)
				must(t, err)
				_, err = echoOrder.Call(testContext(t), c, in, append(callOpts, rpc.WithPlainRequests())...)
				must(t, err)
				must(t, echoNote.Call(testContext(t), c, in, callOpts...))
				s, err := echoChat.Call(testContext(t), c, callOpts...)
				must(t, err)
				must(t, s.Send(in))
				_, err = s.Recv()
				must(t, err)
				s.CloseSend()
				if _, err := s.Recv(); err != io.EOF {
					t.Error(err)
				}
				for range 3 { // the stream's message is in none of them
					m, err := requests.NextMsgWithContext(testContext(t))
					must(t, err)
					if !strings.HasSuffix(string(m.Data), form.want) {
						t.Errorf("a request is %q, want %s", m.Data, form.want)
					}
				}
			})
		}
	}
}
