package main

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/natscall/natscall/internal/chaos/gen/chaos/v1/chaosv1nats"
)

// faultKind is a fault that a plan may have. Its name is what the records and the report say.
type faultKind string

// The faults of nodes.
const (
	faultNodeKill    faultKind = "node: kill"
	faultLameDuck    faultKind = "node: lame duck"
	faultNodeStop    faultKind = "node: stop"
	faultReload      faultKind = "node: reload of the same"
	faultReloadLimit faultKind = "node: reload of limits"
	faultDeny        faultKind = "node: reload of permissions" // clients must not call Put
	// Replicas must not subscribe to Get: no plan has it, as it may hit all of them.
	faultDenyReplicas faultKind = "node: reload of permissions of replicas"
)

// The faults of replicas.
const (
	faultKill    faultKind = "replica: kill"
	faultStop    faultKind = "replica: stop"
	faultRestart faultKind = "replica: restart"
	faultIll     faultKind = "replica: not healthy"
)

// The faults of the network of a client or a replica.
const (
	faultCut         faultKind = "network: cut"
	faultHoleOut     faultKind = "network: black hole to the node"
	faultHoleIn      faultKind = "network: black hole to the process"
	faultHole        faultKind = "network: black hole"
	faultHoleForGood faultKind = "network: black hole, then cut"
	faultLatency     faultKind = "network: latency"
)

// The faults of clients. A burst is one more, with many callers.
const (
	faultStopClient faultKind = "client: stop"
	faultBurst      faultKind = "client: burst of load"
)

// healing ends a fault. It is nil for one that is over at once.
type healing func(context.Context) error

// begin makes a fault happen to one of what it may happen to.
func (t *site) begin(ctx context.Context, kind faultKind, target int) (healing, error) {
	switch kind {
	case faultNodeKill, faultLameDuck, faultNodeStop:
		return t.hitNode(kind, t.nodes[target%len(t.nodes)])
	case faultReload, faultReloadLimit, faultDeny, faultDenyReplicas:
		return t.reloadNode(ctx, kind, t.nodes[target%len(t.nodes)])
	case faultKill, faultStop, faultRestart, faultIll:
		return t.hitReplica(kind, target%len(t.replicas))
	case faultBurst:
		return t.burst(target)
	case faultStopClient:
		p := t.clients[target%len(t.clients)]
		t.says(fault, kind, p.name)
		return t.stop(kind, p, p.name)
	}
	networked := slices.Concat(t.clients, t.replicas)
	return t.hitNetwork(kind, networked[target%len(networked)].name)
}

// says records a fault, or the end of one.
func (t *site) says(k kind, f faultKind, process string) {
	t.j.write(record{Kind: k, Process: process, Text: string(f)})
}

func (t *site) hitNode(kind faultKind, n *node) (healing, error) {
	t.says(fault, kind, n.name)
	again := func(ctx context.Context) error {
		defer t.says(healed, kind, n.name)
		if !n.gone() { // a lame duck that still has connections
			if err := n.kill(); err != nil {
				return err
			}
		}
		n.down = true
		return t.startNode(ctx, n)
	}
	switch kind {
	case faultNodeKill:
		n.down = true
		return again, n.kill()
	case faultLameDuck:
		return again, n.signal(signalLameDuck)
	}
	return t.stop(kind, n.process, n.name)
}

// stop stops a process and lets it go on.
func (t *site) stop(kind faultKind, p *process, name string) (healing, error) {
	return func(context.Context) error {
		defer t.says(healed, kind, name)
		return p.signal(signalResume)
	}, p.signal(signalPause)
}

// reloadNode changes the configuration of a node and, as a healing, changes it back.
func (t *site) reloadNode(ctx context.Context, kind faultKind, n *node) (healing, error) {
	var r rules
	switch kind {
	case faultReloadLimit:
		r.more = "ping_interval: \"20s\"\nwrite_deadline: \"8s\"\nmax_connections: 1000"
	case faultDeny:
		r.denyPublish = subject(methodPut)
	case faultDenyReplicas:
		r.denySubscribe = subject(methodGet)
	}
	return t.reload(ctx, kind, n, r)
}

func (t *site) reload(ctx context.Context, kind faultKind, n *node, r rules) (healing, error) {
	t.says(fault, kind, n.name)
	if err := n.reload(ctx, r); err != nil || r == (rules{}) {
		return nil, err
	}
	return func(ctx context.Context) error {
		defer t.says(healed, kind, n.name)
		return n.reload(ctx, rules{})
	}, nil
}

// subject is where a method is called.
func subject(method string) string { return chaosv1nats.ChaosServiceName + "." + method }

// hitReplica hits a replica. Another one takes the place of one that ends.
func (t *site) hitReplica(kind faultKind, i int) (healing, error) {
	p := t.replicas[i]
	t.says(fault, kind, p.name)
	switch kind {
	case faultStop:
		return t.stop(kind, p, p.name)
	case faultIll:
		return func(context.Context) error {
			defer t.says(healed, kind, p.name)
			return p.signal(signalWell)
		}, p.signal(signalIll)
	case faultKill:
		t.remove(i)
		return func(context.Context) error {
			defer t.says(healed, kind, p.name)
			_, err := t.startReplica()
			return err
		}, p.kill()
	}
	_, err := t.startReplica()
	return func(context.Context) error {
		defer t.says(healed, kind, p.name)
		t.remove(slices.Index(t.replicas, p))
		t.background.Go(func() { p.terminate(replicaExitLimit) })
		return nil
	}, err
}

// The latency and the rate are those of a bad line.
var badLine = weather{latency: 60 * time.Millisecond, rate: 2 << 20}

func (t *site) hitNetwork(kind faultKind, name string) (healing, error) {
	n := t.networks[name]
	t.says(fault, kind, name)
	var w weather
	switch kind {
	case faultCut:
		n.cut()
		return nil, nil
	case faultLatency:
		w = badLine
	case faultHoleOut:
		w.hold[toNode] = true
	case faultHoleIn:
		w.hold[toProcess] = true
	default:
		w.hold = [2]bool{true, true}
	}
	n.set(w)
	return func(context.Context) error {
		defer t.says(healed, kind, name)
		if kind == faultHoleForGood {
			n.cut()
		}
		n.set(weather{})
		return nil
	}, nil
}

// burstPrefix begins the names of clients that are faults.
const burstPrefix = "burst-"

// burstLoad is more than the replicas of the torture have slots for, but not much work.
var burstLoad = load{Callers: 200, Pause: 200 * time.Millisecond, Work: 200 * time.Millisecond}

// tortureSlots are those of each replica.
const tortureSlots = 24

func (t *site) burst(number int) (healing, error) {
	t.made++
	p, err := t.startClient(burstPrefix+strconv.Itoa(t.made), number, burstLoad)
	if err != nil {
		return nil, err
	}
	t.says(fault, faultBurst, p.name)
	return func(context.Context) error {
		t.says(healed, faultBurst, p.name)
		t.background.Go(func() { p.terminate(clientExitLimit) })
		return nil
	}, nil
}
