// Package rpclog logs calls with log/slog: one record a call, on clients and servers, at a level
// that follows its code.
//
//	calls, err := rpclog.NewInterceptor(slog.Default(), rpclog.WithSlow(time.Second))
//	...
//	srv := rpc.NewServer(nc, rpc.WithInterceptors(calls))
//
// A call whose record no handler wants costs no allocation.
package rpclog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/natscall/natscall/rpc"
)

// Option is an option of [NewInterceptor].
type Option func(*options) error

type options struct {
	level    func(code rpc.Code, onServer bool) slog.Level
	slow     time.Duration // 0 is none
	attrs    func(context.Context, *rpc.Call) []slog.Attr
	messages int // how many bytes of each are logged; 0 is none
	redact   func(protoreflect.FieldDescriptor) bool
}

// DefaultLevel is the level of the record of a call with a code. On a server a call that succeeds,
// or fails because of its caller, has level Info; UNKNOWN, INTERNAL and DATA_LOSS have level Error,
// and the other codes Warn. On a client success has level Debug, and the others are the same.
func DefaultLevel(code rpc.Code, onServer bool) slog.Level {
	switch code {
	case rpc.CodeOK:
		if !onServer {
			return slog.LevelDebug
		}
		return slog.LevelInfo
	case rpc.CodeCanceled, rpc.CodeInvalidArgument, rpc.CodeNotFound, rpc.CodeAlreadyExists, rpc.CodeFailedPrecondition,
		rpc.CodeAborted, rpc.CodeOutOfRange:
		return slog.LevelInfo
	case rpc.CodeUnknown, rpc.CodeInternal, rpc.CodeDataLoss:
		return slog.LevelError
	}
	return slog.LevelWarn
}

// WithLevel replaces [DefaultLevel]. f is asked once for each code.
func WithLevel(f func(code rpc.Code, onServer bool) slog.Level) Option {
	return func(o *options) error { o.level = f; return notNil("WithLevel", f != nil) }
}

// WithSlow makes the record of a call that takes d or longer at least a warning, with slow=true.
// Streams are never slow, since they are there to last. The default is that no call is slow.
func WithSlow(d time.Duration) Option {
	return func(o *options) error {
		if o.slow = d; d <= 0 {
			return fmt.Errorf("WithSlow(%v): must be greater than 0", d)
		}
		return nil
	}
}

// WithAttrs adds attributes to each record, such as a trace id from ctx or the tenant from the
// header. f runs only for records that are written, when the call has ended.
func WithAttrs(f func(ctx context.Context, call *rpc.Call) []slog.Attr) Option {
	return func(o *options) error { o.attrs = f; return notNil("WithAttrs", f != nil) }
}

// WithMessages adds the request and the response as JSON, where there is a single one. What is
// longer than maxBytes is cut. Fields with the option debug_redact are redacted: a text becomes
// "[redacted]", anything else is left out. So are unknown fields, and what is in an Any whose type
// is not linked. The default is that no message is logged.
func WithMessages(maxBytes int) Option {
	return func(o *options) error {
		if o.messages = maxBytes; maxBytes <= 0 {
			return fmt.Errorf("WithMessages(%d): must be greater than 0", maxBytes)
		}
		return nil
	}
}

// WithRedact makes [WithMessages] also redact the fields for which f reports true. f may be called
// concurrently.
func WithRedact(f func(protoreflect.FieldDescriptor) bool) Option {
	return func(o *options) error { o.redact = f; return notNil("WithRedact", f != nil) }
}

func notNil(option string, ok bool) error {
	if ok {
		return nil
	}
	return fmt.Errorf("%s(nil)", option)
}

// NewInterceptor returns an interceptor for clients and servers that writes one record for each
// call when it is over on that side: "call served" or "call made", with the attributes
//
//	method     as in "/order.v1.OrderService/PlaceOrder"
//	code       as in "not_found"
//	duration   of the call, of a stream until its end
//	error      the message, if the call has failed
//	execution  whether a failed call has run, as in "not run"
//	instance   that serves the call, where that is known
//	call       the id of the request, on a server
//	queue      how long the request has waited, if that was a millisecond or more
//	slow       true, if it was (WithSlow)
//
// The context of a record is the interceptor's, so a handler of slog may add the ids of a trace
// that an interceptor before this one has begun. A nil log is [slog.Default] at the time of the
// call.
//
// A request that a server refuses on arrival has no record there, as no interceptor sees it. The
// client's says why.
func NewInterceptor(log *slog.Logger, opts ...Option) (rpc.Interceptor, error) {
	o := options{level: DefaultLevel}
	for _, opt := range opts {
		if opt == nil {
			return nil, errors.New("rpclog: an option is nil")
		}
		if err := opt(&o); err != nil {
			return nil, fmt.Errorf("rpclog: %w", err)
		}
	}
	l := &logger{options: o, given: log}
	l.client, l.server = newLevels(&o, false), newLevels(&o, true)
	return l.intercept, nil
}

// logger is what the calls of an interceptor share.
type logger struct {
	options
	given          *slog.Logger // nil for the default
	client, server levels
}

// levels are those of one side.
type levels struct {
	of      [rpc.CodeUnauthenticated + 1]slog.Level // by code
	highest slog.Level
}

func newLevels(o *options, onServer bool) (l levels) {
	for code := range l.of {
		l.of[code] = o.level(rpc.Code(code), onServer)
	}
	l.highest = slices.Max(l.of[:])
	if o.slow > 0 {
		l.highest = max(l.highest, slog.LevelWarn)
	}
	return l
}

func (l *logger) levels(call *rpc.Call) *levels {
	if call.OnServer() {
		return &l.server
	}
	return &l.client
}

func (l *logger) log() *slog.Logger {
	if l.given != nil {
		return l.given
	}
	return slog.Default()
}

// intercept is the interceptor. A client's call that does not stream is over when next returns, and
// needs no hook.
func (l *logger) intercept(ctx context.Context, call *rpc.Call, next rpc.Next) error {
	if !l.log().Enabled(ctx, l.levels(call).highest) {
		return next(ctx, call)
	}
	started := time.Now()
	if call.OnServer() || call.Kind() > rpc.KindOneWay {
		l.onEnd(ctx, call, started)
		return next(ctx, call)
	}
	err := next(ctx, call)
	l.ended(ctx, call, started, true, err)
	return err
}

// onEnd writes the record when the call is over. On a server its request is there only if it has
// been received: one that comes in a stream may never be.
func (l *logger) onEnd(ctx context.Context, call *rpc.Call, started time.Time) {
	received := !call.OnServer()
	if l.messages > 0 && !received && call.Kind() <= rpc.KindServerStream {
		call.OnReceive(func(*rpc.Message) error { received = true; return nil })
	}
	call.OnEnd(func(err error) { l.ended(ctx, call, started, received, err) })
}

// ended writes the record.
func (l *logger) ended(ctx context.Context, call *rpc.Call, started time.Time, received bool, err error) {
	took, code := time.Since(started), rpc.CodeOf(err)
	level := l.levels(call).of[min(code, rpc.CodeUnauthenticated)]
	slow := l.slow > 0 && took >= l.slow && call.Kind() <= rpc.KindOneWay
	if slow {
		level = max(level, slog.LevelWarn)
	}
	log := l.log()
	if !log.Enabled(ctx, level) {
		return
	}
	attrs := append(make([]slog.Attr, 0, 12),
		slog.String("method", call.Method()), slog.String("code", code.String()), slog.Duration("duration", took))
	attrs = appendOutcome(attrs, call, err)
	if slow {
		attrs = append(attrs, slog.Bool("slow", true))
	}
	if l.attrs != nil {
		attrs = append(attrs, l.attrs(ctx, call)...)
	}
	if l.messages > 0 {
		attrs = l.appendMessages(attrs, call, received)
	}
	text := "call made"
	if call.OnServer() {
		text = "call served"
	}
	log.LogAttrs(ctx, level, text, attrs...)
}

// minQueueTime is the shortest time in the queue that is worth a record's space.
const minQueueTime = time.Millisecond

func appendOutcome(attrs []slog.Attr, call *rpc.Call, err error) []slog.Attr {
	instance := call.Instance()
	var failed *rpc.Error
	switch {
	case err == nil:
	case errors.As(err, &failed):
		attrs = append(attrs, slog.String("error", failed.Message()), slog.String("execution", failed.Execution().String()))
		if failed.Instance() != "" {
			instance = failed.Instance()
		}
	default:
		attrs = append(attrs, slog.String("error", err.Error()))
	}
	if instance != "" {
		attrs = append(attrs, slog.String("instance", instance))
	}
	if id := call.ID(); id != "" {
		attrs = append(attrs, slog.String("call", id))
	}
	if waited := call.QueueTime(); waited >= minQueueTime {
		attrs = append(attrs, slog.Duration("queue", waited))
	}
	return attrs
}

// appendMessages appends the request and the response. One that is not there, or whose type is not
// known, is left out.
func (l *logger) appendMessages(attrs []slog.Attr, call *rpc.Call, received bool) []slog.Attr {
	if received {
		if req, err := call.Request(); err == nil && req != nil {
			attrs = append(attrs, slog.Any("request", l.text(req)))
		}
	}
	if res := call.Response(); res != nil && call.Kind() != rpc.KindOneWay {
		attrs = append(attrs, slog.Any("response", l.text(res)))
	}
	return attrs
}

// cut shortens a text to the limit, and says by how much.
func (l *logger) cut(text string) string {
	if len(text) <= l.messages {
		return text
	}
	return strings.ToValidUTF8(text[:l.messages], "") + fmt.Sprintf("... (%d bytes)", len(text))
}
