package rpc_test

import (
	stdbytes "bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

// traffic counts the bytes of what goes to and from the service of the tests.
func traffic(t *testing.T, srv *rpctest.Server) (bytesSince func() int) {
	t.Helper()
	nc := srv.Connect()
	sub, err := nc.SubscribeSync(">")
	must(t, err)
	must(t, nc.Flush())
	return func() (n int) {
		// What the servers and clients sent before has come then: they have flushed, too.
		must(t, nc.Flush())
		for pending, _, _ := sub.Pending(); pending > 0; pending-- {
			m, err := sub.NextMsgWithContext(testContext(t))
			must(t, err)
			n += len(m.Data)
		}
		return n
	}
}

// TestCompression: requests, responses and streams become smaller, if they can.
func TestCompression(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{watch: func(_ context.Context, in string, to *rpc.Sender[*text]) error {
		return to.Send(wrapperspb.String(in))
	}})
	c := dial(t, srv.Connect())
	bytesSince := traffic(t, srv)
	noise := make([]byte, 300_000)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	for _, compression := range []rpc.Compression{rpc.CompressionNone, rpc.CompressionGzip, rpc.CompressionZstd} {
		for _, test := range []struct {
			name   string
			in     []byte
			shrink bool
		}{
			{"empty", nil, false}, {"small", []byte("abc"), false}, {"noise", noise, false},
			{"text", []byte(strings.Repeat("natscall ", 30_000)), true}, {"large", make([]byte, 5<<20), true},
		} {
			t.Run(fmt.Sprintf("%v %s", compression, test.name), func(t *testing.T) {
				bytesSince()
				res, err := testBlob.Call(testContext(t), c, wrapperspb.Bytes(test.in), rpc.WithCompression(compression))
				if err != nil || !stdbytes.Equal(res.GetValue(), test.in) {
					t.Fatalf("the call: %d bytes came, %v", len(res.GetValue()), err)
				}
				if n := bytesSince(); (n < len(test.in)) != (test.shrink && compression != rpc.CompressionNone) {
					t.Errorf("%d bytes there and back took %d", len(test.in), n)
				}
			})
		}
		r, err := watch(testContext(t), c, strings.Repeat("x", 100_000), rpc.WithCompression(compression))
		must(t, err)
		m, err := r.Recv()
		if err != nil || len(m.GetValue()) != 100_000 {
			t.Errorf("%v stream: %d bytes came, %v", compression, len(m.GetValue()), err)
		}
		r.Close()
	}
	_, err := do(testContext(t), c, "x", rpc.WithCompression(9))
	wantCode(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun)
}

// TestDecompressionBomb: what a message becomes is bounded before the memory is spent.
func TestDecompressionBomb(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{}, rpc.WithMaxMessageSize(1<<20))
	nc := srv.Connect()
	inside, err := proto.Marshal(wrapperspb.Bytes(make([]byte, 64<<20)))
	must(t, err)
	for compression, bomb := range map[wire.Compression][]byte{
		wire.CompressionGzip: gzipped(t, inside), wire.CompressionZstd: zstded(t, inside),
	} {
		m := request(t, nc, compression, bomb)
		if got := m.Header.Get("Nats-Service-Error-Code"); got != "8" {
			t.Errorf("compression %d: a bomb of %d bytes is answered with code %q", compression, len(bomb), got)
		}
		m = request(t, nc, compression, []byte("not compressed"))
		if got := m.Header.Get("Nats-Service-Error-Code"); got != "3" {
			t.Errorf("compression %d: garbage is answered with code %q", compression, got)
		}
	}
}

func request(t *testing.T, nc *nats.Conn, c wire.Compression, body []byte) *nats.Msg {
	t.Helper()
	data := append(wire.AppendRequest(nil, wire.NewID(), wire.CodecProto, 0), body...)
	data[wire.FlagsOffset] |= byte(c.Flags() | wire.FlagCompressed)
	m, err := nc.RequestWithContext(testContext(t), "test.v1.TestService.Blob", data)
	must(t, err)
	return m
}

func gzipped(t *testing.T, b []byte) []byte {
	t.Helper()
	var out stdbytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	must(t, err)
	must(t, w.Close())
	return out.Bytes()
}

func zstded(t *testing.T, b []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	must(t, err)
	defer w.Close()
	return w.EncodeAll(b, nil)
}
