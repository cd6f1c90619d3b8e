package kvtable

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/natscall/natscall/examples/internal/backoff"
	"github.com/natscall/natscall/examples/internal/ports"
	"github.com/natscall/natscall/rpc/rpctest"
)

var polling = backoff.Policy{First: 10 * time.Millisecond, Limit: 50 * time.Millisecond}

// cluster starts three NATS servers that keep streams together.
func cluster(t *testing.T) []*rpctest.Server {
	t.Helper()
	addresses := ports.Free(t, 3) // each must know the others' before it starts
	var routes []string
	for _, port := range addresses {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	var nodes []*rpctest.Server
	for i, port := range addresses {
		nodes = append(nodes, rpctest.NewServer(t, rpctest.WithJetStream(), rpctest.WithServerOptions(func(o *server.Options) {
			o.ServerName = fmt.Sprint("n", i)
			o.Cluster = server.ClusterOpts{Name: "c", Host: "127.0.0.1", Port: port}
			o.Routes = server.RoutesFromStr(strings.Join(routes, ","))
		})))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for range polling.Attempts(ctx) {
		for _, n := range nodes {
			if len(n.NATS().JetStreamClusterPeers()) == len(nodes) { // only the leader knows
				return nodes
			}
		}
	}
	t.Fatal("the cluster has no leader")
	return nil
}

// Three servers keep the bucket, and the one that leads it stops while writers
// are at work. What was written stays written, once.
func TestLeaderStops(t *testing.T) {
	nodes := cluster(t)
	var urls []string
	for _, n := range nodes {
		urls = append(urls, n.URL())
	}
	var written, unknown, goal atomic.Int64
	var writers sync.WaitGroup
	goal.Store(math.MaxInt64)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	leads := make(chan string, len(nodes))
	for range nodes {
		nc := connect(t, urls)
		writers.Go(func() { // all make the bucket at once
			table := openReplicated(ctx, t, nc)
			leads <- leader(ctx, t, nc)
			for written.Load() < goal.Load() && ctx.Err() == nil {
				call, cancel := context.WithTimeout(ctx, 3*time.Second)
				if _, err := table.Update(call, "k", increment); err != nil {
					unknown.Add(1)
				} else {
					written.Add(1)
				}
				cancel()
			}
		})
	}
	name := <-leads
	for range polling.Attempts(ctx) { // they are at work
		if written.Load() >= 100 {
			break
		}
	}
	for _, n := range nodes {
		if n.NATS().Name() == name {
			n.Shutdown()
		}
	}
	goal.Store(written.Load() + 100)
	writers.Wait()
	row, err := openReplicated(ctx, t, connect(t, urls)).Get(ctx, "k")
	if n := int64(row.Value.N); err != nil || n < written.Load() || n > written.Load()+unknown.Load() {
		t.Errorf("%+v, %v, want %d, or up to %d more", row, err, written.Load(), unknown.Load())
	}
	t.Logf("%s stopped: %d writes, %d with an unknown outcome, value %d", name, written.Load(), unknown.Load(), row.Value.N)
}

func connect(t *testing.T, urls []string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(strings.Join(urls, ","), nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

func openReplicated(ctx context.Context, t *testing.T, nc *nats.Conn) *Table[counter] {
	js, err := jetstream.New(nc)
	if err != nil {
		t.Error(err)
	}
	table, err := Open[counter](ctx, js, Config{Name: "counters", Replicas: 3})
	if err != nil {
		t.Error(err)
	}
	return table
}

// leader is the name of the server that leads the bucket.
func leader(ctx context.Context, t *testing.T, nc *nats.Conn) string {
	js, err := jetstream.New(nc)
	if err != nil {
		t.Error(err)
	}
	for range polling.Attempts(ctx) {
		attempt, cancel := context.WithTimeout(ctx, answerTime)
		stream, err := js.Stream(attempt, "KV_counters")
		cancel()
		if err == nil && stream.CachedInfo().Cluster.Leader != "" {
			return stream.CachedInfo().Cluster.Leader
		}
	}
	t.Error("the bucket has no leader")
	return ""
}
