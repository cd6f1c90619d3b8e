package main

import (
	"fmt"
	"slices"
)

// growth is what a process used in the first and in the last quarter of its samples, by their
// medians.
type growth struct {
	process     string
	samples     int
	first, last sample
}

// Nothing depends on how much a process uses, but what it uses must have an end. These bounds are
// far above what samples differ by.
const (
	growthFactor      = 2
	heapSlack         = 32 << 20
	goroutineSlack    = 200
	subscriptionSlack = 100
)

// enoughSamples is how many make a quarter worth comparing.
const enoughSamples = 16

func (p *processHistory) growth() (g growth, ok bool) {
	n := len(p.samples)
	if n < enoughSamples {
		return g, false
	}
	return growth{p.name, n, median(p.samples[:n/4]), median(p.samples[n-n/4:])}, true
}

func median(samples []*record) sample {
	of := func(value func(*sample) int64) int64 {
		var values []int64
		for _, r := range samples {
			values = append(values, value(r.Sample))
		}
		slices.Sort(values)
		return values[len(values)/2]
	}
	return sample{
		Heap:          of(func(s *sample) int64 { return s.Heap }),
		Goroutines:    int(of(func(s *sample) int64 { return int64(s.Goroutines) })),
		Subscriptions: int(of(func(s *sample) int64 { return int64(s.Subscriptions) })),
	}
}

// violations of a process that uses more and more.
func (g growth) violations() (out []string) {
	grows := func(what string, first, last, slack int64) {
		if last > growthFactor*first+slack {
			out = append(out, fmt.Sprintf("%s: %s grew from %d to %d", g.process, what, first, last))
		}
	}
	grows("memory", g.first.Heap, g.last.Heap, heapSlack)
	grows("goroutines", int64(g.first.Goroutines), int64(g.last.Goroutines), goroutineSlack)
	grows("subscriptions", int64(g.first.Subscriptions), int64(g.last.Subscriptions), subscriptionSlack)
	return out
}
