package main

import (
	"flag"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "draw docs/performance.svg from the table of docs/performance.md")

const (
	performancePage  = "../../../docs/performance.md"
	performanceChart = "../../../docs/performance.svg"
)

// readRatios reads the table of ratios of the page.
func readRatios(t *testing.T) []block {
	t.Helper()
	text, err := os.ReadFile(performancePage)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\n| | "+baseline+" |")
	if !ok {
		t.Fatalf("%s has no table of ratios", performancePage)
	}
	names := systems()
	var blocks []block
	for i, line := range strings.Split(rest, "\n") {
		if i < 2 {
			continue // the rest of the header, and the line below it
		}
		if !strings.HasPrefix(line, "|") {
			break
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		b := block{workload: strings.TrimSpace(cells[0])}
		for j, cell := range cells[1:] {
			if cell = strings.TrimSpace(cell); cell == "" {
				continue
			}
			ratio, err := strconv.ParseFloat(cell, 64)
			if err != nil {
				t.Errorf("%s: %v", b.workload, err)
			}
			b.rows = append(b.rows, row{system: names[j].name, ratio: ratio})
		}
		blocks = append(blocks, b)
	}
	return blocks
}

// TestChart: the chart of docs/performance.md shows its table, and fits a screen.
func TestChart(t *testing.T) {
	blocks := readRatios(t)
	for _, b := range blocks {
		if !slices.ContainsFunc(workloads(), func(w workload) bool { return w.String() == b.workload }) {
			t.Errorf("there is no workload %q", b.workload)
		}
	}
	if len(blocks) < 20 {
		t.Errorf("the table has %d rows", len(blocks))
	}
	want := drawChart(blocks)
	if *update {
		if err := os.WriteFile(performanceChart, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(performanceChart)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s is not what %s says; -update draws it again", performanceChart, performancePage)
	}
	checkXML(t, performanceChart)
	if !strings.Contains(string(got), `width="920" height="494"`) {
		t.Errorf("the chart has another size: %.120s", got)
	}
}
