package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// TestMain makes the test's binary fit for all roles, as main does.
func TestMain(m *testing.M) {
	if ran, err := runRole(); ran {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// TestSmoke runs every system with every workload for a handful of calls.
func TestSmoke(t *testing.T) {
	p := plan{rounds: 1, count: 2, systems: systems(), workloads: workloads()}
	cells, err := p.measure(t.Context(), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	measured := map[string]cell{}
	for _, c := range cells {
		measured[c.Workload+" "+c.System] = c
	}
	for _, w := range p.workloads {
		for _, s := range p.systems {
			c, ok := measured[w.String()+" "+s.name]
			if ok != p.has(s, w) {
				t.Errorf("%s, %s: measured: %t", s.name, w, ok)
			}
			if want := uint64(p.count * w.Callers); ok && (c.Calls != want || c.Errors != 0 || c.Lost != 0) {
				t.Errorf("%s, %s: %d of %d calls, %d errors (%s), %d lost", s.name, w, c.Calls, want, c.Errors, c.First, c.Lost)
			}
			if ok && (c.Rate <= 0 || c.cpu() <= 0 || c.Client.Allocs <= 0 || c.Server.Bytes <= 0 || w.timed() != (c.P50 > 0)) {
				t.Errorf("%s, %s: not measured: %+v", s.name, w, c)
			}
		}
	}
}

// TestCommand runs the command for a moment, with everything that it writes.
func TestCommand(t *testing.T) {
	dir := t.TempDir()
	chart, data := filepath.Join(dir, "chart.svg"), filepath.Join(dir, "data.json")
	err := run([]string{"-rounds", "2", "-duration", "20ms", "-systems", "raw,natscall", "-workloads", "^(unary-60B-16|server-stream-60B)$",
		"-svg", chart, "-json", data, "-profiles", filepath.Join(dir, "profiles")})
	if err != nil {
		t.Fatal(err)
	}
	var r report
	text, err := os.ReadFile(data)
	if err == nil {
		err = json.Unmarshal(text, &r)
	}
	if err != nil || len(r.Cells) != 2*2*2 {
		t.Errorf("JSON: %d cells, %v", len(r.Cells), err)
	}
	for _, c := range r.Cells {
		if c.Rate <= 0 || c.Errors != 0 {
			t.Errorf("%s, %s: %.0f a second, %d errors (%s)", c.System, c.Workload, c.Rate, c.Errors, c.First)
		}
	}
	checkXML(t, chart)
	if profiles, _ := filepath.Glob(filepath.Join(dir, "profiles", "*.pprof")); len(profiles) != 2*2*3 {
		t.Errorf("profiles: %v", profiles)
	}
}

func checkXML(t *testing.T, name string) {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for d := xml.NewDecoder(strings.NewReader(string(text))); err == nil; {
		_, err = d.Token()
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("%s: %v", name, err)
	}
}

// TestGrowth measures a call of each caller, without the points of the most processes and calls.
func TestGrowth(t *testing.T) {
	p := plan{rounds: 1, count: 1}
	for _, e := range experiments() {
		t.Run(e.name, func(t *testing.T) {
			e.points = slices.DeleteFunc(e.points, func(at point) bool { return at.callers > 1_000 || at.pair.Replicas > 3 })
			cells, err := e.measure(t.Context(), p, t.Output())
			if err != nil || len(cells) != len(e.points) {
				t.Fatalf("%d of %d points, %v", len(cells), len(e.points), err)
			}
			for _, at := range e.points {
				c := e.cells(cells, at.system, at.value)[0]
				if c.Calls != uint64(at.callers) || c.Errors != 0 || c.P50 <= 0 || c.Broker.CPU <= 0 {
					t.Errorf("%s, %d: %+v", at.system, at.value, c)
				}
			}
			checkTable(t, func(w io.Writer) error { return e.writeText(w, cells) }, len(e.points))
		})
	}
}

// TestMemory weighs some of everything.
func TestMemory(t *testing.T) {
	lines := holdings()
	for i := range lines {
		lines[i].count = 50
	}
	weights, err := weighAll(t.Context(), lines, 1, t.Output())
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range lines {
		w := weights[i][0]
		if h.server && (w.Server.Heap <= 0 || w.Server.Goroutines < 1) {
			t.Errorf("%s: server: %+v", h.name(), w.Server)
		}
		if h.client && w.Client.Heap <= 0 {
			t.Errorf("%s: client: %+v", h.name(), w.Client)
		}
	}
	checkTable(t, func(w io.Writer) error { return writeWeights(w, lines, weights) }, len(lines))
}

// checkTable says whether a table has so many lines below its head, all as long as that.
func checkTable(t *testing.T, write func(io.Writer) error, lines int) {
	t.Helper()
	var out strings.Builder
	if err := write(&out); err != nil {
		t.Fatal(err)
	}
	widths := map[int]int{}
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "|") {
			widths[utf8.RuneCountInString(line)]++
		}
	}
	if len(widths) != 1 || slices.Max(slices.Collect(maps.Values(widths))) != lines+2 {
		t.Errorf("not a table of %d lines:\n%s", lines, out.String())
	}
}

// TestModes runs the commands of both, as short as they get.
func TestModes(t *testing.T) {
	if err := run([]string{"growth", "-rounds", "1", "-duration", "10ms", "-only", "services"}); err != nil {
		t.Error(err)
	}
	if err := run([]string{"memory", "-rounds", "1"}); err != nil {
		t.Error(err)
	}
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{
		{"-systems", "corba"}, {"-workloads", "nothing"}, {"-workloads", "("}, {"-rounds", "-1"}, {"more"},
		{"growth", "-only", "nothing"}, {"growth", "-only", "("}, {"growth", "-duration", "-1s"}, {"growth", "more"},
		{"memory", "-rounds", "0"}, {"memory", "more"},
	} {
		if err := run(args); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}

// TestShort says what -short leaves out, and that it keeps its word about the time.
func TestShort(t *testing.T) {
	f, err := parse([]string{"-short"})
	if err != nil || f.expected() > 4*time.Minute {
		t.Errorf("it takes %v, %v", f.expected(), err)
	}
	if f.has(twirpRPC, workload{unary, 4 << 10, 1}) || !f.has(twirpRPC, workload{unary, smallCall, 256}) || !f.has(grpcGo, workload{unary, 4 << 10, 1}) {
		t.Error("it leaves out something else")
	}
	if w := (workload{fresh, smallCall, 16}); f.has(grpcGo, w) || !f.has(natscallRPC, w) || !f.has(rawNATS, w) {
		t.Error("it has other fresh clients")
	}
	if f, err = parse([]string{"-short", "-systems", "raw,twirp"}); err != nil || !f.has(twirpRPC, workload{unary, 4 << 10, 1}) {
		t.Errorf("it leaves out what was asked for, %v", err)
	}
}

func TestColors(t *testing.T) {
	if len(colors) != len(systems()) {
		t.Errorf("%d colors for %d systems", len(colors), len(systems()))
	}
}

func TestHistogram(t *testing.T) {
	for d := time.Duration(1); d < time.Minute; d += d/3 + 1 {
		if got := lowest(bucket(d)); got > d || float64(d-got) > float64(d)/128 {
			t.Errorf("%d is counted as %d", d, got)
		}
	}
	var h histogram
	h.record(time.Hour) // too long
	h[buckets-1].Store(0)
	for i := range 1000 {
		h.record(time.Duration(i) * time.Microsecond)
	}
	for q, want := range map[float64]float64{0.5: 500e3, 0.99: 990e3} {
		if got := float64(h.quantile(q)); got > want || got < want*0.99 {
			t.Errorf("quantile %v is %v", q, got)
		}
	}
}

func TestMedianRatio(t *testing.T) {
	at := func(round int, rate float64) cell { return cell{Round: round, Rate: rate} }
	rate := func(c cell) float64 { return c.Rate }
	got := medianRatio([]cell{at(0, 2), at(1, 9), at(2, 40), at(3, 5)}, []cell{at(2, 10), at(1, 3), at(0, 1)}, rate)
	if got != 3 {
		t.Errorf("the median of 2, 3 and 4 is %v", got)
	}
}
