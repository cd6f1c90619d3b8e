// Chaos checks natscall's promises under faults: it starts nats-servers, replicas and clients as
// processes of their own, and kills, stops and restarts some of them while the clients call.
//
// Data flows one way. A scenario (scenario.go) is what happens to the processes of a site
// (site.go, node.go, process.go). Clients (client.go, unary.go, streams.go) and replicas
// (replica.go) write records (record.go) of what they call and run. The checker (check.go and
// checkX.go) is a function over these, and says which promises (promises.go) were broken. Figures
// go into a report (report.go), and none fails a run.
//
// Faults (faults.go) are made by signals, by reloads of a node's configuration, and by networks
// (network.go), through which the processes of some scenarios reach the nodes. The torture follows
// a plan (plan.go) that a seed has drawn. Some callers use registers (register.go), whose values a
// store in the runner (store.go) keeps: their histories must be linearizable.
//
// With the argument overload it measures instead what a replica (worker.go) answers in time when it
// is asked for more than it can do (overload.go), by a generator that does not wait for answers
// (openloop.go).
package main

// The tool is a module of its own, which the workspace has and this module does not.
//
//go:generate env GOWORK= go -C ../.. run ./cmd/natscall proto -o internal/chaos/proto
//go:generate sh -c "go run $(grep '^buf ' ../../.ci/tools | cut -d' ' -f2) generate"

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"
)

// limit bounds a short scenario, which takes twelve seconds, and what comes before and after a long
// one. Processes that do not end by themselves have their own limits on top.
const limit = time.Minute

// flags are the command line.
type flags struct {
	seed   uint64
	named  string
	match  *regexp.Regexp // of named
	report string
	keep   string
	lengths
}

func main() {
	ran, err := runRole()
	switch {
	case ran:
	case len(os.Args) > 1 && os.Args[1] == "overload":
		err = runOverload(os.Args[2:])
	default:
		err = runMain(os.Args[1:])
	}
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		os.Exit(1)
	}
}

func parse(args []string) (f flags, err error) {
	set := flag.NewFlagSet("chaos", flag.ContinueOnError)
	var names []string
	for _, s := range scenarios(shortLengths) {
		names = append(names, s.name)
	}
	set.StringVar(&f.named, "scenarios", "", "`regexp` of the scenarios to run, out of "+strings.Join(names, ", ")+" (default all but soak)")
	set.Uint64Var(&f.seed, "seed", 0, "`number` that decides what callers do, which faults there are and what they hit (default a random one)")
	set.StringVar(&f.report, "report", "", "`file` for the report, in Markdown")
	set.StringVar(&f.keep, "keep", "", "new `directory` for records and logs (default a temporary one, which is kept after a violation)")
	long := set.Bool("long", false, "restart each replica twenty times, and torture for ten minutes")
	restarts := set.Int("restarts", 0, "how often each replica is restarted (default 2, or 20 with -long)")
	duration := set.Duration("duration", 0, "`time` that the torture and the soak take (default 20s, or 10m with -long; 1h)")
	faults := set.Int("faults", 0, "`number` of faults in the torture (default as many as there is time for, at most one in 2s)")
	if err := set.Parse(args); err != nil {
		return f, err
	}
	if set.NArg() > 0 {
		return f, fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	if f.seed == 0 {
		f.seed = 1 + rand.Uint64N(999_999)
	}
	f.lengths = shortLengths
	if *long {
		f.lengths = longLengths
	}
	f.restarts = cmp.Or(*restarts, f.restarts)
	f.torture, f.soak = cmp.Or(*duration, f.torture), cmp.Or(*duration, f.soak)
	f.faults = cmp.Or(*faults, faultsIn(f.torture))
	f.match, err = regexp.Compile(f.named)
	return f, err
}

// asks reports whether a scenario was asked for.
func (f flags) asks(s scenario) bool {
	return f.match.MatchString(s.name) && !(s.named && f.named == "")
}

func runMain(args []string) error {
	f, err := parse(args)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop) // a second signal ends this process at once, and so the others
	dir, err := f.makeDir()
	if err != nil {
		return err
	}
	fmt.Printf("seed %d, records in %s\n", f.seed, dir)
	results, err := f.run(ctx, dir)
	if err := errors.Join(err, f.write(results)); err != nil {
		return err
	}
	broken := 0
	for _, r := range results {
		broken += len(r.violations)
	}
	switch {
	case len(results) == 0:
		return errors.New("no scenario has this name")
	case broken > 0:
		return fmt.Errorf("%d violations; the records are in %s; try again with -seed %d", broken, dir, f.seed)
	case f.keep == "":
		return os.RemoveAll(dir)
	}
	return nil
}

func (f flags) makeDir() (string, error) {
	if f.keep == "" {
		return os.MkdirTemp("", "chaos-")
	}
	return f.keep, os.Mkdir(f.keep, 0o700)
}

// run runs the scenarios that were asked for.
func (f flags) run(ctx context.Context, dir string) (results []result, err error) {
	program, err := buildNATS(ctx, dir)
	if err != nil {
		return nil, err
	}
	for _, s := range scenarios(f.lengths) {
		if !f.asks(s) {
			continue
		}
		r, err := runScenario(ctx, s, setup{filepath.Join(dir, s.name), program, f.seed})
		if err != nil {
			return results, fmt.Errorf("%s: %w", s.name, err)
		}
		fmt.Printf("%s: %d calls, %d violations, %v\n", s.name, r.figures.calls, len(r.violations), r.took.Round(time.Millisecond))
		writeViolations(os.Stdout, r)
		results = append(results, r)
	}
	return results, nil
}

func runScenario(ctx context.Context, s scenario, up setup) (r result, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, s.limit, fmt.Errorf("it takes longer than %v", s.limit))
	defer cancel()
	begin := time.Now()
	t, err := openSite(ctx, s, up)
	if t != nil {
		defer t.close()
	}
	if err != nil {
		return r, err
	}
	if err := s.happen(ctx, t); err != nil {
		return r, errors.Join(err, context.Cause(ctx))
	}
	if err := t.settle(ctx); err != nil {
		return r, errors.Join(err, context.Cause(ctx))
	}
	t.close()
	r = result{scenario: s.name, took: time.Since(begin)}
	all, err := t.records()
	if err != nil {
		return r, err
	}
	found := collect(all)
	r.violations, r.figures = found.check(s.excuses), found.measure()
	wrong, registers := found.checkRegisters()
	r.violations, r.figures.registers = append(r.violations, wrong...), registers
	return r, draw(r.violations, up.dir)
}

// draw makes the pictures of violations that have one.
func draw(violations []violation, dir string) error {
	for i := range violations {
		v := &violations[i]
		if v.draw == nil {
			continue
		}
		path, err := v.draw(dir)
		if err != nil {
			return err
		}
		v.What += ": " + path
	}
	return nil
}

// write writes the report to the standard output, and to the file if there is one.
func (f flags) write(results []result) error {
	if len(results) == 0 {
		return nil
	}
	fmt.Println()
	if err := writeReport(os.Stdout, f.seed, results); err != nil || f.report == "" {
		return err
	}
	file, err := os.Create(f.report)
	if err != nil {
		return err
	}
	return errors.Join(writeReport(file, f.seed, results), file.Close())
}
