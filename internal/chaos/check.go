package main

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/natscall/natscall/rpc"
)

// maxLate is by how much a call may end after its deadline, or after its caller has canceled.
const maxLate = 100 * time.Millisecond

// violation is a promise that was broken.
type violation struct {
	What    string
	Records []record // of the call, or of the process
}

// check returns the violations of a scenario's records. It reads nothing else, so that the
// records of a failure can be checked again.
func check(all []record, x excuses) (out []violation) {
	calls, processes := histories(all)
	for _, c := range calls {
		for _, what := range c.violations(processes, x) {
			out = append(out, violation{what, c.records})
		}
	}
	for _, p := range sorted(processes) {
		for _, what := range p.violations() {
			out = append(out, violation{what, p.records})
		}
	}
	return append(out, checkHealing(calls, processes)...)
}

// history is the records of a call.
type history struct {
	id      string
	began   *record
	ended   []record
	runs    []record
	ran     map[string]record // by execution
	records []record          // all
}

// processHistory is the records of a process, but for those of calls and handlers.
type processHistory struct {
	name    string
	exits   *record
	stalls  []record
	open    map[string]bool // executions that have not ended
	records []record
}

// histories sorts the records by call and by process.
func histories(all []record) (calls []*history, processes map[string]*processHistory) {
	all = slices.Clone(all)
	slices.SortStableFunc(all, func(a, b record) int { return cmp.Compare(a.At, b.At) })
	byID := map[string]*history{}
	processes = map[string]*processHistory{}
	for _, r := range all {
		p := processes[r.Process]
		if p == nil {
			p = &processHistory{name: r.Process, open: map[string]bool{}}
			processes[r.Process] = p
		}
		p.add(r)
		if r.Kind != began && r.Kind != ended && r.Kind != run && r.Kind != ran {
			continue
		}
		c := byID[r.Call]
		if c == nil {
			c = &history{id: r.Call, ran: map[string]record{}}
			byID[r.Call] = c
			calls = append(calls, c)
		}
		c.add(r)
	}
	return calls, processes
}

func sorted(processes map[string]*processHistory) (out []*processHistory) {
	for _, p := range processes {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b *processHistory) int { return cmp.Compare(a.name, b.name) })
	return out
}

func (c *history) add(r record) {
	c.records = append(c.records, r)
	switch r.Kind {
	case began:
		c.began = &r
	case ended:
		c.ended = append(c.ended, r)
	case run:
		c.runs = append(c.runs, r)
	case ran:
		c.ran[r.Run] = r
	}
}

func (p *processHistory) add(r record) {
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
	case exits:
		p.exits = &r
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
func (c *history) violations(processes map[string]*processHistory, x excuses) (out []string) {
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
		c.checkEnd(e, processes[e.Process], x, say)
	}
	return out
}

func idempotent(method string) bool { return method == methodPut || method == methodGet }

func streams(method string) bool {
	return method == methodWatch || method == methodImport || method == methodTalk
}

type sayer func(format string, args ...any)

func (c *history) checkEnd(e record, p *processHistory, x excuses, say sayer) {
	if late := c.late(e, p.stalls); late > maxLate {
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
	if !x.excuse(c.began, e) {
		say("it was lost: %s (%s), which nothing that happened explains", e.Code, e.Claim)
	}
	if streams(c.began.Method) {
		c.checkStream(e, say)
	}
}

// checkAnswer checks the answer of an end that names the execution which it came from.
func (c *history) checkAnswer(e record, say sayer) {
	h, returned := c.ran[e.Run]
	switch {
	case !slices.ContainsFunc(c.runs, func(r record) bool { return r.Run == e.Run }):
		say("its answer is that of the execution %s, which is not one of its own", e.Run)
	case !returned:
		say("its answer is that of the execution %s, which has not returned", e.Run)
	case h.Code != e.Code:
		say("its client says that the handler ended with %s, but it ended with %s", e.Code, h.Code)
	}
}

// late is by how much a call ended late, without the time in which its process did not get to run.
func (c *history) late(e record, stalls []record) time.Duration {
	due := c.began.Deadline
	if e.GaveUp != 0 {
		due = min(due, e.GaveUp)
	}
	late := e.At.since(due)
	for _, s := range stalls {
		if overlap := min(s.At, e.At).since(max(s.Since, due)); overlap > 0 {
			late -= overlap
		}
	}
	return late
}

var (
	okCode          = rpc.CodeOK.String()
	abortedCode     = rpc.CodeAborted.String()
	canceledCode    = rpc.CodeCanceled.String()
	deadlineCode    = rpc.CodeDeadlineExceeded.String()
	unavailableCode = rpc.CodeUnavailable.String()
	dataLossCode    = rpc.CodeDataLoss.String()
)

// excuse reports whether a call may have ended so.
func (x excuses) excuse(began *record, e record) bool {
	switch e.Code {
	case okCode, abortedCode: // the handler's own word
		return true
	case canceledCode:
		return e.GaveUp != 0
	case deadlineCode:
		return x.deadline || impatient(began)
	case dataLossCode:
		return x.dataLoss && streams(began.Method)
	case unavailableCode:
		switch {
		case e.Claim == rpc.ExecutionNotRun.String():
			return x.notRun || x.nobody && impatient(began)
		case idempotent(began.Method):
			return x.idempotent
		}
		return x.unavailable
	}
	return false
}

// impatient reports whether the caller's deadline is one that may pass whatever happens.
func impatient(began *record) bool { return began.Deadline.since(began.At) < impatience }
