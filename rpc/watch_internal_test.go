package rpc

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/natscall/natscall/rpc/internal/reply"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// call is a call that waits.
type call struct {
	reply.Patience
	root string
}

func (*call) CallID() wire.ID           { return wire.ID{1} }
func (c *call) Root() string            { return c.root }
func (c *call) Waited() *reply.Patience { return &c.Patience }
func (*call) Alive(wire.ID)             {}

// TestLookWithoutQueries: a call grows older also where its client may not ask about it, as what it
// says of its execution depends on its age. It is never taken for lost then.
func TestLookWithoutQueries(t *testing.T) {
	for _, test := range []struct {
		root string // "" is that of a plain request
		asks bool
	}{{"asked", true}, {"muted", false}, {"", false}} {
		c := &call{root: test.root}
		l := look{
			rule: (*reply.Patience).Tick, connected: true,
			muted: map[string]time.Time{"muted": time.Now()}, asked: map[wire.ID]waiting{},
		}
		lost := false
		for range 20 {
			if lost = l.at(c) != nil; lost {
				break
			}
		}
		if asked := len(l.queries.alone)+len(l.queries.shared) > 0; !c.Old() || asked != test.asks || lost != test.asks {
			t.Errorf("root %q: old is %v, asked is %v, lost is %v", test.root, c.Old(), asked, lost)
		}
	}
}

// TestForgottenAtDeadline: an instance that has forgotten a stream at its deadline does not make
// the call UNAVAILABLE because the client's own timer is late.
func TestForgottenAtDeadline(t *testing.T) {
	unknown := failf(CodeUnavailable, ExecutionMayHaveRun, "the instance does not know the stream, or it has ended")
	handlers := failf(CodeUnavailable, ExecutionDidRun, "not now")
	for _, test := range []struct {
		deadline time.Time
		status   *Error
		want     Code
	}{
		{time.Time{}, unknown, CodeUnavailable},
		{time.Now().Add(time.Hour), unknown, CodeUnavailable},
		{time.Now().Add(-time.Millisecond), unknown, CodeDeadlineExceeded},
		{time.Now().Add(-time.Millisecond), handlers, CodeUnavailable},
	} {
		got := asError((statuses{test.deadline}).Unknown(test.status))
		if got.code != test.want || got.execution != test.status.execution {
			t.Errorf("%v becomes %v (%v), want %v", test.status, got, got.execution, test.want)
		}
	}
}

// TestCauseOfRemoteEnd: the cause of the caller's context is found also where the server's word of
// the deadline came first.
func TestCauseOfRemoteEnd(t *testing.T) {
	why := errors.New("why")
	ended, cancel := context.WithTimeoutCause(context.Background(), 0, why)
	defer cancel()
	<-ended.Done()
	remote := func(code Code) *Error { return &Error{code: code, remote: true} }
	for _, test := range []struct {
		ctx   context.Context
		err   *Error
		found bool
	}{
		{ended, remote(CodeDeadlineExceeded), true},
		{ended, remote(CodeNotFound), false},
		{context.Background(), remote(CodeDeadlineExceeded), false},
	} {
		if got := test.err.withCauseOf(test.ctx); errors.Is(got, why) != test.found || got.code != test.err.code || !got.remote {
			t.Errorf("%v becomes %v, with cause %v", test.err, got, got.cause)
		}
	}
}
