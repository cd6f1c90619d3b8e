package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/natscall/natscall/rpc"
)

// result is what came of a scenario.
type result struct {
	scenario   string
	took       time.Duration
	violations []violation
	figures    figures
}

// figures are what a scenario has measured. Nothing depends on them.
type figures struct {
	calls     int
	rate      float64 // calls a second
	outcomes  outcomes
	p50, p99  time.Duration // of unary calls that succeeded; their handlers take up to 1.5 s
	outage    time.Duration // the longest time in which no call succeeded
	stalls    time.Duration // the longest time in which a client did not get to run
	late      time.Duration // by how much a call ended late, at most
	death     time.Duration // how long after its replica was killed a call ended, at most
	faults    map[string]int
	registers registerFigures
	growth    []growth
}

// outcomes are how calls have ended.
type outcomes struct {
	errors  map[string]int // by code and claim; those that the caller asked for too
	lost    int            // calls that failed though their caller asked for nothing of the kind
	twice   int            // calls of idempotent methods that ran more than once
	streams int            // that were opened
	notes   int            // one-way messages that were published
	noted   int            // and ran
	givenUp int            // calls whose caller did not wait until an instance had answered
	orphans int            // and of which an execution began long after that
}

// underway is how long a request may be under way, and a cancel behind it: both are there before
// that, unless the instance stands still.
const underway = 100 * time.Millisecond

// measure makes the figures of a scenario's records.
func (v evidence) measure() (f figures) {
	f.outcomes.errors = map[string]int{}
	var times []time.Duration
	var successes []instant
	var from, to instant
	for _, c := range v.calls {
		if c.began == nil || len(c.ended) == 0 {
			continue
		}
		e := c.ended[0]
		f.calls++
		if from == 0 || c.began.At < from {
			from = c.began.At
		}
		to = max(to, e.At)
		f.outcomes.count(c, e)
		f.late = max(f.late, c.late(e, v.processes[e.Process].stalls))
		f.death = max(f.death, c.sinceDeath(e, v.processes))
		if e.Code != okCode {
			continue
		}
		successes = append(successes, e.At)
		if !streams(c.began.Method) && c.began.Method != methodNote {
			times = append(times, e.At.since(c.began.At))
		}
	}
	if to > from {
		f.rate = float64(f.calls) / to.since(from).Seconds()
	}
	f.p50, f.p99 = quantile(times, 0.50), quantile(times, 0.99)
	slices.Sort(successes)
	for i := 1; i < len(successes); i++ {
		f.outage = max(f.outage, successes[i].since(successes[i-1]))
	}
	f.measureProcesses(v.processes)
	return f
}

func (f *figures) measureProcesses(processes map[string]*processHistory) {
	f.faults = map[string]int{}
	for _, p := range sorted(processes) {
		for _, s := range p.stalls {
			f.stalls = max(f.stalls, s.At.since(s.Since))
		}
		for _, r := range p.records {
			if r.Kind == fault {
				f.faults[r.Text]++
			}
		}
		if g, ok := p.growth(); ok {
			f.growth = append(f.growth, g)
		}
	}
}

func (f *outcomes) count(c *history, e *record) {
	if e.Code != okCode {
		f.errors[fmt.Sprintf("%s (%s)", e.Code, e.Claim)]++
	}
	if !(excuses{}).excuse(c.began, e, nil) {
		f.lost++
	}
	if len(c.runs) > 1 {
		f.twice++
	}
	if e.Claim == rpc.ExecutionMayHaveRun.String() {
		f.givenUp++
		if len(c.runs) > 0 && c.runs[len(c.runs)-1].At.since(e.At) > underway {
			f.orphans++
		}
	}
	if streams(c.began.Method) && len(c.runs) > 0 {
		f.streams++
	}
	if c.began.Method == methodNote && e.Code == okCode {
		f.notes++
		f.noted += len(c.runs)
	}
}

func quantile(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return 0
	}
	slices.Sort(times)
	return times[int(q*float64(len(times)-1))]
}

// writeReport writes the figures of all scenarios in Markdown.
func writeReport(w io.Writer, seed uint64, results []result) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# Chaos, seed %d\n\n", seed)
	b.WriteString("A call is lost if it failed although its caller did not ask for that, by a short deadline for instance. ")
	b.WriteString("It is a violation where the scenario's faults do not explain it. ")
	b.WriteString("Times are those of unary calls that succeeded, whose handlers take up to 1.5 s. ")
	b.WriteString("In an outage no call succeeds; in a stall a process does not get to run, or is paused. ")
	b.WriteString("Late is by how much a call ended after its deadline, at most; learned after, when a call ended whose replica was killed, at most. The time of stalls does not count for either. A call is given up if its caller has gone without an answer, at its deadline for instance; one in vain began a tenth of a second after that or later.\n\n")
	b.WriteString("| scenario | took | calls | a second | streams | lost | ran twice | p50 | p99 | longest outage | longest stall | late | killed: learned after | began in vain / given up | one-way: ran / published | violations |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range results {
		f, o := r.figures, r.figures.outcomes
		fmt.Fprintf(&b, "| %s | %v | %d | %.0f | %d | %d | %d | %v | %v | %v | %v | %v | %v | %d / %d | %d / %d | %d |\n", r.scenario, r.took.Round(100*time.Millisecond), f.calls, f.rate, o.streams, o.lost, o.twice,
			round(f.p50), round(f.p99), round(f.outage), round(f.stalls), round(f.late), round(f.death), o.orphans, o.givenUp, o.noted, o.notes, len(r.violations))
	}
	b.WriteString("\nHistories of registers are checked for linearizability; unknown are calls that may or may not have had an effect.\n\n")
	b.WriteString("| scenario | registers | operations | unknown | undecided histories |\n|---|---|---|---|---|\n")
	for _, r := range results {
		g := r.figures.registers
		fmt.Fprintf(&b, "| %s | %d | %d | %d | %d |\n", r.scenario, g.histories, g.calls, g.unknown, g.undecided)
	}
	writeCounts(&b, "error | calls", results, func(f figures) map[string]int { return f.outcomes.errors })
	writeCounts(&b, "fault | times", results, func(f figures) map[string]int { return f.faults })
	writeGrowth(&b, results)
	_, err := io.WriteString(w, b.String())
	return err
}

// writeCounts writes what there was most of first.
func writeCounts(b *strings.Builder, head string, results []result, counts func(figures) map[string]int) {
	fmt.Fprintf(b, "\n| scenario | %s |\n|---|---|---|\n", head)
	for _, r := range results {
		all := counts(r.figures)
		names := slices.SortedFunc(maps.Keys(all), func(a, b string) int {
			return cmp.Or(cmp.Compare(all[b], all[a]), cmp.Compare(a, b))
		})
		for _, name := range names {
			fmt.Fprintf(b, "| %s | %s | %d |\n", r.scenario, name, all[name])
		}
	}
}

// writeGrowth writes what processes used, if any said so.
func writeGrowth(b *strings.Builder, results []result) {
	const mib = 1 << 20
	head := "\nMedians of the first and the last quarter of the samples; heaps are measured after a collection, the memory of nodes is what the system says.\n\n" +
		"| scenario | process | samples | memory, MiB | goroutines | subscriptions |\n|---|---|---|---|---|---|\n"
	for _, r := range results {
		for _, g := range r.figures.growth {
			fmt.Fprintf(b, "%s| %s | %s | %d | %.1f -> %.1f | %d -> %d | %d -> %d |\n", head, r.scenario, g.process, g.samples,
				float64(g.first.Heap)/mib, float64(g.last.Heap)/mib, g.first.Goroutines, g.last.Goroutines, g.first.Subscriptions, g.last.Subscriptions)
			head = ""
		}
	}
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

// How much is printed of a scenario: the first violations say what the others would, and the
// records are in the files.
const (
	maxPrinted        = 5
	maxPrintedRecords = 100
)

// writeViolations writes what was broken, with all records of the call or process.
func writeViolations(w io.Writer, r result) {
	for i, v := range r.violations {
		if i == maxPrinted {
			fmt.Fprintf(w, "%s: %d more\n", r.scenario, len(r.violations)-maxPrinted)
			return
		}
		fmt.Fprintf(w, "%s: VIOLATION: %s\n", r.scenario, v.What)
		for _, rec := range v.Records[:min(maxPrintedRecords, len(v.Records))] {
			writeRecord(w, *rec)
		}
	}
}

// writeRecord writes a record as it stands in the file, but for a text of several lines, such as
// stacks, which follows it.
func writeRecord(w io.Writer, r record) {
	text := ""
	if strings.Contains(r.Text, "\n") {
		text, r.Text = r.Text, ""
	}
	line, _ := json.Marshal(r) // of strings and numbers: cannot fail
	fmt.Fprintf(w, "\t%s\n", line)
	for line := range strings.Lines(text) {
		fmt.Fprintf(w, "\t\t%s", line)
	}
}
