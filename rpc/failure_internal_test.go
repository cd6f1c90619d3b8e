package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc/internal/flow"
	"github.com/natscall/natscall/rpc/internal/stream"
	"github.com/natscall/natscall/rpc/internal/wire"
)

// TestStreamErrors: what becomes of the errors of package stream.
func TestStreamErrors(t *testing.T) {
	canceled, cancel := context.WithCancelCause(context.Background())
	why := errors.New("why")
	cancel(why)
	for _, test := range []struct {
		err  error
		code Code
		text string
	}{
		{&stream.ContextError{Ctx: canceled}, CodeCanceled, "why"},
		{&stream.PublishError{Err: nats.ErrConnectionClosed}, CodeUnavailable, "connection closed"},
		{&stream.PublishError{Err: nats.ErrMaxPayload}, CodeResourceExhausted, "maximum payload"},
		{&stream.SilenceError{For: 30 * time.Second}, CodeUnavailable, "for 30s, three heartbeats"},
		{stream.ErrClosed, CodeFailedPrecondition, "after the end"},
		{stream.ErrCanceled, CodeCanceled, "the caller has gone"},
		{stream.ErrGone, CodeUnavailable, "the instance has gone"},
		{stream.ErrDuplicate, CodeInternal, "this id"},
		{fmt.Errorf("%w: frame 2", flow.ErrLost), CodeDataLoss, "frame 2"},
		{flow.ErrPartial, CodeDataLoss, "within a message"},
		{flow.ErrTooLarge, CodeResourceExhausted, "too large"},
		{flow.ErrCredit, CodeInternal, "credit"},
		{wire.ErrFrame, CodeInternal, "invalid stream frame"},
	} {
		e, ok := streamError(test.err).(*Error)
		if !ok || e.code != test.code || e.execution != ExecutionMayHaveRun || !strings.Contains(e.message, test.text) {
			t.Errorf("%v becomes %v", test.err, e)
		}
	}
	if !errors.Is(streamError(&stream.ContextError{Ctx: canceled}), why) {
		t.Error("the cause of the context is lost")
	}
	own := failf(CodeAborted, ExecutionDidRun, "own")
	for _, err := range []error{nil, io.EOF, own} {
		if got := streamError(err); got != err {
			t.Errorf("%v becomes %v", err, got)
		}
	}
}

// TestUnopened: a stream that has ended before its open was published did not run, and says so.
func TestUnopened(t *testing.T) {
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, err := range []error{&stream.ContextError{Ctx: ended}, failf(CodeUnavailable, ExecutionMayHaveRun, "lost")} {
		if e := unopened(err); e.execution != ExecutionNotRun || strings.Contains(e.message, "may have run") {
			t.Errorf("%v becomes %v (%v)", err, e, e.execution)
		}
	}
}

// TestLargeResponseOfClosedClient: the handler of a response that was announced has run, also if
// the client is closed before it fetches the response.
func TestLargeResponseOfClosedClient(t *testing.T) {
	desc := &ServiceDesc{Name: "test.v1.Service"}
	m := newMethod[wrapperspb.StringValue, wrapperspb.StringValue, *wrapperspb.StringValue, *wrapperspb.StringValue](desc, MethodDesc{Name: "Do"}, KindUnary)
	c := NewClient(connectInside(t))
	if err := c.subscribeOnce(t.Context(), time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	call, id := new(clientCall), wire.NewID()
	call.set(&m, nil, nil, nil, &c.options.callOptions)
	a := attempt{client: c, call: call, subjects: c.subjectsOf(&m), byCtx: true}
	failed := a.largeResponse(t.Context(), id, id, wire.AppendAccept(nil, id, 0, "I"))
	if failed == nil || failed.code != CodeCanceled || failed.execution != ExecutionDidRun {
		t.Errorf("the error is %v", failed)
	}
}
