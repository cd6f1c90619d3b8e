package rpc

import (
	"context"
	"errors"
	"testing"
	"time"
)

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
