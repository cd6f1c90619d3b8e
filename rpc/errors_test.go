package rpc_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
)

var errSentinel = errors.New("a sentinel")

// everyForm are clients that ask for errors in each form that they have on the wire.
func everyForm(t *testing.T, nc *nats.Conn, opts ...rpc.ClientOption) map[string]*rpc.Client {
	return map[string]*rpc.Client{
		"envelope":   dial(t, nc, opts...),
		"JSON":       dial(t, nc, append(opts, rpc.WithCodec(rpc.CodecJSON))...),
		"plain":      dial(t, nc, append(opts, rpc.WithPlainRequests())...),
		"plain JSON": dial(t, nc, append(opts, rpc.WithPlainRequests(), rpc.WithCodec(rpc.CodecJSON))...),
	}
}

// TestErrorf: every operand of %w is found, and nothing else is a cause.
func TestErrorf(t *testing.T) {
	inner := rpc.NewError(rpc.CodeNotFound, "inner", durationpb.New(time.Second))
	for _, test := range []struct {
		name    string
		err     error
		message string
		causes  []error
	}{
		{"none", rpc.Errorf(rpc.CodeAborted, "x %v", io.EOF), "x EOF", nil},
		{"one", rpc.Errorf(rpc.CodeAborted, "x %w", io.EOF), "x EOF", []error{io.EOF}},
		{"two", rpc.Errorf(rpc.CodeAborted, "%w: %w", errSentinel, io.EOF), "a sentinel: EOF", []error{errSentinel, io.EOF}},
		{"deep", rpc.Errorf(rpc.CodeAborted, "%w", fmt.Errorf("a %w", errors.Join(io.EOF, errSentinel))), "a EOF\na sentinel", []error{errSentinel, io.EOF}},
		{"nil", rpc.Errorf(rpc.CodeAborted, "x %w", nil), "x %!w(<nil>)", nil},
		{"another *Error", rpc.Errorf(rpc.CodeAborted, "outer: %w", inner), "outer: not_found: inner", []error{inner}},
	} {
		var e *rpc.Error
		if !errors.As(test.err, &e) || e.Code() != rpc.CodeAborted || e.Message() != test.message || len(e.Details()) != 0 {
			t.Errorf("%s: %v", test.name, test.err)
		}
		for _, cause := range []error{io.EOF, errSentinel, inner} {
			want := false
			for _, c := range test.causes {
				want = want || c == cause
			}
			if got := errors.Is(test.err, cause); got != want {
				t.Errorf("%s: errors.Is(%v) is %v", test.name, cause, got)
			}
		}
	}
}

// TestCausesOnTheServer: OnEnd gets the error that the caller is told, and finds in it
// all that the handler has wrapped.
func TestCausesOnTheServer(t *testing.T) {
	nc := rpctest.Connect(t)
	coded := rpc.NewError(rpc.CodeNotFound, "no order")
	ended := make(chan error, 1)
	var fail error
	serve(t, nc, &funcs{do: func(context.Context, string) (string, error) { return "", fail }},
		rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
			call.OnEnd(func(err error) { ended <- err })
			return next(ctx, call)
		}))
	c := dial(t, nc)
	for _, test := range []struct {
		err     error
		code    rpc.Code
		message string
	}{
		{fmt.Errorf("%w: %w", errSentinel, coded), rpc.CodeNotFound, "a sentinel: no order"},
		{errors.Join(coded, errSentinel), rpc.CodeNotFound, "no order\na sentinel"},
		{fmt.Errorf("db: %w", errSentinel), rpc.CodeUnknown, "db: a sentinel"},
		{rpc.Errorf(rpc.CodeAborted, "%w and %w", io.EOF, errSentinel), rpc.CodeAborted, "EOF and a sentinel"},
	} {
		fail = test.err
		_, err := do(testContext(t), c, "x")
		if e := wantCode(t, err, test.code, rpc.ExecutionDidRun); e.Message() != test.message {
			t.Errorf("%v: the caller is told %q", test.err, e.Message())
		}
		if err := <-ended; !errors.Is(err, errSentinel) || rpc.CodeOf(err) != test.code {
			t.Errorf("OnEnd got %v, in which the sentinel is lost", err)
		}
		if errors.Is(err, errSentinel) {
			t.Error("a cause has crossed the wire")
		}
	}
}

// TestDetailsOfNewError: a detail is packed once, nothing is left out, and what cannot be sent is
// said.
func TestDetailsOfNewError(t *testing.T) {
	hi, second := wrapperspb.String("hi"), durationpb.New(time.Second)
	pack := func(m proto.Message) *anypb.Any {
		packed, err := anypb.New(m)
		must(t, err)
		return packed
	}
	stranger := &anypb.Any{TypeUrl: "example.com/no.such.Type", Value: []byte("x")}
	nc := rpctest.Connect(t)
	var fail error
	serve(t, nc, &funcs{do: func(context.Context, string) (string, error) { return "", fail }})
	clients := everyForm(t, nc)
	delete(clients, "plain JSON") // which cannot have the stranger; see TestDetailsInPlainJSON
	for _, test := range []struct {
		name    string
		details []proto.Message
		want    []proto.Message
		says    string
	}{
		{"none", nil, nil, ""},
		{"messages", []proto.Message{hi, second}, []proto.Message{hi, second}, ""},
		{"packed", []proto.Message{pack(hi)}, []proto.Message{hi}, ""},
		{"packed twice, on purpose", []proto.Message{pack(pack(hi))}, []proto.Message{pack(hi)}, ""},
		{"of an unknown type", []proto.Message{stranger}, []proto.Message{stranger}, ""},
		{"nil", []proto.Message{nil, hi, (*durationpb.Duration)(nil), (*anypb.Any)(nil), second}, []proto.Message{hi, second}, ""},
		{"not to be encoded", []proto.Message{wrapperspb.String("\xff"), second}, []proto.Message{second}, "without a detail"},
	} {
		fail = rpc.NewError(rpc.CodeAborted, "no", test.details...)
		errs := map[string]error{"here": fail}
		for form, c := range clients {
			_, errs[form] = do(testContext(t), c, "x")
		}
		for form, err := range errs {
			var e *rpc.Error
			if !errors.As(err, &e) || e.Code() != rpc.CodeAborted || !strings.HasPrefix(e.Message(), "no") || !strings.Contains(e.Message(), test.says) || test.says == "" && e.Message() != "no" {
				t.Fatalf("%s, %s: %v", test.name, form, err)
			}
			if diff := cmp.Diff(test.want, e.Details(), protocmp.Transform()); diff != "" && len(test.want)+len(e.Details()) > 0 {
				t.Errorf("%s, %s: %s", test.name, form, diff)
			}
		}
	}
	packed := pack(hi)
	err := rpc.NewError(rpc.CodeAborted, "no", packed)
	packed.Value[0] = 0xff // it is the caller's again
	if d, ok := rpc.Detail[*wrapperspb.StringValue](err); !ok || d.GetValue() != "hi" {
		t.Errorf("the error has changed: %v", d)
	}
}

// TestAddDetails: an error gets details and keeps its code and text, here and over the wire, and
// its causes.
func TestAddDetails(t *testing.T) {
	hi, second := wrapperspb.String("hi"), durationpb.New(time.Second)
	coded := rpc.NewError(rpc.CodeNotFound, "no order", hi)
	nc := rpctest.Connect(t)
	var fail error
	serve(t, nc, &funcs{do: func(context.Context, string) (string, error) { return "", fail }})
	c := dial(t, nc)
	for name, test := range map[string]struct {
		err     error
		code    rpc.Code
		message string
		details []proto.Message
	}{
		"Errorf":             {rpc.Errorf(rpc.CodeAborted, "x: %w", errSentinel), rpc.CodeAborted, "x: a sentinel", []proto.Message{second}},
		"with details":       {coded, rpc.CodeNotFound, "no order", []proto.Message{hi, second}},
		"wrapped":            {fmt.Errorf("load: %w", coded), rpc.CodeNotFound, "load: no order", []proto.Message{hi, second}},
		"joined":             {errors.Join(errSentinel, coded), rpc.CodeNotFound, "a sentinel\nno order", []proto.Message{hi, second}},
		"of a stranger":      {errSentinel, rpc.CodeUnknown, "a sentinel", []proto.Message{second}},
		"of package context": {context.Canceled, rpc.CodeCanceled, "context canceled", []proto.Message{second}},
		"twice":              {rpc.AddDetails(coded, second), rpc.CodeNotFound, "no order", []proto.Message{hi, second, second}},
		"a nil *Error":       {(*rpc.Error)(nil), rpc.CodeUnknown, "unknown: a nil *rpc.Error", []proto.Message{second}},
	} {
		t.Run(name, func(t *testing.T) {
			fail = rpc.AddDetails(test.err, nil, second)
			if !errors.Is(fail, test.err) || errors.Is(test.err, errSentinel) && !errors.Is(fail, errSentinel) {
				t.Errorf("%v does not wrap %v", fail, test.err)
			}
			_, remote := do(testContext(t), c, "x")
			for _, err := range []error{fail, remote} {
				var e *rpc.Error
				if !errors.As(err, &e) || e.Code() != test.code || e.Message() != test.message {
					t.Fatalf("the error is %v", err)
				}
				if diff := cmp.Diff(test.details, e.Details(), protocmp.Transform()); diff != "" {
					t.Error(diff)
				}
			}
		})
	}
	if err := rpc.AddDetails(nil, second); err != nil {
		t.Errorf("no error becomes %v", err)
	}
}

// TestAddDetailsChangesNothing: errors that are made of one do not share their details.
func TestAddDetailsChangesNothing(t *testing.T) {
	detail := func(n int64) proto.Message { return wrapperspb.Int64(n) }
	one := rpc.AddDetails(rpc.NewError(rpc.CodeAborted, "no", detail(1)), detail(2), detail(3))
	two, three := rpc.AddDetails(one, detail(4)), rpc.AddDetails(one, detail(5))
	for err, want := range map[error][]proto.Message{
		one: {detail(1), detail(2), detail(3)}, two: {detail(1), detail(2), detail(3), detail(4)}, three: {detail(1), detail(2), detail(3), detail(5)},
	} {
		var e *rpc.Error
		if !errors.As(err, &e) || e.Message() != "no" {
			t.Fatalf("the error is %v", err)
		}
		if diff := cmp.Diff(want, e.Details(), protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	}
}

// TestAddDetailsOfRemoteError: what a client knows of an error stays with it.
func TestAddDetailsOfRemoteError(t *testing.T) {
	nc := rpctest.Connect(t)
	serve(t, nc, &funcs{do: func(context.Context, string) (string, error) { return "", rpc.NewError(rpc.CodeAborted, "no") }})
	_, err := do(testContext(t), dial(t, nc), "x")
	e := wantCode(t, rpc.AddDetails(fmt.Errorf("twice: %w", err), durationpb.New(1)), rpc.CodeAborted, rpc.ExecutionDidRun)
	if !e.Remote() || e.Message() != "twice: no" || len(e.Details()) != 1 {
		t.Errorf("the error is %v, remote: %v", e, e.Remote())
	}
}

// TestDetailsInPlainJSON: a detail that JSON cannot say, or that does not decode, costs only
// itself.
func TestDetailsInPlainJSON(t *testing.T) {
	first, last := wrapperspb.String("first"), durationpb.New(time.Second)
	t.Run("server", func(t *testing.T) {
		nc := rpctest.Connect(t)
		fail := rpc.NewError(rpc.CodeAborted, "no", first, &anypb.Any{TypeUrl: "example.com/no.such.Type"},
			&anypb.Any{TypeUrl: "type.googleapis.com/google.protobuf.StringValue", Value: []byte{0xff}}, &anypb.Any{TypeUrl: ""}, last)
		serve(t, nc, &funcs{do: func(context.Context, string) (string, error) { return "", fail }})
		_, err := do(testContext(t), dial(t, nc, rpc.WithPlainRequests(), rpc.WithCodec(rpc.CodecJSON)), "x")
		wantDetails(t, err, first, &anypb.Any{}, last)
	})
	t.Run("client", func(t *testing.T) {
		nc := rpctest.Connect(t)
		body := `{"code":10,"message":"no","details":[
			{"@type":"type.googleapis.com/google.protobuf.StringValue","value":"first"},
			{"@type":"example.com/no.such.Type","x":1},
			{"@type":"type.googleapis.com/google.protobuf.StringValue","value":7},
			5, null,
			{"@type":"type.googleapis.com/google.protobuf.Duration","value":"1s"}]}`
		sub, err := nc.Subscribe(doSubject, func(m *nats.Msg) {
			_ = m.RespondMsg(&nats.Msg{Data: []byte(body), Header: nats.Header{"Nats-Service-Error-Code": {"10"}, "Nats-Service-Error": {"aborted: no"}}})
		})
		must(t, err)
		defer func() { must(t, sub.Unsubscribe()) }()
		_, err = do(testContext(t), dial(t, nc, rpc.WithPlainRequests(), rpc.WithCodec(rpc.CodecJSON)), "x")
		wantDetails(t, err, first, last)
	})
}

func wantDetails(t *testing.T, err error, want ...proto.Message) {
	t.Helper()
	e := wantCode(t, err, rpc.CodeAborted, rpc.ExecutionDidRun)
	if diff := cmp.Diff(want, e.Details(), protocmp.Transform()); diff != "" || e.Message() != "no" {
		t.Errorf("%v: %s", err, diff)
	}
}

// TestNilErrors: methods of an *Error that is nil, or zero, do not panic, and nobody takes it for
// success.
func TestNilErrors(t *testing.T) {
	for name, e := range map[string]*rpc.Error{"nil": nil, "zero": {}} {
		if e.Code() != rpc.CodeUnknown || rpc.CodeOf(e) != rpc.CodeUnknown || !strings.HasPrefix(e.Error(), "unknown") {
			t.Errorf("%s: %v, code %v", name, e, e.Code())
		}
		if e.Message() != "" || len(e.Details()) != 0 || e.Remote() || e.Execution() != rpc.ExecutionMayHaveRun || e.Unwrap() != nil || errors.Is(e, context.Canceled) {
			t.Errorf("%s: it says something", name)
		}
		if _, ok := rpc.Detail[*durationpb.Duration](e); ok {
			t.Errorf("%s: it has a detail", name)
		}
		if wrapped := fmt.Errorf("x: %w", e); rpc.CodeOf(wrapped) != rpc.CodeUnknown || errors.Is(wrapped, context.DeadlineExceeded) {
			t.Errorf("%s: %v", name, wrapped)
		}
	}
}

// TestNilErrorsReturned: the nil *Error in an error that Go programs return by mistake is an error,
// whoever returns it.
func TestNilErrorsReturned(t *testing.T) {
	nc := rpctest.Connect(t)
	var wrong error
	interceptor := func(after bool) rpc.Interceptor {
		return func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
			if after {
				if err := next(ctx, call); err != nil {
					return err
				}
			}
			return wrong
		}
	}
	fails := &funcs{do: func(context.Context, string) (string, error) { return "", wrong }}
	serve(t, nc, fails)
	serve(t, nc, &funcs{}, rpc.WithSubjectPrefix("before"), rpc.WithInterceptors(interceptor(false)))
	serve(t, nc, &funcs{}, rpc.WithSubjectPrefix("after"), rpc.WithInterceptors(interceptor(true)))
	serve(t, nc, &funcs{}, rpc.WithSubjectPrefix("good"))
	for name, e := range map[string]*rpc.Error{"nil": nil, "zero": {}} {
		for _, err := range []error{e, fmt.Errorf("wrapped: %w", e)} {
			wrong = err
			for _, test := range []struct {
				name   string
				client *rpc.Client
				ran    rpc.Execution
				shapes []string
			}{
				{"handler", dial(t, nc), rpc.ExecutionDidRun, []string{"unary"}},
				{"server's interceptor before", dial(t, nc, rpc.WithSubjectPrefix("before")), rpc.ExecutionNotRun, nil},
				{"server's interceptor after", dial(t, nc, rpc.WithSubjectPrefix("after")), rpc.ExecutionDidRun, []string{"unary"}},
				{"client's interceptor before", dial(t, nc, rpc.WithSubjectPrefix("good"), rpc.WithInterceptors(interceptor(false))), rpc.ExecutionNotRun, nil},
				{"client's interceptor after", dial(t, nc, rpc.WithSubjectPrefix("good"), rpc.WithInterceptors(interceptor(true))), rpc.ExecutionMayHaveRun, nil},
			} {
				for shape, call := range everyShape(testContext(t), test.client) {
					if shape == "one-way" && !strings.HasPrefix(test.name, "client") || len(test.shapes) > 0 && shape != "unary" {
						continue // nobody is told, or the order of message and error matters
					}
					if err := call(); rpc.CodeOf(err) != rpc.CodeUnknown {
						t.Errorf("%s, %s, %s: %v", name, test.name, shape, err)
					} else {
						wantCode(t, err, rpc.CodeUnknown, test.ran)
					}
				}
			}
		}
	}
}
