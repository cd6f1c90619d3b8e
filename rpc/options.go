package rpc

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/natscall/natscall/internal/names"
	"github.com/natscall/natscall/rpc/internal/admission"
	"github.com/natscall/natscall/rpc/internal/wire"
)

const (
	// defaultTimeout bounds a call that has no timeout of its own: long enough for slow work, short
	// enough that nothing waits forever.
	defaultTimeout = 30 * time.Second
	// defaultClientTimeout is shorter, since it is also how long a call waits for a service that is
	// not there.
	defaultClientTimeout = 10 * time.Second
	// defaultReconnectWait is more than what nats.go waits before it tries another NATS server
	// (nats.ReconnectWait, 2 s) with its jitter and a handshake.
	defaultReconnectWait = 3 * time.Second
	// defaultMaxSize bounds the memory of one message.
	defaultMaxSize = 16 << 20
	// defaultConcurrency is the number of handlers of a service that run at once. A waiting handler
	// takes a few KiB, so a small machine carries this many easily.
	defaultConcurrency = 1024
	// queueAsConcurrency means that as many requests wait for a handler as run, so that a request
	// of a burst waits for the time of one handler at most.
	queueAsConcurrency = -1
	// defaultMaxStreams is how many streams of a service are open at once. An idle one takes some
	// KiB, most of them for its handler's stack.
	defaultMaxStreams = 10_000
	// defaultHeartbeat is far below the two minutes after which accounts forget a reply subject,
	// and long enough to cost nothing.
	defaultHeartbeat = 10 * time.Second
	// defaultPlainBytes and defaultPlainTime are enough to try a stream by hand.
	defaultPlainBytes = 64 << 20
	defaultPlainTime  = 30 * time.Second
	// defaultGracePeriod is how long Run waits for running handlers. Orchestrators give a process
	// 30 s.
	defaultGracePeriod = 25 * time.Second
)

// ClientOption is an option of [NewClient]: [WithBatching], [WithForcedReconnect],
// [WithMethodOptions], [WithRetryBudget], and each [ClientCallOption], [PeerOption],
// [PeerCallOption] and [AnyOption].
type ClientOption interface{ applyClient(*clientOptions) error }

// CallOption is an option of one call: [WithInstance], [WithIdempotencyKey], [ResponseHeader],
// [ResponseTrailer], [ResponseInstance], and each [ClientCallOption], [PeerCallOption] and
// [AnyOption]. An invalid one fails the call with CodeInvalidArgument.
type CallOption interface{ applyCall(*callOptions) error }

// ServerOption is an option of [NewServer]: [WithGracePeriod], [WithMaxTimeout],
// [WithPlainStreamLimits], and each [PeerOption], [PeerCallOption], [ServerServiceOption] and
// [AnyOption].
type ServerOption interface{ applyServer(*serverOptions) error }

// ServiceOption is an option of the registration of a service: [WithMethodLimits], and each
// [ServerServiceOption] and [AnyOption].
type ServiceOption interface{ applyService(*serviceOptions) error }

// ClientCallOption is an option of a client, where it is the default of its calls, and of a call.
type ClientCallOption interface {
	ClientOption
	CallOption
}

// PeerOption is an option of a client or a server.
type PeerOption interface {
	ClientOption
	ServerOption
}

// PeerCallOption is an option of a client, where it is the default of its calls, of a call, and of
// a server.
type PeerCallOption interface {
	ClientOption
	CallOption
	ServerOption
}

// AnyOption is an option of a client, a call, a server and the registration of a service.
type AnyOption interface {
	ClientOption
	CallOption
	ServerOption
	ServiceOption
}

// ServerServiceOption is an option of a server, where it is the default of its services, and of
// the registration of a service.
type ServerServiceOption interface {
	ServerOption
	ServiceOption
}

type clientOptions struct {
	callOptions // the defaults of the calls
	peerOptions
	maxBatch  int  // bytes
	reconnect bool // where NATS has gone silent
	budget    retryBudget
	methods   map[string]*methodOptions // by full name, of those that have their own
}

// methodOptions are those of the calls of a method.
type methodOptions struct {
	opts   []ClientCallOption
	result callOptions // the client's, and then opts
}

// applyMethods makes the options of methods, when those of the client are complete.
func (o *clientOptions) applyMethods() error {
	var errs []error
	for name, m := range o.methods {
		m.result = o.callOptions
		for _, opt := range m.opts {
			errs = append(errs, named("WithMethodOptions("+name+"):", opt.applyCall(&m.result)))
		}
	}
	return errors.Join(errs...)
}

// of returns the options of the calls of a method.
func (o *clientOptions) of(m *method) *callOptions {
	if own := o.methods[m.FullName()]; own != nil {
		return &own.result
	}
	return &o.callOptions
}

type peerOptions struct {
	heartbeat    time.Duration
	prefix       string
	interceptors []Interceptor
}

// sizeLimits bound the encoded size of a message, in bytes.
type sizeLimits struct{ send, receive int }

type callOptions struct {
	sizes         sizeLimits
	timeout       time.Duration // of this call; 0 means unset, wire.NoTimeout none
	reconnectWait time.Duration
	clientTimeout time.Duration // the client's default
	codec         Codec
	json          jsonOptions
	compression   Compression
	plain         bool
	retry         retryOptions
	header        Header
	instance      string // that alone gets the request, or ""
	results       results
	interceptors  []Interceptor // of this call, inside those of the client
	logger        *slog.Logger
}

// results are where the caller wants what comes beside the response, each nil if it does not.
type results struct {
	header, trailer *Header
	instance        *string
}

type serverOptions struct {
	serviceOptions // the defaults of the services
	peerOptions
	sizes        sizeLimits
	json         jsonOptions
	plainStreams plainStreamLimits
	logger       *slog.Logger
	timeout      time.Duration
	maxTimeout   time.Duration // 0 is no limit
	grace        time.Duration
}

// plainStreamLimits bound plain streams to callers whose departure cannot be noticed.
type plainStreamLimits struct {
	bytes int
	time  time.Duration
}

// coding is how the call's messages are encoded.
func (o *callOptions) coding() coding { return coding{o.codec, o.json} }

type serviceOptions struct {
	concurrency  int
	queue        int
	streams      int
	methods      map[string]admission.Limits // by full name, of those that have their own
	queueGroup   string
	noQueueGroup bool
	metadata     map[string]string
	interceptors []Interceptor // of this service, inside those of the server
	ofMethods    []func(*Method) (Interceptor, error)
	noSchema     bool
	health       healthOptions
}

// limits returns those of the calls and of the streams of a service.
func (o *serviceOptions) limits() (calls, streams admission.Limits) {
	return admission.Limits{Running: o.concurrency, Waiting: o.queue}, admission.Limits{Running: o.streams}
}

// option implements all option interfaces. The result type of the function that makes it says for
// which of them it is valid.
type option struct {
	client  func(*clientOptions) error
	call    func(*callOptions) error
	server  func(*serverOptions) error
	service func(*serviceOptions) error
}

func (o option) applyClient(c *clientOptions) error   { return o.client(c) }
func (o option) applyCall(c *callOptions) error       { return o.call(c) }
func (o option) applyServer(s *serverOptions) error   { return o.server(s) }
func (o option) applyService(s *serviceOptions) error { return o.service(s) }

// forCalls makes an option of a call that is also a client's default.
func forCalls(set func(*callOptions) error) option {
	return option{call: set, client: func(o *clientOptions) error { return set(&o.callOptions) }}
}

// forServices makes an option of a service that is also a server's default.
func forServices(set func(*serviceOptions) error) option {
	return option{service: set, server: func(o *serverOptions) error { return set(&o.serviceOptions) }}
}

// forPeers makes an option that clients and servers share.
func forPeers(set func(*peerOptions) error) option {
	return option{
		client: func(o *clientOptions) error { return set(&o.peerOptions) },
		server: func(o *serverOptions) error { return set(&o.peerOptions) },
	}
}

// forSizes makes an option of clients, calls and servers.
func forSizes(set func(*sizeLimits) error) option {
	o := forCalls(func(o *callOptions) error { return set(&o.sizes) })
	o.server = func(o *serverOptions) error { return set(&o.sizes) }
	return o
}

// WithTimeout bounds calls.
//
// For a call: it ends after d, or at ctx's deadline if that is earlier.
//
// For a client: d is the default of calls for which neither ctx, nor the call, nor the .proto file
// sets a time. The default is 10 s. For a streaming method it only bounds how long the call waits
// for a server to be there.
//
// For a server: d is the default of requests that name no timeout, as those of plain NATS clients
// may, unless the .proto file sets one. The default is 30 s. It does not apply to streams of
// natscall clients.
func WithTimeout(d time.Duration) PeerCallOption {
	set := func(dst *time.Duration) error {
		if d <= 0 {
			return fmt.Errorf("WithTimeout(%v): must be greater than 0", d)
		}
		*dst = d
		return nil
	}
	return option{
		client: func(o *clientOptions) error {
			o.timeout = 0 // WithoutTimeout
			return set(&o.clientTimeout)
		},
		call:   func(o *callOptions) error { return set(&o.timeout) },
		server: func(o *serverOptions) error { return set(&o.timeout) },
	}
}

// WithoutTimeout makes calls without a timeout: none of the client's, the .proto file's and the
// server's default applies. A call ends at ctx's deadline, if there is one, when its replica dies,
// or at the server's [WithMaxTimeout]. How long it waits for a server to be there is still the
// client's default. A handler without a deadline is not told when its caller's process dies. A
// plain request has 24 hours, as its client notices no dead replica. A one-way message names no
// timeout: the server's default applies.
//
// On a client it is the default of the calls. [WithTimeout] on a call replaces it; of several on
// the same client or call the last one counts.
func WithoutTimeout() ClientCallOption {
	return forCalls(func(o *callOptions) error {
		o.timeout = wire.NoTimeout
		return nil
	})
}

// WithReconnectWait sets how long a call, or the opening of a stream, waits for a connection that
// is down when it is to be sent. It is sent once the connection is back, so it never waits in the
// reconnect buffer of nats.go, where it would run after its caller has gone. The default is 3 s; 0
// means that the call fails at once with CodeUnavailable. A connection that is closed or draining
// is never waited for.
func WithReconnectWait(d time.Duration) ClientCallOption {
	return forCalls(func(o *callOptions) error {
		if d < 0 {
			return fmt.Errorf("WithReconnectWait(%v): must not be negative", d)
		}
		o.reconnectWait = d
		return nil
	})
}

// WithForcedReconnect makes a client give up a connection on which nothing comes any more, and lets
// nats.go make another one. Where packets are dropped on the way, the operating system does not
// report an end, and nats.go notices only by its own pings, after four to six minutes unless
// nats.PingInterval and nats.MaxPingsOutstanding say otherwise.
//
// The client looks at the connection when an instance is silent. If NATS itself does not answer two
// pings within 1.5 s each, it logs that and, with this option, calls nats.Conn.ForceReconnect. That
// is about six seconds after the last sign of life. Everything that shares the connection is
// affected: streams on it end with CodeUnavailable.
func WithForcedReconnect() ClientOption {
	return option{client: func(o *clientOptions) error {
		o.reconnect = true
		return nil
	}}
}

// WithMaxTimeout bounds unary and one-way calls, whatever the caller and the .proto file say, and
// also those without a deadline. Streams are not bounded. The default is no limit.
func WithMaxTimeout(d time.Duration) ServerOption {
	return option{server: func(o *serverOptions) error {
		if d <= 0 {
			return fmt.Errorf("WithMaxTimeout(%v): must be greater than 0", d)
		}
		o.maxTimeout = d
		return nil
	}}
}

// WithSubjectPrefix puts prefix and a dot before all subjects of a client or server, except those
// of discovery, so that several systems can share one NATS account. Both sides must use the same
// prefix. The default is "", no prefix.
func WithSubjectPrefix(prefix string) PeerOption {
	return forPeers(func(o *peerOptions) error {
		if err := names.CheckPrefix(prefix); err != nil {
			return fmt.Errorf("WithSubjectPrefix: prefix %w", err)
		}
		o.prefix = prefix
		return nil
	})
}

// WithInterceptors adds interceptors after those of earlier options; the first is the outermost.
// Those of a client are outside those of a call, and those of a server outside those of a service.
func WithInterceptors(interceptors ...Interceptor) AnyOption {
	add := func(dst *[]Interceptor) error {
		for i, f := range interceptors {
			if f == nil {
				return fmt.Errorf("WithInterceptors: number %d is nil", i)
			}
		}
		*dst = append(slices.Clip(*dst), interceptors...)
		return nil
	}
	return option{
		client:  func(o *clientOptions) error { return add(&o.peerOptions.interceptors) },
		call:    func(o *callOptions) error { return add(&o.interceptors) },
		server:  func(o *serverOptions) error { return add(&o.peerOptions.interceptors) },
		service: func(o *serviceOptions) error { return add(&o.interceptors) },
	}
}

// WithMethodInterceptors makes an interceptor for each method of a service. Register calls f with
// each of them: f may return nil, as the interceptor of a method that needs none, or an error, with
// which Register fails. So what depends on the method is done once, and what is wrong with it is
// found before there are calls.
//
// These interceptors run inside those of [WithInterceptors], next to the handler; those of a server
// are outside those of a service.
func WithMethodInterceptors(f func(m *Method) (Interceptor, error)) ServerServiceOption {
	return forServices(func(o *serviceOptions) error {
		if f == nil {
			return errors.New("WithMethodInterceptors(nil)")
		}
		o.ofMethods = append(slices.Clip(o.ofMethods), f)
		return nil
	})
}

// WithServerOptions joins options into one, which applies them in order. It is for packages whose
// option is several of these.
func WithServerOptions(opts ...ServerServiceOption) ServerServiceOption {
	each := func(apply func(ServerServiceOption) error) error {
		for _, opt := range opts {
			if opt == nil {
				return errNilOption
			}
			if err := apply(opt); err != nil {
				return err
			}
		}
		return nil
	}
	return option{
		server: func(o *serverOptions) error {
			return each(func(opt ServerServiceOption) error { return opt.applyServer(o) })
		},
		service: func(o *serviceOptions) error {
			return each(func(opt ServerServiceOption) error { return opt.applyService(o) })
		},
	}
}

// WithMaxMessageSize bounds the encoded size of a message in bytes, in both directions:
// [WithMaxSendSize] and [WithMaxReceiveSize] bound them apart. A call with a larger one ends with
// CodeResourceExhausted. The default is 16 MiB. The maximum is 2 GiB less a byte, which is
// Protobuf's own limit; larger values mean that. A message that exceeds the NATS server's
// max_payload is sent as a stream; only plain and one-way messages are bounded by it.
func WithMaxMessageSize(bytes int) PeerCallOption {
	return forSizes(func(s *sizeLimits) error {
		return cmp.Or(setCount(&s.send, "WithMaxMessageSize", bytes, 1), setCount(&s.receive, "WithMaxMessageSize", bytes, 1))
	})
}

// WithMaxSendSize is WithMaxMessageSize for what this side sends: on a client requests, on a server
// responses.
func WithMaxSendSize(bytes int) PeerCallOption {
	return forSizes(func(s *sizeLimits) error { return setCount(&s.send, "WithMaxSendSize", bytes, 1) })
}

// WithMaxReceiveSize is WithMaxMessageSize for what this side receives: on a client responses,
// on a server requests. A compressed message counts as what it becomes.
func WithMaxReceiveSize(bytes int) PeerCallOption {
	return forSizes(func(s *sizeLimits) error { return setCount(&s.receive, "WithMaxReceiveSize", bytes, 1) })
}

// WithHeartbeat sets the interval in which each side of a stream sends a heartbeat. A peer from
// which nothing has come for three intervals is taken for dead. Client and server should use the
// same interval. The default is 10 s, the minimum a millisecond, the maximum a day; larger values
// mean that.
func WithHeartbeat(interval time.Duration) PeerOption {
	return forPeers(func(o *peerOptions) error {
		if interval < time.Millisecond {
			return fmt.Errorf("WithHeartbeat(%v): must be at least 1ms", interval)
		}
		o.heartbeat = min(interval, maxHeartbeat)
		return nil
	})
}

// maxCount replaces larger values of options that count, such as math.MaxInt. It is more than there
// can be of anything, and so small that sums and products of a few do not overflow.
const maxCount = math.MaxInt32

// setCount checks the value of an option and stores it.
func setCount(dst *int, name string, n, least int) error {
	if n < least {
		return fmt.Errorf("%s(%d): must be at least %d", name, n, least)
	}
	*dst = min(n, maxCount)
	return nil
}

// maxHeartbeat is longer than any stream is silent.
const maxHeartbeat = 24 * time.Hour

// WithBatching lets concurrent unary calls of the same method share a NATS message of at most
// maxBytes bytes, and their answers another. It is meant for many small calls at once; 16 KiB is a
// good bound. Batching never delays a call; a lone or larger call is sent on its own. It is off by
// default.
//
// Its price: A batch goes to one instance, so load is spread by batches and not by calls. A lost
// NATS message costs all of its calls. And a batch has several answers, where NATS permissions
// (allow_responses: true) and service imports of accounts allow one: they must be set to more (max:
// 256, response_type: stream), or answers are lost.
func WithBatching(maxBytes int) ClientOption {
	return option{client: func(o *clientOptions) error {
		return setCount(&o.maxBatch, "WithBatching", maxBytes, 1)
	}}
}

// WithMethodOptions sets defaults for the calls of one method, which replace those of the client.
// The method is its full name, as in the constants of generated code; a client cannot know whether
// there is such a method. The options of several WithMethodOptions for a method add up. Those of a
// call replace them.
func WithMethodOptions(method string, opts ...ClientCallOption) ClientOption {
	return option{client: func(o *clientOptions) error {
		if err := names.CheckMethod(method); err != nil {
			return fmt.Errorf("WithMethodOptions(%q): the method %w", method, err)
		}
		if slices.Contains(opts, nil) {
			return fmt.Errorf("WithMethodOptions(%q): %w", method, errNilOption)
		}
		if o.methods == nil {
			o.methods = map[string]*methodOptions{}
		}
		if o.methods[method] == nil {
			o.methods[method] = new(methodOptions)
		}
		o.methods[method].opts = append(o.methods[method].opts, opts...)
		return nil
	}}
}

// WithCodec sets the encoding of the messages. The default is CodecProto.
func WithCodec(codec Codec) ClientCallOption {
	return forCalls(func(o *callOptions) error {
		if codec > CodecJSON {
			return fmt.Errorf("WithCodec(%v): there is no such codec", codec)
		}
		o.codec = codec
		return nil
	})
}

// WithPlainRequests sends plain NATS requests, as docs/protocol.md defines them, instead of
// natscall's envelope. It is for services that are not built with natscall, such as those of NATS
// micro in any language. Cancellation then does not reach the handler, and a handler that has died
// is noticed only at the deadline.
func WithPlainRequests() ClientCallOption {
	return forCalls(func(o *callOptions) error { o.plain = true; return nil })
}

// WithHeader adds a value to the header of the request, or of all requests of a client. [Header]
// says which keys and values are allowed.
func WithHeader(key, value string) ClientCallOption {
	return forCalls(func(o *callOptions) error {
		if err := wire.CheckHeader(key, value); err != nil {
			return fmt.Errorf("WithHeader: %w", err)
		}
		h := Header{} // not the one of the client's defaults
		maps.Copy(h, o.header)
		key := h.spelled(key)
		h[key] = append(slices.Clip(h[key]), value)
		o.header = h
		return nil
	})
}

// ResponseHeader stores the header of the response in *h, and removes what was there before.
func ResponseHeader(h *Header) CallOption {
	return option{call: func(o *callOptions) error { o.results.header = h; return nil }}
}

// ResponseTrailer stores the trailer of the response, or of the error, in *h, and removes what was
// there before.
func ResponseTrailer(h *Header) CallOption {
	return option{call: func(o *callOptions) error { o.results.trailer = h; return nil }}
}

// ResponseInstance stores in *instance which instance has answered: its token, which [WithInstance]
// takes. After an error it is that of [Error.Instance]. The request asks for it, and the response
// needs a NATS header for it. A stream has the method Instance instead.
func ResponseInstance(instance *string) CallOption {
	return option{call: func(o *callOptions) error { o.results.instance = instance; return nil }}
}

// WithInstance sends the request to one instance, whatever its queue group is, or opens the stream
// there. The token is one that [Error.Instance], [ResponseInstance], the method Instance of a
// stream or [Server.Instance] has returned; discovery shows it as the id.
//
// No other instance gets the request: if the instance is not there or drains, the call fails at
// once with CodeUnavailable and ExecutionNotRun. If it does not have the method, the code is
// CodeUnimplemented.
func WithInstance(instance string) CallOption {
	return option{call: func(o *callOptions) error {
		if err := wire.CheckInstance(instance); err != nil {
			return fmt.Errorf("WithInstance: the instance %w", err)
		}
		o.instance = instance
		return nil
	}}
}

// WithLogger sets the log of a server or client. A server logs what it cannot or must not tell a
// caller, such as the stack of a panic; a client logs that it may not subscribe to its inbox, or
// may again, and a panic in a function of OnEnd or OnSent. The default is slog.Default().
func WithLogger(l *slog.Logger) PeerOption {
	check := func() error {
		if l == nil {
			return fmt.Errorf("WithLogger: the logger is nil")
		}
		return nil
	}
	return option{
		client: func(o *clientOptions) error { o.logger = l; return check() },
		server: func(o *serverOptions) error { o.logger = l; return check() },
	}
}

// WithGracePeriod sets how long Run waits for running handlers when its context has ended. The
// default is 25 s.
func WithGracePeriod(d time.Duration) ServerOption {
	return option{server: func(o *serverOptions) error {
		if d < 0 {
			return fmt.Errorf("WithGracePeriod(%v): must not be negative", d)
		}
		o.grace = d
		return nil
	}}
}

// WithPlainStreamLimits bounds a plain stream, as docs/protocol.md defines it, to a caller in
// another account or, over a gateway, another cluster. NATS does not report when such a caller
// leaves; any other caller's leaving is noticed. Beyond so many bytes Send fails with
// CodeResourceExhausted; after d the handler's context ends. The defaults are 64 MiB and 30 s; if
// either is 0, such streams are refused. The bytes also bound the stream of a request without a
// reply subject, which is sent to nobody.
func WithPlainStreamLimits(bytes int, d time.Duration) ServerOption {
	return option{server: func(o *serverOptions) error {
		if d < 0 {
			return fmt.Errorf("WithPlainStreamLimits(%d, %v): the time must not be negative", bytes, d)
		}
		limits := plainStreamLimits{time: d}
		if err := setCount(&limits.bytes, "WithPlainStreamLimits", bytes, 0); err != nil {
			return err
		}
		o.plainStreams = limits
		return nil
	}}
}

// WithMaxConcurrency sets how many handlers of a service run at once. The default is 1024, the
// maximum 2^31-1; larger values mean that. A handler that calls its own service needs room for that
// call too: if all running handlers wait for such calls, they all wait until their deadlines.
// Register the methods that such handlers call as a service of their own, or leave room.
func WithMaxConcurrency(n int) ServerServiceOption {
	return forServices(func(o *serviceOptions) error {
		return setCount(&o.concurrency, "WithMaxConcurrency", n, 1)
	})
}

// WithMaxStreams sets how many streams of a service are open at once; further ones are refused with
// CodeResourceExhausted. Streams do not count toward WithMaxConcurrency. The default is 10,000.
func WithMaxStreams(n int) ServerServiceOption {
	return forServices(func(o *serviceOptions) error {
		return setCount(&o.streams, "WithMaxStreams", n, 1)
	})
}

// WithMaxQueue sets how many requests of a service wait for a free handler; further ones are
// refused at once with CodeResourceExhausted. The default is as many as run ([WithMaxConcurrency]),
// so that none waits for longer than a handler takes; 0 means that none waits.
//
// A request whose deadline is too near for the wait is refused too, whatever room there is: see
// docs/reliability.md, Overload.
func WithMaxQueue(n int) ServerServiceOption {
	return forServices(func(o *serviceOptions) error {
		return setCount(&o.queue, "WithMaxQueue", n, 0)
	})
}

// WithMethodLimits sets how many handlers of a method run at once and how many of its requests wait
// for one, within the limits of its service; further ones are refused with CodeResourceExhausted.
// The method is its full name, as in the constants of generated code; Register fails if the service
// does not have it. For a streaming method, concurrency is the number of open streams, and the
// queue must be 0.
//
// Without it one method of a service has at most seven eighths of the places to run (of
// [WithMaxConcurrency] or [WithMaxStreams], if that is eight or more) and to wait, so that an
// overloaded method leaves room for the others. The only method of a service has all of them.
func WithMethodLimits(method string, concurrency, queue int) ServiceOption {
	return option{service: func(o *serviceOptions) error {
		if concurrency < 1 || queue < 0 {
			return fmt.Errorf("WithMethodLimits(%q, %d, %d): the concurrency must be at least 1, the queue at least 0", method, concurrency, queue)
		}
		if o.methods == nil {
			o.methods = map[string]admission.Limits{}
		}
		o.methods[method] = admission.Limits{Running: concurrency, Waiting: queue}
		return nil
	}}
}

// WithQueueGroup sets the queue group: each request goes to one instance of each group. The default
// is the group of the .proto file, or "q".
func WithQueueGroup(group string) ServerServiceOption {
	return forServices(func(o *serviceOptions) error {
		if err := names.CheckQueueGroup(group); err != nil {
			return fmt.Errorf("WithQueueGroup: queue group %w", err)
		}
		o.queueGroup, o.noQueueGroup = group, false
		return nil
	})
}

// WithoutQueueGroup makes every instance get every request. The caller sees the first answer. It is
// for one-way methods; [UnaryMethod.Gather], which takes the answers of all, does not need it.
// Streaming methods, which need one instance, then fail with CodeUnimplemented.
func WithoutQueueGroup() ServerServiceOption {
	return forServices(func(o *serviceOptions) error {
		o.queueGroup, o.noQueueGroup = "", true
		return nil
	})
}

// WithServiceMetadata adds metadata that discovery shows. It replaces the value of a key that is
// there already. Keys that begin with "natscall." are reserved.
func WithServiceMetadata(metadata map[string]string) ServerServiceOption {
	return forServices(func(o *serviceOptions) error {
		if err := names.CheckMetadata(metadata); err != nil {
			return fmt.Errorf("WithServiceMetadata: metadata %w", err)
		}
		merged := map[string]string{}
		maps.Copy(merged, o.metadata)
		maps.Copy(merged, metadata)
		o.metadata = merged
		return nil
	})
}
