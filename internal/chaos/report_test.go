package main

import (
	"strings"
	"testing"
	"time"
)

// TestMeasure makes the figures of a handful of records.
func TestMeasure(t *testing.T) {
	call := func(id string, at instant, took time.Duration, method, code, claim string, runs int) (out []record) {
		out = append(out, record{At: at, Process: "client-0", Kind: began, Call: id, Method: method, Deadline: at + 15*second})
		for range runs {
			out = append(out, record{At: at, Process: "replica-0", Kind: run, Call: id, Method: method})
		}
		return append(out, record{At: at.add(took), Process: "client-0", Kind: ended, Call: id, Code: code, Claim: claim})
	}
	f := collect(join(
		call("1", 1*second, time.Millisecond, methodAdd, okCode, "", 1),
		call("2", 2*second, 2*time.Millisecond, methodPut, okCode, "", 2),
		call("3", 5*second, 3*time.Millisecond, methodAdd, okCode, "", 1),
		call("4", 5*second, time.Millisecond, methodAdd, abortedCode, didRun, 1),
		call("5", 5*second, time.Second, methodAdd, unavailableCode, mayHaveRun, 0),
		call("6", 5*second, 0, methodNote, okCode, "", 1),
		call("7", 5*second, 0, methodNote, okCode, "", 0),
		[]record{{At: 7 * second, Process: "replica-0", Kind: run, Call: "5", Method: methodAdd}},
		record{At: 4 * second, Process: "client-0", Kind: stalled, Since: 3 * second},
	)).measure()
	switch {
	case f.calls != 7, f.outcomes.lost != 1, f.outcomes.twice != 1, f.outcomes.notes != 2, f.outcomes.noted != 1, f.outcomes.givenUp != 1, f.outcomes.orphans != 1:
		t.Errorf("%+v", f)
	case f.rate != 7./5:
		t.Errorf("%v calls a second", f.rate)
	case f.p50 != 2*time.Millisecond, f.p99 != 2*time.Millisecond:
		t.Errorf("p50 %v, p99 %v", f.p50, f.p99)
	case f.outage != 3*time.Second-2*time.Millisecond:
		t.Errorf("outage %v", f.outage)
	case f.stalls != time.Second:
		t.Errorf("stalls %v", f.stalls)
	case len(f.outcomes.errors) != 2, f.outcomes.errors["aborted (did run)"] != 1, f.outcomes.errors["unavailable (may have run)"] != 1:
		t.Errorf("%v", f.outcomes.errors)
	}
	if none := collect(nil).measure(); none.calls != 0 || none.p99 != 0 || none.rate != 0 {
		t.Errorf("%+v", none)
	}
}

// TestWriteReport writes a report, and the violations in it.
func TestWriteReport(t *testing.T) {
	r := result{scenario: "kill", took: 1234 * time.Millisecond, figures: figures{
		calls: 10, rate: 99.6, p50: time.Millisecond, p99: time.Second, outage: time.Second, stalls: time.Millisecond, late: 2 * time.Millisecond, death: 4 * time.Second,
		outcomes:  outcomes{lost: 1, twice: 2, streams: 5, givenUp: 9, orphans: 1, notes: 3, noted: 2, errors: map[string]int{"aborted (did run)": 1, "unavailable (may have run)": 2}},
		faults:    map[string]int{string(faultCut): 3},
		registers: registerFigures{histories: 4, calls: 400, unknown: 7, undecided: 1},
		growth:    []growth{{"client-0", 16, sample{1 << 20, 10, 3}, sample{3 << 19, 11, 3}}},
	}}
	for range maxPrinted + 2 {
		r.violations = append(r.violations, violation{What: "it is broken", Records: []*record{{At: 7, Kind: run, Call: "c"}}})
	}
	var report, broken strings.Builder
	if err := writeReport(&report, 42, []result{r}); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		"# Chaos, seed 42\n",
		"| kill | 1.2s | 10 | 100 | 5 | 1 | 2 | 1ms | 1s | 1s | 1ms | 2ms | 4s | 1 / 9 | 2 / 3 | 7 |\n",
		"| kill | 4 | 400 | 7 | 1 |\n",
		"| kill | network: cut | 3 |\n",
		"| kill | client-0 | 16 | 1.0 -> 1.5 | 10 -> 11 | 3 -> 3 |\n",
		"| kill | unavailable (may have run) | 2 |\n| kill | aborted (did run) | 1 |\n",
	} {
		if !strings.Contains(report.String(), line) {
			t.Errorf("%q is missing in\n%s", line, report.String())
		}
	}
	writeViolations(&broken, r)
	if want := "\t{\"at\":7,\"process\":\"a\",\"kind\":\"exits\",\"count\":1}\n\t\tmain.f\n\t\t\tf.go:1\n"; writtenRecord(record{At: 7, Process: "a", Kind: exits, Count: 1, Text: "main.f\n\tf.go:1\n"}) != want {
		t.Errorf("a record with stacks: %q", want)
	}
	want := strings.Repeat("kill: VIOLATION: it is broken\n\t{\"at\":7,\"process\":\"\",\"kind\":\"run\",\"call\":\"c\"}\n", maxPrinted) + "kill: 2 more\n"
	if broken.String() != want {
		t.Errorf("%s", broken.String())
	}
}

func writtenRecord(r record) string {
	var b strings.Builder
	writeRecord(&b, r)
	return b.String()
}
