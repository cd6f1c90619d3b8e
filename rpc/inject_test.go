package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// tap is a network that keeps all bytes that go to the NATS server.
type tap struct {
	net.Listener
	target string
	copies sync.WaitGroup

	mu   sync.Mutex
	sent []*strings.Builder // by connection
}

func newTap(t *testing.T, srv *rpctest.Server) *tap {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &tap{Listener: l, target: strings.TrimPrefix(srv.URL(), "nats://")}
	p.copies.Go(p.accept)
	t.Cleanup(func() { _ = l.Close(); p.copies.Wait() })
	return p
}

// accept ends with the listener.
func (p *tap) accept() {
	for {
		client, err := p.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		kept := new(strings.Builder)
		p.mu.Lock()
		p.sent = append(p.sent, kept)
		p.mu.Unlock()
		both := func() { _, _ = client.Close(), server.Close() }
		p.copies.Go(func() { defer both(); _, _ = io.Copy(client, server) })
		p.copies.Go(func() { defer both(); _, _ = io.Copy(io.MultiWriter(server, p.writer(kept)), client) })
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func (p *tap) writer(to *strings.Builder) io.Writer {
	return writerFunc(func(b []byte) (int, error) {
		p.mu.Lock()
		defer p.mu.Unlock()
		return to.Write(b)
	})
}

// connections returns what each connection has sent.
func (p *tap) connections() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []string
	for _, kept := range p.sent {
		out = append(out, kept.String())
	}
	return out
}

// operation is a line of the NATS protocol, with the header of its message.
type operation struct {
	line   string
	header []string
}

// operations reads what a client sends as a NATS server does.
func operations(sent string) (all []operation, err error) {
	for len(sent) > 0 {
		line, rest, ok := strings.Cut(sent, "\r\n")
		if !ok {
			return all, nil // cut off by the end of the test
		}
		op := operation{line: line}
		fields := strings.Fields(line)
		switch {
		case len(fields) > 0 && slices.Contains([]string{"CONNECT", "PING", "PONG", "SUB", "UNSUB"}, fields[0]):
		case len(fields) > 2 && (fields[0] == "PUB" || fields[0] == "HPUB"):
			size, err := strconv.Atoi(fields[len(fields)-1])
			if err != nil || size+2 > len(rest) || rest[size:size+2] != "\r\n" {
				return all, fmt.Errorf("the size of %q is wrong", line)
			}
			if fields[0] == "HPUB" {
				header, err := strconv.Atoi(fields[len(fields)-2])
				if err != nil || header > size || !strings.HasSuffix(rest[:header], "\r\n\r\n") {
					return all, fmt.Errorf("the header of %q is wrong", line)
				}
				op.header = strings.Split(strings.TrimSuffix(rest[:header], "\r\n\r\n"), "\r\n")
			}
			rest = rest[size+2:]
		default:
			return all, fmt.Errorf("%q is no operation", line)
		}
		all, sent = append(all, op), rest
	}
	return all, nil
}

// hostile are texts by which somebody tries to say more than one thing. If it works, the word
// "evil" begins a line or a header, or is part of a subject.
var hostile = []string{
	"\r\nPUB evil 0\r\n\r\n", "x 0\r\n\r\nPUB evil 0\r\n", "\nEvil: 1", "\r\nEvil: 1", "\rEvil: 1", "x\r\n\r\nEvil: 1",
	"\u0085Evil: 1", "\u2028Evil: 1", "\x00", "\x00\r\nEvil: 1", "\xff\r\nEvil: 1", " evil", "a evil", "a\tevil", "a\vevil",
	"*", ">", "a.*", "a.>", "a..evil", ".evil", "evil.", "$SYS.x", "_INBOX.x", "a\r\nSUB > 1", "Evil: 1", "",
	strings.Repeat("a", 5000), "{\"evil\":1}\r\n",
}

// attacks give a text to everything that a user of the package can set.
func attacks(t *testing.T, nc *nats.Conn, in string) map[string]func() error {
	ctx, c := testContext(t), dial(t, nc)
	call := func(opts ...rpc.CallOption) error { _, err := do(ctx, c, "x", opts...); return err }
	raw := func(d rpc.ServiceDesc, m rpc.MethodDesc, kind rpc.Kind) error {
		method := rpc.NewRawMethod(&d, m, kind)
		ctx, cancel := context.WithTimeout(ctx, 50*time.Millisecond) // nobody serves them
		defer cancel()
		req, res := &rpc.Raw{Data: []byte(in)}, new(rpc.Raw)
		if kind <= rpc.KindOneWay {
			return method.Call(ctx, c, req, res, rpc.WithoutRetry())
		}
		s, err := method.Open(ctx, c, nil, rpc.WithoutRetry())
		if err == nil {
			s.Close()
		}
		return err
	}
	out := map[string]func() error{
		"header key":   func() error { return call(rpc.WithHeader(in, "v")) },
		"header value": func() error { return call(rpc.WithHeader("k", in)) },
		"plain header": func() error { return call(rpc.WithHeader("k", in), rpc.WithPlainRequests()) },
		"instance":     func() error { return call(rpc.WithInstance(in)) },
		"client prefix": func() error {
			_, err := do(ctx, dial(t, nc, rpc.WithSubjectPrefix(in)), "x", rpc.WithoutRetry())
			return err
		},
		"client header": func() error { _, err := do(ctx, dial(t, nc, rpc.WithHeader("k", in)), "x"); return err },
		"attempt": func() error {
			return call(rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
				call.OnAttempt(func(a *rpc.Attempt) error {
					return errors.Join(a.SetHeader("Natscall-Ext-"+in, "v"), a.SetHeader("Natscall-Ext-A", in))
				})
				return next(ctx, call)
			}))
		},
		"subject": func() error {
			return raw(rpc.ServiceDesc{Name: "a.S"}, rpc.MethodDesc{Name: "Do", Subject: in}, rpc.KindUnary)
		},
		"one-way subject": func() error {
			return raw(rpc.ServiceDesc{Name: "a.S"}, rpc.MethodDesc{Name: "Do", Subject: in}, rpc.KindOneWay)
		},
		"stream subject": func() error {
			return raw(rpc.ServiceDesc{Name: "a.S"}, rpc.MethodDesc{Name: "Do", Subject: in}, rpc.KindBidi)
		},
		"method name":  func() error { return raw(rpc.ServiceDesc{Name: "a.S"}, rpc.MethodDesc{Name: in}, rpc.KindUnary) },
		"service name": func() error { return raw(rpc.ServiceDesc{Name: in}, rpc.MethodDesc{Name: "Do"}, rpc.KindUnary) },
		"body":         func() error { _, err := do(ctx, c, in); return err },
		"plain body": func() error {
			_, err := do(ctx, c, in, rpc.WithPlainRequests(), rpc.WithCodec(rpc.CodecJSON))
			return err
		},
		"note": func() error {
			return testNote.Call(ctx, c, &structpb.Struct{Fields: map[string]*structpb.Value{in: nil}})
		},
	}
	for what, desc := range map[string]rpc.ServiceDesc{
		"service subject prefix": {Name: "a.S", MicroName: "S", Version: "1.0.0", SubjectPrefix: in},
		"served name":            {Name: in, MicroName: "S", Version: "1.0.0"},
		"micro name":             {Name: "a.S", MicroName: in, Version: "1.0.0"},
		"version":                {Name: "a.S", MicroName: "S", Version: in},
		"queue group":            {Name: "a.S", MicroName: "S", Version: "1.0.0", QueueGroup: in},
	} {
		out[what] = func() error { return registerRaw(t, nc, desc, rpc.MethodDesc{Name: "Do"}) }
	}
	out["served method"] = func() error {
		return registerRaw(t, nc, rpc.ServiceDesc{Name: "a.S", MicroName: "S", Version: "1.0.0"}, rpc.MethodDesc{Name: in})
	}
	out["served subject"] = func() error {
		return registerRaw(t, nc, rpc.ServiceDesc{Name: "a.S", MicroName: "S", Version: "1.0.0"}, rpc.MethodDesc{Name: "Do", Subject: in})
	}
	// What a handler sends is about what its caller has sent.
	for what, header := range map[string]string{"response": "", "plain response": "plain", "trailer": "trailer", "error": "error", "response key": "key"} {
		out[what] = func() error {
			opts := []rpc.CallOption{}
			if header == "plain" {
				opts = append(opts, rpc.WithPlainRequests())
			}
			_, err := testRead.Call(ctx, c, wrapperspb.String(header+"|"+in), opts...)
			return err
		}
		out[what+" of a stream"] = func() error {
			r, err := watch(ctx, c, header+"|"+in)
			if err == nil {
				_, err = recvAll(r.Recv)
			}
			return err
		}
	}
	return out
}

// registerRaw serves a method for a moment.
func registerRaw(t *testing.T, nc *nats.Conn, s rpc.ServiceDesc, m rpc.MethodDesc) error {
	srv := rpc.NewServer(nc)
	err := rpc.Register(srv, &s, struct{}{}, nil, rpc.HandleMethod(rpc.NewRawMethod(&s, m, rpc.KindUnary), func(struct{}, context.Context, *rpc.Stream) error { return nil }))
	if err == nil {
		err = errors.Join(srv.Start(testContext(t)), srv.Shutdown(testContext(t)))
	}
	return err
}

// answerHostile puts the text that a call has sent into what it says it is for.
func answerHostile(ctx context.Context, in string) error {
	what, text, _ := strings.Cut(in, "|")
	call := rpc.CallFromContext(ctx)
	switch what {
	case "error":
		return rpc.NewError(rpc.CodeAborted, text, wrapperspb.String(text))
	case "trailer":
		call.ResponseTrailer().Set("k", text)
	case "key":
		call.ResponseHeader().Set(text, "v")
	default:
		call.ResponseHeader().Set("k", text)
	}
	return nil
}

// TestNothingIsInjected gives hostile texts to all that a user can set, and reads what reaches the
// NATS server as it does: nothing is there that was not meant.
func TestNothingIsInjected(t *testing.T) {
	srv := rpctest.NewServer(t)
	network := newTap(t, srv)
	connect := func() *nats.Conn {
		nc, err := nats.Connect("nats://"+network.Addr().String(), quiet)
		must(t, err)
		t.Cleanup(nc.Close)
		return nc
	}
	serve(t, connect(), &funcs{
		read: func(ctx context.Context, in string) (string, error) { return "", answerHostile(ctx, in) },
		watch: func(ctx context.Context, in string, to *rpc.Sender[*text]) error {
			return errors.Join(answerHostile(ctx, in), to.Send(wrapperspb.String(in)))
		},
	})
	for _, in := range hostile {
		nc := connect() // a text that breaks it would spoil what follows
		for name, attack := range attacks(t, nc, in) {
			err := attack()
			if refusable := strings.ContainsAny(in, "\r\n\x00"); refusable && err == nil && !slices.Contains([]string{"body", "plain body", "note"}, name) {
				t.Errorf("%s: %q is taken", name, in)
			}
			if nc.IsClosed() {
				t.Fatalf("%s: %q has closed the connection: %v", name, in, nc.LastError())
			}
		}
		must(t, nc.FlushWithContext(testContext(t)))
	}
	for _, sent := range network.connections() {
		all, err := operations(sent)
		if err != nil {
			t.Errorf("NATS cannot read what was sent: %v", err)
		}
		for _, op := range all {
			fields := strings.Fields(op.line)
			if fields[0] == "PUB" || fields[0] == "HPUB" || fields[0] == "SUB" {
				checkSubject(t, op.line, fields[0] != "SUB")
			}
			for i, line := range op.header {
				key, _, ok := strings.Cut(line, ":")
				if i > 0 && (!ok || strings.EqualFold(key, "evil") || strings.ContainsAny(line, "\r\n\x00")) {
					t.Errorf("%q has the header line %q", op.line, line)
				}
			}
		}
	}
}

// checkSubject looks at the subject of a line.
func checkSubject(t *testing.T, line string, publish bool) {
	t.Helper()
	subject := strings.Fields(line)[1]
	switch tokens := strings.Split(subject, "."); {
	case strings.Contains(subject, "evil"), slices.Contains(tokens, ""):
		t.Errorf("the subject of %q was injected", line)
	case publish && (slices.Contains(tokens, "*") || slices.Contains(tokens, ">")):
		t.Errorf("%q publishes to a wildcard", line)
	}
}
