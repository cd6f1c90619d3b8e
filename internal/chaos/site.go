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

// The load of a scenario: 64 callers of unary methods, and 16 streams and 8 callers of registers
// beside them.
const clients = 2

var fullLoad = load{Callers: 32, Streamers: 8, Registers: 4, Pause: 10 * time.Millisecond}

// killLoad is that with a deadline which is enough for calls that may run twice, also where their
// instance is killed.
var killLoad = load{Callers: 32, Streamers: 8, Registers: 4, Pause: 10 * time.Millisecond, Deadline: impatience}

// Long scenarios have the same callers, with longer pauses: their records have to fit into memory.
var (
	longLoad = load{Callers: 32, Streamers: 8, Registers: 4, Pause: 60 * time.Millisecond}
	soakLoad = load{Callers: 32, Streamers: 8, Registers: 4, Pause: 400 * time.Millisecond}
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
	setup
	j        *journal
	random   *rand.Rand // of the plan
	scenario scenario
	nc       *nats.Conn // the runner's own
	store    *store

	nodes    []*node
	networks map[string]*network // by process, if the scenario has them
	replicas []*process
	clients  []*process
	made     int // replicas and bursts in all
	all      []*process

	background sync.WaitGroup // processes that end
}

// setup is what a site is made with.
type setup struct {
	dir     string // for records and logs
	program string // nats-server
	seed    uint64
}

// openSite starts nodes, replicas and clients. Close it also after an error.
func openSite(ctx context.Context, s scenario, up setup) (*site, error) {
	if err := os.Mkdir(up.dir, 0o700); err != nil {
		return nil, err
	}
	j, err := openJournal(up.dir, "runner")
	if err != nil {
		return nil, err
	}
	t := &site{setup: up, j: j, random: rand.New(rand.NewPCG(up.seed, 0)), scenario: s, networks: map[string]*network{}}
	return t, t.open(ctx)
}

func (t *site) open(ctx context.Context) (err error) {
	s := t.scenario
	if t.store, err = openStore(); err != nil {
		return err
	}
	if err := t.startNodes(ctx, s.nodes); err != nil {
		return err
	}
	runner, err := t.reaches(assignment{Name: "runner"}, 0)
	if err != nil {
		return err
	}
	if t.nc, err = connect(runner); err != nil {
		return err
	}
	for range s.replicas {
		p, err := t.startReplica()
		if err != nil {
			return err
		}
		if err := t.awaitReplica(ctx, p); err != nil {
			return err
		}
	}
	for i := range clients {
		p, err := t.startClient(fmt.Sprintf("client-%d", i), i, s.load)
		if err != nil {
			return err
		}
		t.clients = append(t.clients, p)
	}
	return nil
}

func (t *site) startNodes(ctx context.Context, n int) error {
	for i := range n {
		started := &node{j: t.j, program: t.program, dir: t.dir, name: fmt.Sprintf("node-%d", i), clustered: n > 1}
		err := t.startNode(ctx, started)
		t.nodes = append(t.nodes, started)
		if err != nil {
			return err
		}
	}
	if n > 1 {
		return awaitCluster(ctx, t.nodes)
	}
	return nil
}

// startNode starts a node, or starts it again.
func (t *site) startNode(ctx context.Context, n *node) error {
	before := n.process
	err := n.start(ctx, t.nodes)
	if n.process != before {
		t.all = append(t.all, n.process)
	}
	return err
}

// reaches says how a process reaches the nodes, and number i first.
func (t *site) reaches(a assignment, i int) (assignment, error) {
	if !t.scenario.networks {
		for k := range t.nodes {
			if n := t.nodes[(i+k)%len(t.nodes)]; !n.down {
				a.URLs = append(a.URLs, n.url())
			}
		}
		return a, nil
	}
	var nodes []func() string
	for _, n := range t.nodes {
		nodes = append(nodes, n.now)
	}
	network, err := openNetwork(nodes)
	if err != nil {
		return a, err
	}
	t.networks[a.Name] = network
	a.URLs, a.Pinned = network.from(i), true
	return a, nil
}

// startReplica starts a replica, each at another node.
func (t *site) startReplica() (*process, error) {
	a, err := t.reaches(assignment{
		Role: roleReplica, Name: fmt.Sprintf("replica-%d", t.made), Dir: t.dir, Heartbeat: t.scenario.heartbeat,
		Slots: t.scenario.slots, Store: t.store.address(), Sample: t.scenario.sample,
	}, t.made)
	if err != nil {
		return nil, err
	}
	p, err := startRole(t.j, a)
	if err != nil {
		return nil, err
	}
	t.made++
	t.replicas, t.all = append(t.replicas, p), append(t.all, p)
	return p, nil
}

// awaitReplica waits until discovery finds a replica.
func (t *site) awaitReplica(ctx context.Context, p *process) error {
	return p.await(ctx, "in discovery", func() error {
		found, err := discover[micro.Ping](t.nc, micro.PingVerb)
		for _, ping := range found {
			if ping.Metadata[replicaKey] == p.name {
				return nil
			}
		}
		return errors.Join(err, errors.New("it does not answer"))
	})
}

// addReplica starts a replica and waits for it.
func (t *site) addReplica(ctx context.Context) error {
	p, err := t.startReplica()
	if err != nil {
		return err
	}
	return t.awaitReplica(ctx, p)
}

// startClient starts number i of the clients.
func (t *site) startClient(name string, i int, l load) (*process, error) {
	a, err := t.reaches(assignment{
		Role: roleClient, Name: name, Dir: t.dir, Heartbeat: t.scenario.heartbeat,
		Seed: t.seed + uint64(i), load: l, Batching: i%2 == 1, Sample: t.scenario.sample,
	}, i)
	if err != nil {
		return nil, err
	}
	p, err := startRole(t.j, a)
	if err == nil {
		t.all = append(t.all, p)
	}
	return p, err
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
	t.background.Wait()
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

// close ends all processes that still run. Closing again does nothing.
func (t *site) close() {
	if t.nc != nil {
		t.nc.Close()
	}
	for _, n := range t.nodes {
		if !n.down && n.process != nil {
			n.terminate(nodeExitLimit)
		}
		n.down = true
	}
	for _, p := range t.all {
		_ = p.cmd.Process.Kill() // most have ended
		<-p.done
	}
	t.background.Wait()
	for _, n := range t.networks {
		n.close()
	}
	if t.store != nil {
		t.store.close()
	}
}

// records reads what all processes have recorded.
func (t *site) records() ([]record, error) {
	if err := t.j.close(); err != nil {
		return nil, err
	}
	return readJournals(t.dir)
}
