package bench

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/natscall/natscall/rpc"
)

// The latencies that the histogram tells apart: up to an hour, within a thousandth.
const (
	maxLatency = time.Hour
	digits     = 3
)

// Recorder counts calls. It may be used concurrently.
type Recorder struct {
	calls, cut     atomic.Int64
	sent, received traffic

	mu     sync.Mutex
	times  *hdrhistogram.Histogram // in nanoseconds
	errors map[rpc.Code]*ErrorCount
}

// traffic is what went in one direction.
type traffic struct{ messages, bytes atomic.Int64 }

func (t *traffic) add(size int) {
	t.messages.Add(1)
	t.bytes.Add(int64(size))
}

// ErrorCount is how many calls have ended with a code.
type ErrorCount struct {
	Code    rpc.Code `json:"code"`
	Count   int64    `json:"count"`
	Example string   `json:"example"` // the message of the first one
}

// NewRecorder returns a Recorder that has counted nothing.
func NewRecorder() *Recorder {
	return &Recorder{times: hdrhistogram.New(1, int64(maxLatency), digits), errors: map[rpc.Code]*ErrorCount{}}
}

// Latency records how long a call took.
func (r *Recorder) Latency(d time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.times.RecordValue(int64(min(max(d, 1), maxLatency))) // fails beyond its bounds only
}

// Received counts a message of a server.
func (r *Recorder) Received(size int) { r.received.add(size) }

// Sent counts a message of a client's stream.
func (r *Recorder) Sent(size int) { r.sent.add(size) }

// Call counts a call that has ended, with its error or nil.
func (r *Recorder) Call(err error) {
	r.calls.Add(1)
	if err == nil {
		return
	}
	code := rpc.CodeOf(err)
	r.mu.Lock()
	defer r.mu.Unlock()
	count := r.errors[code]
	if count == nil {
		count = &ErrorCount{Code: code, Example: err.Error()}
		r.errors[code] = count
	}
	count.Count++
}

// CutOff counts a call that the end of the measurement has cut off.
func (r *Recorder) CutOff() { r.cut.Add(1) }

// Calls returns how many calls have ended.
func (r *Recorder) Calls() int64 { return r.calls.Load() }
