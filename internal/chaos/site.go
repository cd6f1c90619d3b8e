package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
)

// The load of a scenario: 64 callers of unary methods, and 16 streams that are open beside them.
const (
	clients          = 2
	callersPerClient = 32
	streamsPerClient = 8
)

// How long processes may take to end. Each limit is well above what the parts may take by
// themselves, so that a busy machine does not break it.
const (
	clientExitLimit  = patience + leavingTime + 5*time.Second
	replicaExitLimit = gracePeriod + leavingTime + 5*time.Second
	nodeExitLimit    = 5 * time.Second
)

const (
	// settleLimit is how long a replica may have calls after the last client has gone, beside
	// the three heartbeats after which a silent client is dead.
	settleLimit = 5 * time.Second
	// discoveryInterval is how long answers of replicas are waited for.
	discoveryInterval = 150 * time.Millisecond
)

// site is the processes of a scenario. Its methods are for one goroutine.
type site struct {
	dir    string
	j      *journal
	random *rand.Rand // of the plan
	nats   string     // the nats-server program

	scenario scenario
	nc       *nats.Conn // the runner's own

	nodes    []*node // those that live
	replicas []*process
	clients  []*process
	made     int // replicas in all
	all      []*process
}

// openSite starts nodes, replicas and clients. Close it also after an error.
func openSite(ctx context.Context, s scenario, dir, program string, seed uint64) (*site, error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	j, err := openJournal(dir, "runner")
	if err != nil {
		return nil, err
	}
	t := &site{dir: dir, j: j, random: rand.New(rand.NewPCG(seed, 0)), nats: program, scenario: s}
	return t, t.open(ctx, seed)
}

func (t *site) open(ctx context.Context, seed uint64) (err error) {
	s := t.scenario
	if err := t.startNodes(ctx, s.nodes); err != nil {
		return err
	}
	if t.nc, err = connect(assignment{Name: "runner", URLs: t.urls(0)}); err != nil {
		return err
	}
	for range s.replicas {
		if _, err := t.startReplica(ctx); err != nil {
			return err
		}
	}
	for i := range clients {
		if err := t.startClient(i, seed); err != nil {
			return err
		}
	}
	return nil
}

func (t *site) startNodes(ctx context.Context, n int) error {
	for i := range n {
		var first *node
		if i > 0 {
			first = t.nodes[0]
		}
		started, err := startNode(ctx, t.j, t.nats, t.dir, fmt.Sprintf("node-%d", i), n > 1, first)
		if started != nil {
			t.nodes, t.all = append(t.nodes, started), append(t.all, started.process)
		}
		if err != nil {
			return err
		}
	}
	if n > 1 {
		return awaitCluster(ctx, t.nodes)
	}
	return nil
}

// urls are those of the nodes, from number i on.
func (t *site) urls(i int) (out []string) {
	for k := range t.nodes {
		out = append(out, t.nodes[(i+k)%len(t.nodes)].url)
	}
	return out
}

// startReplica starts a replica, each at another node, and waits until discovery finds it.
func (t *site) startReplica(ctx context.Context) (*process, error) {
	name := fmt.Sprintf("replica-%d", t.made)
	p, err := startRole(t.j, assignment{Role: roleReplica, Name: name, Dir: t.dir, URLs: t.urls(t.made), Heartbeat: t.scenario.heartbeat})
	if err != nil {
		return nil, err
	}
	t.made++
	t.replicas, t.all = append(t.replicas, p), append(t.all, p)
	return p, p.await(ctx, "in discovery", func() error {
		found, err := discover[micro.Ping](t.nc, micro.PingVerb)
		for _, ping := range found {
			if ping.Metadata[replicaKey] == name {
				return nil
			}
		}
		return errors.Join(err, errors.New("it does not answer"))
	})
}

func (t *site) startClient(i int, seed uint64) error {
	p, err := startRole(t.j, assignment{
		Role: roleClient, Name: fmt.Sprintf("client-%d", i), Dir: t.dir, URLs: t.urls(i), Heartbeat: t.scenario.heartbeat,
		Seed: seed + uint64(i), Callers: callersPerClient, Streamers: streamsPerClient, Batching: i%2 == 1,
	})
	if err == nil {
		t.clients, t.all = append(t.clients, p), append(t.all, p)
	}
	return err
}

// remove takes a replica out of the list of those that live.
func (t *site) remove(i int) *process {
	p := t.replicas[i]
	t.replicas = append(t.replicas[:i], t.replicas[i+1:]...)
	return p
}

// serviceName is the one that discovery knows.
const serviceName = "ChaosService"

// discover asks all replicas, and returns what came within discoveryInterval.
func discover[A any](nc *nats.Conn, verb micro.Verb) (out []A, err error) {
	subject, err := micro.ControlSubject(verb, serviceName, "")
	if err != nil {
		return nil, err
	}
	inbox := nc.NewRespInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return nil, err
	}
	defer func() { _ = sub.Unsubscribe() }()
	if err := nc.PublishRequest(subject, inbox, nil); err != nil {
		return nil, err
	}
	for end := time.Now().Add(discoveryInterval); ; {
		m, err := sub.NextMsg(time.Until(end))
		if err != nil {
			return out, nil
		}
		var answer A
		if json.Unmarshal(m.Data, &answer) == nil { // not a 503
			out = append(out, answer)
		}
	}
}

// settle ends the clients, records which calls the replicas have left, and ends them too.
func (t *site) settle(ctx context.Context) error {
	terminateAll(t.clients, clientExitLimit)
	if err := t.recordLeft(ctx); err != nil {
		return err
	}
	terminateAll(t.replicas, replicaExitLimit)
	return nil
}

func terminateAll(processes []*process, limit time.Duration) {
	var wg sync.WaitGroup
	for _, p := range processes {
		wg.Go(func() { p.terminate(limit) })
	}
	wg.Wait()
}

// recordLeft records how many calls the replicas have by their statistics when no caller is left.
func (t *site) recordLeft(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settleLimit+3*t.scenario.heartbeat)
	defer cancel()
	for {
		found, err := discover[micro.Stats](t.nc, micro.StatsVerb)
		if err != nil {
			return err
		}
		calls, total := map[string]int{}, 0
		for _, stats := range found {
			n, err := inFlight(stats)
			if err != nil {
				return err
			}
			calls[stats.Metadata[replicaKey]] = n
			total += n
		}
		if len(found) == len(t.replicas) && total == 0 || sleep(ctx, tick) != nil {
			for _, p := range t.replicas {
				if n, found := calls[p.name]; found {
					t.j.write(record{Kind: left, Process: p.name, Count: n})
				} else {
					p.record(silent, "it does not answer $SRV.STATS")
				}
			}
			return nil
		}
	}
}

// inFlight is how many calls a replica has.
func inFlight(stats micro.Stats) (n int, err error) {
	for _, e := range stats.Endpoints {
		var data struct {
			InFlight int `json:"in_flight"` // with those that are queued
		}
		if err := json.Unmarshal(e.Data, &data); err != nil {
			return 0, fmt.Errorf("the data of %s in STATS: %w", e.Name, err)
		}
		n += data.InFlight
	}
	return n, nil
}

// close ends all processes that still run.
func (t *site) close() {
	if t.nc != nil {
		t.nc.Close()
	}
	for _, n := range t.nodes {
		n.terminate(nodeExitLimit)
	}
	t.nodes = nil // the second time there is nothing to be recorded
	for _, p := range t.all {
		_ = p.cmd.Process.Kill() // most have ended
		<-p.done
	}
}

// records reads what all processes have recorded.
func (t *site) records() ([]record, error) {
	if err := t.j.close(); err != nil {
		return nil, err
	}
	return readJournals(t.dir)
}
