package bench

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/natscall/natscall/cmd/natscall/internal/output"
)

const (
	barWidth     = 40 // how long the bar of the bin with most calls is
	numbersWidth = 33 // of what stands before a bar
)

// WriteText writes what was measured for people.
func (r *Result) WriteText(w *output.Writer) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s, %s\n\n", r.Method, r.Plan)
	r.writeCounts(&text)
	r.writeLatency(&text)
	r.writeHistogram(&text, w)
	r.writeErrors(&text, w)
	_, err := io.WriteString(w, text.String())
	return err
}

func (r *Result) writeCounts(w io.Writer) {
	line := func(name string, n int64, more string) { fmt.Fprintf(w, "  %-12s %12d%s\n", name, n, more) }
	rate := func(n int64) string { return fmt.Sprintf("   %.1f/s", r.PerSecond(n)) }
	calls := "calls"
	if r.Stream {
		calls = "streams"
	}
	line(calls, r.Calls, rate(r.Calls))
	line("failed", r.Failed, percent(r.Failed, r.Calls))
	if r.CutOff > 0 {
		line("cut off", r.CutOff, "   by the end of the measurement")
	}
	if r.NotBegun > 0 {
		line("not begun", r.NotBegun, "   in time: the rate was not reached, as all calls at a time were taken")
	}
	switch {
	case r.sends:
		line("messages out", r.Sent, rate(r.Sent))
		line("bytes out", r.SentBytes, rate(r.SentBytes))
		line("messages in", r.Messages, rate(r.Messages))
		line("bytes in", r.Bytes, rate(r.Bytes))
	case r.Stream:
		line("messages", r.Messages, rate(r.Messages))
		fallthrough
	default:
		line("bytes", r.Bytes, rate(r.Bytes))
	}
	fmt.Fprintf(w, "  %-12s %12.3f", "seconds", time.Duration(r.Took).Seconds())
	if r.Interrupted {
		fmt.Fprint(w, "   interrupted")
	}
	fmt.Fprint(w, "\n")
}

func percent(part, whole int64) string {
	if part == 0 {
		return ""
	}
	return fmt.Sprintf("   %.2f %%", 100*float64(part)/float64(whole))
}

func (r *Result) writeLatency(w io.Writer) {
	if r.times.TotalCount() == 0 {
		fmt.Fprint(w, "\nNo call has succeeded, so there are no latencies.\n")
		return
	}
	of := "of the calls that succeeded"
	switch {
	case r.sends:
		of = "of the streams that succeeded, to their end"
	case r.Stream:
		of = "until the first message"
	}
	fmt.Fprintf(w, "\nLatency %s, in milliseconds:\n\n", of)
	l := r.Latency
	for _, row := range []struct {
		name  string
		value float64
	}{
		{"min", l.Min}, {"mean", l.Mean}, {"p50", l.P50}, {"p75", l.P75}, {"p90", l.P90}, {"p95", l.P95}, {"p99", l.P99},
		{"p99.9", l.P999}, {"max", l.Max},
	} {
		fmt.Fprintf(w, "  %-12s %12.3f\n", row.name, row.value)
	}
}

func (r *Result) writeHistogram(w io.Writer, out *output.Writer) {
	most := int64(0)
	for _, bin := range r.Histogram {
		most = max(most, bin.Count)
	}
	if most == 0 {
		return
	}
	fmt.Fprint(w, "\nHow many took how long, in milliseconds:\n\n")
	longest := int64(barWidth)
	if width := out.Width(); width > 0 {
		longest = int64(max(minBar, min(barWidth, width-numbersWidth)))
	}
	for _, bin := range r.Histogram {
		line := fmt.Sprintf("  %8.4g to %-8.4g %8d  %s", bin.From, bin.To, bin.Count, out.Good(bar(bin.Count, most, longest)))
		fmt.Fprintln(w, strings.TrimRight(line, " "))
	}
}

// bar draws a number: any above none is to be seen.
func bar(count, most, longest int64) string {
	n := int(count * longest / most)
	if count > 0 {
		n = max(n, 1)
	}
	return strings.Repeat("█", n)
}

func (r *Result) writeErrors(w io.Writer, out *output.Writer) {
	if len(r.Errors) == 0 {
		return
	}
	fmt.Fprint(w, "\nErrors, with the first of each code:\n\n")
	for _, e := range r.Errors {
		// The color is put in behind the padding, which would count it.
		fmt.Fprintf(w, "  %8d  %s%s  %s\n", e.Count, out.Bad(e.Code.String()), strings.Repeat(" ", max(0, 18-len(e.Code.String()))), output.Clean(e.Example))
	}
}
