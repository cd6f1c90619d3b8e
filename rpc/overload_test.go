package rpc_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// busy is a service whose calls of Do, after the first, run until they are let go.
type busy struct {
	runs    atomic.Int32
	running chan struct{}
	finish  chan struct{}
}

func newBusy() *busy {
	return &busy{running: make(chan struct{}, 1000), finish: make(chan struct{})}
}

func (b *busy) do(_ context.Context, in string) (string, error) {
	b.runs.Add(1)
	b.running <- struct{}{}
	<-b.finish
	return in, nil
}

// occupy makes n calls, which run until finish is closed, and returns their results.
func (b *busy) occupy(t *testing.T, c *rpc.Client, n int) (results chan error) {
	t.Helper()
	results = make(chan error, n)
	for range n {
		go func() { results <- callOnce(t, c) }()
		<-b.running
	}
	return results
}

// handlerTime is what a slow handler takes, and tooShort a deadline that it cannot keep.
const (
	handlerTime = 400 * time.Millisecond
	tooShort    = 300 * time.Millisecond
)

// learnt is a busy service of which the server knows how long its calls take.
func learnt(t *testing.T, opts ...rpc.ServerOption) (*busy, *rpc.Client, func() endpointData) {
	t.Helper()
	b, first := newBusy(), true
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{do: func(ctx context.Context, in string) (string, error) {
		if first {
			first = false
			<-time.After(handlerTime)
			return in, nil
		}
		return b.do(ctx, in)
	}}, opts...)
	c := dial(t, nc)
	must(t, callOnce(t, c))
	return b, c, func() endpointData { return dataOf(t, statsOf(t, nc, 1)[0].Endpoints[0]) }
}

// TestHopelessCalls: of many calls that cannot be answered before their deadlines none runs, and
// they are told so at once, and when to come again.
func TestHopelessCalls(t *testing.T) {
	const calls = 50
	b, c, stats := learnt(t, rpc.WithMaxConcurrency(1), rpc.WithMaxQueue(1000))
	if ms := *stats().Estimate; ms < 400 {
		t.Errorf("a call is estimated to take %v ms", ms)
	}
	occupied := b.occupy(t, c, 1)
	each(t, calls, func(int) error {
		_, err := do(testContext(t), c, "hopeless", rpc.WithTimeout(tooShort))
		if rpc.CodeOf(err) == rpc.CodeDeadlineExceeded { // the machine is busy
			return nil
		}
		wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionNotRun)
		wantText(t, err, "/test.v1.TestService/Do is busy: the call would wait for about ")
		wantText(t, err, "rpc.WithMaxConcurrency")
		if info, ok := rpc.Detail[*anypb.Any](err); !ok || info.GetTypeUrl() != "type.googleapis.com/google.rpc.RetryInfo" {
			t.Errorf("the details are %v", info)
		}
		return nil
	})
	if d := stats(); d.ShedBy["deadline"] != calls || *d.Shed != calls || *d.Queued != 0 {
		t.Errorf("statistics: shed %d, by %v, queued %d", *d.Shed, d.ShedBy, *d.Queued)
	}
	patient := make(chan error, 1)
	go func() { patient <- callOnce(t, c) }()
	until(t, "a call that has time waits", func() bool { return *stats().Queued == 1 })
	close(b.finish)
	must(t, <-occupied)
	must(t, <-patient)
	if n := b.runs.Load(); n != 2 {
		t.Errorf("%d calls have run, want 2", n)
	}
	if d := stats(); *d.QueueP50 <= 0 || *d.QueueP99 <= 0 {
		t.Errorf("statistics: a call has waited, but for %v and %v ms", *d.QueueP50, *d.QueueP99)
	}
}

// TestLateCalls: calls that have waited for longer than expected do not run, if they cannot be
// answered any more.
func TestLateCalls(t *testing.T) {
	const calls = 20
	b, c, stats := learnt(t, rpc.WithMaxConcurrency(1), rpc.WithMaxQueue(1000))
	occupied := b.occupy(t, c, 1)
	const deadline = 2*handlerTime + handlerTime/2
	begin := time.Now()
	late := make(chan error, calls)
	for range calls {
		go func() {
			_, err := do(testContext(t), c, "late", rpc.WithTimeout(deadline))
			late <- err
		}()
	}
	until(t, "the calls have come", func() bool { d := stats(); return *d.Queued+*d.Shed == calls })
	time.AfterFunc(time.Until(begin.Add(deadline-handlerTime/2)), func() { close(b.finish) })
	must(t, <-occupied)
	for range calls {
		if err := <-late; rpc.CodeOf(err) != rpc.CodeResourceExhausted && rpc.CodeOf(err) != rpc.CodeDeadlineExceeded {
			t.Errorf("a call ended with %v", err)
		}
	}
	until(t, "nothing is queued", func() bool { d := stats(); return *d.Queued == 0 && *d.InFlight == 0 })
	if n := b.runs.Load(); n != 1 {
		t.Errorf("%d calls have run, want 1", n)
	}
	if d := stats(); d.ShedBy["late"]+d.Codes["deadline_exceeded"] == 0 || d.ShedBy["deadline"] == 0 {
		t.Errorf("statistics: shed by %v, codes %v", d.ShedBy, d.Codes)
	}
}

// TestTwiceIsNotAsked: a client does not send again what was refused, though it is told when it
// may.
func TestTwiceIsNotAsked(t *testing.T) {
	nc := rpctest.Connect(t)
	b := newBusy()
	serve(t, nc, &funcs{do: b.do}, rpc.WithMaxConcurrency(1), rpc.WithMaxQueue(0))
	c := dial(t, nc)
	occupied := b.occupy(t, c, 1)
	wantCode(t, callOnce(t, c), rpc.CodeResourceExhausted, rpc.ExecutionNotRun)
	close(b.finish)
	must(t, <-occupied)
	if e := statsOf(t, nc, 1)[0].Endpoints[0]; e.NumRequests != 2 {
		t.Errorf("%d requests have come, want 2", e.NumRequests)
	}
}

// TestRefusedPlainRequest: a plain request in JSON is told when it may come again, and nothing is
// logged about it.
func TestRefusedPlainRequest(t *testing.T) {
	nc := rpctest.Connect(t)
	var logged records
	b := newBusy()
	serve(t, nc, &funcs{do: b.do}, rpc.WithMaxConcurrency(1), rpc.WithMaxQueue(0), rpc.WithLogger(logged.logger()))
	c := dial(t, nc)
	occupied := b.occupy(t, c, 1)
	m, err := nc.Request(testRoot+".Do", []byte(`"x"`), 10*time.Second)
	must(t, err)
	if text := string(m.Data); !strings.Contains(text, `{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"0.010s"}`) {
		t.Errorf("the answer is %s", text)
	}
	_, err = do(testContext(t), c, "x", rpc.WithPlainRequests(), rpc.WithCodec(rpc.CodecJSON))
	e := wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionNotRun)
	if info, ok := rpc.Detail[*anypb.Any](err); !ok || info.GetTypeUrl() != "type.googleapis.com/google.rpc.RetryInfo" {
		t.Errorf("the details of %v are %v", e, e.Details())
	}
	close(b.finish)
	must(t, <-occupied)
	if logged.String() != "" {
		t.Errorf("the log is %s", logged.String())
	}
}

// TestDefaultQueue: as many calls wait as run, however that is set.
func TestDefaultQueue(t *testing.T) {
	for name, test := range map[string]struct {
		server  rpc.ServerOption
		service []rpc.ServiceOption
		waiting int
	}{
		"of the server":  {rpc.WithMaxConcurrency(3), nil, 3},
		"of the service": {rpc.WithMaxConcurrency(1000), []rpc.ServiceOption{rpc.WithMaxConcurrency(3)}, 3},
		"set":            {rpc.WithMaxQueue(5), []rpc.ServiceOption{rpc.WithMaxConcurrency(3)}, 5},
	} {
		t.Run(name, func(t *testing.T) {
			nc := rpctest.Connect(t)
			b := newBusy()
			s := rpc.NewServer(nc, test.server)
			must(t, rpc.Register(s, &eventDesc, b, test.service, rpc.HandleUnary(onlyMethod, func(b *busy, ctx context.Context, in *wrapperspb.StringValue) (*wrapperspb.StringValue, error) {
				_, err := b.do(ctx, in.GetValue())
				return in, err
			})))
			must(t, s.Start(testContext(t)))
			t.Cleanup(func() { shutdown(t, s) })
			c := dial(t, nc)
			call := func() error {
				_, err := onlyMethod.Call(testContext(t), c, wrapperspb.String("x"))
				return err
			}
			n := 3 + test.waiting
			results := make(chan error, n)
			for range n {
				go func() { results <- call() }()
			}
			until(t, "the calls are there", func() bool { return s.Open() == n })
			wantCode(t, call(), rpc.CodeResourceExhausted, rpc.ExecutionNotRun)
			close(b.finish)
			for range n {
				must(t, <-results)
			}
		})
	}
}

var onlyMethod = rpc.NewUnaryMethod[wrapperspb.StringValue, wrapperspb.StringValue](&eventDesc, rpc.MethodDesc{Name: "Only"})

// TestOtherMethodsOfABusyService: one method leaves room for the others, or what its own limits
// leave.
func TestOtherMethodsOfABusyService(t *testing.T) {
	for name, test := range map[string]struct {
		opts    []rpc.ServiceOption
		running int // of Do
		waiting int
	}{
		"by default":    {nil, 14, 14},
		"its own":       {[]rpc.ServiceOption{rpc.WithMethodLimits("/test.v1.TestService/Do", 2, 1)}, 2, 1},
		"no queue":      {[]rpc.ServiceOption{rpc.WithMethodLimits("/test.v1.TestService/Do", 3, 0)}, 3, 0},
		"more than all": {[]rpc.ServiceOption{rpc.WithMethodLimits("/test.v1.TestService/Do", 100, 100)}, 16, 16},
	} {
		t.Run(name, func(t *testing.T) {
			nc := rpctest.Connect(t)
			b := newBusy()
			s := rpc.NewServer(nc, rpc.WithMaxConcurrency(16))
			must(t, registerTest(s, &funcs{do: b.do}, test.opts...))
			must(t, s.Start(testContext(t)))
			t.Cleanup(func() { shutdown(t, s) })
			c := dial(t, nc)
			occupied := b.occupy(t, c, test.running)
			waiting := make(chan error, test.waiting)
			for range test.waiting {
				go func() { waiting <- callOnce(t, c) }()
			}
			waitLoad(t, nc, test.running+test.waiting, test.waiting)
			err := callOnce(t, c)
			wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionNotRun)
			if n := int(b.runs.Load()); n != test.running {
				t.Errorf("%d calls run, want %d", n, test.running)
			}
			if test.running < 16 {
				wantText(t, err, "/test.v1.TestService/Do is busy: ")
				wantText(t, err, "rpc.WithMethodLimits")
				_, err := testBlob.Call(testContext(t), c, wrapperspb.Bytes([]byte("x")))
				must(t, err)
			}
			close(b.finish)
			for range test.running {
				must(t, <-occupied)
			}
			for range test.waiting {
				must(t, <-waiting)
			}
		})
	}
}

// TestOtherStreamsOfABusyService: the same for streams.
func TestOtherStreamsOfABusyService(t *testing.T) {
	for name, test := range map[string]struct {
		opts []rpc.ServiceOption
		most int // of Watch
	}{
		"by default": {nil, 7},
		"its own":    {[]rpc.ServiceOption{rpc.WithMethodLimits("/test.v1.TestService/Watch", 2, 0)}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			nc := rpctest.Connect(t)
			s := rpc.NewServer(nc, rpc.WithMaxStreams(8))
			must(t, registerTest(s, &funcs{watch: func(ctx context.Context, _ string, _ *rpc.Sender[*text]) error {
				<-ctx.Done()
				return ctx.Err()
			}}, test.opts...))
			must(t, s.Start(testContext(t)))
			t.Cleanup(func() { shutdown(t, s) })
			c := dial(t, nc)
			ctx, cancel := context.WithCancel(testContext(t))
			defer cancel()
			for range test.most {
				_, err := watch(ctx, c, "x")
				must(t, err)
			}
			_, err := watch(ctx, c, "x")
			wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionNotRun)
			wantText(t, err, "/test.v1.TestService/Watch is busy: ")
			chat, err := testChat.Call(ctx, c)
			must(t, err)
			chat.CloseSend()
			_, err = chat.Recv()
			wantText(t, err, "EOF")
		})
	}
}

// TestBadMethodLimits: Register refuses limits that cannot be meant.
func TestBadMethodLimits(t *testing.T) {
	nc := rpctest.Connect(t)
	for text, opt := range map[string]rpc.ServiceOption{
		`WithMethodLimits("Do"): the service has no such method, only /test.v1.TestService/Do, `: rpc.WithMethodLimits("Do", 1, 1),
		`WithMethodLimits("/test.v1.TestService/Do", 0, 1): the concurrency`:                     rpc.WithMethodLimits("/test.v1.TestService/Do", 0, 1),
		`WithMethodLimits("/test.v1.TestService/Do", 1, -1): the concurrency`:                    rpc.WithMethodLimits("/test.v1.TestService/Do", 1, -1),
		`WithMethodLimits("/test.v1.TestService/Chat"): the queue of a streaming method must be`: rpc.WithMethodLimits("/test.v1.TestService/Chat", 1, 1),
	} {
		wantText(t, registerTest(rpc.NewServer(nc), &funcs{}, opt), text)
	}
}
