package rpctest

import (
	"errors"
	"testing"

	"go.uber.org/goleak"
)

// ending is a test that the test below looks at.
type ending struct {
	testing.TB
	cleanup func()
	failed  bool
}

func (e *ending) Cleanup(f func())      { e.cleanup = f }
func (e *ending) Errorf(string, ...any) { e.failed = true }
func (e *ending) Failed() bool          { return e.failed }

// TestLeakCheckInParallel: what a check finds while another test starts its server may belong to
// that test. It is left to that test's check, which finds also what the first test has left.
func TestLeakCheckInParallel(t *testing.T) {
	first, second := &ending{TB: t}, &ending{TB: t}
	var l leakCheck
	l.find = func(...goleak.Option) error {
		l.enter(second)
		return errors.New("a goroutine")
	}
	l.enter(first)
	stop := make(chan struct{})
	defer close(stop)
	go leak(stop)
	first.cleanup()
	if first.failed {
		t.Error("the first test fails, whose check met a test that has just begun")
	}
	l.find = goleak.Find
	second.cleanup()
	if !second.failed {
		t.Error("nobody has found what the first test left")
	}
}

func leak(stop <-chan struct{}) { <-stop }

// TestLeakCheckSparesTests: a test that has not ended is no leak.
func TestLeakCheckSparesTests(t *testing.T) {
	e := &ending{TB: t}
	l := leakCheck{find: goleak.Find}
	l.enter(e)
	running, checked, ended := make(chan struct{}), make(chan struct{}), make(chan bool)
	go func() {
		ended <- t.Run("other", func(*testing.T) {
			close(running)
			<-checked
		})
	}()
	<-running
	e.cleanup()
	close(checked)
	<-ended
	if e.failed {
		t.Error("a test was taken for a leak")
	}
}
