package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"

	chaosv1 "github.com/natscall/natscall/internal/chaos/gen/chaos/v1"
	"github.com/natscall/natscall/internal/chaos/gen/chaos/v1/chaosv1nats"
)

// defaultSlots is what a service has without options.
const defaultSlots = 1024

// overload is a row of the table: what one method is asked to do.
type overload struct {
	slots    int // 0 for all default options
	mean     time.Duration
	random   bool // up to twice the mean
	deadline time.Duration
}

// overloads are the rows. The slots are so few that a small machine can be asked for ten times what
// they do.
func overloads() (all []overload) {
	add := func(slots int, mean time.Duration, random bool, deadlines ...time.Duration) {
		for _, d := range deadlines {
			all = append(all, overload{slots, mean, random, d})
		}
	}
	const ms = time.Millisecond
	add(16, 5*ms, false, 20*ms, 60*ms, 2000*ms)
	add(64, 50*ms, false, 60*ms, 100*ms, 400*ms)
	add(64, 50*ms, true, 400*ms, 2000*ms)
	add(64, 500*ms, false, 600*ms, 1000*ms, 4000*ms)
	add(0, 500*ms, false, 600*ms, 1000*ms, 4000*ms)
	return all
}

func (o overload) capacity() float64 { return float64(o.realSlots()) / o.mean.Seconds() }

func (o overload) realSlots() int {
	if o.slots == 0 {
		return defaultSlots
	}
	return o.slots
}

// share is what one method of several has of the slots.
func (o overload) share() int { return o.realSlots() - o.realSlots()/8 }

func (o overload) String() string {
	handler := o.mean.String()
	if o.random {
		handler = fmt.Sprintf("0 to %v", 2*o.mean)
	}
	slots := fmt.Sprint(o.slots)
	if o.slots == 0 {
		slots = "defaults"
	}
	return fmt.Sprintf("%s | %s | %v", handler, slots, o.deadline)
}

// call makes a call of the method.
func (o overload) call(ctx context.Context, api chaosv1nats.ChaosServiceClient) error {
	d := o.mean
	if o.random {
		d = time.Duration(rand.Int64N(int64(2 * o.mean)))
	}
	_, err := api.Add(ctx, &chaosv1.WorkRequest{SleepUs: uint32(d.Microseconds())}, rpc.WithTimeout(o.deadline))
	return err
}

const (
	overloadWarmUp = time.Second // beside the time of two handlers
	overloadTime   = 4 * time.Second
	recoveryTime   = 2500 * time.Millisecond
	recoveryLoad   = 0.8 // of the closed loop
	recoverySlice  = 100 * time.Millisecond

	// A generator that is later than maxLag measures the machine: such a row is measured again.
	maxLag   = 5 * time.Millisecond
	attempts = 3

	// The calls of another method.
	probeRate     = 25
	probeHandler  = 20 * time.Millisecond
	probeDeadline = time.Second
)

// row is what was measured.
type row struct {
	overload
	times        float64 // the capacity
	closed, open float64 // good calls a second
	refused      []time.Duration
	failed       int // neither good nor refused
	lag          time.Duration
	probes       []time.Duration // of good ones
	probesFailed int
	peakAfter    time.Duration // since the overload has ended; -1 for never
}

func runOverload(args []string) error {
	set := flag.NewFlagSet("chaos overload", flag.ContinueOnError)
	match := set.String("rows", "", "`regexp` of the rows to measure, such as '^5ms', 'defaults' (default all)")
	if err := set.Parse(args); err != nil {
		return err
	}
	rows, err := regexp.Compile(*match)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "chaos-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program, err := buildNATS(ctx, dir)
	if err != nil {
		return err
	}
	fmt.Println("| handler | slots | deadline | load | closed loop /s | goodput /s | | refused: p50 | p99 | other failures | another method | its p99 | peak again after | generator late: p99 |")
	fmt.Println("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|")
	for i, o := range overloads() {
		if !rows.MatchString(o.String()) {
			continue
		}
		if err := o.measure(ctx, filepath.Join(dir, fmt.Sprint(i)), program, os.Stdout); err != nil {
			return fmt.Errorf("%v: %w", o, err)
		}
	}
	return nil
}

// measure measures the closed loop and then each overload with a fresh replica.
func (o overload) measure(ctx context.Context, dir, program string, out io.Writer) error {
	closed := 0.0
	for i, times := range []float64{1.5, 3, 10} {
		err := o.withReplica(ctx, filepath.Join(dir+fmt.Sprint("-", i)), program, func(api chaosv1nats.ChaosServiceClient) {
			if closed == 0 {
				closed = closedLoop(ctx, o.share(), overloadTime, func() error { return o.call(ctx, api) })
			}
			best := row{lag: math.MaxInt64}
			for i := 0; i < attempts && best.lag > maxLag; i++ {
				r := row{overload: o, times: times, closed: closed}
				if r.run(ctx, api); r.lag < best.lag {
					best = r
				}
			}
			best.print(out)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// withReplica runs f while a node and a replica run.
func (o overload) withReplica(ctx context.Context, dir, program string, f func(chaosv1nats.ChaosServiceClient)) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	j, err := openJournal(dir, "runner")
	if err != nil {
		return err
	}
	t := &site{setup: setup{dir: dir, program: program}, j: j}
	defer t.close()
	if err := t.startNodes(ctx, 1); err != nil {
		return err
	}
	nc, err := nats.Connect(t.nodes[0].url())
	if err != nil {
		return err
	}
	defer nc.Close()
	p, err := startRole(j, assignment{Role: roleWorker, Name: "worker", Dir: dir, URLs: []string{t.nodes[0].url()}, Slots: o.slots})
	if err != nil {
		return err
	}
	t.all = append(t.all, p)
	client := rpc.NewClient(nc)
	defer client.Close()
	api := chaosv1nats.NewChaosServiceClient(client)
	err = p.await(ctx, "serving", func() error {
		_, err := api.Get(ctx, &chaosv1.WorkRequest{}, rpc.WithTimeout(time.Second))
		return err
	})
	if err == nil {
		f(api)
	}
	return err
}

// run measures one overload, and what comes after it.
func (r *row) run(ctx context.Context, api chaosv1nats.ChaosServiceClient) {
	warm := overloadWarmUp + 2*r.mean
	over := openLoop{r.times * r.capacity(), warm + overloadTime, func() error { return r.call(ctx, api) }}
	after := openLoop{recoveryLoad * r.closed, recoveryTime, over.call}
	probe := openLoop{probeRate, over.time, func() error {
		_, err := api.Get(ctx, &chaosv1.WorkRequest{SleepUs: uint32(probeHandler.Microseconds())}, rpc.WithTimeout(probeDeadline))
		return err
	}}
	var loops sync.WaitGroup
	var calls, recovery, probes []callResult
	loops.Go(func() { calls = over.run(ctx) })
	loops.Go(func() { probes = probe.run(ctx) })
	loops.Go(func() {
		if sleep(ctx, over.time) == nil {
			recovery = after.run(ctx)
		}
	})
	loops.Wait()
	r.count(calls, warm, over.time)
	r.countProbes(probes)
	r.peakAfter = peakAfter(recovery)
}

// count counts the good calls that end between two times, and the failures of those that began
// then.
func (r *row) count(calls []callResult, from, to time.Duration) {
	good := 0
	var lags []time.Duration
	for _, c := range calls {
		end := c.due + c.took
		if c.err == nil && end >= from && end < to && c.took <= r.deadline {
			good++
		}
		if c.due < from {
			continue
		}
		lags = append(lags, c.late)
		switch {
		case c.refused():
			r.refused = append(r.refused, c.took)
		case c.err != nil || c.took > r.deadline:
			r.failed++
		}
	}
	r.open = float64(good) / (to - from).Seconds()
	r.lag = quantile(lags, 0.99)
}

func (r *row) countProbes(probes []callResult) {
	for _, p := range probes {
		if p.err != nil {
			r.probesFailed++
			continue
		}
		r.probes = append(r.probes, p.took)
	}
}

// peakAfter returns when half a second begins in which nine of ten calls are good, or -1.
func peakAfter(calls []callResult) time.Duration {
	var good, all [recoveryTime / recoverySlice]int
	for _, c := range calls {
		slice := min(int(c.due/recoverySlice), len(all)-1)
		all[slice]++
		if c.err == nil {
			good[slice]++
		}
	}
	const window = 5
	for i := range len(all) - window + 1 {
		sumGood, sumAll := 0, 0
		for k := i; k < i+window; k++ {
			sumGood, sumAll = sumGood+good[k], sumAll+all[k]
		}
		if 10*sumGood >= 9*sumAll {
			return time.Duration(i) * recoverySlice
		}
	}
	return -1
}

func (r *row) print(out io.Writer) {
	round := func(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }
	probes := len(r.probes) + r.probesFailed
	fmt.Fprintf(out, "| %v | %v | %.0f | %.0f | %.0f %% | %v | %v | %d | %d of %d | %v | %v | %v |\n",
		r.overload, r.times, r.closed, r.open, 100*r.open/r.closed,
		round(quantile(r.refused, 0.5)), round(quantile(r.refused, 0.99)), r.failed,
		len(r.probes), probes, round(quantile(r.probes, 0.99)), r.peakAfter, round(r.lag))
}
