package main

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
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
	cells, err := p.measure(t.Context(), io.Discard)
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
			if ok != s.can(w) {
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

func TestArguments(t *testing.T) {
	for _, args := range [][]string{{"-systems", "corba"}, {"-workloads", "nothing"}, {"-workloads", "("}, {"-rounds", "-1"}, {"more"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("%v: no error", args)
		}
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
	h = histogram{}
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
