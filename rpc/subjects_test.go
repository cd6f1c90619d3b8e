package rpc_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// TestSubjects: what a server subscribes to, and a client publishes to, is what Subjects says.
func TestSubjects(t *testing.T) {
	const prefix = "eu.blue"
	var want []string // with their queue groups
	add := func(subjects ...string) {
		for _, s := range subjects {
			if s = strings.TrimSpace(s); s != "" && !slices.Contains(want, s) {
				want = append(want, s)
			}
		}
	}
	for _, m := range []interface {
		Subjects(string) (rpc.Subjects, error)
	}{testDo, testRead, testBlob, testObject, testNote, testWatch, testGather, testChat} {
		s, err := m.Subjects(prefix)
		must(t, err)
		add(s.Request + " " + s.QueueGroup)
		for _, subject := range s.Control {
			// The schema has a queue group of its own.
			add(strings.ReplaceAll(subject, "._schema", "._schema _schema"))
		}
		add(s.Discovery...)
	}
	srv := rpctest.NewServer(t)
	nc := srv.Connect(nats.Name("service"))
	served := serve(t, nc, &funcs{}, rpc.WithSubjectPrefix(prefix))
	must(t, nc.FlushWithContext(testContext(t)))
	state, err := srv.NATS().Connz(&server.ConnzOptions{Subscriptions: true, SubscriptionsDetail: true})
	must(t, err)
	var got []string
	for _, conn := range state.Conns {
		for _, sub := range conn.SubsDetail {
			got = append(got, strings.TrimSpace(strings.ReplaceAll(sub.Subject, served.Instance(testDesc.Name), "*")+" "+sub.Queue))
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(slices.Compact(got), want) {
		t.Errorf("subscriptions:\n%q\nwant\n%q", got, want)
	}
	if s, err := testNote.Subjects(""); err != nil || s.Cancel+s.Alive+s.Instances+s.Frames+s.All != "" || s.Request != "notes.new" {
		t.Errorf("a one-way method: %+v, %v", s, err)
	}
	if s, err := testWatch.Subjects(""); err != nil || s.All != "" || s.Frames != testRoot+"._i.*.*" || s.One != testRoot+"._i.*.call.Watch" {
		t.Errorf("a streaming method: %+v, %v", s, err)
	}
	for _, prefix := range []string{"a..b", "a b", "a.*", "$SYS", strings.Repeat("x", 255)} {
		if s, err := testDo.Subjects(prefix); err == nil {
			t.Errorf("prefix %q: %+v", prefix, s)
		}
	}
}
