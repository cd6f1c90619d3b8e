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
	calls    int
	rate     float64        // calls a second
	errors   map[string]int // by code and claim; those that the caller asked for too
	lost     int            // calls that failed though their caller asked for nothing of the kind
	twice    int            // calls of idempotent methods that ran more than once
	notes    int            // one-way messages that were published
	noted    int            // and ran
	p50, p99 time.Duration  // of unary calls that succeeded; their handlers take up to 1.5 s
	outage   time.Duration  // the longest time in which no call succeeded
	stalls   time.Duration  // the longest time in which a client did not get to run
}

// measure makes the figures of a scenario's records.
func measure(all []record) (f figures) {
	calls, processes := histories(all)
	f.errors = map[string]int{}
	var times []time.Duration
	var successes []instant
	var from, to instant
	for _, c := range calls {
		if c.began == nil || len(c.ended) == 0 {
			continue
		}
		e := c.ended[0]
		f.calls++
		if from == 0 || c.began.At < from {
			from = c.began.At
		}
		to = max(to, e.At)
		f.count(c, e)
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
	for _, p := range processes {
		for _, s := range p.stalls {
			f.stalls = max(f.stalls, s.At.since(s.Since))
		}
	}
	return f
}

func (f *figures) count(c *history, e record) {
	if e.Code != okCode {
		f.errors[fmt.Sprintf("%s (%s)", e.Code, e.Claim)]++
	}
	if !(excuses{}).excuse(c.began, e) {
		f.lost++
	}
	if len(c.runs) > 1 {
		f.twice++
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
	b.WriteString("In an outage no call succeeds; in a stall a process does not get to run, or is paused.\n\n")
	b.WriteString("| scenario | took | calls | a second | lost | ran twice | p50 | p99 | longest outage | longest stall | one-way: ran / published | violations |\n")
	b.WriteString("|---|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range results {
		f := r.figures
		fmt.Fprintf(&b, "| %s | %v | %d | %.0f | %d | %d | %v | %v | %v | %v | %d / %d | %d |\n", r.scenario, r.took.Round(100*time.Millisecond), f.calls, f.rate, f.lost, f.twice,
			round(f.p50), round(f.p99), round(f.outage), round(f.stalls), f.noted, f.notes, len(r.violations))
	}
	b.WriteString("\n| scenario | error | calls |\n|---|---|---|\n")
	for _, r := range results {
		names := slices.SortedFunc(maps.Keys(r.figures.errors), func(a, b string) int {
			return cmp.Or(cmp.Compare(r.figures.errors[b], r.figures.errors[a]), cmp.Compare(a, b))
		})
		for _, name := range names {
			fmt.Fprintf(&b, "| %s | %s | %d |\n", r.scenario, name, r.figures.errors[name])
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func round(d time.Duration) time.Duration { return d.Round(100 * time.Microsecond) }

// maxPrinted is how many violations of a scenario are printed: the first say what the others would.
const maxPrinted = 5

// writeViolations writes what was broken, with all records of the call or process.
func writeViolations(w io.Writer, r result) {
	for i, v := range r.violations {
		if i == maxPrinted {
			fmt.Fprintf(w, "%s: %d more\n", r.scenario, len(r.violations)-maxPrinted)
			return
		}
		fmt.Fprintf(w, "%s: VIOLATION: %s\n", r.scenario, v.What)
		for _, rec := range v.Records {
			writeRecord(w, rec)
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
