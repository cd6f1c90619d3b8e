package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/natscall/natscall/rpc"
)

// violation is a promise that was broken.
type violation struct {
	What    string
	Records []*record // of the call, or of the process

	draw func(dir string) (path string, err error) // makes a picture; nil for most
}

// evidence is the records of a scenario, sorted.
type evidence struct {
	calls     []*history
	processes map[string]*processHistory
	denied    []period // when Put was forbidden
}

// check returns the violations. It reads nothing but records, so that those of a failure can be
// checked again.
func (v evidence) check(x excuses) (out []violation) {
	for _, c := range v.calls {
		for _, what := range c.violations(v, x) {
			out = append(out, violation{What: what, Records: c.records})
		}
	}
	for _, p := range sorted(v.processes) {
		for _, what := range p.violations() {
			out = append(out, violation{What: what, Records: p.records})
		}
		if g, ok := p.growth(); ok {
			for _, what := range g.violations() {
				out = append(out, violation{What: what, Records: p.samples})
			}
		}
	}
	return append(out, checkHealing(v.calls, v.processes)...)
}

// history is the records of a call.
type history struct {
	id      string
	began   *record
	ended   []*record
	runs    []*record
	ran     map[string]*record // by execution
	records []*record          // all
}

// processHistory is the records of a process, but for those of calls and handlers.
type processHistory struct {
	name    string
	exits   *record
	stalls  []*record
	killed  *record
	samples []*record       // of what it uses
	open    map[string]bool // executions that have not ended
	records []*record
}

// collect sorts the records by call and by process.
func collect(all []record) (v evidence) {
	byID := map[string]*history{}
	v.processes = map[string]*processHistory{}
	for _, r := range inOrder(all) {
		p := v.processes[r.Process]
		if p == nil {
			p = &processHistory{name: r.Process, open: map[string]bool{}}
			v.processes[r.Process] = p
		}
		p.add(r)
		v.deny(r)
		if r.Kind != began && r.Kind != ended && r.Kind != run && r.Kind != ran {
			continue
		}
		c := byID[r.Call]
		if c == nil {
			c = &history{id: r.Call, ran: map[string]*record{}}
			byID[r.Call] = c
			v.calls = append(v.calls, c)
		}
		c.add(r)
	}
	return v
}

// deny notes when Put is forbidden and when that is over, and has been for long enough.
func (v *evidence) deny(r *record) {
	if r.Text != string(faultDeny) {
		return
	}
	switch last := len(v.denied) - 1; r.Kind {
	case fault:
		v.denied = append(v.denied, period{r.At, math.MaxInt64})
	case healed:
		v.denied[last].to = r.At.add(permissionLimit)
	}
}

// period is a time.
type period struct{ from, to instant }

func overlaps(periods []period, from, to instant) bool {
	return slices.ContainsFunc(periods, func(p period) bool { return from < p.to && p.from < to })
}

// inOrder sorts by time. An hour has millions of records, so none is copied.
func inOrder(all []record) []*record {
	out := make([]*record, len(all))
	for i := range all {
		out[i] = &all[i]
	}
	slices.SortStableFunc(out, func(a, b *record) int { return cmp.Compare(a.At, b.At) })
	return out
}

func sorted(processes map[string]*processHistory) (out []*processHistory) {
	for _, p := range processes {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *processHistory) int { return cmp.Compare(a.name, b.name) })
	return out
}

func (c *history) add(r *record) {
	c.records = append(c.records, r)
	switch r.Kind {
	case began:
		c.began = r
	case ended:
		c.ended = append(c.ended, r)
	case run:
		c.runs = append(c.runs, r)
	case ran:
		c.ran[r.Run] = r
	}
}

func (p *processHistory) add(r *record) {
	switch r.Kind {
	case began, ended:
		return
	case run:
		p.open[r.Run] = true
		return
	case ran:
		delete(p.open, r.Run)
		return
	case stalled:
		p.stalls = append(p.stalls, r)
		return
	case used:
		p.samples = append(p.samples, r)
		return
	case killed:
		p.killed = r
	case exits:
		p.exits = r
	}
	p.records = append(p.records, r)
}

// violations of a process: nothing is left at its end.
func (p *processHistory) violations() (out []string) {
	say := func(format string, args ...any) { out = append(out, p.name+": "+fmt.Sprintf(format, args...)) }
	for _, r := range p.records {
		switch {
		case r.Kind == stuck, r.Kind == died, r.Kind == silent:
			say("%s", r.Text)
		case r.Kind == left && r.Count > 0:
			say("%d calls are in flight, though all clients have gone", r.Count)
		case r.Kind == exits && r.Count > 0:
			say("%d goroutines are left", r.Count)
		}
	}
	if p.exits != nil && len(p.open) > 0 {
		say("%d handlers had not returned when it ended, such as %s", len(p.open), first(p.open))
	}
	return out
}

func first(names map[string]bool) (out string) {
	for name := range names {
		if out == "" || name < out {
			out = name
		}
	}
	return out
}

// violations of a call. What cannot be said without its beginning and end is left out where
// these are missing.
func (c *history) violations(v evidence, x excuses) (out []string) {
	say := func(format string, args ...any) { out = append(out, "call "+c.id+": "+fmt.Sprintf(format, args...)) }
	switch {
	case c.began == nil:
		say("a replica ran it, but nobody has made it")
		return out
	case len(c.ended) == 0:
		say("it has not ended")
	case len(c.ended) > 1:
		say("it has ended %d times", len(c.ended))
	}
	for _, r := range c.records {
		if r.Wrong != "" {
			say("the content is not its own: %s", r.Wrong)
		}
	}
	if len(c.runs) > 1 && !idempotent(c.began.Method) {
		say("it ran %d times, and may run once", len(c.runs))
	}
	for _, e := range c.ended {
		c.checkEnd(e, v, x, say)
	}
	return out
}

func idempotent(method string) bool {
	return method == methodPut || method == methodGet || method == methodRead
}

// sentAgain reports whether the calls of a method are sent again where they may have run.
func sentAgain(method string) bool { return idempotent(method) || method == methodPay }

func streams(method string) bool {
	return method == methodWatch || method == methodImport || method == methodTalk
}

type sayer func(format string, args ...any)

func (c *history) checkEnd(e *record, v evidence, x excuses, say sayer) {
	stalls := v.processes[e.Process].stalls
	if late := c.late(e, stalls); late > maxLate {
		say("it ended %v late", late)
	}
	switch {
	case e.Claim == rpc.ExecutionNotRun.String() && len(c.runs) > 0:
		say("its client says %q, but it ran", e.Claim)
	case e.Claim == rpc.ExecutionDidRun.String() && len(c.runs) == 0:
		say("its client says %q, but it did not", e.Claim)
	case e.Code == okCode && len(c.runs) == 0 && c.began.Method != methodNote:
		say("it succeeded, but did not run")
	}
	if e.Run != "" {
		c.checkAnswer(e, say)
	}
	if late := c.sinceDeath(e, v.processes) - deathLimit; late > 0 && !x.lateDeath {
		say("it ended %v after its replica was killed", late+deathLimit)
	}
	if !x.excuse(c.began, e, v.denied) {
		say("it was lost: %s (%s), which nothing that happened explains", e.Code, e.Claim)
	}
	if streams(c.began.Method) {
		c.checkStream(e, say)
	}
}

// checkAnswer checks the answer of an end that names the execution which it came from.
func (c *history) checkAnswer(e *record, say sayer) {
	h, returned := c.ran[e.Run]
	switch {
	case !slices.ContainsFunc(c.runs, func(r *record) bool { return r.Run == e.Run }):
		say("its answer is that of the execution %s, which is not one of its own", e.Run)
	case !returned:
		say("its answer is that of the execution %s, which has not returned", e.Run)
	case h.Code != e.Code:
		say("its client says that the handler ended with %s, but it ended with %s", e.Code, h.Code)
	}
}

// late is by how much a call ended late, without the time in which its process did not get to run.
func (c *history) late(e *record, stalls []*record) time.Duration {
	due := c.began.Deadline
	if e.GaveUp != 0 {
		due = min(due, e.GaveUp)
	}
	return ranFor(due, e.At, stalls)
}

// ranFor is how long a process with these stalls, in the order of their ends, ran from one time to
// another.
func ranFor(from, to instant, stalls []*record) time.Duration {
	d := to.since(from)
	if d <= 0 {
		return d
	}
	i, _ := slices.BinarySearchFunc(stalls, from, func(s *record, at instant) int { return cmp.Compare(s.At, at) })
	for _, s := range stalls[i:] {
		if s.Since < to {
			end := min(s.At, to)
			d -= max(0, end.since(max(s.Since, from)))
			from = max(from, end) // the next one may overlap this one
		}
		if s.At > to.add(maxStall) {
			break
		}
	}
	return d
}

// maxStall is longer than a process is stopped for.
const maxStall = 20 * time.Second

// sinceDeath is how long after its only replica was killed a call ended, without the time in which
// its client did not get to run; 0 if that did not happen. A method that may run twice is sent
// again.
func (c *history) sinceDeath(e *record, processes map[string]*processHistory) time.Duration {
	if len(c.runs) != 1 || sentAgain(c.began.Method) {
		return 0
	}
	r := c.runs[0]
	death := processes[r.Process].killed
	if _, returned := c.ran[r.Run]; returned || death == nil {
		return 0
	}
	return ranFor(death.At, e.At, processes[e.Process].stalls)
}

var (
	okCode          = rpc.CodeOK.String()
	abortedCode     = rpc.CodeAborted.String()
	canceledCode    = rpc.CodeCanceled.String()
	deadlineCode    = rpc.CodeDeadlineExceeded.String()
	unavailableCode = rpc.CodeUnavailable.String()
	dataLossCode    = rpc.CodeDataLoss.String()
	exhaustedCode   = rpc.CodeResourceExhausted.String()
	deniedCode      = rpc.CodePermissionDenied.String()
	lostCode        = rpc.CodeFailedPrecondition.String()
)

// excuse reports whether a call may have ended so. Put was denied in some periods.
func (x excuses) excuse(began, e *record, denied []period) bool {
	switch e.Code {
	case okCode, abortedCode: // the handler's own word
		return true
	case canceledCode:
		return e.GaveUp != 0
	case deadlineCode:
		return x.deadline || impatient(began)
	case exhaustedCode:
		again := x.idempotent && sentAgain(began.Method) // the last attempt was refused
		return x.exhausted && (e.Claim == rpc.ExecutionNotRun.String() || again)
	case deniedCode:
		return began.Method == methodPut && overlaps(denied, began.At, e.At)
	case dataLossCode:
		return x.dataLoss && streams(began.Method)
	case unavailableCode:
		switch {
		case e.Claim == rpc.ExecutionNotRun.String():
			return x.notRun || x.nobody && impatient(began)
		case sentAgain(began.Method):
			return x.idempotent
		}
		return x.unavailable
	case lostCode: // its instance has died, or stood still for longer than its lease
		return x.unavailable && began.Method == methodPay && e.Claim == rpc.ExecutionMayHaveRun.String()
	}
	return false
}

// impatient reports whether the caller's deadline is one that may pass whatever happens.
func impatient(began *record) bool { return began.Deadline.since(began.At) < impatience }
