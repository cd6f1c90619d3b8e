package show

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go/micro"
	"github.com/spf13/cobra"

	"github.com/natscall/natscall/cmd/natscall/internal/discover"
	"github.com/natscall/natscall/cmd/natscall/internal/output"
	"github.com/natscall/natscall/cmd/natscall/internal/problem"
	"github.com/natscall/natscall/cmd/natscall/internal/tool"
)

const psLong = `Show the instances of all services, or of one: what they do now, and what they have done.

LOAD is how many handlers were running at the same time, on average, and RATE how many requests came
in a second: since the instance has started, or with --watch since the last look. P50 and P99 are
those of the slowest method. An exclamation mark behind SCHEMA means that the instances of the
service have different schemas: some are older than others.`

const psExamples = `  natscall ps
  natscall ps OrderService --watch
  natscall ps --watch --interval 5s --count 3
  natscall ps --json`

// Instances is the command that shows instances.
func Instances(t *tool.Tool) *cobra.Command {
	p := ps{t: t, last: map[string]process{}}
	cmd := &cobra.Command{
		Use:               "ps [flags] [SERVICE]",
		Short:             "Show the instances of services: load, errors, times, health",
		Long:              psLong,
		Example:           psExamples,
		Args:              tool.Args(0, 1),
		ValidArgsFunction: tool.CompleteServices(t),
		RunE: func(cmd *cobra.Command, args []string) error {
			if f := cmd.Flags(); !p.watch && (f.Changed("interval") || f.Changed("count")) {
				return problem.Usage("--interval and --count need --watch")
			}
			return p.run(cmd.Context(), args)
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&p.watch, "watch", "w", false, "show them again and again, with rates, until Ctrl-C")
	flags.DurationVar(&p.interval, "interval", time.Second, "with --watch: `time` between two looks")
	flags.IntVar(&p.count, "count", 0, "with --watch: end after so many looks; 0 means never")
	flags.StringVar(&p.prefix, "prefix", "", "`subject` before all others of the service, where there are several of the name")
	tool.JSONFlag(cmd, &p.json, "print JSON; with --watch a line for each look")
	return cmd
}

// ps is one run of the command.
type ps struct {
	t        *tool.Tool
	watch    bool
	interval time.Duration
	count    int
	prefix   string
	json     bool

	last   map[string]process // what the instances have said the last time, by their ids
	looked time.Time          // when that was
}

func (p *ps) run(ctx context.Context, args []string) error {
	if p.interval <= 0 || p.count < 0 {
		return problem.Usage("--interval must be more than nothing, and --count not less")
	}
	s, err := p.t.Open(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	if !p.watch {
		all, err := p.look(ctx, s, args)
		if err != nil {
			return err
		}
		switch {
		case p.json:
			return p.t.Out.JSON(all)
		case len(all) == 0:
			fmt.Fprintln(p.t.Err, noServices)
			return nil
		}
		return p.table(p.t.Out, all)
	}
	return p.watchAll(ctx, s, args)
}

// watchAll looks again and again.
func (p *ps) watchAll(ctx context.Context, s *tool.Session, args []string) error {
	screen := output.NewScreen(p.t.Out)
	defer screen.Close()
	again := time.NewTicker(p.interval)
	defer again.Stop()
	for n := 1; ; n++ {
		all, err := p.look(ctx, s, args)
		if ctx.Err() != nil {
			return nil // Ctrl-C is how a watch ends
		}
		if err != nil && n == 1 {
			return err
		}
		if err := p.show(screen, all, err); err != nil || n == p.count {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-again.C:
		}
	}
}

// show shows what a look has found, or why it has found nothing.
func (p *ps) show(screen *output.Screen, all []process, err error) error {
	switch {
	case !p.json:
		return screen.Draw(func(w *output.Writer) error { return p.draw(w, all, err) })
	case err != nil:
		return p.t.Out.Line(problem.Of(err).Report(nil))
	}
	return p.t.Out.Line(all)
}

func (p *ps) draw(w *output.Writer, all []process, err error) error {
	if err != nil {
		_, err = fmt.Fprintln(w, w.Bad(err.Error()))
		return err
	}
	if len(all) == 0 {
		_, err = fmt.Fprintln(w, noServices)
		return err
	}
	return p.table(w, all)
}

// look asks the instances.
func (p *ps) look(ctx context.Context, s *tool.Session, args []string) ([]process, error) {
	return discover.Patiently(&s.Services, func() ([]process, error) { return p.ask(ctx, s, args) })
}

func (p *ps) ask(ctx context.Context, s *tool.Session, args []string) ([]process, error) {
	var there []*discover.Service
	var asking sync.WaitGroup
	// The numbers are what counts: without an answer here only an instance without them is missing.
	asking.Go(func() { there, _ = s.Services.Services(ctx, "") })
	answers, err := s.Services.Stats(ctx, "")
	asking.Wait()
	if err != nil {
		return nil, err
	}
	services := joined(discover.ServicesOf(answers, identity), there)
	all := p.processes(services, answers, time.Now())
	if len(args) == 0 {
		return slices.DeleteFunc(all, func(one process) bool { return one.root == "" }), nil
	}
	service, err := discover.Find(services, args[0], p.prefix)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(one process) bool {
		return one.Service != service.Name || one.root != service.Root
	}), nil
}

// joined adds to services the instances of others that have not answered the same question.
func joined(services, others []*discover.Service) []*discover.Service {
	known := map[string]bool{} // instances
	for _, s := range services {
		for _, i := range s.Instances {
			known[i.ID] = true
		}
	}
	for _, other := range others {
		other.Instances = slices.DeleteFunc(other.Instances, func(i discover.Instance) bool { return known[i.ID] })
		same := slices.IndexFunc(services, func(s *discover.Service) bool { return s.Name == other.Name && s.Root == other.Root })
		switch {
		case len(other.Instances) == 0:
		case same < 0:
			services = append(services, other)
		default:
			services[same].Instances = append(services[same].Instances, other.Instances...)
		}
	}
	return services
}

// processes returns the instances with what they say, and with rates since the last look.
func (p *ps) processes(services []*discover.Service, answers []discover.Answer[micro.Stats], now time.Time) []process {
	numbers := map[string]micro.Stats{} // by instance
	for _, a := range answers {
		numbers[a.Value.ID] = a.Value
	}
	all := []process{} // never null in JSON
	looks := map[string]process{}
	for _, s := range services {
		for _, i := range s.Instances {
			one := processIn(s, i)
			if said, ok := numbers[i.ID]; ok {
				one.add(said, now)
				if last, ok := p.last[i.ID]; ok {
					one.rate(one.Total.minus(last.Total), now.Sub(p.looked))
				}
				looks[i.ID] = one
			}
			all = append(all, one)
		}
	}
	p.last, p.looked = looks, now
	slices.SortFunc(all, func(a, b process) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.Prefix, b.Prefix), strings.Compare(a.Instance, b.Instance))
	})
	return all
}

// table writes the instances, and which of them differ.
func (p *ps) table(w *output.Writer, all []process) error {
	prefixed := slices.ContainsFunc(all, func(one process) bool { return one.Prefix != "" })
	table := w.Table(withPrefix(prefixed, "SERVICE", "INSTANCE", "HEALTH", ">LOAD", ">IN FLIGHT", ">QUEUED", ">RATE", ">REQUESTS", ">ERRORS", ">SHED", ">P50", ">P99", ">UP", "VERSION", "SCHEMA")...)
	shrinkNames(table)
	table.Drop("SCHEMA", "VERSION", "QUEUED", "SHED", "REQUESTS", "UP", "P50", "IN FLIGHT", "P99", "ERRORS", "RATE", "LOAD", "INSTANCE")
	differ := differing(all)
	for _, one := range all {
		table.Row(slices.Concat(service(prefixed, one.Service, one.Prefix), []any{one.Instance, healthOf(w, one)}, numbersOf(w, one), []any{one.Version, schemaOf(w, one, differ[one.key()])})...)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, one := range all {
		if one.Reason != "" {
			fmt.Fprintf(w, "%s %s: %s\n", w.Plain(one.key()), w.Plain(one.Instance), w.Bad(one.Reason))
		}
		if one.Silent {
			fmt.Fprintf(w, "%s %s: %s\n", w.Plain(one.key()), w.Plain(one.Instance), w.Note("does not say what it does (no answer to $SRV.STATS)"))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(differ)) {
		fmt.Fprintf(w, "%s: %s\n", w.Plain(key), w.Note("instances have different schemas"))
	}
	return nil
}

// numbersOf returns the numbers of an instance, as people read them.
func numbersOf(w *output.Writer, one process) []any {
	if one.Silent {
		return []any{"-", "-", "-", "-", "-", "-", "-", "-", "-", "-"}
	}
	return []any{
		fmt.Sprintf("%.2f", one.Load), one.Now.InFlight, one.Now.Queued, fmt.Sprintf("%.1f/s", one.Rate), one.Total.Requests, errorsOf(w, one.Total),
		shedOf(w, one.Total.Shed), milliseconds(one.Now.P50), milliseconds(one.Now.P99), since(time.Since(one.Started)),
	}
}

// differing returns the services whose instances have different schemas, by their keys.
func differing(all []process) map[string]bool {
	first, out := map[string]string{}, map[string]bool{}
	for _, one := range all {
		known, seen := first[one.key()]
		if !seen {
			first[one.key()] = one.Schema
		} else if known != one.Schema {
			out[one.key()] = true
		}
	}
	return out
}

func schemaOf(w *output.Writer, one process, differs bool) output.Word {
	hash := discover.ShortHash(one.Schema)
	if differs {
		return w.Note(hash + "!")
	}
	return w.Plain(hash)
}

func healthOf(w *output.Writer, one process) output.Word {
	switch one.Health {
	case serving:
		return w.Good("serving")
	case "":
		return "-"
	}
	return w.Bad("NOT SERVING")
}

func errorsOf(w *output.Writer, t totals) output.Word {
	if t.Errors == 0 {
		return "0"
	}
	return w.Note(fmt.Sprintf("%d (%.1f%%)", t.Errors, t.errorRate()))
}

func shedOf(w *output.Writer, n int64) output.Word {
	if n == 0 {
		return "0"
	}
	return w.Note(fmt.Sprint(n))
}
