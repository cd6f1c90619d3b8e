package bench

import (
	"cmp"
	"encoding/csv"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Result is what was measured.
type Result struct {
	Method      string  `json:"method"`
	Plan        string  `json:"plan"`
	Stream      bool    `json:"stream,omitempty"`
	sends       bool    // in streams
	Took        Seconds `json:"seconds"`
	Interrupted bool    `json:"interrupted,omitempty"`
	Calls       int64   `json:"calls"`               // that have ended
	Failed      int64   `json:"failed"`              // of these
	CutOff      int64   `json:"cut_off,omitempty"`   // by the end of the measurement
	NotBegun    int64   `json:"not_begun,omitempty"` // though the rate asked for them
	Traffic
	Latency   Latencies     `json:"latency_ms"`
	Histogram []Bin         `json:"histogram"`
	Errors    []*ErrorCount `json:"errors,omitempty"`
	times     *hdrhistogram.Histogram
}

// Traffic are the messages. Those that are sent are counted for streams only: other calls send one.
type Traffic struct {
	Messages  int64 `json:"messages"` // that came
	Bytes     int64 `json:"bytes"`    // in them
	Sent      int64 `json:"messages_sent,omitempty"`
	SentBytes int64 `json:"bytes_sent,omitempty"`
}

// Seconds is a duration that JSON has in seconds.
type Seconds time.Duration

// MarshalJSON returns the seconds.
func (s Seconds) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, time.Duration(s).Seconds(), 'f', 6, 64), nil
}

// Latencies are how long the calls took that have succeeded, or until the first message of streams
// that only receive, in milliseconds.
type Latencies struct {
	Min  float64 `json:"min"`
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P75  float64 `json:"p75"`
	P90  float64 `json:"p90"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99_9"`
	Max  float64 `json:"max"`
}

// Bin is how many calls took between two durations, in milliseconds.
type Bin struct {
	From  float64 `json:"from_ms"`
	To    float64 `json:"to_ms"`
	Count int64   `json:"count"`
}

// Result returns what has been counted, in a time.
func (r *Recorder) Result(p *Plan, took time.Duration) *Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := &Result{
		Plan: p.String(), Took: Seconds(took), Calls: r.calls.Load(), CutOff: r.cut.Load(),
		Traffic: Traffic{r.received.messages.Load(), r.received.bytes.Load(), r.sent.messages.Load(), r.sent.bytes.Load()}, times: r.times,
	}
	out.Errors = slices.SortedFunc(maps.Values(r.errors), func(a, b *ErrorCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Code, b.Code))
	})
	for _, e := range out.Errors {
		out.Failed += e.Count
	}
	if r.times.TotalCount() > 0 {
		out.Latency = latencies(r.times)
	}
	out.Histogram = append([]Bin{}, bins(r.times)...) // never null in JSON
	return out
}

func latencies(h *hdrhistogram.Histogram) Latencies {
	at := func(percent float64) float64 { return millis(h.ValueAtPercentile(percent)) }
	return Latencies{
		Min: millis(h.Min()), Mean: h.Mean() / float64(time.Millisecond), P50: at(50), P75: at(75), P90: at(90), P95: at(95),
		P99: at(99), P999: at(99.9), Max: millis(h.Max()),
	}
}

func millis(nanos int64) float64 { return float64(nanos) / float64(time.Millisecond) }

// PerSecond returns a number as a rate.
func (r *Result) PerSecond(n int64) float64 {
	if r.Took <= 0 {
		return 0
	}
	return float64(n) / time.Duration(r.Took).Seconds()
}

// WriteCSV writes the latencies as a distribution: a row for each that occurred, within a
// thousandth, with how many calls took so long and how many percent took no longer.
func (r *Result) WriteCSV(w io.Writer) error {
	out := csv.NewWriter(w)
	// Error reports what goes wrong with any of the rows.
	_ = out.Write([]string{"latency_ms", "count", "percentile"})
	sum, total := int64(0), r.times.TotalCount()
	for _, bar := range r.times.Distribution() {
		if bar.Count == 0 {
			continue
		}
		sum += bar.Count
		percentile := 100 * float64(sum) / float64(total)
		_ = out.Write([]string{decimal(millis(bar.To), 6), strconv.FormatInt(bar.Count, 10), decimal(percentile, 4)})
	}
	out.Flush()
	return out.Error()
}

func decimal(f float64, digits int) string { return strconv.FormatFloat(f, 'f', digits, 64) }
