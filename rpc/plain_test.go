package rpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

// object is a message with one string field.
func object(key, value string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{key: structpb.NewStringValue(value)}}
}

// noteID hands the id of each note to a channel.
func noteID(to chan<- string) func(context.Context, *structpb.Struct) error {
	return func(_ context.Context, s *structpb.Struct) error {
		to <- s.GetFields()["id"].GetStringValue()
		return nil
	}
}

const (
	doSubject     = "test.v1.TestService.Do"
	objectSubject = "test.v1.TestService.Object"
)

// ask sends a request as any NATS client would.
func ask(t testing.TB, nc *nats.Conn, subject string, body []byte, header nats.Header) *nats.Msg {
	t.Helper()
	m, err := nc.RequestMsgWithContext(testContext(t), &nats.Msg{Subject: subject, Data: body, Header: header})
	if err != nil {
		t.Fatalf("request to %s: %v", subject, err)
	}
	return m
}

func contentType(value string) nats.Header { return nats.Header{"Content-Type": {value}} }

func encode(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	must(t, err)
	return b
}

// compactJSON takes out the blanks that protojson puts in at random.
func compactJSON(t testing.TB, data []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(data, &v); err != nil {
		t.Fatalf("%q: %v", data, err)
	}
	b, err := json.Marshal(v)
	must(t, err)
	return string(b)
}

// TestPlainClients: a request with a body is all that a NATS client needs.
func TestPlainClients(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{})
	for _, test := range []struct {
		name, subject string
		body          []byte
		header        nats.Header
		want          string
	}{
		{"Protobuf", doSubject, encode(t, wrapperspb.String("you")), nil, string(encode(t, wrapperspb.String("you")))},
		{"Protobuf by header", doSubject, encode(t, wrapperspb.String("you")), contentType("application/x-protobuf"), string(encode(t, wrapperspb.String("you")))},
		{"empty body", doSubject, nil, nil, ""},
		{"a JSON object", objectSubject, []byte(`{"a":1}`), nil, `{"a":1}`},
		{"JSON by header", doSubject, []byte(`"you"`), contentType("application/json; charset=utf-8"), `"you"`},
		{"blanks before JSON, by header", objectSubject, []byte(" \n{\"a\":1}"), contentType("APPLICATION/JSON"), `{"a":1}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := ask(t, nc, test.subject, test.body, test.header)
			got := string(m.Data)
			if strings.ContainsAny(test.want, `{"`) {
				got = compactJSON(t, m.Data)
			}
			if got != test.want || len(m.Header) != 0 {
				t.Errorf("got %q, %v; want %q and no headers", m.Data, m.Header, test.want)
			}
		})
	}
}

// plainStatus reads the three places where an error stands and checks that they agree.
func plainStatus(t testing.TB, m *nats.Msg, code rpc.Code) *natscallv1.Status {
	t.Helper()
	s := new(natscallv1.Status)
	if len(m.Data) > 0 && m.Data[0] == '{' {
		short := struct {
			Code    int32
			Message string
		}{}
		must(t, json.Unmarshal(m.Data, &short))
		s.Code, s.Message = short.Code, short.Message
	} else {
		must(t, proto.Unmarshal(m.Data, s))
	}
	if got := m.Header.Get("Nats-Service-Error-Code"); rpc.Code(s.GetCode()) != code || got != fmt.Sprint(int(code)) {
		t.Errorf("code is %d (header %q: %q), want %d (%v)", s.GetCode(), got, m.Header.Get("Nats-Service-Error"), code, code)
	}
	if got := m.Header.Get("Nats-Service-Error"); !strings.HasPrefix(got, code.String()) {
		t.Errorf("header says %q, want the name of %v", got, code)
	}
	return s
}

func TestPlainRefusals(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{do: func(context.Context, string) (string, error) { t.Error("the handler ran"); return "", nil }})
	timeout := func(v string) nats.Header { return nats.Header{"Natscall-Timeout": {v}} }
	for _, test := range []struct {
		name   string
		body   string
		header nats.Header
		want   string
	}{
		{"content type", "", contentType("text/plain"), `"text/plain" is neither`},
		{"content type list", "", contentType("application/json, text/plain"), "Content-Type"},
		{"timeout 0", "", timeout("0"), `Natscall-Timeout: "0"`},
		{"negative timeout", "", timeout("-5"), `"-5"`},
		{"timeout in words", "", timeout("1s"), `"1s"`},
		{"random bytes", "\xff\xfe\xfd", nil, "not a valid google.protobuf.StringValue in protobuf"},
		{"cut off", "\x0a\x05ab", nil, "not a valid google.protobuf.StringValue in protobuf"},
		{"not JSON", `{"a":`, nil, "not a valid google.protobuf.StringValue in json"},
		{"another type's JSON", `{"a":1}`, nil, "not a valid google.protobuf.StringValue in json"},
		{"not UTF-8", "\x0a\x01\xff", nil, "UTF-8"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := plainStatus(t, ask(t, nc, doSubject, []byte(test.body), test.header), rpc.CodeInvalidArgument)
			if !strings.Contains(s.GetMessage(), test.want) {
				t.Errorf("message %q lacks %q", s.GetMessage(), test.want)
			}
		})
	}
}

// TestRandomBytes: whatever comes is answered, and the server goes on.
func TestRandomBytes(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{})
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 0))
	for i := range 2000 {
		body := make([]byte, rnd.IntN(60))
		for j := range body {
			body[j] = byte(rnd.Uint32())
		}
		if i%2 == 0 { // an envelope, nearly
			body = append([]byte{0, 1, byte(rnd.UintN(8)), byte(rnd.Uint32())}, body...)
		}
		if wire.IsEnvelope(body) && len(body) > 2 && (body[2] == byte(wire.KindCancel) || body[2] == byte(wire.KindAliveAnswer)) {
			continue // those are never answered
		}
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		if _, err := nc.RequestWithContext(ctx, doSubject, body); err != nil {
			t.Errorf("seed %d: %x is not answered: %v", seed, body, err)
		}
		cancel()
	}
	must(t, callOnce(t, dial(t, nc)))
}

// TestPlainErrors: the status is the body in the codec of the request, and
// stands in the two headers for NATS tools to see.
func TestPlainErrors(t *testing.T) {
	nc := rpctest.Connect(t)
	message := "line one\nline \"two\"\r\n\tü"
	fail := rpc.NewError(rpc.CodeFailedPrecondition, message, wrapperspb.String("why"))
	serve(t, nc, &funcs{
		do:     func(context.Context, string) (string, error) { return "", fail },
		object: func(context.Context, *structpb.Struct) (*structpb.Struct, error) { return nil, fail },
	})
	inProto := ask(t, nc, doSubject, nil, nil)
	inJSON := ask(t, nc, objectSubject, []byte("{}"), nil)
	for name, m := range map[string]*nats.Msg{"protobuf": inProto, "json": inJSON} {
		s := plainStatus(t, m, rpc.CodeFailedPrecondition)
		if s.GetMessage() != message {
			t.Errorf("%s: message is %q", name, s.GetMessage())
		}
		if got, want := m.Header.Get("Nats-Service-Error"), `failed_precondition: line one line "two"   ü`; got != want {
			t.Errorf("%s: header is %q, want %q", name, got, want)
		}
	}
	if details := plainStatus(t, inProto, rpc.CodeFailedPrecondition).GetDetails(); len(details) != 1 {
		t.Errorf("protobuf: details are %v", details)
	}
	want := `"details":[{"@type":"type.googleapis.com/google.protobuf.StringValue","value":"why"}]`
	if got := compactJSON(t, inJSON.Data); !strings.Contains(got, want) {
		t.Errorf("json: body is %s, want %s in it", got, want)
	}
}

// TestPlainTimeout: the header bounds the handler; without it the method's
// option applies, else the server's.
func TestPlainTimeout(t *testing.T) {
	nc := rpctest.Connect(t)
	left := make(chan time.Duration, 1)
	note := func(ctx context.Context) {
		deadline, _ := ctx.Deadline()
		left <- time.Until(deadline)
	}
	serve(t, nc, &funcs{
		do:     func(ctx context.Context, in string) (string, error) { note(ctx); return in, nil },
		object: func(ctx context.Context, in *structpb.Struct) (*structpb.Struct, error) { note(ctx); return in, nil },
	}, rpc.WithTimeout(50*time.Second))
	for _, test := range []struct {
		name, subject, header string
		want                  time.Duration
	}{
		{"header", doSubject, "7000", 7 * time.Second},
		{"more than a day", objectSubject, "9223372036854", 24 * time.Hour},
		{"method", objectSubject, "", 3 * time.Second},
		{"server", doSubject, "", 50 * time.Second},
	} {
		t.Run(test.name, func(t *testing.T) {
			header := nats.Header{}
			if test.header != "" {
				header.Set("Natscall-Timeout", test.header)
			}
			ask(t, nc, test.subject, nil, header)
			if got := <-left; got < test.want/2 || got > test.want*2 {
				t.Errorf("the handler has %v, want a little less than %v", got, test.want)
			}
		})
	}
}

func TestPlainDeadlineExceeded(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{do: func(ctx context.Context, _ string) (string, error) { <-ctx.Done(); return "", ctx.Err() }})
	plainStatus(t, ask(t, nc, doSubject, nil, nats.Header{"Natscall-Timeout": {"20"}}), rpc.CodeDeadlineExceeded)
}

// TestEnvelopeRefusals: an envelope of another version, or with what this one
// does not define, is answered in version 1 with the caller's call id.
func TestEnvelopeRefusals(t *testing.T) {
	nc := rpctest.Connect(t)
	srv := serve(t, nc, &funcs{do: func(context.Context, string) (string, error) { t.Error("the handler ran"); return "", nil }})
	id := wire.NewID()
	request := wire.AppendRequest(nil, id, wire.CodecProto, time.Second)
	changed := func(at int, to byte) []byte {
		b := append([]byte(nil), request...)
		b[at] = to
		return b
	}
	for _, test := range []struct {
		name string
		body []byte
		code rpc.Code
		want string
	}{
		{"version", changed(1, 2), rpc.CodeUnimplemented, "version: 2; this side speaks 1"},
		{"kind", changed(2, 9), rpc.CodeUnimplemented, "kind 9"},
		{"reserved codec", changed(3, 3), rpc.CodeUnimplemented, "flags 0x03"},
		{"compression", changed(3, 12), rpc.CodeUnimplemented, "flags 0x0c"},
		{"reserved flag", changed(3, 0x80), rpc.CodeUnimplemented, "flags 0x80"},
		{"flags of a response", changed(3, byte(wire.FlagError|wire.Refused.Flags())), rpc.CodeUnimplemented, "flags 0x50"},
		{"a response", changed(2, byte(wire.KindResponse)), rpc.CodeInvalidArgument, "kind 2"},
		{"an alive query", wire.AppendAlive(nil, wire.KindAliveQuery, id), rpc.CodeInvalidArgument, "kind 4"},
		{"no timeout", request[:wire.HeaderSize], rpc.CodeInvalidArgument, "timeout"},
		{"truncated", request[:wire.HeaderSize-1], rpc.CodeInvalidArgument, "truncated envelope: 19 bytes of 20"},
		{"the mark alone", request[:1], rpc.CodeInvalidArgument, "truncated"},
		{"message cut off", append(request, 0x0a, 5, 'a'), rpc.CodeInvalidArgument, "not a valid"},
		{"message of random bytes", append(request, 0xff, 0xff, 0xff), rpc.CodeInvalidArgument, "not a valid"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := ask(t, nc, doSubject, test.body, nil)
			e, err := wire.Parse(m.Data)
			must(t, err)
			want := wire.Envelope{Kind: wire.KindResponse, Flags: wire.FlagError | wire.NotRun.Flags(), Body: e.Body}
			if len(test.body) >= wire.HeaderSize {
				want.ID = id
			}
			if diff := cmp.Diff(want, e); diff != "" {
				t.Errorf("answer: %s", diff)
			}
			s := new(natscallv1.Status)
			must(t, proto.Unmarshal(e.Body, s))
			if rpc.Code(s.GetCode()) != test.code || !strings.Contains(s.GetMessage(), test.want) {
				t.Errorf("status is %d %q, want %v %q", s.GetCode(), s.GetMessage(), test.code, test.want)
			}
			if got := m.Header.Get("Nats-Service-Error-Code"); got != fmt.Sprint(int(test.code)) {
				t.Errorf("header says code %q", got)
			}
			until(t, "the call has left", func() bool { return srv.Open() == 0 })
		})
	}
}

// TestNeverAnswered: a cancel and an alive answer get none, wherever they go.
func TestNeverAnswered(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{})
	inbox, err := nc.SubscribeSync("inbox")
	must(t, err)
	id := wire.NewID()
	for _, subject := range []string{doSubject, "test.v1.TestService._all.cancel", "test.v1.TestService._all.alive", "test.v1.TestService._all.x"} {
		for _, body := range [][]byte{wire.AppendCancel(nil, id), wire.AppendAlive(nil, wire.KindAliveAnswer, id)} {
			must(t, nc.PublishRequest(subject, "inbox", body))
		}
	}
	must(t, nc.PublishRequest(doSubject, "inbox", encode(t, wrapperspb.String("last"))))
	m, err := inbox.NextMsg(20 * time.Second)
	must(t, err)
	got := new(wrapperspb.StringValue)
	if err := proto.Unmarshal(m.Data, got); err != nil || got.GetValue() != "last" {
		t.Errorf("the first answer is %x %v", m.Data, m.Header)
	}
}

// TestOneWayWithReply: who asks a one-way method is told that it ran, or why not.
func TestOneWayWithReply(t *testing.T) {
	nc := rpctest.Connect(t)
	got := make(chan string, 1)
	serve(t, nc, &funcs{note: func(ctx context.Context, s *structpb.Struct) error {
		if len(s.GetFields()) == 0 {
			return rpc.Errorf(rpc.CodeNotFound, "no id")
		}
		return noteID(got)(ctx, s)
	}})
	for _, test := range []struct {
		name       string
		body, want string
	}{
		{"protobuf", string(encode(t, object("id", "protobuf"))), ""},
		{"json", `{"id":"json"}`, ""},
	} {
		m := ask(t, nc, "notes.new", []byte(test.body), nil)
		if string(m.Data) != test.want || len(m.Header) != 0 {
			t.Errorf("%s: answer is %q %v, want %q", test.name, m.Data, m.Header, test.want)
		}
		if id := <-got; id != test.name {
			t.Errorf("%s: the handler got %q", test.name, id)
		}
	}
	s := plainStatus(t, ask(t, nc, "notes.new", nil, nil), rpc.CodeNotFound)
	if diff := cmp.Diff(&natscallv1.Status{Code: 5, Message: "no id"}, s, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	plainStatus(t, ask(t, nc, "notes.new", []byte("{"), nil), rpc.CodeInvalidArgument)
}

// TestJetStreamPushConsumer: a one-way method that hears what a push consumer delivers
// acknowledges it when the handler has returned nil, in any codec. An error is logged and
// acknowledges nothing, so that the message comes again.
func TestJetStreamPushConsumer(t *testing.T) {
	for _, test := range []struct {
		name   string
		body   string
		header nats.Header
		fail   error
		says   string // in the log, of the first delivery
		again  bool   // the second delivery is acknowledged
	}{
		{"Protobuf", string(encode(t, object("id", "x"))), nil, nil, "", false},
		{"JSON", `{"id":"x"}`, nil, nil, "", false},
		{"JSON by header", "\n{\"id\":\"x\"}", contentType("application/json"), nil, "", false},
		{"nothing", "", nil, nil, "", false},
		{"an error first", `{"id":"x"}`, nil, errors.New("the database is down"), "the database is down", true},
		{"a coded error first", `{"id":"x"}`, nil, rpc.NewError(rpc.CodeUnavailable, "later"), "unavailable: later", true},
		{"no message of the type", `[1]`, nil, nil, "the request is not a valid google.protobuf.Struct in json", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			srv := rpctest.NewServer(t, rpctest.WithJetStream())
			nc := srv.Connect()
			deliveries, acks := 0, make(chan *nats.Msg, 10)
			var logged records
			serve(t, srv.Connect(), &funcs{note: func(ctx context.Context, _ *structpb.Struct) error {
				rpc.CallFromContext(ctx).ResponseHeader().Set("ignored", "by JetStream")
				if deliveries++; deliveries == 1 {
					return test.fail
				}
				return nil
			}}, rpc.WithLogger(logged.logger()), rpc.WithMaxConcurrency(1))
			js, err := nc.JetStream()
			must(t, err)
			_, err = js.AddStream(&nats.StreamConfig{Name: "IN", Subjects: []string{"in"}, Storage: nats.MemoryStorage})
			must(t, err)
			_, err = js.AddConsumer("IN", &nats.ConsumerConfig{Durable: "C", DeliverSubject: "notes.new", AckPolicy: nats.AckExplicitPolicy,
				AckWait: 200 * time.Millisecond, SampleFrequency: "100%"})
			must(t, err)
			metrics, err := nc.ChanSubscribe("$JS.EVENT.METRIC.CONSUMER.ACK.IN.C", acks)
			must(t, err)
			defer func() { must(t, metrics.Unsubscribe()) }()
			answers, err := nc.SubscribeSync("$JS.ACK.>")
			must(t, err)
			copies, err := nc.SubscribeSync("notes.new")
			must(t, err)
			must(t, nc.Flush())
			_, err = js.PublishMsg(&nats.Msg{Subject: "in", Data: []byte(test.body), Header: test.header})
			must(t, err)
			if test.says != "" && !test.again { // it comes again and again
				for range 3 {
					_, err := copies.NextMsgWithContext(testContext(t))
					must(t, err)
				}
				if n, _, err := answers.Pending(); n > 0 || err != nil || !strings.Contains(logged.String(), test.says) {
					t.Errorf("%d answers (%v), the log is %s", n, err, logged.String())
				}
				return
			}
			var ack struct{ Deliveries int }
			must(t, json.Unmarshal((<-acks).Data, &ack))
			if want := map[bool]int{false: 1, true: 2}[test.again]; ack.Deliveries != want {
				t.Errorf("delivery %d is acknowledged, want %d", ack.Deliveries, want)
			}
			m, err := answers.NextMsgWithContext(testContext(t))
			must(t, err)
			if n, _, err := answers.Pending(); len(m.Data) != 0 || n > 0 || err != nil {
				t.Errorf("the answer is %q, and %d further ones came (%v)", m.Data, n, err)
			}
			if !strings.Contains(logged.String(), test.says) || test.says == "" && logged.String() != "" {
				t.Errorf("the log is %s", logged.String())
			}
		})
	}
}
