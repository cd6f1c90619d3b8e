// Package bench measures a method: it calls it with a fixed rate or with a fixed number of calls at
// a time, and says how long the calls took.
package bench

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Plan says what is called, how often and for how long.
type Plan struct {
	Concurrency int           // calls at a time; with a rate, at most
	Rate        float64       // calls a second; 0 begins a call when another ends
	Duration    time.Duration // 0 is no limit
	Requests    int           // 0 is no limit
	Warmup      time.Duration // calls before the measurement, which do not count
	Messages    int           // that a stream sends; 0 where calls send one request
}

// maxConcurrency is far more than a client gains from.
const maxConcurrency = 1 << 16

// Check returns what is wrong with a plan.
func (p *Plan) Check() error {
	switch {
	case p.Concurrency < 1 || p.Concurrency > maxConcurrency:
		return fmt.Errorf("--concurrency %d: between 1 and %d calls at a time", p.Concurrency, maxConcurrency)
	case p.Rate < 0 || math.IsNaN(p.Rate) || p.Rate > 1e9:
		return fmt.Errorf("--rate %v: between 0 and 1,000,000,000 calls a second", p.Rate)
	case p.Duration < 0:
		return fmt.Errorf("--duration %v: it is negative", p.Duration)
	case p.Requests < 0:
		return fmt.Errorf("--requests %d: it is negative", p.Requests)
	case p.Warmup < 0:
		return fmt.Errorf("--warmup %v: it is negative", p.Warmup)
	case p.Messages < 0:
		return fmt.Errorf("--messages %d: it is negative", p.Messages)
	case p.Duration == 0 && p.Requests == 0:
		return errors.New("--duration or --requests has to say when to end")
	}
	return nil
}

// String describes the plan.
func (p *Plan) String() string {
	text := fmt.Sprintf("%d at a time", p.Concurrency)
	if p.Rate > 0 {
		text = fmt.Sprintf("%g a second, at most %d at a time", p.Rate, p.Concurrency)
	}
	if p.Messages > 0 {
		text += fmt.Sprintf(", each sending %d", p.Messages)
	}
	switch {
	case p.Requests > 0 && p.Duration > 0:
		text += fmt.Sprintf(", %d calls or %v", p.Requests, p.Duration)
	case p.Requests > 0:
		text += fmt.Sprintf(", %d calls", p.Requests)
	default:
		text += fmt.Sprintf(", for %v", p.Duration)
	}
	if p.Warmup > 0 {
		text += fmt.Sprintf(", after a warm-up of %v", p.Warmup)
	}
	return text
}

// warmup is the plan of the calls before the measurement.
func (p *Plan) warmup() *Plan {
	return &Plan{Concurrency: p.Concurrency, Rate: p.Rate, Duration: p.Warmup}
}

// intended returns when the call of a number has to begin, after the start of all.
func (p *Plan) intended(number int64) time.Duration {
	return time.Duration(float64(number) * float64(time.Second) / p.Rate)
}
