package rpc_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// deadlineOf describes the deadline of a handler: how long it still has, as one of the times of the
// test, and what has set it.
func deadlineOf(ctx context.Context) string {
	by := rpc.CallFromContext(ctx).DeadlineBy()
	deadline, ok := ctx.Deadline()
	if !ok {
		return fmt.Sprintf("none by %v", by)
	}
	left := time.Until(deadline)
	for _, d := range []time.Duration{3 * time.Second, 10 * time.Second, 30 * time.Second, 10 * time.Minute, time.Hour, 4 * time.Hour, 24 * time.Hour} {
		if left <= d {
			return fmt.Sprintf("%v by %v", d, by)
		}
	}
	return fmt.Sprintf("%v by %v", left, by)
}

// TestDeadlines: what the caller, the method and the server say about the time of a call, and what
// its handler is told of it.
func TestDeadlines(t *testing.T) {
	inAnHour, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	none := context.Background()
	without, hour := rpc.WithoutTimeout(), rpc.WithTimeout(time.Hour)
	type (
		servers = []rpc.ServerOption
		clients = []rpc.ClientOption
		calls   = []rpc.CallOption
	)
	for _, test := range []struct {
		server servers
		client clients
		ctx    context.Context
		call   calls
		method string
		want   string
	}{
		// The defaults.
		{nil, nil, none, nil, "Do", "10s by caller"},
		{nil, nil, none, nil, "Object", "3s by caller"}, // the client knows the method's
		{nil, nil, none, nil, "Watch", "none by none"},
		{nil, nil, inAnHour, nil, "Do", "1h0m0s by caller"},
		{nil, clients{hour}, none, nil, "Do", "1h0m0s by caller"},
		{nil, clients{hour}, none, nil, "Object", "3s by caller"},
		// Without a timeout.
		{nil, nil, none, calls{without}, "Do", "none by none"},
		{nil, nil, none, calls{without}, "Object", "none by none"},
		{nil, nil, none, calls{without}, "Watch", "none by none"},
		{nil, nil, inAnHour, calls{without}, "Object", "1h0m0s by caller"},
		{nil, clients{without}, none, nil, "Do", "none by none"},
		{nil, clients{without}, none, nil, "Object", "none by none"},
		{nil, clients{without}, none, calls{hour}, "Do", "1h0m0s by caller"},
		{nil, clients{without, hour}, none, nil, "Do", "1h0m0s by caller"},
		{nil, clients{hour, without}, none, nil, "Do", "none by none"},
		{nil, nil, none, calls{hour, without}, "Do", "none by none"},
		{servers{hour}, nil, none, calls{without}, "Do", "none by none"},
		// The server's limit.
		{servers{rpc.WithMaxTimeout(4 * time.Hour)}, nil, none, calls{without}, "Do", "4h0m0s by server"},
		{servers{rpc.WithMaxTimeout(4 * time.Hour)}, nil, none, calls{hour}, "Do", "1h0m0s by caller"},
		{servers{rpc.WithMaxTimeout(10 * time.Minute)}, nil, none, calls{hour}, "Do", "10m0s by server"},
		{servers{rpc.WithMaxTimeout(10 * time.Minute)}, nil, none, calls{hour}, "Watch", "1h0m0s by caller"},
		{servers{rpc.WithMaxTimeout(10 * time.Minute)}, nil, none, calls{without}, "Watch", "none by none"},
		// Plain requests.
		{nil, nil, none, calls{without, rpc.WithPlainRequests()}, "Do", "24h0m0s by caller"},
		{nil, nil, none, calls{hour, rpc.WithPlainRequests()}, "Do", "1h0m0s by caller"},
	} {
		srv := rpctest.NewServer(t)
		serve(t, srv.Connect(), deadlines(), test.server...)
		c := dial(t, srv.Connect(), test.client...)
		got, err := askDeadline(test.ctx, c, test.method, test.call)
		must(t, err)
		if got != test.want {
			t.Errorf("server %d, client %d, call %d options, %s: the handler has %s, want %s",
				len(test.server), len(test.client), len(test.call), test.method, got, test.want)
		}
	}
}

// deadlines is a service whose methods answer with deadlineOf.
func deadlines() *funcs {
	return &funcs{
		do: func(ctx context.Context, _ string) (string, error) { return deadlineOf(ctx), nil },
		object: func(ctx context.Context, _ *structpb.Struct) (*structpb.Struct, error) {
			return structpb.NewStruct(map[string]any{"deadline": deadlineOf(ctx)})
		},
		watch: func(ctx context.Context, _ string, to *rpc.Sender[*text]) error {
			return to.Send(wrapperspb.String(deadlineOf(ctx)))
		},
	}
}

func askDeadline(ctx context.Context, c *rpc.Client, method string, opts []rpc.CallOption) (string, error) {
	switch method {
	case "Object":
		res, err := testObject.Call(ctx, c, new(structpb.Struct), opts...)
		return res.GetFields()["deadline"].GetStringValue(), err
	case "Watch":
		r, err := testWatch.Call(ctx, c, wrapperspb.String(""), opts...)
		if err != nil {
			return "", err
		}
		defer r.Close()
		m, err := r.Recv()
		return m.GetValue(), err
	}
	return do(ctx, c, "", opts...)
}

// TestPlainDeadlines: what a plain request without natscall's client says.
func TestPlainDeadlines(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), deadlines())
	nc := srv.Connect()
	for _, test := range []struct{ method, header, want string }{
		{"Do", "", "30s by server"},
		{"Do", "3600000", "1h0m0s by caller"},
		{"Do", "360000000", "24h0m0s by server"},
		{"Do", "none", "24h0m0s by server"},
		{"Object", "", "3s by method"},
		{"Watch", "", "30s by server"},
	} {
		h := nats.Header{"Content-Type": {"application/json"}}
		if test.header != "" {
			h.Set("Natscall-Timeout", test.header)
		}
		body := `""`
		if test.method == "Object" {
			body = "{}"
		}
		m, err := nc.RequestMsgWithContext(testContext(t), &nats.Msg{Subject: testRoot + "." + test.method, Data: []byte(body), Header: h})
		must(t, err)
		want := fmt.Sprintf("%q", test.want)
		if test.method == "Object" {
			want = fmt.Sprintf(`{"deadline":%q}`, test.want)
		}
		if string(m.Data) != want {
			t.Errorf("%s %q: %s, want %s", test.method, test.header, m.Data, want)
		}
	}
}

// TestWithoutTimeoutEnds: a call without a deadline ends with its context, and when nobody works on
// it any more.
func TestWithoutTimeoutEnds(t *testing.T) { rpctest.Bubble(t, testWithoutTimeoutEnds) }

func testWithoutTimeoutEnds(t *testing.T, srv *rpctest.Server) {
	started := make(chan struct{})
	serverNC := srv.Connect()
	serve(t, serverNC, &funcs{do: func(ctx context.Context, _ string) (string, error) {
		started <- struct{}{}
		<-ctx.Done()
		return "", ctx.Err()
	}})
	c := dial(t, srv.Connect(), rpc.WithoutTimeout())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() {
		_, err := do(ctx, c, "x")
		ended <- err
	}()
	<-started
	cancel()
	wantCode(t, <-ended, rpc.CodeCanceled, rpc.ExecutionMayHaveRun)
	go func() {
		_, err := do(context.Background(), c, "x")
		ended <- err
	}()
	<-started
	serverNC.Close() // the replica has gone
	wantCode(t, <-ended, rpc.CodeUnavailable, rpc.ExecutionMayHaveRun)
}

// TestInvalidMaxTimeout: the limit has to be a time.
func TestInvalidMaxTimeout(t *testing.T) {
	for _, d := range []time.Duration{0, -1} {
		s := rpc.NewServer(rpctest.Connect(t), rpc.WithMaxTimeout(d))
		if err := s.Start(testContext(t)); err == nil {
			t.Errorf("WithMaxTimeout(%v) is taken", d)
		}
	}
}

// TestServersDeadlines: one-way calls and plain requests have the server's default and its limit;
// plain streams have no such limit, and the default may be longer than a day.
func TestServersDeadlines(t *testing.T) {
	for _, test := range []struct {
		method, want string
		opts         []rpc.ServerOption
	}{
		{"Note", "30s by server", nil},
		{"Note", "10s by server", []rpc.ServerOption{rpc.WithMaxTimeout(10 * time.Second)}},
		{"Note", "1h0m0s by server", []rpc.ServerOption{rpc.WithTimeout(time.Hour)}},
		{"Watch", "30s by server", []rpc.ServerOption{rpc.WithMaxTimeout(3 * time.Second)}},
		{"Do", "3s by server", []rpc.ServerOption{rpc.WithMaxTimeout(3 * time.Second)}},
		{"Do", "47h59m", []rpc.ServerOption{rpc.WithTimeout(48 * time.Hour)}},
	} {
		srv := rpctest.NewServer(t)
		noted, impl := make(chan string, 1), deadlines()
		impl.note = func(ctx context.Context, _ *structpb.Struct) error {
			noted <- deadlineOf(ctx)
			return nil
		}
		serve(t, srv.Connect(), impl, test.opts...)
		var got string
		if nc := srv.Connect(); test.method == "Note" {
			must(t, testNote.Call(context.Background(), dial(t, nc, rpc.WithoutTimeout()), new(structpb.Struct)))
			got = <-noted
		} else {
			m, err := nc.RequestMsgWithContext(testContext(t), &nats.Msg{
				Subject: testRoot + "." + test.method, Data: []byte(`""`), Header: nats.Header{"Content-Type": {"application/json"}},
			})
			must(t, err)
			got = string(m.Data)
		}
		if !strings.Contains(got, test.want) {
			t.Errorf("%s: %s, want %s", test.method, got, test.want)
		}
	}
}

// TestRetryWithoutTimeout: a call without a deadline that has waited in a queue for longer than the
// client's default is sent again when its instance stops.
func TestRetryWithoutTimeout(t *testing.T) {
	const clients = 50 * time.Millisecond
	srv := rpctest.NewServer(t)
	first := newTestServer(t, srv.Connect(), &funcs{do: func(ctx context.Context, _ string) (string, error) {
		<-ctx.Done()
		return "", ctx.Err()
	}}, rpc.WithMaxConcurrency(1))
	c := dial(t, srv.Connect(), rpc.WithTimeout(clients))
	results := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := do(context.Background(), c, "x", rpc.WithoutTimeout())
			results <- err
		}()
	}
	until(t, "one runs and one waits", func() bool { return first.Open() == 2 })
	waited, cancel := context.WithTimeout(context.Background(), 2*clients)
	defer cancel()
	<-waited.Done()
	serve(t, srv.Connect(), &funcs{})
	now, cancel := context.WithCancel(context.Background())
	cancel()
	_ = first.Shutdown(now)
	errs := []error{<-results, <-results}
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Errorf("the calls end with %v", errs)
	}
}
