package rpcvalidate_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
	"github.com/natscall/natscall/rpc/rpcvalidate"
	bookingv1 "github.com/natscall/natscall/rpc/rpcvalidate/internal/gen/booking/v1"
	"github.com/natscall/natscall/rpc/rpcvalidate/internal/gen/booking/v1/bookingv1nats"
)

// TestClientRequests: a client sends nothing of a request that breaks rules.
func TestClientRequests(t *testing.T) {
	for name, opts := range forms {
		t.Run(name, func(t *testing.T) {
			srv := rpctest.NewServer(t)
			nc := srv.Connect() // of the client alone
			d := &desk{number: "1"}
			serve(t, srv.Connect(), d)
			c := bookingv1nats.NewBookingServiceClient(dial(t, nc, append(opts, newValidation(t, nil).Client())...))
			ctx := testContext(t)
			must(t, nc.FlushWithContext(ctx))
			before := nc.Stats().OutMsgs
			_, err := c.Book(ctx, &bookingv1.BookRequest{Room: "sea-7", Nights: 31, Guests: []*bookingv1.Guest{{}}})
			wantInvalid(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun, "nights", "guests[0].name")
			wantInvalid(t, c.Note(ctx, &bookingv1.NoteRequest{}), rpc.CodeInvalidArgument, rpc.ExecutionNotRun, "room")
			if !strings.HasPrefix(name, "plain") { // whose requests do not stream
				_, err = c.Watch(ctx, &bookingv1.WatchRequest{})
				wantInvalid(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun, "room")
			}
			if sent := nc.Stats().OutMsgs - before; sent != 0 {
				t.Errorf("%d messages were sent", sent)
			}
			var failed *rpc.Error
			if errors.As(err, &failed); failed.Remote() {
				t.Errorf("%v comes from a server", err)
			}
			_, err = c.Book(ctx, aBooking())
			must(t, err)
			if got := d.seen(); len(got) != 1 {
				t.Errorf("the handlers got %q", got)
			}
		})
	}
}

// TestClientSends: a message of a stream that breaks rules is not sent, and the stream goes on.
func TestClientSends(t *testing.T) {
	nc := connect(t)
	d := &desk{number: "1", nights: 1}
	serve(t, nc, d)
	c := bookingv1nats.NewBookingServiceClient(dial(t, nc, newValidation(t, nil).Client()))

	up, err := c.Import(testContext(t))
	must(t, err)
	wantInvalid(t, up.Send(&bookingv1.ImportRequest{First: 2}), rpc.CodeInvalidArgument, rpc.ExecutionMayHaveRun, "")
	must(t, up.Send(&bookingv1.ImportRequest{}))
	_, err = up.CloseAndRecv()
	must(t, err)

	both, err := c.Change(testContext(t))
	must(t, err)
	defer both.Close()
	wantInvalid(t, both.Send(&bookingv1.ChangeRequest{}), rpc.CodeInvalidArgument, rpc.ExecutionMayHaveRun, "room")
	err = both.Send(&bookingv1.ChangeRequest{Room: "sea-7", Price: 1})
	if e := wantCode(t, err, rpc.CodeInternal, rpc.ExecutionMayHaveRun); !strings.Contains(e.Message(), "division by zero") {
		t.Errorf("rules that fail: %v", e)
	}
	must(t, both.Send(&bookingv1.ChangeRequest{Room: "sea-7"}))
	if m, err := both.Recv(); err != nil || m.GetRoom() != "sea-7" {
		t.Errorf("change: %v, %v", m, err)
	}
	if got := strings.Join(d.seen(), " "); got != "import sea-7" {
		t.Errorf("the handlers got %q", got)
	}
}

// TestClientResponses: a client that checks responses gets none that breaks rules.
func TestClientResponses(t *testing.T) {
	for _, shape := range shapes {
		t.Run(shape.name, func(t *testing.T) {
			nc := connect(t)
			serve(t, nc, &desk{})
			checked := newValidation(t, nil, rpcvalidate.WithResponses()).Client()
			got, err := shape.call(testContext(t), bookingv1nats.NewBookingServiceClient(dial(t, nc, checked)))
			var failed *rpc.Error
			if !errors.As(err, &failed) {
				t.Fatalf("the error is %v", err)
			}
			x := rpc.ExecutionMayHaveRun // a stream
			if shape.name == "Book" {
				x = rpc.ExecutionDidRun
			}
			wantInvalid(t, err, rpc.CodeInternal, x, shape.field)
			if want, _, _ := strings.Cut(shape.before, " "); got != want {
				t.Errorf("the client got %q, want %q", got, want)
			}

			unchecked := newValidation(t, nil).Client()
			_, err = shape.call(testContext(t), bookingv1nats.NewBookingServiceClient(dial(t, nc, unchecked)))
			must(t, err)
			serve(t, nc, &desk{number: "1", nights: 1}, rpc.WithSubjectPrefix("good"))
			_, err = shape.call(testContext(t), bookingv1nats.NewBookingServiceClient(dial(t, nc, checked, rpc.WithSubjectPrefix("good"))))
			must(t, err)
		})
	}
}

// TestClientFilter: a client leaves out methods too, and the option is one of a call.
func TestClientFilter(t *testing.T) {
	nc := connect(t)
	serve(t, nc, &desk{number: "1"})
	c := bookingv1nats.NewBookingServiceClient(dial(t, nc))
	notBook := rpcvalidate.WithFilter(func(method string) bool { return method != bookingv1nats.BookingServiceBookMethod })
	_, err := c.Book(testContext(t), &bookingv1.BookRequest{}, newValidation(t, nil, notBook).Client())
	must(t, err)
	_, err = c.Book(testContext(t), &bookingv1.BookRequest{}, newValidation(t, nil).Client())
	wantInvalid(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun, "room", "nights")
}

// validator is a validator of a program's own.
type validator func(proto.Message) error

func (v validator) Validate(m proto.Message, _ ...protovalidate.ValidationOption) error { return v(m) }

// TestOwnValidator: its errors are those of the call where they have a code, and a failure
// otherwise.
func TestOwnValidator(t *testing.T) {
	nc := connect(t)
	d := &desk{number: "1"}
	own := rpcvalidate.WithValidator(validator(func(m proto.Message) error {
		switch req, ok := m.(*bookingv1.BookRequest); {
		case !ok:
			return nil
		case req.GetRoom() == "closed":
			return rpc.Errorf(rpc.CodeFailedPrecondition, "the room is closed")
		case req.GetRoom() == "gone":
			return errors.New("no list of rooms")
		case req.GetRoom() == "taken":
			return &protovalidate.ValidationError{Violations: []*protovalidate.Violation{{
				Proto: validate.Violation_builder{Message: proto.String("room is taken")}.Build(),
			}}}
		}
		return nil
	}))
	out := &logs{}
	v := newValidation(t, out, own)
	serve(t, nc, d, v.Server())
	onServer := bookingv1nats.NewBookingServiceClient(dial(t, nc))
	onClient := bookingv1nats.NewBookingServiceClient(dial(t, nc, v.Client()))
	for room, code := range map[string]rpc.Code{
		"closed": rpc.CodeFailedPrecondition, "gone": rpc.CodeInternal, "taken": rpc.CodeInvalidArgument,
	} {
		for side, c := range map[string]bookingv1nats.BookingServiceClient{"server": onServer, "client": onClient} {
			_, err := c.Book(testContext(t), &bookingv1.BookRequest{Room: room})
			e := wantCode(t, err, code, rpc.ExecutionNotRun)
			if e.Remote() != (side == "server") {
				t.Errorf("%s: %v is remote: %v", side, e, e.Remote())
			}
		}
	}
	if n := strings.Count(out.String(), "no list of rooms"); n != 1 {
		t.Errorf("the log has %d records:\n%s", n, out)
	}
	if got := d.seen(); len(got) > 0 {
		t.Errorf("the handlers got %q", got)
	}
}

// TestClientAfterChange: a client checks what interceptors before it have made of a request.
func TestClientAfterChange(t *testing.T) {
	nc := connect(t)
	serve(t, nc, &desk{number: "1"})
	oneNight := rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		req, err := call.Request()
		if err != nil {
			return err
		}
		req.(*bookingv1.BookRequest).Nights = 1
		return next(ctx, call)
	})
	c := bookingv1nats.NewBookingServiceClient(dial(t, nc, oneNight, newValidation(t, nil).Client()))
	_, err := c.Book(testContext(t), &bookingv1.BookRequest{Room: "sea-7"})
	must(t, err)
}
