package show

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
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
	answers, err := s.Services.Stats(ctx, "")
	if err != nil {
		return nil, err
	}
	now := time.Now()
	all := make([]process, 0, len(answers)) // never null in JSON
	for _, answer := range answers {
		one := processOf(answer.Value, now)
		if last, ok := p.last[one.Instance]; ok {
			one.rate(one.Total.minus(last.Total), now.Sub(p.looked))
		}
		all = append(all, one)
	}
	p.last, p.looked = map[string]process{}, now
	for _, one := range all {
		p.last[one.Instance] = one
	}
	slices.SortFunc(all, func(a, b process) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.Instance, b.Instance))
	})
	if len(args) == 0 {
		return slices.DeleteFunc(all, func(one process) bool { return one.root == "" }), nil
	}
	return p.only(answers, all, args[0])
}

// only returns the instances of the service that a name means.
func (p *ps) only(answers []discover.Answer[micro.Stats], all []process, name string) ([]process, error) {
	service, err := discover.Find(discover.ServicesOf(answers, identity), name, p.prefix)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(one process) bool {
		return one.Service != service.Name || one.root != "" && one.root != service.Root
	}), nil
}

// table writes the instances, and which of them differ.
func (p *ps) table(w *output.Writer, all []process) error {
	table := w.Table("SERVICE", "INSTANCE", "HEALTH", ">LOAD", ">IN FLIGHT", ">QUEUED", ">RATE", ">REQUESTS", ">ERRORS", ">SHED", ">P50", ">P99", ">UP", "VERSION", "SCHEMA")
	differ := differing(all)
	for _, one := range all {
		service, instance := one.names(w)
		table.Row(service, instance, healthOf(w, one),
			fmt.Sprintf("%.2f", one.Load), one.Now.InFlight, one.Now.Queued, fmt.Sprintf("%.1f/s", one.Rate),
			one.Total.Requests, errorsOf(w, one.Total), shedOf(w, one.Total.Shed), milliseconds(one.Now.P50), milliseconds(one.Now.P99), since(time.Since(one.Started)), one.Version, schemaOf(w, one, differ))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	for _, one := range all {
		if one.Reason != "" {
			fmt.Fprintf(w, "%s %s: %s\n", w.Plain(one.Service), w.Plain(one.Instance), w.Bad(one.Reason))
		}
	}
	for _, service := range slices.Sorted(slices.Values(differ)) {
		fmt.Fprintf(w, "%s: %s\n", w.Plain(service), w.Note("instances have different schemas"))
	}
	return nil
}

// differing returns the services whose instances have different schemas.
func differing(all []process) []string {
	first := map[string]string{}
	var out []string
	for _, one := range all {
		known, seen := first[one.root]
		if !seen {
			first[one.root] = one.Schema
		} else if known != one.Schema && !slices.Contains(out, one.Service) {
			out = append(out, one.Service)
		}
	}
	return out
}

func schemaOf(w *output.Writer, one process, differ []string) output.Word {
	hash := discover.ShortHash(one.Schema)
	if slices.Contains(differ, one.Service) {
		return w.Note(hash + "!")
	}
	return w.Plain(hash)
}

func healthOf(w *output.Writer, one process) output.Word {
	switch one.Health {
	case "SERVING":
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
