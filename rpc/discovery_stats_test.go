package rpc_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// endpointData is the `data` of an endpoint as docs/protocol.md describes it.
type endpointData struct {
	AnswersRefused int64          `json:"answers_refused"`
	InFlight       *int           `json:"in_flight"`
	Queued         *int           `json:"queued"`
	Shed           *int           `json:"shed"`
	P50            *float64       `json:"p50_ms"`
	P99            *float64       `json:"p99_ms"`
	Codes          map[string]int `json:"codes"`
	ShedBy         map[string]int `json:"shed_by"`
	QueueP50       *float64       `json:"queue_p50_ms"`
	QueueP99       *float64       `json:"queue_p99_ms"`
	Estimate       *float64       `json:"estimate_ms"`
	Health         string         `json:"health"`
}

// dataOf decodes the data of an endpoint, in which nothing may be missing or unknown.
func dataOf(t testing.TB, e *micro.EndpointStats) (d endpointData) {
	t.Helper()
	decoder := json.NewDecoder(strings.NewReader(string(e.Data)))
	decoder.DisallowUnknownFields()
	must(t, decoder.Decode(&d))
	if d.InFlight == nil || d.Queued == nil || d.Shed == nil || d.P50 == nil || d.P99 == nil || d.Codes == nil {
		t.Fatalf("data lacks a field: %s", e.Data)
	}
	return d
}

// failEvery is the share of the calls of the load that fail.
const failEvery = 7

// load makes 10,000 calls from 64 goroutines over a connection of its own and
// returns how many failed, as they should.
func load(t testing.TB, nc *nats.Conn) (calls, failed int) {
	t.Helper()
	const callers = 64
	calls = 10_000
	c := dial(t, nc)
	each(t, callers, func(caller int) error {
		for i := caller; i < calls; i += callers {
			_, err := do(context.Background(), c, strconv.Itoa(i), rpc.WithTimeout(time.Minute))
			if want := wantedCode(i); rpc.CodeOf(err) != want {
				return fmt.Errorf("call %d ends with %w, want %v", i, err, want)
			}
		}
		return nil
	})
	for i := range calls {
		if wantedCode(i) != rpc.CodeOK {
			failed++
		}
	}
	return calls, failed
}

func wantedCode(i int) rpc.Code {
	if i%failEvery == 0 {
		return rpc.CodeNotFound
	}
	return rpc.CodeOK
}

// loadHandler serves the load.
func loadHandler(_ context.Context, in string) (string, error) {
	if i, err := strconv.Atoi(in); err != nil || wantedCode(i) != rpc.CodeOK {
		return "", rpc.Errorf(rpc.CodeNotFound, "no order 42")
	}
	return in, nil
}

// TestStatistics: 10,000 concurrent calls against three replicas, all
// answered, spread over the replicas, and counted exactly.
func TestStatistics(t *testing.T) {
	srv := rpctest.NewServer(t)
	for range 3 {
		serve(t, srv.Connect(), &funcs{do: loadHandler})
	}
	nc := srv.Connect()
	stop := watchStats(t, srv.Connect())
	calls, failed := load(t, nc)
	stop()
	var sum micro.EndpointStats
	codes := map[string]int{}
	for _, s := range statsOf(t, nc, 3) {
		e := s.Endpoints[0]
		t.Logf("%s: %d requests, %d errors, %v on average, %s", s.ID, e.NumRequests, e.NumErrors, e.AverageProcessingTime, e.Data)
		checkQuiet(t, e)
		sum.NumRequests += e.NumRequests
		sum.NumErrors += e.NumErrors
		for code, n := range dataOf(t, e).Codes {
			codes[code] += n
		}
	}
	if sum.NumRequests != calls || sum.NumErrors != failed {
		t.Errorf("STATS counts %d calls and %d errors, want %d and %d", sum.NumRequests, sum.NumErrors, calls, failed)
	}
	if diff := cmp.Diff(map[string]int{"ok": calls - failed, "not_found": failed}, codes); diff != "" {
		t.Errorf("codes: %s", diff)
	}
}

// checkQuiet checks the statistics of an endpoint of the load that has nothing to do any more.
func checkQuiet(t testing.TB, e *micro.EndpointStats) {
	t.Helper()
	if e.NumRequests == 0 {
		t.Error("a replica got no call")
		return
	}
	if e.LastError != "5:not_found: no order 42" {
		t.Errorf("last_error is %q", e.LastError)
	}
	if e.ProcessingTime <= 0 || e.AverageProcessingTime != e.ProcessingTime/time.Duration(e.NumRequests) {
		t.Errorf("%d calls took %v, %v on average", e.NumRequests, e.ProcessingTime, e.AverageProcessingTime)
	}
	if d := dataOf(t, e); *d.InFlight != 0 || *d.Queued != 0 || *d.Shed != 0 || *d.P50 > *d.P99 {
		t.Errorf("data of an endpoint without work: %s", e.Data)
	}
}

// watchStats checks, until it is stopped, that the numbers make sense also
// while they change.
func watchStats(t testing.TB, nc *nats.Conn) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var watcher sync.WaitGroup
	watcher.Go(func() {
		last := map[string]int{}
		for ctx.Err() == nil {
			m, err := nc.RequestWithContext(ctx, "$SRV.STATS.TestService", nil)
			if err != nil {
				continue // the end
			}
			var s micro.Stats
			if err := json.Unmarshal(m.Data, &s); err != nil {
				t.Error(err)
				return
			}
			if e := s.Endpoints[0]; e.NumErrors > e.NumRequests || e.NumRequests < last[s.ID] || !sensible(e) {
				t.Errorf("after %d requests: %d requests, %d errors, %s", last[s.ID], e.NumRequests, e.NumErrors, e.Data)
				return
			}
			last[s.ID] = s.Endpoints[0].NumRequests
		}
	})
	return func() { cancel(); watcher.Wait() }
}

// sensible reports whether the data of an endpoint can be true.
func sensible(e *micro.EndpointStats) bool {
	var d endpointData
	if json.Unmarshal(e.Data, &d) != nil {
		return false
	}
	counted := 0
	for _, n := range d.Codes {
		counted += n
	}
	return *d.InFlight >= 0 && *d.Queued >= 0 && *d.Queued <= *d.InFlight && counted >= e.NumRequests
}

// TestLoadInStatistics: what runs and what waits is told while it does.
func TestLoadInStatistics(t *testing.T) {
	nc := rpctest.Connect(t)
	running, finish := make(chan string, 4), make(chan struct{})
	serve(t, nc, &funcs{do: func(_ context.Context, in string) (string, error) {
		running <- in
		<-finish
		return in, nil
	}}, rpc.WithMaxConcurrency(1), rpc.WithMaxQueue(3)) // two of one method
	c := dial(t, nc)
	results := make(chan error, 3)
	start := func(name string, inFlight, queued int) {
		go func() { _, err := do(testContext(t), c, name); results <- err }()
		waitLoad(t, nc, inFlight, queued)
	}
	start("first", 1, 0)
	if got := <-running; got != "first" {
		t.Fatalf("%q runs", got)
	}
	start("second", 2, 1)
	start("third", 3, 2)
	_, err := do(testContext(t), c, "shed")
	wantCode(t, err, rpc.CodeResourceExhausted, rpc.ExecutionNotRun)
	e := statsOf(t, nc, 1)[0].Endpoints[0]
	if d := dataOf(t, e); *d.InFlight != 3 || *d.Queued != 2 || *d.Shed != 1 || d.Codes["resource_exhausted"] != 1 || e.NumRequests != 1 || e.NumErrors != 1 {
		t.Errorf("under load: %d requests, %d errors, %s", e.NumRequests, e.NumErrors, e.Data)
	}
	close(finish)
	for range 3 {
		must(t, <-results)
	}
	for _, want := range []string{"second", "third"} { // in the order in which they came
		if got := <-running; got != want {
			t.Errorf("%q runs, want %q", got, want)
		}
	}
	e = statsOf(t, nc, 1)[0].Endpoints[0]
	if d := dataOf(t, e); *d.InFlight != 0 || *d.Queued != 0 || *d.Shed != 1 || d.Codes["ok"] != 3 || e.NumRequests != 4 || len(running) != 0 {
		t.Errorf("at the end: %d requests, %s, %d more ran", e.NumRequests, e.Data, len(running))
	}
}

// waitLoad waits until STATS tells that so many calls of Do are in flight and queued.
func waitLoad(t testing.TB, nc *nats.Conn, inFlight, queued int) {
	t.Helper()
	var d endpointData
	for ctx := testContext(t); ctx.Err() == nil; {
		if d = dataOf(t, statsOf(t, nc, 1)[0].Endpoints[0]); *d.InFlight == inFlight && *d.Queued == queued {
			return
		}
	}
	t.Fatalf("%d calls are in flight, %d queued; want %d and %d", *d.InFlight, *d.Queued, inFlight, queued)
}

// TestServerStats: a server knows of itself what it tells others.
func TestServerStats(t *testing.T) {
	nc := rpctest.Connect(t)
	server := rpc.NewServer(nc)
	must(t, registerTest(server, &funcs{do: loadHandler}))
	if got := server.Stats(); len(got) > 0 {
		t.Errorf("a server that has not started has %v", got)
	}
	started, asking := make(chan struct{}), make(chan struct{})
	go func() { // ends with the start, during which somebody may ask
		defer close(asking)
		for server.Stats() == nil {
			select {
			case <-started:
				return
			default:
			}
		}
	}()
	startServer(t, server)
	close(started)
	<-asking
	if _, err := do(testContext(t), dial(t, nc), "1"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(statsOf(t, nc, 1), server.Stats()); diff != "" {
		t.Errorf("-asked +own:\n%s", diff)
	}
	if got := (&rpc.Server{}).Stats(); got != nil {
		t.Errorf("a server that was not made has %v", got)
	}
}

// TestErrorsInStatistics: whatever an endpoint fails with, STATS is answered
// and its last_error is one line.
func TestErrorsInStatistics(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{do: func(_ context.Context, in string) (string, error) {
		switch in {
		case "panic":
			panic("secret")
		case "huge":
			return "", rpc.NewError(rpc.CodeAborted, strings.Repeat("x", 2<<20))
		}
		return "", rpc.NewError(rpc.CodeNotFound, in)
	}})
	c := dial(t, nc)
	for i, test := range []struct{ in, want string }{
		{"no order 42", "5:not_found: no order 42"},
		{"", "5:not_found"},
		{"two\nlines", "5:not_found: two lines"},
		{"panic", "13:internal: the handler panicked"},
		{"huge", "10:aborted: xxx"},
	} {
		if _, err := do(testContext(t), c, test.in); err == nil {
			t.Fatalf("%q does not fail", test.in)
		}
		e := statsOf(t, nc, 1)[0].Endpoints[0]
		if e.NumErrors != i+1 || !strings.HasPrefix(e.LastError, test.want) || len(e.LastError) > 2000 {
			t.Errorf("%q: %d errors, the last is %.100q (%d bytes), want %q", test.in, e.NumErrors, e.LastError, len(e.LastError), test.want)
		}
	}
}

// TestSlowEncoding: a call is in flight until its answer has been encoded, and when that takes
// long a call which was queued behind it, and whose time is up by then, does not run.
func TestSlowEncoding(t *testing.T) {
	nc := rpctest.Connect(t)
	begins, goOn := make(chan struct{}, 2), make(chan struct{})
	var ran atomic.Int32
	s := rpc.NewServer(nc, rpc.WithMaxConcurrency(1), rpc.WithLogger(slog.New(slog.DiscardHandler)))
	must(t, rpc.Register(s, &slowDesc, t, nil, rpc.HandleUnary(slowEcho, func(*testing.T, context.Context, *wrapperspb.StringValue) (*slowMessage, error) {
		ran.Add(1)
		return &slowMessage{begins: begins, goOn: goOn}, nil
	})))
	must(t, s.Start(testContext(t)))
	t.Cleanup(func() { shutdown(t, s) })
	c := dial(t, nc)
	call := func(opts ...rpc.CallOption) error {
		_, err := slowEcho.Call(testContext(t), c, wrapperspb.String("x"), opts...)
		return err
	}
	load := func(when string, inFlight, queued int) {
		t.Helper()
		e := discover[micro.Stats](t, nc, "$SRV.STATS.SlowService", 1)[0].Endpoints[0]
		if d := dataOf(t, e); *d.InFlight != inFlight || *d.Queued != queued || e.NumRequests != 0 {
			t.Errorf("%s: %d requests, %s", when, e.NumRequests, e.Data)
		}
	}
	first := make(chan error, 1)
	go func() { first <- call() }()
	<-begins
	load("while it is encoded", 1, 0)
	wantCode(t, call(rpc.WithTimeout(20*time.Millisecond)), rpc.CodeDeadlineExceeded, rpc.ExecutionMayHaveRun)
	load("with another behind it", 2, 1)
	close(goOn)
	must(t, <-first)
	must(t, call())
	if n := ran.Load(); n != 2 {
		t.Errorf("%d calls ran; the one whose time was up is not to", n)
	}
}

var (
	slowDesc = rpc.ServiceDesc{Name: "test.v1.SlowService", MicroName: "SlowService", Version: "1.0.0"}
	slowEcho = rpc.NewUnaryMethod[wrapperspb.StringValue, slowMessage](&slowDesc, rpc.MethodDesc{Name: "Echo"})
)

// slowMessage is a message that tells when it begins to be encoded, and then waits.
type slowMessage struct {
	wrapperspb.StringValue
	begins chan<- struct{}
	goOn   <-chan struct{}
}

func (*slowMessage) SizeVT() int { return 0 }

func (m *slowMessage) MarshalToSizedBufferVT([]byte) (int, error) {
	m.begins <- struct{}{}
	<-m.goOn
	return 0, nil
}
