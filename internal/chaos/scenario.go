package main

import (
	"context"
	"errors"
	"time"
)

// scenario is a site and what happens to it under load.
type scenario struct {
	name      string
	nodes     int
	replicas  int
	heartbeat time.Duration // of streams; a third of what it takes until a silent peer is dead
	networks  bool          // processes reach the nodes by networks that can be bad
	slots     int           // of each replica, 0 for the default
	load      load          // of each client
	sample    time.Duration // how often processes say what they use, 0 for never
	limit     time.Duration // of what happens, beside the time that any scenario may take
	named     bool          // runs only if it is asked for by its name
	excuses   excuses
	happen    func(context.Context, *site) error
}

// excuses are the failures that the faults of a scenario may cause by the promises of README and
// docs/protocol.md. Any other failure is a violation, except those that callers ask for: a short
// deadline, a cancel, a handler that is told to fail. Each is the claim that it is about, "not run"
// or "may have run".
type excuses struct {
	unavailable bool // UNAVAILABLE or a lost key, "may have run", of what may not run twice
	idempotent  bool // UNAVAILABLE where the method may run twice, and so is sent again
	notRun      bool // UNAVAILABLE, "not run": the connection is down
	nobody      bool // UNAVAILABLE, "not run", of an impatient caller: no replica is there
	deadline    bool // DEADLINE_EXCEEDED also for a patient caller
	dataLoss    bool // DATA_LOSS of a stream, which says that a frame was lost
	exhausted   bool // RESOURCE_EXHAUSTED, "not run": an overload
	lateDeath   bool // clients learn late that their replica was killed, as they are hit too
}

const (
	defaultHeartbeat = 10 * time.Second
	shortHeartbeat   = time.Second
)

// lengths are how long the scenarios take.
type lengths struct {
	restarts int           // of each replica, in rolling restarts
	torture  time.Duration // of the torture
	faults   int           // in the torture
	soak     time.Duration
}

// rolling is how long rolling restarts may take: much longer than they do.
func (l lengths) rolling() time.Duration { return time.Duration(l.restarts) * 20 * time.Second }

var (
	shortLengths = lengths{restarts: 1, torture: 20 * time.Second, soak: time.Hour}
	longLengths  = lengths{restarts: 20, torture: 10 * time.Minute, soak: time.Hour}
)

// faultsIn is how many faults a torture has by default: three of four that are possible in a short
// one, and one in two seconds in a long one.
func faultsIn(length time.Duration) int {
	return max(1, min(maxFaults(length)*3/4, int(length/(2*time.Second))))
}

// cluster is what the faults of nodes may cause.
var cluster = excuses{unavailable: true, idempotent: true, notRun: true, dataLoss: true}

// everything is what all faults at the same time may cause.
var everything = excuses{unavailable: true, idempotent: true, notRun: true, nobody: true, deadline: true, dataLoss: true, exhausted: true, lateDeath: true}

// scenarios are all that there are, in their order.
func scenarios(l lengths) []scenario {
	all := []scenario{
		{name: "rolling", nodes: 1, replicas: 2, heartbeat: defaultHeartbeat, limit: l.rolling(), happen: rollingRestarts(l.restarts)},
		{name: "rolling-cluster", nodes: 3, replicas: 2, heartbeat: defaultHeartbeat, limit: l.rolling(), happen: rollingRestarts(l.restarts)},
		{name: "gap", nodes: 1, replicas: 2, heartbeat: defaultHeartbeat, happen: restartAll,
			excuses: excuses{nobody: true}},
		{name: "ill", nodes: 3, replicas: 3, heartbeat: defaultHeartbeat, happen: illness},
		{name: "kill", nodes: 1, replicas: 3, heartbeat: shortHeartbeat, happen: killReplica, load: killLoad,
			excuses: excuses{unavailable: true}},
		{name: "pause", nodes: 1, replicas: 3, heartbeat: shortHeartbeat, happen: pauseReplica,
			excuses: excuses{unavailable: true}},
		{name: "node", nodes: 3, replicas: 3, heartbeat: shortHeartbeat, happen: killNode, excuses: cluster},
		{name: "lame-duck", nodes: 3, replicas: 3, heartbeat: shortHeartbeat, happen: lameDuck, excuses: cluster},
		{name: "cut", nodes: 1, replicas: 3, heartbeat: shortHeartbeat, networks: true, happen: cutNetworks, excuses: cluster},
		{name: "black-hole", nodes: 1, replicas: 3, heartbeat: shortHeartbeat, networks: true, happen: blackHoles,
			excuses: excuses{unavailable: true, idempotent: true, notRun: true, deadline: true, dataLoss: true}},
		{name: "reload", nodes: 1, replicas: 2, heartbeat: shortHeartbeat, happen: reloads, excuses: excuses{nobody: true}},
		{name: "torture", nodes: 3, replicas: 4, heartbeat: shortHeartbeat, networks: true, slots: tortureSlots, excuses: everything,
			load: longLoad, limit: l.torture, happen: torture(l.torture, l.faults)},
		{name: "soak", nodes: 3, replicas: 3, heartbeat: defaultHeartbeat, named: true, limit: l.soak,
			load: soakLoad, sample: sampleTime(l.soak), happen: soak(l.soak)},
	}
	for i := range all {
		if all[i].load == (load{}) {
			all[i].load = fullLoad
		}
		all[i].limit += limit
	}
	return all
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
			if err := t.addReplica(ctx); err != nil {
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
		if err := t.addReplica(ctx); err != nil {
			return err
		}
	}
	return sleep(ctx, warmUp)
}

// illness makes one replica unhealthy, which leaves its queue groups, and then all of them, which
// stay.
func illness(ctx context.Context, t *site) error {
	if err := t.happens(ctx, planned{At: warmUp, Kind: faultIll, Lasts: 2 * warmUp, Target: 0}); err != nil {
		return err
	}
	var heal []healing
	for i := range t.replicas {
		well, err := t.begin(ctx, faultIll, i)
		if err != nil {
			return err
		}
		heal = append(heal, well)
	}
	err := sleep(ctx, 2*warmUp)
	for _, well := range heal {
		err = errors.Join(err, well(ctx))
	}
	return errors.Join(err, sleep(ctx, warmUp))
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
		if err := t.addReplica(ctx); err != nil {
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
	if err := p.signal(signalPause); err != nil {
		return err
	}
	if err := sleep(ctx, 5*time.Second); err != nil {
		return err
	}
	if err := p.signal(signalResume); err != nil {
		return err
	}
	return sleep(ctx, 2*warmUp)
}

// killNode kills the node of the first client and the first replica.
func killNode(ctx context.Context, t *site) error {
	if err := sleep(ctx, warmUp); err != nil {
		return err
	}
	t.nodes[0].down = true
	if err := t.nodes[0].kill(); err != nil {
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
	if err := t.nodes[0].signal(signalLameDuck); err != nil {
		return err
	}
	return sleep(ctx, 6*time.Second)
}

// happens makes one fault after the other happen, each to the target of its number.
func (t *site) happens(ctx context.Context, faults ...planned) error {
	for _, f := range faults {
		if err := sleep(ctx, f.At); err != nil {
			return err
		}
		heal, err := t.begin(ctx, f.Kind, f.Target)
		if err == nil {
			err = sleep(ctx, f.Lasts)
		}
		if err == nil && heal != nil {
			err = heal(ctx)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// aReplica is the target of a network's fault that is a replica; lower ones are clients.
const aReplica = clients

// cutNetworks resets the connections of a client and of two replicas, one of which has a bad line
// before.
func cutNetworks(ctx context.Context, t *site) error {
	err := t.happens(ctx,
		planned{At: warmUp, Kind: faultCut, Target: 0},
		planned{Kind: faultCut, Target: aReplica},
		planned{At: 2300 * time.Millisecond, Kind: faultLatency, Lasts: time.Second, Target: aReplica + 1},
		planned{Kind: faultCut, Target: aReplica + 1},
	)
	if err != nil {
		return err
	}
	return sleep(ctx, 2500*time.Millisecond)
}

// blackHoles make the bytes of one direction wait, first what a replica sends and then what a
// client is sent. TCP does that while packets are lost, and so all of them arrive later.
func blackHoles(ctx context.Context, t *site) error {
	err := t.happens(ctx,
		planned{At: warmUp, Kind: faultHoleOut, Lasts: 4500 * time.Millisecond, Target: aReplica},
		planned{Kind: faultHoleIn, Lasts: 1500 * time.Millisecond, Target: 0},
	)
	if err != nil {
		return err
	}
	return sleep(ctx, warmUp)
}

// reloads make the node read a configuration that is the same, that has other limits, and that
// takes permissions away for a while: those of clients, and those of replicas.
func reloads(ctx context.Context, t *site) error {
	err := t.happens(ctx,
		planned{At: warmUp / 2, Kind: faultReload},
		planned{At: warmUp / 4, Kind: faultReloadLimit, Lasts: warmUp / 4},
		planned{Kind: faultDeny, Lasts: warmUp},
		planned{Kind: faultDenyReplicas, Lasts: warmUp},
	)
	if err != nil {
		return err
	}
	return sleep(ctx, permissionLimit+warmUp)
}
