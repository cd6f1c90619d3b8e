package rpcvalidate_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpcvalidate"
	bookingv1 "github.com/natscall/natscall/rpc/rpcvalidate/internal/gen/booking/v1"
	"github.com/natscall/natscall/rpc/rpcvalidate/internal/gen/booking/v1/bookingv1nats"
)

// aBooking keeps all rules.
func aBooking() *bookingv1.BookRequest {
	return &bookingv1.BookRequest{Room: "sea-7", Nights: 2, Guests: []*bookingv1.Guest{{Name: "Ann", Mail: "ann@example.com"}}}
}

// TestSingleRequests: a request that breaks rules is refused with all of them, and its handler does
// not run, whatever form it has.
func TestSingleRequests(t *testing.T) {
	nc := connect(t)
	for name, opts := range forms {
		t.Run(name, func(t *testing.T) {
			d := &desk{number: "1"}
			prefix := rpc.WithSubjectPrefix(strings.ReplaceAll(name, " ", "-"))
			serve(t, nc, d, newValidation(t, nil).Server(), prefix)
			c := bookingv1nats.NewBookingServiceClient(dial(t, nc, append(opts, prefix)...))
			ctx := testContext(t)

			_, err := c.Book(ctx, aBooking())
			must(t, err)
			bad := aBooking()
			bad.Room, bad.Nights = "cellar", 31
			bad.Guests = append(bad.Guests, &bookingv1.Guest{Mail: "nobody"})
			_, err = c.Book(ctx, bad)
			wantInvalid(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun, "room", "nights", "guests[1].name", "guests[1].mail")
			if got := d.seen(); !slices.Equal(got, []string{"sea-7"}) {
				t.Errorf("the handlers got %q", got)
			}
			if strings.HasPrefix(name, "plain") {
				return // plain requests that stream are those of nats req
			}
			_, err = readAll(c.Watch(ctx, &bookingv1.WatchRequest{}))
			wantInvalid(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun, "room")
			rooms, err := readAll(c.Watch(ctx, &bookingv1.WatchRequest{Room: "sea-8"}))
			if err != nil || !slices.Equal(rooms, []string{"sea-8", "1", "sea-8"}) {
				t.Errorf("a stream has %q, %v", rooms, err)
			}
			if got := d.seen(); !slices.Equal(got, []string{"sea-7", "sea-8"}) {
				t.Errorf("the handlers got %q", got)
			}
		})
	}
}

// readAll reads a stream to its end.
func readAll(r *rpc.Receiver[*bookingv1.WatchResponse], err error) (rooms []string, _ error) {
	if err != nil {
		return nil, err
	}
	for m, err := range r.All() {
		if err != nil {
			return rooms, err
		}
		rooms = append(rooms, m.GetRoom())
	}
	return rooms, nil
}

// TestOneWay: an event that breaks rules is not handled.
func TestOneWay(t *testing.T) {
	nc := connect(t)
	d := &desk{}
	ended := make(chan error)
	watch := rpc.WithInterceptors(func(ctx context.Context, call *rpc.Call, next rpc.Next) error {
		call.OnEnd(func(err error) { ended <- err })
		return next(ctx, call)
	})
	serve(t, nc, d, newValidation(t, nil).Server(), watch)
	c := bookingv1nats.NewBookingServiceClient(dial(t, nc))
	must(t, c.Note(testContext(t), &bookingv1.NoteRequest{}))
	wantInvalid(t, <-ended, rpc.CodeInvalidArgument, rpc.ExecutionNotRun, "room")
	must(t, nc.Publish("booking.v1.BookingService.Note", []byte(`{"room": ""}`)))
	wantInvalid(t, <-ended, rpc.CodeInvalidArgument, rpc.ExecutionNotRun, "room")
	must(t, nc.Publish("booking.v1.BookingService.Note", []byte(`{"room": "sea-7"}`)))
	must(t, <-ended)
	if got := d.seen(); !slices.Equal(got, []string{"sea-7"}) {
		t.Errorf("the handler got %q", got)
	}
}

// TestClientStreams: each message is checked, and the first bad one ends the stream.
func TestClientStreams(t *testing.T) {
	nc := connect(t)
	for name, opts := range map[string][]rpc.ClientOption{"Protobuf": nil, "JSON": {rpc.WithCodec(rpc.CodecJSON)}} {
		t.Run(name, func(t *testing.T) {
			d := &desk{number: "1", nights: 3}
			prefix := rpc.WithSubjectPrefix(name)
			serve(t, nc, d, newValidation(t, nil).Server(), prefix)
			c := bookingv1nats.NewBookingServiceClient(dial(t, nc, append(opts, prefix)...))
			for _, bad := range []bool{false, true} {
				s, err := c.Import(testContext(t))
				must(t, err)
				must(t, s.Send(&bookingv1.ImportRequest{First: 1, Last: 3}))
				if bad {
					must(t, s.Send(&bookingv1.ImportRequest{First: 3, Last: 1}))
				}
				res, err := s.CloseAndRecv()
				if !bad && (err != nil || res.GetNights() != 3) {
					t.Errorf("import: %v, %v", res, err)
				} else if bad {
					wantInvalid(t, err, rpc.CodeInvalidArgument, rpc.ExecutionDidRun, "")
					if !strings.Contains(err.Error(), "last must not be before first") {
						t.Errorf("import: %v", err)
					}
				}
			}
			s, err := c.Change(testContext(t))
			must(t, err)
			must(t, s.Send(&bookingv1.ChangeRequest{Room: "sea-7"}))
			if m, err := s.Recv(); err != nil || m.GetRoom() != "sea-7" {
				t.Fatalf("change: %v, %v", m, err)
			}
			must(t, s.Send(&bookingv1.ChangeRequest{}))
			_, err = s.Recv()
			wantInvalid(t, err, rpc.CodeInvalidArgument, rpc.ExecutionDidRun, "room")
			if got := d.seen(); !slices.Equal(got, []string{"import", "import", "sea-7"}) {
				t.Errorf("the handlers got %q", got)
			}
		})
	}
}

// TestPlainAnswer: what `nats req` shows.
func TestPlainAnswer(t *testing.T) {
	nc := connect(t)
	serve(t, nc, &desk{}, newValidation(t, nil).Server())
	for _, subject := range []string{"booking.v1.BookingService.Book", "booking.v1.BookingService.Watch"} {
		msg, err := nc.RequestWithContext(testContext(t), subject, []byte(`{"room": ""}`))
		must(t, err)
		if code, text := msg.Header.Get("Nats-Service-Error-Code"), msg.Header.Get("Nats-Service-Error"); code != "3" || !strings.Contains(text, "room: ") {
			t.Errorf("%s: %q, %q", subject, code, text)
		}
		var status struct {
			Details []struct {
				Type       string `json:"@type"`
				Violations []struct {
					Field   struct{ Elements []struct{ FieldName string } }
					RuleID  string `json:"ruleId"`
					Message string
				}
			}
		}
		must(t, json.Unmarshal(msg.Data, &status))
		if len(status.Details) != 1 || status.Details[0].Type != "type.googleapis.com/buf.validate.Violations" {
			t.Fatalf("%s: %s", subject, msg.Data)
		}
		if v := status.Details[0].Violations[0]; v.Field.Elements[0].FieldName != "room" || v.RuleID == "" || v.Message == "" {
			t.Errorf("%s: %s", subject, msg.Data)
		}
	}
}

// TestLargeRequest: one that comes in pieces is checked too.
func TestLargeRequest(t *testing.T) {
	nc := connect(t)
	d := &desk{number: "1"}
	serve(t, nc, d, newValidation(t, nil).Server())
	c := bookingv1nats.NewBookingServiceClient(dial(t, nc))
	for bad := range 2 {
		req := aBooking()
		for range nc.MaxPayload() / 80 {
			req.Guests = append(req.Guests, &bookingv1.Guest{Name: strings.Repeat("a", 100)})
		}
		if bad == 0 {
			_, err := c.Book(testContext(t), req)
			must(t, err)
			continue
		}
		req.Guests[5000].Name = ""
		_, err := c.Book(testContext(t), req)
		wantInvalid(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun, "guests[5000].name")
	}
	if got := d.seen(); len(got) != 1 {
		t.Errorf("the handler ran %d times", len(got))
	}
}

// TestManyViolations: the answer to a request that is wrong everywhere is of bounded size.
func TestManyViolations(t *testing.T) {
	nc := connect(t)
	serve(t, nc, &desk{}, newValidation(t, nil).Server())
	c := bookingv1nats.NewBookingServiceClient(dial(t, nc))
	req := aBooking()
	for range 1000 {
		req.Guests = append(req.Guests, &bookingv1.Guest{})
	}
	_, err := c.Book(testContext(t), req)
	e := wantCode(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun)
	detail, _ := rpc.Detail[*validate.Violations](err)
	if n := len(detail.GetViolations()); n != 100 {
		t.Errorf("%d details", n)
	}
	if m := e.Message(); !strings.HasSuffix(m, "; and 990 more") || !strings.Contains(m, "guests[10].name") || strings.Contains(m, "guests[11].name") {
		t.Errorf("message %q", m)
	}

	serve(t, nc, &desk{}, newValidation(t, nil, rpcvalidate.WithFailFast()).Server(), rpc.WithSubjectPrefix("fast"))
	fast := bookingv1nats.NewBookingServiceClient(dial(t, nc, rpc.WithSubjectPrefix("fast")))
	_, err = fast.Book(testContext(t), req)
	wantInvalid(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun, "guests[1].name")
}

// TestFailingRules: rules that cannot be evaluated are not the caller's fault, and it is not told
// why.
func TestFailingRules(t *testing.T) {
	nc := connect(t)
	out := &logs{}
	serve(t, nc, &desk{}, newValidation(t, out).Server())
	c := bookingv1nats.NewBookingServiceClient(dial(t, nc))
	s, err := c.Change(testContext(t))
	must(t, err)
	must(t, s.Send(&bookingv1.ChangeRequest{Room: "sea-7", Price: 1}))
	_, err = s.Recv()
	e := wantCode(t, err, rpc.CodeInternal, rpc.ExecutionDidRun)
	if len(e.Details()) > 0 || strings.Contains(e.Message(), "change.price") {
		t.Errorf("the caller learns %v, %v", e, e.Details())
	}
	for _, part := range []string{"level=ERROR", "/booking.v1.BookingService/Change", "change.price", "division by zero"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("the log lacks %q:\n%s", part, out)
		}
	}
}

// TestUndecoded: what does not decode is refused as it is without a validation.
func TestUndecoded(t *testing.T) {
	nc := connect(t)
	serve(t, nc, &desk{}, newValidation(t, nil).Server())
	msg, err := nc.RequestWithContext(testContext(t), "booking.v1.BookingService.Book", []byte(`{"room": 1}`))
	must(t, err)
	if code := msg.Header.Get("Nats-Service-Error-Code"); code != "3" {
		t.Errorf("code %q: %s", code, msg.Data)
	}
	raw := rpc.NewRawMethod(bookingv1nats.BookingServiceMethods.Change.Service(), rpc.MethodDesc{Name: "Change"}, rpc.KindBidi)
	s, err := raw.Open(testContext(t), dial(t, nc), nil)
	must(t, err)
	defer s.Close()
	must(t, s.Send(&rpc.Raw{Codec: rpc.CodecProto, Data: []byte{0xff}}))
	var m rpc.Raw
	wantCode(t, s.Recv(&m), rpc.CodeInvalidArgument, rpc.ExecutionDidRun)
}

// TestFilter: methods that are left out are not checked.
func TestFilter(t *testing.T) {
	nc := connect(t)
	var asked []string
	onlyNote := rpcvalidate.WithFilter(func(method string) bool {
		asked = append(asked, method)
		return method == bookingv1nats.BookingServiceNoteMethod
	})
	d := &desk{number: "1"}
	serve(t, nc, d, newValidation(t, nil, onlyNote).Server())
	want := []string{
		bookingv1nats.BookingServiceBookMethod, bookingv1nats.BookingServiceCancelMethod, bookingv1nats.BookingServiceNoteMethod,
		bookingv1nats.BookingServiceWatchMethod, bookingv1nats.BookingServiceImportMethod, bookingv1nats.BookingServiceChangeMethod,
	}
	if !slices.Equal(asked, want) {
		t.Errorf("the filter was asked for %q", asked)
	}
	c := bookingv1nats.NewBookingServiceClient(dial(t, nc))
	_, err := c.Book(testContext(t), &bookingv1.BookRequest{})
	must(t, err)
}

// TestInside: the checks come after the interceptors of the server and the service, which may
// refuse a call before.
func TestInside(t *testing.T) {
	nc := connect(t)
	srv := rpc.NewServer(nc, newValidation(t, nil).Server())
	deny := rpc.WithInterceptors(func(_ context.Context, call *rpc.Call, _ rpc.Next) error {
		return rpc.Errorf(rpc.CodePermissionDenied, "no")
	})
	must(t, bookingv1nats.RegisterBookingServiceServer(srv, &desk{}, deny))
	run(t, srv)
	_, err := bookingv1nats.NewBookingServiceClient(dial(t, nc)).Book(testContext(t), &bookingv1.BookRequest{})
	wantCode(t, err, rpc.CodePermissionDenied, rpc.ExecutionNotRun)
}

// TestService: the option is one of a service too.
func TestService(t *testing.T) {
	nc := connect(t)
	srv := rpc.NewServer(nc)
	must(t, bookingv1nats.RegisterBookingServiceServer(srv, &desk{}, newValidation(t, nil).Server()))
	run(t, srv)
	_, err := bookingv1nats.NewBookingServiceClient(dial(t, nc)).Book(testContext(t), &bookingv1.BookRequest{Room: "a-1"})
	wantInvalid(t, err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun, "nights")
}

// TestResponses: a response that breaks rules is not sent. Why it is not is in the log of the
// server, and the caller learns nothing of it.
func TestResponses(t *testing.T) {
	for _, shape := range shapes {
		t.Run(shape.name, func(t *testing.T) {
			nc := connect(t)
			out := &logs{}
			d := &desk{}
			serve(t, nc, d, newValidation(t, out, rpcvalidate.WithResponses()).Server())
			c := bookingv1nats.NewBookingServiceClient(dial(t, nc))
			got, err := shape.call(testContext(t), c)
			e := wantCode(t, err, rpc.CodeInternal, rpc.ExecutionDidRun)
			if len(e.Details()) > 0 || !strings.Contains(e.Message(), "the response breaks rules") {
				t.Errorf("the caller learns %v, %v", e, e.Details())
			}
			if got != shape.before {
				t.Errorf("the caller got %q, want %q", got, shape.before)
			}
			for _, part := range []string{"a response breaks rules", "/booking.v1.BookingService/" + shape.name, shape.field + ": "} {
				if !strings.Contains(out.String(), part) {
					t.Errorf("the log lacks %q:\n%s", part, out)
				}
			}
			for _, err := range d.errs() {
				if rpc.CodeOf(err) != rpc.CodeInternal {
					t.Errorf("the handler got %v", err)
				}
			}

			serve(t, nc, &desk{number: "1", nights: 1}, newValidation(t, out, rpcvalidate.WithResponses()).Server(), rpc.WithSubjectPrefix("good"))
			_, err = shape.call(testContext(t), bookingv1nats.NewBookingServiceClient(dial(t, nc, rpc.WithSubjectPrefix("good"))))
			must(t, err)
		})
	}
}

// shapes are calls with a response, of a desk that has no number and no nights.
var shapes = []struct {
	name   string
	field  string // that is wrong in the response
	before string // what the caller gets before the error
	call   func(context.Context, bookingv1nats.BookingServiceClient) (string, error)
}{
	{"Book", "number", "", func(ctx context.Context, c bookingv1nats.BookingServiceClient) (string, error) {
		res, err := c.Book(ctx, aBooking())
		return res.GetNumber(), err
	}},
	{"Watch", "room", "sea-7 sea-7", func(ctx context.Context, c bookingv1nats.BookingServiceClient) (string, error) {
		rooms, err := readAll(c.Watch(ctx, &bookingv1.WatchRequest{Room: "sea-7"}))
		return strings.Join(rooms, " "), err
	}},
	{"Import", "nights", "", func(ctx context.Context, c bookingv1nats.BookingServiceClient) (string, error) {
		s, err := c.Import(ctx)
		if err != nil {
			return "", err
		}
		_, err = s.CloseAndRecv()
		return "", err
	}},
	{"Change", "room", "", func(ctx context.Context, c bookingv1nats.BookingServiceClient) (string, error) {
		s, err := c.Change(ctx)
		if err != nil {
			return "", err
		}
		if err := s.Send(&bookingv1.ChangeRequest{Room: "sea-7"}); err != nil {
			return "", err
		}
		s.CloseSend()
		if _, err := s.Recv(); err != nil {
			return "", err
		}
		if _, err := s.Recv(); !errors.Is(err, io.EOF) {
			return "", err
		}
		return "", nil
	}},
}

// TestPlainStream: the messages of a stream to a plain client are checked.
func TestPlainStream(t *testing.T) {
	nc := connect(t)
	serve(t, nc, &desk{}, newValidation(t, &logs{}, rpcvalidate.WithResponses()).Server())
	inbox := nc.NewRespInbox()
	sub, err := nc.SubscribeSync(inbox)
	must(t, err)
	must(t, nc.PublishRequest("booking.v1.BookingService.Watch", inbox, []byte(`{"room": "sea-7"}`)))
	var last *nats.Msg
	n := 0
	for last == nil || last.Header.Get("Nats-Service-Error-Code") == "" {
		last, err = sub.NextMsgWithContext(testContext(t))
		must(t, err)
		n++
	}
	if code := last.Header.Get("Nats-Service-Error-Code"); code != "13" || n != 3 {
		t.Errorf("%d messages, code %s: %v", n, code, last.Header)
	}
}

// TestGather: the request of a gathering is checked by each server.
func TestGather(t *testing.T) {
	nc := connect(t)
	serve(t, nc, &desk{}, newValidation(t, nil).Server())
	c := dial(t, nc, newValidation(t, nil).Client())
	for row := range bookingv1nats.BookingServiceMethods.Book.Gather(testContext(t), c, &bookingv1.BookRequest{Room: "a-1"}).All() {
		wantInvalid(t, row.Err, rpc.CodeInvalidArgument, rpc.ExecutionNotRun, "nights")
	}
}
