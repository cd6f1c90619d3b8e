// Package health decides whether an instance of a service is healthy, and whether it takes part in
// its queue groups.
package health

import (
	"context"
	"sync"
	"time"

	"github.com/natscall/natscall/rpc/internal/wait"
)

// Silences is how many looks in a row have to find no healthy instance until one that has left its
// groups joins them again: one answer may be lost or late.
const Silences = 2

// Groups are the queue groups of an instance. Only Run calls the methods, one at a time.
type Groups interface {
	// Connected reports whether others can be heard now, and the instance can leave.
	Connected() bool
	// Covered reports whether another instance is heard that is healthy and serves the same.
	Covered(ctx context.Context) bool
	// Leave returns when the instance gets no more calls. What it has got is served. It reports
	// whether the instance has left; it has not if the connection is down.
	Leave(ctx context.Context) bool
	// Join reports whether the instance gets calls again.
	Join() bool
}

// Config is what a Monitor works with.
type Config struct {
	Check      func(context.Context) error // what the user knows; may be nil
	FailClosed bool                        // leave the groups even if they are empty then
	Changed    func(before, now Status)    // is told of each change
}

// Status is what is known of an instance.
type Status struct {
	Err   error     // why it is not healthy, or nil
	Since time.Time // when it has become healthy or unhealthy
	Out   bool      // it has left its queue groups
}

// Monitor watches the health of one instance.
//
//	                unhealthy, and covered
//	in its groups -------------------------> out of them
//	     ^                                        |
//	     +----------------------------------------+
//	        healthy, or not covered any more
//
// An instance says that it is unhealthy before it looks for others. So of several that become
// unhealthy at the same time, at least one hears that no other one is healthy, and stays.
type Monitor struct {
	config Config
	woken  chan struct{} // has a token when something was set

	mu     sync.Mutex
	told   error // by Set
	judge  judge
	status Status
}

// New returns the monitor of an instance, which is healthy. A function given by the user decides
// when Run runs.
func New(config Config) *Monitor {
	return &Monitor{config: config, woken: make(chan struct{}, 1), status: Status{Since: time.Now()}}
}

// Set says that the instance is healthy, or why it is not. It may be called at any time.
func (m *Monitor) Set(err error) {
	m.mu.Lock()
	m.told = err
	m.mu.Unlock()
	if m.update() {
		wait.Signal(m.woken)
	}
}

// Status returns what is known now.
func (m *Monitor) Status() Status {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.status
}

// Run runs the check and keeps the instance in its groups or out of them until ctx ends. Then the
// check may still run: the channel is closed when it has returned.
func (m *Monitor) Run(ctx context.Context, groups Groups) (checked <-chan struct{}) {
	c := newChecker(m.config.Check)
	timer := time.NewTimer(Interval)
	defer timer.Stop()
	missed := 0 // looks in a row that have found nobody
	m.place(ctx, groups, &missed)
	for {
		var due <-chan time.Time
		if m.config.Check != nil || m.Status().Err != nil || m.Status().Out {
			due = timer.C
		}
		select {
		case <-ctx.Done():
			return c.returned
		case <-m.woken:
		case <-due:
			if has, err := c.sample(ctx); has {
				m.take(err)
			}
			timer.Reset(Interval)
		}
		m.place(ctx, groups, &missed)
	}
}

// take takes a result of the check.
func (m *Monitor) take(err error) {
	m.mu.Lock()
	m.judge.take(err)
	m.mu.Unlock()
	m.update()
}

// update makes the status of what was told and what the check has found. It reports whether the
// instance has become healthy or unhealthy.
func (m *Monitor) update() (changed bool) {
	m.mu.Lock()
	err := m.told
	if err == nil {
		err = m.judge.err
	}
	before := m.status
	changed = (err == nil) != (before.Err == nil)
	if m.status.Err = err; changed {
		m.status.Since = time.Now()
	}
	now := m.status
	m.mu.Unlock()
	if changed {
		m.config.Changed(before, now)
	}
	return changed
}

// place puts the instance into its groups or out of them. missed counts the looks in a row that
// have found no other instance.
func (m *Monitor) place(ctx context.Context, groups Groups, missed *int) {
	switch status := m.Status(); {
	case status.Err == nil:
		*missed = 0
		if status.Out {
			m.join(groups)
		}
	case !groups.Connected():
	case m.config.FailClosed || groups.Covered(ctx):
		*missed = 0
		if !status.Out {
			m.leave(ctx, groups)
		}
	case status.Out && ctx.Err() == nil:
		if *missed++; *missed >= Silences {
			m.join(groups)
		}
	}
}

func (m *Monitor) leave(ctx context.Context, groups Groups) {
	if m.Status().Err == nil {
		return // it has become healthy while it looked for others
	}
	if groups.Leave(ctx) {
		m.move(true)
	}
}

func (m *Monitor) join(groups Groups) {
	if groups.Join() {
		m.move(false)
	}
}

func (m *Monitor) move(out bool) {
	m.mu.Lock()
	before := m.status
	m.status.Out = out
	now := m.status
	m.mu.Unlock()
	m.config.Changed(before, now)
}
