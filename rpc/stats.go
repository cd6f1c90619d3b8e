package rpc

import (
	"encoding/json"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/micro"

	"github.com/natscall/natscall/rpc/internal/admission"
	"github.com/natscall/natscall/rpc/internal/buckets"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// endpointStats counts the requests of an endpoint. A request is counted before its answer is sent,
// so a caller that has its answer finds the call in the statistics.
type endpointStats struct {
	shed      [len(shedNames)]atomic.Int64 // by admission.Reason
	time      atomic.Int64                 // of all handlers, in nanoseconds
	lastError atomic.Pointer[string]
	codes     [len(codeNames)]atomic.Int64 // their sum is the number of requests
	times     histogram                    // of handlers
	waits     histogram                    // in the queue, of calls that found no free slot
}

// shedNames are the reasons for which requests are refused under load.
var shedNames = [...]string{
	admission.QueueFull: "queue", admission.MethodFull: "method", admission.Hopeless: "deadline", admission.Late: "late",
}

// count counts a request that is about to be answered; err is nil for success.
func (s *endpointStats) count(err *Error, took time.Duration) {
	s.time.Add(int64(took))
	s.times.add(took)
	s.countRefused(err)
}

// countRefused counts a request that is answered without its handler's result. It has no handler
// time.
func (s *endpointStats) countRefused(err *Error) {
	code := CodeOK
	if err != nil {
		code = err.code
		// Shortened to one line, like the header that NATS tools read: several long texts would
		// make STATS larger than max_payload.
		text := strconv.Itoa(int(err.code)) + ":" + wire.ErrorText(err.code.String(), err.message)
		s.lastError.Store(&text)
	}
	s.codes[code].Add(1)
}

// requests returns how many requests have been counted, and how many of them ended with an error.
func (s *endpointStats) requests() (requests, errors int64) {
	for code := range s.codes {
		if code != int(CodeOK) {
			errors += s.codes[code].Load()
		}
	}
	return errors + s.codes[CodeOK].Load(), errors
}

// endpointData is the `data` of an endpoint in STATS: the numbers for which micro has no field.
type endpointData struct {
	InFlight int64            `json:"in_flight"`
	Queued   int64            `json:"queued"`
	Shed     int64            `json:"shed"`
	ShedBy   map[string]int64 `json:"shed_by"`
	P50      float64          `json:"p50_ms"`
	P99      float64          `json:"p99_ms"`
	QueueP50 float64          `json:"queue_p50_ms"`
	QueueP99 float64          `json:"queue_p99_ms"`
	Mean     float64          `json:"estimate_ms"`
	Codes    map[string]int64 `json:"codes"`
	Refused  int64            `json:"answers_refused"` // by NATS: those of the whole server
	Health   string           `json:"health"`          // of the instance
	Reason   string           `json:"health_reason,omitempty"`
}

// endpointLoad is what an endpoint does now.
type endpointLoad struct {
	inFlight, queued int64 // calls that have not ended
	estimate         time.Duration
	answersRefused   int64 // of the server
	health           Health
}

func (s *endpointStats) data(load endpointLoad) json.RawMessage {
	d := endpointData{
		InFlight: load.inFlight, Queued: load.queued,
		P50: milliseconds(s.times.quantile(0.50)), P99: milliseconds(s.times.quantile(0.99)),
		QueueP50: milliseconds(s.waits.quantile(0.50)), QueueP99: milliseconds(s.waits.quantile(0.99)),
		Mean: milliseconds(load.estimate), Refused: load.answersRefused,
		Codes: map[string]int64{}, ShedBy: map[string]int64{},
		Health: load.health.status(), Reason: load.health.Reason,
	}
	for reason := range s.shed {
		if n := s.shed[reason].Load(); n > 0 {
			d.Shed += n
			d.ShedBy[shedNames[reason]] = n
		}
	}
	for code := range s.codes {
		if n := s.codes[code].Load(); n > 0 {
			d.Codes[Code(code).String()] = n
		}
	}
	b, _ := json.Marshal(d) // of numbers and strings: cannot fail
	return b
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// snapshot fills in micro's own structure.
func (s *endpointStats) snapshot(out *micro.EndpointStats, load endpointLoad) {
	requests, errors := s.requests()
	out.NumRequests = int(requests)
	out.NumErrors = int(errors)
	out.ProcessingTime = time.Duration(s.time.Load())
	if requests > 0 {
		out.AverageProcessingTime = out.ProcessingTime / time.Duration(requests)
	}
	if text := s.lastError.Load(); text != nil {
		out.LastError = *text
	}
	out.Data = s.data(load)
}

// histogram counts durations from a microsecond to an hour, without locks, in buckets that are an
// eighth of their value wide.
type histogram struct {
	// buckets are made by the first duration, since many endpoints are never called.
	buckets atomic.Pointer[[buckets.Count]atomic.Uint64]
}

func (h *histogram) add(d time.Duration) {
	b := h.buckets.Load()
	if b == nil {
		h.buckets.CompareAndSwap(nil, new([buckets.Count]atomic.Uint64))
		b = h.buckets.Load()
	}
	b[buckets.Of(d)].Add(1)
}

// quantile returns the duration below which the fraction q of all durations lies.
func (h *histogram) quantile(q float64) time.Duration {
	b := h.buckets.Load()
	if b == nil {
		return 0
	}
	var total, seen uint64
	for i := range b {
		total += b[i].Load()
	}
	want := uint64(q * float64(total))
	for i := range b {
		if seen += b[i].Load(); seen > want {
			return buckets.Middle(i)
		}
	}
	return buckets.Middle(buckets.Count - 1)
}
