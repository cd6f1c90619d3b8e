package main

import (
	"context"
	"syscall"
	"time"
)

// scenario is a site and what happens to it under load.
type scenario struct {
	name      string
	nodes     int
	replicas  int
	heartbeat time.Duration // of streams; a third of what it takes until a silent peer is dead
	excuses   excuses
	happen    func(context.Context, *site) error
}

// excuses are the failures that the faults of a scenario may cause by the promises of README and
// docs/protocol.md. Any other failure is a violation, except those that callers ask for: a short
// deadline, a cancel, a handler that is told to fail.
type excuses struct {
	unavailable bool // UNAVAILABLE, "may have run", where the method may not run twice
	idempotent  bool // UNAVAILABLE where the method may run twice, and so is sent again
	notRun      bool // UNAVAILABLE, "not run": the connection is down
	nobody      bool // UNAVAILABLE, "not run", of an impatient caller: no replica is there
	deadline    bool // DEADLINE_EXCEEDED also for a patient caller
	dataLoss    bool // DATA_LOSS of a stream, which says that a frame was lost
}

const (
	defaultHeartbeat = 10 * time.Second
	shortHeartbeat   = time.Second
)

// scenarios are all that there are, in their order.
func scenarios() []scenario {
	return []scenario{
		{name: "rolling", nodes: 1, replicas: 2, heartbeat: defaultHeartbeat, happen: rollingRestarts(2)},
		{name: "rolling-cluster", nodes: 3, replicas: 2, heartbeat: defaultHeartbeat, happen: rollingRestarts(1)},
		{name: "gap", nodes: 1, replicas: 2, heartbeat: defaultHeartbeat, happen: restartAll,
			excuses: excuses{nobody: true}},
		{name: "kill", nodes: 1, replicas: 3, heartbeat: shortHeartbeat, happen: killReplica,
			excuses: excuses{unavailable: true}},
		{name: "pause", nodes: 1, replicas: 3, heartbeat: shortHeartbeat, happen: pauseReplica,
			excuses: excuses{unavailable: true, idempotent: true, deadline: true}},
		{name: "node", nodes: 3, replicas: 3, heartbeat: shortHeartbeat, happen: killNode,
			excuses: excuses{unavailable: true, idempotent: true, notRun: true, dataLoss: true}},
		{name: "lame-duck", nodes: 3, replicas: 3, heartbeat: shortHeartbeat, happen: lameDuck,
			excuses: excuses{unavailable: true, idempotent: true, notRun: true, dataLoss: true}},
	}
}

// warmUp is the load before and between faults.
const warmUp = time.Second

// rollingRestarts replaces each replica so many times. The new one is there before the old one
// has to go.
func rollingRestarts(rounds int) func(context.Context, *site) error {
	return func(ctx context.Context, t *site) error {
		for range rounds * len(t.replicas) {
			if err := sleep(ctx, warmUp/2); err != nil {
				return err
			}
			if _, err := t.startReplica(ctx); err != nil {
				return err
			}
			t.remove(0).terminate(replicaExitLimit)
		}
		return sleep(ctx, warmUp)
	}
}

// restartAll ends all replicas at the same time, and starts others afterwards. Callers wait.
func restartAll(ctx context.Context, t *site) error {
	if err := sleep(ctx, warmUp); err != nil {
		return err
	}
	n := len(t.replicas)
	terminateAll(t.replicas, replicaExitLimit)
	t.replicas = nil
	for range n {
		if _, err := t.startReplica(ctx); err != nil {
			return err
		}
	}
	return sleep(ctx, warmUp)
}

// killReplica kills a replica with its calls, twice; another one takes its place. Clients find
// out after some four seconds.
func killReplica(ctx context.Context, t *site) error {
	for range 2 {
		if err := sleep(ctx, warmUp); err != nil {
			return err
		}
		if err := t.remove(t.random.IntN(len(t.replicas))).kill(); err != nil {
			return err
		}
		if _, err := t.startReplica(ctx); err != nil {
			return err
		}
	}
	return sleep(ctx, 3*time.Second)
}

// pauseReplica stops a replica for longer than clients wait for a sign of life, and lets it go
// on. Its answers are then late, and must not be taken for those of later calls.
func pauseReplica(ctx context.Context, t *site) error {
	if err := sleep(ctx, warmUp); err != nil {
		return err
	}
	p := t.replicas[t.random.IntN(len(t.replicas))]
	if err := p.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	if err := sleep(ctx, 5*time.Second); err != nil {
		return err
	}
	if err := p.signal(syscall.SIGCONT); err != nil {
		return err
	}
	return sleep(ctx, 2*warmUp)
}

// killNode kills the node of the first client and the first replica.
func killNode(ctx context.Context, t *site) error {
	if err := sleep(ctx, warmUp); err != nil {
		return err
	}
	n := t.nodes[0]
	t.nodes = t.nodes[1:]
	if err := n.kill(); err != nil {
		return err
	}
	return sleep(ctx, 4500*time.Millisecond)
}

// lameDuck takes the node of the first client and the first replica out of service: it closes
// its connections one after the other, a second apart, and ends.
func lameDuck(ctx context.Context, t *site) error {
	if err := sleep(ctx, warmUp); err != nil {
		return err
	}
	if err := t.nodes[0].signal(syscall.SIGUSR2); err != nil {
		return err
	}
	return sleep(ctx, 6*time.Second)
}
