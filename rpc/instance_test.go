package rpc_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	natscallv1 "github.com/natscall/natscall/gen/natscall/v1"
	orderv1 "github.com/natscall/natscall/gen/order/v1"
	"github.com/natscall/natscall/gen/order/v1/orderv1nats"
	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/internal/wire"
	"github.com/natscall/natscall/rpc/rpctest"
)

// replica is a server that answers with its name.
type replica struct {
	*rpc.Server
	name  string
	notes atomic.Int32
}

// serveReplicas runs n servers that answer with their names, their number.
func serveReplicas(t testing.TB, connect func() *nats.Conn, n int, opts ...rpc.ServerOption) []*replica {
	t.Helper()
	all := make([]*replica, n)
	for i := range all {
		r := &replica{name: fmt.Sprint(i)}
		r.Server = serve(t, connect(), &funcs{
			do: func(context.Context, string) (string, error) { return r.name, nil },
			read: func(_ context.Context, in string) (string, error) {
				return "", rpc.Errorf(rpc.CodeNotFound, "%s has no %s", r.name, in)
			},
			blob: func(_ context.Context, in []byte) ([]byte, error) {
				return append([]byte(r.name), make([]byte, 2<<20)...), nil
			},
			note: func(context.Context, *structpb.Struct) error { r.notes.Add(1); return nil },
			watch: func(_ context.Context, _ string, to *rpc.Sender[*text]) error {
				return to.Send(wrapperspb.String(r.name))
			},
			gather: func(_ context.Context, from *rpc.Receiver[*text]) (string, error) {
				_, err := recvAll(from.Recv)
				return r.name, err
			},
		}, opts...)
		all[i] = r
	}
	return all
}

func (r *replica) id() string { return r.Instance(testDesc.Name) }

// TestWithInstance: a call of any form reaches the instance that it names, and no other.
func TestWithInstance(t *testing.T) {
	srv := rpctest.NewServer(t)
	for group, opts := range map[string][]rpc.ServerOption{"queue group": nil, "no queue group": {rpc.WithoutQueueGroup()}} {
		t.Run(group, func(t *testing.T) {
			prefix := strings.ReplaceAll(group, " ", "-")
			replicas := serveReplicas(t, func() *nats.Conn { return srv.Connect() }, 3, append(opts, rpc.WithSubjectPrefix(prefix))...)
			clients := map[string]*rpc.Client{
				"envelope": dial(t, srv.Connect(), rpc.WithSubjectPrefix(prefix)),
				"JSON":     dial(t, srv.Connect(), rpc.WithSubjectPrefix(prefix), rpc.WithCodec(rpc.CodecJSON)),
				"plain":    dial(t, srv.Connect(), rpc.WithSubjectPrefix(prefix), rpc.WithPlainRequests()),
				"batched":  dial(t, srv.Connect(), rpc.WithSubjectPrefix(prefix), rpc.WithBatching(1<<14)),
			}
			for _, r := range replicas {
				to := rpc.WithInstance(r.id())
				for name, c := range clients {
					each(t, 20, func(int) error {
						if got, err := do(testContext(t), c, "x", to); got != r.name || err != nil {
							return fmt.Errorf("%s: %q has answered, %v, want %q", name, got, err, r.name)
						}
						return nil
					})
				}
				reachesWithStreams(t, clients["envelope"], r)
				must(t, testNote.Call(testContext(t), clients["envelope"], new(structpb.Struct), to))
				for r.notes.Load() == 0 {
					runtime.Gosched()
				}
			}
			for _, r := range replicas {
				if n := r.notes.Load(); n != 1 {
					t.Errorf("%s got %d one-way messages", r.name, n)
				}
			}
		})
	}
}

// reachesWithStreams makes the calls that travel as streams to a replica.
func reachesWithStreams(t *testing.T, c *rpc.Client, r *replica) {
	t.Helper()
	ctx, to := testContext(t), rpc.WithInstance(r.id())
	var instance string
	res, err := testBlob.Call(ctx, c, wrapperspb.Bytes(make([]byte, 2<<20)), to, rpc.ResponseInstance(&instance))
	if err != nil || string(res.GetValue()[:1]) != r.name || instance != r.id() {
		t.Errorf("a large call: %s, %v, want %s", instance, err, r.id())
	}
	w, err := watch(ctx, c, "x", to)
	must(t, err)
	m, err := w.Recv()
	if err != nil || m.GetValue() != r.name || w.Instance() != r.id() {
		t.Errorf("a server stream: %s of %s, %v", m.GetValue(), w.Instance(), err)
	}
	w.Close()
	g, err := testGather.Call(ctx, c, to)
	must(t, err)
	if m, err = g.CloseAndRecv(); err != nil || m.GetValue() != r.name || g.Instance() != r.id() {
		t.Errorf("a client stream: %s of %s, %v", m.GetValue(), g.Instance(), err)
	}
	b, err := testChat.Call(ctx, c, to)
	must(t, err)
	if b.Instance() != r.id() {
		t.Errorf("a bidirectional stream is at %s", b.Instance())
	}
	b.CloseSend()
	_, err = recvAll(b.Recv)
	must(t, err)
}

// TestInstanceIsNotThere: a call to one instance does not wait for another one.
func TestInstanceIsNotThere(t *testing.T) {
	srv := rpctest.NewServer(t)
	inside, proceed := make(chan struct{}), make(chan struct{})
	draining := newTestServer(t, srv.Connect(), &funcs{do: func(_ context.Context, in string) (string, error) {
		close(inside)
		<-proceed
		return in, nil
	}})
	gone := newTestServer(t, srv.Connect(), &funcs{})
	id, goneID := draining.Instance(testDesc.Name), gone.Instance(testDesc.Name)
	shutdown(t, gone)
	c := dial(t, srv.Connect())
	running := make(chan error, 1)
	go func() { running <- callOnce(t, c) }()
	<-inside
	stopped := make(chan error, 1)
	go func() { stopped <- draining.Shutdown(testContext(t)) }()
	for draining.State(testDesc.Name) != "STATE_DRAINING" {
		runtime.Gosched()
	}
	serve(t, srv.Connect(), &funcs{}) // which could take the calls
	hour, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	for to, text := range map[string]string{id: "the server is draining", goneID: "instance " + goneID + " of test.v1.TestService has gone or never was"} {
		calls := map[string]func(...rpc.CallOption) error{
			"unary": func(o ...rpc.CallOption) error { _, err := do(hour, c, "x", o...); return err },
			"plain": func(o ...rpc.CallOption) error {
				_, err := do(hour, c, "x", append(o, rpc.WithPlainRequests())...)
				return err
			},
			"stream": func(o ...rpc.CallOption) error { _, err := watch(hour, c, "x", o...); return err },
			"large": func(o ...rpc.CallOption) error {
				_, err := testBlob.Call(hour, c, wrapperspb.Bytes(make([]byte, 2<<20)), o...)
				return err
			},
		}
		for name, call := range calls {
			e := wantCode(t, call(rpc.WithInstance(to)), rpc.CodeUnavailable, rpc.ExecutionNotRun)
			wantText(t, e, text)
			if want := map[bool]string{true: id}[to == id]; e.Instance() != want {
				t.Errorf("%s: the error is of %q, want %q", name, e.Instance(), want)
			}
		}
	}
	close(proceed)
	must(t, <-running)
	must(t, <-stopped)
}

// TestMethodAtInstance: an instance says itself which methods it has, whatever the others have.
func TestMethodAtInstance(t *testing.T) {
	srv := rpctest.NewServer(t)
	older := serveOlder(t, srv.Connect(), &funcs{})
	newer := serve(t, srv.Connect(), &funcs{})
	c := dial(t, srv.Connect())
	id := older.Instance(testDesc.Name)
	calls := map[string]func() error{
		"unary": func() error { return read(testContext(t), c, rpc.WithInstance(id)) },
		"plain": func() error { return read(testContext(t), c, rpc.WithInstance(id), rpc.WithPlainRequests()) },
		"JSON":  func() error { return read(testContext(t), c, rpc.WithInstance(id), rpc.WithCodec(rpc.CodecJSON)) },
		"batched": func() error {
			return read(testContext(t), dial(t, srv.Connect(), rpc.WithBatching(1<<14)), rpc.WithInstance(id))
		},
		"stream":        func() error { _, err := watch(testContext(t), c, "x", rpc.WithInstance(id)); return err },
		"client stream": func() error { _, err := testGather.Call(testContext(t), c, rpc.WithInstance(id)); return err },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			e := wantCode(t, call(), rpc.CodeUnimplemented, rpc.ExecutionNotRun)
			wantText(t, e, "the instance has no method ")
			wantText(t, e, "it has Do, Note")
			if e.Instance() != id || !e.Remote() {
				t.Errorf("the error is of %q, remote: %v", e.Instance(), e.Remote())
			}
		})
	}
	// An event that nobody takes is lost, as on any subject.
	must(t, testNote.Call(testContext(t), c, new(structpb.Struct), rpc.WithInstance(newer.Instance(testDesc.Name))))
}

func TestInvalidInstances(t *testing.T) {
	c := dial(t, rpctest.Connect(t))
	for _, id := range []string{"", "*", ">", "a.b", "a b", "_all", "a*", "\n", "ä", strings.Repeat("x", 256)} {
		_, err := do(testContext(t), c, "x", rpc.WithInstance(id))
		wantText(t, wantCode(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun), "WithInstance: the instance ")
	}
	_, err := watch(testContext(t), c, "x", rpc.ResponseInstance(new(string)))
	wantText(t, wantCode(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun), "its stream has the method Instance")
	if id := rpc.NewServer(nil).Instance("x") + new(rpc.Server).Instance("x") + (*rpc.Error)(nil).Instance(); id != "" {
		t.Errorf("nothing is an instance called %q", id)
	}
}

// TestErrorsNameInstances: an error says which instance it comes from, in each form.
func TestErrorsNameInstances(t *testing.T) {
	srv := rpctest.NewServer(t)
	r := serveReplicas(t, func() *nats.Conn { return srv.Connect() }, 1)[0]
	c := dial(t, srv.Connect())
	calls := map[string]func() error{
		"unary":   func() error { return read(testContext(t), c) },
		"JSON":    func() error { return read(testContext(t), c, rpc.WithCodec(rpc.CodecJSON)) },
		"plain":   func() error { return read(testContext(t), c, rpc.WithPlainRequests()) },
		"batched": func() error { return read(testContext(t), dial(t, srv.Connect(), rpc.WithBatching(1<<14))) },
		"no room": func() error {
			_, err := testBlob.Call(testContext(t), c, wrapperspb.Bytes([]byte("x")), rpc.WithPlainRequests())
			return err
		},
		"too much": func() error {
			_, err := testBlob.Call(testContext(t), c, wrapperspb.Bytes([]byte("x")), rpc.WithMaxReceiveSize(10))
			return err
		},
		"refused open": func() error {
			m := rpc.NewServerStreamMethod[text, text](&testDesc, rpc.MethodDesc{Name: "Note", Subject: "notes.new"})
			_, err := m.Call(testContext(t), c, wrapperspb.String("x"))
			return err
		},
		"stream": func() error {
			s, err := watch(testContext(t), c, "x", rpc.WithMaxReceiveSize(1))
			must(t, err)
			_, err = recvAll(s.Recv)
			return err
		},
		"closed stream": func() error {
			s, err := testChat.Call(testContext(t), c)
			must(t, err)
			s.Close()
			_, err = recvAll(s.Recv)
			return err
		},
		"status of a stream": func() error {
			s, err := testGather.Call(testContext(t), c)
			must(t, err)
			must(t, s.Send(wrapperspb.String("x")))
			s.Close()
			_, err = s.CloseAndRecv()
			return err
		},
	}
	for name, call := range calls {
		err := call()
		e, ok := err.(*rpc.Error)
		if !ok || e.Instance() != r.id() {
			t.Errorf("%s: the error %v names %q, want %q", name, err, e.Instance(), r.id())
		}
	}
	// What this process says is of no instance.
	_, err := do(testContext(t), c, "\xff")
	if e := wantCode(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun); e.Instance() != "" {
		t.Errorf("the error names %q", e.Instance())
	}
}

// TestErrorsOfOthersAreNotNamed: an error that a handler passes on is its own.
func TestErrorsOfOthersAreNotNamed(t *testing.T) {
	srv := rpctest.NewServer(t)
	inner := serveReplicas(t, func() *nats.Conn { return srv.Connect() }, 1, rpc.WithSubjectPrefix("inner"))[0]
	innerClient := dial(t, srv.Connect(), rpc.WithSubjectPrefix("inner"))
	outer := serve(t, srv.Connect(), &funcs{read: func(ctx context.Context, in string) (string, error) {
		err := read(ctx, innerClient)
		if e := err.(*rpc.Error); e.Instance() != inner.id() {
			t.Errorf("the inner error names %q", e.Instance())
		}
		return "", err
	}})
	e := wantCode(t, read(testContext(t), dial(t, srv.Connect())), rpc.CodeNotFound, rpc.ExecutionDidRun)
	if e.Instance() != outer.Instance(testDesc.Name) {
		t.Errorf("the outer error names %q", e.Instance())
	}
}

// TestResponsesNameInstances: a response names its instance where it is asked to, and nothing of
// that is metadata.
func TestResponsesNameInstances(t *testing.T) {
	srv := rpctest.NewServer(t)
	r := serveReplicas(t, func() *nats.Conn { return srv.Connect() }, 1)[0]
	for name, opts := range map[string][]rpc.ClientOption{
		"envelope": nil, "JSON": {rpc.WithCodec(rpc.CodecJSON)}, "plain": {rpc.WithPlainRequests()}, "batched": {rpc.WithBatching(1 << 14)},
		"compressed": {rpc.WithCompression(rpc.CompressionGzip)},
	} {
		t.Run(name, func(t *testing.T) {
			nc := srv.Connect()
			named := listenForNames(t, nc)
			c := dial(t, nc, opts...)
			var instance string
			var h, trailer rpc.Header
			_, err := do(testContext(t), c, "x")
			must(t, err)
			if n := named(); n != 0 {
				t.Errorf("%d responses name the instance unasked", n)
			}
			_, err = do(testContext(t), c, "x", rpc.ResponseInstance(&instance), rpc.ResponseHeader(&h), rpc.ResponseTrailer(&trailer))
			if err != nil || instance != r.id() || len(h)+len(trailer) != 0 {
				t.Errorf("%q has answered, %v, %v, %v", instance, h, trailer, err)
			}
			if n := named(); n != 1 {
				t.Errorf("%d responses name the instance", n)
			}
			instance = ""
			if err = read(testContext(t), c, rpc.ResponseInstance(&instance), rpc.ResponseHeader(&h)); instance != r.id() || len(h) != 0 {
				t.Errorf("%q has failed, %v, %v", instance, h, err)
			}
			_, err = do(testContext(t), c, "\xff", rpc.ResponseInstance(&instance))
			if rpc.CodeOf(err) != rpc.CodeInvalidArgument || instance != "" {
				t.Errorf("%q has answered what was not sent, %v", instance, err)
			}
		})
	}
}

// listenForNames returns a function that counts the replies to a connection's inbox since it was
// last called that name an instance.
func listenForNames(t testing.TB, nc *nats.Conn) func() int {
	t.Helper()
	replies := listen(t, nc, "_INBOX.>")
	return func() (n int) {
		for _, m := range replies() {
			if m.Header.Get("Natscall-Instance") != "" {
				n++
			}
		}
		return n
	}
}

// TestInterceptorsSeeInstances: on both sides.
func TestInterceptorsSeeInstances(t *testing.T) {
	srv := rpctest.NewServer(t)
	var onServer atomic.Value
	r := serveReplicas(t, func() *nats.Conn { return srv.Connect() }, 1, rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.AskInstance() // which is a client's to ask
		onServer.Store(call.Instance())
		return next(ctx, call)
	}))[0]
	var before, after string
	ask := true
	c := dial(t, srv.Connect(), rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		if before = call.Instance(); ask {
			call.AskInstance()
		}
		err := next(ctx, call)
		after = call.Instance()
		return err
	}))
	seen := func(want string) {
		t.Helper()
		if before != "" || after != want || onServer.Load() != r.id() {
			t.Errorf("it is %q before, %q after and %q on the server, want %q after", before, after, onServer.Load(), want)
		}
	}
	must(t, callOnce(t, c))
	seen(r.id())
	_, err := do(testContext(t), c, "x", rpc.WithPlainRequests())
	must(t, err)
	seen(r.id())
	ask = false
	must(t, callOnce(t, c))
	seen("")
	wantCode(t, read(testContext(t), c), rpc.CodeNotFound, rpc.ExecutionDidRun)
	seen(r.id())
	s, err := watch(testContext(t), c, "x")
	must(t, err)
	seen(r.id())
	s.Close()
}

// orderCounter counts the orders that it takes.
type orderCounter struct {
	orderv1nats.UnimplementedOrderServiceServer
	taken atomic.Int32
}

func (o *orderCounter) PlaceOrder(context.Context, *orderv1.PlaceOrderRequest) (*orderv1.PlaceOrderResponse, error) {
	o.taken.Add(1)
	return new(orderv1.PlaceOrderResponse), nil
}

// TestSessionGuide: the code of the guide stays with an instance.
func TestSessionGuide(t *testing.T) {
	srv := rpctest.NewServer(t)
	var counters [3]orderCounter
	for i := range counters {
		s := rpc.NewServer(srv.Connect())
		must(t, orderv1nats.RegisterOrderServiceServer(s, &counters[i]))
		must(t, s.Start(testContext(t)))
		defer shutdown(t, s)
	}
	orders := orderv1nats.NewOrderServiceClient(dial(t, srv.Connect()))
	for range 20 {
		must(t, placeBoth(testContext(t), orders, new(orderv1.PlaceOrderRequest), new(orderv1.PlaceOrderRequest)))
		for i := range counters {
			if n := counters[i].taken.Load(); n%2 != 0 {
				t.Fatalf("instance %d has taken %d orders", i, n)
			}
		}
	}
}

// TestInstanceOnTheWire: plain NATS clients reach an instance, and any client may ask it alone.
func TestInstanceOnTheWire(t *testing.T) {
	nc := rpctest.Connect(t)
	r := serveReplicas(t, func() *nats.Conn { return nc }, 2)[1]
	root := testRoot + "._i." + r.id()
	m, err := nc.RequestMsgWithContext(testContext(t), &nats.Msg{
		Subject: root + ".call.Do", Data: []byte(`"x"`), Header: nats.Header{"Natscall-Name-Instance": {"1"}},
	})
	must(t, err)
	if string(m.Data) != `"1"` || m.Header.Get("Natscall-Instance") != r.id() {
		t.Errorf("the answer is %q, %v", m.Data, m.Header)
	}
	m, err = nc.RequestWithContext(testContext(t), root+".call.None", []byte(`"x"`))
	must(t, err)
	if m.Header.Get("Nats-Service-Error-Code") != "12" || m.Header.Get("Natscall-Not-Run") != "1" || m.Header.Get("Natscall-Instance") != r.id() {
		t.Errorf("the answer is %q, %v", m.Data, m.Header)
	}
	id := wire.NewID()
	m, err = nc.RequestWithContext(testContext(t), root+".instances", wire.AppendInstanceQuery(nil, id))
	must(t, err)
	e, err := wire.Parse(m.Data)
	must(t, err)
	var answer natscallv1.Instance
	must(t, proto.Unmarshal(e.Body, &answer))
	if e.Kind != wire.KindInstanceAnswer || e.ID != id || answer.GetInstance() != r.id() || answer.GetState() != natscallv1.State_STATE_SERVING || len(answer.GetMethods()) != 8+2 || answer.GetQueueGroup() != "q" {
		t.Errorf("the answer is %v: %v", e, &answer)
	}
}
