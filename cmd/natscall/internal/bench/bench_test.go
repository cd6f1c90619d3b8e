package bench

import (
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/jedib0t/go-pretty/v6/text"

	"github.com/natscall/natscall/cmd/natscall/internal/output"
	"github.com/natscall/natscall/rpc"
)

// patience is how long a test waits for what has to happen.
const patience = 30 * time.Second

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// TestRequests: as many calls are made as were asked for, each with its number, and never more at a
// time than there may be.
func TestRequests(t *testing.T) {
	for name, plan := range map[string]Plan{
		"closed":             {Concurrency: 4, Requests: 100},
		"one at a time":      {Concurrency: 1, Requests: 10},
		"fewer than at once": {Concurrency: 64, Requests: 3},
		"open":               {Concurrency: 8, Requests: 50, Rate: 1e6},
	} {
		t.Run(name, func(t *testing.T) {
			var running, most, sum atomic.Int64
			load := Load{Call: func(_ context.Context, number int64, m Messages) error {
				n := running.Add(1)
				defer running.Add(-1)
				for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
				}
				sum.Add(number)
				m.Received(10)
				if number == 2 {
					return rpc.NewError(rpc.CodeNotFound, "no such thing")
				}
				return nil
			}}
			r := Run(testContext(t), &plan, load, nil)
			n := int64(plan.Requests)
			if r.Calls != n || r.Messages != n || r.Bytes != 10*n || sum.Load() != n*(n-1)/2 {
				t.Errorf("%d calls, %d messages, %d bytes, sum of numbers %d", r.Calls, r.Messages, r.Bytes, sum.Load())
			}
			if r.Failed != 1 || len(r.Errors) != 1 || r.Errors[0].Code != rpc.CodeNotFound || r.Errors[0].Count != 1 {
				t.Errorf("errors: %+v", r.Errors)
			}
			if got := most.Load(); got > int64(plan.Concurrency) {
				t.Errorf("%d calls ran at a time", got)
			}
			if r.Interrupted || r.CutOff != 0 || r.NotBegun != 0 {
				t.Errorf("%+v", r)
			}
		})
	}
}

// TestInterrupted: the end of the context ends the calls, which are no errors.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(testContext(t))
	load := Load{Call: func(ctx context.Context, number int64, _ Messages) error {
		if number == 3 {
			cancel()
		}
		if number >= 2 {
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}}
	r := Run(ctx, &Plan{Concurrency: 2, Requests: 1000}, load, nil)
	if !r.Interrupted || r.Calls != 2 || r.CutOff != 2 || r.Failed != 0 {
		t.Errorf("%+v", r)
	}
}

// TestStreams: when the time is up streams end, whose messages count, and other calls do not. They
// have no deadline, at which a service may end them with an error.
func TestStreams(t *testing.T) {
	for _, stream := range []bool{true, false} {
		load := Load{Stream: stream, Call: func(ctx context.Context, _ int64, m Messages) error {
			m.Received(1)
			m.Received(2)
			if _, has := ctx.Deadline(); has {
				t.Error("a call has a deadline")
			}
			if stream {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}}
		r := Run(t.Context(), &Plan{Concurrency: 3, Duration: time.Millisecond}, load, nil)
		if stream && (r.Calls != 0 || r.CutOff > 3 || r.Messages != 2*r.CutOff || r.Bytes != 3*r.CutOff || r.Interrupted) {
			t.Errorf("streams: %+v", r)
		}
		if !stream && (r.Messages != 2*r.Calls || r.CutOff != 0) {
			t.Errorf("unary: %+v", r)
		}
	}
}

// TestIntended: the latency of a call that begins late counts from when it should have begun.
func TestIntended(t *testing.T) {
	release := make(chan struct{})
	var calls atomic.Int64
	load := Load{Call: func(_ context.Context, number int64, _ Messages) error {
		calls.Add(1)
		if number == 0 {
			<-release // all others wait behind this one
		}
		return nil
	}}
	r := &run{plan: &Plan{Concurrency: 1, Rate: 1e6, Requests: 3}, load: load, recorder: NewRecorder()}
	r.start = time.Now().Add(-time.Hour / 2) // so the calls are half an hour late
	close(release)
	r.work(t.Context(), t.Context())
	if got := r.recorder.Result(r.plan, time.Second); calls.Load() != 3 || got.Latency.Min < float64(time.Hour/2/time.Millisecond)*0.99 {
		t.Errorf("%d calls, the fastest took %v ms", calls.Load(), got.Latency.Min)
	}
}

// TestSeldom: however seldom calls are to begin, one does not begin before another.
func TestSeldom(t *testing.T) {
	for _, rate := range []float64{1e-3, 1e-10, 1e-300} {
		p := Plan{Rate: rate}
		if first, second, third := p.intended(0), p.intended(1), p.intended(2); first != 0 || second <= first || third < second {
			t.Errorf("%v calls a second begin after %v, %v and %v", rate, first, second, third)
		}
	}
}

// TestNotBegun: what a rate asks for and does not happen is counted.
func TestNotBegun(t *testing.T) {
	for name, test := range map[string]struct {
		plan  Plan
		took  time.Duration
		begun int64
		want  int64
	}{
		"reached":        {Plan{Rate: 10, Duration: time.Second}, time.Second, 10, 0},
		"too slow":       {Plan{Rate: 10, Duration: time.Second}, 2 * time.Second, 7, 3},
		"interrupted":    {Plan{Rate: 10, Duration: time.Minute}, time.Second, 10, 0},
		"all requests":   {Plan{Rate: 10, Requests: 5}, time.Minute, 5, 0},
		"some are more":  {Plan{Rate: 10, Duration: time.Second}, time.Second, 11, 0},
		"requests, slow": {Plan{Rate: 10, Requests: 100, Duration: time.Second}, time.Second, 4, 6},
	} {
		r := &run{plan: &test.plan}
		r.begun.Store(test.begun)
		if got := r.notBegun(test.took); got != test.want {
			t.Errorf("%s: %d", name, got)
		}
	}
}

// TestWarmup: the calls before the measurement are made, and not counted.
func TestWarmup(t *testing.T) {
	warm, measured := false, false
	load := Load{Call: func(context.Context, int64, Messages) error {
		if warm = true; measured {
			return nil
		}
		return errors.New("of the warm-up")
	}}
	r := Run(testContext(t), &Plan{Concurrency: 1, Requests: 5, Warmup: time.Millisecond}, load, func(*Recorder) { measured = true })
	if !warm || r.Calls != 5 || r.Failed != 0 {
		t.Errorf("%+v", r)
	}
}

// TestFieldsOfPage: docs/tool.md names what --json and --csv write, of which lists are never null.
func TestFieldsOfPage(t *testing.T) {
	page, err := os.ReadFile("../../../../docs/tool.md")
	if err != nil {
		t.Fatal(err)
	}
	r := NewRecorder().Result(&Plan{}, 0)
	data, err := json.Marshal(r)
	if err != nil || !strings.Contains(string(data), `"histogram":[]`) {
		t.Errorf("%s, %v", data, err)
	}
	var table strings.Builder
	if err := r.WriteCSV(&table); err != nil {
		t.Fatal(err)
	}
	names := strings.Split(strings.TrimSpace(table.String()), ",")
	for _, of := range []reflect.Type{reflect.TypeFor[Result](), reflect.TypeFor[Traffic]()} {
		for _, field := range reflect.VisibleFields(of) {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			names = append(names, name)
		}
	}
	for _, name := range names {
		if name != "" && !strings.Contains(string(page), "`"+name+"`") {
			t.Errorf("the page does not name %s", name)
		}
	}
}

func TestCheck(t *testing.T) {
	for name, test := range map[string]struct {
		plan Plan
		want string
	}{
		"good":          {Plan{Concurrency: 1, Requests: 1}, ""},
		"nobody":        {Plan{Requests: 1}, "--concurrency 0"},
		"negative rate": {Plan{Concurrency: 1, Rate: -1, Requests: 1}, "--rate -1"},
		"negative time": {Plan{Concurrency: 1, Duration: -1}, "--duration -1ns"},
		"negative":      {Plan{Concurrency: 1, Requests: -1}, "--requests -1"},
		"warm-up":       {Plan{Concurrency: 1, Requests: 1, Warmup: -1}, "--warmup -1ns"},
		"endless":       {Plan{Concurrency: 1}, "has to say when to end"},
	} {
		err := test.plan.Check()
		if (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBins: every latency is in one bin, whose bounds are around it, and the bins fit on a screen.
func TestBins(t *testing.T) {
	for name, values := range map[string][]time.Duration{
		"one":    {time.Millisecond},
		"same":   {5, 5, 5},
		"narrow": {1000 * time.Microsecond, 1100 * time.Microsecond, 1300 * time.Microsecond},
		"wide":   {1, time.Microsecond, time.Millisecond, time.Second, time.Hour},
		"tail":   {time.Millisecond, 2 * time.Millisecond, 2 * time.Millisecond, 900 * time.Millisecond},
		"none":   nil,
	} {
		h := hdrhistogram.New(1, int64(maxLatency), digits)
		for _, v := range values {
			if err := h.RecordValue(int64(v)); err != nil {
				t.Fatal(err)
			}
		}
		bins := bins(h)
		count := int64(0)
		for i, bin := range bins {
			if count += bin.Count; bin.From >= bin.To || i > 0 && bin.From != bins[i-1].To {
				t.Errorf("%s: bin %d is %+v", name, i, bin)
			}
		}
		if count != int64(len(values)) || len(bins) > maxBins {
			t.Errorf("%s: %d values in %d bins: %+v", name, count, len(bins), bins)
		}
		if n := len(bins); n > 0 && (bins[0].Count == 0 || bins[n-1].Count == 0) {
			t.Errorf("%s: empty at its end: %+v", name, bins)
		}
	}
}

// TestCSV: the rows add up.
func TestCSV(t *testing.T) {
	r := NewRecorder()
	for i := range 100 {
		r.Latency(time.Duration(i+1) * time.Millisecond)
	}
	var out strings.Builder
	if err := r.Result(&Plan{Concurrency: 1}, time.Second).WriteCSV(&out); err != nil {
		t.Fatal(err)
	}
	rows, err := csv.NewReader(strings.NewReader(out.String())).ReadAll()
	if err != nil || len(rows) != 101 || strings.Join(rows[0], " ") != "latency_ms count percentile" || rows[100][2] != "100.0000" {
		t.Errorf("%d rows, %v: %v", len(rows), err, rows)
	}
}

// terminal is what a bar is drawn on.
type terminal struct {
	columns int
	drawn   chan struct{} // closed when the bar has moved; may be nil
	mu      sync.Mutex
	text    strings.Builder
}

func (s *terminal) Size() (width, height int) { return s.columns, 24 }

func (s *terminal) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drawn != nil && strings.Contains(string(p), "90.00%") && !strings.Contains(s.text.String(), "90.00%") {
		close(s.drawn)
	}
	return s.text.Write(p)
}

// TestWidth: neither the bar nor the histogram is wider than the terminal.
func TestWidth(t *testing.T) {
	t.Setenv("TERM", "xterm")
	for _, columns := range []int{42, 60, 80, 100, 200} {
		screen, plan := &terminal{columns: columns, drawn: make(chan struct{})}, &Plan{Concurrency: 1, Requests: 10}
		out := output.New(screen)
		m := newMeter(out, plan)
		result := Run(testContext(t), plan, Load{Call: func(ctx context.Context, number int64, _ Messages) error {
			if number == 9 { // the bar has to be drawn before
				select {
				case <-screen.drawn:
				case <-ctx.Done():
				}
			}
			return nil
		}}, m.begin)
		m.end()
		if err := result.WriteText(out); err != nil {
			t.Fatal(err)
		}
		checked := 0
		for line := range strings.Lines(screen.text.String()) {
			if line = strings.TrimRight(line, "\r\n"); !strings.Contains(line, "measuring") && !strings.Contains(line, "█") {
				continue
			}
			if checked++; text.StringWidthWithoutEscSequences(line) > columns {
				t.Errorf("a line is wider than %d columns: %q", columns, line)
			}
		}
		if checked < 3 {
			t.Errorf("%d columns: there are no bars in %q", columns, screen.text.String())
		}
	}
}

// TestMeter: the bar is drawn on a terminal only, and is done when the measurement is.
func TestMeter(t *testing.T) {
	t.Setenv("TERM", "xterm")
	for name, plan := range map[string]*Plan{"calls": {Concurrency: 1, Requests: 3}, "time": {Concurrency: 1, Duration: time.Nanosecond}} {
		screen, file := &terminal{columns: 80}, new(strings.Builder)
		for _, out := range []io.Writer{screen, file} {
			m := newMeter(output.New(out), plan)
			Run(testContext(t), plan, Load{Call: func(context.Context, int64, Messages) error { return nil }}, m.begin)
			m.end()
		}
		if !strings.Contains(screen.text.String(), "measuring") || file.Len() > 0 {
			t.Errorf("%s: the terminal shows %q, a file has %q", name, screen.text.String(), file)
		}
	}
}
