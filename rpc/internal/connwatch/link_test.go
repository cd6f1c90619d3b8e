package connwatch

import (
	"context"
	"errors"
	"runtime"
	"testing"
)

// TestLink: a link knows that a connection is made, for the first time or again, and wakes those
// that wait for that.
func TestLink(t *testing.T) {
	nc, g := connectByGate(t)
	l := NewLink(nc)
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		l.Follow(done)
	}()
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for range 2 {
		for !l.Down() {
			runtime.Gosched() // until Follow has heard
		}
		if err := l.Await(gone); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		waiting := make(chan error)
		go func() { waiting <- l.Await(t.Context()) }()
		g.open.Store(true)
		if err := <-waiting; err != nil || l.Down() {
			t.Errorf("%v, down: %t", err, l.Down())
		}
		g.open.Store(false)
		if err := nc.ForceReconnect(); err != nil {
			t.Fatal(err)
		}
	}
	close(done)
	<-ended
	if l.Down() {
		t.Error("down after the end")
	}
}
