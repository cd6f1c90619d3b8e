// Compare measures natscall beside raw nats.go and other systems: micro with bytes and with
// Protobuf by hand, grpc-go, connect-go, drpc, Twirp and psrpc; and itself with messages of
// vtprotobuf.
//
// Client, server and nats-server are processes of their own: this program in other roles, a
// client and a server for each system and one nats-server for all, over loopback. They live as
// long as the program. In each round each workload is measured with one system after the other,
// in an order that changes with the round, so that the ratios within a round say something even
// on a busy machine; the rates themselves do not.
//
// All systems do the same work, which is defined in payload.go: the server computes a checksum
// over the start of what comes, and the client verifies it. Handlers run concurrently where the
// system lets them, which raw and micro do not. Each call has a deadline, that of its caller's
// context. What fails or is lost is counted, in the warm-up too.
//
// Two more modes have tables of their own: growth measures in the same way how the cost of a
// call changes with what is around it (growth.go), and memory weighs what a process holds
// (memory.go).
package main

//go:generate sh -c "go run $(grep '^buf ' ../../../.ci/tools | cut -d' ' -f2) generate"

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
	"time"
)

const usageText = `Usage: compare [flags]
       compare growth [flags]
       compare memory [flags]

Compare measures natscall beside raw nats.go and other RPC systems, each in processes of its own.

For each workload it prints, as medians over the rounds: calls or messages a second, also relative to raw in the same
round; latencies; and by process (c client, s server, broker) CPU seconds for 100,000 calls, allocations, bytes and
write system calls a call. Errors and lost messages are sums over all rounds.

Growth prints how the cost of a call changes with replicas, nodes, services and calls in flight, and memory
what waiting calls, idle streams, services and clients take; -h after the word lists their flags.

Flags:
`

// flags are the command line of the comparison.
type flags struct {
	plan
	short     bool
	systems   string
	workloads string
	json      string
	svg       string
}

func main() {
	ran, err := runRole()
	if !ran {
		err = run(os.Args[1:])
	}
	if err != nil && err != flag.ErrHelp {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) > 0 && args[0] == "growth" {
		return runGrowth(args[1:])
	}
	if len(args) > 0 && args[0] == "memory" {
		return runMemory(args[1:])
	}
	return runComparison(args)
}

func runComparison(args []string) error {
	f, err := parse(args)
	if err != nil {
		return err
	}
	return bounded(f.expected(), func(ctx context.Context) error {
		cells, err := f.measure(ctx, os.Stderr)
		if len(cells) == 0 {
			return err
		}
		if err := f.write(newReport(f.plan, cells)); err != nil {
			return err
		}
		return err
	})
}

// bounded runs what is expected to take so long. Signals end it, and a limit.
func bounded(expected time.Duration, run func(context.Context) error) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	limit := 2*expected + time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it takes longer than %v", limit))
	defer cancel()
	fmt.Fprintf(os.Stderr, "about %v, at most %v\n", expected.Round(time.Second), limit.Round(time.Second))
	return run(ctx)
}

func (f flags) write(r report) error {
	if err := r.writeText(os.Stdout); err != nil {
		return err
	}
	if f.json != "" {
		if err := r.writeJSON(f.json); err != nil {
			return err
		}
	}
	if f.svg != "" {
		return r.writeSVG(f.svg)
	}
	return nil
}

func parse(args []string) (f flags, err error) {
	set := flag.NewFlagSet("compare", flag.ContinueOnError)
	set.Usage = func() {
		fmt.Fprint(set.Output(), usageText)
		set.PrintDefaults()
		fmt.Fprintf(set.Output(), "\nWorkloads: %v\n", workloads())
	}
	set.IntVar(&f.rounds, "rounds", 0, "`number` of rounds (default 5; 3 with -short)")
	set.DurationVar(&f.duration, "duration", 0, "`time` for which each cell is measured (default 1s; 250ms with -short)")
	set.BoolVar(&f.short, "short", false, "take four minutes at most, unless the other flags say otherwise: without -systems, "+names(aside())+" have unary calls of 60 bytes only, and all but raw and natscall no fresh clients")
	set.StringVar(&f.systems, "systems", "", "comma-separated `names` out of "+names(systems())+" (default all); without raw there are no ratios")
	set.StringVar(&f.workloads, "workloads", "", "`regexp` of the workloads' names (default all)")
	set.StringVar(&f.json, "json", "", "`file` for all measurements")
	set.StringVar(&f.svg, "svg", "", "`file` for a chart of the ratios")
	set.StringVar(&f.profiles, "profiles", "", "`directory` for CPU profiles, of the last round by workload, system and process; they cost some speed")
	if err := parseAll(set, args); err != nil {
		return f, err
	}
	return f, f.complete()
}

// parseAll parses args, which are all flags.
func parseAll(set *flag.FlagSet, args []string) error {
	if err := set.Parse(args); err != nil {
		return err
	}
	if set.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	return nil
}

// complete fills in the plan.
func (f *flags) complete() (err error) {
	if err := f.setTimes(f.short, time.Second); err != nil {
		return err
	}
	f.brief = f.short && f.systems == ""
	if f.plan.systems, err = findSystems(f.systems); err != nil {
		return err
	}
	match, err := regexp.Compile(f.workloads)
	if err != nil {
		return err
	}
	for _, w := range workloads() {
		if match.MatchString(w.String()) {
			f.plan.workloads = append(f.plan.workloads, w)
		}
	}
	if len(f.plan.workloads) == 0 {
		return fmt.Errorf("no workload matches %q", f.workloads)
	}
	f.profiles, err = makeProfileDir(f.profiles)
	return err
}

// setTimes sets the rounds and times that flags have left at 0.
func (p *plan) setTimes(short bool, duration time.Duration) error {
	rounds := 5
	if short {
		rounds, duration = 3, 250*time.Millisecond
	}
	if p.rounds < 0 || p.duration < 0 {
		return fmt.Errorf("-rounds and -duration must not be negative")
	}
	if p.rounds == 0 {
		p.rounds = rounds
	}
	if p.duration == 0 {
		p.duration = duration
	}
	p.warmup = p.duration * 2 / 5
	return nil
}
