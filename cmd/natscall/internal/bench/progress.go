package bench

import (
	"sync"
	"time"

	"github.com/jedib0t/go-pretty/v6/progress"

	"github.com/natscall/natscall/cmd/natscall/internal/output"
)

// meter shows how far a measurement is, on a terminal.
type meter struct {
	out     *output.Writer
	plan    *Plan
	writer  progress.Writer // nil until it has begun
	running sync.WaitGroup
	done    chan struct{}
}

// refresh is how often the bar moves.
const refresh = 200 * time.Millisecond

func newMeter(out *output.Writer, p *Plan) *meter {
	return &meter{out: out, plan: p, done: make(chan struct{})}
}

// begin shows the bar, if it is seen by somebody.
func (m *meter) begin(r *Recorder) {
	if !m.out.Moves() {
		return
	}
	tracker := &progress.Tracker{Message: "measuring", Total: int64(m.plan.Requests)}
	if m.plan.Requests == 0 {
		tracker.Total = m.plan.Duration.Milliseconds()
		tracker.Units = progress.Units{Formatter: func(ms int64) string {
			return (time.Duration(ms) * time.Millisecond).Round(100 * time.Millisecond).String()
		}}
	}
	m.writer = progress.NewWriter()
	m.writer.SetOutputWriter(m.out)
	m.writer.SetUpdateFrequency(refresh)
	m.fit(m.out.Width())
	m.writer.AppendTracker(tracker)
	m.running.Go(m.writer.Render)
	m.running.Go(func() { m.follow(r, tracker) })
}

// fit makes the line fit into a terminal: one that goes on in the next would stay there.
func (m *meter) fit(width int) {
	const texts, fewTexts = 64, 24 // beside the bar, at most
	style := m.writer.Style()
	style.Options.TimeInProgressPrecision, style.Options.TimeDonePrecision = refresh, refresh
	if style.Visibility.ETA = width >= texts+minBar; style.Visibility.ETA {
		m.writer.SetTrackerLength(min(barWidth, width-texts))
		return
	}
	style.Visibility.Time, style.Visibility.Value = false, false
	m.writer.SetTrackerLength(max(minBar, min(barWidth, width-fewTexts)))
}

// minBar is how long a bar is at least, so that it is seen to move.
const minBar = 8

// follow moves the bar until the measurement ends.
func (m *meter) follow(r *Recorder, tracker *progress.Tracker) {
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	start := time.Now()
	for {
		select {
		case <-m.done:
			tracker.MarkAsDone()
			m.writer.Stop()
			return
		case <-tick.C:
			if m.plan.Requests > 0 {
				tracker.SetValue(r.Calls())
			} else {
				tracker.SetValue(time.Since(start).Milliseconds())
			}
		}
	}
}

// end waits until the bar has been drawn for the last time.
func (m *meter) end() {
	close(m.done)
	m.running.Wait()
}
