package rpcauth

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/natscall/natscall/rpc"
)

// Verifier finds out who makes the calls of a server, and decides which of them may pass. Server is
// the server's option. It may be used by several servers of one connection, and concurrently.
type Verifier struct {
	common
	limits       limits
	logger       *slog.Logger
	servers      serverVersions
	onVulnerable Action
	info         infoReader

	trust    trust
	subject  func(*rpc.Call) string
	covered  []string
	rules    patterns[[]Rule]
	required patterns[bool]
	window   *window
	store    func(ctx context.Context, id string, until time.Time) (bool, error) // or nil

	unmatched unmatched
	counters  counters
	logs      logs
}

// limits are the times of signatures.
type limits struct {
	skew, lifetime time.Duration
}

// logs bounds what is logged.
type logs struct {
	refused    [reasons]logLimit
	vulnerable logLimit
	doubtful   logLimit
}

// The defaults.
const (
	defaultSkew        = 30 * time.Second
	defaultMaxLifetime = time.Minute
	defaultLifetime    = 10 * time.Second // of a client's signatures
	defaultWindow      = 1 << 20
)

// NewVerifier returns a Verifier for servers on a connection. The error is that of an option.
func NewVerifier(nc *nats.Conn, opts ...VerifierOption) (*Verifier, error) {
	if nc == nil {
		return nil, errors.New("rpcauth: NewVerifier: there is no connection")
	}
	v := &Verifier{
		common: common{now: time.Now}, limits: limits{defaultSkew, defaultMaxLifetime}, logger: slog.Default(),
		trust: trust{issuers: map[string]string{}}, subject: (*rpc.Call).Subject,
		rules: patterns[[]Rule]{}, required: patterns[bool]{}, window: newWindow(defaultWindow),
	}
	v.servers.connected = nc.ConnectedServerVersion
	for _, opt := range opts {
		if opt == nil {
			return nil, errors.New("rpcauth: an option is nil")
		}
		if err := opt.applyVerifier(v); err != nil {
			return nil, fmt.Errorf("rpcauth: %w", err)
		}
	}
	if v.trust.isEmpty() && len(v.required) > 0 {
		return nil, errors.New("rpcauth: RequireSignature needs issuers (WithIssuers): no call could pass")
	}
	v.servers.vulnerable(v.now()) // if the connection is lost meanwhile, this is the version
	return v, nil
}

// Stats returns what the Verifier has decided.
func (v *Verifier) Stats() Stats {
	s := v.counters.stats()
	s.Remembered = v.window.len()
	return s
}

// Server returns the option of a server, or of the registration of a service, that makes
// [Verifier.Intercept] an interceptor, after those of earlier options, and checks the patterns of
// [Allow] and [RequireSignature]: Register fails if a service does not have a method that a pattern
// names, where its Protobuf descriptor is known. And while a pattern matches no method that has
// been registered with such an option of the Verifier, all calls are refused with
// CodeFailedPrecondition, since a pattern that is misspelt protects nothing. So register all
// services before Start. Give it to a server or to its services, not to both.
func (v *Verifier) Server() rpc.ServerServiceOption {
	v.unmatched.expect(slices.Concat(slices.Collect(maps.Keys(v.rules)), slices.Collect(maps.Keys(v.required))))
	return rpc.WithServerOptions(rpc.WithInterceptors(v.Intercept), rpc.WithMethodInterceptors(v.unmatched.registered))
}

// Intercept is an [rpc.Interceptor] for servers. By itself it does not check that patterns match
// any method; prefer [Verifier.Server].
func (v *Verifier) Intercept(ctx context.Context, call *rpc.Call, next rpc.Next) error {
	if !call.OnServer() {
		return rpc.Errorf(rpc.CodeInternal, "%s: a Verifier is for servers, NewSigner for clients", call.Method())
	}
	kind, err := v.admit(ctx, call)
	if err != nil {
		return v.refused(ctx, call, err)
	}
	v.counters.accepted[kind].Add(1)
	return next(ctx, call)
}

// admit decides whether a call may pass, and leaves the identity for [FromContext].
func (v *Verifier) admit(ctx context.Context, call *rpc.Call) (Kind, error) {
	if err := v.unmatched.check(); err != nil {
		return KindNone, err
	}
	proof, err := v.verify(call)
	if err != nil {
		return KindNone, err
	}
	if required, _ := v.required.find(call.Method()); required && proof == nil {
		return KindNone, refuse(ReasonUnsigned, "the call has to be signed")
	}
	rules, ruled := v.rules.find(call.Method())
	var id *Identity
	switch {
	case proof != nil:
		id = proof.id
	case ruled:
		id = v.imported(call)
	case v.isImported(call):
		call.SetValue(&v.info)
		return KindImported, nil
	default:
		return KindNone, nil
	}
	if ruled && !slices.ContainsFunc(rules, func(rule Rule) bool { return rule(ctx, call, id) }) {
		return KindNone, denial(id)
	}
	if proof != nil {
		if err := v.remember(ctx, call, proof); err != nil {
			return KindNone, err
		}
	}
	call.SetValue(id)
	return id.Kind, nil
}

// denial is the refusal of a caller that no rule accepts.
func denial(id *Identity) *refusal {
	if id.Kind == KindNone {
		return refuse(ReasonNoIdentity, "nothing proves who calls")
	}
	r := refuse(ReasonDenied, "%s user %q of account %q may not call it", id.Kind, id.User, id.Account)
	r.code = rpc.CodePermissionDenied
	return r
}

// isImported reports whether the NATS server says who calls, and may be believed.
func (v *Verifier) isImported(call *rpc.Call) bool {
	switch judge(call) {
	case headerAbsent:
		return false
	case headerDoubtful:
		v.doubt(call)
		return false
	}
	version, vulnerable := v.servers.vulnerable(v.now())
	if !vulnerable {
		return true
	}
	v.counters.vulnerable.Add(1)
	if unlogged, ok := v.logs.vulnerable.take(v.now(), time.Minute); ok {
		v.logger.Warn("rpcauth: clients of this NATS server can forge who they are (CVE-2026-33223); update it to 2.11.15, 2.12.6 or later",
			"version", version, "method", call.Method(), "believed", v.onVulnerable == Warn, "unlogged", unlogged)
	}
	return v.onVulnerable == Warn
}

// doubt counts and logs a call whose identity may be forged by its header.
func (v *Verifier) doubt(call *rpc.Call) {
	v.counters.doubtful.Add(1)
	if unlogged, ok := v.logs.doubtful.take(v.now(), time.Minute); ok {
		v.logger.Warn("rpcauth: what the NATS server says of a caller may be forged, so it has no identity; has the call more than eight lines of header, or come through two imports?",
			"method", call.Method(), "keys", len(call.Header()), "bytes", call.Peer().HeaderSize, "unlogged", unlogged)
	}
}

// imported returns what the NATS server says of the caller.
func (v *Verifier) imported(call *rpc.Call) *Identity {
	id := new(Identity)
	if v.isImported(call) {
		*id = v.info.read(call)
	}
	return id
}

// proof is a signature that is right.
type proof struct {
	id     *Identity
	signed signedID
	until  time.Time // the time from which the signature is refused
}

// verify returns the proof of a signed call, or nil if it is not signed.
func (v *Verifier) verify(call *rpc.Call) (*proof, error) {
	if v.trust.isEmpty() {
		return nil, nil
	}
	header, found, err := singleValue(call.Header(), signatureHeader)
	if err != nil {
		return nil, refuse(ReasonMalformed, "the header %s %v", signatureHeader, err)
	}
	if !found {
		return nil, nil
	}
	s, err := parseSignature(header)
	if err != nil {
		return nil, refuse(ReasonMalformed, "the header %s %v", signatureHeader, err)
	}
	token, _, err := singleValue(call.Header(), jwtHeader)
	if err != nil {
		return nil, refuse(ReasonMalformed, "the header %s %v", jwtHeader, err)
	}
	now := v.now()
	if err := v.check(s, call, now); err != nil {
		return nil, err
	}
	id, err := v.trust.identify(s.key, token, now, v.limits.skew)
	if err != nil {
		return nil, err
	}
	signed, err := v.signed(s, call, token)
	if err != nil {
		return nil, err
	}
	if !hasSigned(s.key, signed, s.signature) {
		return nil, refuse(ReasonSignature, "the signature is not of this request")
	}
	if id.Claims != nil {
		v.trust.tokens.put(token, id.Claims)
	}
	return &proof{id, idOf(signed), s.expires.Add(v.limits.skew)}, nil
}

// check looks at what a signature says of itself.
func (v *Verifier) check(s *signature, call *rpc.Call, now time.Time) error {
	lifetime := s.expires.Sub(s.issued)
	switch {
	case lifetime <= 0 || lifetime > v.limits.lifetime:
		return refuse(ReasonTime, "the signature is valid for %v, %v are allowed", lifetime, v.limits.lifetime)
	case s.issued.After(now.Add(v.limits.skew)):
		return refuse(ReasonTime, "the signature is from the future, by %v: do the clocks differ?", s.issued.Sub(now).Round(time.Millisecond))
	case !now.Before(s.expires.Add(v.limits.skew)):
		return refuse(ReasonTime, "the signature has expired, %v ago", now.Sub(s.expires).Round(time.Millisecond))
	case s.audience != v.audience:
		return refuse(ReasonAudience, "the signature is for another audience, %q", s.audience)
	case (s.nonce == "") != (call.ID() != ""):
		return refuse(ReasonMalformed, "a request with a call id has no nonce, and any other has one")
	}
	for _, name := range v.covered {
		if _, ok := slices.BinarySearch(s.headers, name); !ok {
			return refuse(ReasonHeaders, "the signature does not cover the header %s", name)
		}
	}
	return nil
}

// signed returns the bytes of which the signature has to be.
func (v *Verifier) signed(s *signature, call *rpc.Call, token string) ([]byte, error) {
	r := request{
		method: call.Method(), subject: v.subject(call), id: call.ID(), codec: call.Peer().Codec,
		streams: streams(call.Kind()), header: call.Header(), jwt: token,
	}
	if !r.streams {
		var err error
		if r.data, err = call.RequestData(); err != nil {
			return nil, err
		}
	}
	return appendSigned(nil, s, &r), nil
}

// streams reports whether the client streams.
func streams(k rpc.Kind) bool { return k == rpc.KindClientStream || k == rpc.KindBidi }

// remember makes a signature count once. It may have expired meanwhile, as a large request comes in
// a stream, and what has expired may be forgotten.
func (v *Verifier) remember(ctx context.Context, call *rpc.Call, p *proof) error {
	now, id := v.now(), scoped(p.signed, call)
	if !now.Before(p.until) {
		return refuse(ReasonTime, "the signature has expired before the request was there")
	}
	if v.window.limit > 0 {
		switch v.window.add(id, p.until, now) {
		case seenFull:
			r := refuse(ReasonWindow, "too many signed calls (the server's rpcauth.WithReplayWindow)")
			r.code = rpc.CodeResourceExhausted
			return r
		case seenUnknown:
			return refuse(ReasonTime, "the server's clock was set back: whether the request has come before is not known")
		case seenBefore:
			return refuse(ReasonReplay, "the request has come before")
		}
	}
	if v.store == nil {
		return nil
	}
	first, err := v.store(ctx, hex.EncodeToString(id[:]), p.until)
	if err != nil {
		r := refuse(ReasonWindow, "whether the request has come before is not known")
		r.code, r.cause = rpc.CodeUnavailable, err
		return r
	} else if !first {
		return refuse(ReasonReplay, "the request has come before")
	}
	return nil
}

// refusal is why a call may not pass.
type refusal struct {
	reason Reason
	code   rpc.Code
	text   string
	cause  error // for the log only
}

func refuse(reason Reason, format string, args ...any) *refusal {
	return &refusal{reason: reason, code: rpc.CodeUnauthenticated, text: fmt.Sprintf(format, args...)}
}

// Error implements error.
func (r *refusal) Error() string { return r.text }

// refused counts and logs a refusal, and returns what the caller is told. Any other error, such as
// that of a request that is too large, is the caller's as it is.
func (v *Verifier) refused(ctx context.Context, call *rpc.Call, err error) error {
	var r *refusal
	if !errors.As(err, &r) {
		return err
	}
	v.counters.refused[r.reason].Add(1)
	if unlogged, ok := v.logs.refused[r.reason].take(v.now(), time.Second); ok {
		v.logger.WarnContext(ctx, "rpcauth: a call was refused", "method", call.Method(), "code", r.code, "reason", r.reason.String(),
			"error", r.text, "cause", r.cause, "call", call.ID(), "subject", call.Subject(), "unlogged", unlogged)
	}
	return rpc.Errorf(r.code, "%s: %s", call.Method(), r.text)
}
