package rpc_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// gather sends a request to every instance and waits for n answers.
func gather(t testing.TB, nc *nats.Conn, subject string, n int) []*nats.Msg {
	t.Helper()
	inbox, err := nc.SubscribeSync(nc.NewInbox())
	must(t, err)
	defer func() { must(t, inbox.Unsubscribe()) }()
	must(t, nc.PublishRequest(subject, inbox.Subject, nil))
	answers := make([]*nats.Msg, n)
	for i := range answers {
		if answers[i], err = inbox.NextMsg(20 * time.Second); err != nil {
			t.Fatalf("%s: %d of %d instances answer: %v", subject, i, n, err)
		}
	}
	return answers
}

// discover decodes the answers of n instances.
func discover[T micro.Ping | micro.Info | micro.Stats](t testing.TB, nc *nats.Conn, subject string, n int) []T {
	t.Helper()
	out := make([]T, n)
	for i, m := range gather(t, nc, subject, n) {
		must(t, json.Unmarshal(m.Data, &out[i]))
	}
	return out
}

func statsOf(t testing.TB, nc *nats.Conn, n int) []micro.Stats {
	t.Helper()
	return discover[micro.Stats](t, nc, "$SRV.STATS.TestService", n)
}

// names are the instances that answer a PING, in order.
func names(t testing.TB, nc *nats.Conn, n int) (all []string) {
	t.Helper()
	for _, p := range discover[micro.Ping](t, nc, "$SRV.PING", n) {
		all = append(all, p.Name+" "+p.Version)
	}
	slices.Sort(all)
	return all
}

func wantGone(t testing.TB, nc *nats.Conn, subject string) {
	t.Helper()
	if m, err := nc.RequestWithContext(testContext(t), subject, nil); !errors.Is(err, nats.ErrNoResponders) {
		t.Errorf("%s is answered with %v, %v; want no responders", subject, m, err)
	}
}

// verbSubjects are all that an instance is asked on, by verb.
func verbSubjects(name, id string) map[string][]string {
	all := map[string][]string{}
	for _, verb := range []string{"PING", "INFO", "STATS"} {
		s := "$SRV." + verb
		all[verb] = []string{s, s + "." + name, s + "." + name + "." + id}
	}
	return all
}

func TestInfo(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{}, rpc.WithServiceMetadata(map[string]string{"region": "eu", "team": "mine"}), rpc.WithQueueGroup("workers"), rpc.WithSubjectPrefix("blue"))
	info := discover[micro.Info](t, nc, "$SRV.INFO", 1)[0]
	schema := info.Metadata["natscall.schema"]
	if !strings.HasPrefix(schema, "sha256:") || len(schema) != len("sha256:")+32 {
		t.Errorf("schema is %q", schema)
	}
	want := micro.Info{
		ServiceIdentity: micro.ServiceIdentity{Name: "TestService", ID: info.ID, Version: "1.2.3", Metadata: map[string]string{
			"team": "mine", "region": "eu", "natscall.service": "test.v1.TestService", "natscall.protocol": "1", "natscall.schema": schema,
			"natscall.root": "blue.test.v1.TestService"}},
		Type: "io.nats.micro.v1.info_response", Description: "TestService is for tests.",
		Endpoints: []micro.EndpointInfo{
			endpointInfo("Do", "blue.test.v1.TestService.Do", "unary", "StringValue", "StringValue", "cost", "low"),
			endpointInfo("Read", "blue.test.v1.TestService.Read", "unary", "StringValue", "StringValue", "natscall.idempotency", "no_side_effects"),
			endpointInfo("Blob", "blue.test.v1.TestService.Blob", "unary", "BytesValue", "BytesValue"),
			endpointInfo("Object", "blue.test.v1.TestService.Object", "unary", "Struct", "Struct"),
			endpointInfo("Note", "blue.notes.new", "one_way", "Struct", "Empty"),
			endpointInfo("Watch", "blue.test.v1.TestService.Watch", "server_stream", "StringValue", "StringValue"),
			endpointInfo("Gather", "blue.test.v1.TestService.Gather", "client_stream", "StringValue", "StringValue"),
			endpointInfo("Chat", "blue.test.v1.TestService.Chat", "bidi_stream", "StringValue", "StringValue"),
		},
	}
	if diff := cmp.Diff(want, info); diff != "" {
		t.Error(diff)
	}
}

func endpointInfo(name, subject, kind, request, response string, more ...string) micro.EndpointInfo {
	m := map[string]string{"natscall.kind": kind, "natscall.method": "/test.v1.TestService/" + name,
		"natscall.request": "google.protobuf." + request, "natscall.response": "google.protobuf." + response}
	for i := 0; i < len(more); i += 2 {
		m[more[i]] = more[i+1]
	}
	return micro.EndpointInfo{Name: name, Subject: subject, QueueGroup: "workers", Metadata: m}
}

// TestLikeMicro: in all of discovery a service is told from one of
// micro.AddService by nothing but its id, times and data.
func TestLikeMicro(t *testing.T) {
	for name, opts := range map[string][]rpc.ServerOption{
		"queue group":    nil,
		"no queue group": {rpc.WithoutQueueGroup()},
	} {
		t.Run(name, func(t *testing.T) {
			ours, theirs := rpctest.Connect(t), rpctest.Connect(t)
			serve(t, ours, &funcs{do: func(context.Context, string) (string, error) { return "", rpc.Errorf(rpc.CodeNotFound, "no order 42") }}, opts...)
			ping := discover[micro.Ping](t, ours, "$SRV.PING", 1)[0]
			twin := serveTwin(t, theirs, discover[micro.Info](t, ours, "$SRV.INFO", 1)[0])
			a, b := ask(t, ours, doSubject, nil, nil), ask(t, theirs, doSubject, nil, nil)
			if a.Header.Get("Natscall-Instance") != ping.ID { // what is ours beside micro's
				t.Errorf("headers of an error: %v, want the instance %s", a.Header, ping.ID)
			}
			a.Header.Del("Natscall-Instance")
			if diff := cmp.Diff(b.Header, a.Header); diff != "" {
				t.Errorf("headers of an error: %s", diff)
			}
			subjects, twins := verbSubjects(ping.Name, ping.ID), verbSubjects(ping.Name, twin)
			for verb := range subjects {
				for i, subject := range subjects[verb] {
					a, b := gather(t, ours, subject, 1)[0], gather(t, theirs, twins[verb][i], 1)[0]
					if diff := cmp.Diff(anonymous(t, b), anonymous(t, a)); diff != "" {
						t.Errorf("%s (-micro +natscall): %s", subject, diff)
					}
				}
			}
		})
	}
}

// serveTwin runs a service with the same INFO on micro.AddService, whose first
// endpoint fails, and returns its id.
func serveTwin(t testing.TB, nc *nats.Conn, info micro.Info) string {
	t.Helper()
	svc, err := micro.AddService(nc, micro.Config{Name: info.Name, Version: info.Version, Description: info.Description, Metadata: info.Metadata})
	must(t, err)
	t.Cleanup(func() { must(t, svc.Stop()) })
	for _, e := range info.Endpoints {
		group := micro.WithEndpointQueueGroup(e.QueueGroup)
		if e.QueueGroup == "" {
			group = micro.WithEndpointQueueGroupDisabled()
		}
		handler := micro.HandlerFunc(func(r micro.Request) { _ = r.Error("5", "not_found: no order 42", nil) })
		must(t, svc.AddEndpoint(e.Name, handler, micro.WithEndpointSubject(e.Subject), micro.WithEndpointMetadata(e.Metadata), group))
	}
	must(t, nc.Flush())
	return svc.Info().ID
}

// anonymous is an answer without what may differ between two services: for
// ids and times only the type is left, and the data of endpoints is taken out.
func anonymous(t testing.TB, m *nats.Msg) map[string]any {
	t.Helper()
	var answer map[string]any
	must(t, json.Unmarshal(m.Data, &answer))
	hide := func(in map[string]any, keys ...string) {
		for _, k := range keys {
			if v, ok := in[k]; ok {
				in[k] = fmt.Sprintf("%T", v)
			}
		}
	}
	hide(answer, "id", "started")
	endpoints, _ := answer["endpoints"].([]any)
	for _, e := range endpoints {
		delete(e.(map[string]any), "data")
		hide(e.(map[string]any), "processing_time", "average_processing_time")
	}
	answer["headers of the message"] = len(m.Header)
	return answer
}

// TestUnknownVerbs: who asks for what ADR-32 does not have, or for another
// service, gets no answer; and a verb without a reply subject does no harm.
func TestUnknownVerbs(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{})
	id := discover[micro.Ping](t, nc, "$SRV.PING", 1)[0].ID
	inbox := make(chan *nats.Msg, 16)
	_, err := nc.ChanSubscribe("inbox", inbox)
	must(t, err)
	for _, subject := range []string{"$SRV.SCHEMA", "$SRV.ping", "$SRV.PING.Other", "$SRV.SCHEMA.TestService", "$SRV.PING.TestService.nobody", "$SRV.X.TestService." + id} {
		m := &nats.Msg{Subject: subject, Reply: "inbox"}
		must(t, nc.PublishMsg(m))
		m.Reply = ""
		must(t, nc.PublishMsg(m))
	}
	for _, subject := range verbSubjects("TestService", id)["PING"] {
		// These come behind the others on each subscription.
		must(t, nc.Publish(subject, nil))
		must(t, nc.PublishRequest(subject, "inbox", []byte("a body is ignored")))
	}
	for pings := 0; pings < 3; {
		switch m := <-inbox; {
		case strings.Contains(string(m.Data), micro.PingResponseType):
			pings++
		case m.Header.Get("Status") != "503": // NATS itself, where nobody listens
			t.Errorf("unexpected answer %q", m.Data)
		}
	}
}

// TestLeavingDiscovery: when Unregister and Shutdown return the service is not listed any more.
func TestLeavingDiscovery(t *testing.T) {
	srv := rpctest.NewServer(t)
	nc := srv.Connect()
	first, second := newTestServer(t, srv.Connect(), &funcs{}), newTestServer(t, srv.Connect(), &funcs{})
	names(t, nc, 2)
	must(t, first.Unregister(testContext(t), testDesc.Name))
	left := discover[micro.Ping](t, nc, "$SRV.PING", 1)[0]
	must(t, registerTest(first, &funcs{}))
	names(t, nc, 2)
	shutdown(t, first)
	shutdown(t, second)
	for _, subjects := range verbSubjects("TestService", left.ID) {
		for _, subject := range subjects {
			wantGone(t, nc, subject)
		}
	}
}

// TestTwoVersions: they are listed apart and share the calls.
func TestTwoVersions(t *testing.T) {
	srv := rpctest.NewServer(t)
	serve(t, srv.Connect(), &funcs{})
	next := testDesc
	next.Version, next.File = "2.0.0-rc.1+build.5", nil
	s := rpc.NewServer(srv.Connect())
	must(t, rpc.Register(s, &next, testServer(&funcs{}), nil, rpc.HandleUnary(testDo, testServer.Do)))
	must(t, s.Start(testContext(t)))
	defer shutdown(t, s)
	nc := srv.Connect()
	if diff := cmp.Diff([]string{"TestService 1.2.3", "TestService 2.0.0-rc.1+build.5"}, names(t, nc, 2)); diff != "" {
		t.Error(diff)
	}
	c := dial(t, nc)
	served := map[string]int{}
	for len(served) < 2 {
		must(t, callOnce(t, c))
		for _, s := range statsOf(t, nc, 2) {
			if n := s.Endpoints[0].NumRequests; n > 0 {
				served[s.Version] = n
			}
		}
	}
}

// TestSideBySideWithMicro: a natscall server and a service of micro share a
// connection, and may leave it in either order.
func TestSideBySideWithMicro(t *testing.T) {
	for _, oursFirst := range []bool{true, false} {
		t.Run(fmt.Sprintf("ours leaves first %v", oursFirst), func(t *testing.T) {
			srv := rpctest.NewServer(t)
			failed := make(chan error, 1)
			nc := srv.Connect(nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { failed <- err }))
			s := newTestServer(t, nc, &funcs{})
			svc, err := micro.AddService(nc, micro.Config{Name: "ByHand", Version: "0.1.0"})
			must(t, err)
			must(t, svc.AddEndpoint("Echo", micro.HandlerFunc(func(r micro.Request) { _ = r.Respond(r.Data()) })))
			must(t, nc.Flush())
			asker := srv.Connect()
			if diff := cmp.Diff([]string{"ByHand 0.1.0", "TestService 1.2.3"}, names(t, asker, 2)); diff != "" {
				t.Error(diff)
			}
			must(t, callOnce(t, dial(t, asker)))
			leave := map[bool]func(){true: func() { shutdown(t, s) }, false: func() { must(t, errors.Join(svc.Stop(), nc.Flush())) }}
			leave[oursFirst]()
			stays := names(t, asker, 1)[0]
			if got := strings.HasPrefix(stays, "ByHand"); got != oursFirst {
				t.Errorf("%s stays", stays)
			}
			leave[!oursFirst]()
			wantGone(t, asker, "$SRV.PING")
			nc.ErrorHandler()(nc, nil, errors.New("something"))
			if err := <-failed; err.Error() != "something" {
				t.Errorf("the user's error handler got %v", err)
			}
		})
	}
}

// TestInfoTooLarge: a service that no listing could show does not start.
func TestInfoTooLarge(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithServerOptions(func(o *server.Options) { o.MaxPayload = 16 << 10 }))
	large := rpc.WithServiceMetadata(map[string]string{"schema": strings.Repeat("x", 17<<10)})
	nc := srv.Connect()
	s := rpc.NewServer(nc, large)
	must(t, registerTest(s, &funcs{}))
	err := s.Start(testContext(t))
	for _, part := range []string{"test.v1.TestService", "max_payload is 16384", "metadata"} {
		wantText(t, err, part)
	}
	if n := nc.NumSubscriptions(); n != 0 {
		t.Errorf("%d subscriptions are left of the start that failed", n)
	}
	running := rpc.NewServer(nc)
	must(t, running.Start(testContext(t)))
	defer shutdown(t, running)
	wantText(t, registerTest(running, &funcs{}, large), "max_payload is 16384")
	must(t, registerTest(running, &funcs{}))
	must(t, callOnce(t, dial(t, nc)))
}

// TestMetadataIsCopied: what the caller does with its map later is not shown.
func TestMetadataIsCopied(t *testing.T) {
	nc := rpctest.Connect(t)
	m := map[string]string{"region": "eu"}
	serve(t, nc, &funcs{}, rpc.WithServiceMetadata(m))
	m["region"] = "us"
	before := maps.Clone(testDesc.Metadata)
	if got := discover[micro.Ping](t, nc, "$SRV.PING", 1)[0].Metadata["region"]; got != "eu" {
		t.Errorf("region is %q", got)
	}
	if diff := cmp.Diff(before, testDesc.Metadata); diff != "" {
		t.Errorf("the description was changed: %s", diff)
	}
}
