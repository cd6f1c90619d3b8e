package tap

import (
	"context"
	"sync"
	"time"

	"github.com/natscall/natscall/cmd/natscall/internal/tool"
)

const (
	// maxAttempts is how often services are asked about a root that nobody knows: a service may be
	// about to start, or be none of natscall's.
	maxAttempts = 3
	// betweenAttempts is the time between such questions, which all services answer.
	betweenAttempts = 2 * time.Second
	// maxRoots bounds how many roots are asked about, since anybody can make them up.
	maxRoots = 1000
)

// learner finds services that were not there when the tap began, beside it. Its methods are for the
// goroutine that shows messages.
type learner struct {
	find     func(ctx context.Context, known map[string]bool) []*tool.Target
	found    chan []*tool.Target
	attempts map[string]int // by root
	asking   bool
	asked    time.Time // the last time
	running  sync.WaitGroup
}

func newLearner(find func(context.Context, map[string]bool) []*tool.Target) *learner {
	return &learner{find: find, found: make(chan []*tool.Target, 1), attempts: map[string]int{}}
}

// want asks for a service, unless it was asked for often, or a moment ago. The answer comes to
// found.
func (l *learner) want(ctx context.Context, root string, c *Catalog, now time.Time) {
	switch {
	case root == "" || c.services[root] != nil || l.asking || l.attempts[root] >= maxAttempts:
		return
	case len(l.attempts) >= maxRoots && l.attempts[root] == 0:
		return
	case !l.asked.IsZero() && now.Sub(l.asked) < betweenAttempts:
		return
	}
	l.attempts[root]++
	l.asking, l.asked = true, now
	known := c.roots()
	l.running.Go(func() { l.found <- l.find(ctx, known) }) // which has room for it
}

// learned adds what was found, and returns the names.
func (l *learner) learned(targets []*tool.Target, c *Catalog) (names []string) {
	l.asking = false
	for _, t := range targets {
		c.Add(t.Service, t.Schema)
		names = append(names, t.Service.Name)
	}
	return names
}
