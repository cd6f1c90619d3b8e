package rpcvalidate_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"buf.build/gen/go/bufbuild/protovalidate/protocolbuffers/go/buf/validate"
	"buf.build/go/protovalidate"
	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"
	"github.com/natscall/natscall/rpc/rpctest"
	"github.com/natscall/natscall/rpc/rpcvalidate"
	bookingv1 "github.com/natscall/natscall/rpc/rpcvalidate/internal/gen/booking/v1"
	"github.com/natscall/natscall/rpc/rpcvalidate/internal/gen/booking/v1/bookingv1nats"
)

// desk implements the booking service, and notes what its handlers get and send.
type desk struct {
	number string // in the responses of Book, and the rooms of others
	nights uint32 // in the response of Import

	mu    sync.Mutex
	got   []string // rooms
	ended []error  // what the handlers of streams have returned, or got from Recv or Send
}

func (d *desk) note(room string, err error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err != nil {
		d.ended = append(d.ended, err)
	} else {
		d.got = append(d.got, room)
	}
	return err
}

// seen returns what the handlers have got.
func (d *desk) seen() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.got)
}

// errs returns the errors that the handlers of streams have got.
func (d *desk) errs() []error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.ended)
}

func (d *desk) Book(_ context.Context, req *bookingv1.BookRequest) (*bookingv1.BookResponse, error) {
	return &bookingv1.BookResponse{Number: d.number}, d.note(req.GetRoom(), nil)
}

func (d *desk) Cancel(_ context.Context, req *bookingv1.CancelRequest) (*bookingv1.CancelResponse, error) {
	return &bookingv1.CancelResponse{Number: req.GetNumber()}, d.note(req.GetNumber(), nil)
}

func (d *desk) Note(_ context.Context, req *bookingv1.NoteRequest) error {
	return d.note(req.GetRoom(), nil)
}

// Watch sends the room of the request, that of d, and the first again, and takes no notice of what
// Send says.
func (d *desk) Watch(_ context.Context, req *bookingv1.WatchRequest, to *rpc.Sender[*bookingv1.WatchResponse]) error {
	_ = d.note(req.GetRoom(), nil)
	for _, room := range []string{req.GetRoom(), d.number, req.GetRoom()} {
		if err := to.Send(&bookingv1.WatchResponse{Room: room}); err != nil {
			_ = d.note("", err)
		}
	}
	return nil
}

func (d *desk) Import(_ context.Context, from *rpc.Receiver[*bookingv1.ImportRequest]) (*bookingv1.ImportResponse, error) {
	for _, err := range from.All() {
		if d.note("import", err) != nil {
			return nil, err
		}
	}
	return &bookingv1.ImportResponse{Nights: d.nights}, nil
}

func (d *desk) Change(_ context.Context, with *rpc.BidiStream[*bookingv1.ChangeResponse, *bookingv1.ChangeRequest]) error {
	for m, err := range with.All() {
		if d.note(m.GetRoom(), err) != nil {
			return err
		}
		room := m.GetRoom()
		if d.number == "" {
			room = ""
		}
		if err := with.Send(&bookingv1.ChangeResponse{Room: room}); err != nil {
			return d.note("", err)
		}
	}
	return nil
}

// serve serves the booking service until the test ends.
func serve(t testing.TB, nc *nats.Conn, d bookingv1nats.BookingServiceServer, opts ...rpc.ServerOption) *rpc.Server {
	t.Helper()
	s := rpc.NewServer(nc, append([]rpc.ServerOption{rpc.WithLogger(quiet)}, opts...)...)
	must(t, bookingv1nats.RegisterBookingServiceServer(s, d))
	run(t, s)
	return s
}

// run starts a server, and stops it when the test ends.
func run(t testing.TB, s *rpc.Server) {
	t.Helper()
	must(t, s.Start(testContext(t)))
	t.Cleanup(func() {
		if err := s.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
}

func dial(t testing.TB, nc *nats.Conn, opts ...rpc.ClientOption) *rpc.Client {
	c := rpc.NewClient(nc, opts...)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// newValidation returns one that logs to out, if that is not nil.
func newValidation(t testing.TB, out *logs, opts ...rpcvalidate.Option) *rpcvalidate.Validation {
	t.Helper()
	if out != nil {
		opts = append(opts, rpcvalidate.WithLogger(slog.New(slog.NewTextHandler(out, nil))))
	}
	v, err := rpcvalidate.New(opts...)
	must(t, err)
	return v
}

// logs is what a logger has written.
type logs struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logs) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// wantInvalid checks the error of a message that breaks rules: code, execution, the text, and the
// fields in the details.
func wantInvalid(t testing.TB, err error, code rpc.Code, x rpc.Execution, fields ...string) {
	t.Helper()
	e := wantCode(t, err, code, x)
	detail, ok := rpc.Detail[*validate.Violations](err)
	if !ok {
		t.Fatalf("%v has the details %v", err, e.Details())
	}
	var got []string
	for _, v := range detail.GetViolations() {
		got = append(got, protovalidate.FieldPathString(v.GetField()))
	}
	if !slices.Equal(got, fields) {
		t.Errorf("%v: the details are of %q, want %q", err, got, fields)
	}
	for _, field := range fields {
		if !strings.Contains(e.Message(), field) {
			t.Errorf("%v does not name %s", err, field)
		}
	}
}

func wantCode(t testing.TB, err error, code rpc.Code, x rpc.Execution) *rpc.Error {
	t.Helper()
	var e *rpc.Error
	if !errors.As(err, &e) {
		t.Fatalf("error is %T (%v), want an *rpc.Error with code %v", err, err, code)
	}
	if e.Code() != code || e.Execution() != x {
		t.Fatalf("error is %v (%v), want code %v (%v)", e, e.Execution(), code, x)
	}
	return e
}

// forms are the forms in which clients send requests.
var forms = map[string][]rpc.ClientOption{
	"Protobuf":       nil,
	"JSON":           {rpc.WithCodec(rpc.CodecJSON)},
	"plain Protobuf": {rpc.WithPlainRequests()},
	"plain JSON":     {rpc.WithPlainRequests(), rpc.WithCodec(rpc.CodecJSON)},
}

// testContext has a deadline far beyond what any step of a test takes.
func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// quiet is the logger of what is meant to go wrong.
var quiet = slog.New(slog.DiscardHandler)

// connect returns a connection to a NATS server of the test.
func connect(t testing.TB) *nats.Conn { return rpctest.Connect(t) }
