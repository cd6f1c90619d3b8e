package rpc_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
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

// position is a message of a user's that in JSON looks like an acknowledgement of JetStream.
type position struct{ m *dynamicpb.Message }

var positionType = func() protoreflect.MessageDescriptor {
	field := func(name string, number int32, kind descriptorpb.FieldDescriptorProto_Type) *descriptorpb.FieldDescriptorProto {
		return &descriptorpb.FieldDescriptorProto{Name: &name, Number: &number, Type: &kind, Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()}
	}
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{
		Name: proto.String("position.proto"), Package: proto.String("test.v1"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{Name: proto.String("Position"), Field: []*descriptorpb.FieldDescriptorProto{
			field("stream", 1, descriptorpb.FieldDescriptorProto_TYPE_STRING), field("seq", 2, descriptorpb.FieldDescriptorProto_TYPE_INT32),
		}}},
	}, nil)
	if err != nil {
		panic(err)
	}
	return file.Messages().Get(0)
}()

func (p *position) ProtoReflect() protoreflect.Message {
	if p == nil {
		return (*dynamicpb.Message)(nil).ProtoReflect()
	}
	if p.m == nil {
		p.m = dynamicpb.NewMessage(positionType)
	}
	return p.m
}

// TestPositionIsNoAcknowledgement: a plain JSON response of a type that has the fields of an
// acknowledgement reaches its caller, from natscall and from a service by hand.
func TestPositionIsNoAcknowledgement(t *testing.T) {
	const answer = `{"stream":"a","seq":1}`
	desc := rpc.ServiceDesc{Name: "test.v1.Positions", MicroName: "Positions", Version: "1.0.0"}
	method := rpc.NewUnaryMethod[position, position](&desc, rpc.MethodDesc{Name: "Where"})
	for name, serve := range map[string]func(nc *nats.Conn){
		"natscall": func(nc *nats.Conn) {
			s := rpc.NewServer(nc)
			must(t, rpc.Register(s, &desc, t, nil, rpc.HandleUnary(method, func(*testing.T, context.Context, *position) (*position, error) {
				p := new(position)
				return p, protojson.Unmarshal([]byte(answer), p)
			})))
			must(t, s.Start(testContext(t)))
			t.Cleanup(func() { shutdown(t, s) })
		},
		"by hand": func(nc *nats.Conn) {
			_, err := nc.Subscribe("test.v1.Positions.Where", func(m *nats.Msg) { must(t, m.Respond([]byte(answer))) })
			must(t, err)
		},
	} {
		t.Run(name, func(t *testing.T) {
			nc := rpctest.Connect(t)
			serve(nc)
			c := dial(t, nc, rpc.WithPlainRequests(), rpc.WithCodec(rpc.CodecJSON))
			p, err := method.Call(testContext(t), c, new(position))
			must(t, err)
			if got, _ := protojson.Marshal(p); compactJSON(t, got) != compactJSON(t, []byte(answer)) {
				t.Errorf("got %s", got)
			}
			m := ask(t, nc, "test.v1.Positions.Where", []byte("{}"), nil)
			if name == "natscall" && len(m.Header) == 0 {
				t.Errorf("the answer cannot be told from an acknowledgement: %s", m.Data)
			}
		})
	}
}

// TestAcknowledgementsAreNoAnswers: of a stream that stores the request, or refuses to, in each
// form of call.
func TestAcknowledgementsAreNoAnswers(t *testing.T) {
	nc := rpctest.Connect(t)
	for _, ack := range []string{
		`{"stream":"AUDIT","seq":1}`,
		`{"stream":"AUDIT", "domain":"hub", "seq":201, "duplicate": true}`,
		`{"error":{"code":400,"err_code":10077,"description":"maximum messages exceeded"},"stream":"AUDIT","seq":0}`,
		`{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"},"stream":"AUDIT","seq":0}`,
	} {
		sub, err := nc.Subscribe(doSubject, func(m *nats.Msg) {
			must(t, m.Respond([]byte(ack)))
			data := encode(t, wrapperspb.String("answer"))
			if m.Header.Get("Content-Type") == "application/json" {
				data = []byte(`"answer"`)
			}
			if e, err := wire.Parse(m.Data); err == nil {
				data = append(wire.AppendResponse(nil, e.ID, 0, 0), data...)
			}
			must(t, m.Respond(data))
		})
		must(t, err)
		for name, opts := range map[string][]rpc.CallOption{
			"envelope": nil, "plain": {rpc.WithPlainRequests()}, "plain JSON": {rpc.WithPlainRequests(), rpc.WithCodec(rpc.CodecJSON)},
		} {
			if got, err := do(testContext(t), dial(t, nc), "x", opts...); err != nil || got != "answer" {
				t.Errorf("%s, %s: got %q, %v", ack, name, got, err)
			}
		}
		must(t, sub.Unsubscribe())
	}
}

// TestBlame: an error names a foreign reply only where one came.
func TestBlame(t *testing.T) {
	silent := func(*nats.Msg) {}
	for _, test := range []struct {
		name     string
		serve    nats.MsgHandler
		opts     []rpc.ClientOption
		want, no string
	}{
		{"nothing came", silent, nil, "deadline", "reply came"},
		{"an acknowledgement", func(m *nats.Msg) { _ = m.Respond([]byte(`{"stream":"A","seq":1}`)) }, nil, "JetStream", "WithPlainRequests"},
		{"an acknowledgement, plain", func(m *nats.Msg) { _ = m.Respond([]byte(`{"stream":"A","seq":1}`)) }, []rpc.ClientOption{rpc.WithPlainRequests()}, "JetStream", "WithPlainRequests"},
		{"a plain reply", func(m *nats.Msg) { _ = m.Respond([]byte("hello")) }, nil, "WithPlainRequests", "JetStream"},
		{"another call's response", func(m *nats.Msg) { _ = m.Respond(wire.AppendResponse(nil, wire.NewID(), 0, 0)) }, nil, "deadline", "reply came"},
		{"an empty reply", func(m *nats.Msg) { _ = m.Respond(nil) }, nil, "WithPlainRequests", "JetStream"},
	} {
		t.Run(test.name, func(t *testing.T) {
			nc := rpctest.Connect(t)
			for _, subject := range []string{doSubject, testRoot + ".Watch"} {
				_, err := nc.Subscribe(subject, test.serve)
				must(t, err)
			}
			c := dial(t, nc, test.opts...)
			_, err := do(testContext(t), c, "x", rpc.WithTimeout(200*time.Millisecond))
			errs := []error{err}
			if test.opts == nil {
				_, err = watch(testContext(t), c, "x", rpc.WithTimeout(200*time.Millisecond))
				errs = append(errs, err)
			}
			for _, err := range errs {
				if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), test.no) {
					t.Errorf("error is %v, want one with %q and without %q", err, test.want, test.no)
				}
			}
		})
	}
}

// TestLateTwinsAreNotBlamed: with an answer from each instance the later ones find
// other calls on the same reply subject; those do not take them for foreign.
func TestLateTwinsAreNotBlamed(t *testing.T) {
	srv := rpctest.NewServer(t)
	release := make(chan struct{})
	var replicas []*rpc.Server
	for range 3 {
		s := rpc.NewServer(srv.Connect())
		must(t, registerTest(s, &funcs{read: func(_ context.Context, in string) (string, error) { <-release; return in, nil }}, rpc.WithoutQueueGroup()))
		must(t, s.Start(testContext(t)))
		replicas = append(replicas, s)
	}
	defer func() {
		for _, s := range replicas {
			shutdown(t, s)
		}
	}()
	defer close(release)
	c := dial(t, srv.Connect())
	for range 100 {
		must(t, callOnce(t, c)) // two more answers are on their way
		ctx, cancel := context.WithTimeout(testContext(t), 2*time.Millisecond)
		_, err := testRead.Call(ctx, c, wrapperspb.String("x"))
		cancel()
		if rpc.CodeOf(err) != rpc.CodeDeadlineExceeded || strings.Contains(err.Error(), "reply") {
			t.Fatalf("got %v", err)
		}
	}
}

// TestWrongAnswers: an answer that is natscall's and the call's own, and wrong, ends the
// call at once.
func TestWrongAnswers(t *testing.T) {
	nc := rpctest.Connect(t)
	value := encode(t, wrapperspb.String("x"))
	response := func(codec wire.Codec, flags wire.Flags, body []byte) func(wire.ID) []byte {
		return func(id wire.ID) []byte { return append(wire.AppendResponse(nil, id, codec, flags), body...) }
	}
	changed := func(at int, to byte) func(wire.ID) []byte {
		return func(id wire.ID) []byte {
			b := append(wire.AppendResponse(nil, id, 0, 0), value...)
			b[at] = to
			return b
		}
	}
	for _, test := range []struct {
		name   string
		answer func(wire.ID) []byte
		want   string
	}{
		{"version", changed(1, 2), "version: 2"},
		{"codec", changed(3, 2), "flags 0x02"},
		{"compressed, but not how", changed(3, 0x80), "flags 0x80"},
		{"compression that was not asked for", response(0, wire.FlagCompressed|wire.CompressionZstd.Flags(), zstded(t, value)), "compressed with zstd"},
		{"compression that is none", response(0, wire.FlagCompressed|wire.CompressionGzip.Flags(), []byte("x")), "does not decompress"},
		{"another codec", response(wire.CodecJSON, 0, []byte(`"x"`)), "the response is in json, the request asked for protobuf"},
		{"another type", response(0, 0, []byte{0xff}), "not a valid google.protobuf.StringValue"},
		{"no status", response(0, wire.FlagError, []byte{0xff}), "not a valid status"},
		{"accept of nobody", func(id wire.ID) []byte { return wire.AppendAccept(nil, id, 0, "") }, "without an instance"},
		{"accept of a wildcard", func(id wire.ID) []byte { return wire.AppendAccept(nil, id, 0, "*") }, "instance"},
		{"accept in another version", func(id wire.ID) []byte {
			b := wire.AppendAccept(nil, id, 0, "A")
			b[1] = 2
			return b
		}, "version: 2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			sub, err := nc.Subscribe(doSubject, func(m *nats.Msg) {
				must(t, m.Respond(test.answer(wire.ID(m.Data[4:20]))))
			})
			must(t, err)
			defer func() { must(t, sub.Unsubscribe()) }()
			_, err = do(testContext(t), dial(t, nc, rpc.WithCompression(rpc.CompressionGzip)), "x")
			if rpc.CodeOf(err) != rpc.CodeInternal {
				t.Fatalf("error is %v", err)
			}
			wantText(t, err, test.want)
		})
	}
}
