// Compare measures natscall beside raw nats.go, micro with Protobuf by hand, grpc-go, connect-go and drpc.
//
// Client, server and nats-server are processes of their own: this program in other roles, a client and a server for each
// system and one nats-server for all, over loopback. They live as long as the program. In each round each workload is measured
// with one system after the other, in an order that changes with the round, so that the ratios within a round say
// something even on a busy machine; the rates themselves do not.
//
// All systems do the same work, which is defined in payload.go: the server computes a checksum over the start of what comes, and the client
// verifies it. Handlers run concurrently where the system lets them, which raw and micro do not. Each call has a deadline, that of its caller's
// context. What fails or is lost is counted, in the warm-up too.
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

const usageText = `Compare measures natscall beside raw nats.go and other RPC systems, each in processes of its own.

For each workload it prints, as medians over the rounds: calls or messages a second, also relative to raw in the same
round; latencies; and by process (c client, s server, broker) CPU seconds for 100,000 calls, allocations, bytes and
write system calls a call. Errors and lost messages are sums over all rounds.

Flags:
`

// flags are the command line.
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
	if err != nil {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	f, err := parse(args)
	if err == flag.ErrHelp {
		return nil
	}
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	limit := 2*f.expected() + time.Minute
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it takes longer than %v", limit))
	defer cancel()
	fmt.Fprintf(os.Stderr, "about %v, at most %v\n", f.expected().Round(time.Second), limit.Round(time.Second))
	cells, err := f.measure(ctx, os.Stderr)
	if len(cells) == 0 {
		return err
	}
	if err := f.write(newReport(f.plan, cells)); err != nil {
		return err
	}
	return err
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
	set.BoolVar(&f.short, "short", false, "take a few minutes at most, unless the other flags say otherwise")
	set.StringVar(&f.systems, "systems", "", "comma-separated `names` out of raw, micro, natscall, grpc, connect, drpc (default all); without raw there are no ratios")
	set.StringVar(&f.workloads, "workloads", "", "`regexp` of the workloads' names (default all)")
	set.StringVar(&f.json, "json", "", "`file` for all measurements")
	set.StringVar(&f.svg, "svg", "", "`file` for a chart of the ratios")
	set.StringVar(&f.profiles, "profiles", "", "`directory` for CPU profiles, of the last round by workload, system and process; they cost some speed")
	if err := set.Parse(args); err != nil {
		return f, err
	}
	if set.NArg() > 0 {
		return f, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	return f, f.complete()
}

// complete fills in the plan.
func (f *flags) complete() (err error) {
	rounds, duration := 5, time.Second
	if f.short {
		rounds, duration = 3, 250*time.Millisecond
	}
	if f.rounds < 0 || f.duration < 0 {
		return fmt.Errorf("-rounds and -duration must not be negative")
	}
	if f.rounds == 0 {
		f.rounds = rounds
	}
	if f.duration == 0 {
		f.duration = duration
	}
	f.warmup = f.duration * 2 / 5
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
