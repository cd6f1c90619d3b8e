package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"time"
)

// The mode memory: what a process holds for a waiting call, an idle stream, a service and a
// client. The processes of a line hold one of the kind when they are weighed first, so that what
// all of the kind share is not counted, and then many more.

// memory is what a process holds, after its garbage has been collected.
type memory struct {
	Heap       float64 // bytes
	Stack      float64 // bytes
	Goroutines float64
}

func weigh() memory {
	runtime.GC()
	runtime.GC() // what a pool has is garbage only to the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return memory{Heap: float64(m.HeapAlloc), Stack: float64(m.StackInuse), Goroutines: float64(runtime.NumGoroutine())}
}

// each is what one of n has, where before was without them.
func (m memory) each(before memory, n int) memory {
	return memory{
		Heap:       (m.Heap - before.Heap) / float64(n),
		Stack:      (m.Stack - before.Stack) / float64(n),
		Goroutines: (m.Goroutines - before.Goroutines) / float64(n),
	}
}

// weight is one measurement, or the medians of several.
type weight struct{ Client, Server memory }

func runMemory(args []string) error {
	rounds, err := parseMemory(args)
	if err != nil {
		return err
	}
	all := holdings()
	return bounded(time.Duration(rounds*len(all))*holdingTime, func(ctx context.Context) error {
		newReport(plan{rounds: rounds}, nil).writeHeader(os.Stdout)
		weights, err := weighAll(ctx, all, rounds, os.Stderr)
		if err != nil {
			return err
		}
		return writeWeights(os.Stdout, all, weights)
	})
}

// holdingTime is about what a line takes in a round.
const holdingTime = time.Second

func parseMemory(args []string) (rounds int, err error) {
	set := flag.NewFlagSet("compare memory", flag.ContinueOnError)
	set.IntVar(&rounds, "rounds", 3, "`number` of rounds, each with new processes")
	if err := parseAll(set, args); err != nil {
		return 0, err
	}
	if rounds < 1 {
		return 0, fmt.Errorf("-rounds must be at least 1")
	}
	return rounds, nil
}

// weighAll returns for each line the weights of all rounds.
func weighAll(ctx context.Context, lines []holding, rounds int, progress io.Writer) ([][]weight, error) {
	weights := make([][]weight, len(lines))
	for round := range rounds {
		for i, h := range lines {
			fmt.Fprintf(progress, "round %d of %d, %s, %s, %d\n", round+1, rounds, h.what, h.system, h.count)
			w, err := h.weigh(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", h.what, err)
			}
			weights[i] = append(weights[i], w)
		}
	}
	return weights, nil
}

// weigh holds one, and then as many as there are to be, in new processes.
func (h holding) weigh(ctx context.Context) (w weight, err error) {
	f := &fleet{}
	defer f.close()
	brokers, err := f.startBrokers(ctx, 1)
	if err != nil {
		return w, err
	}
	s, err := f.startSite(ctx, brokers, assignment{System: h.system, Holding: h.name()})
	if err != nil {
		return w, err
	}
	before, err := s.holdAndWeigh(ctx, 1)
	if err != nil {
		return w, err
	}
	after, err := s.holdAndWeigh(ctx, h.count)
	return weight{Client: after.Client.each(before.Client, h.count), Server: after.Server.each(before.Server, h.count)}, err
}

// holdAndWeigh makes the processes hold n more.
func (s site) holdAndWeigh(ctx context.Context, n int) (w weight, err error) {
	// What comes from the client, the server waits for.
	for _, p := range []*process{s.client, s.server} {
		if _, err = p.ask(ctx, command{Do: doHold, Count: n}); err != nil {
			return w, err
		}
	}
	client, err := s.client.ask(ctx, command{Do: doWeigh})
	if err != nil {
		return w, err
	}
	server, err := s.server.ask(ctx, command{Do: doWeigh})
	return weight{Client: client.Memory, Server: server.Memory}, err
}

const memoryText = `Bytes of one, on the heap after garbage collection and in stacks. The goroutine of a waiting call's caller is in its client's share.
`

func writeWeights(w io.Writer, lines []holding, weights [][]weight) error {
	var t table
	t.add("one of", "system", "held", "client B", "heap", "stacks", "goroutines", "server B", "heap", "stacks", "goroutines")
	for i, h := range lines {
		client := memoryCells(h.client, weights[i], func(w weight) memory { return w.Client })
		server := memoryCells(h.server, weights[i], func(w weight) memory { return w.Server })
		t.add(append(append([]string{h.what, h.system, strconv.Itoa(h.count)}, client...), server...)...)
	}
	fmt.Fprint(w, "\n", memoryText, "\n")
	return t.writeText(w)
}

// memoryCells are the cells of one side, if that side holds anything.
func memoryCells(holds bool, weights []weight, side func(weight) memory) []string {
	if !holds {
		return []string{"-", "-", "-", "-"}
	}
	of := func(part func(memory) float64) float64 {
		var values []float64
		for _, w := range weights {
			values = append(values, part(side(w)))
		}
		return middle(values)
	}
	return []string{
		fmt.Sprintf("%.0f", of(func(m memory) float64 { return m.Heap + m.Stack })),
		fmt.Sprintf("%.0f", of(func(m memory) float64 { return m.Heap })),
		fmt.Sprintf("%.0f", of(func(m memory) float64 { return m.Stack })),
		fmt.Sprintf("%.2f", of(func(m memory) float64 { return m.Goroutines })),
	}
}
