package rpc

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/natscall/natscall/rpc/internal/reply"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// TestAgeWithoutQueries: a stream that opens grows older also where its client may not ask about
// it, as what it says of its execution depends on its age; an open one does not.
func TestAgeWithoutQueries(t *testing.T) {
	const root = "test.v1.Root"
	w := &watch{streams: &streamTable{rootOf: func(*method) string { return root }}}
	s := &stream{call: &Call{method: new(method)}}
	look := func(muted bool) {
		var q queries
		w.lookAt(s, (*reply.Patience).Tick, true, map[string]bool{root: muted}, &q, map[wire.ID]caller{})
		if len(q.alone) > 0 {
			t.Errorf("it asks at age %d", s.patience.Age)
		}
	}
	look(true)
	look(true)
	if s.patience.Age != 2 {
		t.Errorf("age %d", s.patience.Age)
	}
	look(false) // an odd tick has no query
	if s.patience.Age != 3 {
		t.Errorf("age %d", s.patience.Age)
	}
	s.to = root + "._i.A.B"
	look(false)
	if s.patience.Age != 3 {
		t.Errorf("an open stream has age %d", s.patience.Age)
	}
}

// lateTimer is a context whose deadline has passed, and which does not know that yet.
type lateTimer struct{ context.Context }

func (lateTimer) Deadline() (time.Time, bool) { return time.Now().Add(-time.Millisecond), true }

// TestForgottenAtDeadline: an instance that has forgotten a stream at its deadline does not make
// the call UNAVAILABLE because the client's own timer is late.
func TestForgottenAtDeadline(t *testing.T) {
	unknown := failf(CodeUnavailable, MayHaveRun, "the instance does not know the stream, or it has ended")
	handlers := failf(CodeUnavailable, DidRun, "not now")
	for _, test := range []struct {
		ctx    context.Context
		status *Error
		want   Code
	}{
		{context.Background(), unknown, CodeUnavailable},
		{lateTimer{context.Background()}, unknown, CodeDeadlineExceeded},
		{lateTimer{context.Background()}, handlers, CodeUnavailable},
	} {
		s := new(stream)
		s.waitUnder(test.ctx)
		if got := s.forgotten(test.status); got.code != test.want || got.execution != test.status.execution {
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
