package show

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/natscall/natscall/cmd/natscall/internal/discover"
)

// data is what a natscall service adds to the statistics of a method; docs/protocol.md has it.
type data struct {
	InFlight int64            `json:"in_flight"`
	Queued   int64            `json:"queued"`
	Shed     int64            `json:"shed"`
	P50      float64          `json:"p50_ms"`
	P99      float64          `json:"p99_ms"`
	Codes    map[string]int64 `json:"codes"`
	Health   string           `json:"health"`
	Reason   string           `json:"health_reason"`
}

func dataOf(e *micro.EndpointStats) data {
	var d data
	_ = json.Unmarshal(e.Data, &d) // a service of another kind may have anything there
	return d
}

// process is an instance of a service, with the numbers of all of its methods together.
type process struct {
	Service  string    `json:"service"`
	Instance string    `json:"instance"`
	Version  string    `json:"version"`
	Schema   string    `json:"schema,omitempty"`
	Health   string    `json:"health,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Load     float64   `json:"load"` // how many handlers were running, on average
	Rate     float64   `json:"requests_per_second"`
	Now      activity  `json:"now"`
	Total    totals    `json:"total"`
	Silent   bool      `json:"no_statistics,omitempty"` // it has not said what it does
	Prefix   string    `json:"prefix,omitempty"`
	root     string
}

// activity is what an instance does now, and how long its slowest method takes.
type activity struct {
	InFlight int64   `json:"in_flight"`
	Queued   int64   `json:"queued"`
	P50      float64 `json:"p50_ms"`
	P99      float64 `json:"p99_ms"`
}

// totals are numbers since the instance has started.
type totals struct {
	Requests int64         `json:"requests"`
	Errors   int64         `json:"errors"`
	Shed     int64         `json:"shed"`
	Busy     time.Duration `json:"handler_time_ns"`
}

func (t totals) minus(u totals) totals {
	return totals{t.Requests - u.Requests, t.Errors - u.Errors, t.Shed - u.Shed, t.Busy - u.Busy}
}

// errorRate returns how many of the requests have failed, in percent.
func (t totals) errorRate() float64 {
	if t.Requests == 0 {
		return 0
	}
	return 100 * float64(t.Errors) / float64(t.Requests)
}

// processIn returns an instance without numbers.
func processIn(s *discover.Service, i discover.Instance) process {
	p := process{Service: s.Name, Prefix: s.Prefix(), root: s.Root, Instance: i.ID, Version: i.Version, Schema: i.Schema, Silent: true}
	if i.NotServing != "" {
		p.Health, p.Reason = notServing, i.NotServing
	}
	return p
}

// key tells the service from those of the same name under another prefix.
func (p *process) key() string { return keyOf(p.Service, p.Prefix) }

// add adds up what an instance says of its methods.
func (p *process) add(stats micro.Stats, now time.Time) {
	p.Silent, p.Started = false, stats.Started
	said, why := p.Health, p.Reason
	for _, e := range stats.Endpoints {
		d := dataOf(e)
		p.Now.InFlight += d.InFlight
		p.Now.Queued += d.Queued
		p.Now.P50, p.Now.P99 = max(p.Now.P50, d.P50), max(p.Now.P99, d.P99)
		p.Total = totals{p.Total.Requests + int64(e.NumRequests), p.Total.Errors + int64(e.NumErrors), p.Total.Shed + d.Shed, p.Total.Busy + e.ProcessingTime}
		p.Health, p.Reason = d.Health, d.Reason
	}
	if said != "" {
		p.Health, p.Reason = said, why
	}
	p.rate(p.Total, now.Sub(stats.Started))
}

// rate computes what follows from the numbers of some time.
func (p *process) rate(t totals, in time.Duration) {
	if in > 0 {
		p.Rate, p.Load = float64(t.Requests)/in.Seconds(), t.Busy.Seconds()/in.Seconds()
	}
}

// milliseconds returns a duration as people read it.
func milliseconds(ms float64) string {
	switch {
	case ms == 0:
		return "-"
	case ms < 10:
		return fmt.Sprintf("%.2fms", ms)
	case ms < 1000:
		return fmt.Sprintf("%.0fms", ms)
	}
	return fmt.Sprintf("%.1fs", ms/1000)
}

// since returns a time ago as people read it.
func since(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(max(d, 0).Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%dh", int(d.Hours())/24, int(d.Hours())%24)
}

// codes returns how many calls have ended with which code, without those that have succeeded.
func codes(of map[string]int64) string {
	var out []string
	for _, code := range slices.Sorted(maps.Keys(of)) {
		if code != "ok" {
			out = append(out, fmt.Sprintf("%s %d", code, of[code]))
		}
	}
	return strings.Join(out, ", ")
}
