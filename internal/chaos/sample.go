package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"time"

	"github.com/nats-io/nats.go"
)

// sample is what a process uses at a time.
type sample struct {
	Heap          int64 `json:"heap"` // live bytes; of a node, its memory as the system sees it
	Goroutines    int   `json:"goroutines,omitempty"`
	Subscriptions int   `json:"subscriptions"`
}

// sampleTime is how often processes say what they use in a time: every ten seconds, and more often
// where that would be less than forty times.
func sampleTime(length time.Duration) time.Duration { return min(10*time.Second, length/40) }

// watchUse records what this process uses, until ctx ends.
func watchUse(ctx context.Context, every time.Duration, nc *nats.Conn, j *journal) {
	for every > 0 && sleep(ctx, every) == nil {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		j.write(record{Kind: used, Sample: &sample{int64(m.HeapAlloc), runtime.NumGoroutine(), nc.NumSubscriptions()}})
	}
}

// use asks a node what it uses.
func (n *node) use(ctx context.Context) (s sample, err error) {
	var answer struct {
		Memory        int64 `json:"mem"`
		Subscriptions int   `json:"subscriptions"`
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.monitor+"/varz", nil)
	if err != nil {
		return s, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return s, fmt.Errorf("%s: %w", n.name, err)
	}
	defer res.Body.Close()
	err = json.NewDecoder(res.Body).Decode(&answer)
	return sample{Heap: answer.Memory, Subscriptions: answer.Subscriptions}, err
}

// soak lets clients call for a time, in which nothing happens.
func soak(length time.Duration) func(context.Context, *site) error {
	return func(ctx context.Context, t *site) error {
		for end := time.Now().Add(length); time.Now().Before(end); {
			if err := sleep(ctx, t.scenario.sample); err != nil {
				return err
			}
			for _, n := range t.nodes {
				s, err := n.use(ctx)
				if err != nil {
					return err
				}
				t.j.write(record{Kind: used, Process: n.name, Sample: &s})
			}
		}
		return nil
	}
}
