package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is what has been measured, and on what.
type report struct {
	Date     time.Time
	Go       string
	Machine  string
	CPUs     int
	Versions map[string]string // of the modules that are compared
	Rounds   int
	Warmup   time.Duration
	Duration time.Duration
	Cells    []cell
}

func newReport(p plan, cells []cell) report {
	r := report{
		Date: time.Now().UTC().Truncate(time.Second), Go: runtime.Version(), Machine: runtime.GOOS + "/" + runtime.GOARCH, CPUs: runtime.NumCPU(),
		Versions: map[string]string{}, Rounds: p.rounds, Warmup: p.warmup, Duration: p.duration, Cells: cells,
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if slices.Contains(compared, m.Path) {
				r.Versions[m.Path] = m.Version
			}
		}
	}
	return r
}

var compared = []string{
	"github.com/nats-io/nats.go", "github.com/nats-io/nats-server/v2", "google.golang.org/protobuf",
	"github.com/planetscale/vtprotobuf", "google.golang.org/grpc", "connectrpc.com/connect", "storj.io/drpc",
	"github.com/twitchtv/twirp", "github.com/livekit/psrpc",
}

// row is a system with a workload: medians over the rounds.
type row struct {
	system  string
	ratio   float64 // to the baseline's rate in the same round; 0 where there is none
	latency float64 // the same of p50
	cpu     float64 // the same of the CPU time of all processes
	rate    float64
	p50     time.Duration
	p99     time.Duration
	client  cost
	server  cost
	broker  cost
	errors  uint64 // the sum
	lost    uint64 // the sum
	first   string // error
}

// block is the rows of a workload.
type block struct {
	workload string
	rows     []row
}

// blocks summarises the cells, in the order in which they were measured first.
func (r report) blocks() []block {
	var blocks []block
	for _, workload := range distinct(r.Cells, func(c cell) string { return c.Workload }) {
		cells := slices.DeleteFunc(slices.Clone(r.Cells), func(c cell) bool { return c.Workload != workload })
		b := block{workload: workload}
		base := of(cells, baseline)
		for _, s := range distinct(cells, func(c cell) string { return c.System }) {
			b.rows = append(b.rows, summary(s, of(cells, s), base))
		}
		blocks = append(blocks, b)
	}
	return blocks
}

func of(cells []cell, system string) []cell {
	return slices.DeleteFunc(slices.Clone(cells), func(c cell) bool { return c.System != system })
}

func distinct(cells []cell, key func(cell) string) []string {
	var keys []string
	for _, c := range cells {
		if !slices.Contains(keys, key(c)) {
			keys = append(keys, key(c))
		}
	}
	return keys
}

func summary(system string, cells, base []cell) row {
	r := row{
		system:  system,
		ratio:   medianRatio(cells, base, func(c cell) float64 { return c.Rate }),
		latency: medianRatio(cells, base, func(c cell) float64 { return float64(c.P50) }),
		cpu:     medianRatio(cells, base, cell.cpu),
		rate:    median(cells, func(c cell) float64 { return c.Rate }),
		p50:     time.Duration(median(cells, func(c cell) float64 { return float64(c.P50) })),
		p99:     time.Duration(median(cells, func(c cell) float64 { return float64(c.P99) })),
		client:  medianCost(cells, func(c cell) cost { return c.Client }),
		server:  medianCost(cells, func(c cell) cost { return c.Server }),
		broker:  medianCost(cells, func(c cell) cost { return c.Broker }),
	}
	for _, c := range cells {
		r.errors += c.Errors
		r.lost += c.Lost
		if r.first == "" {
			r.first = c.First
		}
	}
	return r
}

func medianCost(cells []cell, of func(cell) cost) cost {
	return cost{
		CPU:    median(cells, func(c cell) float64 { return of(c).CPU }),
		Allocs: median(cells, func(c cell) float64 { return of(c).Allocs }),
		Bytes:  median(cells, func(c cell) float64 { return of(c).Bytes }),
		Writes: median(cells, func(c cell) float64 { return of(c).Writes }),
	}
}

func median(cells []cell, of func(cell) float64) float64 {
	var values []float64
	for _, c := range cells {
		values = append(values, of(c))
	}
	return middle(values)
}

// medianRatio compares each cell with that of the baseline in the same round, leaving out rounds
// in which one of them has nothing.
func medianRatio(cells, base []cell, of func(cell) float64) float64 {
	var ratios []float64
	for _, c := range cells {
		for _, b := range base {
			if b.Round == c.Round && of(b) > 0 && of(c) > 0 {
				ratios = append(ratios, of(c)/of(b))
			}
		}
	}
	return middle(ratios)
}

// middle is the median, 0 for none.
func middle(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	n := len(values)
	return (values[(n-1)/2] + values[n/2]) / 2
}

// writeHeader writes when, on what and how it was measured.
func (r report) writeHeader(w io.Writer) {
	fmt.Fprintf(w, "%s, %s, %s, %d CPUs; medians of %d rounds", r.Date.Format(time.RFC3339), r.Go, r.Machine, r.CPUs, r.Rounds)
	if r.Duration > 0 {
		fmt.Fprintf(w, " of %v after a warm-up of %v", r.Duration, r.Warmup)
	}
	fmt.Fprintln(w)
	for _, path := range compared {
		if v := r.Versions[path]; v != "" {
			fmt.Fprintln(w, path, v)
		}
	}
}

// writeText writes the details of each workload, and then the ratios of all.
func (r report) writeText(w io.Writer) error {
	r.writeHeader(w)
	blocks := r.blocks()
	for _, b := range blocks {
		fmt.Fprintf(w, "\n%s\n", b.workload)
		if err := b.writeText(w); err != nil {
			return err
		}
	}
	fmt.Fprintf(w, "\nRates relative to %s in the same round\n", baseline)
	return writeRatios(w, blocks)
}

func (b block) writeText(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\ta second\tof raw\tp50 µs\tp99 µs\tp50 of raw\tCPU s/100k c\ts\tbroker\tof raw\tallocs c\ts\tbytes c\ts\twrites c\ts\tbroker\terrors\tlost\t")
	for _, r := range b.rows {
		fmt.Fprintf(t, "%s\t%.0f\t%s\t%s\t%s\t%s\t%.2f\t%.2f\t%.2f\t%s\t%.1f\t%.1f\t%.0f\t%.0f\t%.3f\t%.3f\t%.3f\t%d\t%d\t\n",
			r.system, r.rate, ratio(r.ratio), micros(r.p50), micros(r.p99), ratio(r.latency), r.client.CPU, r.server.CPU, r.broker.CPU, ratio(r.cpu),
			r.client.Allocs, r.server.Allocs, r.client.Bytes, r.server.Bytes, r.client.Writes, r.server.Writes, r.broker.Writes, r.errors, r.lost)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, r := range b.rows {
		if r.first != "" {
			fmt.Fprintf(w, "  %s: first error: %s\n", r.system, r.first)
		}
	}
	return nil
}

func writeRatios(w io.Writer, blocks []block) error {
	var names []string
	for _, b := range blocks {
		for _, r := range b.rows {
			if !slices.Contains(names, r.system) {
				names = append(names, r.system)
			}
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\t"+strings.Join(names, "\t")+"\t")
	for _, b := range blocks {
		fmt.Fprint(t, b.workload, "\t")
		for _, name := range names {
			fmt.Fprint(t, ratio(b.ratio(name)), "\t")
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}

// ratio is the ratio of a system's rate, 0 where there is none.
func (b block) ratio(system string) float64 {
	for _, r := range b.rows {
		if r.system == system {
			return r.ratio
		}
	}
	return 0
}

func ratio(r float64) string {
	if r == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", r)
}

func micros(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f", float64(d)/float64(time.Microsecond))
}

func (r report) writeJSON(name string) error {
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(data, '\n'), 0o644)
}
