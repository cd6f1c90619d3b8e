package rpc_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// vtMessage is a message with the methods that vtprotobuf generates, which
// count their calls. What it carries tells them how to fail.
type vtMessage struct{ anypb.Any }

// vtCalls is how often the methods of all vtMessages were called.
var vtCalls struct{ size, marshal, unmarshal atomic.Int64 }

const (
	vtUnencodable = "unencodable"
	vtUndecodable = "undecodable"
	vtTooSmall    = "smaller than its size"
	vtTooLarge    = "larger than its size"
)

func newVT(text string) *vtMessage {
	return &vtMessage{anypb.Any{TypeUrl: "test.v1/" + text, Value: []byte(text)}}
}

// text is what newVT was given. It checks that both fields came whole.
func (m *vtMessage) text() string {
	if m.GetTypeUrl() != "test.v1/"+string(m.GetValue()) {
		return "damaged: " + m.GetTypeUrl()
	}
	return string(m.GetValue())
}

func (m *vtMessage) SizeVT() int {
	vtCalls.size.Add(1)
	size := proto.Size(&m.Any)
	if m.text() == vtTooLarge {
		size-- // as if the message had grown since
	}
	return size
}

// MarshalToSizedBufferVT fills b from its end, and may leave room before it.
func (m *vtMessage) MarshalToSizedBufferVT(b []byte) (int, error) {
	vtCalls.marshal.Add(1)
	data, err := proto.Marshal(&m.Any)
	switch m.text() {
	case vtUnencodable:
		return 0, errors.New("no encoding")
	case vtTooSmall:
		data = data[:len(data)/2]
	case vtTooLarge:
		data = data[1:]
		copy(b, data)
		return len(data) + 1, err
	}
	copy(b[len(b)-len(data):], data)
	return len(data), err
}

func (m *vtMessage) UnmarshalVT(b []byte) error {
	vtCalls.unmarshal.Add(1)
	if err := (proto.UnmarshalOptions{Merge: true}).Unmarshal(b, &m.Any); err != nil {
		return err
	}
	if m.text() == vtUndecodable {
		return errors.New("no decoding")
	}
	return nil
}

var vtDesc = rpc.ServiceDesc{Name: "test.v1.VTService", MicroName: "VTService", Version: "1.0.0"}

var (
	vtEcho   = rpc.NewUnaryMethod[vtMessage, vtMessage](&vtDesc, rpc.MethodDesc{Name: "Echo"})
	vtNote   = rpc.NewOneWayMethod[vtMessage](&vtDesc, rpc.MethodDesc{Name: "Note"})
	vtRepeat = rpc.NewServerStreamMethod[vtMessage, vtMessage](&vtDesc, rpc.MethodDesc{Name: "Repeat"})
	vtLast   = rpc.NewClientStreamMethod[vtMessage, vtMessage](&vtDesc, rpc.MethodDesc{Name: "Last"})
	vtChat   = rpc.NewBidiMethod[vtMessage, vtMessage](&vtDesc, rpc.MethodDesc{Name: "Chat"})
)

// vtServer answers with what it gets, or what a request asks for.
type vtServer struct{ notes chan string }

func (vtServer) answer(req *vtMessage) *vtMessage {
	if text, ok := strings.CutPrefix(req.text(), "give "); ok {
		return newVT(text)
	}
	return req
}

func (s vtServer) Echo(_ context.Context, req *vtMessage) (*vtMessage, error) {
	return s.answer(req), nil
}

func (s vtServer) Note(_ context.Context, req *vtMessage) error {
	s.notes <- req.text()
	return nil
}

func (s vtServer) Repeat(_ context.Context, req *vtMessage, to *rpc.Sender[*vtMessage]) error {
	for range vtMessages {
		if err := to.Send(s.answer(req)); err != nil {
			return err
		}
	}
	return nil
}

func (s vtServer) Last(_ context.Context, from *rpc.Receiver[*vtMessage]) (last *vtMessage, err error) {
	for m, err := range from.All() {
		if err != nil {
			return nil, err
		}
		last = m
	}
	return s.answer(last), nil
}

func (s vtServer) Chat(_ context.Context, with *rpc.BidiStream[*vtMessage, *vtMessage]) error {
	for m, err := range with.All() {
		if err != nil {
			return err
		}
		if err := with.Send(s.answer(m)); err != nil {
			return err
		}
	}
	return nil
}

// vtMessages is how many messages a stream of the tests has; the largest of
// them fit into a window, as who sends them receives nothing meanwhile.
const vtMessages = 8

func serveVT(t *testing.T, nc *nats.Conn) chan string {
	t.Helper()
	s := rpc.NewServer(nc, rpc.WithLogger(slog.New(slog.DiscardHandler)))
	impl := vtServer{make(chan string, 1)}
	must(t, rpc.Register(s, &vtDesc, impl, nil,
		rpc.HandleUnary(vtEcho, vtServer.Echo),
		rpc.HandleOneWay(vtNote, vtServer.Note),
		rpc.HandleServerStream(vtRepeat, vtServer.Repeat),
		rpc.HandleClientStream(vtLast, vtServer.Last),
		rpc.HandleBidi(vtChat, vtServer.Chat),
	))
	must(t, s.Start(testContext(t)))
	t.Cleanup(func() { shutdown(t, s) })
	return impl.notes
}

// vtShapes are the shapes of methods: each sends and receives as many messages
// as it says, of a text each, and returns the last text or the first error.
var vtShapes = []struct {
	name           string
	sent, received int64
	call           func(ctx context.Context, c *rpc.Client, text string, opts ...rpc.CallOption) (string, error)
}{
	{"unary", 1, 1, func(ctx context.Context, c *rpc.Client, text string, opts ...rpc.CallOption) (string, error) {
		return vtText(vtEcho.Call(ctx, c, newVT(text), opts...))
	}},
	{"server stream", 1, vtMessages, func(ctx context.Context, c *rpc.Client, text string, opts ...rpc.CallOption) (string, error) {
		r, err := vtRepeat.Call(ctx, c, newVT(text), opts...)
		if err != nil {
			return "", err
		}
		return vtReceive(r.Recv)
	}},
	{"client stream", vtMessages, 1, func(ctx context.Context, c *rpc.Client, text string, opts ...rpc.CallOption) (string, error) {
		s, err := vtLast.Call(ctx, c, opts...)
		if err != nil {
			return "", err
		}
		defer s.Close()
		if err := vtSend(s.Send, text); err != nil {
			return "", err
		}
		return vtText(s.CloseAndRecv())
	}},
	{"bidirectional", vtMessages, vtMessages, func(ctx context.Context, c *rpc.Client, text string, opts ...rpc.CallOption) (string, error) {
		s, err := vtChat.Call(ctx, c, opts...)
		if err != nil {
			return "", err
		}
		defer s.Close()
		if err := vtSend(s.Send, text); err != nil {
			return "", err
		}
		s.CloseSend()
		return vtReceive(s.Recv)
	}},
}

func vtText(m *vtMessage, err error) (string, error) {
	if err != nil {
		return "", err
	}
	return m.text(), nil
}

// vtSend sends until the peer ends the stream, which the receiving side tells about.
func vtSend(send func(*vtMessage) error, text string) error {
	for range vtMessages {
		if err := send(newVT(text)); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
	return nil
}

func vtReceive(recv func() (*vtMessage, error)) (last string, err error) {
	for {
		m, err := recv()
		if err == io.EOF {
			return last, nil
		} else if err != nil {
			return "", err
		}
		last = m.text()
	}
}

// vtCount is how often the methods were called while f ran.
func vtCount(f func()) (sizes, encoded, decoded int64) {
	sizes, encoded, decoded = vtCalls.size.Load(), vtCalls.marshal.Load(), vtCalls.unmarshal.Load()
	f()
	return vtCalls.size.Load() - sizes, vtCalls.marshal.Load() - encoded, vtCalls.unmarshal.Load() - decoded
}

// TestVT: both sides use the methods of vtprotobuf for each message, whatever
// its size and however it travels, and none of them where the messages are JSON.
func TestVT(t *testing.T) {
	srv := rpctest.NewServer(t)
	notes := serveVT(t, srv.Connect())
	c := dial(t, srv.Connect())
	for _, shape := range vtShapes {
		for name, opts := range map[string][]rpc.CallOption{"": nil, ", compressed": {rpc.WithCompression(rpc.CompressionZstd)}} {
			for _, size := range []int{0, 10, 2000, 20 << 10, 100 << 10} {
				text := strings.Repeat("x", size)
				sizes, encoded, decoded := vtCount(func() {
					got, err := shape.call(testContext(t), c, text, opts...)
					if err != nil || got != text {
						t.Fatalf("%s%s, %d bytes: got %d, %v", shape.name, name, size, len(got), err)
					}
				})
				if want := shape.sent + shape.received; sizes != want || encoded != want || decoded != want {
					t.Errorf("%s%s, %d bytes: %d sizes, %d encoded, %d decoded, want %d", shape.name, name, size, sizes, encoded, decoded, want)
				}
			}
		}
	}
	_, encoded, decoded := vtCount(func() {
		must(t, vtNote.Call(testContext(t), c, newVT("note")))
		if got := <-notes; got != "note" {
			t.Errorf("one-way: got %q", got)
		}
	})
	if encoded != 1 || decoded != 1 {
		t.Errorf("one-way: %d encoded, %d decoded", encoded, decoded)
	}
}

// TestVTPlain: plain requests too; their replies are no envelopes.
func TestVTPlain(t *testing.T) {
	nc := rpctest.Connect(t)
	serveVT(t, nc)
	_, encoded, decoded := vtCount(func() {
		got, err := vtShapes[0].call(testContext(t), dial(t, nc), "plain", rpc.WithPlainRequests())
		if err != nil || got != "plain" {
			t.Errorf("got %q, %v", got, err)
		}
	})
	if encoded != 2 || decoded != 2 {
		t.Errorf("%d encoded, %d decoded, want 2", encoded, decoded)
	}
}

// TestVTErrors: what the methods fail with ends the call, with the code that
// says whose fault it is, and a message of a wrong size is never sent.
func TestVTErrors(t *testing.T) {
	nc := rpctest.Connect(t)
	serveVT(t, nc)
	c := dial(t, nc)
	for _, shape := range vtShapes {
		streams := shape.sent > 1
		for _, test := range []struct {
			name, text  string
			code        rpc.Code
			unary, many rpc.Execution // many: where the client streams
			says        string
		}{
			{"request that does not decode", vtUndecodable, rpc.CodeInvalidArgument, rpc.ExecutionNotRun, rpc.ExecutionDidRun, "no decoding"},
			{"response that does not decode", "give " + vtUndecodable, rpc.CodeInternal, rpc.ExecutionDidRun, rpc.ExecutionDidRun, "no decoding"},
			{"response that does not encode", "give " + vtUnencodable, rpc.CodeInternal, rpc.ExecutionDidRun, rpc.ExecutionDidRun, "no encoding"},
			{"response that is too small", "give " + vtTooSmall, rpc.CodeInternal, rpc.ExecutionDidRun, rpc.ExecutionDidRun, "SizeVT"},
			{"response that is too large", "give " + vtTooLarge, rpc.CodeInternal, rpc.ExecutionDidRun, rpc.ExecutionDidRun, "SizeVT"},
		} {
			t.Run(shape.name+"/"+test.name, func(t *testing.T) {
				want := test.unary
				if streams {
					want = test.many
				}
				got, err := shape.call(testContext(t), c, test.text)
				if err == nil {
					t.Fatalf("got %q", got)
				}
				if e := wantCode(t, err, test.code, want); !strings.Contains(e.Message(), test.says) {
					t.Errorf("%v does not say %q", e, test.says)
				}
			})
		}
		for text, says := range map[string]string{vtUnencodable: "no encoding", vtTooSmall: "SizeVT", vtTooLarge: "SizeVT"} {
			t.Run(shape.name+"/request, "+text, func(t *testing.T) {
				code, want := rpc.CodeInvalidArgument, rpc.ExecutionNotRun
				if streams { // the stream is open, and goes on
					code, want = rpc.CodeInternal, rpc.ExecutionMayHaveRun
				}
				_, err := shape.call(testContext(t), c, text)
				if e := wantCode(t, err, code, want); !strings.Contains(e.Message(), says) {
					t.Errorf("%v does not say %q", e, says)
				}
			})
		}
	}
	if got, err := vtShapes[0].call(testContext(t), c, "still here"); err != nil || got != "still here" {
		t.Errorf("after all that: %q, %v", got, err)
	}
}

// TestSendAfterFailedEncoding: a message that does not encode leaves nothing
// behind in the stream, nor in the buffer that the next one gets.
func TestSendAfterFailedEncoding(t *testing.T) {
	nc := rpctest.Connect(t)
	serveVT(t, nc)
	s, err := vtChat.Call(testContext(t), dial(t, nc))
	must(t, err)
	defer s.Close()
	for _, text := range []string{vtTooSmall, "a", vtUnencodable, "b", vtTooLarge, strings.Repeat("c", 10<<10)} {
		err := s.Send(newVT(text))
		if text == vtTooSmall || text == vtUnencodable || text == vtTooLarge {
			wantCode(t, err, rpc.CodeInternal, rpc.ExecutionMayHaveRun)
			continue
		}
		must(t, err)
		if got, err := vtText(s.Recv()); err != nil || got != text {
			t.Fatalf("got %q, %v", got, err)
		}
	}
}

// TestVTInJSON: JSON is made by package protojson alone.
func TestVTInJSON(t *testing.T) {
	nc := rpctest.Connect(t)
	serveVT(t, nc)
	c := dial(t, nc, rpc.WithCodec(rpc.CodecJSON))
	empty := &vtMessage{} // an Any in JSON has to be of a type that is linked
	sizes, encoded, decoded := vtCount(func() {
		if _, err := vtEcho.Call(testContext(t), c, empty); err != nil {
			t.Error(err)
		}
	})
	if sizes+encoded+decoded != 0 {
		t.Errorf("%d sizes, %d encoded, %d decoded", sizes, encoded, decoded)
	}
}
