package main

import (
	"slices"
	"strings"
)

// checkHealing checks that calls succeed again after the last fault: a client whose calls all
// failed from then on would otherwise be excused by the fault.
func checkHealing(calls []*history, processes map[string]*processHistory) (out []violation) {
	callers := map[string][]*history{}
	for _, c := range calls {
		if c.began != nil {
			callers[c.began.Process] = append(callers[c.began.Process], c)
		}
	}
	var faults []*record
	for _, p := range processes {
		for _, r := range p.faults() {
			if callers[p.name] == nil || r.Kind != event { // a client's event is that it ends
				faults = append(faults, r)
			}
		}
	}
	for _, p := range sorted(processes) {
		own, end := callers[p.name], p.events()
		if own == nil || len(end) == 0 || strings.HasPrefix(p.name, burstPrefix) {
			continue
		}
		last := lastBefore(faults, end[len(end)-1].At) // the SIGTERM by which it ends
		healed := slices.ContainsFunc(own, func(c *history) bool { return c.began.At > last && c.succeeded() })
		if !healed {
			out = append(out, violation{What: p.name + ": no call has succeeded after the last fault", Records: p.records})
		}
	}
	return out
}

func (c *history) succeeded() bool { return len(c.ended) > 0 && c.ended[0].Code == okCode }

// faults are what the plan has done to a process.
func (p *processHistory) faults() (out []*record) {
	for _, r := range p.records {
		if r.Kind == killed || r.Kind == event || r.Kind == fault || r.Kind == healed {
			out = append(out, r)
		}
	}
	return out
}

// events are the signals that a process got.
func (p *processHistory) events() (out []*record) {
	for _, r := range p.records {
		if r.Kind == event {
			out = append(out, r)
		}
	}
	return out
}

// lastBefore is when the last of the faults before end was made, 0 if there was none.
func lastBefore(faults []*record, end instant) (last instant) {
	for _, r := range faults {
		if r.At < end {
			last = max(last, r.At)
		}
	}
	return last
}
