package main

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// planned is a fault of a plan.
type planned struct {
	At, Lasts time.Duration // since the plan began; Lasts is 0 for a fault that is over at once
	Kind      faultKind
	Target    int // modulo what there is then
}

func (p planned) String() string {
	return fmt.Sprintf("%v for %v: %s %d", p.At, p.Lasts, p.Kind, p.Target)
}

// faultTime is how long a kind of fault lasts.
type faultTime struct {
	kind     faultKind
	min, max time.Duration
}

const sec = time.Second

// lanes are the faults by what they hit. One of each lane may happen at the same time, and is over
// before the next of its lane begins: of three nodes and four replicas some stay, and one client or
// network at a time is bad.
var lanes = [][]faultTime{
	{
		{faultNodeKill, sec, 4 * sec},
		{faultLameDuck, 3 * sec, 8 * sec},
		{faultNodeStop, sec / 2, 5 * sec},
		{faultReload, 0, 0},
		{faultReloadLimit, sec / 2, 2 * sec},
		{faultDeny, sec / 2, 3 * sec},
	},
	{
		{faultKill, 0, sec},
		{faultStop, sec / 2, 6 * sec},
		{faultRestart, sec, 2 * sec},
		{faultIll, sec, 4 * sec},
	},
	{
		{faultCut, 0, 0},
		{faultHoleOut, sec / 2, 5 * sec},
		{faultHoleIn, sec / 2, 5 * sec},
		{faultHole, sec / 2, 5 * sec},
		{faultHoleForGood, sec / 2, 5 * sec},
		{faultLatency, sec, 5 * sec},
		{faultStopClient, sec / 2, 5 * sec},
	},
	{
		{faultBurst, sec, 3 * sec},
	},
}

const (
	// recovery is between the end of a fault and the next one of its lane: connections are made
	// again after some two seconds.
	recovery = 2500 * time.Millisecond
	// quiet is after the last fault: permissions take five seconds to be back.
	quiet = 6 * time.Second
	// minSlot is what a fault and its recovery take.
	minSlot = recovery + time.Second
)

// maxFaults is how many faults a plan of a length may have.
func maxFaults(length time.Duration) int {
	return len(lanes) * int((length-warmUp-quiet)/minSlot)
}

// makePlan draws so many faults. The same seed draws the same.
func makePlan(seed uint64, length time.Duration, faults int) (out []planned, err error) {
	if most := maxFaults(length); faults < 1 || faults > most {
		return nil, fmt.Errorf("%d faults in %v: 1 to %d are possible", faults, length, most)
	}
	for i, lane := range lanes {
		count := (faults + len(lanes) - 1 - i) / len(lanes)
		out = append(out, makeLane(rand.New(rand.NewPCG(seed, uint64(i))), lane, length-warmUp-quiet, count)...)
	}
	slices.SortStableFunc(out, func(a, b planned) int { return cmp.Compare(a.At, b.At) })
	return out, nil
}

// makeLane gives each fault a slot of the time. Every kind comes once before any comes again.
func makeLane(random *rand.Rand, lane []faultTime, length time.Duration, count int) (out []planned) {
	var deck []faultTime
	for i := range count {
		if len(deck) == 0 {
			deck = slices.Clone(lane)
			random.Shuffle(len(deck), func(a, b int) { deck[a], deck[b] = deck[b], deck[a] })
		}
		drawn := deck[0]
		deck = deck[1:]
		slot := length / time.Duration(count)
		lasts := drawn.min
		if spread := drawn.max - drawn.min; spread > 0 {
			lasts += time.Duration(random.Int64N(int64(spread)))
		}
		lasts = min(lasts, slot-recovery)
		at := warmUp + time.Duration(i)*slot + time.Duration(random.Int64N(int64(slot-recovery-lasts)+1))
		out = append(out, planned{At: at, Lasts: lasts, Kind: drawn.kind, Target: random.IntN(1000)})
	}
	return out
}

// step is the beginning or the end of a fault.
type step struct {
	at    time.Duration
	fault int
	heals bool
}

// steps are in the order of time. A fault that is over at once ends after it has begun.
func steps(plan []planned) (out []step) {
	for i, p := range plan {
		out = append(out, step{p.At, i, false}, step{p.At + p.Lasts, i, true})
	}
	slices.SortStableFunc(out, func(a, b step) int { return cmp.Compare(a.at, b.at) })
	return out
}

// follow makes all of a plan happen.
func (t *site) follow(ctx context.Context, plan []planned) error {
	heal := make([]healing, len(plan))
	begin := time.Now()
	for _, s := range steps(plan) {
		if err := sleep(ctx, time.Until(begin.Add(s.at))); err != nil {
			return err
		}
		p := plan[s.fault]
		var err error
		switch {
		case !s.heals:
			heal[s.fault], err = t.begin(ctx, p.Kind, p.Target)
		case heal[s.fault] != nil:
			err = heal[s.fault](ctx)
		}
		if err != nil {
			return fmt.Errorf("%v: %w", p, err)
		}
	}
	return nil
}

// torture makes all kinds of faults happen at the same time.
func torture(length time.Duration, faults int) func(context.Context, *site) error {
	return func(ctx context.Context, t *site) error {
		plan, err := makePlan(t.seed, length, faults)
		if err != nil {
			return err
		}
		if err := t.follow(ctx, plan); err != nil {
			return err
		}
		for _, p := range t.replicas {
			if err := t.awaitReplica(ctx, p); err != nil {
				return err
			}
		}
		return sleep(ctx, quiet)
	}
}
