package kvtable

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

// counter stands for any value.
type counter struct {
	N int `json:"n"`
}

func open(t *testing.T, nc *nats.Conn) *Table[counter] {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	table, err := Open[counter](t.Context(), js, Config{Prefix: "a.b", Name: "counters"})
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func one(t *testing.T) (*nats.Conn, *Table[counter]) {
	t.Helper()
	nc := rpctest.NewServer(t, rpctest.WithJetStream()).Connect()
	return nc, open(t, nc)
}

// put writes a new entry.
func put(t *testing.T, table *Table[counter], key string, n int) {
	t.Helper()
	if _, err := table.Put(t.Context(), Row[counter]{Key: key, Value: counter{n}}); err != nil {
		t.Fatal(err)
	}
}

func increment(c counter) (counter, error) { c.N++; return c, nil }

func TestNoUpdateIsLost(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithJetStream())
	const replicas, writers, each = 3, 8, 5
	var all sync.WaitGroup
	for range replicas {
		table := open(t, srv.Connect())
		for range writers {
			all.Go(func() {
				for range each {
					if _, err := table.Update(t.Context(), "k", increment); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	all.Wait()
	row, err := open(t, srv.Connect()).Get(t.Context(), "k")
	if err != nil || row.Value.N != replicas*writers*each {
		t.Errorf("%+v, %v, want %d", row, err, replicas*writers*each)
	}
}

func TestConflict(t *testing.T) {
	_, table := one(t)
	put(t, table, "k", 1)
	for name, revision := range map[string]uint64{"create": 0, "update": 99} {
		_, err := table.Put(t.Context(), Row[counter]{Key: "k", Value: counter{2}, Revision: revision})
		if !errors.Is(err, ErrConflict) {
			t.Errorf("%s: %v, want a conflict", name, err)
		}
	}
	if row, err := table.Get(t.Context(), "k"); err != nil || row.Value.N != 1 {
		t.Errorf("%+v, %v, want 1", row, err)
	}
}

func TestConflictsThatPersist(t *testing.T) {
	_, table := one(t)
	put(t, table, "k", 1)
	_, err := table.Update(t.Context(), "k", func(c counter) (counter, error) {
		_, err := table.kv.Put(t.Context(), "k", []byte(`{"n":5}`)) // somebody is always faster
		c.N++
		return c, err
	})
	if rpc.CodeOf(err) != rpc.CodeAborted {
		t.Errorf("%v, want ABORTED", err)
	}
}

func TestUpdateWithoutChangeWritesNothing(t *testing.T) {
	_, table := one(t)
	put(t, table, "k", 1)
	before, _ := table.Get(t.Context(), "k")
	value, err := table.Update(t.Context(), "k", func(c counter) (counter, error) { return c, nil })
	after, _ := table.Get(t.Context(), "k")
	if err != nil || value.N != 1 || after.Revision != before.Revision {
		t.Errorf("%+v, %v, revision %d after %d", value, err, after.Revision, before.Revision)
	}
	refused := errors.New("refused")
	if _, err := table.Update(t.Context(), "k", func(counter) (counter, error) { return counter{9}, refused }); !errors.Is(err, refused) {
		t.Errorf("%v, want the error of the change", err)
	}
}

func TestDeletedEntry(t *testing.T) {
	_, table := one(t)
	put(t, table, "k", 7)
	if err := table.kv.Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Get(t.Context(), "k"); !errors.Is(err, ErrNotFound) {
		t.Errorf("%v, want ErrNotFound", err)
	}
	if value, err := table.Update(t.Context(), "k", increment); err != nil || value.N != 1 {
		t.Errorf("%+v, %v, want to start over", value, err)
	}
}

func TestPageAndAll(t *testing.T) {
	_, table := one(t)
	for _, n := range []int{3, 1, 5, 2, 4} {
		put(t, table, fmt.Sprint("k", n), n)
	}
	var got []string
	for after, more := "", true; more; {
		rows, again, err := table.Page(t.Context(), after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range rows {
			got, after = append(got, row.Key), row.Key
		}
		got, more = append(got, "|"), again
	}
	if s := strings.Join(got, " "); s != "k1 k2 | k3 k4 | k5 |" {
		t.Errorf("pages %q", s)
	}
	sum, order := 0, ""
	for row, err := range table.All(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		sum, order = sum+row.Value.N, order+row.Key
	}
	if order != "k3k1k5k2k4" || sum != 15 {
		t.Errorf("all %q, sum %d", order, sum)
	}
	for range table.All(t.Context()) {
		break // an early end leaves nothing behind: the leak check sees it
	}
}

func TestEmpty(t *testing.T) {
	_, table := one(t)
	for row, err := range table.All(t.Context()) {
		t.Errorf("%+v, %v", row, err)
	}
	if rows, more, err := table.Page(t.Context(), "", 5); len(rows) != 0 || more || err != nil {
		t.Errorf("%v, %v, %v", rows, more, err)
	}
}

func TestWatch(t *testing.T) {
	_, table := one(t)
	put(t, table, "k", 1)
	ctx, cancel := context.WithCancel(t.Context())
	changes, err := table.Watch(ctx, "k")
	if err != nil {
		t.Fatal(err)
	}
	for want := 1; want < 4; want++ {
		if row := <-changes; row.Value.N != want {
			t.Errorf("%+v, want %d", row, want)
		}
		if _, err := table.Update(t.Context(), "k", increment); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	for range changes { // ends
	}
}

func TestWatchSome(t *testing.T) {
	_, table := one(t)
	put(t, table, "a", 1)
	put(t, table, "b", 2)
	ctx, cancel := context.WithCancel(t.Context())
	changes, err := table.Watch(ctx, "a", "c")
	if err != nil {
		t.Fatal(err)
	}
	first := <-changes
	put(t, table, "c", 3)
	if second := <-changes; first.Key != "a" || second.Key != "c" {
		t.Errorf("%+v and %+v, want a and c", first, second)
	}
	cancel()
	for range changes { // ends
	}
}

func TestBrokenEntry(t *testing.T) {
	_, table := one(t)
	if _, err := table.kv.Put(t.Context(), "k", []byte("not JSON")); err != nil {
		t.Fatal(err)
	}
	_, err := table.Get(t.Context(), "k")
	if rpc.CodeOf(err) != rpc.CodeDataLoss || !strings.Contains(err.Error(), "a-b-counters/k") {
		t.Errorf("%v, want DATA_LOSS that names the entry", err)
	}
}

func TestClosedConnection(t *testing.T) {
	nc, table := one(t)
	put(t, table, "k", 1)
	changes, err := table.Watch(t.Context(), AllKeys)
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	for range changes { // ends
	}
	_, getErr := table.Get(t.Context(), "k")
	_, putErr := table.Put(t.Context(), Row[counter]{Key: "other"})
	_, updateErr := table.Update(t.Context(), "k", increment)
	_, watchErr := table.Watch(t.Context(), "k")
	_, _, pageErr := table.Page(t.Context(), "", 1)
	for name, err := range map[string]error{
		"get": getErr, "put": putErr, "update": updateErr, "watch": watchErr, "page": pageErr,
	} {
		if rpc.CodeOf(err) != rpc.CodeUnavailable {
			t.Errorf("%s: %v, want UNAVAILABLE", name, err)
		}
	}
}

// Replicas that start together make one bucket; reads go to its leader.
func TestOpenTogether(t *testing.T) {
	srv := rpctest.NewServer(t, rpctest.WithJetStream())
	var all sync.WaitGroup
	for range 4 {
		nc := srv.Connect()
		all.Go(func() { open(t, nc) })
	}
	all.Wait()
	js, err := jetstream.New(srv.Connect())
	if err != nil {
		t.Fatal(err)
	}
	stream, err := js.Stream(t.Context(), "KV_a-b-counters")
	if err != nil {
		t.Fatal(err)
	}
	if c := stream.CachedInfo().Config; c.AllowDirect || c.MaxMsgsPerSubject != 1 {
		t.Errorf("config %+v", c)
	}
}

// TestOpenWithoutJetStream: where there is no JetStream the error says in one line what to do.
func TestOpenWithoutJetStream(t *testing.T) {
	for name, opts := range map[string][]rpctest.Option{
		"server":  nil,
		"account": {rpctest.WithJetStream(), rpctest.WithServerOptions(withoutAccountJetStream)},
	} {
		t.Run(name, func(t *testing.T) {
			js, err := jetstream.New(rpctest.NewServer(t, opts...).Connect())
			if err != nil {
				t.Fatal(err)
			}
			_, err = Open[counter](t.Context(), js, Config{Name: "counters"})
			if rpc.CodeOf(err) != rpc.CodeUnavailable || !strings.Contains(err.Error(), "start it as nats-server -js (cannot open counters") || strings.Contains(err.Error(), "\n") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// withoutAccountJetStream puts clients into an account that has no JetStream.
func withoutAccountJetStream(o *server.Options) {
	o.Accounts = []*server.Account{server.NewAccount("WITHOUT"), server.NewAccount("SYS")}
	o.SystemAccount = "SYS"
	o.Users = []*server.User{{Username: "u", Password: "p", Account: o.Accounts[0]}}
	o.NoAuthUser = "u"
}

// starting is the JetStream of a cluster whose nodes are about to start.
type starting struct {
	jetstream.JetStream
	answers int // so many say that there is no leader
}

func (s *starting) KeyValue(ctx context.Context, bucket string) (jetstream.KeyValue, error) {
	if s.answers--; s.answers >= 0 {
		return nil, &jetstream.APIError{Code: 503, ErrorCode: 10008, Description: "JetStream system temporarily unavailable"}
	}
	return s.JetStream.KeyValue(ctx, bucket)
}

// TestOpenWaits: Open waits for a cluster that has no leader yet, says so once, and ends with ctx.
func TestOpenWaits(t *testing.T) {
	t.Parallel()
	js, err := jetstream.New(rpctest.NewServer(t, rpctest.WithJetStream()).Connect())
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	c := Config{Name: "counters", Log: slog.New(slog.NewTextHandler(&log, nil))}
	if _, err := Open[counter](t.Context(), &starting{js, patience + 1}, c); err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "JetStream is not there yet, waiting"); n != 1 {
		t.Errorf("the log says it %d times:\n%s", n, &log)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = Open[counter](ctx, &starting{js, math.MaxInt}, c)
	if rpc.CodeOf(err) != rpc.CodeUnavailable || !errors.Is(err, ctx.Err()) || !errors.Is(err, errNoLeader) || !strings.Contains(err.Error(), "cannot open counters") {
		t.Errorf("error %v when there is no leader in time", err)
	}
}
