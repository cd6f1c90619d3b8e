package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// plan says how to measure.
type plan struct {
	rounds    int
	warmup    time.Duration
	duration  time.Duration // of the window
	count     int           // messages a caller, instead of warmup and duration; for tests
	brief     bool          // leave out most of what is aside
	profiles  string        // directory for CPU profiles, or ""
	systems   []system
	workloads []workload
}

// overhead is about what a cell takes beside its warm-up and its window.
const overhead = 100 * time.Millisecond

// expected is how long the plan takes.
func (p plan) expected() time.Duration {
	var round time.Duration
	for _, w := range p.workloads {
		for _, s := range p.systems {
			if p.has(s, w) {
				round += w.stretch()*(p.warmup+p.duration) + overhead
			}
		}
	}
	return time.Duration(p.rounds) * round
}

// has says whether a system is measured with a workload.
func (p plan) has(s system, w workload) bool {
	if p.brief && w.Shape == fresh {
		return s.name == baseline || s.name == natscallRPC.name
	}
	if p.brief && s.aside && (w.Shape != unary || w.Size > smallCall) {
		return false
	}
	return s.streams || w.calls()
}

// cell is one measurement.
type cell struct {
	Workload string
	System   string
	Round    int
	Rate     float64 // calls or messages a second
	result
	Client cost
	Server cost
	Broker cost // of all, where there are several
}

// cpu is the CPU time of all processes.
func (c cell) cpu() float64 { return c.total().CPU }

func (c cell) total() cost { return c.Client.plus(c.Server).plus(c.Broker) }

// measure runs the plan: in each round each workload, and in it all systems, one after the
// other, in an order that changes with the round. What has been measured is returned with an
// error, too.
func (p plan) measure(ctx context.Context, progress io.Writer) ([]cell, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f := &fleet{}
	defer f.close()
	sites, err := f.startSystems(ctx, p.systems)
	if err != nil {
		return nil, err
	}
	var cells []cell
	for round := range p.rounds {
		for _, w := range p.workloads {
			fmt.Fprintf(progress, "round %d of %d, %-20s", round+1, p.rounds, w)
			for _, s := range rotated(p.systems, round) {
				if !p.has(s, w) {
					continue
				}
				c, err := p.cellOf(ctx, cancel, sites[s.name], s.name, w)
				if err != nil {
					fmt.Fprintln(progress)
					return cells, fmt.Errorf("%s: %w", w, err)
				}
				c.Round = round
				cells = append(cells, c)
				fmt.Fprintf(progress, "  %s %.0f/s", s.name, c.Rate)
			}
			fmt.Fprintln(progress)
		}
	}
	return cells, nil
}

func rotated[T any](all []T, by int) []T {
	by %= len(all)
	return slices.Concat(all[by:], all[:by])
}

// cellOf measures a system with a workload, which may want a client process of its own.
func (p plan) cellOf(ctx context.Context, end context.CancelCauseFunc, at site, system string, w workload) (cell, error) {
	if w.Shape != fresh {
		return p.cell(ctx, end, at, system, w)
	}
	client, err := startProcess(ctx, at.client.assignment)
	if err != nil {
		return cell{}, err
	}
	defer client.close()
	at.client = client
	return p.cell(ctx, end, at, system, w)
}

// patience is how much longer than planned a call may take before it fails; a cell, twice as
// long before everything is ended.
const patience = 10 * time.Second

// countLimit is the time for so many calls where there is no window; the race detector on a busy
// machine needs a part of it.
const countLimit = time.Minute

// cell measures one system with one workload.
func (p plan) cell(ctx context.Context, end context.CancelCauseFunc, at site, system string, w workload) (cell, error) {
	limit := w.stretch()*(p.warmup+p.duration) + patience
	if p.count > 0 {
		limit = countLimit
	}
	watchdog := time.AfterFunc(limit+patience, func() { end(fmt.Errorf("%s, %s: it hangs", system, w)) })
	defer watchdog.Stop()

	m := window{plan: p, workload: w, processes: at.all()}
	start := command{Do: doStart, Workload: w, Count: p.count, Limit: limit}
	run := m.timed
	if p.count > 0 {
		run = m.counted
	}
	r, err := run(ctx, start)
	if err != nil {
		return cell{}, err
	}
	return m.cell(system, r), nil
}

// window is the time in which the processes of a cell are measured. The client is the last of
// them, after the server.
type window struct {
	plan
	workload  workload
	processes []*process
	before    []usage
	after     []usage
}

// timed measures for a duration, after a warm-up.
func (m *window) timed(ctx context.Context, start command) (r result, err error) {
	if _, err = m.askAll(ctx, start); err != nil {
		return r, err
	}
	if err = sleep(ctx, m.workload.stretch()*m.warmup); err != nil {
		return r, err
	}
	if m.before, err = m.askAll(ctx, command{Do: doOpen}); err != nil {
		return r, err
	}
	if err = sleep(ctx, m.workload.stretch()*m.duration); err != nil {
		return r, err
	}
	if m.after, err = m.askAll(ctx, command{Do: doClose}); err != nil {
		return r, err
	}
	return m.stop(ctx)
}

// counted measures so many calls.
func (m *window) counted(ctx context.Context, start command) (r result, err error) {
	if m.before, err = m.askAll(ctx, command{Do: doOpen}); err != nil {
		return r, err
	}
	if _, err = m.askAll(ctx, start); err != nil {
		return r, err
	}
	if r, err = m.stop(ctx); err != nil {
		return r, err
	}
	m.after, err = m.askAll(ctx, command{Do: doClose})
	return r, err
}

func (m *window) stop(ctx context.Context) (result, error) {
	a, err := m.processes[len(m.processes)-1].ask(ctx, command{Do: doStop})
	return a.Result, err
}

func (m *window) askAll(ctx context.Context, c command) ([]usage, error) {
	var all []usage
	for _, p := range m.processes {
		if c.Do == doOpen && m.profiles != "" {
			system := m.processes[len(m.processes)-1].System
			c.Profile = filepath.Join(m.profiles, strings.Join([]string{m.workload.String(), system, p.Role, "pprof"}, "."))
		}
		a, err := p.ask(ctx, c)
		if err != nil {
			return nil, err
		}
		all = append(all, a.Usage)
	}
	return all, nil
}

func (m *window) cell(system string, r result) cell {
	c := cell{Workload: m.workload.String(), System: system, result: r}
	client := len(m.processes) - 1
	server, of := client-1, client // the client counts
	if m.workload.Shape == clientStream {
		of = server // what has been sent is not there yet: the server counts
		c.Calls = m.after[of].Handled - m.before[of].Handled
	}
	c.Rate = float64(c.Calls) / m.after[of].At.Sub(m.before[of].At).Seconds()
	c.Client = costBetween(m.before[client], m.after[client], c.Rate)
	c.Server = costBetween(m.before[server], m.after[server], c.Rate)
	for i := range server {
		c.Broker = c.Broker.plus(costBetween(m.before[i], m.after[i], c.Rate))
	}
	return c
}

// makeProfileDir makes the directory for CPU profiles, if one is wanted.
func makeProfileDir(name string) (string, error) {
	if name == "" {
		return "", nil
	}
	name, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	return name, os.MkdirAll(name, 0o755)
}
