package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/natscall/natscall/rpc"
)

// The mode growth: how the cost of a small call changes with one thing around it. In each round
// all values of that thing are measured, one after the other, in an order that changes with the
// round. Each value has processes of its own.

// experiment is one such thing.
type experiment struct {
	name   string // which the flag -only matches
	unit   string // of the values
	title  string
	points []point
}

// point is a value with a system.
type point struct {
	value   int
	system  string // as it is reported
	callers int
	deployment
}

// deployment is what runs for a point. Points with the same one share its processes.
type deployment struct {
	nodes int // brokers
	pair  assignment
}

const (
	fewCallers   = 64 // where their number is not the thing
	mostInFlight = 100_000
)

// serviceCounts are the values of the experiment that has a system for each.
var serviceCounts = []int{1, 10, 50}

// natscallQueue refuses none of the calls in flight.
var natscallQueue = natscallSystem("natscall-queue", natscallPlain, nil, []rpc.ServerOption{rpc.WithMaxQueue(mostInFlight)})

// growthSystems are those that only experiments have.
func growthSystems() []system {
	all := []system{natscallQueue}
	for _, n := range serviceCounts {
		all = append(all, natscallServices(n))
	}
	return all
}

func experiments() []experiment {
	return []experiment{
		{"replicas", "replicas", "Replicas of the service, each with a connection of its own, all in one process; 64 callers",
			points([]int{1, 2, 3, 5, 10}, []system{rawNATS, natscallRPC}, func(p *point) { p.pair.Replicas = p.value })},
		{"nodes", "nodes", "Nodes of the NATS cluster, the client connected to one and the server to another where there are several; 64 callers",
			points([]int{1, 2, 3}, []system{rawNATS, natscallRPC}, func(p *point) { p.nodes = p.value })},
		{"services", "services", "Services of one server, over which the calls go round; 64 callers",
			points(serviceCounts, []system{natscallRPC}, func(p *point) { p.pair.System = natscallServices(p.value).name })},
		{"flight", "in flight", "Calls in flight on one connection; natscall's server has 1,024 handlers at once, as by default, and a queue for all others",
			points([]int{1, 100, 1_000, 10_000, mostInFlight}, []system{rawNATS, natscallQueue}, func(p *point) { p.callers = p.value })},
	}
}

// points makes one for each value and system, and lets set change it.
func points(values []int, systems []system, set func(*point)) []point {
	var all []point
	for _, value := range values {
		for _, s := range systems {
			p := point{value: value, callers: fewCallers, deployment: deployment{nodes: 1, pair: assignment{System: s.name}}}
			p.system, _, _ = strings.Cut(s.name, "-") // what follows is an option
			set(&p)
			all = append(all, p)
		}
	}
	return all
}

func (p point) workload() workload { return workload{unary, smallCall, p.callers} }

func runGrowth(args []string) error {
	p, all, err := parseGrowth(args)
	if err != nil {
		return err
	}
	var expected time.Duration
	for _, e := range all {
		expected += e.expected(p)
	}
	return bounded(expected, func(ctx context.Context) error {
		newReport(p, nil).writeHeader(os.Stdout)
		for _, e := range all {
			cells, err := e.measure(ctx, p, os.Stderr)
			if err != nil {
				return fmt.Errorf("%s: %w", e.name, err)
			}
			if err := e.writeText(os.Stdout, cells); err != nil {
				return err
			}
		}
		return nil
	})
}

func parseGrowth(args []string) (p plan, selected []experiment, err error) {
	set := flag.NewFlagSet("compare growth", flag.ContinueOnError)
	set.IntVar(&p.rounds, "rounds", 0, "`number` of rounds (default 5; 3 with -short)")
	set.DurationVar(&p.duration, "duration", 0, "`time` for which each line is measured, those with 10,000 calls in flight four times as long, with 100,000 sixteen times (default 500ms; 250ms with -short)")
	short := set.Bool("short", false, "take two minutes")
	only := set.String("only", "", "`regexp` of the tables: replicas, nodes, services, flight (default all)")
	if err := parseAll(set, args); err != nil {
		return p, nil, err
	}
	if err := p.setTimes(*short, 500*time.Millisecond); err != nil {
		return p, nil, err
	}
	match, err := regexp.Compile(*only)
	if err != nil {
		return p, nil, err
	}
	for _, e := range experiments() {
		if match.MatchString(e.name) {
			selected = append(selected, e)
		}
	}
	if len(selected) == 0 {
		return p, nil, fmt.Errorf("no table matches %q", *only)
	}
	return p, selected, nil
}

func (e experiment) expected(p plan) time.Duration {
	var round time.Duration
	for _, at := range e.points {
		round += at.workload().stretch()*(p.warmup+p.duration) + overhead
	}
	return time.Duration(p.rounds) * round
}

// measure starts all deployments and measures all points in each round.
func (e experiment) measure(ctx context.Context, p plan, progress io.Writer) ([]cell, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f := &fleet{}
	defer f.close()
	sites, err := e.start(ctx, f)
	if err != nil {
		return nil, err
	}
	var cells []cell
	for round := range p.rounds {
		fmt.Fprintf(progress, "round %d of %d, %s", round+1, p.rounds, e.name)
		for _, at := range rotated(e.points, round) {
			c, err := p.cell(ctx, cancel, sites[at.deployment], at.system, at.workload())
			if err != nil {
				fmt.Fprintln(progress)
				return nil, err
			}
			c.Round, c.Workload = round, strconv.Itoa(at.value)
			cells = append(cells, c)
			fmt.Fprintf(progress, "  %s %d %.0f/s", at.system, at.value, c.Rate)
		}
		fmt.Fprintln(progress)
	}
	return cells, nil
}

func (e experiment) start(ctx context.Context, f *fleet) (map[deployment]site, error) {
	sites := map[deployment]site{}
	for _, at := range e.points {
		if _, ok := sites[at.deployment]; ok {
			continue
		}
		brokers, err := f.startBrokers(ctx, at.nodes)
		if err != nil {
			return nil, err
		}
		if sites[at.deployment], err = f.startSite(ctx, brokers, at.pair); err != nil {
			return nil, err
		}
	}
	return sites, nil
}

// writeText writes a line for each point: medians over the rounds, and medians of the ratios
// within a round.
func (e experiment) writeText(w io.Writer, cells []cell) error {
	var t table
	t.add(e.unit, "system", "a second", "of first", "of raw", "p50 µs", "of first", "p99 µs", "of first",
		"CPU s/100k", "of first", "of raw", "writes a call", "of first", "errors")
	first := map[string][]cell{}
	reason := ""
	for _, at := range e.points {
		own := e.cells(cells, at.system, at.value)
		if first[at.system] == nil {
			first[at.system] = own
		}
		t.add(growthRow(at, own, first[at.system], e.cells(cells, baseline, at.value))...)
		for _, c := range own {
			reason = cmp.Or(reason, c.First)
		}
	}
	fmt.Fprintf(w, "\n%s\n\n", e.title)
	if err := t.writeText(w); err != nil {
		return err
	}
	if reason != "" {
		fmt.Fprintf(w, "\nFirst error: %s\n", reason)
	}
	return nil
}

func (e experiment) cells(all []cell, system string, value int) []cell {
	var found []cell
	for _, c := range of(all, system) {
		if c.Workload == strconv.Itoa(value) {
			found = append(found, c)
		}
	}
	return found
}

func growthRow(at point, cells, first, raw []cell) []string {
	rate := func(c cell) float64 { return c.Rate }
	p50 := func(c cell) float64 { return float64(c.P50) }
	p99 := func(c cell) float64 { return float64(c.P99) }
	writes := func(c cell) float64 { return c.total().Writes }
	errors := uint64(0)
	for _, c := range cells {
		errors += c.Errors
	}
	return []string{
		strconv.Itoa(at.value), at.system,
		fmt.Sprintf("%.0f", median(cells, rate)), ratio(medianRatio(cells, first, rate)), ratio(medianRatio(cells, raw, rate)),
		micros(time.Duration(median(cells, p50))), ratio(medianRatio(cells, first, p50)),
		micros(time.Duration(median(cells, p99))), ratio(medianRatio(cells, first, p99)),
		fmt.Sprintf("%.2f", median(cells, cell.cpu)), ratio(medianRatio(cells, first, cell.cpu)), ratio(medianRatio(cells, raw, cell.cpu)),
		fmt.Sprintf("%.3f", median(cells, writes)), ratio(medianRatio(cells, first, writes)),
		strconv.FormatUint(errors, 10),
	}
}
